//! Writing the record of a build while it runs.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use serde_json::{Map, Value};
use slipway_model::Digest;
use slipway_model::progress::{Event, EventSink};

use super::events::Writer;
use super::record::{Outcome, Record, Steps};
use super::{EVENTS, RECORD};

/// A record that is being written. Dropped without [`finish`](Self::finish), it is that of a killed build.
#[derive(Debug)]
pub struct Recording {
    directory: PathBuf,
    record: Record,
    said: Arc<Mutex<Said>>,
    /// Tells others that the build runs.
    _lock: File,
}

/// What a build has said so far.
#[derive(Debug)]
struct Said {
    /// Gone after the first failure: a full disk must not stop the build that may empty it.
    writer: Option<Writer>,
    vertices: HashMap<Digest, State>,
    warnings: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    completed: bool,
    cached: bool,
}

impl Recording {
    pub(super) fn start(directory: PathBuf, record: Record) -> io::Result<Self> {
        let lock = File::open(&directory)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let writer = Some(Writer::new(File::create(directory.join(EVENTS))?)?);
        write(&directory, &record)?;
        let said = Arc::new(Mutex::new(Said { writer, vertices: HashMap::new(), warnings: 0 }));
        Ok(Self { directory, record, said, _lock: lock })
    }

    /// Returns a sink that writes events down and passes them on.
    pub fn sink(&self, next: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
        Arc::new(Tee { said: self.said.clone(), next })
    }

    /// Ends the record.
    pub fn finish(mut self, outcome: Outcome, metadata: Map<String, Value>) {
        self.record.completed = Some(SystemTime::now());
        self.record.outcome = Some(outcome);
        self.record.metadata = metadata;
        let mut said = self.said.lock();
        self.record.steps = said.steps();
        let ended = said.writer.take().map_or(Ok(()), Writer::finish);
        if let Err(error) = ended.and_then(|()| write(&self.directory, &self.record)) {
            tracing::warn!(%error, "could not keep the record of the build");
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What was said is worth having, however the build ended.
        if let Some(writer) = self.said.lock().writer.take() {
            let _ = writer.finish();
        }
    }
}

struct Tee {
    said: Arc<Mutex<Said>>,
    next: Arc<dyn EventSink>,
}

impl EventSink for Tee {
    fn part(&self, name: &str, steps: &[Digest]) {
        self.next.part(name, steps);
    }

    fn emit(&self, event: Event) {
        self.said.lock().take(&event);
        // How keys came about is for those who ask later.
        if !matches!(event, Event::Key(_)) {
            self.next.emit(event);
        }
    }
}

impl Said {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Vertex(vertex) => {
                let state = State { completed: vertex.completed.is_some(), cached: vertex.cached };
                self.vertices.insert(vertex.digest, state);
            }
            Event::Warning(_) => self.warnings += 1,
            Event::Status(_) | Event::Log(_) | Event::Key(_) => {}
        }
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.write(event) {
            tracing::warn!(%error, "could not keep what the build says");
            self.writer = None;
        }
    }

    fn steps(&self) -> Steps {
        let count = |of: fn(&State) -> bool| {
            u32::try_from(self.vertices.values().filter(|state| of(state)).count()).unwrap_or(u32::MAX)
        };
        Steps {
            total: count(|_| true),
            completed: count(|state| state.completed),
            cached: count(|state| state.cached),
            warnings: self.warnings,
        }
    }
}

fn write(directory: &Path, record: &Record) -> io::Result<()> {
    let temporary = directory.join("record.json.new");
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::rename(temporary, directory.join(RECORD))
}
