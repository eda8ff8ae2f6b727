//! `input.image.provenance`: what an image's builder says of how it was built.

use serde_json::{Map, Value, json};
use slipway_engine::AttestationChain;
use slipway_engine::policy::KnownSource;
use slipway_model::llb::pb;
use slipway_model::{Platform, Reference};

use super::{Document, decoded, object};
use crate::Log;
use crate::unknown::PROVENANCE;

/// The annotation of a statement's descriptor.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Makes the document of the first provenance that can be read.
pub(super) fn document(chain: &AttestationChain, platform: &Platform, log: &Log) -> Option<Value> {
    let statements = chain.documents.values().filter_map(|(descriptor, content)| {
        let kind = descriptor.annotations.get(PREDICATE_TYPE)?;
        let known = PROVENANCE.contains(&kind.as_str()).then_some(kind)?;
        Some((known, serde_json::from_slice::<Value>(content).ok()?))
    });
    let mut read = statements.filter_map(|(kind, statement)| {
        let kind = statement.get("predicateType").and_then(Value::as_str).unwrap_or(kind).to_owned();
        let predicate = statement.get("predicate")?;
        let fields = match kind.as_str() {
            "https://slsa.dev/provenance/v1" => V1.read(predicate),
            "https://slsa.dev/provenance/v0.2" => V02.read(predicate),
            _ => None,
        }?;
        Some(made(&kind, fields, platform, log))
    });
    read.next()
}

/// Where a version of the predicate has what.
struct Layout {
    build_type: &'static str,
    builder: &'static str,
    config_source: &'static str,
    config_path: &'static str,
    frontend: &'static str,
    arguments: &'static str,
    metadata: &'static str,
    invocation: &'static str,
    started: &'static str,
    finished: &'static str,
    /// What is said to be complete, by the names that policies know.
    complete: [(&'static str, &'static str); 3],
    reproducible: &'static str,
    hermetic: &'static str,
    materials: &'static str,
}

const V1: Layout = Layout {
    build_type: "/buildDefinition/buildType",
    builder: "/runDetails/builder/id",
    config_source: "/buildDefinition/externalParameters/configSource",
    config_path: "path",
    frontend: "/buildDefinition/externalParameters/request/frontend",
    arguments: "/buildDefinition/externalParameters/request/args",
    metadata: "/runDetails/metadata",
    invocation: "invocationId",
    started: "startedOn",
    finished: "finishedOn",
    complete: [
        ("parameters", "/buildkit_completeness/request"),
        ("environment", ""),
        ("materials", "/buildkit_completeness/resolvedDependencies"),
    ],
    reproducible: "/buildkit_reproducible",
    hermetic: "/buildkit_hermetic",
    materials: "/buildDefinition/resolvedDependencies",
};

const V02: Layout = Layout {
    build_type: "/buildType",
    builder: "/builder/id",
    config_source: "/invocation/configSource",
    config_path: "entryPoint",
    frontend: "/invocation/parameters/frontend",
    arguments: "/invocation/parameters/args",
    metadata: "/metadata",
    invocation: "buildInvocationID",
    started: "buildStartedOn",
    finished: "buildFinishedOn",
    complete: [
        ("parameters", "/completeness/parameters"),
        ("environment", "/completeness/environment"),
        ("materials", "/completeness/materials"),
    ],
    reproducible: "/reproducible",
    hermetic: "/https:~1~1mobyproject.org~1buildkit@v1#hermetic",
    materials: "/materials",
};

/// What was read of a predicate.
struct Fields {
    fields: Map<String, Value>,
    materials: Vec<Value>,
}

impl Layout {
    fn read(&self, predicate: &Value) -> Option<Fields> {
        let at = |pointer: &str| predicate.pointer(pointer).cloned().unwrap_or_default();
        let is_given = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        let (build_type, builder) = (at(self.build_type), at(self.builder));
        if !is_given(&build_type) && !is_given(&builder) {
            return None;
        }
        let config = at(self.config_source);
        let part = |name: &str| config.get(name).cloned().unwrap_or_default();
        let config =
            object([("uri", part("uri")), ("digest", part("digest")), ("path", part(self.config_path))]);
        let arguments = at(self.arguments);
        let build_args: Map<String, Value> = arguments
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.strip_prefix("build-arg:")?.to_owned(), value.clone())))
            .collect();
        let mut fields = vec![
            ("buildType", build_type),
            ("builderID", builder),
            ("configSource", config),
            ("frontend", at(self.frontend)),
            ("buildArgs", build_args.into()),
            ("rawArgs", arguments),
        ];
        let metadata = at(self.metadata);
        let mut said = Map::new();
        if metadata.is_object() {
            let text = |name: &str| metadata.get(name).cloned().unwrap_or_default();
            // What the builder does not say, it does not claim.
            let claim =
                |pointer: &str| metadata.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
            fields.extend([
                ("invocationID", text(self.invocation)),
                ("startedOn", text(self.started)),
                ("finishedOn", text(self.finished)),
            ]);
            let complete = self.complete.iter().filter(|(_, pointer)| !pointer.is_empty());
            let complete: Map<String, Value> =
                complete.map(|(name, pointer)| ((*name).to_owned(), claim(pointer).into())).collect();
            said.insert("reproducible".to_owned(), claim(self.reproducible).into());
            said.insert("hermetic".to_owned(), claim(self.hermetic).into());
            said.insert("completeness".to_owned(), complete.into());
        }
        let Value::Object(mut fields) = object(fields) else { return None };
        fields.append(&mut said);
        let materials = at(self.materials);
        Some(Fields { fields, materials: materials.as_array().cloned().unwrap_or_default() })
    }
}

fn made(kind: &str, read: Fields, platform: &Platform, log: &Log) -> Value {
    let mut fields = read.fields;
    fields.insert("predicateType".to_owned(), kind.into());
    let materials: Vec<Value> =
        read.materials.iter().filter_map(|entry| material(entry, platform, log)).collect();
    if !materials.is_empty() {
        fields.insert("materials".to_owned(), materials.into());
    }
    fields.into()
}

/// Makes the document of something that an image was made of.
fn material(entry: &Value, platform: &Platform, log: &Log) -> Option<Value> {
    let uri = entry.get("uri")?.as_str()?;
    let (op, own_platform) = match uri.strip_prefix("pkg:docker/") {
        Some(package) => image(package, entry)?,
        None if uri.starts_with("http")
            && !uri.split('#').next().is_some_and(|url| url.ends_with(".git")) =>
        {
            (pb::SourceOp { identifier: uri.to_owned(), ..Default::default() }, None)
        }
        None if uri.contains("://") || uri.contains('@') => {
            let location = uri.split_once("://").map_or(uri, |(_, location)| location);
            let attrs = [("git.fullurl".to_owned(), uri.to_owned())].into();
            (pb::SourceOp { identifier: format!("git://{location}"), attrs }, None)
        }
        None => {
            log.info(format_args!("skipping unsupported provenance material {uri:?}"));
            return None;
        }
    };
    let source = KnownSource { op, ..KnownSource::default() };
    let document = Document::of(&source, Some(own_platform.as_ref().unwrap_or(platform)), log);
    Some(document.map_or_else(|_| json!({}), |document| document.shown()))
}

/// Reads a package URL of an image, as `alpine@3?platform=linux%2Famd64`.
fn image(package: &str, entry: &Value) -> Option<(pb::SourceOp, Option<Platform>)> {
    let (name, qualifiers) = package.split_once('?').unwrap_or((package, ""));
    let (name, version) = name.rsplit_once('@').unwrap_or((name, ""));
    let (name, version) = (decoded(name), decoded(version));
    let qualifier = |wanted: &str| {
        let mut pairs = qualifiers.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == wanted).map(|(_, value)| decoded(value))
    };
    let mut text = name;
    if !version.is_empty() {
        text.push(if version.contains(':') { '@' } else { ':' });
        text.push_str(&version);
    }
    let digest = entry.pointer("/digest/sha256").and_then(Value::as_str);
    if let Some(digest) = digest.filter(|_| !text.contains('@')) {
        text.push_str("@sha256:");
        text.push_str(digest.trim_start_matches("sha256:"));
    }
    let reference: Reference = text.parse().ok()?;
    let op = pb::SourceOp { identifier: format!("docker-image://{reference}"), ..Default::default() };
    Some((op, qualifier("platform").and_then(|platform| platform.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_alike() {
        let digest = "1".repeat(64);
        let materials = json!([
            { "uri": "pkg:docker/alpine@3.18?platform=linux%2Farm64", "digest": { "sha256": digest } },
            { "uri": "https://example.com/file" },
            { "uri": "what" },
        ]);
        let arguments = json!({ "build-arg:A": "b", "target": "t" });
        let v1 = json!({
            "buildDefinition": {
                "buildType": "type",
                "externalParameters": {
                    "configSource": { "uri": "u", "path": "Dockerfile" },
                    "request": { "frontend": "dockerfile.v0", "args": arguments },
                },
                "resolvedDependencies": materials,
            },
            "runDetails": { "builder": { "id": "b" }, "metadata": { "startedOn": "s" } },
        });
        let v02 = json!({
            "buildType": "type",
            "builder": { "id": "b" },
            "invocation": {
                "configSource": { "uri": "u", "entryPoint": "Dockerfile" },
                "parameters": { "frontend": "dockerfile.v0", "args": arguments },
            },
            "metadata": { "buildStartedOn": "s" },
            "materials": materials,
        });
        let platform = Platform::linux("amd64", None);
        for (kind, fields) in [("v1", V1.read(&v1).unwrap()), ("v02", V02.read(&v02).unwrap())] {
            let document = made(kind, fields, &platform, &Log::silent());
            assert_eq!(document["buildArgs"], json!({ "A": "b" }), "{kind}");
            assert_eq!(document["configSource"], json!({ "uri": "u", "path": "Dockerfile" }));
            assert_eq!((&document["startedOn"], &document["hermetic"]), (&json!("s"), &json!(false)));
            let materials = document["materials"].as_array().unwrap();
            assert_eq!(materials.len(), 2);
            assert_eq!(materials[0]["image"]["platform"], "linux/arm64");
            assert_eq!(materials[0]["image"]["checksum"], format!("sha256:{digest}"));
            assert_eq!(materials[1]["http"]["host"], "example.com");
        }
        assert!(V1.read(&json!({})).is_none());
    }
}
