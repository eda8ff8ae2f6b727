//! Local state: blobs by digest, snapshots, layers, metadata, leases, garbage collection.
//!
//! One directory holds all of it and is shared by any number of processes, with no daemon. Files are
//! written under names of their own and appear by a rename or by a row in the metadata database; what
//! several processes must not do at once is guarded by `flock`, which ends with the process. So a
//! `kill -9` at any moment leaves a state that the next run uses or cleans.
//!
//! The API is blocking; callers in async code use `spawn_blocking`. Nothing here knows the network, image
//! configs, or what a build step is.

#![forbid(unsafe_code)]

mod cache;
mod cache_mounts;
mod content;
mod db;
mod error;
mod filter;
mod gc;
mod images;
mod kv;
mod layer;
mod layout;
mod lease;
mod lock;
mod mount;
mod prune;
mod snapshot;
mod store;
mod tar;
#[cfg(test)]
mod testing;
mod tree;
mod usage;

pub use cache::{CacheEntry, CacheRecord, CacheTable};
pub use cache_mounts::{CacheMount, CacheMountName, CacheMounts, GIT_REPOSITORY, Sharing};
pub use content::{ContentStore, Ingest, IngestOutcome};
pub use error::{EntryFault, Result, StoreError};
pub use filter::{UsageFilter, UsageFilterError};
pub use gc::{DiskSpace, GcLimits, GcPolicy, GcRule, disk_size};
pub use images::{Images, NamedImage};
pub use kv::{KeyValues, Stamped};
pub use layer::{BlobWatcher, DiffOptions, FileObserver, LayerFormat, layer_compression, layer_media_type};
pub use lease::Lease;
pub use mount::{MountedTree, OverlaySpec};
pub use prune::PruneOptions;
pub use snapshot::{
    ActiveSnapshot, CommitInfo, LayerBlob, ParseSnapshotIdError, SnapshotId, SnapshotInfo, SnapshotKind,
    SnapshotState, Snapshots, UnpackOptions, UnpackProgress, chain_id,
};
pub use store::Store;
pub use usage::{UsageId, UsageItem, UsageKind};
