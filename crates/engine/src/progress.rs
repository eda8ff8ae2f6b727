//! Telling what happens, as [`Event`]s: vertices, steps that are no vertex (exporting, loading), counters.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use slipway_model::Digest;
use slipway_model::progress::{Event, EventSink, Log, Status, StepKey, Stream, Vertex, Warning};

/// How often a counter speaks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Sends events of one solve.
#[derive(Clone)]
pub(crate) struct Progress {
    sink: Arc<dyn EventSink>,
}

impl Progress {
    pub(crate) fn new(sink: Arc<dyn EventSink>) -> Self {
        Self { sink }
    }

    pub(crate) fn vertex(&self, vertex: Vertex) {
        self.sink.emit(Event::Vertex(vertex));
    }

    /// Says which steps are those of a part.
    pub(crate) fn part(&self, name: &str, steps: &[Digest]) {
        self.sink.part(name, steps);
    }

    pub(crate) fn key(&self, key: StepKey) {
        self.sink.emit(Event::Key(Box::new(key)));
    }

    pub(crate) fn warn(&self, warning: Warning) {
        self.sink.emit(Event::Warning(warning));
    }

    pub(crate) fn log(&self, vertex: Digest, stream: Stream, data: &[u8]) {
        self.sink.emit(Event::Log(Log { vertex, stream, data: data.into(), timestamp: SystemTime::now() }));
    }

    /// Starts a step that is no vertex of the graph, as `exporting to image`.
    pub(crate) fn step(&self, name: impl Into<String>) -> Step {
        let vertex = Vertex::start(name);
        self.vertex(vertex.clone());
        Step { progress: self.clone(), vertex: Some(vertex) }
    }

    /// Starts a counter below a vertex.
    pub(crate) fn counter(&self, vertex: Digest, id: impl Into<String>, total: u64) -> Counter {
        let now = SystemTime::now();
        let status = Status {
            vertex,
            id: id.into(),
            current: 0,
            total,
            timestamp: now,
            started: Some(now),
            completed: None,
        };
        let counter = Counter { progress: self.clone(), state: Mutex::new((status, Instant::now())) };
        counter.emit();
        counter
    }
}

/// A step in progress; dropped without [`Step::done`] it counts as cancelled.
pub(crate) struct Step {
    progress: Progress,
    vertex: Option<Vertex>,
}

impl Step {
    pub(crate) fn digest(&self) -> Digest {
        self.vertex.as_ref().map(|v| v.digest).unwrap_or_else(|| Digest::of(""))
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn done(mut self) {
        self.finish(None);
    }

    pub(crate) fn failed(mut self, error: &dyn std::fmt::Display) {
        self.finish(Some(error.to_string()));
    }

    /// Ends the step as `result` says.
    pub(crate) fn end<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.done(),
            Err(error) => self.failed(error),
        }
        result
    }

    fn finish(&mut self, error: Option<String>) {
        if let Some(vertex) = self.vertex.take() {
            self.progress.vertex(Vertex { completed: Some(SystemTime::now()), error, ..vertex });
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finish(Some("canceled".to_owned()));
    }
}

/// Counts bytes; complete when dropped.
pub(crate) struct Counter {
    progress: Progress,
    state: Mutex<(Status, Instant)>,
}

impl Counter {
    pub(crate) fn add(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.0.current += bytes;
        self.speak(&mut state);
    }

    pub(crate) fn set(&self, current: u64) {
        let mut state = self.state.lock();
        state.0.current = current;
        self.speak(&mut state);
    }

    fn speak(&self, state: &mut (Status, Instant)) {
        if state.1.elapsed() < INTERVAL {
            return;
        }
        state.1 = Instant::now();
        state.0.timestamp = SystemTime::now();
        self.progress.sink.emit(Event::Status(state.0.clone()));
    }

    fn emit(&self) {
        self.progress.sink.emit(Event::Status(self.state.lock().0.clone()));
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        {
            let mut state = self.state.lock();
            let now = SystemTime::now();
            state.0.timestamp = now;
            state.0.completed = Some(now);
        }
        self.emit();
    }
}
