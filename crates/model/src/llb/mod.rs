//! LLB: the content-addressed graph of operations that every frontend makes and the engine runs.
//!
//! [`pb`] is the wire form, [`Definition`] a decoded and checked graph, [`GraphBuilder`] makes one.
//!
//! Invariant: a vertex is named by the digest of its operation's *bytes*, which contain the names of its
//! inputs; so a name stands for the whole history, a graph has no cycle, and two graphs share what is equal.

mod builder;
mod definition;
pub mod json;
pub mod pb;

pub use builder::{GraphBuilder, NodeOutput, VertexMeta};
pub use definition::{Definition, DefinitionError, Edge, Vertex};
