//! Events on disk: one JSON value a line, compressed with zstd.
//!
//! A step's end flushes what was compressed, so that a killed build leaves the logs of what it had done.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use slipway_model::Digest;
use slipway_model::llb::pb;
use slipway_model::progress::{Event, Log, Status, StepKey, Stream, Vertex, Warning};

use super::record::nanoseconds;

const LEVEL: i32 = 1;

/// Writes events.
pub(super) struct Writer {
    encoder: zstd::Encoder<'static, BufWriter<File>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self { encoder: zstd::Encoder::new(BufWriter::new(file), LEVEL)? })
    }

    pub(super) fn write(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.encoder, &Line::from(event))?;
        self.encoder.write_all(b"\n")?;
        match event {
            Event::Vertex(vertex) if vertex.completed.is_some() && !vertex.cached => self.encoder.flush(),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.encoder.finish()?.flush()
    }
}

/// Reads events, up to the end or to where the writer was stopped.
pub(super) fn read(file: File) -> io::Result<impl Iterator<Item = Event>> {
    let lines = BufReader::new(zstd::Decoder::new(file)?).lines();
    Ok(lines.map_while(Result::ok).map_while(|line| serde_json::from_str::<Line>(&line).ok()?.event()))
}

/// Reads only how keys came about.
pub(super) fn read_keys(file: File) -> io::Result<impl Iterator<Item = StepKey>> {
    let lines = BufReader::new(zstd::Decoder::new(file)?).lines().map_while(Result::ok);
    // Most lines are output of steps, which need not be understood.
    let keys = lines.filter(|line| line.starts_with("{\"key\":"));
    Ok(keys.filter_map(|line| match serde_json::from_str(&line) {
        Ok(Line::Key(key)) => Some(*key),
        _ => None,
    }))
}

/// An event as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Vertex {
        digest: Digest,
        name: String,
        inputs: Vec<Digest>,
        #[serde(with = "nanoseconds::option", default)]
        started: Option<SystemTime>,
        #[serde(with = "nanoseconds::option", default)]
        completed: Option<SystemTime>,
        cached: bool,
        error: Option<String>,
        /// Protocol buffers, in hexadecimal.
        group: Option<String>,
    },
    Status {
        vertex: Digest,
        id: String,
        current: u64,
        total: u64,
        #[serde(with = "nanoseconds")]
        timestamp: SystemTime,
        #[serde(with = "nanoseconds::option", default)]
        started: Option<SystemTime>,
        #[serde(with = "nanoseconds::option", default)]
        completed: Option<SystemTime>,
    },
    Log {
        vertex: Digest,
        stderr: bool,
        data: Data,
        #[serde(with = "nanoseconds")]
        timestamp: SystemTime,
    },
    Warning {
        vertex: Digest,
        level: i32,
        short: String,
        detail: Vec<String>,
        url: Option<String>,
        source: Option<String>,
        ranges: Vec<String>,
    },
    Key(Box<StepKey>),
}

/// Output: nearly always text, which stays readable.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Data {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Event> for Line {
    fn from(event: &Event) -> Self {
        match event {
            Event::Vertex(vertex) => Self::Vertex {
                digest: vertex.digest,
                name: vertex.name.clone(),
                inputs: vertex.inputs.clone(),
                started: vertex.started,
                completed: vertex.completed,
                cached: vertex.cached,
                error: vertex.error.clone(),
                group: vertex.progress_group.as_ref().map(encode),
            },
            Event::Status(status) => Self::Status {
                vertex: status.vertex,
                id: status.id.clone(),
                current: status.current,
                total: status.total,
                timestamp: status.timestamp,
                started: status.started,
                completed: status.completed,
            },
            Event::Log(log) => Self::Log {
                vertex: log.vertex,
                stderr: log.stream == Stream::Stderr,
                data: match std::str::from_utf8(&log.data) {
                    Ok(text) => Data::Text(text.to_owned()),
                    Err(_) => Data::Bytes(log.data.to_vec()),
                },
                timestamp: log.timestamp,
            },
            Event::Warning(warning) => Self::Warning {
                vertex: warning.vertex,
                level: warning.level,
                short: warning.short.clone(),
                detail: warning.detail.clone(),
                url: warning.url.clone(),
                source: warning.source.as_deref().map(encode),
                ranges: warning.ranges.iter().map(encode).collect(),
            },
            Event::Key(key) => Self::Key(key.clone()),
        }
    }
}

impl Line {
    fn event(self) -> Option<Event> {
        Some(match self {
            Self::Vertex { digest, name, inputs, started, completed, cached, error, group } => {
                let progress_group = group.and_then(|text| decode::<pb::ProgressGroup>(&text));
                Event::Vertex(Vertex {
                    digest,
                    name,
                    inputs,
                    started,
                    completed,
                    cached,
                    error,
                    progress_group,
                })
            }
            Self::Status { vertex, id, current, total, timestamp, started, completed } => {
                Event::Status(Status { vertex, id, current, total, timestamp, started, completed })
            }
            Self::Log { vertex, stderr, data, timestamp } => Event::Log(Log {
                vertex,
                stream: if stderr { Stream::Stderr } else { Stream::Stdout },
                data: match data {
                    Data::Text(text) => text.into_bytes().into(),
                    Data::Bytes(bytes) => bytes.into(),
                },
                timestamp,
            }),
            Self::Warning { vertex, level, short, detail, url, source, ranges } => Event::Warning(Warning {
                vertex,
                level,
                short,
                detail,
                url,
                source: source.and_then(|text| decode::<pb::SourceInfo>(&text)).map(std::sync::Arc::new),
                ranges: ranges.iter().map(|text| decode::<pb::Range>(text)).collect::<Option<_>>()?,
            }),
            Self::Key(key) => Event::Key(key),
        })
    }
}

fn encode(message: &impl prost::Message) -> String {
    hex::encode(message.encode_to_vec())
}

fn decode<M: prost::Message + Default>(text: &str) -> Option<M> {
    M::decode(hex::decode(text).ok()?.as_slice()).ok()
}
