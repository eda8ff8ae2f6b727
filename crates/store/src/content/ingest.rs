//! Writing one blob: hashed while it is written, verified before it appears.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::PathBuf;

use slipway_model::{Digest, Digester};

use super::ContentStore;
use crate::error::{Result, StoreError};
use crate::lease::Lease;
use crate::lock::{FileLock, Share};

/// A blob that is being written.
///
/// [`Ingest::commit`] makes it appear. Dropped before that, it leaves nothing, unless its digest was
/// known: then what was written is kept for a later ingest of the same digest.
pub struct Ingest {
    content: ContentStore,
    lease: Lease,
    expected: Option<(Digest, u64)>,
    output: Output,
    path: PathBuf,
    digester: Digester,
    offset: u64,
    done: bool,
}

#[derive(Debug)]
enum Output {
    /// A file named by digest, locked against other processes, that survives this one.
    Resumable(FileLock),
    /// A file of this lease.
    Temporary(File),
}

impl Ingest {
    pub(super) fn start(
        content: &ContentStore,
        expected: Option<(Digest, u64)>,
        lease: &Lease,
    ) -> Result<Self> {
        if let Some((digest, size)) = expected {
            lease.hold_blobs(&[digest])?;
            if let Some(lock) = FileLock::try_take(&partial_path(content, &digest), Share::Exclusive)? {
                return Self::resume(content, (digest, size), lock, lease);
            }
        }
        let path = content.store.layout.ingest().join(lease.unique_name());
        // Others may read what is there while it grows.
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(StoreError::io("create", &path))?;
        Ok(Self {
            content: content.clone(),
            lease: lease.clone(),
            expected,
            output: Output::Temporary(file),
            path,
            digester: Digester::new(),
            offset: 0,
            done: false,
        })
    }

    /// Goes on with the locked partial file; its hash is computed anew from what it holds.
    pub(super) fn resume(
        content: &ContentStore,
        (digest, size): (Digest, u64),
        lock: FileLock,
        lease: &Lease,
    ) -> Result<Self> {
        let path = partial_path(content, &digest);
        let mut digester = Digester::new();
        let mut offset = hash_to_end(lock.file(), &mut digester).map_err(StoreError::io("read", &path))?;
        if offset > size {
            lock.file().set_len(0).map_err(StoreError::io("truncate", &path))?;
            (digester, offset) = (Digester::new(), 0);
        }
        let mut file = lock.file();
        file.seek(SeekFrom::Start(offset)).map_err(StoreError::io("seek in", &path))?;
        Ok(Self {
            content: content.clone(),
            lease: lease.clone(),
            expected: Some((digest, size)),
            output: Output::Resumable(lock),
            path,
            digester,
            offset,
            done: false,
        })
    }

    /// Returns how many bytes are there already: where a resumed download goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Throws away what is there, for a source that cannot go on in the middle.
    pub fn restart(&mut self) -> Result<()> {
        let mut file = self.file();
        file.set_len(0).and_then(|()| file.rewind()).map_err(StoreError::io("truncate", &self.path))?;
        (self.digester, self.offset) = (Digester::new(), 0);
        Ok(())
    }

    /// Adds `bytes` at the end.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((digest, expected)) = self.expected {
            let actual = self.offset + bytes.len() as u64;
            if actual > expected {
                self.remove_on_drop();
                return Err(StoreError::SizeMismatch { digest, expected, actual });
            }
        }
        let mut file = self.file();
        file.write_all(bytes).map_err(StoreError::io("write the blob", &self.path))?;
        self.digester.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Verifies size and digest and makes the blob appear. On a mismatch the file is removed.
    pub fn commit(mut self) -> Result<Digest> {
        let actual = std::mem::take(&mut self.digester).finish();
        if let Some((digest, expected)) = self.expected {
            let fault = if self.offset != expected {
                Some(StoreError::SizeMismatch { digest, expected, actual: self.offset })
            } else if actual != digest {
                Some(StoreError::DigestMismatch { expected: digest, actual })
            } else {
                None
            };
            if let Some(fault) = fault {
                // A stream that merely ended early is worth going on with.
                if self.offset >= expected {
                    self.remove_on_drop();
                }
                return Err(fault);
            }
        }
        self.content.install(&self.path, &actual, self.offset, &self.lease)?;
        self.done = true;
        Ok(actual)
    }

    pub(crate) fn file(&self) -> &File {
        match &self.output {
            Output::Resumable(lock) => lock.file(),
            Output::Temporary(file) => file,
        }
    }

    fn remove_on_drop(&mut self) {
        self.offset = 0;
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(StoreError::Io { source, .. } | StoreError::NoSpace { source, .. }) => Err(source),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let keep = matches!(self.output, Output::Resumable(_)) && self.offset > 0;
        if !self.done && !keep {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn partial_path(content: &ContentStore, digest: &Digest) -> PathBuf {
    content.store.layout.ingest().join(digest.hex())
}

/// Locks the partial file of `digest`, waiting for whoever is writing it.
pub(super) fn lock_partial(
    content: &ContentStore,
    digest: &Digest,
    cancelled: &dyn Fn() -> bool,
) -> Result<FileLock> {
    FileLock::wait_unless(&partial_path(content, digest), Share::Exclusive, cancelled)
}

/// Removes a partial file that is not needed.
pub(super) fn abandon(lock: FileLock) -> Result<()> {
    lock.remove()
}

fn hash_to_end(mut file: &File, digester: &mut Digester) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    file.rewind()?;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                digester.update(&buffer[..read]);
                total += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
