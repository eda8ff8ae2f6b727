//! The vertices of one build, each once however many definitions hold it.
//!
//! A client may solve a definition, then one that grew from it. The vertices that both hold keep what was found
//! out about them, and are told of once. They live as long as somebody holds a reference that needs them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use slipway_model::Digest;
use slipway_model::llb::Vertex;

use crate::ops::VertexOperation;

/// What is known of the vertices of a build.
#[derive(Default)]
pub(crate) struct Vertices {
    /// By digest, and whether the cache is ignored.
    known: Mutex<HashMap<(Digest, bool), Weak<VertexOperation>>>,
    told: Mutex<HashMap<Digest, Told>>,
}

/// What the client was told of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// Found in the cache; should the result turn out to be gone, the vertex starts after all.
    Cached,
    Started,
    Ended,
}

impl Vertices {
    /// Returns the operation of a vertex; one that ignores the cache serves those that do not care as well.
    pub(crate) fn get_or_make(
        &self,
        vertex: &Vertex,
        make: impl FnOnce() -> VertexOperation,
    ) -> Arc<VertexOperation> {
        let mut known = self.known.lock();
        let ignores = vertex.metadata.ignore_cache;
        let find = |ignores| known.get(&(vertex.digest, ignores)).and_then(Weak::upgrade);
        if let Some(found) = find(true).or_else(|| find(ignores)) {
            return found;
        }
        let made = Arc::new(make());
        known.insert((vertex.digest, ignores), Arc::downgrade(&made));
        made
    }

    /// Forgets all vertices: they are made, and told of, anew.
    pub(crate) fn forget(&self) {
        self.known.lock().clear();
        self.told.lock().clear();
    }

    /// Notes that the client is told something; says whether that is news.
    pub(crate) fn tell(&self, vertex: Digest, news: Told) -> bool {
        let mut told = self.told.lock();
        let before = told.insert(vertex, news).filter(|before| *before >= news);
        if let Some(before) = before {
            told.insert(vertex, before);
        }
        before.is_none()
    }
}
