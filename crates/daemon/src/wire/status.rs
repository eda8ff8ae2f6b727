//! What happens in a build, as the `StatusResponse`s that clients draw progress from.

use std::sync::Arc;
use std::time::SystemTime;

use slipway_model::Digest;
use slipway_model::progress::{Event, Log, Status, Stream, Vertex, Warning};

use super::control::{StatusResponse, VertexLog, VertexStatus, VertexWarning};
use super::{control, recode, time, timestamp};

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

/// Lists what a response tells, as it is told to displays.
pub(crate) fn events(response: StatusResponse) -> impl Iterator<Item = Event> {
    let vertexes = response.vertexes.into_iter().map(|vertex| Event::Vertex(vertex_of(vertex)));
    let statuses = response.statuses.into_iter().map(|status| Event::Status(status_of(status)));
    let logs = response.logs.into_iter().map(|log| Event::Log(log_of(log)));
    let warnings = response.warnings.into_iter().map(|warning| Event::Warning(warning_of(warning)));
    vertexes.chain(statuses).chain(logs).chain(warnings)
}

/// Reads a vertex's name; one that is no digest is only a name too.
fn digest(text: &str) -> Digest {
    text.parse().unwrap_or_else(|_| Digest::of(text))
}

fn vertex_of(vertex: control::Vertex) -> Vertex {
    Vertex {
        digest: digest(&vertex.digest),
        name: vertex.name,
        inputs: vertex.inputs.iter().map(|input| digest(input)).collect(),
        started: vertex.started.map(time),
        completed: vertex.completed.map(time),
        cached: vertex.cached,
        error: Some(vertex.error).filter(|error| !error.is_empty()),
        progress_group: vertex.progress_group.as_ref().map(recode),
    }
}

fn status_of(status: VertexStatus) -> Status {
    Status {
        vertex: digest(&status.vertex),
        id: status.id,
        current: u64::try_from(status.current).unwrap_or_default(),
        total: u64::try_from(status.total).unwrap_or_default(),
        timestamp: status.timestamp.map_or(SystemTime::UNIX_EPOCH, time),
        started: status.started.map(time),
        completed: status.completed.map(time),
    }
}

fn log_of(log: VertexLog) -> Log {
    Log {
        vertex: digest(&log.vertex),
        stream: if log.stream == 2 { Stream::Stderr } else { Stream::Stdout },
        data: log.msg.into(),
        timestamp: log.timestamp.map_or(SystemTime::UNIX_EPOCH, time),
    }
}

fn warning_of(warning: VertexWarning) -> Warning {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Warning {
        vertex: digest(&warning.vertex),
        level: i32::try_from(warning.level).unwrap_or(i32::MAX),
        short: text(&warning.short),
        detail: warning.detail.iter().map(|line| text(line)).collect(),
        url: Some(warning.url).filter(|url| !url.is_empty()),
        source: warning.info.as_ref().map(|info| Arc::new(recode(info))),
        ranges: warning.ranges.iter().map(recode).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let vertex = Vertex {
            digest: Digest::of("v"),
            name: "[1/2] RUN".into(),
            inputs: vec![Digest::of("i")],
            started: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500)),
            completed: None,
            cached: true,
            error: None,
            progress_group: None,
        };
        let warning = Warning {
            vertex: Digest::of("v"),
            level: 1,
            short: "short".into(),
            detail: vec!["more".into()],
            url: None,
            source: None,
            ranges: Vec::new(),
        };
        let told = [Event::Vertex(vertex), Event::Warning(warning)];
        let mut response = StatusResponse::default();
        told.iter().for_each(|event| add(&mut response, event));
        let heard: Vec<Event> = events(response).collect();
        assert_eq!(format!("{heard:?}"), format!("{told:?}"));
    }
}
