//! Where things are below the state directory.
//!
//! Owns the names only; who may write or remove what is said in the modules that use them.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use slipway_model::Digest;

use crate::error::{Result, StoreError};

/// Names the directories of one state directory.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    const DIRECTORIES: [&str; 8] =
        ["blobs/sha256", "ingest", "snapshots", "cache-mounts", "leases", "locks", "trash", "empty"];

    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes what is missing; `empty` comes last, so it tells whether all are there.
    pub(crate) fn create(&self) -> Result<()> {
        if self.empty().is_dir() {
            return Ok(());
        }
        // Others must not reach the programs in there that run as their owner.
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.root).map_err(StoreError::io("create the directory", &self.root))?;
        for name in Self::DIRECTORIES {
            let path = self.root.join(name);
            std::fs::create_dir_all(&path).map_err(StoreError::io("create the directory", &path))?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("metadata.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The files of the snapshot whose directory is `dir`.
    pub(crate) fn files(&self, dir: &str) -> PathBuf {
        let mut path = self.snapshots();
        path.push(dir);
        path.push("fs");
        path
    }

    pub(crate) fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.locks().join(format!("{name}.lock"))
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Holds directories that were renamed away to be removed.
    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// An empty directory, the lowest layer of views that have only one.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Renames `path` into the trash, where it is removed later; missing is fine.
    pub(crate) fn discard(&self, path: &Path, unique: &str) -> Result<()> {
        let target = self.trash().join(unique);
        match std::fs::rename(path, &target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io("discard", path)(error)),
        }
    }
}
