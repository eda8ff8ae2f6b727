//! What a build says while it runs, as data. Renderers (terminal, plain, JSON) and the gRPC face are
//! subscribers of this one stream; it has the shape of BuildKit's `StatusResponse`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::llb::pb;

/// Receives events; must not block.
pub trait EventSink: Send + Sync {
    /// Takes one event, in order for each vertex.
    fn emit(&self, event: Event);

    /// Hears, before anything is said of them, which steps are those of a part that may also be built by itself.
    fn part(&self, name: &str, steps: &[Digest]) {
        let _ = (name, steps);
    }
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _: Event) {}
}

/// Something that happened in a build.
#[derive(Clone, Debug)]
pub enum Event {
    Vertex(Vertex),
    Status(Status),
    Log(Log),
    Warning(Warning),
    Key(Box<StepKey>),
}

/// The whole state of a vertex; a later one of the same digest replaces it.
#[derive(Clone, Debug)]
pub struct Vertex {
    pub digest: Digest,
    pub name: String,
    pub inputs: Vec<Digest>,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    pub cached: bool,
    pub error: Option<String>,
    pub progress_group: Option<pb::ProgressGroup>,
}

impl Vertex {
    /// Returns a step that starts now and is of no definition; it is like no other, whatever their names.
    pub fn start(name: impl Into<String>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = name.into();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            digest: Digest::of(format!("{name}\0{number}")),
            name,
            inputs: Vec::new(),
            started: Some(SystemTime::now()),
            completed: None,
            cached: false,
            error: None,
            progress_group: None,
        }
    }
}

/// A counter below a vertex: a download, an upload, a compression.
#[derive(Clone, Debug)]
pub struct Status {
    pub vertex: Digest,
    /// Names the counter within its vertex; shown to people.
    pub id: String,
    pub current: u64,
    /// 0 when unknown.
    pub total: u64,
    pub timestamp: SystemTime,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
}

/// Bytes that a step wrote.
#[derive(Clone, Debug)]
pub struct Log {
    pub vertex: Digest,
    pub stream: Stream,
    pub data: Arc<[u8]>,
    pub timestamp: SystemTime,
}

/// The two output streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Advice about the build, with the lines it is about.
#[derive(Clone, Debug)]
pub struct Warning {
    pub vertex: Digest,
    /// BuildKit's level: 1 is the usual, higher is less important.
    pub level: i32,
    pub short: String,
    pub detail: Vec<String>,
    pub url: Option<String>,
    pub source: Option<Arc<pb::SourceInfo>>,
    pub ranges: Vec<pb::Range>,
}

/// How the cache key of a vertex came about and what the cache said, told when it is known for good.
///
/// It is kept, and others may read it: build arguments are in it as in the record of a build, addresses of
/// proxies and secrets are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepKey {
    pub vertex: Digest,
    pub name: String,
    /// The platform of a vertex that runs on one.
    pub platform: Option<String>,
    pub verdict: CacheVerdict,
    /// Names the result; `None` if it was not made.
    pub key: Option<Digest>,
    /// Identifies what the vertex does, inputs aside.
    pub operation: Digest,
    /// What `operation` is made of, in the order in which people think of it.
    pub parts: Vec<KeyPart>,
    pub inputs: Vec<InputKey>,
    /// The operation of a vertex that runs a program, as protocol buffers in hexadecimal; to look into it later.
    #[serde(default)]
    pub process: Option<String>,
}

/// What the cache said of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheVerdict {
    /// It was not asked.
    Unasked,
    /// It was not to be asked.
    Ignored,
    /// Nothing that the vertex reads has changed.
    FoundByDefinition,
    /// Its inputs have changed, but not what it reads of them.
    FoundByContent,
    Missed,
    /// The result was known once, and is not there any more.
    Gone,
}

/// One part of what a vertex does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// For people: `the command`, `the environment variable \`CC\``.
    pub name: String,
    pub digest: Digest,
}

/// How an input takes part in a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputKey {
    pub vertex: Digest,
    /// Which of the vertex's outputs it is.
    #[serde(default)]
    pub output: usize,
    /// What is read of the input, where that is not everything.
    pub selector: Option<Digest>,
    /// The input's own key, if it is final.
    pub key: Option<Digest>,
    /// The digest of what was read of it, where that was looked at.
    pub content: Option<Digest>,
}
