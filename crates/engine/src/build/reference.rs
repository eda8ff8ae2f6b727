//! A reference to files that a definition makes, made when they are first needed.

use std::sync::Arc;

use slipway_model::llb::{Definition, pb};
use slipway_model::{Diagnostic, ErrorKind};
use tokio::sync::OnceCell;

use super::first;
use crate::attest::Scope;
use crate::job::Job;
use crate::ops::VertexOperation;
use crate::start_over::ATTEMPTS;
use crate::tree::Tree;

/// What a definition gives, computed at most once. Cloning is cheap.
#[derive(Clone)]
pub struct Ref(Arc<Inner>);

struct Inner {
    wire: pb::Definition,
    definition: Arc<Definition>,
    /// Whose it is.
    scope: Arc<Scope>,
    /// Of each attempt of the build.
    outcomes: [OnceCell<Outcome>; ATTEMPTS],
}

/// A result, and the operations that made it: while they live the build remembers them.
struct Outcome {
    tree: Tree,
    _operations: Vec<Arc<VertexOperation>>,
}

impl std::fmt::Debug for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ref({:?})", self.0.definition.result)
    }
}

impl Ref {
    /// Checks a definition; `None` for the empty file system.
    pub(crate) fn new(wire: pb::Definition, scope: &Arc<Scope>) -> Result<Option<Self>, Diagnostic> {
        let definition =
            Definition::decode(&wire).map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
        if definition.result.is_none() {
            return Ok(None);
        }
        let (definition, scope) = (Arc::new(definition), scope.clone());
        Ok(Some(Self(Arc::new(Inner { wire, definition, scope, outcomes: Default::default() }))))
    }

    /// Stands for files that are there already, whatever made them; `None` for the empty file system.
    pub(crate) fn of_tree(tree: Tree) -> Option<Self> {
        if matches!(tree, Tree::Empty) {
            return None;
        }
        let outcome = |()| OnceCell::new_with(Some(Outcome { tree: tree.clone(), _operations: Vec::new() }));
        let (wire, definition, scope) = Default::default();
        Some(Self(Arc::new(Inner { wire, definition, scope, outcomes: [(); ATTEMPTS].map(outcome) })))
    }

    /// Returns the files, if they are there.
    pub(crate) fn known_tree(&self, job: &Job) -> Option<Tree> {
        self.outcome(job).get().map(|outcome| outcome.tree.clone())
    }

    /// Returns the definition, as it was given.
    pub fn definition(&self) -> &pb::Definition {
        &self.0.wire
    }

    /// Returns the definition, checked.
    pub(crate) fn decoded(&self) -> &Arc<Definition> {
        &self.0.definition
    }

    /// Returns whose it is: who has asked for what led to it.
    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.0.scope
    }

    /// Computes the result.
    pub(crate) async fn evaluate(&self, job: &Arc<Job>) -> Result<Tree, Vec<Diagnostic>> {
        let evaluate = || async {
            let evaluated = job.evaluate(&[&self.0.definition]).await?;
            let tree = evaluated.trees.into_iter().next().unwrap_or(Tree::Empty);
            Ok(Outcome { tree, _operations: evaluated.operations })
        };
        self.outcome(job).get_or_try_init(evaluate).await.map(|outcome| outcome.tree.clone())
    }

    fn outcome(&self, job: &Job) -> &OnceCell<Outcome> {
        &self.0.outcomes[job.attempt()]
    }

    /// Computes the result, for one who can say only one thing of a failure.
    pub(crate) async fn tree(&self, job: &Arc<Job>) -> Result<Tree, Diagnostic> {
        self.evaluate(job).await.map_err(first)
    }

    /// Computes several results in one graph.
    pub(crate) async fn evaluate_all(references: &[Self], job: &Arc<Job>) -> Result<(), Vec<Diagnostic>> {
        let open: Vec<&Self> = references.iter().filter(|r| r.outcome(job).get().is_none()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let definitions: Vec<&Definition> = open.iter().map(|r| &*r.0.definition).collect();
        let evaluated = job.evaluate(&definitions).await?;
        for (reference, tree) in open.into_iter().zip(evaluated.trees) {
            // If somebody was faster, theirs is as good.
            let _ = reference.outcome(job).set(Outcome { tree, _operations: evaluated.operations.clone() });
        }
        Ok(())
    }
}
