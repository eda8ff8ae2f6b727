//! Removing what is not needed.
//!
//! What is removed is decided on a list made before, and decided again, item by item, in the transaction
//! that removes it: what got a child, a holder or a user meanwhile stays. Inside that transaction files
//! are only renamed into the trash; they are deleted afterwards. One process at a time collects.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension as _, Transaction, params};
use slipway_model::Digest;

use crate::cache;
use crate::error::{Result, StoreError};
use crate::gc::GcPolicy;
use crate::layer::Variant;
use crate::lease;
use crate::lock::{FileLock, Share};
use crate::snapshot::{self, SnapshotId};
use crate::store::{Inner, Store};
use crate::tree;
use crate::usage::{self, UsageId, UsageItem, UsageKind};

/// A partial download that nobody went on with for this long is removed.
const STALE_INGEST: Duration = Duration::from_secs(48 * 3600);
/// A lock file that nobody holds is removed after this long.
const STALE_LOCK: Duration = Duration::from_secs(24 * 3600);
/// A collection is due this long after the one before.
const COLLECTION_INTERVAL: Duration = Duration::from_secs(600);

/// What may be removed, and when to stop.
#[derive(Clone, Copy, Default)]
pub struct PruneOptions<'a> {
    /// Also what is internal, a frontend, or shared.
    pub all: bool,
    /// Leave what was used more recently.
    pub keep_duration: Option<Duration>,
    /// Leave what this is false for.
    pub filter: Option<&'a dyn Fn(&UsageItem) -> bool>,
    /// Stop once no more than this is used by everything together, shared things apart; 0 is no limit.
    pub max_used: u64,
    /// Never go below this.
    pub reserved: u64,
    /// Remove until this much of the disk is free; 0 is no limit.
    pub min_free: u64,
    /// Only tell what would be removed.
    pub dry_run: bool,
}

impl Store {
    /// Removes what `options` allow, oldest first, and tells what was removed. Nothing that a live
    /// process holds is removed, nor what something else needs.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<Vec<UsageItem>> {
        let _lock = FileLock::wait(&self.0.layout.lock("gc"), Share::Exclusive)?;
        // First of all, since it takes no space: on a full disk nothing can be written to the database.
        empty_trash(&self.0)?;
        clean(&self.0)?;
        let mut items = usage::list(&self.0)?;
        let pruned = prune(&self.0, &mut items, options)?;
        empty_trash(&self.0)?;
        Ok(pruned)
    }

    /// Tells whether [`Self::collect_garbage`] was not run lately.
    pub fn collection_due(&self) -> bool {
        let modified = std::fs::metadata(self.0.layout.lock("gc")).and_then(|metadata| metadata.modified());
        modified.map_or(true, |time| time.elapsed().map_or(true, |age| age > COLLECTION_INTERVAL))
    }

    /// Cleans up after processes that died, and applies the rules of `policy`.
    /// Returns at once if another process is doing that. Off the path of a build: it walks directories.
    pub fn collect_garbage(&self, policy: &GcPolicy) -> Result<Vec<UsageItem>> {
        let Some(lock) = FileLock::try_take(&self.0.layout.lock("gc"), Share::Exclusive)? else {
            return Ok(Vec::new());
        };
        clean(&self.0)?;
        let mut items = usage::list(&self.0)?;
        let mut removed = Vec::new();
        for rule in &policy.rules {
            let meant = |item: &UsageItem| rule.filter.matches(item);
            let options = PruneOptions {
                all: rule.all,
                keep_duration: rule.keep_duration,
                filter: Some(&meant),
                max_used: rule.max_used,
                reserved: rule.reserved,
                min_free: rule.min_free,
                dry_run: false,
            };
            removed.extend(prune(&self.0, &mut items, &options)?);
            // Before the next rule asks how much of the disk is free.
            empty_trash(&self.0)?;
        }
        self.0.database.checkpoint()?;
        let path = self.0.layout.lock("gc");
        lock.file().set_modified(SystemTime::now()).map_err(StoreError::io("touch", &path))?;
        Ok(removed)
    }
}

/// What of the disk is free.
fn free(store: &Inner) -> Result<u64> {
    let root = store.layout.root();
    let stat = rustix::fs::statvfs(root).map_err(StoreError::io("stat the file system of", root))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// How many bytes may stay; `None` if there is no limit to stop at.
fn bytes_to_keep(options: &PruneOptions<'_>, total: u64, free: u64) -> Option<u64> {
    if (options.max_used, options.reserved, options.min_free) == (0, 0, 0) {
        return None;
    }
    let mut keep = options.max_used;
    let excess = options.min_free.saturating_sub(free);
    if excess > 0 {
        let less = total.saturating_sub(excess);
        keep = if keep == 0 { less } else { keep.min(less) };
    } else if options.min_free > 0 && keep == 0 {
        keep = total;
    }
    Some(keep.max(options.reserved))
}

/// Removes what `options` allow, from `items` too.
fn prune(store: &Inner, items: &mut Vec<UsageItem>, options: &PruneOptions<'_>) -> Result<Vec<UsageItem>> {
    let free = free(store)?;
    let mut removed = Vec::new();
    for index in choose(items, options, free, SystemTime::now()) {
        let item = &items[index];
        if options.dry_run || remove(store, &item.id)? {
            removed.push(item.clone());
        }
    }
    let gone: HashSet<&UsageId> = removed.iter().map(|item| &item.id).collect();
    items.retain(|item| !gone.contains(&item.id));
    Ok(removed)
}

/// Chooses what to remove, in an order in which nothing is removed before what needs it.
fn choose(items: &[UsageItem], options: &PruneOptions<'_>, free: u64, now: SystemTime) -> Vec<usize> {
    let mut total: u64 = items.iter().filter(|item| !item.shared).map(|item| item.size).sum();
    let keep = bytes_to_keep(options, total, free);
    let by_id: HashMap<&UsageId, usize> = items.iter().enumerate().map(|(i, item)| (&item.id, i)).collect();
    let parents = |item: &UsageItem| -> Vec<usize> {
        item.parents.iter().filter_map(|parent| by_id.get(&UsageId::Snapshot(*parent)).copied()).collect()
    };
    let mut needed_by = vec![0usize; items.len()];
    for item in items {
        parents(item).into_iter().for_each(|parent| needed_by[parent] += 1);
    }
    let allowed = |item: &UsageItem| {
        let hidden = matches!(item.kind, UsageKind::Internal | UsageKind::Frontend) || item.shared;
        let old = options
            .keep_duration
            .is_none_or(|keep| now.duration_since(item.last_used_at).is_ok_and(|idle| idle > keep));
        !item.in_use && (options.all || !hidden) && old && options.filter.is_none_or(|filter| filter(item))
    };
    let mut ready: BTreeSet<(SystemTime, usize)> = items
        .iter()
        .enumerate()
        .filter(|&(index, item)| needed_by[index] == 0 && allowed(item))
        .map(|(index, item)| (item.last_used_at, index))
        .collect();
    let mut chosen = Vec::new();
    while keep.is_none_or(|keep| total > keep) {
        let Some((_, index)) = ready.pop_first() else { break };
        total = total.saturating_sub(items[index].size);
        chosen.push(index);
        for parent in parents(&items[index]) {
            needed_by[parent] -= 1;
            if needed_by[parent] == 0 && allowed(&items[parent]) {
                ready.insert((items[parent].last_used_at, parent));
            }
        }
    }
    chosen
}

/// Removes an item, unless it has come into use.
fn remove(store: &Inner, id: &UsageId) -> Result<bool> {
    match id {
        UsageId::Snapshot(id) => match remove_snapshot(store, *id) {
            Ok(()) => Ok(true),
            Err(StoreError::InUse(_) | StoreError::SnapshotMissing(_)) => Ok(false),
            Err(error) => Err(error),
        },
        UsageId::Blob(digest) => store.database.write(|tx| remove_blob(store, tx, digest)),
        UsageId::CacheMount(dir) => remove_cache_mount(store, dir),
    }
}

/// Removes the directory of a cache mount, unless it is in use.
pub(crate) fn remove_cache_mount(store: &Inner, dir: &str) -> Result<bool> {
    let lock = store.layout.lock(&format!("cache-mount-{dir}"));
    let Some(lock) = FileLock::try_take(&lock, Share::Exclusive)? else { return Ok(false) };
    store.layout.discard(&store.layout.cache_mounts().join(dir), &format!("cache-mount-{dir}"))?;
    store.database.write(|tx| {
        tx.execute("DELETE FROM cache_mounts WHERE dir = ?1", [dir])?;
        Ok(())
    })?;
    lock.remove()?;
    Ok(true)
}

/// Removes a snapshot, its directory and its blobs, as far as nothing else needs them.
pub(crate) fn remove_snapshot(store: &Inner, id: SnapshotId) -> Result<()> {
    store.database.write(|tx| {
        let row = snapshot::require(tx, id)?;
        let source_of: bool = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshots WHERE source = ?1)")?
            .query_row([id.row()], |row| row.get(0))?;
        if source_of || !snapshot::children(tx, id)?.is_empty() || lease::holds_snapshot(tx, id)? {
            return Err(StoreError::InUse(id));
        }
        let digests = Variant::digests(tx, id)?;
        tx.prepare_cached("DELETE FROM snapshots WHERE id = ?1")?.execute([id.row()])?;
        tx.prepare_cached("DELETE FROM layer_blobs WHERE snapshot = ?1")?.execute([id.row()])?;
        cache::forget_records_of(tx, id)?;
        for digest in digests {
            remove_blob(store, tx, &digest)?;
        }
        for dir in row.dir.iter().chain(&row.pending).filter(|dir| !dir.is_empty()) {
            let used: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshots WHERE dir = ?1 OR pending = ?1)")?
                .query_row([dir], |row| row.get(0))?;
            if !used {
                store.layout.discard(&store.layout.snapshots().join(dir), &format!("snapshot-{dir}"))?;
            }
        }
        Ok(())
    })
}

/// Removes a blob that no snapshot, named image or lease needs.
fn remove_blob(store: &Inner, tx: &Transaction<'_>, digest: &Digest) -> Result<bool> {
    let needed: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM layer_blobs WHERE digest = ?1)
                OR EXISTS (SELECT 1 FROM image_blobs WHERE digest = ?1)",
        )?
        .query_row([digest.as_bytes()], |row| row.get(0))?;
    if needed || lease::holds_blob(tx, digest)? {
        return Ok(false);
    }
    tx.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?.execute([digest.as_bytes()])?;
    store.layout.discard(&store.layout.blob(digest), &format!("blob-{}", digest.hex()))?;
    Ok(true)
}

/// Cleans up after processes that died: leases, directories without a row, partial files, locks.
fn clean(store: &Inner) -> Result<()> {
    // The order matters: what a lease made before it ended has its row by now.
    let snapshots = names_in(&store.layout.snapshots())?;
    let ingests = names_in(&store.layout.ingest())?;
    let live = lease::sweep(store)?;
    for name in snapshots.iter().filter(|name| !lease::is_of_live(name, &live)) {
        store.database.write(|tx| {
            let query = "SELECT 1 FROM snapshots WHERE dir = ?1 OR pending = ?1 LIMIT 1";
            if tx.prepare_cached(query)?.query_row([name], |_| Ok(())).optional()?.is_none() {
                store.layout.discard(&store.layout.snapshots().join(name), &format!("orphan-{name}"))?;
            }
            Ok(())
        })?;
    }
    for name in ingests.iter().filter(|name| !lease::is_of_live(name, &live)) {
        clean_ingest(store, name)?;
    }
    clean_blobs(store)?;
    clean_cache_mounts(store)?;
    clean_locks(store)?;
    empty_trash(store)
}

/// Removes what a dead lease left in `ingest`, or a partial download that has become stale.
fn clean_ingest(store: &Inner, name: &str) -> Result<()> {
    let path = store.layout.ingest().join(name);
    if name.contains('-') {
        return store.layout.discard(&path, &format!("ingest-{name}"));
    }
    if is_older(&path, STALE_INGEST)
        && let Some(lock) = FileLock::try_take(&path, Share::Exclusive)?
    {
        lock.remove()?;
    }
    Ok(())
}

/// Removes blob files without a row, which a process left that died between rename and commit.
fn clean_blobs(store: &Inner) -> Result<()> {
    let known: BTreeSet<String> = store.database.read(|connection| {
        let mut query = connection.prepare_cached("SELECT digest FROM blobs")?;
        let names = query.query_map([], |row| Ok(Digest::from_sha256(row.get(0)?).hex()))?;
        Ok(names.collect::<Result<_, _>>()?)
    })?;
    for name in names_in(&store.layout.blobs())?.into_iter().filter(|name| !known.contains(name)) {
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        store.database.write(|tx| {
            let mut query = tx.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?;
            if query.query_row([digest.as_bytes()], |_| Ok(())).optional()?.is_none() {
                store.layout.discard(&store.layout.blob(&digest), &format!("blob-{name}"))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Records cache mounts that a process made and did not live to record, so that they can be pruned.
fn clean_cache_mounts(store: &Inner) -> Result<()> {
    for name in names_in(&store.layout.cache_mounts())? {
        store.database.write(|tx| {
            let insert = "INSERT OR IGNORE INTO cache_mounts VALUES (?1, '(unknown)', 0, ?2, ?2, 0, NULL)";
            tx.prepare_cached(insert)?.execute(params![name, crate::db::now()])?;
            Ok(())
        })?;
    }
    Ok(())
}

fn clean_locks(store: &Inner) -> Result<()> {
    for name in names_in(&store.layout.locks())? {
        let path = store.layout.locks().join(&name);
        let lasting = matches!(name.as_str(), "gc.lock" | "schema.lock");
        if !lasting
            && is_older(&path, STALE_LOCK)
            && let Some(lock) = FileLock::try_take(&path, Share::Exclusive)?
        {
            lock.remove()?;
        }
    }
    Ok(())
}

fn empty_trash(store: &Inner) -> Result<()> {
    let trash = store.layout.trash();
    for name in names_in(&trash)? {
        let path = trash.join(name);
        tree::remove(&path).map_err(StoreError::io("remove", &path))?;
    }
    Ok(())
}

fn is_older(path: &std::path::Path, age: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > age))
}

fn names_in(directory: &std::path::Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).map_err(StoreError::io("list", directory))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", directory))?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}
