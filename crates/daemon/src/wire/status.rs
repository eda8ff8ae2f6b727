//! What happens in a build, as the `StatusResponse`s that clients draw progress from.

use slipway_model::progress::{Event, Log, Status, Stream, Vertex, Warning};

use super::control::{StatusResponse, VertexLog, VertexStatus, VertexWarning};
use super::{control, recode, timestamp};

/// Bytes of log output in one message.
const MAX_MESSAGE: usize = 1 << 20;

/// Adds an event to a response that has not been sent yet.
pub(crate) fn add(response: &mut StatusResponse, event: &Event) {
    match event {
        Event::Vertex(vertex) => response.vertexes.push(self::vertex(vertex)),
        Event::Status(status) => response.statuses.push(self::status(status)),
        Event::Log(log) => response.logs.push(self::log(log)),
        Event::Warning(warning) => response.warnings.push(self::warning(warning)),
        // BuildKit's protocol has no place for it.
        Event::Key(_) => {}
    }
}

/// Returns whether a response is big enough to be sent before more is added.
pub(crate) fn is_full(response: &StatusResponse) -> bool {
    let logs: usize = response.logs.iter().map(|log| log.msg.len()).sum();
    logs > MAX_MESSAGE || response.vertexes.len() + response.statuses.len() > 2000
}

fn vertex(vertex: &Vertex) -> control::Vertex {
    control::Vertex {
        digest: vertex.digest.to_string(),
        inputs: vertex.inputs.iter().map(ToString::to_string).collect(),
        name: vertex.name.clone(),
        cached: vertex.cached,
        started: vertex.started.map(timestamp),
        completed: vertex.completed.map(timestamp),
        error: vertex.error.clone().unwrap_or_default(),
        progress_group: vertex.progress_group.as_ref().map(recode),
    }
}

fn status(status: &Status) -> VertexStatus {
    VertexStatus {
        id: status.id.clone(),
        vertex: status.vertex.to_string(),
        name: action(&status.id).to_owned(),
        current: status.current as i64,
        total: status.total as i64,
        timestamp: Some(timestamp(status.timestamp)),
        started: status.started.map(timestamp),
        completed: status.completed.map(timestamp),
    }
}

/// Returns what is being done, where clients ask for that apart from what it is done to.
fn action(id: &str) -> &str {
    id.split(' ').next().filter(|word| *word == "transferring").unwrap_or_default()
}

fn log(log: &Log) -> VertexLog {
    VertexLog {
        vertex: log.vertex.to_string(),
        timestamp: Some(timestamp(log.timestamp)),
        stream: match log.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        },
        msg: log.data.to_vec(),
    }
}

fn warning(warning: &Warning) -> VertexWarning {
    VertexWarning {
        vertex: warning.vertex.to_string(),
        level: i64::from(warning.level),
        short: warning.short.clone().into_bytes(),
        detail: warning.detail.iter().map(|line| line.clone().into_bytes()).collect(),
        url: warning.url.clone().unwrap_or_default(),
        info: warning.source.as_ref().map(|source| recode(source.as_ref())),
        ranges: warning.ranges.iter().map(recode).collect(),
    }
}
