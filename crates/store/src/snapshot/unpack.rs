//! Unpacking: makes lazy snapshots ready.
//!
//! All layers of a chain are extracted at the same time, each into its own directory, as `layer::extract`
//! explains. A layer that is extracted before its parent is ready waits as *pending*: its row names the
//! directory and what the parent still has to tell. Finishing is quick and goes from the lowest up.
//!
//! Two processes that want the same layer take turns by a lock named after the diff id; the second finds
//! the work done. A directory without row, left by a process that died, is collected.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, OptionalExtension as _, params};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use slipway_model::{Digest, Digester};

use super::active::{copy_root, make_directory};
use super::{LayerBlob, Row, SnapshotId, Snapshots, row};
use crate::content::ContentStore;
use crate::error::{Result, StoreError};
use crate::layer::Decompressor;
use crate::layer::extract::{Extracted, Extractor, Outcome, Placement, open_root};
use crate::layer::path::EntryPath;
use crate::lease::Lease;
use crate::lock::{FileLock, Share};
use crate::tar::TarReader;
use crate::tree;

const CHUNK: usize = 256 << 10;

/// How far the unpacking of one layer is.
#[derive(Clone, Copy, Debug)]
pub struct UnpackProgress {
    pub snapshot: SnapshotId,
    /// The digest of the layer's blob.
    pub layer: Digest,
    /// Bytes of the blob that were read.
    pub current: u64,
    pub total: u64,
}

/// How a chain is unpacked.
#[derive(Clone, Copy)]
pub struct UnpackOptions<'a> {
    /// How many layers are extracted at once.
    pub parallelism: usize,
    /// Is told now and then how far a layer is, by any thread; cancels by `Break`.
    pub progress: &'a (dyn Fn(UnpackProgress) -> ControlFlow<()> + Sync),
}

impl Default for UnpackOptions<'_> {
    fn default() -> Self {
        let parallelism = std::thread::available_parallelism().map_or(2, |count| count.get());
        Self { parallelism, progress: &|_| ControlFlow::Continue(()) }
    }
}

impl Snapshots {
    /// Makes a snapshot and its ancestors ready. The blobs of those that are lazy must be in the store;
    /// see [`Self::needed_blobs`].
    pub fn unpack_chain(&self, id: SnapshotId, options: &UnpackOptions<'_>, lease: &Lease) -> Result<()> {
        let waiting: Vec<SnapshotId> = self
            .rows(id)?
            .iter()
            .filter(|row| row.dir.is_none() && row.pending.is_none())
            .map(|row| row.id)
            .collect();
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(id) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
                let progress = |progress| {
                    let other_failed = failed.load(Ordering::Relaxed);
                    if other_failed { ControlFlow::Break(()) } else { (options.progress)(progress) }
                };
                if failed.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.extract(*id, &progress, lease) {
                    failed.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..options.parallelism.clamp(1, waiting.len().max(1)) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => self.finish_chain(id, options, lease),
        }
    }

    /// Extracts one layer whose blob is in the store, before its ancestors if need be. It is ready at
    /// once if they are; otherwise [`Self::unpack_chain`] completes it later.
    pub fn unpack_layer(&self, id: SnapshotId, options: &UnpackOptions<'_>, lease: &Lease) -> Result<()> {
        self.extract(id, options.progress, lease)?;
        self.finish_if_possible(id, options, lease)
    }

    /// Like [`Self::unpack_layer`], from a blob that is being read from elsewhere, which need not be in
    /// the store unless it turns out that the layer can only be extracted over its parent. Its diff id is
    /// verified, its digest is the caller's business.
    pub fn unpack_from(
        &self,
        id: SnapshotId,
        blob: &LayerBlob,
        input: impl Read + Send,
        options: &UnpackOptions<'_>,
        lease: &Lease,
    ) -> Result<()> {
        let row = self.store.database.read(|connection| row::require(connection, id))?;
        if row.dir.is_none() && row.pending.is_none() {
            self.extract_locked(&row, blob, lease, options.progress, || Ok(input))?;
        }
        self.finish_if_possible(id, options, lease)
    }

    /// Lists the blobs that must be in the store before [`Self::unpack_chain`], lowest first.
    pub fn needed_blobs(&self, id: SnapshotId) -> Result<Vec<(SnapshotId, LayerBlob)>> {
        let content = ContentStore::new(std::sync::Arc::clone(&self.store));
        let mut needed = Vec::new();
        // A pending layer without directory is going to be extracted from its blob again.
        let needs = |row: &&Row| row.dir.is_none() && row.pending.as_deref().is_none_or(str::is_empty);
        for row in self.rows(id)?.iter().filter(needs) {
            let blobs = self.blobs(row.id)?;
            let shared = self.store.database.read(|connection| shared_directory(connection, row))?;
            let mut present = shared.is_some();
            for blob in &blobs {
                present = present || content.contains(&blob.descriptor.digest)?.is_some();
            }
            if !present {
                needed.push((row.id, blobs.into_iter().next().ok_or(StoreError::NoContent(row.id))?));
            }
        }
        Ok(needed)
    }

    /// Makes the directory of a lazy layer, at least as pending.
    fn extract(
        &self,
        id: SnapshotId,
        progress: &(dyn Fn(UnpackProgress) -> ControlFlow<()> + Sync),
        lease: &Lease,
    ) -> Result<()> {
        let row = self.store.database.read(|connection| row::require(connection, id))?;
        if row.dir.is_some() || row.pending.is_some() || self.adopt(&row)? {
            return Ok(());
        }
        let (blob, file) = self.open_blob(id, lease)?;
        self.extract_locked(&row, &blob, lease, progress, || Ok(file))
    }

    fn open_blob(&self, id: SnapshotId, lease: &Lease) -> Result<(LayerBlob, std::fs::File)> {
        let content = ContentStore::new(std::sync::Arc::clone(&self.store));
        let blobs = self.blobs(id)?;
        let first = blobs.first().ok_or(StoreError::NoContent(id))?.descriptor.digest;
        for blob in blobs {
            let digest = blob.descriptor.digest;
            lease.hold_blobs(&[digest])?;
            if content.contains(&digest)?.is_some() {
                return Ok((blob, content.open(&digest)?));
            }
        }
        Err(StoreError::BlobMissing(first))
    }

    fn extract_locked<R: Read + Send>(
        &self,
        row: &Row,
        blob: &LayerBlob,
        lease: &Lease,
        progress: &(dyn Fn(UnpackProgress) -> ControlFlow<()> + Sync),
        open: impl FnOnce() -> Result<R>,
    ) -> Result<()> {
        let start = UnpackProgress {
            snapshot: row.id,
            layer: blob.descriptor.digest,
            current: 0,
            total: blob.descriptor.size,
        };
        let cancelled = || progress(start).is_break();
        let lock = self.store.layout.lock(&format!("unpack-{}", blob.diff_id.hex()));
        let _lock = FileLock::wait_unless(&lock, Share::Exclusive, &cancelled)?;
        let now = self.store.database.read(|connection| row::require(connection, row.id))?;
        if now.dir.is_some() || now.pending.is_some() || self.adopt(&now)? {
            return Ok(());
        }
        let placement = if row.parent.is_none() { Placement::Alone } else { Placement::Detached };
        let dir = lease.unique_name();
        let files = make_directory(self, &dir)?;
        let root = open_root(&files)?;
        let outcome = self
            .pipe(blob, &root, placement, open()?, &|current| progress(UnpackProgress { current, ..start }));
        match outcome {
            Ok(Outcome::Done(extracted)) => self.set_pending(row, &dir, Some(&extracted)),
            Ok(Outcome::NeedsParent) => {
                self.discard(&dir, lease);
                self.set_pending(row, "", None)
            }
            Err(error) => {
                self.discard(&dir, lease);
                Err(error)
            }
        }
    }

    /// Decompresses in one thread, and verifies and extracts in this one.
    fn pipe(
        &self,
        blob: &LayerBlob,
        root: &OwnedFd,
        placement: Placement,
        input: impl Read + Send,
        progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<Outcome> {
        let layer = blob.descriptor.digest;
        let (sender, receiver) = sync_channel(4);
        let (back, spare) = sync_channel(8);
        std::thread::scope(|scope| {
            scope.spawn(move || decompress(Counted { input, count: 0, progress }, layer, &sender, &spare));
            let mut archive = Verified::new(receiver, back);
            let extractor = Extractor::new(layer, root.as_fd(), placement, self.store.flavour);
            let outcome = extractor.run(TarReader::new(&mut archive))?;
            if matches!(outcome, Outcome::Done(_)) {
                let actual = archive.digester.finish();
                if actual != blob.diff_id {
                    return Err(StoreError::DiffIdMismatch { layer, expected: blob.diff_id, actual });
                }
            }
            Ok(outcome)
        })
    }

    /// Records the directory of a layer: ready if its parent has nothing to say, else pending. Without
    /// `extracted`, the layer must be extracted over its parent.
    fn set_pending(&self, row: &Row, dir: &str, extracted: Option<&Extracted>) -> Result<()> {
        let ready = extracted.is_some_and(|e| row.parent.is_none() || (e.implied.is_empty() && e.has_root));
        let portable = extracted.is_some_and(|e| e.portable);
        let implied = extracted.map(|extracted| {
            let mut paths: Vec<Vec<u8>> = extracted.implied.iter().map(EntryPath::to_bytes).collect();
            if !extracted.has_root {
                paths.insert(0, b".".to_vec());
            }
            paths.join(&0)
        });
        self.store.database.write(|tx| {
            if ready {
                let update = "UPDATE snapshots SET dir = ?2, portable = ?3 WHERE id = ?1";
                tx.prepare_cached(update)?.execute(params![row.id.row(), dir, portable])?;
            } else {
                let update =
                    "UPDATE snapshots SET pending = ?2, portable = ?3, pending_implied = ?4 WHERE id = ?1";
                tx.prepare_cached(update)?.execute(params![row.id.row(), dir, portable, implied])?;
            }
            Ok(())
        })
    }

    /// Makes a snapshot ready with the directory of another that has the same layer.
    fn adopt(&self, row: &Row) -> Result<bool> {
        if self.store.database.read(|connection| shared_directory(connection, row))?.is_none() {
            return Ok(false);
        }
        self.store.database.write(|tx| {
            // Again, as a collection may have come in between.
            let Some((dir, portable)) = shared_directory(tx, row)? else { return Ok(false) };
            let update = "UPDATE snapshots SET dir = ?2, portable = ?3
                WHERE id = ?1 AND dir IS NULL AND pending IS NULL";
            tx.prepare_cached(update)?.execute(params![row.id.row(), dir, portable])?;
            Ok(row::require(tx, row.id)?.dir.is_some())
        })
    }

    fn finish_if_possible(&self, id: SnapshotId, options: &UnpackOptions<'_>, lease: &Lease) -> Result<()> {
        let rows = self.rows(id)?;
        let waiting = rows.iter().any(|row| row.dir.is_none() && row.pending.is_none());
        if waiting { Ok(()) } else { self.finish_chain(id, options, lease) }
    }

    /// Completes pending layers, lowest first.
    fn finish_chain(&self, id: SnapshotId, options: &UnpackOptions<'_>, lease: &Lease) -> Result<()> {
        for row in self.rows(id)? {
            if row.dir.is_none() {
                self.finish(row.id, options, lease)?;
            }
        }
        Ok(())
    }

    fn finish(&self, id: SnapshotId, options: &UnpackOptions<'_>, lease: &Lease) -> Result<()> {
        let lock = self.store.layout.lock(&format!("finish-{id}"));
        let _lock = FileLock::wait(&lock, Share::Exclusive)?;
        let row = self.store.database.read(|connection| row::require(connection, id))?;
        let (Some(pending), None) = (&row.pending, &row.dir) else { return Ok(()) };
        let mended = match &row.pending_implied {
            Some(implied) => self.mend(&row, pending, implied)?,
            None => false,
        };
        let dir = if mended {
            pending.clone()
        } else {
            let dir = self.extract_over_parent(&row, options, lease)?;
            if !pending.is_empty() {
                self.discard(pending, lease);
            }
            dir
        };
        self.store.database.write(|tx| {
            let update = "UPDATE snapshots SET dir = ?2, portable = portable AND ?3, pending = NULL,
                pending_implied = NULL WHERE id = ?1";
            tx.prepare_cached(update)?.execute(params![id.row(), dir, mended])?;
            Ok(())
        })
    }

    /// Gives implied directories the parent's metadata; false if one of them is none in the parent.
    fn mend(&self, row: &Row, pending: &str, implied: &[u8]) -> Result<bool> {
        let Some(parent) = row.parent else { return Ok(true) };
        let paths: Vec<&[u8]> = implied.split(|&byte| byte == 0).filter(|path| !path.is_empty()).collect();
        let files = self.store.layout.files(pending);
        if paths == [b"."] {
            let below = self.directories(parent)?;
            if let Some(below) = below.first() {
                copy_root(below, &files)?;
            }
            return Ok(true);
        }
        let view = self.mount_view(parent)?;
        let root = open_root(&files)?;
        // Deepest first: mending a directory does not change those below it.
        for path in paths.iter().rev() {
            let below = match open_beneath(&view, path) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(Errno::LOOP | Errno::NOTDIR) => return Ok(false),
                Err(error) => return Err(self.mend_error(path, error)),
            };
            let above = open_beneath(&root, path).map_err(|error| self.mend_error(path, error))?;
            tree::copy_metadata(below.as_fd(), above.as_fd())
                .map_err(|error| self.mend_error(path, error))?;
        }
        Ok(true)
    }

    fn mend_error(&self, path: &[u8], error: Errno) -> StoreError {
        StoreError::io("set the metadata of", String::from_utf8_lossy(path).into_owned())(error)
    }

    /// Extracts a layer through a mount over its parent.
    fn extract_over_parent(&self, row: &Row, options: &UnpackOptions<'_>, lease: &Lease) -> Result<String> {
        let (blob, file) = self.open_blob(row.id, lease)?;
        let active = self.prepare(row.parent, lease)?;
        let tree = active.mount()?;
        let root = rustix::fs::openat(
            &tree,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(StoreError::mount("open the mount"))?;
        let start = UnpackProgress {
            snapshot: row.id,
            layer: blob.descriptor.digest,
            current: 0,
            total: blob.descriptor.size,
        };
        let progress = |current| (options.progress)(UnpackProgress { current, ..start });
        self.pipe(&blob, &root, Placement::Merged, file, &progress)?;
        drop((root, tree));
        Ok(active.into_directory())
    }

    fn discard(&self, dir: &str, lease: &Lease) {
        let path = self.store.layout.snapshots().join(dir);
        if let Err(error) = self.store.layout.discard(&path, &lease.unique_name()) {
            tracing::debug!(%error, "left a directory to the next collection");
        }
    }
}

/// The directory of another snapshot that has the same layer, and whether it serves over any parent; if it
/// does not, the other has the same layers below too.
fn shared_directory(connection: &Connection, row: &Row) -> Result<Option<(String, bool)>> {
    let digest = |digest: &Option<Digest>| digest.map(|digest| *digest.as_bytes());
    let query = "SELECT dir, portable FROM snapshots WHERE diff_id = ?1 AND portable AND dir IS NOT NULL
        UNION ALL SELECT dir, portable FROM snapshots WHERE chain_id = ?2 AND dir IS NOT NULL LIMIT 1";
    let mut query = connection.prepare_cached(query)?;
    let values = params![digest(&row.diff_id), digest(&row.chain_id)];
    Ok(query.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn open_beneath(root: &impl std::os::fd::AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

type Chunk = io::Result<Vec<u8>>;

/// Sends the archive in pieces; ends when the blob does, or when nobody receives.
fn decompress(input: impl Read, layer: Digest, sender: &SyncSender<Chunk>, spare: &Receiver<Vec<u8>>) {
    let malformed = |error: io::Error| match error.downcast::<StoreError>() {
        Ok(error) => io::Error::other(error),
        Err(error) => io::Error::other(StoreError::MalformedLayer { layer, reason: error.to_string() }),
    };
    let mut archive = match Decompressor::new(input) {
        Ok(archive) => archive,
        Err(error) => {
            let _ = sender.send(Err(malformed(error)));
            return;
        }
    };
    loop {
        let mut chunk = spare.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match archive.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = sender.send(Err(malformed(error)));
                    return;
                }
            }
        }
        chunk.truncate(filled);
        if filled == 0 || sender.send(Ok(chunk)).is_err() {
            return;
        }
    }
}

/// Receives the archive and hashes it.
struct Verified {
    receiver: Receiver<Chunk>,
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    digester: Digester,
}

impl Verified {
    fn new(receiver: Receiver<Chunk>, back: SyncSender<Vec<u8>>) -> Self {
        Self { receiver, back, chunk: Vec::new(), position: 0, digester: Digester::new() }
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            // The sender goes away at the end of the blob.
            let Ok(chunk) = self.receiver.recv() else { return Ok(0) };
            let chunk = chunk?;
            self.digester.update(&chunk);
            let used = std::mem::replace(&mut self.chunk, chunk);
            self.position = 0;
            let _ = self.back.try_send(used);
        }
        let count = buffer.len().min(self.chunk.len() - self.position);
        buffer[..count].copy_from_slice(&self.chunk[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// Tells how much of the blob was read, and stops when asked to.
struct Counted<'a, R> {
    input: R,
    count: u64,
    progress: &'a (dyn Fn(u64) -> ControlFlow<()> + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.count += read as u64;
        if (self.progress)(self.count).is_break() {
            return Err(io::Error::other(StoreError::Cancelled));
        }
        Ok(read)
    }
}
