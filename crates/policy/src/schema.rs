//! The JSON schema of `input`, for editors and for people.

use serde_json::{Map, Value, json};

/// Makes the schema of the document that policies are evaluated against.
pub fn input_schema() -> Value {
    let mut definitions = Map::new();
    let mut define = |name: &str, fields: &[(&str, Value)]| {
        definitions.insert(name.to_owned(), object(fields));
    };
    define(
        "env",
        &[
            ("args", map("build arguments")),
            ("labels", map("labels of the build")),
            ("filename", text("the name of the Dockerfile")),
            ("target", text("the stage that is built")),
            ("capsRequest", boolean("the policy is asked for `caps`, not about a source")),
            ("depth", json!({ "type": "integer", "description": "0 for sources of the build itself" })),
        ],
    );
    define("local", &[("name", text("`context`, `dockerfile`, or the name of a context"))]);
    define("image", &image());
    define("provenance", &provenance());
    define("signature", &signature());
    define(
        "http",
        &[
            ("url", text("the whole address")),
            ("schema", text("`http` or `https`")),
            ("host", text("the host, with the port if there is one")),
            ("path", text("the path, decoded")),
            ("query", json!({ "type": "object", "additionalProperties": list(json!({ "type": "string" })) })),
            ("hasAuth", boolean("a secret is sent with the request")),
            ("checksum", text("the digest of the file, as `sha256:…`")),
        ],
    );
    define("git", &git());
    define(
        "actor",
        &[
            ("name", text("the name")),
            ("email", text("the address")),
            ("when", json!({ "type": "string", "format": "date-time" })),
        ],
    );
    let kinds = ["env", "local", "image", "http", "git"].map(|name| (name, reference(name)));
    let mut schema = object(&kinds);
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        fields.insert("title".to_owned(), "input of a source policy".into());
        fields.insert("$defs".to_owned(), definitions.into());
    }
    schema
}

fn image() -> Vec<(&'static str, Value)> {
    vec![
        ("ref", text("the whole name")),
        ("host", text("the registry, as `docker.io`")),
        ("repo", text("the repository as people write it, as `busybox`")),
        ("fullRepo", text("the repository with its registry, as `docker.io/library/busybox`")),
        ("tag", text("the tag, if the name has one")),
        ("platform", text("as `linux/arm64/v8`")),
        ("os", text("the operating system")),
        ("arch", text("the architecture")),
        ("variant", text("the variant of the architecture")),
        ("isCanonical", boolean("the name has a digest")),
        ("checksum", text("the digest of the index or manifest")),
        ("createdTime", json!({ "type": "string", "format": "date-time" })),
        ("env", list(json!({ "type": "string" }))),
        ("labels", map("labels of the image")),
        ("user", text("who steps run as")),
        ("volumes", list(json!({ "type": "string" }))),
        ("workingDir", text("the working directory")),
        ("hasProvenance", boolean("there is an attestation of the image")),
        ("provenance", reference("provenance")),
        ("signatures", list(reference("signature"))),
    ]
}

fn provenance() -> Vec<(&'static str, Value)> {
    vec![
        ("predicateType", text("the version of the statement")),
        ("buildType", text("how it was built")),
        ("builderID", text("who has built it")),
        ("invocationID", text("the build")),
        ("startedOn", text("when the build began")),
        ("finishedOn", text("when the build ended")),
        (
            "configSource",
            object(&[
                ("uri", text("where the Dockerfile is from")),
                ("digest", map("what it was")),
                ("path", text("its name there")),
            ]),
        ),
        ("frontend", text("what has read the Dockerfile")),
        ("buildArgs", map("build arguments")),
        ("rawArgs", map("all arguments of the frontend")),
        ("reproducible", boolean("the builder says that it is reproducible")),
        ("hermetic", boolean("the builder says that no step had a network")),
        (
            "completeness",
            object(
                &["parameters", "environment", "materials"]
                    .map(|name| (name, boolean("all of them are told"))),
            ),
        ),
        ("materials", list(json!({ "$ref": "#" }))),
    ]
}

fn signature() -> Vec<(&'static str, Value)> {
    vec![
        ("kind", text("who has signed, as `docker-github-builder`")),
        ("type", text("the form of the signature")),
        ("timestamps", list(json!({ "type": "object" }))),
        ("dockerReference", text("the name that was signed")),
        ("isDHI", boolean("a Docker Hardened Image")),
        ("signer", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
    ]
}

fn git() -> Vec<(&'static str, Value)> {
    let signatures = [
        (
            "pgpSignature",
            object(&[("version", json!({ "type": "integer" })), ("keyID", text("in hexadecimal"))]),
        ),
        (
            "sshSignature",
            object(&[("version", json!({ "type": "integer" })), ("pubKey", text("the fingerprint"))]),
        ),
    ];
    let mut tag = vec![
        ("object", text("what the tag names")),
        ("type", text("what that is")),
        ("tag", text("the name")),
        ("tagger", reference("actor")),
        ("message", text("the message")),
    ];
    let mut commit = vec![
        ("tree", text("the directory")),
        ("parents", list(json!({ "type": "string" }))),
        ("author", reference("actor")),
        ("committer", reference("actor")),
        ("message", text("the message")),
    ];
    tag.extend(signatures.clone());
    commit.extend(signatures);
    vec![
        ("schema", text("`https`, `http`, `ssh` or `git`")),
        ("host", text("the host, with the port if there is one")),
        ("remote", text("the address")),
        ("fullURL", text("the address as it was written")),
        ("tagName", text("the tag")),
        ("branch", text("the branch")),
        ("ref", text("the reference, as `refs/heads/main`")),
        ("subDir", text("the directory in the repository")),
        ("isCommitRef", boolean("a commit was named")),
        ("isSHA256", boolean("the repository has SHA-256 names")),
        ("checksum", text("the commit, or the annotated tag")),
        ("commitChecksum", text("the commit")),
        ("isAnnotatedTag", boolean("an annotated tag was named")),
        ("tag", object(&tag)),
        ("commit", object(&commit)),
    ]
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn boolean(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn map(description: &str) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": { "type": ["string", "null"] } })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn object(fields: &[(&str, Value)]) -> Value {
    let fields: Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({ "type": "object", "properties": fields, "additionalProperties": false })
}
