//! Moving the bytes of one file into another, the cheapest way the file systems allow.
//!
//! Large files are cloned where blocks can be shared, else copied in the kernel, holes staying holes. Small
//! ones are read and written, which is faster for them, and anything is when its digest is wanted or the kernel
//! cannot copy between the two.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use slipway_model::{Digest, Digester};

use crate::entry::Metadata;

/// Up to this size, read and write beat the kernel's own copy.
const SMALL: u64 = 128 * 1024;
const BUFFER: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Copies contents, remembering what the file systems cannot do.
#[derive(Default)]
pub(crate) struct Mover {
    cannot_clone: AtomicBool,
    cannot_copy: AtomicBool,
}

/// What was moved.
pub(crate) struct Moved {
    pub(crate) size: u64,
    pub(crate) digest: Option<Digest>,
}

/// Says that two file systems do not support an operation between them.
fn is_unsupported(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NOSYS
            | Errno::NOTTY
            | Errno::PERM
            | Errno::TXTBSY
    )
}

impl Mover {
    /// Copies all of `source` into the empty `file`.
    pub(crate) fn copy(
        &self,
        source: &OwnedFd,
        file: &OwnedFd,
        metadata: &Metadata,
        hashing: bool,
    ) -> rustix::io::Result<Moved> {
        if !hashing && metadata.size > SMALL {
            if let Some(size) = self.clone_file(source, file, metadata)? {
                return Ok(Moved { size, digest: None });
            }
            if let Some(size) = self.kernel_copy(source, file, metadata)? {
                return Ok(Moved { size, digest: None });
            }
        }
        read_and_write(source, file, metadata.size, hashing)
    }

    /// Hashes a file that was written.
    pub(crate) fn digest(&self, file: &OwnedFd) -> rustix::io::Result<Digest> {
        let mut digester = Digester::new();
        let mut offset = 0;
        with_buffer(|buffer| {
            loop {
                match rustix::io::pread(file, &mut *buffer, offset) {
                    Ok(0) => return Ok(()),
                    Ok(length) => {
                        digester.update(&buffer[..length]);
                        offset += length as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
        })?;
        Ok(digester.finish())
    }

    fn clone_file(
        &self,
        source: &OwnedFd,
        file: &OwnedFd,
        metadata: &Metadata,
    ) -> rustix::io::Result<Option<u64>> {
        if self.cannot_clone.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match rustix::fs::ioctl_ficlone(file, source) {
            Ok(()) => Ok(Some(metadata.size)),
            Err(errno) if is_unsupported(errno) => {
                self.cannot_clone.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Copies in the kernel; `None` when it cannot, with nothing written.
    fn kernel_copy(
        &self,
        source: &OwnedFd,
        file: &OwnedFd,
        metadata: &Metadata,
    ) -> rustix::io::Result<Option<u64>> {
        if self.cannot_copy.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let sparse = metadata.blocks.saturating_mul(512) < metadata.size;
        let mut at = 0;
        while at < metadata.size {
            let end = if sparse { next_data(source, &mut at, metadata.size)? } else { metadata.size };
            while at < end {
                let (mut from, mut to) = (at, at);
                let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
                match rustix::fs::copy_file_range(source, Some(&mut from), file, Some(&mut to), length) {
                    // The file is shorter than it was.
                    Ok(0) => return Ok(Some(at)),
                    Ok(copied) => at += copied as u64,
                    Err(Errno::INTR) => {}
                    Err(errno) if is_unsupported(errno) && at == 0 => {
                        self.cannot_copy.store(true, Ordering::Relaxed);
                        return Ok(None);
                    }
                    Err(errno) if is_unsupported(errno) => {
                        // Only holes were passed over so far: begin again by reading.
                        rustix::fs::ftruncate(file, 0)?;
                        return Ok(None);
                    }
                    Err(errno) => return Err(errno),
                }
            }
        }
        if sparse {
            rustix::fs::ftruncate(file, metadata.size)?;
        }
        Ok(Some(metadata.size))
    }
}

/// Moves `at` to the next data, and returns where that ends.
fn next_data(source: &OwnedFd, at: &mut u64, size: u64) -> rustix::io::Result<u64> {
    match rustix::fs::seek(source, SeekFrom::Data(*at)) {
        Ok(start) => *at = start.min(size),
        Err(Errno::NXIO) => {
            *at = size;
            return Ok(size);
        }
        // The file system does not tell holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(size),
        Err(errno) => return Err(errno),
    }
    match rustix::fs::seek(source, SeekFrom::Hole(*at)) {
        Ok(end) => Ok(end.min(size)),
        Err(Errno::NXIO) => Ok(size),
        Err(errno) => Err(errno),
    }
}

fn read_and_write(
    source: &OwnedFd,
    file: &OwnedFd,
    expected: u64,
    hashing: bool,
) -> rustix::io::Result<Moved> {
    let mut digester = hashing.then(Digester::new);
    let mut size = 0;
    with_buffer(|buffer| {
        loop {
            let length = match rustix::io::pread(source, &mut *buffer, size) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            if let Some(digester) = &mut digester {
                digester.update(&buffer[..length]);
            }
            let mut written = 0;
            while written < length {
                match rustix::io::pwrite(file, &buffer[written..length], size + written as u64) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(count) => written += count,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            size += length as u64;
            // A short read is the end of the file; asking once more would be a system call for each.
            if length < BUFFER && size >= expected {
                return Ok(());
            }
        }
    })?;
    Ok(Moved { size, digest: digester.map(Digester::finish) })
}

fn with_buffer<T>(run: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER, 0);
        run(buffer)
    })
}
