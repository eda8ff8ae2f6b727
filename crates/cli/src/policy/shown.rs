//! What is shown of policies while a build runs: one step with their files' names, and what they say.

use std::sync::Arc;
use std::time::SystemTime;

use slipway_model::Diagnostic;
use slipway_model::progress::{Event, EventSink, Log, Stream, Vertex};

/// The step of a build's policies.
pub(super) struct Shown {
    events: Arc<dyn EventSink>,
    vertex: Vertex,
}

impl Shown {
    /// Shows that policies are being loaded.
    pub(super) fn start(names: &str, events: Arc<dyn EventSink>) -> Self {
        let vertex = Vertex::start(format!("loading policies {names}"));
        events.emit(Event::Vertex(vertex.clone()));
        Self { events, vertex }
    }

    /// Shows a line that a policy says.
    pub(super) fn line(&self, text: &str) {
        let data = format!("{text}\n").into_bytes().into();
        let (vertex, timestamp) = (self.vertex.digest, SystemTime::now());
        self.events.emit(Event::Log(Log { vertex, stream: Stream::Stdout, data, timestamp }));
    }

    /// Shows that nothing is being done.
    pub(super) fn pause(&self) {
        self.completed(None);
    }

    /// Shows why a build failed.
    pub(super) fn failed(&self, error: &Diagnostic) {
        self.completed(Some(error.to_string()));
    }

    fn completed(&self, error: Option<String>) {
        let completed = Some(SystemTime::now());
        self.events.emit(Event::Vertex(Vertex { completed, error, ..self.vertex.clone() }));
    }
}
