//! The display for programs: BuildKit's `client.SolveStatus`, one JSON object for each batch of events.
//!
//! Member names, what is left out when empty, and base64 for bytes are as Go encodes them.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use slipway_model::llb::pb;
use slipway_model::progress::{Event, Log, Status, Stream, Vertex, Warning};

use super::Display;
use super::format::rfc3339;

/// Writes a build as JSON lines.
pub(super) struct RawJson<W> {
    out: W,
}

impl<W: Write + Send> RawJson<W> {
    /// Writes to `out`.
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Display for RawJson<W> {
    fn update(&mut self, events: Vec<Event>, _: SystemTime) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut lists = Map::new();
        for event in &events {
            let (list, value) = match event {
                Event::Vertex(event) => ("vertexes", vertex(event)),
                Event::Status(event) => ("statuses", status(event)),
                Event::Log(event) => ("logs", log(event)),
                Event::Warning(event) => ("warnings", warning(event)),
                Event::Key(_) => continue,
            };
            if let Value::Array(list) = lists.entry(list).or_insert_with(|| json!([])) {
                list.push(value);
            }
        }
        if lists.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "{}", Value::Object(lists))?;
        self.out.flush()
    }

    fn refresh(&mut self, _: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: SystemTime) -> io::Result<()> {
        self.out.flush()
    }
}

fn vertex(event: &Vertex) -> Value {
    let mut map = Map::new();
    map.insert("digest".into(), event.digest.to_string().into());
    if !event.inputs.is_empty() {
        map.insert("inputs".into(), event.inputs.iter().map(ToString::to_string).collect());
    }
    insert_text(&mut map, "name", &event.name);
    insert_time(&mut map, "started", event.started);
    insert_time(&mut map, "completed", event.completed);
    if event.cached {
        map.insert("cached".into(), true.into());
    }
    insert_text(&mut map, "error", event.error.as_deref().unwrap_or_default());
    if let Some(group) = &event.progress_group {
        let mut inner = Map::new();
        insert_text(&mut inner, "id", &group.id);
        insert_text(&mut inner, "name", &group.name);
        if group.weak {
            inner.insert("weak".into(), true.into());
        }
        map.insert("progressGroup".into(), inner.into());
    }
    map.into()
}

fn status(event: &Status) -> Value {
    let mut map = Map::new();
    map.insert("id".into(), event.id.clone().into());
    map.insert("vertex".into(), event.vertex.to_string().into());
    if event.total > 0 {
        map.insert("total".into(), event.total.into());
    }
    map.insert("current".into(), event.current.into());
    map.insert("timestamp".into(), rfc3339(event.timestamp).into());
    insert_time(&mut map, "started", event.started);
    insert_time(&mut map, "completed", event.completed);
    map.into()
}

fn log(event: &Log) -> Value {
    let stream = match event.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    json!({
        "vertex": event.vertex.to_string(),
        "stream": stream,
        "data": STANDARD.encode(&event.data),
        "timestamp": rfc3339(event.timestamp),
    })
}

/// Encodes a warning as `client.VertexWarning`.
pub(crate) fn warning(event: &Warning) -> Value {
    let mut map = Map::new();
    map.insert("vertex".into(), event.vertex.to_string().into());
    if event.level != 0 {
        map.insert("level".into(), event.level.into());
    }
    if !event.short.is_empty() {
        map.insert("short".into(), STANDARD.encode(&event.short).into());
    }
    if !event.detail.is_empty() {
        map.insert("detail".into(), event.detail.iter().map(|text| STANDARD.encode(text)).collect());
    }
    insert_text(&mut map, "url", event.url.as_deref().unwrap_or_default());
    if let Some(source) = &event.source {
        let mut inner = Map::new();
        insert_text(&mut inner, "filename", &source.filename);
        if !source.data.is_empty() {
            inner.insert("data".into(), STANDARD.encode(&source.data).into());
        }
        insert_text(&mut inner, "language", &source.language);
        map.insert("sourceInfo".into(), inner.into());
    }
    if !event.ranges.is_empty() {
        map.insert("range".into(), event.ranges.iter().map(range).collect());
    }
    map.into()
}

fn range(range: &pb::Range) -> Value {
    let mut map = Map::new();
    for (name, position) in [("start", &range.start), ("end", &range.end)] {
        let Some(position) = position else { continue };
        let mut inner = Map::new();
        if position.line != 0 {
            inner.insert("line".into(), position.line.into());
        }
        if position.character != 0 {
            inner.insert("character".into(), position.character.into());
        }
        map.insert(name.into(), inner.into());
    }
    map.into()
}

fn insert_text(map: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        map.insert(name.into(), text.into());
    }
}

fn insert_time(map: &mut Map<String, Value>, name: &str, time: Option<SystemTime>) {
    if let Some(time) = time {
        map.insert(name.into(), rfc3339(time).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_model::Digest;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn events_are_encoded_as_go_does() {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let digest = Digest::of("v");
        let mut out = Vec::new();
        let events = vec![
            Event::Vertex(Vertex {
                digest,
                name: "[1/2] FROM x".into(),
                inputs: vec![],
                started: Some(at),
                completed: None,
                cached: false,
                error: None,
                progress_group: None,
            }),
            Event::Log(Log {
                vertex: digest,
                stream: Stream::Stderr,
                data: b"hi\n"[..].into(),
                timestamp: at,
            }),
        ];
        RawJson::new(&mut out).update(events, at).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "{{\"vertexes\":[{{\"digest\":\"{digest}\",\"name\":\"[1/2] FROM x\",\"started\":\"2023-11-14T22:13:20Z\"}}],\
                 \"logs\":[{{\"vertex\":\"{digest}\",\"stream\":2,\"data\":\"aGkK\",\"timestamp\":\"2023-11-14T22:13:20Z\"}}]}}\n"
            )
        );
    }
}
