//! The records of the build cache.
//!
//! A vertex may have several cache keys; they are linked to one canonical key, and the canonical key to
//! one record: a payload that only the solver understands, and the snapshots it needs. A record does not
//! keep its snapshots: collecting a snapshot removes the records that name it.

use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use slipway_model::Digest;

use crate::db;
use crate::error::Result;
use crate::lease::Lease;
use crate::snapshot::SnapshotId;
use crate::store::Inner;

/// Gives access to the records of the build cache.
#[derive(Clone, Debug)]
pub struct CacheTable {
    store: Arc<Inner>,
}

/// What is kept under a canonical key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    pub payload: Vec<u8>,
    pub snapshots: Vec<SnapshotId>,
    pub created_at: SystemTime,
}

/// A record to keep, with all keys that lead to it.
#[derive(Clone, Debug)]
pub struct CacheEntry {
    pub canonical: Digest,
    pub keys: Vec<Digest>,
    pub payload: Vec<u8>,
    pub snapshots: Vec<SnapshotId>,
}

impl CacheTable {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self { store }
    }

    /// Returns the canonical key of the first of `keys` that has one.
    pub fn canonical(&self, keys: &[Digest]) -> Result<Option<Digest>> {
        self.store.database.read(|connection| {
            let mut query = connection.prepare_cached("SELECT canonical FROM cache_keys WHERE key = ?1")?;
            for key in keys {
                let found: Option<Vec<u8>> =
                    query.query_row([key.as_bytes()], |row| row.get(0)).optional()?;
                if let Some(bytes) = found {
                    return db::digest_from(&bytes).map(Some);
                }
            }
            Ok(None)
        })
    }

    /// Makes `key` lead to `canonical`.
    pub fn link(&self, key: &Digest, canonical: &Digest) -> Result<()> {
        self.store.database.write(|tx| link(tx, key, canonical))
    }

    /// Makes each first key lead to the second, in one transaction.
    pub fn link_all(&self, links: &[(Digest, Digest)]) -> Result<()> {
        if links.is_empty() {
            return Ok(());
        }
        self.store.database.write(|tx| links.iter().try_for_each(|(key, canonical)| link(tx, key, canonical)))
    }

    /// Returns the record, unless one of its snapshots is gone.
    ///
    /// Before using the snapshots, hold them with [`Lease::hold_snapshots`], or use [`Self::acquire`].
    pub fn record(&self, canonical: &Digest) -> Result<Option<CacheRecord>> {
        self.store.database.read(|connection| load(connection, canonical))
    }

    /// Returns the record with its snapshots held by `lease`.
    pub fn acquire(&self, canonical: &Digest, lease: &Lease) -> Result<Option<CacheRecord>> {
        let Some(record) = self.record(canonical)? else { return Ok(None) };
        Ok(lease.hold_snapshots(&record.snapshots)?.then_some(record))
    }

    /// Keeps a record and links its keys; an earlier record is replaced.
    pub fn put(
        &self,
        canonical: &Digest,
        keys: &[Digest],
        payload: &[u8],
        snapshots: &[SnapshotId],
        lease: &Lease,
    ) -> Result<()> {
        self.store.database.write(|tx| put(tx, canonical, keys, payload, snapshots, lease))
    }

    /// Keeps several records in one transaction.
    pub fn put_all(&self, entries: &[CacheEntry], lease: &Lease) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.store.database.write(|tx| {
            entries.iter().try_for_each(|entry| {
                put(tx, &entry.canonical, &entry.keys, &entry.payload, &entry.snapshots, lease)
            })
        })
    }

    /// Removes the record and the keys that lead to it.
    pub fn forget(&self, canonical: &Digest) -> Result<()> {
        self.store.database.write(|tx| forget(tx, canonical.as_bytes()))
    }
}

fn link(tx: &Transaction<'_>, key: &Digest, canonical: &Digest) -> Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO cache_keys VALUES (?1, ?2)")?
        .execute(params![key.as_bytes(), canonical.as_bytes()])?;
    Ok(())
}

fn put(
    tx: &Transaction<'_>,
    canonical: &Digest,
    keys: &[Digest],
    payload: &[u8],
    snapshots: &[SnapshotId],
    lease: &Lease,
) -> Result<()> {
    tx.prepare_cached("DELETE FROM cache_snapshots WHERE canonical = ?1")?.execute([canonical.as_bytes()])?;
    tx.prepare_cached("INSERT OR REPLACE INTO cache_records VALUES (?1, ?2, ?3)")?.execute(params![
        canonical.as_bytes(),
        payload,
        db::now()
    ])?;
    let mut insert = tx.prepare_cached("INSERT INTO cache_snapshots VALUES (?1, ?2, ?3)")?;
    for (position, id) in snapshots.iter().enumerate() {
        insert.execute(params![canonical.as_bytes(), db::to_size(position as u64), id.row()])?;
        lease.hold_snapshot_in(tx, *id)?;
    }
    link(tx, canonical, canonical)?;
    keys.iter().try_for_each(|key| link(tx, key, canonical))
}

fn load(connection: &Connection, canonical: &Digest) -> Result<Option<CacheRecord>> {
    let query = "SELECT payload, created_at FROM cache_records WHERE canonical = ?1";
    let found: Option<(Vec<u8>, i64)> = connection
        .prepare_cached(query)?
        .query_row([canonical.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((payload, created_at)) = found else { return Ok(None) };
    let query = "SELECT c.snapshot, s.id IS NOT NULL FROM cache_snapshots c
        LEFT JOIN snapshots s ON s.id = c.snapshot WHERE c.canonical = ?1 ORDER BY c.position";
    let mut query = connection.prepare_cached(query)?;
    let mut snapshots = Vec::new();
    let mut rows = query.query([canonical.as_bytes()])?;
    while let Some(row) = rows.next()? {
        if !row.get::<_, bool>(1)? {
            return Ok(None);
        }
        snapshots.push(SnapshotId::from_row(row.get(0)?));
    }
    Ok(Some(CacheRecord { payload, snapshots, created_at: db::from_millis(created_at) }))
}

fn forget(tx: &Transaction<'_>, canonical: &[u8]) -> Result<()> {
    for table in ["cache_records", "cache_snapshots", "cache_keys"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE canonical = ?1"))?.execute([canonical])?;
    }
    Ok(())
}

/// Removes the records that need the snapshot.
pub(crate) fn forget_records_of(tx: &Transaction<'_>, id: SnapshotId) -> Result<()> {
    let mut query = tx.prepare_cached("SELECT canonical FROM cache_snapshots WHERE snapshot = ?1")?;
    let found = query.query_map([id.row()], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
    found.iter().try_for_each(|canonical| forget(tx, canonical))
}
