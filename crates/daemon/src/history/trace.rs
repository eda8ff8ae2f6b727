//! A build's trace: how long each of its steps took, as spans of OpenTelemetry in the form that the reference keeps.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};
use slipway_model::Digest;
use slipway_model::progress::{Event, Vertex};

/// The type of a trace: spans as JSON, one after another.
pub(super) const TRACE: &str = "application/vnd.buildkit.otlp.json.v0";
/// `codes.Error` of OpenTelemetry.
const FAILED: &str = "Error";
const NOTHING: &str = "0000000000000000";

/// Writes the spans of a build that began and ended then.
pub(super) fn spans(build: &str, began: SystemTime, ended: SystemTime, events: &[Event]) -> Vec<u8> {
    let trace = &Digest::of(build).hex()[..32];
    let root = &Digest::of(format!("{build} root")).hex()[..16];
    let mut vertices: BTreeMap<Digest, Vertex> = BTreeMap::new();
    for event in events {
        if let Event::Vertex(vertex) = event {
            let known = vertices.entry(vertex.digest).or_insert_with(|| vertex.clone());
            let started = known.started.or(vertex.started);
            *known = Vertex { started, cached: known.cached || vertex.cached, ..vertex.clone() };
        }
    }
    let whole =
        Span { id: root, parent: None, name: build, began, ended, error: None, attributes: Vec::new() };
    let mut lines = whole.line(trace);
    for vertex in vertices.values() {
        let Some(began) = vertex.started else { continue };
        let attributes = vec![("vertex", json!(vertex.digest.to_string())), ("cached", json!(vertex.cached))];
        let span = Span {
            id: &vertex.digest.hex()[..16],
            parent: Some(root),
            name: &vertex.name,
            began,
            ended: vertex.completed.unwrap_or(ended),
            error: vertex.error.as_deref(),
            attributes,
        };
        lines.push_str(&span.line(trace));
    }
    lines.into_bytes()
}

struct Span<'a> {
    id: &'a str,
    parent: Option<&'a str>,
    name: &'a str,
    began: SystemTime,
    ended: SystemTime,
    error: Option<&'a str>,
    attributes: Vec<(&'static str, Value)>,
}

impl Span<'_> {
    fn line(&self, trace: &str) -> String {
        let context = |span: &str, trace: &str| {
            json!({
                "TraceID": trace, "SpanID": span, "TraceFlags": "01", "TraceState": "", "Remote": false,
            })
        };
        let parent = match self.parent {
            Some(parent) => context(parent, trace),
            None => context(NOTHING, &NOTHING.repeat(2)),
        };
        let attribute = |(key, value): &(&str, Value)| {
            let kind = if value.is_boolean() { "BOOL" } else { "STRING" };
            json!({ "Key": key, "Value": { "Type": kind, "Value": value } })
        };
        let span = json!({
            "Name": self.name,
            "SpanContext": context(self.id, trace),
            "Parent": parent,
            "SpanKind": 1,
            "StartTime": time(self.began),
            "EndTime": time(self.ended),
            "Attributes": self.attributes.iter().map(attribute).collect::<Vec<_>>(),
            "Events": null,
            "Links": null,
            "Status": {
                "Code": if self.error.is_some() { FAILED } else { "Unset" },
                "Description": self.error.unwrap_or_default(),
            },
            "DroppedAttributes": 0,
            "DroppedEvents": 0,
            "DroppedLinks": 0,
            "ChildSpanCount": 0,
            "Resource": [attribute(&("service.name", json!("slipway")))],
            "InstrumentationLibrary": { "Name": "slipway", "Version": env!("CARGO_PKG_VERSION"), "SchemaURL": "" },
        });
        format!("{span}\n")
    }
}

fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_step_that_began_is_a_span_below_the_build() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let vertex = |name: &str, started, completed, error: Option<&str>| {
            Event::Vertex(Vertex {
                digest: Digest::of(name),
                name: name.to_owned(),
                inputs: Vec::new(),
                started,
                completed,
                cached: false,
                error: error.map(str::to_owned),
                progress_group: None,
            })
        };
        let events = [
            vertex("a", Some(at(1)), None, None),
            vertex("a", None, Some(at(3)), Some("broken")),
            vertex("never", None, None, None),
        ];
        let text = String::from_utf8(spans("id", at(0), at(4), &events)).unwrap();
        let spans: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0]["Name"], "id");
        assert_eq!(spans[1]["Parent"]["SpanID"], spans[0]["SpanContext"]["SpanID"]);
        assert_eq!(spans[1]["StartTime"], "1970-01-01T00:00:01Z");
        assert_eq!(spans[1]["EndTime"], "1970-01-01T00:00:03Z");
        assert_eq!(spans[1]["Status"]["Description"], "broken");
    }
}
