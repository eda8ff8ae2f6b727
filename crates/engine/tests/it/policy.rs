//! Policies of sources: what a definition and a Dockerfile get under them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_engine::policy::{
    KnownSource, Matching, RuleAction, SourceJudge, SourcePolicy, SourceRule, Verdict,
};
use slipway_engine::{Refs, ResolveOptions};
use slipway_model::Diagnostic;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};

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

/// Lets nothing through but what it has replaced, and wants to be asked twice.
#[derive(Default)]
struct Strict(Mutex<Vec<String>>);

#[async_trait]
impl SourceJudge for Strict {
    async fn judge(&self, source: &KnownSource, _: Option<&pb::Platform>) -> Result<Verdict, Diagnostic> {
        let name = source.op.identifier.clone();
        let asked_before = self.0.lock().last() == Some(&name);
        if !asked_before {
            self.0.lock().push(name);
            // What it wants to know is found out without it being asked about that.
            return Ok(Verdict::More(Box::default()));
        }
        Ok(match name.as_str() {
            "local://new" => Verdict::Allow,
            "local://old" => {
                Verdict::Replace(pb::SourceOp { identifier: "local://new".to_owned(), ..source.op.clone() })
            }
            other => Verdict::Deny(vec![format!("not {other}")]),
        })
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
    let denied = build.solve(local("other"), false).await.unwrap_err();
    assert_eq!(denied.message, "source \"local://other\" not allowed by policy: action DENY");
    assert_eq!(denied.causes, ["not local://other"]);
    let source = pb::SourceOp { identifier: "docker-image://x".to_owned(), ..Default::default() };
    let refused = build.resolve_source(source, &ResolveOptions::default()).await;
    assert!(refused.is_err());
}
