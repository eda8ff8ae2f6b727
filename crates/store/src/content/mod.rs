//! Blobs by digest.
//!
//! A blob is a file in `blobs/sha256` and a row with its size; it is there if both are and the sizes
//! agree. File and row appear in one transaction, after the digest was verified while writing. Because
//! nothing here is flushed to the disk (every blob can be fetched or built again), a power cut may leave
//! a file short or, rarely, with holes: the size is checked at each open, and [`ContentStore::read`], by
//! which documents are read, verifies the digest again. What was found damaged is removed and reported
//! missing. The blobs of named images, which users may mean to keep, are flushed when the name is given.

mod ingest;

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use slipway_model::Digest;

pub use ingest::Ingest;

use crate::db;
use crate::error::{Result, StoreError};
use crate::lease::Lease;
use crate::store::Inner;

/// Gives access to the blobs of a store.
#[derive(Clone, Debug)]
pub struct ContentStore {
    store: Arc<Inner>,
}

/// How [`ContentStore::ingest_or_wait`] went.
#[derive(Debug)]
pub enum IngestOutcome {
    /// The blob is there already, perhaps since a moment ago; this is its size.
    Present(u64),
    /// The caller writes it; others wait for that.
    Started(Box<Ingest>),
}

impl ContentStore {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self { store }
    }

    /// Returns the size of the blob if it is there.
    pub fn contains(&self, digest: &Digest) -> Result<Option<u64>> {
        let row: Option<i64> = self.store.database.read(|connection| {
            let mut query = connection.prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?;
            Ok(query.query_row([digest.as_bytes()], |row| row.get(0)).optional()?)
        })?;
        let Some(size) = row.map(db::size_from) else { return Ok(None) };
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() == size => Ok(Some(size)),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("stat the blob", &path)(error))
            }
            _ => {
                tracing::warn!(%digest, "blob is missing or has the wrong size; forgetting it");
                self.forget(digest)?;
                Ok(None)
            }
        }
    }

    /// Returns where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.store.layout.blob(digest)
    }

    /// Opens the blob for reading, after checking its size.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        self.contains(digest)?.ok_or(StoreError::BlobMissing(*digest))?;
        let path = self.path(digest);
        File::open(&path).map_err(StoreError::io("open the blob", &path))
    }

    /// Reads a blob of at most `limit` bytes and verifies its digest.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let size = self.contains(digest)?.ok_or(StoreError::BlobMissing(*digest))?;
        if size > limit {
            return Err(StoreError::BlobTooLarge { digest: *digest, size, limit });
        }
        let path = self.path(digest);
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        File::open(&path)
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .map_err(StoreError::io("read the blob", &path))?;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(%digest, "blob does not match its digest; forgetting it");
            self.forget(digest)?;
            return Err(StoreError::BlobMissing(*digest));
        }
        Ok(bytes)
    }

    /// Keeps `bytes` as a blob.
    pub fn put(&self, bytes: impl AsRef<[u8]>, lease: &Lease) -> Result<Digest> {
        let bytes = bytes.as_ref();
        let digest = Digest::of(bytes);
        if self.contains(&digest)?.is_some() {
            // Only what is held stays: look again.
            lease.hold_blobs(&[digest])?;
            if self.contains(&digest)?.is_some() {
                return Ok(digest);
            }
        }
        let path = self.store.layout.ingest().join(lease.unique_name());
        let written = std::fs::write(&path, bytes).map_err(StoreError::io("write the blob", &path));
        let written = written.and_then(|()| self.install(&path, &digest, bytes.len() as u64, lease));
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written.map(|()| digest)
    }

    /// Starts to write a blob.
    ///
    /// With `expected`, what an earlier interrupted ingest of that digest has written is taken up:
    /// [`Ingest::offset`] says from where to go on. If another process is writing the same blob, this
    /// one writes its own copy from the start; see [`Self::ingest_or_wait`].
    pub fn ingest(&self, expected: Option<(Digest, u64)>, lease: &Lease) -> Result<Ingest> {
        Ingest::start(self, expected, lease)
    }

    /// Starts to write a blob unless it is there or another is writing it, in which case this waits for
    /// the other to finish or to give up.
    pub fn ingest_or_wait(
        &self,
        (digest, size): (Digest, u64),
        lease: &Lease,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<IngestOutcome> {
        lease.hold_blobs(&[digest])?;
        if let Some(size) = self.contains(&digest)? {
            return Ok(IngestOutcome::Present(size));
        }
        let lock = ingest::lock_partial(self, &digest, cancelled)?;
        if let Some(size) = self.contains(&digest)? {
            // The file that was locked may be one that this call has just made.
            ingest::abandon(lock)?;
            return Ok(IngestOutcome::Present(size));
        }
        Ok(IngestOutcome::Started(Box::new(Ingest::resume(self, (digest, size), lock, lease)?)))
    }

    /// Moves the finished file at `path` to its place and records it, in one transaction.
    pub(crate) fn install(
        &self,
        path: &std::path::Path,
        digest: &Digest,
        size: u64,
        lease: &Lease,
    ) -> Result<()> {
        let target = self.path(digest);
        self.store.database.write(|tx| {
            let insert = "INSERT INTO blobs VALUES (?1, ?2, ?3, ?3)
                ON CONFLICT (digest) DO UPDATE SET size = excluded.size, last_used_at = excluded.last_used_at";
            tx.prepare_cached(insert)?.execute(params![digest.as_bytes(), db::to_size(size), db::now()])?;
            lease.hold_blob_in(tx, digest)?;
            std::fs::rename(path, &target).map_err(StoreError::io("move the blob to", &target))
        })
    }

    /// Removes a blob that is damaged.
    fn forget(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        self.store.database.write(|tx| {
            tx.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?.execute([digest.as_bytes()])?;
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(StoreError::io("remove the blob", &path)(error))
                }
                _ => Ok(()),
            }
        })
    }
}
