//! A snapshot in the making.

use std::fs::{File, Permissions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, Weak};

use super::{CommitInfo, Row, SnapshotId, Snapshots, row};
use crate::error::{Result, StoreError};
use crate::lease::Lease;
use crate::mount::{self, MountedTree, OverlaySpec};

/// A snapshot that is being written. Dropped without [`ActiveSnapshot::commit`], it is discarded.
#[derive(Debug)]
pub struct ActiveSnapshot {
    snapshots: Snapshots,
    lease: Lease,
    parent: Option<SnapshotId>,
    dir: String,
    spec: OverlaySpec,
    /// The mount that was made last; further ones are clones of it, as two overlays must not share an upper
    /// directory. Not kept: taking a mount apart is slow, and better left to whom it was given.
    mounted: Mutex<Option<Weak<OwnedFd>>>,
    committed: bool,
}

impl ActiveSnapshot {
    pub(super) fn prepare(snapshots: &Snapshots, parent: Option<SnapshotId>, lease: &Lease) -> Result<Self> {
        let lower = match parent {
            Some(parent) => snapshots.directories(parent)?,
            None => Vec::new(),
        };
        let dir = lease.unique_name();
        let upper = make_directory(snapshots, &dir)?;
        if let Some(top) = lower.first() {
            copy_root(top, &upper)?;
        }
        let work = snapshots.store.layout.snapshots().join(&dir).join("work");
        if !lower.is_empty() {
            std::fs::create_dir(&work).map_err(StoreError::io("create the directory", &work))?;
        }
        let spec = OverlaySpec { work: (!lower.is_empty()).then_some(work), lower, upper: Some(upper) };
        Ok(Self {
            snapshots: snapshots.clone(),
            lease: lease.clone(),
            parent,
            dir,
            spec,
            mounted: Mutex::new(None),
            committed: false,
        })
    }

    /// Returns the snapshot below.
    pub fn parent(&self) -> Option<SnapshotId> {
        self.parent
    }

    /// Says which directories the mount is made of.
    pub fn overlay(&self) -> OverlaySpec {
        self.spec.clone()
    }

    /// Mounts the tree, attached nowhere. Called again while the first mount is there, it gives another one
    /// of the same tree. Where the kernel cannot do that (before Linux 6.15, or if the first was handed to
    /// another mount namespace), it mounts anew, and the first one must not be in use any more.
    pub fn mount(&self) -> Result<MountedTree> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = mounted.as_ref().and_then(Weak::upgrade);
        if let Some(tree) = before.and_then(|fd| mount::clone_mount(fd.as_fd()).ok()) {
            return Ok(tree);
        }
        let flavour = self.snapshots.store.flavour;
        let tree = match (&*mounted, &self.spec.work) {
            (Some(_), Some(work)) => {
                // A work directory that was used is not accepted again.
                let work = work.with_file_name("work-again");
                self.discard(&work);
                std::fs::create_dir(&work).map_err(StoreError::io("create the directory", &work))?;
                OverlaySpec { work: Some(work), ..self.spec.clone() }.mount(flavour)?
            }
            _ => self.spec.mount(flavour)?,
        };
        *mounted = Some(tree.downgrade());
        Ok(tree)
    }

    /// Makes the snapshot immutable. It may have no changes. No mount of it may be written to any more.
    pub fn commit(mut self, info: &CommitInfo) -> Result<SnapshotId> {
        let mut row = Row::new(self.parent, info);
        row.dir = Some(self.dir.clone());
        let id = self.snapshots.store.database.write(|tx| {
            if let Some(parent) = self.parent {
                row::require(tx, parent)?;
            }
            let id = row.insert(tx)?;
            self.lease.hold_snapshot_in(tx, id)?;
            Ok(id)
        })?;
        self.committed = true;
        self.discard_work();
        Ok(id)
    }

    fn discard_work(&self) {
        if let Some(work) = &self.spec.work {
            self.discard(work);
            self.discard(&work.with_file_name("work-again"));
        }
    }

    /// The name of the directory, and that it now belongs to whoever asks.
    pub(crate) fn into_directory(mut self) -> String {
        self.committed = true;
        self.discard_work();
        self.dir.clone()
    }

    fn discard(&self, path: &Path) {
        let name = self.lease.unique_name();
        if let Err(error) = self.snapshots.store.layout.discard(path, &name) {
            tracing::debug!(%error, "left a directory to the next collection");
        }
    }
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if !self.committed {
            self.discard(&self.snapshots.store.layout.snapshots().join(&self.dir));
        }
    }
}

/// Makes the directory for a layer's files.
pub(super) fn make_directory(snapshots: &Snapshots, dir: &str) -> Result<PathBuf> {
    let path = snapshots.store.layout.snapshots().join(dir);
    let files = snapshots.store.layout.files(dir);
    std::fs::create_dir(&path)
        .and_then(|()| std::fs::create_dir(&files))
        .and_then(|()| std::fs::set_permissions(&files, Permissions::from_mode(0o755)))
        .map_err(StoreError::io("create the directory", &files))?;
    Ok(files)
}

/// Gives the root directory of a layer the owner and mode of the one below, which it hides.
pub(super) fn copy_root(from: &Path, to: &Path) -> Result<()> {
    let below = std::fs::metadata(from).map_err(StoreError::io("stat", from))?;
    let above = std::fs::metadata(to).map_err(StoreError::io("stat", to))?;
    let changed = (|| {
        if (below.uid(), below.gid()) != (above.uid(), above.gid()) {
            std::os::unix::fs::chown(to, Some(below.uid()), Some(below.gid()))?;
        }
        if below.mode() != above.mode() {
            std::fs::set_permissions(to, Permissions::from_mode(below.mode() & 0o7777))?;
        }
        File::open(to)?.set_modified(below.modified()?)
    })();
    changed.map_err(StoreError::io("set the metadata of", to))
}
