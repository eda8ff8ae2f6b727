//! What a build says while it runs, as data. Renderers (terminal, plain, JSON) and the gRPC face are
//! subscribers of this one stream; it has the shape of BuildKit's `StatusResponse`.

use std::sync::Arc;
use std::time::SystemTime;

use crate::Digest;
use crate::llb::pb;

/// Receives events; must not block.
pub trait EventSink: Send + Sync {
    /// Takes one event, in order for each vertex.
    fn emit(&self, event: Event);
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
