//! Snapshots: immutable file-system states, each one layer over its parent.
//!
//! # What a snapshot is
//!
//! A row, and — once *ready* — a directory `snapshots/<name>/fs` with the files of its own layer in
//! overlayfs's form: whiteouts are character devices 0:0, an attribute marks opaque directories. The
//! whole state is the overlay of these directories from the snapshot down to the one without parent.
//! A *lazy* snapshot is known by its blob only; a base image that no step reads is never unpacked.
//!
//! # How it comes to be
//!
//! [`Snapshots::prepare`] makes an empty directory, [`ActiveSnapshot::commit`] inserts a row that names
//! it. Nothing is renamed, so a mount stays valid, and the row is the commit: a directory that no row
//! names belongs to a live process (its name starts with that of a lease) or is garbage.
//! Several rows may share a directory: equal layers over different parents, see [`Snapshots::reparent`].
//!
//! # What the disk keeps
//!
//! Nothing is flushed. `kill -9` loses nothing that was committed; after a power cut, files written in
//! the last seconds may be empty, as with other builders; `slipway prune` then starts afresh.

mod active;
mod id;
mod merge;
mod row;
mod unpack;

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, Transaction, params};
use slipway_model::Digest;

pub use active::ActiveSnapshot;
pub use id::{
    CommitInfo, LayerBlob, ParseSnapshotIdError, SnapshotId, SnapshotInfo, SnapshotKind, SnapshotState,
    chain_id,
};
pub(crate) use row::{Row, all, children, require, set_diff_id};
pub use unpack::{UnpackOptions, UnpackProgress};

use crate::db;
use crate::error::{Result, StoreError};
use crate::layer::Variant;
use crate::lease::Lease;
use crate::mount::{MountedTree, OverlaySpec};
use crate::store::Inner;

/// Gives access to the snapshots of a store.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub(crate) store: Arc<Inner>,
}

impl Snapshots {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self { store }
    }

    /// Makes a layer of an image known without unpacking it. One that is known already is found by its
    /// chain id and its blob: the same files that came compressed in another way are another snapshot.
    pub fn add_layer(
        &self,
        parent: Option<SnapshotId>,
        layer: &LayerBlob,
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<SnapshotId> {
        self.store.database.write(|tx| self.add_layer_in(tx, parent, layer, info, lease))
    }

    /// Makes the layers of an image known, lowest first, in one transaction; returns their snapshots.
    pub fn add_image(&self, layers: &[(LayerBlob, CommitInfo)], lease: &Lease) -> Result<Vec<SnapshotId>> {
        self.store.database.write(|tx| {
            let mut ids: Vec<SnapshotId> = Vec::with_capacity(layers.len());
            for (layer, info) in layers {
                let id = self.add_layer_in(tx, ids.last().copied(), layer, info, lease)?;
                ids.push(id);
            }
            Ok(ids)
        })
    }

    fn add_layer_in(
        &self,
        tx: &Transaction<'_>,
        parent: Option<SnapshotId>,
        layer: &LayerBlob,
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<SnapshotId> {
        let parent_chain = match parent {
            None => None,
            Some(parent) => {
                let row = row::require(tx, parent)?;
                row.chain_id.map(Some).ok_or(StoreError::NoContent(parent))?
            }
        };
        let chain = chain_id(parent_chain.as_ref(), &layer.diff_id);
        // One that was made here and has the same content does not count, nor does one that came in another
        // form: what came with an image is exported as it came. `unpack` shares the files.
        let query = "SELECT id FROM snapshots WHERE chain_id = ?1 AND imported AND parent IS ?2
            AND EXISTS (SELECT 1 FROM layer_blobs WHERE snapshot = id AND digest = ?3 AND level IS NULL)
            ORDER BY dir IS NULL, id LIMIT 1";
        let origin =
            params![chain.as_bytes(), parent.map(SnapshotId::row), layer.descriptor.digest.as_bytes()];
        let known: Option<i64> = tx.prepare_cached(query)?.query_row(origin, |row| row.get(0)).optional()?;
        let id = match known.map(SnapshotId::from_row) {
            Some(id) => {
                let used = "UPDATE snapshots SET last_used_at = ?2, use_count = use_count + 1 WHERE id = ?1";
                tx.prepare_cached(used)?.execute(params![id.row(), db::now()])?;
                id
            }
            None => {
                let mut row = Row::new(parent, info);
                (row.imported, row.diff_id, row.chain_id) = (true, Some(layer.diff_id), Some(chain));
                row.insert(tx)?
            }
        };
        Variant::imported(layer).insert(tx, id)?;
        lease.hold_snapshot_in(tx, id)?;
        Ok(id)
    }

    /// Returns what is known about a snapshot.
    pub fn get(&self, id: SnapshotId) -> Result<SnapshotInfo> {
        self.store.database.read(|connection| Ok(row::require(connection, id)?.into_info()))
    }

    /// Returns a snapshot and its ancestors, lowest first.
    pub fn chain(&self, id: SnapshotId) -> Result<Vec<SnapshotId>> {
        Ok(self.rows(id)?.iter().map(|row| row.id).collect())
    }

    /// Returns what is known about a snapshot and its ancestors, lowest first.
    pub fn chain_info(&self, id: SnapshotId) -> Result<Vec<SnapshotInfo>> {
        Ok(self.rows(id)?.into_iter().map(Row::into_info).collect())
    }

    /// Tells whether a snapshot and all its ancestors are unpacked.
    pub fn is_ready(&self, id: SnapshotId) -> Result<bool> {
        Ok(self.rows(id)?.iter().all(|row| row.dir.is_some()))
    }

    /// Lists the blobs of the snapshot's layer, in the store or not; that which came with an image first.
    pub fn blobs(&self, id: SnapshotId) -> Result<Vec<LayerBlob>> {
        let variants = self.store.database.read(|connection| Variant::list(connection, id))?;
        Ok(variants.into_iter().map(|variant| variant.blob).collect())
    }

    /// Returns the ids that a layer with this diff id has, newest first.
    pub fn find_by_diff_id(&self, diff_id: &Digest) -> Result<Vec<SnapshotId>> {
        self.store.database.read(|connection| {
            let query = "SELECT id FROM snapshots WHERE diff_id = ?1 ORDER BY id DESC";
            let mut query = connection.prepare_cached(query)?;
            let ids = query.query_map([diff_id.as_bytes()], |row| Ok(SnapshotId::from_row(row.get(0)?)))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
    }

    /// Says how to mount a snapshot read-only; it and its ancestors must be unpacked.
    pub fn view(&self, id: SnapshotId) -> Result<OverlaySpec> {
        let mut lower = self.directories(id)?;
        if lower.len() == 1 {
            // Overlayfs wants two; and a bind mount would show whiteouts, and could be written to.
            lower.push(self.store.layout.empty());
        }
        Ok(OverlaySpec { lower, upper: None, work: None })
    }

    /// Mounts a snapshot read-only, attached nowhere.
    pub fn mount_view(&self, id: SnapshotId) -> Result<MountedTree> {
        self.view(id)?.mount(self.store.flavour)
    }

    /// Starts a snapshot over `parent`, which must be unpacked, as must its ancestors.
    pub fn prepare(&self, parent: Option<SnapshotId>, lease: &Lease) -> Result<ActiveSnapshot> {
        ActiveSnapshot::prepare(self, parent, lease)
    }

    /// Removes a snapshot that has no children and that no lease holds.
    pub fn remove(&self, id: SnapshotId) -> Result<()> {
        crate::prune::remove_snapshot(&self.store, id)
    }

    /// The rows of a snapshot and its ancestors, lowest first.
    pub(crate) fn rows(&self, id: SnapshotId) -> Result<Vec<Row>> {
        self.store.database.read(|connection| {
            let mut rows = vec![row::require(connection, id)?];
            while let Some(parent) = rows.last().and_then(|row| row.parent) {
                rows.push(row::require(connection, parent)?);
            }
            rows.reverse();
            Ok(rows)
        })
    }

    /// The directories of a snapshot and its ancestors, top first.
    fn directories(&self, id: SnapshotId) -> Result<Vec<PathBuf>> {
        let rows = self.rows(id)?;
        let directory = |row: &Row| {
            let dir = row.dir.as_deref().ok_or(StoreError::NotUnpacked(row.id))?;
            Ok(self.store.layout.files(dir))
        };
        rows.iter().rev().map(directory).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::testing::Scratch;

    #[test]
    fn equal_chains_are_one_snapshot() {
        let scratch = Scratch::new();
        let store: &Store = &scratch.store;
        let lease = store.lease().unwrap();
        let layer = |name: &str| LayerBlob {
            descriptor: slipway_model::Descriptor::of(
                "application/vnd.oci.image.layer.v1.tar",
                name.as_bytes(),
            ),
            diff_id: Digest::of(name),
        };
        let info = CommitInfo::default();
        let snapshots = store.snapshots();
        let a = snapshots.add_layer(None, &layer("a"), &info, &lease).unwrap();
        let b = snapshots.add_layer(Some(a), &layer("b"), &info, &lease).unwrap();
        let other_b = snapshots.add_layer(None, &layer("b"), &info, &lease).unwrap();
        assert_ne!(b, other_b);
        let image = [(layer("a"), info.clone()), (layer("b"), info)];
        assert_eq!(snapshots.add_image(&image, &lease).unwrap(), [a, b]);
        assert_eq!(snapshots.chain(b).unwrap(), [a, b]);
        let got = snapshots.get(b).unwrap();
        assert_eq!(
            (got.parent, got.state, got.diff_id),
            (Some(a), SnapshotState::Lazy, Some(Digest::of("b")))
        );
        // The same files in another form are exported in that form.
        let mut zstd = layer("a");
        zstd.descriptor =
            slipway_model::Descriptor::of("application/vnd.oci.image.layer.v1.tar+zstd", b"a, but smaller");
        let other_a = snapshots.add_layer(None, &zstd, &CommitInfo::default(), &lease).unwrap();
        assert_ne!(other_a, a);
        assert_eq!(snapshots.blobs(other_a).unwrap(), [zstd.clone()]);
        assert_eq!(snapshots.add_layer(None, &zstd, &CommitInfo::default(), &lease).unwrap(), other_a);
        assert_eq!(snapshots.blobs(a).unwrap(), [layer("a")]);
        assert_eq!(got.chain_id, Some(chain_id(Some(&Digest::of("a")), &Digest::of("b"))));
        assert!(matches!(snapshots.prepare(Some(b), &lease), Err(StoreError::NotUnpacked(_))));
    }
}
