//! What takes how much of the disk.
//!
//! Every byte is counted once: a directory shared by snapshots, or a blob of several, belongs to the
//! oldest of them; a blob that a named image needs, and one without snapshot, are items of their own.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::SystemTime;

use rusqlite::{Connection, params};
use slipway_model::Digest;

use crate::cache_mounts::GIT_REPOSITORY;
use crate::db;
use crate::error::{Result, StoreError};
use crate::lease;
use crate::lock::{FileLock, Share};
use crate::snapshot::{self, SnapshotId, SnapshotKind};
use crate::store::{Inner, Store};
use crate::tree;

/// Names something that takes disk space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageId {
    Snapshot(SnapshotId),
    Blob(Digest),
    /// By the name of its directory.
    CacheMount(String),
}

impl fmt::Display for UsageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => id.fmt(f),
            Self::Blob(digest) => digest.fmt(f),
            Self::CacheMount(dir) => f.write_str(dir),
        }
    }
}

/// What an item is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageKind {
    Regular,
    Internal,
    Frontend,
    LocalSource,
    GitCheckout,
    CacheMount,
    Blob,
}

impl UsageKind {
    /// Returns the name that `du` shows and filters take.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Internal => "internal",
            Self::Frontend => "frontend",
            Self::LocalSource => "source.local",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
            Self::Blob => "blob",
        }
    }
}

impl From<SnapshotKind> for UsageKind {
    fn from(kind: SnapshotKind) -> Self {
        match kind {
            SnapshotKind::Regular => Self::Regular,
            SnapshotKind::Internal => Self::Internal,
            SnapshotKind::Frontend => Self::Frontend,
            SnapshotKind::LocalSource => Self::LocalSource,
            SnapshotKind::GitCheckout => Self::GitCheckout,
        }
    }
}

/// Something that takes disk space.
#[derive(Clone, Debug)]
pub struct UsageItem {
    pub id: UsageId,
    pub kind: UsageKind,
    pub size: u64,
    pub created_at: SystemTime,
    pub last_used_at: SystemTime,
    pub use_count: u64,
    pub description: String,
    /// A live process holds it; or, a blob, a named image needs it.
    pub in_use: bool,
    /// Its content belongs to something else too.
    pub shared: bool,
    /// The snapshots that must stay as long as this one does.
    pub parents: Vec<SnapshotId>,
}

impl UsageItem {
    /// Tells whether it is written to after it was made: only cache mounts are.
    pub fn is_mutable(&self) -> bool {
        self.kind == UsageKind::CacheMount
    }
}

impl Store {
    /// Lists what takes disk space. Sizes are counted now where they are not known yet.
    pub fn usage(&self) -> Result<Vec<UsageItem>> {
        lease::sweep(&self.0)?;
        list(&self.0)
    }
}

struct BlobRow {
    digest: Digest,
    size: u64,
    created_at: i64,
    last_used_at: i64,
}

/// Lists the items as they are, dead leases swept before.
pub(crate) fn list(store: &Inner) -> Result<Vec<UsageItem>> {
    let (rows, blobs) =
        store.database.read(|connection| Ok((snapshot::all(connection)?, blobs(connection)?)))?;
    let named: HashSet<Digest> = store.database.read(|connection| {
        let mut query = connection.prepare_cached("SELECT DISTINCT digest FROM image_blobs")?;
        let digests = query.query_map([], |row| Ok(Digest::from_sha256(row.get(0)?)))?;
        Ok(digests.collect::<Result<_, _>>()?)
    })?;
    let mut unowned: HashMap<Digest, BlobRow> = blobs.into_iter().map(|blob| (blob.digest, blob)).collect();
    let mut seen_dirs = HashSet::new();
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let first_use =
            row.dir.as_ref().or(row.pending.as_ref()).is_some_and(|dir| seen_dirs.insert(dir.clone()));
        let mut shared = !first_use && row.dir.is_some();
        let mut size = if first_use { directory_size(store, &row)? } else { 0 };
        let variants =
            store.database.read(|connection| crate::layer::Variant::digests(connection, row.id))?;
        for digest in variants {
            if named.contains(&digest) {
                shared = true;
            } else if let Some(blob) = unowned.remove(&digest) {
                size += blob.size;
            }
        }
        let in_use = store.database.read(|connection| lease::holds_snapshot(connection, row.id))?;
        items.push(UsageItem {
            id: UsageId::Snapshot(row.id),
            kind: row.kind.into(),
            size,
            created_at: db::from_millis(row.created_at),
            last_used_at: db::from_millis(row.last_used_at),
            use_count: db::size_from(row.use_count),
            description: row.description,
            in_use,
            shared,
            parents: row.parent.into_iter().chain(row.source).collect(),
        });
    }
    for blob in unowned.into_values() {
        items.push(blob_item(store, &blob, named.contains(&blob.digest))?);
    }
    items.extend(cache_mounts(store)?);
    items.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.id.cmp(&b.id)));
    Ok(items)
}

fn blob_item(store: &Inner, blob: &BlobRow, named: bool) -> Result<UsageItem> {
    let held = store.database.read(|connection| lease::holds_blob(connection, &blob.digest))?;
    Ok(UsageItem {
        id: UsageId::Blob(blob.digest),
        kind: UsageKind::Blob,
        size: blob.size,
        created_at: db::from_millis(blob.created_at),
        last_used_at: db::from_millis(blob.last_used_at),
        use_count: 0,
        description: if named { "part of a named image".to_owned() } else { String::new() },
        in_use: held || named,
        shared: named,
        parents: Vec::new(),
    })
}

fn blobs(connection: &Connection) -> Result<Vec<BlobRow>> {
    let mut query = connection.prepare_cached("SELECT digest, size, created_at, last_used_at FROM blobs")?;
    let rows = query.query_map([], |row| {
        Ok(BlobRow {
            digest: Digest::from_sha256(row.get(0)?),
            size: db::size_from(row.get(1)?),
            created_at: row.get(2)?,
            last_used_at: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns the size of a snapshot's directory, counting it if that was not done yet.
fn directory_size(store: &Inner, row: &snapshot::Row) -> Result<u64> {
    let Some(dir) = row.dir.as_ref().or(row.pending.as_ref()).filter(|dir| !dir.is_empty()) else {
        return Ok(0);
    };
    if let Some(size) = row.size {
        return Ok(db::size_from(size));
    }
    let path = store.layout.files(dir);
    let size = match tree::disk_usage(&path) {
        Ok(size) => size,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("measure", &path)(error)),
    };
    if row.dir.is_some() {
        store.database.write(|tx| {
            tx.prepare_cached("UPDATE snapshots SET size = ?2 WHERE id = ?1")?
                .execute(params![row.id.row(), db::to_size(size)])?;
            Ok(())
        })?;
    }
    Ok(size)
}

fn cache_mounts(store: &Inner) -> Result<Vec<UsageItem>> {
    type Columns = (String, String, i64, i64, i64, i64);
    let rows: Vec<Columns> = store.database.read(|connection| {
        let query =
            "SELECT dir, id, instance, created_at, last_used_at, use_count FROM cache_mounts ORDER BY dir";
        let mut query = connection.prepare_cached(query)?;
        let rows = query.query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    })?;
    let mut items = Vec::with_capacity(rows.len());
    for (dir, id, instance, created_at, last_used_at, use_count) in rows {
        let path = store.layout.cache_mounts().join(&dir);
        let lock = FileLock::try_take(&store.layout.lock(&format!("cache-mount-{dir}")), Share::Exclusive)?;
        // Its users may change it at any time, so its size is never kept.
        let size = tree::disk_usage(&path).unwrap_or(0);
        let suffix = if instance == 0 { String::new() } else { format!(" (instance {instance})") };
        items.push(UsageItem {
            id: UsageId::CacheMount(dir),
            kind: UsageKind::CacheMount,
            size,
            created_at: db::from_millis(created_at),
            last_used_at: db::from_millis(last_used_at),
            use_count: db::size_from(use_count),
            description: match id.strip_prefix(GIT_REPOSITORY) {
                Some(remote) => format!("shared git repo for {}", remote.replace('\0', " ")),
                None => format!("cache mount {id}{suffix}"),
            },
            in_use: lock.is_none(),
            shared: false,
            parents: Vec::new(),
        });
    }
    Ok(items)
}
