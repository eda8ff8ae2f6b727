//! Policies of sources: what a definition and a Dockerfile get under them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_engine::policy::{Matching, RuleAction, SourcePolicy, SourceRule, SourceVerifier};
use slipway_engine::{Build, Refs, ResolveOptions};
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};
use slipway_model::{Diagnostic, ErrorKind};

use crate::client::{Client, Fixture};

fn rule(identifier: &str, action: RuleAction) -> SourcePolicy {
    let rule = SourceRule::new(identifier.to_owned(), Matching::Wildcard, Vec::new(), action);
    SourcePolicy(vec![rule.unwrap()])
}

fn convert(identifier: &str) -> RuleAction {
    RuleAction::Convert { identifier: identifier.to_owned(), attributes: BTreeMap::new() }
}

fn local(name: &str) -> pb::Definition {
    let mut graph = GraphBuilder::new();
    let source = pb::SourceOp { identifier: format!("local://{name}"), ..Default::default() };
    let vertex = graph.add(&[], pb::op::Op::Source(source), None, VertexMeta::default());
    graph.finish(Some(Edge { vertex, index: 0 }))
}

fn client(fixture: &Fixture) -> Arc<Client> {
    let directories = ["old", "new", "dockerfile"].map(|name| {
        (name.to_owned(), fixture.directory(name, &[("name", name), ("Dockerfile", DOCKERFILE)]))
    });
    Arc::new(Client { directories: directories.into(), ..Client::default() })
}

const DOCKERFILE: &str = "FROM example.com/none AS there\nFROM scratch\nCOPY --from=there /name /\n";

#[tokio::test(flavor = "multi_thread")]
async fn rules_refuse_and_replace_sources() {
    let fixture = Fixture::new();
    let client = client(&fixture);
    let build = fixture.start("one", &client);
    let mut policy = rule("local://old", convert("local://new"));
    policy.0.extend(rule("docker-image://example.com/none:*", convert("local://new")).0);
    policy.0.extend(rule("local://secret*", RuleAction::Deny).0);
    build.use_policy(policy, None);
    let replaced = build.solve(local("old"), false).await.unwrap();
    assert_eq!(build.read_file(replaced.as_ref(), "/name", None).await.unwrap(), b"new");
    let denied = build.solve(local("secrets"), false).await.unwrap_err();
    assert!(denied.message.contains("denied by policy"), "{denied}");
    // Those of one call come on top.
    let more = [rule("local://*", RuleAction::Deny)];
    assert!(build.solve_under(local("new"), false, &more).await.is_err());
    assert!(build.solve(local("new"), false).await.is_ok());

    // The image that the Dockerfile names cannot be had, and need not be.
    let result = build.frontend("dockerfile.v0", &BTreeMap::new(), BTreeMap::new()).await.unwrap();
    let Refs::Single(reference) = &result.refs else { panic!("{:?}", result.refs) };
    assert_eq!(build.read_file(reference.as_ref(), "/name", None).await.unwrap(), b"new");
}

/// Lets nothing through but what it has replaced.
#[derive(Default)]
struct Strict(Mutex<Vec<String>>);

#[async_trait]
impl SourceVerifier for Strict {
    async fn verify(
        &self,
        build: &Build,
        source: &pb::SourceOp,
        _: Option<&pb::Platform>,
    ) -> Result<Option<pb::SourceOp>, Diagnostic> {
        self.0.lock().push(source.identifier.clone());
        // It may look at what it is asked about without being asked again.
        build.resolve_admitted(source.clone(), &ResolveOptions::default()).await?;
        match source.identifier.as_str() {
            "local://new" => Ok(None),
            "local://old" => {
                Ok(Some(pb::SourceOp { identifier: "local://new".to_owned(), ..source.clone() }))
            }
            other => Err(Diagnostic::new(ErrorKind::User, format!("not {other}"))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_about_sources_decides() {
    let fixture = Fixture::new();
    let client = client(&fixture);
    let build = fixture.start("one", &client);
    let strict = Arc::new(Strict::default());
    build.use_policy(SourcePolicy::default(), Some(strict.clone()));
    let replaced = build.solve(local("old"), false).await.unwrap();
    assert_eq!(build.read_file(replaced.as_ref(), "/name", None).await.unwrap(), b"new");
    assert_eq!(*strict.0.lock(), ["local://old", "local://new"]);
    assert_eq!(build.solve(local("other"), false).await.unwrap_err().message, "not local://other");
    let source = pb::SourceOp { identifier: "docker-image://x".to_owned(), ..Default::default() };
    let refused = build.resolve_source(source, &ResolveOptions::default()).await;
    assert!(refused.is_err());
}
