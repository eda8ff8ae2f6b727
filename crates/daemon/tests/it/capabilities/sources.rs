//! Images, single blobs, layouts, and files at addresses.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_engine::policy::{KnownSource, SourceJudge, Verdict};
use slipway_model::llb::pb;
use slipway_model::source_rules::{RuleAction, RuleSelector, SourceRule};
use slipway_model::{Diagnostic, SourceRules};
use slipway_testkit::{Archive, Reply};

use super::graph::Graph;
use super::lab::{Lab, SECRET};
use super::{Row, row};

const CONTENT: &str = include_str!("../../../../engine/src/sources/signature/fixtures/content");
const KEY: &str = include_str!("../../../../engine/src/sources/signature/fixtures/one.pub");
const OTHER_KEY: &str = include_str!("../../../../engine/src/sources/signature/fixtures/two.pub");
const SIGNATURE: &str = include_str!("../../../../engine/src/sources/signature/fixtures/one.asc");

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("source.image", image),
        row("source.image.resolvemode", resolve_mode),
        row("source.image.layerlimit", layer_limit),
        row("source.image.checksum", image_checksum),
        row("source.imageblob", blob),
        row("source.ocilayout", layout),
        row("source.http", http),
        row("source.http.auth", http_auth),
        row("source.http.checksum", http_checksum),
        row("source.http.perm", http_permissions),
        // The reference spells it so.
        row("soruce.http.uidgid", http_owner),
        row("source.http.header", http_header),
        row("source.http.signatureverify", http_signature),
        row("source.policy", policy),
        row("source.policy.session", policy_of_session),
    ]
}

fn layer(name: &str) -> Vec<u8> {
    Archive::new().file(name, name.as_bytes()).finish()
}

async fn image(lab: Arc<Lab>) {
    let (name, _) = lab.image("image", &[layer("one")]);
    let mut graph = Graph::default();
    let edge = graph.source(&format!("docker-image://{name}:latest"), &[]);
    lab.gives(&graph, edge, "/one", "one").await;
}

async fn resolve_mode(lab: Arc<Lab>) {
    let (name, _) = lab.image("mode", &[layer("one")]);
    let read = async |mode: &str| {
        let mut graph = Graph::default();
        let edge = graph.source(&format!("docker-image://{name}:latest"), &[("image.resolvemode", mode)]);
        lab.read(&graph, edge, "/one").await
    };
    assert_eq!(read("pull").await.as_deref(), Ok("one"));
    // What was found before does for who does not insist.
    lab.serve("v2/mode/manifests/latest", Reply::status(503));
    assert_eq!(read("default").await.as_deref(), Ok("one"));
    assert!(read("pull").await.is_err());
    assert!(read("nonsense").await.unwrap_err().contains("invalid resolvemode: nonsense"));
}

async fn layer_limit(lab: Arc<Lab>) {
    let (name, _) = lab.image("limited", &[layer("one"), layer("two")]);
    let mut graph = Graph::default();
    let edge = graph.source(&format!("docker-image://{name}:latest"), &[("image.layerlimit", "1")]);
    lab.gives(&graph, edge, "/one", "one").await;
    assert!(lab.read(&graph, edge, "/two").await.is_err());
}

async fn image_checksum(lab: Arc<Lab>) {
    let (name, layout) = lab.image("checked", &[layer("one")]);
    for (digest, good) in [(&layout.manifest[..], true), (b"other", false)] {
        let digest = slipway_testkit::digest(digest);
        let mut graph = Graph::default();
        let edge = graph.source(&format!("docker-image://{name}:latest"), &[("image.checksum", &digest)]);
        assert_eq!(lab.read(&graph, edge, "/one").await.is_ok(), good, "{digest}");
    }
}

async fn blob(lab: Arc<Lab>) {
    let (name, layout) = lab.image("blobs", &[layer("one")]);
    let mut graph = Graph::default();
    let identifier = format!("docker-image+blob://{name}@{}", layout.layers[0]);
    let edge = graph.source(&identifier, &[("http.filename", "layer.tar")]);
    let expected = String::from_utf8(layer("one")).unwrap();
    assert_eq!(lab.read(&graph, edge, "/layer.tar").await, Ok(expected));
}

async fn layout(lab: Arc<Lab>) {
    let (_, layout) = lab.image("layout", &[layer("one")]);
    let digest = slipway_testkit::digest(&layout.manifest);
    let mut graph = Graph::default();
    let edge = graph.source(&format!("oci-layout://it@{digest}"), &[("oci.store", "mine")]);
    let mut setup = lab.setup();
    setup.offer.stores.insert("oci:mine".to_owned(), lab.environment.path("layouts/layout"));
    assert_eq!(setup.read(&graph, edge, "/one").await.as_deref(), Ok("one"));
}

/// Reads what is at an address, as the attributes say.
async fn fetched(
    lab: &Lab,
    address: &str,
    attributes: &[(&str, &str)],
    path: &str,
) -> Result<String, String> {
    let mut graph = Graph::default();
    let edge = graph.source(address, attributes);
    lab.read(&graph, edge, path).await
}

fn text(text: &str) -> Reply {
    Reply::body("text/plain", text.as_bytes())
}

async fn http(lab: Arc<Lab>) {
    let address = lab.serve("web/file", text("of the web"));
    assert_eq!(fetched(&lab, &address, &[], "/file").await.as_deref(), Ok("of the web"));
}

async fn http_auth(lab: Arc<Lab>) {
    let address = lab.serve("web/locked", text("x"));
    fetched(&lab, &address, &[("http.authheadersecret", "s")], "/locked").await.unwrap();
    assert!(lab.asked("web/locked", "authorization").iter().all(|shown| shown == SECRET));
    assert_ne!(lab.asked("web/locked", "authorization"), [""; 0]);
}

async fn http_checksum(lab: Arc<Lab>) {
    let address = lab.serve("web/checked", text("x"));
    let check = async |digest: &str| fetched(&lab, &address, &[("http.checksum", digest)], "/checked").await;
    let right = slipway_testkit::digest(b"x");
    assert!(check(&slipway_testkit::digest(b"y")).await.unwrap_err().contains("digest mismatch"));
    assert_eq!(check(&right).await.as_deref(), Ok("x"));
}

/// Says what is at a path of a file that was fetched.
async fn fetched_stat(
    lab: &Lab,
    name: &str,
    attributes: &[(&str, &str)],
) -> bollard_buildkit_proto::fsutil::types::Stat {
    let address = lab.serve(&format!("web/{name}"), text("x"));
    let mut graph = Graph::default();
    let edge = graph.source(&address, attributes);
    let definition = graph.definition(edge);
    let stat = async |work: &super::lab::Work| {
        let id = work.solve(&definition).await.unwrap();
        work.stat(&id, name).await.unwrap()
    };
    lab.setup().work(stat).await
}

async fn http_permissions(lab: Arc<Lab>) {
    assert_eq!(fetched_stat(&lab, "mode", &[("http.perm", "0741")]).await.mode & 0o777, 0o741);
}

async fn http_owner(lab: Arc<Lab>) {
    let stat = fetched_stat(&lab, "owner", &[("http.uid", "123"), ("http.gid", "456")]).await;
    assert_eq!((stat.uid, stat.gid), (123, 456));
}

async fn http_header(lab: Arc<Lab>) {
    let address = lab.serve("web/header", text("x"));
    fetched(&lab, &address, &[("http.header.accept", "text/x-proof")], "/header").await.unwrap();
    assert!(lab.asked("web/header", "accept").contains(&"text/x-proof".to_owned()));
}

async fn http_signature(lab: Arc<Lab>) {
    let address = lab.serve("web/signed", text(CONTENT));
    for (key, good) in [(OTHER_KEY, false), (KEY, true)] {
        let attributes = [("http.sig.pubkey", key), ("http.sig.signature", SIGNATURE)];
        assert_eq!(fetched(&lab, &address, &attributes, "/signed").await.is_ok(), good);
    }
}

async fn policy(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let edge = graph.source("local://files", &[]);
    let selector = RuleSelector { identifier: "local://files".to_owned(), ..RuleSelector::default() };
    let rule = SourceRule { action: RuleAction::Deny, selector: Some(selector), updates: None };
    let mut setup = lab.setup();
    setup.spec.source_policy = Some(SourceRules { version: 1, rules: vec![rule] });
    let refused = setup.read(&graph, edge, "/a").await.unwrap_err();
    assert!(refused.contains("denied by policy"), "{refused}");
}

/// Refuses every source, and says which.
struct Refuses;

#[async_trait]
impl SourceJudge for Refuses {
    async fn judge(&self, source: &KnownSource, _: Option<&pb::Platform>) -> Result<Verdict, Diagnostic> {
        Ok(Verdict::Deny(vec![format!("no {}", source.op.identifier)]))
    }
}

async fn policy_of_session(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let edge = graph.source("local://files", &[]);
    let mut setup = lab.setup();
    setup.offer.judge = Some(Arc::new(Refuses));
    let refused = setup.read(&graph, edge, "/a").await.unwrap_err();
    assert!(refused.contains("no local://files"), "{refused}");
}
