//! Records of builds as one file, in the form that Docker Desktop imports (`.dockerbuild`).
//!
//! It is an OCI layout in a tar, compressed with gzip. Each build is a manifest: its config is the record in the
//! form that BuildKit has it, its layers are the trace and the log. Several builds are an index of such manifests.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use slipway_model::oci::Annotations;
use slipway_model::{Descriptor, Digest, ImageIndex, Manifest, MediaType, Platform};

use super::record::{Outcome, Record};
use super::since_epoch;
use super::trace::Trace;
use crate::exporters::layout::LAYOUT;
use crate::exporters::tarball::Tarball;

const RECORD: &str = "application/vnd.buildkit.historyrecord.v0";
const TRACE: &str = "application/vnd.buildkit.otlp.json.v0";
/// What happened, as BuildKit's status messages, each with its length before it.
const LOGS: &str = "application/vnd.buildkit.status.v0";
const REFERENCE: &str = "vnd.buildkit.history.reference";
/// gRPC's number for what is canceled, and for what is not known better.
const CANCELED: i32 = 1;
const UNKNOWN: i32 = 2;

/// One build of a bundle.
#[derive(Clone, Debug)]
pub struct BundledBuild {
    pub record: Record,
    pub trace: Trace,
    /// What the build said, in BuildKit's messages.
    pub logs: Vec<u8>,
}

/// The blobs of a bundle, each once.
#[derive(Default)]
struct Blobs(BTreeMap<Digest, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.0.insert(descriptor.digest, bytes);
        descriptor
    }

    fn add_json(&mut self, media_type: &str, value: &impl serde::Serialize) -> io::Result<Descriptor> {
        Ok(self.add(media_type, serde_json::to_vec_pretty(value)?))
    }
}

/// Writes a bundle.
///
/// # Errors
/// It cannot be written to `out`.
pub fn write_bundle(builds: &[BundledBuild], out: impl Write) -> io::Result<()> {
    let mut blobs = Blobs::default();
    let mut manifests = Vec::with_capacity(builds.len());
    for build in builds {
        manifests.push(manifest(build, &mut blobs)?);
    }
    let root = match manifests.as_slice() {
        [only] => Descriptor { annotations: Annotations::default(), ..only.clone() },
        _ => blobs.add_json(MediaType::OCI_INDEX, &ImageIndex::new(MediaType::OCI_INDEX, manifests))?,
    };
    let compressed = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    let mut tarball = Tarball::new(compressed);
    tarball.directory("blobs")?;
    tarball.directory("blobs/sha256")?;
    for (digest, bytes) in &blobs.0 {
        tarball.file(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
    }
    tarball.file("index.json", &serde_json::to_vec(&ImageIndex::new(MediaType::OCI_INDEX, vec![root]))?)?;
    tarball.file("oci-layout", LAYOUT.as_bytes())?;
    tarball.finish()?.finish()?.flush()
}

fn manifest(build: &BundledBuild, blobs: &mut Blobs) -> io::Result<Descriptor> {
    let mut spans = Vec::new();
    for span in build.trace.to_spans() {
        serde_json::to_writer(&mut spans, &span)?;
        spans.push(b'\n');
    }
    let trace = blobs.add(TRACE, spans);
    let logs = blobs.add(LOGS, build.logs.clone());
    let config = blobs.add_json(RECORD, &record(&build.record, &trace, &logs))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers: vec![trace, logs],
        subject: None,
        annotations: Annotations::default(),
        extra: Default::default(),
    };
    let mut descriptor = blobs.add_json(MediaType::OCI_MANIFEST, &manifest)?;
    descriptor.annotations.insert(REFERENCE.to_owned(), build.record.id.clone());
    Ok(descriptor)
}

/// Lays a record out as BuildKit's message is in Go's JSON.
fn record(record: &Record, trace: &Descriptor, logs: &Descriptor) -> Value {
    let request = &record.request;
    let mut attributes = Map::new();
    let mut set = |name: String, value: &str| drop(attributes.insert(name, value.into()));
    let mut set_present = |name: &str, value: &str| {
        if !value.is_empty() {
            set(name.to_owned(), value);
        }
    };
    set_present("target", request.target.as_deref().unwrap_or_default());
    set_present("platform", &request.platforms.join(","));
    let file = std::path::Path::new(&request.dockerfile).file_name().map(|name| name.to_string_lossy());
    set_present("filename", &file.unwrap_or_default());
    if request.context.contains("://") {
        set_present("context", &request.context);
    }
    set_present("no-cache", &request.no_cache_filter.join(","));
    for (name, value) in &request.build_args {
        set(format!("build-arg:{name}"), value);
    }
    for (name, value) in &request.labels {
        set(format!("label:{name}"), value);
    }
    for (name, value) in &request.named_contexts {
        set(format!("context:{name}"), value);
    }
    if request.no_cache {
        set("no-cache".to_owned(), "");
    }
    let error = match &record.outcome {
        Some(Outcome::Failed(message)) => json!({ "code": UNKNOWN, "message": message }),
        Some(Outcome::Canceled) => json!({ "code": CANCELED, "message": "context canceled" }),
        Some(Outcome::Completed) | None => Value::Null,
    };
    let response: Map<String, Value> = record
        .metadata
        .iter()
        .filter(|(_, value)| value.is_string())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let mut value = json!({
        "Ref": record.id,
        "Frontend": "dockerfile.v0",
        "FrontendAttrs": attributes,
        "error": error,
        "CreatedAt": timestamp(record.started),
        "CompletedAt": record.completed.map(timestamp),
        "logs": blob(logs),
        "ExporterResponse": response,
        "trace": blob(trace),
        "numCachedSteps": record.steps.cached,
        "numTotalSteps": record.steps.total,
        "numCompletedSteps": record.steps.completed,
        "numWarnings": record.steps.warnings,
        "DefaultPlatform": Platform::host().to_string(),
        "localState": {
            "Target": request.target.as_deref().unwrap_or("default"),
            "LocalPath": request.context,
            "DockerfilePath": request.dockerfile,
        },
    });
    if let Value::Object(members) = &mut value {
        members.retain(|_, value| !value.is_null());
    }
    value
}

fn timestamp(time: SystemTime) -> Value {
    let since = since_epoch(time);
    json!({ "seconds": since.as_secs(), "nanos": since.subsec_nanos() })
}

fn blob(descriptor: &Descriptor) -> Value {
    json!({ "media_type": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size })
}
