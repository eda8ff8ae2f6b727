//! What a live process needs, safe from every garbage collector.
//!
//! A lease is a file in `leases/`, locked by its process, and rows that say what it holds. The lock ends
//! with the process, so a lease whose file can be locked is void; the next collection removes its rows.
//! Holding and collecting both happen in write transactions: once [`Lease::hold_blobs`] or
//! [`Lease::hold_snapshots`] has said that something is there, it stays until the lease is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, params};
use slipway_model::Digest;

use crate::db;
use crate::error::{Result, StoreError};
use crate::lock::{FileLock, Share};
use crate::snapshot::SnapshotId;
use crate::store::Inner;

/// Keeps what was made or used under it from garbage collection, until its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    store: Arc<Inner>,
    name: String,
    lock: Option<FileLock>,
    counter: AtomicU64,
}

/// What kind of thing a row of `lease_items` holds.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
enum ItemKind {
    Blob = 1,
    Snapshot = 2,
}

impl Lease {
    pub(crate) fn new(store: Arc<Inner>) -> Result<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        loop {
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            // No `-`: names made under the lease are `<lease>-<number>`.
            let name = format!("{}x{nanos:x}x{serial:x}", std::process::id());
            let path = store.layout.leases().join(format!("{name}.lock"));
            // A process id of another pid namespace could make the same name at the same time.
            if let Some(lock) = FileLock::try_take(&path, Share::Exclusive)? {
                let held = Held { store, name, lock: Some(lock), counter: AtomicU64::new(0) };
                return Ok(Self(Arc::new(held)));
            }
        }
    }

    /// Returns a name that nothing else has, for a file or directory made under this lease.
    pub(crate) fn unique_name(&self) -> String {
        format!("{}-{}", self.0.name, self.0.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Holds `digests`, whether or not they are in the store yet.
    pub fn hold_blobs(&self, digests: &[Digest]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        self.0.store.database.write(|tx| {
            digests.iter().try_for_each(|digest| {
                self.hold_blob_in(tx, digest)?;
                let used = "UPDATE blobs SET last_used_at = ?2 WHERE digest = ?1";
                tx.prepare_cached(used)?.execute(params![digest.as_bytes(), db::now()])?;
                Ok(())
            })
        })
    }

    /// Holds `ids` with all their ancestors, and marks them used; false if one of them is gone.
    pub fn hold_snapshots(&self, ids: &[SnapshotId]) -> Result<bool> {
        if ids.is_empty() {
            return Ok(true);
        }
        self.0.store.database.write(|tx| {
            for id in ids {
                let used = "UPDATE snapshots SET last_used_at = ?2, use_count = use_count + 1 WHERE id = ?1";
                if tx.prepare_cached(used)?.execute(params![id.row(), db::now()])? == 0 {
                    return Ok(false);
                }
                self.hold_snapshot_in(tx, *id)?;
            }
            Ok(true)
        })
    }

    pub(crate) fn hold_blob_in(&self, tx: &Transaction<'_>, digest: &Digest) -> Result<()> {
        self.insert(tx, ItemKind::Blob, digest.as_bytes())
    }

    pub(crate) fn hold_snapshot_in(&self, tx: &Transaction<'_>, id: SnapshotId) -> Result<()> {
        self.insert(tx, ItemKind::Snapshot, &id.row().to_be_bytes())
    }

    fn insert(&self, tx: &Transaction<'_>, kind: ItemKind, item: &[u8]) -> Result<()> {
        tx.prepare_cached("INSERT OR IGNORE INTO lease_items VALUES (?1, ?2, ?3)")?.execute(params![
            self.0.name,
            kind as i64,
            item
        ])?;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = release(&self.store, &self.name) {
            tracing::debug!(%error, lease = self.name, "left the lease to the next collection");
        }
        // Only now may a collector find the lease void; it would find nothing to remove.
        if let Some(error) = self.lock.take().and_then(|lock| lock.remove().err()) {
            tracing::debug!(%error, lease = self.name, "left the lease file to the next collection");
        }
    }
}

fn release(store: &Inner, name: &str) -> Result<()> {
    let held: bool = store.database.read(|connection| {
        let query = "SELECT EXISTS (SELECT 1 FROM lease_items WHERE lease = ?1)";
        Ok(connection.prepare_cached(query)?.query_row([name], |row| row.get(0))?)
    })?;
    if held {
        store.database.write(|tx| {
            tx.prepare_cached("DELETE FROM lease_items WHERE lease = ?1")?.execute([name])?;
            Ok(())
        })?;
    }
    Ok(())
}

/// The names of the leases of live processes. The rows and files of all others are removed.
pub(crate) fn sweep(store: &Inner) -> Result<Vec<String>> {
    let mut live = Vec::new();
    let directory = store.layout.leases();
    let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", &directory))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".lock"))
        else {
            continue;
        };
        match FileLock::try_take(&path, Share::Exclusive)? {
            None => live.push(name.to_owned()),
            Some(lock) => {
                release(store, name)?;
                lock.remove()?;
            }
        }
    }
    let rows: Vec<String> = store.database.read(|connection| {
        let mut query = connection.prepare_cached("SELECT DISTINCT lease FROM lease_items")?;
        let names = query.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    })?;
    for name in rows.iter().filter(|name| !live.contains(name)) {
        // The lease may be newer than the listing.
        if !store.layout.leases().join(format!("{name}.lock")).exists() {
            release(store, name)?;
        }
    }
    Ok(live)
}

/// Tells whether a file or directory called `name` was made under one of the `live` leases.
pub(crate) fn is_of_live(name: &str, live: &[String]) -> bool {
    name.split_once('-').is_some_and(|(lease, _)| live.iter().any(|l| l == lease))
}

/// Tells whether any lease holds the snapshot.
pub(crate) fn holds_snapshot(connection: &Connection, id: SnapshotId) -> Result<bool> {
    holds(connection, ItemKind::Snapshot, &id.row().to_be_bytes())
}

/// Tells whether any lease holds the blob.
pub(crate) fn holds_blob(connection: &Connection, digest: &Digest) -> Result<bool> {
    holds(connection, ItemKind::Blob, digest.as_bytes())
}

fn holds(connection: &Connection, kind: ItemKind, item: &[u8]) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM lease_items WHERE kind = ?1 AND item = ?2)";
    Ok(connection.prepare_cached(query)?.query_row(params![kind as i64, item], |row| row.get(0))?)
}
