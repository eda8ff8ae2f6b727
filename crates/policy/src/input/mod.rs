//! What is known of a source, as a document.
//!
//! A field that is empty is left out, so that `not input.image.labels` is what it looks like.

mod git;
mod image;
mod provenance;

use serde_json::{Map, Value, json};
use slipway_engine::HttpMeta;
use slipway_engine::policy::KnownSource;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Platform};
use url::Url;

use crate::{Environment, Log, wrong};

/// A document, and what it lacks because nobody has asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    fields: Map<String, Value>,
    /// As `image.labels`.
    pub(crate) unknown: Vec<String>,
}

impl Document {
    /// Makes the document of a source.
    pub(crate) fn of(
        source: &KnownSource,
        platform: Option<&Platform>,
        log: &Log,
    ) -> Result<Self, Diagnostic> {
        let identifier = source.op.identifier.as_str();
        let (scheme, rest) = identifier
            .split_once("://")
            .ok_or_else(|| wrong(format!("invalid source identifier: {identifier}")))?;
        match scheme {
            "http" | "https" => http(&source.op, source.http.as_ref()),
            "git" => git::document(&source.op, rest, source.git.as_ref()),
            "docker-image" => image::document(rest, platform, source.image.as_ref(), log),
            "local" => Ok(Self::new("local", object([("name", rest.into())]), [])),
            _ => Err(wrong(format!("unsupported source scheme: {scheme}"))
                .hint("policies know images, repositories, addresses and local directories")),
        }
    }

    fn new<'a>(kind: &str, value: Value, unknown: impl IntoIterator<Item = &'a str>) -> Self {
        let unknown = unknown.into_iter().map(str::to_owned).collect();
        Self { fields: [(kind.to_owned(), value)].into_iter().collect(), unknown }
    }

    /// Makes the document as policies see it.
    pub(crate) fn with_environment(&self, environment: &Environment) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("env".to_owned(), environment.document(0, false));
        add_environment(&mut fields, environment, 1);
        fields.into()
    }

    /// Makes the document as people see it.
    pub(crate) fn shown(&self) -> Value {
        self.fields.clone().into()
    }
}

/// What an image was made of was built with the same arguments, as far as policies can know.
fn add_environment(fields: &mut Map<String, Value>, environment: &Environment, depth: usize) {
    let materials = fields.get_mut("image").and_then(|image| image.pointer_mut("/provenance/materials"));
    let Some(Value::Array(materials)) = materials else { return };
    for material in materials.iter_mut().filter_map(Value::as_object_mut) {
        material.insert("env".to_owned(), environment.document(depth, false));
        add_environment(material, environment, depth + 1);
    }
}

/// Makes an object of the fields that are not empty.
fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    let fields = fields.into_iter().filter(|(_, value)| !is_empty(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Returns the host of an address, with the port if there is one.
fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

fn http(op: &pb::SourceOp, meta: Option<&HttpMeta>) -> Result<Document, Diagnostic> {
    let url = Url::parse(&op.identifier).map_err(|error| {
        wrong(format!("cannot read the address `{}`", op.identifier)).cause(error.to_string())
    })?;
    let mut query: Map<String, Value> = Map::new();
    for (key, value) in url.query_pairs() {
        let values = query.entry(key.into_owned()).or_insert_with(|| json!([]));
        values.as_array_mut().into_iter().for_each(|values| values.push(value.as_ref().into()));
    }
    let checksum = meta.map(|meta| meta.digest.to_string());
    let unknown = checksum.is_none().then_some("http.checksum");
    let fields = object([
        ("url", op.identifier.as_str().into()),
        ("schema", url.scheme().into()),
        ("host", host(&url).into()),
        ("path", decoded(url.path()).into()),
        ("query", query.into()),
        ("hasAuth", op.attrs.contains_key("http.authheadersecret").into()),
        ("checksum", checksum.into()),
    ]);
    Ok(Document::new("http", fields, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(identifier: &str, attributes: &[(&str, &str)]) -> Document {
        let attrs = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let op = pb::SourceOp { identifier: identifier.to_owned(), attrs };
        let source = KnownSource { op, ..KnownSource::default() };
        Document::of(&source, Some(&Platform::linux("arm64", None)), &Log::silent()).unwrap()
    }

    #[test]
    fn addresses() {
        let document = of("https://example.com:8443/a%20b?x=1&x=2&y", &[("http.authheadersecret", "s")]);
        let expected = json!({ "http": {
            "url": "https://example.com:8443/a%20b?x=1&x=2&y",
            "schema": "https",
            "host": "example.com:8443",
            "path": "/a b",
            "query": { "x": ["1", "2"], "y": [""] },
            "hasAuth": true,
        }});
        assert_eq!(document.shown(), expected);
        assert_eq!(document.unknown, ["http.checksum"]);
    }

    #[test]
    fn directories_and_what_is_none() {
        assert_eq!(of("local://context", &[]).shown(), json!({ "local": { "name": "context" } }));
        let op = pb::SourceOp { identifier: "oci-layout://x".to_owned(), ..Default::default() };
        let source = KnownSource { op, ..KnownSource::default() };
        assert!(Document::of(&source, None, &Log::silent()).is_err());
    }

    #[test]
    fn images() {
        let document = of("docker-image://docker.io/library/busybox:1", &[]);
        let expected = json!({ "image": {
            "ref": "docker.io/library/busybox:1",
            "host": "docker.io",
            "repo": "busybox",
            "fullRepo": "docker.io/library/busybox",
            "tag": "1",
            "platform": "linux/arm64",
            "os": "linux",
            "arch": "arm64",
        }});
        assert_eq!(document.shown(), expected);
        assert!(document.unknown.contains(&"image.checksum".to_owned()));
        let digest = format!("sha256:{}", "0".repeat(64));
        let document = of(&format!("docker-image://example.com/a/b@{digest}"), &[]);
        assert_eq!(document.shown()["image"]["checksum"], digest.as_str());
        assert_eq!(document.shown()["image"]["isCanonical"], true);
        assert!(!document.unknown.contains(&"image.checksum".to_owned()));
    }

    #[test]
    fn repositories() {
        let document =
            of("git://github.com/a/b.git#v1:sub", &[("git.fullurl", "https://github.com/a/b.git")]);
        let expected = json!({ "git": {
            "schema": "https",
            "host": "github.com",
            "remote": "https://github.com/a/b.git",
            "fullURL": "https://github.com/a/b.git",
            "subDir": "sub",
        }});
        assert_eq!(document.shown(), expected);
        assert!(document.unknown.contains(&"git.tagName".to_owned()));
        let document =
            of("git://github.com/a/b.git#refs/heads/main", &[("git.fullurl", "git@github.com:a/b.git")]);
        let git = &document.shown()["git"];
        assert_eq!((&git["schema"], &git["host"]), (&json!("ssh"), &json!("github.com")));
        assert_eq!((&git["branch"], &git["ref"]), (&json!("main"), &json!("refs/heads/main")));
        let commit = "0123456789012345678901234567890123456789";
        let document = of(&format!("git://github.com/a/b.git#{commit}"), &[]);
        let git = &document.shown()["git"];
        assert_eq!((&git["isCommitRef"], &git["checksum"]), (&json!(true), &json!(commit)));
        assert_eq!(document.unknown, ["git.tag", "git.commit"]);
    }
}
