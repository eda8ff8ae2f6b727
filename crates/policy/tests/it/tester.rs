//! Tests of policies.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_engine::policy::{KnownSource, Wanted};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Platform};
use slipway_policy::{Lookup, PolicyFile, TestOptions, TestResult, run_tests};

use crate::{Files, with_config};

/// Every image has one label.
struct Labelled;

#[async_trait]
impl Lookup for Labelled {
    async fn learn(&self, source: &pb::SourceOp, _: &Wanted) -> Result<KnownSource, Diagnostic> {
        let known = KnownSource { op: source.clone(), ..KnownSource::default() };
        Ok(with_config(known, r#"{"config":{"Labels":{"x":"y"}}}"#))
    }
}

const POLICY: &str = "package docker

default allow = false

allow if input.image.repo == \"example/good\"

allow if input.image.labels.x == \"y\"

deny_msg[msg] if {
	not allow
	msg := \"not good\"
}

decision := {\"allow\": allow, \"deny_msg\": deny_msg}
";

async fn run(tests: &str, only: Option<&str>) -> Result<Vec<TestResult>, Diagnostic> {
    let file = |name: &str, text: &str| PolicyFile { name: name.to_owned(), text: text.to_owned() };
    run_tests(TestOptions {
        policy: file("Dockerfile.rego", POLICY),
        tests: vec![file("a_test.rego", &format!("package docker\n\n{tests}"))],
        run: only.map(str::to_owned),
        more: Arc::new(Files::default()),
        lookup: Arc::new(Labelled),
        platform: Platform::linux("amd64", None),
    })
    .await
}

#[tokio::test]
async fn tests_pass_and_fail() {
    let tests = "test_good if {
	result := data.docker.decision with input as {\"image\": {\"repo\": \"example/good\", \"labels\": {}}}
	result.allow
	count(result.deny_msg) == 0
}

test_bad if {
	result := data.docker.decision with input as {\"image\": {}}
	result.allow
}

test_reason if {
	result := data.docker.decision with input as {\"image\": {\"labels\": {}}}
	result.deny_msg[\"not good\"]
}
";
    let results = run(tests, None).await.unwrap();
    let names: Vec<_> = results.iter().map(|result| (result.name.as_str(), result.passed)).collect();
    assert_eq!(names, [("test_bad", false), ("test_good", true), ("test_reason", true)]);
    let bad = &results[0];
    let decision = bad.decision.as_ref().unwrap();
    assert_eq!(
        (decision.allow, decision.deny_messages.as_slice()),
        (Some(false), &["not good".to_owned()][..])
    );
    assert_eq!(bad.missing, ["image.labels", "image.repo"]);
    assert_eq!(bad.metadata, ["image"]);
    assert_eq!(run(tests, Some("goo")).await.unwrap().len(), 1);
    assert!(run(tests, Some("none")).await.is_err());
}

#[tokio::test]
async fn images_that_tests_name_are_looked_up() {
    let tests = "test_label if {
	decision.allow with input as {\"image\": {\"ref\": \"example/other:1\"}}
}

test_own if allow with input as {\"image\": {\"ref\": \"example/other:1\", \"labels\": {\"x\": \"y\"}}}
";
    let results = run(tests, None).await.unwrap();
    assert!(!results[0].passed && results[1].passed);
    assert_eq!(results[0].decision.as_ref().unwrap().allow, Some(true));
}
