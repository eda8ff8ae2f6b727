//! Merge and diff: layers taken from one chain and put on another, without looking at their files.
//!
//! This is what makes `COPY --link` independent of its base: the layer is made on nothing, and put on whatever
//! the base is now.

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest};
use slipway_store::{CommitInfo, SnapshotId};

use super::VertexOperation;
use crate::error::{Context as _, blocking, internal};
use crate::tree::Tree;

/// Puts the layers of all inputs on top of each other.
pub(super) async fn merge(
    operation: &VertexOperation,
    merge: &pb::MergeOp,
    inputs: Vec<Tree>,
) -> Result<Tree, Diagnostic> {
    let (job, name) = (operation.job.clone(), operation.name.clone());
    let order: Vec<Tree> = merge
        .inputs
        .iter()
        .filter_map(|input| usize::try_from(input.input).ok().and_then(|i| inputs.get(i)).cloned())
        .collect();
    let mut chains: Vec<SnapshotId> = Vec::with_capacity(order.len());
    for (position, tree) in order.iter().enumerate() {
        let id = match (position, tree) {
            // The lowest one stays as it is, and may stay unfetched.
            (0, Tree::Snapshot(id)) => Some(*id),
            (_, tree) => job.materialize(tree, operation.digest()).await?,
        };
        chains.extend(id);
    }
    blocking(move || {
        let snapshots = job.engine.store.snapshots();
        let info = CommitInfo { description: name, ..CommitInfo::default() };
        let mut chains = chains.into_iter();
        let Some(mut top) = chains.next() else { return Ok(Tree::Empty) };
        for chain in chains {
            for layer in snapshots.chain(chain).diagnose()? {
                top = snapshots.reparent(layer, Some(top), &info, &job.lease).diagnose()?;
            }
        }
        Ok(Tree::Snapshot(top))
    })
    .await
}

/// Takes the layers that the upper input has and the lower has not.
pub(super) async fn diff(
    operation: &VertexOperation,
    diff: &pb::DiffOp,
    inputs: Vec<Tree>,
) -> Result<Tree, Diagnostic> {
    let (job, name) = (operation.job.clone(), operation.name.clone());
    let pick = |index: Option<i64>| -> Result<Tree, Diagnostic> {
        match index {
            None | Some(-1) => Ok(Tree::Empty),
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|index| inputs.get(index))
                .cloned()
                .ok_or_else(|| internal("a diff names an input that is not there")),
        }
    };
    let lower = pick(diff.lower.as_ref().map(|l| l.input))?;
    let upper = pick(diff.upper.as_ref().map(|u| u.input))?;
    let vertex: Digest = operation.digest();
    let lower = job.materialize(&lower, vertex).await?;
    let upper = job.materialize(&upper, vertex).await?;
    blocking(move || {
        let info = CommitInfo { description: name, ..CommitInfo::default() };
        let made = job.engine.store.snapshots().diff(lower, upper, &info, &job.lease).diagnose()?;
        Ok(made.map_or(Tree::Empty, Tree::Snapshot))
    })
    .await
}
