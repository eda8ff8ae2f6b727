//! What is shown of policies while a build runs: one step with their files' names, and what they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use slipway_model::progress::{Event, EventSink, Log, Stream, Vertex};
use slipway_model::{Diagnostic, Digest};

/// The step of a build's policies.
pub(super) struct Shown {
    events: Arc<dyn EventSink>,
    vertex: Vertex,
}

impl Shown {
    /// Shows that policies are being loaded.
    pub(super) fn start(names: &str, events: Arc<dyn EventSink>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("loading policies {names}");
        let vertex = Vertex {
            digest: Digest::of(format!("{name}\0{}", COUNT.fetch_add(1, Ordering::Relaxed))),
            name,
            inputs: Vec::new(),
            started: Some(SystemTime::now()),
            completed: None,
            cached: false,
            error: None,
            progress_group: None,
        };
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
