//! The solver's cache: canonical keys, their aliases, and the trees stored under them.
//!
//! The local state is asked first, then what was imported; see [`crate::remote_cache`].

use std::sync::Arc;

use slipway_model::Digest;
use slipway_solver::{CacheStore, CachedKey, Fetch, KeyLookup, SaveRecord, Stored, VertexKeys};
use slipway_store::{CacheRecord, CacheTable, SnapshotId};

use crate::job::Job;
use crate::ops::VertexOperation;
use crate::tree::{Tree, TreeRecord};

/// The cache of one solve; what it returns is held by the build's lease.
pub(crate) struct StoredCache {
    table: CacheTable,
    job: Arc<Job>,
}

/// Reads the trees of a record, by output; those that a cache had not are `None`.
pub(crate) fn stored_trees(record: &CacheRecord) -> Option<Stored<VertexOperation>> {
    let records: Vec<TreeRecord> = serde_json::from_slice(&record.payload).ok()?;
    records.iter().map(|record| record.tree().ok()).collect()
}

/// Tells whether a result has all outputs that are `used`.
pub(crate) fn has_all<T>(outputs: &[Option<T>], used: &[usize]) -> bool {
    used.iter().all(|index| outputs.get(*index).is_some_and(Option::is_some))
}

impl StoredCache {
    pub(crate) fn new(table: CacheTable, job: Arc<Job>) -> Self {
        Self { table, job }
    }

    /// Returns the stored trees.
    fn stored(&self, canonical: &Digest, used: &[usize]) -> Option<Stored<VertexOperation>> {
        stored_trees(&self.table.record(canonical).ok()??).filter(|trees| has_all(trees, used))
    }

    /// Returns the stored trees, held by the lease, and layers of theirs that may be gone.
    fn held(&self, canonical: &Digest, used: &[usize]) -> Option<(Stored<VertexOperation>, Vec<Digest>)> {
        let trees = self.stored(canonical, used)?;
        let snapshots: Vec<SnapshotId> = trees.iter().flatten().filter_map(Tree::snapshot).collect();
        // Between the look-up and now another process may have removed it.
        let held = self.job.lease.hold_snapshots(&snapshots).ok()?;
        held.then(|| (trees, self.job.remote.doubtful(&self.job, &snapshots)))
    }
}

impl CacheStore<VertexOperation> for StoredCache {
    fn lookup(&self, key: &Digest, used: &[usize]) -> Option<CachedKey> {
        let local = self.table.canonical(&[*key]).ok()?;
        let canonical = local.or_else(|| self.job.remote.lookup(key))?;
        let loadable = self.stored(&canonical, used).is_some() || self.job.remote.has(&canonical, used);
        Some(KeyLookup { canonical, loadable })
    }

    fn link(&self, alias: &Digest, canonical: &Digest) {
        if let Err(error) = self.table.link(alias, canonical) {
            tracing::warn!(%error, "could not link a cache key");
        }
    }

    fn load(&self, canonical: &Digest, used: &[usize]) -> Option<Stored<VertexOperation>> {
        self.held(canonical, used).filter(|(_, doubtful)| doubtful.is_empty()).map(|(trees, _)| trees)
    }

    fn fetch<'a>(&'a self, canonical: Digest, used: &'a [usize]) -> Option<Fetch<'a, VertexOperation>> {
        let local = self.held(&canonical, used);
        if local.is_none() && !self.job.remote.has(&canonical, used) {
            return None;
        }
        Some(Box::pin(async move {
            let (job, remote) = (&self.job, &self.job.remote);
            if let Some((trees, doubtful)) = local
                && remote.all_available(job, doubtful).await
            {
                return Some(trees);
            }
            remote.fetch(job, &canonical, used).await
        }))
    }

    fn keyed(&self, operation: &VertexOperation, keys: &VertexKeys) {
        self.job.remote.keyed(operation, keys);
    }

    fn save(&self, _: &VertexOperation, record: SaveRecord<'_, VertexOperation>) {
        let records: Option<Vec<TreeRecord>> = record.outputs.iter().map(Tree::record).collect();
        let Some(payload) = records.and_then(|records| serde_json::to_vec(&records).ok()) else { return };
        let snapshots: Vec<SnapshotId> = record.outputs.iter().filter_map(Tree::snapshot).collect();
        let lease = &self.job.lease;
        if let Err(error) = self.table.put(&record.canonical, record.aliases, &payload, &snapshots, lease) {
            tracing::warn!(%error, "could not store a result in the cache");
        }
    }
}
