//! What an operation gives: a tree of files, as a handle.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use slipway_store::SnapshotId;

use crate::sources::local::LocalContext;

/// A tree of files that does not change any more.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// Nothing: what `FROM scratch` starts from.
    Empty,
    /// A chain of layers in the store, of which some may not have been fetched yet.
    Snapshot(SnapshotId),
    /// A directory of the person who builds, read in place.
    Local(Arc<LocalContext>),
}

/// A tree as the cache remembers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TreeRecord {
    /// Not kept: a cache had other outputs of the step, and not this one.
    Absent,
    Empty,
    /// The id, as text.
    Snapshot(String),
}

impl Tree {
    /// Returns the form the cache keeps; a local directory has none, since nobody says it stays as it is.
    pub(crate) fn record(&self) -> Option<TreeRecord> {
        match self {
            Self::Empty => Some(TreeRecord::Empty),
            Self::Snapshot(id) => Some(TreeRecord::Snapshot(id.to_string())),
            Self::Local(_) => None,
        }
    }

    /// Returns the snapshot, if it is one.
    pub(crate) fn snapshot(&self) -> Option<SnapshotId> {
        match self {
            Self::Snapshot(id) => Some(*id),
            Self::Empty | Self::Local(_) => None,
        }
    }
}

impl TreeRecord {
    /// Returns the tree, if it was kept.
    pub(crate) fn tree(&self) -> Result<Option<Tree>, slipway_store::ParseSnapshotIdError> {
        Ok(match self {
            Self::Absent => None,
            Self::Empty => Some(Tree::Empty),
            Self::Snapshot(id) => Some(Tree::Snapshot(id.parse()?)),
        })
    }
}
