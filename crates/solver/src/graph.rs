//! The merged build graph: vertices by digest, each once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use slipway_model::Digest;

/// Names a vertex within one [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub(crate) usize);

/// One output of a vertex, as another one's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    pub vertex: VertexId,
    /// Which of the vertex's outputs.
    pub index: usize,
}

#[derive(Debug)]
pub(crate) struct Node<O> {
    pub(crate) digest: Digest,
    pub(crate) operation: Arc<O>,
    pub(crate) inputs: Vec<Input>,
}

/// A directed graph without cycles: a vertex can only be added after its inputs.
#[derive(Debug)]
pub struct Graph<O> {
    pub(crate) nodes: Vec<Node<O>>,
    by_digest: HashMap<Digest, VertexId>,
}

impl<O> Default for Graph<O> {
    fn default() -> Self {
        Self { nodes: Vec::new(), by_digest: HashMap::new() }
    }
}

impl<O> Graph<O> {
    /// Starts an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex, or returns the one of the same digest that is there.
    ///
    /// Operations are shared: a graph that is made later may hold the same ones.
    pub fn add(
        &mut self,
        digest: Digest,
        inputs: Vec<Input>,
        operation: impl FnOnce() -> Arc<O>,
    ) -> VertexId {
        if let Some(id) = self.by_digest.get(&digest) {
            return *id;
        }
        let id = VertexId(self.nodes.len());
        debug_assert!(inputs.iter().all(|input| input.vertex < id), "inputs are added first");
        self.nodes.push(Node { digest, operation: operation(), inputs });
        self.by_digest.insert(digest, id);
        id
    }

    /// Finds a vertex by its digest.
    pub fn find(&self, digest: &Digest) -> Option<VertexId> {
        self.by_digest.get(digest).copied()
    }

    /// Returns a vertex's digest.
    pub fn digest(&self, vertex: VertexId) -> Digest {
        self.nodes[vertex.0].digest
    }

    /// Returns what a vertex does.
    pub fn operation(&self, vertex: VertexId) -> &Arc<O> {
        &self.nodes[vertex.0].operation
    }

    /// Returns a vertex's inputs.
    pub fn inputs(&self, vertex: VertexId) -> &[Input] {
        &self.nodes[vertex.0].inputs
    }

    /// Lists what the vertices do.
    pub fn operations(&self) -> impl Iterator<Item = &Arc<O>> {
        self.nodes.iter().map(|node| &node.operation)
    }

    /// Lists, for each vertex, the outputs that others or `wanted` use, in order.
    pub(crate) fn used_outputs(&self, wanted: &[Input]) -> Vec<Vec<usize>> {
        let mut used = vec![BTreeSet::new(); self.nodes.len()];
        for input in self.nodes.iter().flat_map(|node| &node.inputs).chain(wanted) {
            used[input.vertex.0].insert(input.index);
        }
        used.into_iter().map(|indices| indices.into_iter().collect()).collect()
    }

    /// Counts the vertices.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Tells whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
