//! Policies asked about sources, as a build asks them.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

mod tester;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_engine::policy::{KnownImage, KnownSource, SourceJudge, Verdict};
use slipway_engine::{GitMeta, HttpMeta};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, Platform};
use slipway_policy::{Environment, Log, LogLevel, Policies, Policy, PolicyFile, PolicyFiles, PolicyOptions};

/// Files by name.
#[derive(Default)]
struct Files(BTreeMap<&'static str, &'static [u8]>);

#[async_trait]
impl PolicyFiles for Files {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Diagnostic> {
        Ok(self.0.get(name).map(|content| content.to_vec()))
    }
}

/// What a policy has logged.
type Lines = Arc<Mutex<Vec<String>>>;

fn module(body: &str) -> String {
    format!("package docker\n\ndefault allow = false\n\n{body}\n\ndecision := {{\"allow\": allow}}\n")
}

async fn load_with(text: &str, files: Files, lines: &Lines) -> Result<Policy, Diagnostic> {
    let lines = lines.clone();
    Policy::load(PolicyOptions {
        files: vec![PolicyFile { name: "policy.rego".to_owned(), text: text.to_owned() }],
        environment: Environment {
            args: [("A".to_owned(), "1".to_owned())].into(),
            ..Environment::default()
        },
        log: Log::new(LogLevel::Info, move |line| lines.lock().push(line.to_owned())),
        more: Arc::new(files),
        platform: Platform::linux("amd64", None),
    })
    .await
}

async fn load(body: &str) -> Policy {
    load_with(&module(body), Files::default(), &Lines::default()).await.unwrap()
}

fn source(identifier: &str) -> KnownSource {
    let op = pb::SourceOp { identifier: identifier.to_owned(), ..pb::SourceOp::default() };
    KnownSource { op, ..KnownSource::default() }
}

fn busybox() -> KnownSource {
    source("docker-image://docker.io/library/busybox:latest")
}

fn with_config(mut image: KnownSource, config: &str) -> KnownSource {
    let digest = Digest::of(config).to_string();
    image.image = Some(KnownImage { digest, config: Some(config.as_bytes().into()), chain: None });
    image
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny(_) => "deny",
        Verdict::Replace(_) => "replace",
        Verdict::More(_) => "more",
    }
}

async fn says(policy: &Policy, source: &KnownSource) -> &'static str {
    name(&policy.judge(source, None).await.unwrap())
}

#[tokio::test]
async fn what_is_known_decides_without_a_question() {
    let policy = load(
        "allow if not input.image\n\nallow if {\n  input.image.repo == \"busybox\"\n}\n\nallow if {\n  \
         input.image.repo == \"labelled\"\n  input.image.labels.x == \"y\"\n}",
    )
    .await;
    assert_eq!(says(&policy, &busybox()).await, "allow");
    assert_eq!(says(&policy, &source("local://context")).await, "allow");
    assert_eq!(says(&policy, &source("docker-image://docker.io/library/alpine:latest")).await, "deny");
    // Its labels matter, of this image alone.
    assert_eq!(says(&policy, &source("docker-image://docker.io/library/labelled:latest")).await, "more");
}

#[tokio::test]
async fn what_is_not_known_is_asked_for() {
    let policy = load("allow if input.image.labels[\"x\"] == \"y\"").await;
    let Verdict::More(wanted) = policy.judge(&busybox(), None).await.unwrap() else { panic!("no question") };
    assert!(wanted.config && !wanted.attestations);
    assert_eq!(wanted.options.platform, Some(Platform::linux("amd64", None)));
    let right = with_config(busybox(), r#"{"config":{"Labels":{"x":"y"}}}"#);
    assert_eq!(says(&policy, &right).await, "allow");
    assert_eq!(says(&policy, &with_config(busybox(), r#"{"config":{}}"#)).await, "deny");

    // Also behind a name, an iteration and a negation.
    for body in [
        "allow if check(input.image)\n\ncheck(image) if image.labels.x == \"y\"",
        "allow if {\n  image := input.image\n  image.labels.x == \"y\"\n}",
        "allow if input.image.env[_] == \"A=b\"",
        "allow if {\n  some key in [\"x\"]\n  input.image.labels[key] == \"y\"\n}",
        "allow if not input.image.user",
        "allow if count([e | some e in input.image.env]) > 0",
        "allow if every e in input.image.env { e != \"A=b\" }",
        "allow if regex.match(`x`, input.image.workingDir)",
        "allow if input[\"image\"][\"volumes\"][0]",
        "allow if object.get(input.image, \"labels\", {}) == {}",
    ] {
        assert_eq!(says(&load(body).await, &busybox()).await, "more", "{body}");
    }
}

#[tokio::test]
async fn other_sources_have_other_questions() {
    let policy = load("allow if input.http.checksum == \"sha256:1\"").await;
    let mut file = source("https://example.com/f");
    assert_eq!(says(&policy, &file).await, "more");
    let meta =
        HttpMeta { digest: Digest::of("f"), filename: "f".to_owned(), last_modified: None, checksum: None };
    file.http = Some(meta);
    assert_eq!(says(&policy, &file).await, "deny");
    let policy = load("allow if docker_github_builder(input.image, \"a/b\")").await;
    let Verdict::More(wanted) = policy.judge(&busybox(), None).await.unwrap() else { panic!("no question") };
    assert!(wanted.attestations);
}

#[tokio::test]
async fn images_are_pinned() {
    let digest = Digest::of("pinned");
    let policy = load(&format!("allow if pin_image(input.image, \"{digest}\")")).await;
    let Verdict::Replace(op) = policy.judge(&busybox(), None).await.unwrap() else { panic!("not pinned") };
    assert_eq!(op.identifier, format!("docker-image://docker.io/library/busybox:latest@{digest}"));
    // What is pinned is asked about again, and is right then.
    assert_eq!(says(&policy, &KnownSource { op, ..KnownSource::default() }).await, "allow");
    let two = format!(
        "allow if {{\n  pin_image(input.image, \"{digest}\")\n  pin_image(input.image, \"{}\")\n}}",
        Digest::of("b")
    );
    assert!(load(&two).await.judge(&busybox(), None).await.is_err());
}

#[tokio::test]
async fn files_are_imported_and_read() {
    let files = || {
        Files(
            [
                ("hack/allow.rego", &b"package other\n\nrequired := load_json(\"data.json\").required\n"[..]),
                ("data.json", &br#"{"required": ["busybox"]}"#[..]),
            ]
            .into(),
        )
    };
    let text = format!("package docker\n\nimport data.hack.allow\n\n{}", "default allow = false\n\nallow if input.image.repo in allow.required\n\ndecision := {\"allow\": allow}\n".replace("allow.required", "lib.required")).replace("import data.hack.allow", "import data.hack.allow as lib");
    let policy = load_with(&text, files(), &Lines::default()).await.unwrap();
    assert_eq!(says(&policy, &busybox()).await, "allow");
    assert_eq!(says(&policy, &source("docker-image://docker.io/library/alpine:latest")).await, "deny");
    let error = load_with(&text, Files::default(), &Lines::default()).await.err().unwrap();
    assert!(error.message.contains("import data.hack.allow not found for module policy.rego"), "{error}");
}

#[tokio::test]
async fn mistakes_have_a_place() {
    let broken = "package docker\n\nallow if {\n  input.image.repo ==\n}\n";
    let error = load_with(broken, Files::default(), &Lines::default()).await.err().unwrap();
    assert!(error.message.starts_with("policy.rego:5: "), "{error}");
    assert!(error.span.is_some());
    let unknown = load("allow if no_such_function(input)").await;
    let error = unknown.judge(&busybox(), None).await.unwrap_err();
    assert!(
        error.message.starts_with("policy.rego:5: ") && error.message.contains("no_such_function"),
        "{error}"
    );
    let none =
        load_with("package docker\n\nallow := true\n", Files::default(), &Lines::default()).await.unwrap();
    assert!(none.judge(&busybox(), None).await.unwrap_err().message.contains("no decision"));
}

#[tokio::test]
async fn what_a_policy_does_is_told() {
    let lines = Lines::default();
    let text = "package docker\n\ndefault allow = false\n\nallow if {\n  print(\"looking at\", input.image.repo)\n  load_json(\"none.json\")\n}\n\ndeny_msg contains \"not this\" if not allow\n\ndecision := {\"allow\": allow, \"deny_msg\": deny_msg}\n";
    let policy = load_with(text, Files::default(), &lines).await.unwrap();
    let Verdict::Deny(reasons) = policy.judge(&busybox(), None).await.unwrap() else { panic!("not denied") };
    assert_eq!(reasons, ["not this"]);
    let told = lines.lock().join("\n");
    for expected in [
        "checking policy for source docker-image://docker.io/library/busybox:latest",
        "looking at busybox",
        "load_json: there is no file `none.json`",
        "policy decision for source docker-image://docker.io/library/busybox:latest: DENY",
        " - not this",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
}

#[tokio::test]
async fn every_policy_has_to_allow() {
    let yes = || load("allow if input.env.args.A == \"1\"");
    let no = || load("allow if input.env.args.A == \"2\"");
    let both = Policies(vec![yes().await, no().await]);
    assert_eq!(name(&both.judge(&busybox(), None).await.unwrap()), "deny");
    let one = Policies(vec![yes().await, yes().await]);
    assert_eq!(name(&one.judge(&busybox(), None).await.unwrap()), "allow");
}

#[tokio::test]
async fn the_build_itself_is_decided_about() {
    let text = "package docker\n\ncaps := {\"exec.proxy\": true} if input.env.capsRequest\n\ndecision := {\"allow\": true, \"caps\": caps}\n";
    let policy = load_with(text, Files::default(), &Lines::default()).await.unwrap();
    assert!(policy.build_decision().await.unwrap().wants_proxy());
    assert!(!load("allow if true").await.build_decision().await.unwrap().wants_proxy());
}

#[tokio::test]
async fn signatures_of_commits_are_checked() {
    const KEY: &[u8] = include_bytes!("../../../engine/src/sources/git/fixtures/key.pub");
    const OTHER: &[u8] = include_bytes!("../../../engine/src/sources/git/fixtures/other.pub");
    let commit = include_bytes!("../../../engine/src/sources/git/fixtures/signed-commit").to_vec();
    let mut repository = source("git://example.com/a.git#refs/heads/main");
    let text = module("allow if verify_git_signature(input.git.commit, \"key.pub\")");
    let with = |key: &'static [u8]| load_with_key(&text, key);
    assert_eq!(says(&with(KEY).await, &repository).await, "more");
    repository.git = Some(GitMeta {
        reference: "refs/heads/main".to_owned(),
        checksum: "e4a1b701ae4dfbb2fdacc0a21d9710ab2bcc8330".to_owned(),
        commit_checksum: None,
        commit_object: commit,
        tag_object: Vec::new(),
    });
    assert_eq!(says(&with(KEY).await, &repository).await, "allow");
    assert_eq!(says(&with(OTHER).await, &repository).await, "deny");
}

async fn load_with_key(text: &str, key: &'static [u8]) -> Policy {
    load_with(text, Files([("key.pub", key)].into()), &Lines::default()).await.unwrap()
}

#[tokio::test]
async fn signatures_of_files_are_checked() {
    const SIGNATURE: &[u8] = include_bytes!("../../../engine/src/sources/signature/fixtures/one.asc");
    const KEY: &[u8] = include_bytes!("../../../engine/src/sources/signature/fixtures/one.pub");
    let files = Files([("file.asc", SIGNATURE), ("key.pub", KEY)].into());
    let text = module("allow if verify_http_pgp_signature(input.http, \"file.asc\", \"key.pub\")");
    let policy = load_with(&text, files, &Lines::default()).await.unwrap();
    let mut file = source("https://example.com/f");
    let Verdict::More(wanted) = policy.judge(&file, None).await.unwrap() else { panic!("no question") };
    let request = wanted.options.checksum.unwrap();
    let checksum =
        slipway_engine::Checksum { digest: format!("sha256:{}", "0".repeat(64)), suffix: request.suffix };
    file.http = Some(HttpMeta {
        digest: Digest::of("f"),
        filename: "f".to_owned(),
        last_modified: None,
        checksum: Some(checksum),
    });
    assert_eq!(says(&policy, &file).await, "deny");
}
