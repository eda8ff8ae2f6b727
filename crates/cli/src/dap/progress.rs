//! What the build tells of itself while it runs: shown to the person, and noted for who pauses.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_model::Digest;
use slipway_model::progress::{Event, EventSink};

/// The vertices that have begun, or were found done.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<HashSet<Digest>>);

impl Begun {
    pub(super) fn contains(&self, vertex: &Digest) -> bool {
        self.0.lock().contains(vertex)
    }
}

/// Passes events on, and notes what has begun.
pub(super) struct Noting {
    pub(super) begun: Arc<Begun>,
    pub(super) shown: Arc<dyn EventSink>,
}

impl EventSink for Noting {
    fn emit(&self, event: Event) {
        if let Event::Vertex(vertex) = &event
            && vertex.started.is_some()
        {
            self.begun.0.lock().insert(vertex.digest);
        }
        self.shown.emit(event);
    }
}
