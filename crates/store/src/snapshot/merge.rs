//! Layers put onto other parents: `MergeOp`, `COPY --link`, `DiffOp`.
//!
//! A layer means the same over any parent if its directory has nothing that depends on the old one: no
//! directories that were touched without being changed, no opaque marks that were an optimisation. That
//! is certain for a layer without parent, which is what `COPY --link` makes, and for unpacked layers
//! marked portable: their directory is shared. Of others a new directory is made from the layer's
//! archive. Either way the new snapshot remembers its source, and has the same blobs.

use std::io::Write;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use slipway_model::Digest;

use super::active::{copy_root, make_directory};
use super::{CommitInfo, Row, SnapshotId, Snapshots, chain_id, row};
use crate::error::{Result, StoreError};
use crate::layer::Variant;
use crate::layer::diff::{self, DiffContext, DiffOptions, UpperForm};
use crate::layer::extract::{Extractor, Outcome, Placement, open_root};
use crate::lease::Lease;
use crate::tar::TarReader;

impl Snapshots {
    /// Makes a snapshot with the diff of `layer` over another parent. Neither `onto` nor, unless its files
    /// have to be made anew, `layer` need be unpacked.
    pub fn reparent(
        &self,
        layer: SnapshotId,
        onto: Option<SnapshotId>,
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<SnapshotId> {
        let row = self.store.database.read(|connection| row::require(connection, layer))?;
        if row.parent == onto {
            if !lease.hold_snapshots(&[layer])? {
                return Err(StoreError::SnapshotMissing(layer));
            }
            return Ok(layer);
        }
        let shareable = row.portable || (row.parent.is_none() && !row.imported);
        let dir = match &row.dir {
            Some(dir) if shareable => Some(dir.clone()),
            // Extracted again from its blob, over its new parent.
            _ if row.imported => None,
            Some(_) => Some(self.replant(&row, onto, lease)?),
            None => return Err(StoreError::NotUnpacked(layer)),
        };
        self.insert_reparented(&row, onto, dir, info, lease)
    }

    fn insert_reparented(
        &self,
        row: &Row,
        onto: Option<SnapshotId>,
        dir: Option<String>,
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<SnapshotId> {
        self.store.database.write(|tx| {
            row::require(tx, row.id)?;
            let parent_chain = match onto {
                None => Some(None),
                Some(onto) => row::require(tx, onto)?.chain_id.map(Some),
            };
            let chain = row.diff_id.zip(parent_chain).map(|(diff, parent)| chain_id(parent.as_ref(), &diff));
            // The same layer over the same parent.
            let query = "SELECT id FROM snapshots WHERE parent IS ?1 AND (source = ?2 OR chain_id = ?3)
                AND (dir IS NOT NULL OR ?4) ORDER BY id LIMIT 1";
            let source = row.source.unwrap_or(row.id);
            let known: Option<i64> = tx
                .prepare_cached(query)?
                .query_row(
                    params![
                        onto.map(SnapshotId::row),
                        source.row(),
                        chain.as_ref().map(Digest::as_bytes),
                        dir.is_none()
                    ],
                    |row| row.get(0),
                )
                .optional()?;
            let id = match known {
                Some(known) => SnapshotId::from_row(known),
                None => {
                    let mut new = Row::new(onto, info);
                    new.source = (!row.imported).then_some(source);
                    new.imported = row.imported;
                    new.portable = dir.is_some();
                    (new.dir, new.diff_id, new.chain_id) = (dir, row.diff_id, chain);
                    new.insert(tx)?
                }
            };
            Variant::copy_all(tx, row.id, id)?;
            lease.hold_snapshot_in(tx, id)?;
            Ok(id)
        })
    }

    /// Puts the layers of all `inputs` on top of each other; `None` if there are none.
    pub fn merge(
        &self,
        inputs: &[SnapshotId],
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<Option<SnapshotId>> {
        let mut top: Option<SnapshotId> = None;
        for &input in inputs {
            if top.is_none() {
                top = Some(input);
                continue;
            }
            for layer in self.chain(input)? {
                top = Some(self.reparent(layer, top, info, lease)?);
            }
        }
        if let Some(top) = top
            && !lease.hold_snapshots(&[top])?
        {
            return Err(StoreError::SnapshotMissing(top));
        }
        Ok(top)
    }

    /// Makes a snapshot of what `upper` changes in `lower`; `None` if that is nothing.
    pub fn diff(
        &self,
        lower: Option<SnapshotId>,
        upper: Option<SnapshotId>,
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<Option<SnapshotId>> {
        let above = upper.map(|upper| self.chain(upper)).transpose()?.unwrap_or_default();
        let below = lower.map(|lower| self.chain(lower)).transpose()?.unwrap_or_default();
        if let Some(layers) = above.strip_prefix(below.as_slice()) {
            let mut top = None;
            for &layer in layers {
                top = Some(self.reparent(layer, top, info, lease)?);
            }
            return Ok(top);
        }
        self.diff_trees(lower, upper, info, lease).map(Some)
    }

    /// Compares two unrelated trees, file by file.
    fn diff_trees(
        &self,
        lower: Option<SnapshotId>,
        upper: Option<SnapshotId>,
        info: &CommitInfo,
        lease: &Lease,
    ) -> Result<SnapshotId> {
        let base = lower.map(|lower| self.mount_view(lower)).transpose()?;
        let view = upper.map(|upper| self.mount_view(upper)).transpose()?;
        let empty = open_root(&self.store.layout.empty())?;
        let context = DiffContext {
            snapshot: upper.or(lower).unwrap_or(SnapshotId::from_row(0)),
            upper: view.as_ref().map_or(empty.as_fd(), |tree| tree.as_fd()),
            base: base.as_ref().map(|tree| tree.as_fd()),
            form: UpperForm::Whole,
            flavour: self.store.flavour,
        };
        let write =
            |out: &mut std::io::PipeWriter| diff::write(&context, &DiffOptions::default(), out).map(drop);
        let dir = self.extract_written(write, lease)?;
        let mut row = Row::new(None, info);
        (row.dir, row.portable) = (Some(dir), true);
        self.store.database.write(|tx| {
            let id = row.insert(tx)?;
            lease.hold_snapshot_in(tx, id)?;
            Ok(id)
        })
    }

    /// Makes a directory of a layer's archive that serves over any parent.
    fn replant(&self, row: &Row, onto: Option<SnapshotId>, lease: &Lease) -> Result<String> {
        let write = |out: &mut std::io::PipeWriter| self.write_diff(row.id, out, &DiffOptions::default());
        let dir = self.extract_written(write, lease)?;
        if let Some(onto) = onto
            && let Ok(below) = self.directories(onto)
            && let Some(below) = below.first()
        {
            copy_root(below, &self.store.layout.files(&dir))?;
        }
        Ok(dir)
    }

    /// Extracts the archive that `write` makes into a new directory, and returns its name.
    fn extract_written(
        &self,
        write: impl FnOnce(&mut std::io::PipeWriter) -> Result<()> + Send,
        lease: &Lease,
    ) -> Result<String> {
        let dir = lease.unique_name();
        let files = make_directory(self, &dir)?;
        let root = open_root(&files)?;
        let (input, mut output) = std::io::pipe().map_err(StoreError::io("make a pipe for", &files))?;
        let (written, extracted) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let written = write(&mut output);
                let flushed = output.flush().map_err(StoreError::Output);
                written.and(flushed)
            });
            let layer = Digest::of(b"");
            let extractor = Extractor::new(layer, root.as_fd(), Placement::Detached, self.store.flavour);
            let extracted = extractor.run(TarReader::new(input));
            (writer.join(), extracted)
        });
        let written = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A failed extraction closes the pipe, so its error comes first; a failed write cuts the archive.
        let outcome = match (written, extracted) {
            (Err(error @ StoreError::Output(_)), Ok(_)) => Err(error),
            (Ok(()) | Err(StoreError::Output(_)), extracted) => extracted,
            (Err(error), _) => Err(error),
        };
        match outcome {
            Ok(Outcome::Done(_)) => Ok(dir),
            other => {
                let path = self.store.layout.snapshots().join(&dir);
                Arc::clone(&self.store).layout.discard(&path, &lease.unique_name())?;
                other.and(Err(StoreError::DamagedRecord { what: format!("layer archive of `{dir}`") }))
            }
        }
    }
}
