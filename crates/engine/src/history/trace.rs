//! The trace of a build: one span for the build, and one below it for each step that ran.
//!
//! Made of what the build said, so that every build has one, whether anybody wanted it or not. Two forms: what
//! Jaeger reads, and the list of spans that BuildKit keeps with its records.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use slipway_model::Digest;
use slipway_model::progress::{Event, Vertex};

use super::record::{Outcome, Record};
use super::since_epoch;
use crate::exporters::assemble::rfc3339;

const SERVICE: &str = "slipway";

/// When what of a build ran.
#[derive(Clone, Debug)]
pub struct Trace {
    id: String,
    /// The build itself comes first.
    spans: Vec<Span>,
}

#[derive(Clone, Debug)]
struct Span {
    id: String,
    name: String,
    start: SystemTime,
    end: SystemTime,
    error: Option<String>,
    /// Further facts, by name.
    tags: Vec<(&'static str, Value)>,
}

impl Trace {
    /// Makes the trace of a build that has ended.
    pub fn new(record: &Record, events: impl Iterator<Item = Event>) -> Self {
        let end = record.completed.unwrap_or(record.started);
        let id = hexadecimal(&record.id, 32);
        let build = Span {
            id: hexadecimal(&format!("{}\0build", record.id), 16),
            name: if record.request.name.is_empty() {
                "build".to_owned()
            } else {
                record.request.name.clone()
            },
            start: record.started,
            end,
            error: match &record.outcome {
                Some(Outcome::Failed(message)) => Some(message.clone()),
                Some(Outcome::Canceled) => Some("canceled".to_owned()),
                Some(Outcome::Completed) | None => None,
            },
            tags: vec![("build.ref", record.id.as_str().into())],
        };
        let mut order = Vec::new();
        let mut steps: HashMap<Digest, Vertex> = HashMap::new();
        for event in events {
            let Event::Vertex(vertex) = event else { continue };
            if steps.insert(vertex.digest, vertex.clone()).is_none() {
                order.push(vertex.digest);
            }
        }
        let step = |digest: &Digest| {
            let vertex = &steps[digest];
            let start = vertex.started?;
            let mut tags = vec![("vertex", vertex.digest.to_string().into())];
            if vertex.cached {
                tags.push(("cached", true.into()));
            }
            Some(Span {
                id: hexadecimal(&format!("{}\0{digest}", record.id), 16),
                name: vertex.name.clone(),
                start,
                end: vertex.completed.unwrap_or(end),
                error: vertex.error.clone(),
                tags,
            })
        };
        let steps = order.iter().filter_map(step);
        Self { id, spans: std::iter::once(build).chain(steps).collect() }
    }

    /// Returns the trace as Jaeger's interface gives it.
    pub fn to_jaeger(&self) -> Value {
        let spans = self.spans.iter().enumerate().map(|(at, span)| {
            let parent = json!({ "refType": "CHILD_OF", "traceID": self.id, "spanID": self.spans[0].id });
            let mut tags: Vec<Value> = span.tags.iter().map(|(key, value)| jaeger_tag(key, value)).collect();
            tags.push(jaeger_tag("span.kind", &"internal".into()));
            if let Some(error) = &span.error {
                tags.push(jaeger_tag("otel.status_code", &"ERROR".into()));
                tags.push(jaeger_tag("otel.status_description", &error.as_str().into()));
                tags.push(jaeger_tag("error", &true.into()));
            }
            json!({
                "traceID": self.id,
                "spanID": span.id,
                "operationName": span.name,
                "references": if at == 0 { json!([]) } else { json!([parent]) },
                "startTime": microseconds(since_epoch(span.start)),
                "duration": microseconds(span.duration()),
                "tags": tags,
                "logs": [],
                "processID": "p1",
                "warnings": null,
            })
        });
        json!({
            "traceID": self.id,
            "spans": spans.collect::<Vec<_>>(),
            "processes": { "p1": { "serviceName": SERVICE, "tags": [] } },
            "warnings": null,
        })
    }

    /// Returns the spans as BuildKit keeps them: one value for each.
    pub fn to_spans(&self) -> Vec<Value> {
        let context = |span: &str| json!({ "TraceID": self.id, "SpanID": span, "TraceFlags": "01", "TraceState": "", "Remote": false });
        let none = "0".repeat(16);
        let spans = self.spans.iter().enumerate().map(|(at, span)| {
            let mut parent = context(if at == 0 { &none } else { &self.spans[0].id });
            if at == 0 {
                parent["TraceID"] = "0".repeat(32).into();
                parent["TraceFlags"] = "00".into();
            }
            let attributes = span.tags.iter().map(|(key, value)| attribute(key, value));
            json!({
                "Name": span.name,
                "SpanContext": context(&span.id),
                "Parent": parent,
                "SpanKind": 1,
                "StartTime": rfc3339(span.start),
                "EndTime": rfc3339(span.end),
                "Attributes": attributes.collect::<Vec<_>>(),
                "Events": null,
                "Links": null,
                "Status": {
                    "Code": if span.error.is_some() { "Error" } else { "Unset" },
                    "Description": span.error.as_deref().unwrap_or_default(),
                },
                "DroppedAttributes": 0,
                "DroppedEvents": 0,
                "DroppedLinks": 0,
                "ChildSpanCount": if at == 0 { self.spans.len() - 1 } else { 0 },
                "Resource": [attribute("service.name", &SERVICE.into())],
                "InstrumentationLibrary": { "Name": SERVICE, "Version": env!("CARGO_PKG_VERSION"), "SchemaURL": "" },
            })
        });
        spans.collect()
    }
}

impl Span {
    fn duration(&self) -> Duration {
        self.end.duration_since(self.start).unwrap_or_default()
    }
}

fn kind(value: &Value, text: &'static str, boolean: &'static str) -> &'static str {
    if value.is_boolean() { boolean } else { text }
}

fn jaeger_tag(key: &str, value: &Value) -> Value {
    json!({ "key": key, "type": kind(value, "string", "bool"), "value": value })
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({ "Key": key, "Value": { "Type": kind(value, "STRING", "BOOL"), "Value": value } })
}

/// Makes an id of so many digits that is always the same for the same text.
fn hexadecimal(text: &str, digits: usize) -> String {
    Digest::of(text).hex()[..digits].to_owned()
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::record::RequestRecord;
    use super::*;

    #[test]
    fn steps_are_below_their_build() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis);
        let mut record =
            Record::new("k3j9", RequestRecord { name: "app".to_owned(), ..Default::default() }, at(0));
        record.completed = Some(at(900));
        record.outcome = Some(Outcome::Failed("exit code: 1".to_owned()));
        let step = |started: Option<u64>, completed: Option<u64>, error: Option<&str>| {
            Event::Vertex(Vertex {
                digest: Digest::of("run"),
                name: "[2/2] RUN false".to_owned(),
                inputs: Vec::new(),
                started: started.map(at),
                completed: completed.map(at),
                cached: false,
                error: error.map(str::to_owned),
                progress_group: None,
            })
        };
        let events = [step(Some(100), None, None), step(Some(100), Some(850), Some("exit code: 1"))];
        let trace = Trace::new(&record, events.into_iter());
        let jaeger = trace.to_jaeger();
        assert_eq!(jaeger["spans"].as_array().unwrap().len(), 2);
        let (build, run) = (&jaeger["spans"][0], &jaeger["spans"][1]);
        assert_eq!(
            (build["operationName"].as_str(), build["duration"].as_u64()),
            (Some("app"), Some(900_000))
        );
        assert_eq!(
            (run["startTime"].as_u64(), run["duration"].as_u64()),
            (Some(1_700_000_000_100_000), Some(750_000))
        );
        assert_eq!(run["references"][0]["spanID"], build["spanID"]);
        assert_eq!(jaeger["traceID"].as_str().unwrap().len(), 32);
        let spans = trace.to_spans();
        assert_eq!(spans[1]["StartTime"], "2023-11-14T22:13:20.1Z");
        assert_eq!(spans[1]["Status"]["Code"], "Error");
        assert_eq!(spans[1]["Parent"]["SpanID"], spans[0]["SpanContext"]["SpanID"]);
    }
}
