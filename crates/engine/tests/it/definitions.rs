//! Definitions as they come from clients: lazy, shared, and hostile ones.

use std::sync::Arc;

use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};

use crate::client::{Client, Fixture};

/// Adds a file to an input, or to nothing.
pub(crate) fn mkfile(graph: &mut GraphBuilder, base: Option<Edge>, path: &str, text: &str) -> Edge {
    let action = pb::FileAction {
        input: if base.is_some() { 0 } else { -1 },
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
            path: path.to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            timestamp: -1,
            ..Default::default()
        })),
    };
    let inputs: Vec<Edge> = base.into_iter().collect();
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    Edge { vertex: graph.add(&inputs, op, None, VertexMeta::default()), index: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_grew_is_solved_on_top_of_the_first() {
    let fixture = Fixture::new();
    let build = fixture.start("one", &Arc::new(Client::default()));
    let mut graph = GraphBuilder::new();
    let first = mkfile(&mut graph, None, "/a", "1");
    let reference = build.solve(graph.finish(Some(first)), true).await.unwrap().unwrap();
    assert_eq!(build.read_file(Some(&reference), "/a", None).await.unwrap(), b"1");
    let second = mkfile(&mut graph, Some(first), "/b", "2");
    let reference = build.solve(graph.finish(Some(second)), false).await.unwrap().unwrap();
    assert_eq!(build.read_file(Some(&reference), "/b", None).await.unwrap(), b"2");
    assert_eq!(build.read_file(Some(&reference), "/a", None).await.unwrap(), b"1");
    assert!(build.solve(pb::Definition::default(), true).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_definitions_are_errors() {
    use prost::Message as _;
    let fixture = Fixture::new();
    let build = fixture.start("one", &Arc::new(Client::default()));
    let terminal = |digest: &str, index: i64| {
        let inputs = vec![pb::Input { digest: digest.to_owned(), index }];
        pb::Op { inputs, ..Default::default() }.encode_to_vec()
    };
    let mut graph = GraphBuilder::new();
    let edge = mkfile(&mut graph, None, "/a", "1");
    let good = graph.finish(Some(edge));
    let name = edge.vertex.to_string();
    let mut missing = good.clone();
    missing.def.remove(0);
    let mut no_output = good.clone();
    *no_output.def.last_mut().unwrap() = terminal(&name, 7);
    let mut no_name = good.clone();
    *no_name.def.last_mut().unwrap() = terminal("nonsense", 0);
    let many = pb::Definition { def: vec![terminal(&name, 0); 1_000_000], ..Default::default() };
    let exec = |exec: pb::ExecOp| {
        let mut graph = GraphBuilder::new();
        let vertex = graph.add(&[], pb::op::Op::Exec(exec), None, VertexMeta::default());
        graph.finish(Some(Edge { vertex, index: 0 }))
    };
    let no_root = exec(pb::ExecOp { meta: Some(pb::Meta::default()), ..Default::default() });
    let bad_input = exec(pb::ExecOp {
        mounts: vec![pb::Mount { input: 9, dest: "/".to_owned(), output: 0, ..Default::default() }],
        ..Default::default()
    });
    let bad_mode = exec(pb::ExecOp {
        mounts: vec![pb::Mount { input: -1, dest: "/".to_owned(), output: 0, ..Default::default() }],
        security: 7,
        ..Default::default()
    });
    let mut graph = GraphBuilder::new();
    let source = pb::SourceOp { identifier: "moon://x".to_owned(), ..Default::default() };
    let vertex = graph.add(&[], pb::op::Op::Source(source), None, VertexMeta::default());
    let no_source = graph.finish(Some(Edge { vertex, index: 0 }));
    let cases = [
        ("a missing operation", missing),
        ("an output that is not there", no_output),
        ("no digest", no_name),
        ("too many operations", many),
        ("a step without a root", no_root),
        ("an input that is not there", bad_input),
        ("an unknown security mode", bad_mode),
        ("an unknown source", no_source),
    ];
    for (what, definition) in cases {
        let error = build.solve(definition, true).await.err();
        assert!(error.is_some(), "{what} is no error");
    }
    // Others are not disturbed, and paths stay inside.
    let mut graph = GraphBuilder::new();
    let edge = mkfile(&mut graph, None, "/../../../x", "inside");
    let reference = build.solve(graph.finish(Some(edge)), true).await.unwrap().unwrap();
    assert_eq!(build.read_file(Some(&reference), "/x", None).await.unwrap(), b"inside");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_copied_and_what_is_missing_is_named() {
    let fixture = Fixture::new();
    let build = fixture.start("one", &Arc::new(Client::default()));
    let copy = |base: Option<Edge>, graph: &mut GraphBuilder, src: &str| {
        let copy = pb::FileActionCopy {
            src: src.to_owned(),
            dest: "/to".to_owned(),
            dir_copy_contents: true,
            mode: -1,
            timestamp: -1,
            ..Default::default()
        };
        let from = if base.is_some() { 0 } else { -1 };
        let action = Some(pb::file_action::Action::Copy(copy));
        let action = pb::FileAction { input: from, secondary_input: from, output: 0, action };
        let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        let inputs: Vec<Edge> = base.into_iter().collect();
        Edge { vertex: graph.add(&inputs, op, None, VertexMeta::default()), index: 0 }
    };
    let mut graph = GraphBuilder::new();
    let edge = copy(None, &mut graph, "/");
    let copied = build.solve(graph.finish(Some(edge)), true).await.unwrap().unwrap();
    assert!(build.read_dir(Some(&copied), "/to", None).await.unwrap().is_empty());
    let base = mkfile(&mut graph, None, "/a", "1");
    for base in [None, Some(base)] {
        let edge = copy(base, &mut graph, "/b");
        let error = build.solve(graph.finish(Some(edge)), true).await.unwrap_err();
        assert_eq!(error.message, "lstat /b: no such file or directory");
    }
}
