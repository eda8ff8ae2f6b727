//! The open store: what its parts share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::CacheTable;
use crate::cache_mounts::CacheMounts;
use crate::content::ContentStore;
use crate::db::Database;
use crate::error::{Result, StoreError};
use crate::images::Images;
use crate::kv::KeyValues;
use crate::layout::Layout;
use crate::lease::Lease;
use crate::mount::Flavour;
use crate::snapshot::Snapshots;

/// The local state: one directory, shared by any number of processes. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Inner>);

/// What the parts of an open store share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) database: Database,
    pub(crate) flavour: Flavour,
}

impl Store {
    /// Opens the state directory, making it where needed. Nothing is scanned or collected.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let root = std::path::absolute(root).map_err(StoreError::io("resolve", root))?;
        let layout = Layout::new(root);
        layout.create()?;
        let database = Database::open(&layout)?;
        Ok(Self(Arc::new(Inner { layout, database, flavour: Flavour::detect() })))
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        self.0.layout.root()
    }

    /// Returns the blobs.
    pub fn content(&self) -> ContentStore {
        ContentStore::new(Arc::clone(&self.0))
    }

    /// Returns the snapshots.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots::new(Arc::clone(&self.0))
    }

    /// Returns the build cache's records.
    pub fn cache(&self) -> CacheTable {
        CacheTable::new(Arc::clone(&self.0))
    }

    /// Returns the small values kept between runs.
    pub fn key_values(&self) -> KeyValues {
        KeyValues::new(Arc::clone(&self.0))
    }

    /// Returns the named images.
    pub fn images(&self) -> Images {
        Images::new(Arc::clone(&self.0))
    }

    /// Returns the directories of `RUN --mount=type=cache`.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts::new(Arc::clone(&self.0))
    }

    /// Starts a lease of this process.
    pub fn lease(&self) -> Result<Lease> {
        Lease::new(Arc::clone(&self.0))
    }

    /// Makes an empty directory under the state, removed by a collection after `lease` has ended.
    pub fn temporary_directory(&self, lease: &Lease) -> Result<PathBuf> {
        let path = self.0.layout.ingest().join(lease.unique_name());
        std::fs::create_dir(&path).map_err(StoreError::io("create the directory", &path))?;
        Ok(path)
    }
}
