//! What failed steps leave behind, for those who want to look into it.
//!
//! A step that fails leaves nothing, unless the build was asked to keep it ([`crate::Build::keep_failed_steps`]):
//! then what the step had and what it wrote until it failed are snapshots that live as long as the build.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use slipway_model::Digest;
use slipway_model::llb::{Vertex, pb};

use crate::build::Ref;
use crate::tree::Tree;

/// A step that failed, and the files it had then.
#[derive(Clone, Debug)]
pub struct FailedStep {
    pub op: pb::Op,
    /// What the definition says of the step.
    pub description: BTreeMap<String, String>,
    pub part: FailedPart,
    /// For a process by mount, for file actions by input; `None` is the empty file system.
    pub inputs: Vec<Option<Ref>>,
    /// What was written: for a process by mount, for file actions by action.
    pub mounts: Vec<Option<Ref>>,
}

/// What of a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedPart {
    Process,
    /// The action of that position.
    FileAction(usize),
    /// The digest of what is used of that input.
    CacheKey(usize),
}

/// The trees of a failed step.
pub(crate) struct Leftovers {
    pub(crate) inputs: Vec<Option<Tree>>,
    pub(crate) mounts: Vec<Option<Tree>>,
}

/// The failed steps of a build, by vertex.
#[derive(Default)]
pub(crate) struct FailedSteps {
    wanted: AtomicBool,
    steps: Mutex<HashMap<Digest, Arc<FailedStep>>>,
}

impl FailedSteps {
    /// Keeps what fails from now on.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Keeps a failed step; `leftovers` is only asked if somebody wants them.
    pub(crate) fn keep(&self, vertex: &Vertex, part: FailedPart, leftovers: impl FnOnce() -> Leftovers) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let Leftovers { inputs, mounts } = leftovers();
        let references =
            |trees: Vec<Option<Tree>>| trees.into_iter().map(|tree| tree.and_then(Ref::of_tree)).collect();
        let step = FailedStep {
            op: vertex.op.clone(),
            description: vertex.metadata.description.clone(),
            part,
            inputs: references(inputs),
            mounts: references(mounts),
        };
        self.steps.lock().insert(vertex.digest, Arc::new(step));
    }

    /// Finds what a failed vertex left.
    pub(crate) fn get(&self, vertex: &Digest) -> Option<Arc<FailedStep>> {
        self.steps.lock().get(vertex).cloned()
    }
}
