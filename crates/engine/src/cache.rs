//! The solver's cache on the store: canonical keys, their aliases, and the trees stored under them.

use slipway_model::Digest;
use slipway_solver::{CacheStore, CachedKey, KeyLookup, SaveRecord};
use slipway_store::{CacheTable, Lease, SnapshotId};

use crate::ops::VertexOperation;
use crate::tree::{Tree, TreeRecord};

/// The cache of one solve; what it returns is held by the solve's lease.
pub(crate) struct StoredCache {
    table: CacheTable,
    lease: Lease,
}

impl StoredCache {
    pub(crate) fn new(table: CacheTable, lease: Lease) -> Self {
        Self { table, lease }
    }

    fn trees(&self, canonical: &Digest) -> Option<Vec<Tree>> {
        let record = self.table.record(canonical).ok()??;
        let records: Vec<TreeRecord> = serde_json::from_slice(&record.payload).ok()?;
        records.into_iter().map(|record| Tree::try_from(record).ok()).collect()
    }
}

impl CacheStore<VertexOperation> for StoredCache {
    fn lookup(&self, key: &Digest) -> Option<CachedKey> {
        let canonical = self.table.canonical(&[*key]).ok()??;
        Some(KeyLookup { canonical, loadable: matches!(self.table.record(&canonical), Ok(Some(_))) })
    }

    fn link(&self, alias: &Digest, canonical: &Digest) {
        if let Err(error) = self.table.link(alias, canonical) {
            tracing::warn!(%error, "could not link a cache key");
        }
    }

    fn load(&self, _: &VertexOperation, canonical: &Digest) -> Option<Vec<Tree>> {
        let trees = self.trees(canonical)?;
        let snapshots: Vec<SnapshotId> = trees.iter().filter_map(Tree::snapshot).collect();
        // Between the look-up and now another process may have removed it.
        self.lease.hold_snapshots(&snapshots).ok()?.then_some(trees)
    }

    fn save(&self, _: &VertexOperation, record: SaveRecord<'_, VertexOperation>) {
        let records: Option<Vec<TreeRecord>> = record.outputs.iter().map(Tree::record).collect();
        let Some(payload) = records.and_then(|records| serde_json::to_vec(&records).ok()) else { return };
        let snapshots: Vec<SnapshotId> = record.outputs.iter().filter_map(Tree::snapshot).collect();
        if let Err(error) =
            self.table.put(&record.canonical, record.aliases, &payload, &snapshots, &self.lease)
        {
            tracing::warn!(%error, "could not store a result in the cache");
        }
    }
}
