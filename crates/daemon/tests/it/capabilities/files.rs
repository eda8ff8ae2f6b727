//! File operations, merges and diffs, and what is said of vertices.

use std::sync::Arc;

use slipway_model::llb::pb::file_action::Action;
use slipway_model::llb::{Edge, pb};
use slipway_model::progress::Event;
use slipway_testkit::Reply;

use super::graph::{Graph, copied, texts};
use super::lab::{Lab, Work};
use super::{Row, row, unique};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("file.base", base),
        row("file.rm.wildcard", remove_by_wildcard),
        row("file.rm.nofollowsymlink", remove_the_link),
        row("file.copy.includeexcludepatterns", copy_by_patterns),
        row("file.copy.requiredpaths", copy_with_required),
        row("file.copy.alwaysreplaceexistingdestpaths", copy_over_others),
        row("file.copy.modestring", copy_with_mode),
        row("file.symlink.create", symlink),
        row("mergeop", merge),
        row("diffop", diff),
        row("passthroughop", passthrough),
        row("source.buildop.llbfilename", nested),
        row("constraints", constraints),
        row("platform", platform),
        row("meta.ignorecache", ignore_cache),
        row("meta.description", description),
        row("meta.exportcache", export_cache),
    ]
}

/// Says what of some paths is in a tree.
async fn there<const N: usize>(lab: &Lab, graph: &Graph, edge: Edge, paths: [&str; N]) -> [bool; N] {
    let definition = graph.definition(edge);
    let there = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        let mut there = [false; N];
        for (path, there) in paths.iter().zip(&mut there) {
            *there = work.stat(&id, path).await.is_ok();
        }
        there
    };
    lab.setup().work(there).await
}

fn remove(path: &str, allow_wildcard: bool) -> Action {
    Action::Rm(pb::FileActionRm { path: path.to_owned(), allow_wildcard, ..pb::FileActionRm::default() })
}

/// A tree with `/a1`, `/a2`, `/b` and a link `/to-b`.
fn tree(graph: &mut Graph) -> Edge {
    let one = graph.file(None, "/a1", "a1");
    let two = graph.file(Some(one), "/a2", "a2");
    let three = graph.file(Some(two), "/b", "b");
    link(graph, Some(three), "/b", "/to-b")
}

fn link(graph: &mut Graph, base: Option<Edge>, oldpath: &str, newpath: &str) -> Edge {
    let link = pb::FileActionSymlink {
        oldpath: oldpath.to_owned(),
        newpath: newpath.to_owned(),
        timestamp: -1,
        ..pb::FileActionSymlink::default()
    };
    graph.action(base, Action::Symlink(link))
}

async fn base(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let mkdir = pb::FileActionMkDir {
        path: "/new/deep".to_owned(),
        mode: 0o700,
        make_parents: true,
        timestamp: -1,
        ..pb::FileActionMkDir::default()
    };
    let made = tree(&mut graph);
    let made = graph.action(Some(made), Action::Mkdir(mkdir));
    let made = graph.action(Some(made), remove("/b", false));
    let copied = graph.copy(made, None, copied("/", "/copy"));
    let paths = ["/copy/a1", "/copy/new/deep", "/copy/b"];
    assert_eq!(there(&lab, &graph, copied, paths).await, [true, true, false]);
    lab.gives(&graph, copied, "/copy/a1", "a1").await;
}

async fn remove_by_wildcard(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let tree = tree(&mut graph);
    let removed = graph.action(Some(tree), remove("/a*", true));
    assert_eq!(there(&lab, &graph, removed, ["/a1", "/a2", "/b"]).await, [false, false, true]);
}

async fn remove_the_link(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let tree = tree(&mut graph);
    let removed = graph.action(Some(tree), remove("/to-b", false));
    assert_eq!(there(&lab, &graph, removed, ["/to-b", "/b"]).await, [false, true]);
}

async fn copy_by_patterns(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let tree = tree(&mut graph);
    let copy = pb::FileActionCopy {
        include_patterns: vec!["a*".to_owned()],
        exclude_patterns: vec!["a2".to_owned()],
        ..copied("/", "/")
    };
    let copied = graph.copy(tree, None, copy);
    assert_eq!(there(&lab, &graph, copied, ["/a1", "/a2", "/b"]).await, [true, false, false]);
}

async fn copy_with_required(lab: Arc<Lab>) {
    for (required, good) in [("/a1", true), ("/missing", false)] {
        let mut graph = Graph::default();
        let tree = tree(&mut graph);
        let copy = pb::FileActionCopy {
            include_patterns: vec!["a1".to_owned(), "missing".to_owned()],
            required_paths: vec![required.to_owned()],
            ..copied("/", "/")
        };
        let copied = graph.copy(tree, None, copy);
        assert_eq!(lab.read(&graph, copied, "/a1").await.is_ok(), good, "{required}");
    }
}

async fn copy_over_others(lab: Arc<Lab>) {
    for (replace, good) in [(false, false), (true, true)] {
        let mut graph = Graph::default();
        let file = graph.file(None, "/it", "a file");
        let directory = graph.directory(None, "/it");
        let copy = pb::FileActionCopy { always_replace_existing_dest_paths: replace, ..copied("/", "/") };
        let copied = graph.copy(file, Some(directory), copy);
        assert_eq!(lab.read(&graph, copied, "/it").await.is_ok(), good, "{replace}");
    }
}

async fn copy_with_mode(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let tree = tree(&mut graph);
    let copy = pb::FileActionCopy { mode_str: "u=rwx,go=x".to_owned(), ..copied("/a1", "/a1") };
    let copied = graph.copy(tree, None, copy);
    let definition = graph.definition(copied);
    let mode = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        work.stat(&id, "/a1").await.unwrap().mode & 0o777
    };
    assert_eq!(lab.setup().work(mode).await, 0o711);
}

async fn symlink(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let file = graph.file(None, "/to", "linked");
    let link = link(&mut graph, Some(file), "/to", "/from");
    lab.gives(&graph, link, "/from", "linked").await;
}

async fn merge(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let lower = graph.file(None, "/a", "lower");
    let lower = graph.file(Some(lower), "/b", "lower");
    let upper = graph.file(None, "/b", "upper");
    let inputs = [0, 1].map(|input| pb::MergeInput { input }).into();
    let merged = graph.op(&[lower, upper], pb::op::Op::Merge(pb::MergeOp { inputs }));
    lab.gives(&graph, merged, "/a", "lower").await;
    lab.gives(&graph, merged, "/b", "upper").await;
}

async fn diff(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let lower = graph.file(None, "/a", "lower");
    let upper = graph.file(Some(lower), "/b", "added");
    let op = pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: 0 }),
        upper: Some(pb::UpperDiffInput { input: 1 }),
    };
    let diff = graph.op(&[lower, upper], pb::op::Op::Diff(op));
    assert_eq!(there(&lab, &graph, diff, ["/a", "/b"]).await, [false, true]);
}

async fn passthrough(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let first = graph.file(None, "/it", "first");
    let second = graph.file(None, "/it", "second");
    let op = pb::PassthroughOp { id: "x".to_owned(), outputs: vec![1, 0] };
    let passed = graph.op(&[first, second], pb::op::Op::Passthrough(op));
    lab.gives(&graph, passed, "/it", "second").await;
    lab.gives(&graph, Edge { index: 1, ..passed }, "/it", "first").await;
}

async fn nested(lab: Arc<Lab>) {
    use prost::Message as _;
    let mut inner = Graph::default();
    let edge = inner.file(None, "/inner", "found");
    let mut graph = Graph::default();
    let file = pb::FileActionMkFile {
        path: "/named".to_owned(),
        mode: 0o644,
        data: inner.definition(edge).encode_to_vec(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    };
    let file = graph.action(None, Action::Mkfile(file));
    let op = pb::BuildOp {
        builder: -1,
        inputs: [("buildkit.llb.definition".to_owned(), pb::BuildInput { input: 0 })].into(),
        attrs: texts(&[("llbbuild.filename", "/named")]),
        ..pb::BuildOp::default()
    };
    let nested = graph.op(&[file], pb::op::Op::Build(op));
    lab.gives(&graph, nested, "/inner", "found").await;
}

/// Changes the operation that gives the result of a definition of one file.
fn changed(change: impl FnOnce(&mut pb::Op)) -> pb::Definition {
    use prost::Message as _;
    use slipway_model::Digest;
    let mut graph = Graph::default();
    let edge = graph.file(None, "/it", "made");
    let mut definition = graph.definition(edge);
    let mut op = pb::Op::decode(definition.def[0].as_slice()).unwrap();
    change(&mut op);
    definition.def[0] = op.encode_to_vec();
    let digest = Digest::of(&definition.def[0]).to_string();
    definition.def[1] =
        pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..pb::Op::default() }.encode_to_vec();
    definition.metadata.clear();
    definition
}

async fn solved(lab: &Lab, definition: pb::Definition) -> String {
    let read = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        work.read(&id, "/it").await.unwrap()
    };
    lab.setup().work(read).await
}

async fn constraints(lab: Arc<Lab>) {
    let filter = vec!["labels.\"org.mobyproject.buildkit.worker.executor\"==oci".to_owned()];
    let definition = changed(|op| op.constraints = Some(pb::WorkerConstraints { filter }));
    assert_eq!(solved(&lab, definition).await, "made");
}

async fn platform(lab: Arc<Lab>) {
    let other =
        pb::Platform { os: "linux".to_owned(), architecture: "s390x".to_owned(), ..Default::default() };
    assert_eq!(solved(&lab, changed(|op| op.platform = Some(other))).await, "made");
    // An image is that of the platform.
    let mut manifests = Vec::new();
    let mut name = String::new();
    for architecture in ["amd64", "s390x"] {
        let layer = slipway_testkit::Archive::new().file("it", architecture.as_bytes()).finish();
        let (reference, layout) = lab.image("platform", &[layer]);
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": slipway_testkit::digest(&layout.manifest),
            "size": layout.manifest.len(),
            "platform": { "os": "linux", "architecture": architecture },
        }));
        name = reference;
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    let reply = Reply::body("application/vnd.oci.image.index.v1+json", index.as_bytes());
    for reference in ["latest", &slipway_testkit::digest(index.as_bytes())] {
        lab.serve(&format!("v2/platform/manifests/{reference}"), reply.clone());
    }
    for architecture in ["s390x", "amd64"] {
        let source =
            pb::SourceOp { identifier: format!("docker-image://{name}:latest"), ..Default::default() };
        let platform = pb::Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            ..Default::default()
        };
        let definition = changed(|op| {
            op.op = Some(pb::op::Op::Source(source));
            op.platform = Some(platform);
        });
        assert_eq!(solved(&lab, definition).await, architecture);
    }
}

async fn ignore_cache(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let script = format!("cat /proc/sys/kernel/random/uuid > /made # {}", unique("salt"));
    let edge = graph.step(&script, |_| {});
    let first = lab.read(&graph, edge, "/made").await.unwrap();
    assert_eq!(lab.read(&graph, edge, "/made").await.unwrap(), first);
    let metadata = pb::OpMetadata { ignore_cache: true, ..pb::OpMetadata::default() };
    graph.metadata.insert(edge.vertex.to_string(), metadata);
    assert_ne!(lab.read(&graph, edge, "/made").await.unwrap(), first);
}

async fn description(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let edge = graph.file(None, "/it", "made");
    let metadata = pb::OpMetadata {
        description: texts(&[("llb.customname", "a name of its own")]),
        ..Default::default()
    };
    graph.metadata.insert(edge.vertex.to_string(), metadata);
    let setup = lab.setup();
    let events = setup.events.clone();
    setup.read(&graph, edge, "/it").await.unwrap();
    let named = events.all(|event| match event {
        Event::Vertex(vertex) => (vertex.name == "a name of its own").then_some(()),
        _ => None,
    });
    assert_ne!(named, []);
}

async fn export_cache(lab: Arc<Lab>) {
    let layers = async |value: bool| {
        let mut graph = Graph::default();
        let lower = graph.file(None, "/lower", &unique("lower"));
        let upper = graph.file(Some(lower), "/upper", "upper");
        let export_cache = Some(pb::ExportCache { value });
        let metadata = pb::OpMetadata { export_cache, ..pb::OpMetadata::default() };
        graph.metadata.insert(upper.vertex.to_string(), metadata);
        let place = unique("cache");
        super::control::exported_cache(&lab, &graph, upper, &place).await
    };
    assert_eq!((layers(true).await, layers(false).await), (2, 1));
}
