//! Steps and containers over a busybox, as definitions and clients ask for them.
//!
//! They need the programs that `SLIPWAY_TEST_CACHE` holds and the right to make namespaces.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use slipway_engine::runtime::Stdio;
use slipway_engine::{
    Build, BuildResult, ContainerMount, ContainerRequest, ExportOptions, ExporterRequest, FailedPart,
    ProcessRequest, Ref, Refs,
};
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};
use slipway_model::solve::{CacheOptions, CacheSpec};

use crate::client::{Client, Fixture};
use crate::definitions::mkfile;

/// Finds the busybox of this machine's architecture; says so if there is none.
fn busybox() -> Option<PathBuf> {
    let cache = PathBuf::from(std::env::var_os("SLIPWAY_TEST_CACHE")?);
    let architecture = slipway_model::Platform::host().architecture;
    let path = cache.join("busybox").join(architecture).join("busybox");
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: there is no {}", path.display());
    None
}

/// A client whose context is a busybox.
pub(crate) fn client(fixture: &Fixture) -> Option<Arc<Client>> {
    let busybox = busybox()?;
    let context = fixture.directory("tools", &[]);
    std::fs::copy(busybox, context.join("sh")).unwrap();
    Some(Arc::new(Client { directories: [("tools".to_owned(), context)].into(), ..Client::default() }))
}

/// Adds a root file system with a shell.
pub(crate) fn root(graph: &mut GraphBuilder) -> Edge {
    let source = pb::SourceOp { identifier: "local://tools".to_owned(), ..Default::default() };
    let source = graph.add(&[], pb::op::Op::Source(source), None, VertexMeta::default());
    let copy = pb::FileActionCopy {
        src: "/sh".to_owned(),
        dest: "/bin/".to_owned(),
        create_dest_path: true,
        mode: -1,
        timestamp: -1,
        ..Default::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: 0,
        output: 0,
        action: Some(pb::file_action::Action::Copy(copy)),
    };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let inputs = [Edge { vertex: source, index: 0 }];
    Edge { vertex: graph.add(&inputs, op, None, VertexMeta::default()), index: 0 }
}

fn exec(
    graph: &mut GraphBuilder,
    inputs: &[Edge],
    script: &str,
    mounts: Vec<pb::Mount>,
    codes: &[i32],
) -> Edge {
    let meta = pb::Meta { valid_exit_codes: codes.to_vec(), ..meta(script) };
    let exec = pb::ExecOp { meta: Some(meta), mounts, ..Default::default() };
    Edge { vertex: graph.add(inputs, pb::op::Op::Exec(exec), None, VertexMeta::default()), index: 0 }
}

fn meta(script: &str) -> pb::Meta {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).into();
    pb::Meta { args, cwd: "/".to_owned(), ..Default::default() }
}

fn mount(input: i64, dest: &str, output: i64) -> pb::Mount {
    pb::Mount { input, dest: dest.to_owned(), output, ..Default::default() }
}

async fn solve(build: &Build, graph: &GraphBuilder, edge: Edge) -> Result<Ref, slipway_model::Diagnostic> {
    build.solve(graph.finish(Some(edge)), true).await.map(Option::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_has_several_outputs_and_exit_codes_that_are_right() {
    let fixture = Fixture::new();
    let Some(client) = client(&fixture) else { return };
    let build = fixture.start("one", &client);
    let mut graph = GraphBuilder::new();
    let base = root(&mut graph);
    let given = mkfile(&mut graph, None, "/given", "text");
    let tmpfs = pb::Mount { mount_type: pb::MountType::Tmpfs as i32, ..mount(-1, "/tmp", -1) };
    let read_only = pb::Mount { readonly: true, ..mount(1, "/in", -1) };
    let mounts = vec![mount(0, "/", 0), mount(-1, "/out", 1), read_only, tmpfs];
    let script = "read line < /in/given; echo $line > /out/made; echo x > /tmp/x; ! echo y > /in/y; exit 7";
    let step = exec(&mut graph, &[base, given], script, mounts, &[7]);
    let out = solve(&build, &graph, Edge { index: 1, ..step }).await.unwrap();
    assert_eq!(build.read_file(Some(&out), "/made", None).await.unwrap(), b"text\n");
    let rest = solve(&build, &graph, step).await.unwrap();
    assert!(build.read_file(Some(&rest), "/tmp/x", None).await.is_err(), "a tmpfs is no part of the result");

    let failing = exec(&mut graph, &[base], "echo why; exit 3", vec![mount(0, "/", 0)], &[]);
    let error = solve(&build, &graph, failing).await.unwrap_err();
    assert_eq!((error.exit_code, error.vertex), (Some(3), Some(failing.vertex)));
    assert_eq!(error.log_tail, ["why"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_serves_with_the_output_of_a_mount_alone() {
    let cache = tempfile::tempdir().unwrap();
    let at = |key: &str| CacheSpec {
        kind: "local".to_owned(),
        attributes: [(key.to_owned(), cache.path().display().to_string())].into(),
    };
    // Each run gives another line, and its root is part of nothing that is exported.
    let made = async |cached: CacheOptions| {
        let fixture = Fixture::new();
        let client = client(&fixture)?;
        let build = fixture.start("one", &client);
        build.use_cache(&cached, false).unwrap();
        let mut graph = GraphBuilder::new();
        let base = root(&mut graph);
        let mounts = vec![mount(0, "/", 0), mount(-1, "/out", 1)];
        let script = "read line < /proc/sys/kernel/random/uuid; echo $line > /out/made; echo $line > /made";
        let step = exec(&mut graph, &[base], script, mounts, &[]);
        let out = solve(&build, &graph, Edge { index: 1, ..step }).await.unwrap();
        let result = BuildResult::new(Refs::Single(Some(out.clone())), Default::default());
        build.export(&result, &[], &ExportOptions::default()).await.unwrap();
        let out = build.read_file(Some(&out), "/made", None).await.unwrap();
        let rest = solve(&build, &graph, step).await.unwrap();
        Some((out, build.read_file(Some(&rest), "/made", None).await.unwrap()))
    };
    let to = CacheOptions { imports: Vec::new(), exports: vec![at("dest")] };
    let Some((first, _)) = made(to).await else { return };
    let from = CacheOptions { imports: vec![at("src")], exports: Vec::new() };
    let Some((second, rest)) = made(from).await else { return };
    assert_eq!(second, first);
    // What the cache has not is made, when it is asked for.
    assert_ne!(rest, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_starts_over_when_its_cache_has_lost_a_layer() {
    let cache = tempfile::tempdir().unwrap();
    let at = |key: &str, mode: &str| CacheSpec {
        kind: "local".to_owned(),
        attributes: [(key, cache.path().to_str().unwrap()), ("mode", mode)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let made = async |cached: CacheOptions| {
        let fixture = Fixture::new();
        let client = client(&fixture)?;
        let build = fixture.start("one", &client);
        build.use_cache(&cached, false).unwrap();
        let mut graph = GraphBuilder::new();
        let base = root(&mut graph);
        let script = "read line < /proc/sys/kernel/random/uuid; echo $line > /made";
        let step = exec(&mut graph, &[base], script, vec![mount(0, "/", 0)], &[]);
        let edge = mkfile(&mut graph, Some(step), "/added", "1");
        let made = solve(&build, &graph, edge).await.unwrap();
        let text = build.read_file(Some(&made), "/made", None).await.unwrap();
        // What was asked for before is of the second attempt too.
        assert_eq!(build.read_file(Some(&made), "/added", None).await.unwrap(), b"1");
        let result = BuildResult::new(Refs::Single(Some(made)), Default::default());
        let local = ExporterRequest { kind: "local".to_owned(), id: "0".to_owned(), ..Default::default() };
        let exported = build.export(&result, &[local], &ExportOptions::default()).await;
        Some((text, exported.is_ok(), client.received.lock().get("/made").cloned()))
    };
    let to = CacheOptions { imports: Vec::new(), exports: vec![at("dest", "max")] };
    let Some((first, exported, _)) = made(to).await else { return };
    assert!(exported);
    for blob in std::fs::read_dir(cache.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes[12..].fill(0);
            std::fs::write(path, bytes).unwrap();
        }
    }
    let from = CacheOptions { imports: vec![at("src", "max")], exports: Vec::new() };
    let (second, exported, received) = made(from).await.unwrap();
    assert_ne!(second, first, "the step has run again");
    assert!(exported);
    assert_eq!(received, Some(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_mounts_of_a_step_are_shared_and_start_anew_without_the_cache() {
    let fixture = Fixture::new();
    let Some(client) = client(&fixture) else { return };
    let cache = |dest: &str| pb::Mount {
        mount_type: pb::MountType::Cache as i32,
        cache_opt: Some(pb::CacheOpt { id: "kept".to_owned(), sharing: pb::CacheSharing::Locked as i32 }),
        ..mount(-1, dest, -1)
    };
    let run = async |id: &str, script: &str, ignore_cache: bool| {
        let build = fixture.start(id, &client);
        let mut graph = GraphBuilder::new();
        let base = root(&mut graph);
        let last = script.split('\n').fold(base, |base, script| {
            let mounts = vec![mount(0, "/", 0), cache("/a"), cache("/b")];
            let exec = pb::ExecOp { meta: Some(meta(script)), mounts, ..Default::default() };
            let described = VertexMeta { ignore_cache, ..VertexMeta::default() };
            Edge { vertex: graph.add(&[base], pb::op::Op::Exec(exec), None, described), index: 0 }
        });
        solve(&build, &graph, last).await.map(drop)
    };
    run("one", "echo > /a/one; test -f /b/one", false).await.unwrap();
    run("two", "test -f /a/one; echo > /a/two", false).await.unwrap();
    // What is emptied is what was there before the build; its steps still share what they put there.
    run("three", "! test -f /a/one && echo > /a/three\ntest -f /a/three && ! test -f /a/one", true)
        .await
        .unwrap();
    run("four", "test -f /b/three", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_mount_is_below_the_working_directory() {
    let fixture = Fixture::new();
    let Some(client) = client(&fixture) else { return };
    let build = fixture.start("one", &client);
    let mut graph = GraphBuilder::new();
    let base = root(&mut graph);
    let meta = pb::Meta { cwd: "/work".to_owned(), ..meta("echo x > /work/out/made") };
    let exec = pb::ExecOp {
        meta: Some(meta),
        mounts: vec![mount(0, "/", 0), mount(-1, "out", 1)],
        ..Default::default()
    };
    let vertex = graph.add(&[base], pb::op::Op::Exec(exec), None, VertexMeta::default());
    let out = solve(&build, &graph, Edge { vertex, index: 1 }).await.unwrap();
    assert_eq!(build.read_file(Some(&out), "/made", None).await.unwrap(), b"x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_build_runs_the_definition_it_finds() {
    use prost::Message as _;
    let fixture = Fixture::new();
    let build = fixture.start("one", &Arc::new(Client::default()));
    let mut inner = GraphBuilder::new();
    let edge = mkfile(&mut inner, None, "/inner", "found");
    let bytes = inner.finish(Some(edge)).encode_to_vec();
    let mut graph = GraphBuilder::new();
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
            path: "/buildkit.llb.definition".to_owned(),
            mode: 0o644,
            data: bytes,
            timestamp: -1,
            ..Default::default()
        })),
    };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let file = Edge { vertex: graph.add(&[], op, None, VertexMeta::default()), index: 0 };
    let nested = pb::BuildOp {
        builder: -1,
        inputs: [("buildkit.llb.definition".to_owned(), pb::BuildInput { input: 0 })].into(),
        ..Default::default()
    };
    let vertex = graph.add(&[file], pb::op::Op::Build(nested), None, VertexMeta::default());
    let made = solve(&build, &graph, Edge { vertex, index: 0 }).await.unwrap();
    assert_eq!(build.read_file(Some(&made), "/inner", None).await.unwrap(), b"found");
}

fn pipe() -> (std::fs::File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write)
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_a_container_share_its_files_and_its_namespaces() {
    let fixture = Fixture::new();
    let Some(client) = client(&fixture) else { return };
    let build = fixture.start("one", &client);
    let mut graph = GraphBuilder::new();
    let base = root(&mut graph);
    let reference = solve(&build, &graph, base).await.unwrap();
    let mounts = vec![ContainerMount {
        mount: mount(-1, "/", -1),
        reference: Some(reference.clone()),
        ..Default::default()
    }];
    let container = build.container(ContainerRequest { mounts, ..Default::default() }).await.unwrap();
    let start = async |script: &str| {
        let (out, stdout) = pipe();
        let (stdin, input) = pipe();
        let request = ProcessRequest {
            meta: pb::Meta {
                args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
                ..Default::default()
            },
            security: 0,
            secret_env: Vec::new(),
            stdio: Stdio::Streams { stdin: stdin.into(), stderr: stdout.try_clone().unwrap(), stdout },
        };
        (container.start(request).await.unwrap(), std::fs::File::from(input), out)
    };
    let (first, mut input, mut out) =
        start("read line; echo $line > /shared; echo done; read end; exit 3").await;
    input.write_all(b"said\n").unwrap();
    out.read_exact(&mut [0; 5]).unwrap();
    let (second, _input, mut out) =
        start("read line < /shared; echo $line; read name < /proc/1/comm; echo $name $$; exit 4").await;
    assert_eq!(second.wait().await.unwrap(), 4);
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said\nsh 2\n");
    // What they wrote is not in the reference.
    assert!(build.read_file(Some(&reference), "/shared", None).await.is_err());
    // What they wrote is in the container.
    assert_eq!(container.read_file(0, "/shared", None).await.unwrap(), b"said\n");
    assert!(container.read_file(1, "/shared", None).await.is_err());
    // A process that would run for ever ends with the first, and none is started after it.
    let (third, _input, mut out) = start("echo on; while :; do :; done").await;
    out.read_exact(&mut [0; 3]).unwrap();
    drop(input);
    assert_eq!(first.wait().await.unwrap(), 3);
    assert_eq!(third.wait().await.unwrap(), 137);
    let request = ProcessRequest {
        meta: pb::Meta { args: vec!["/bin/sh".to_owned()], ..Default::default() },
        security: 0,
        secret_env: Vec::new(),
        stdio: Stdio::Streams { stdin: pipe().0.into(), stdout: pipe().1, stderr: pipe().1 },
    };
    assert!(container.start(request).await.is_err());
    assert!(container.release().is_ok());
}

/// Runs a script in a container and returns what it printed.
async fn run_in(build: &Build, mounts: Vec<ContainerMount>, script: &str) -> String {
    let container = build.container(ContainerRequest { mounts, ..Default::default() }).await.unwrap();
    let (mut out, stdout) = pipe();
    let request = ProcessRequest {
        meta: pb::Meta { args: ["/bin/sh", "-c", script].map(str::to_owned).into(), ..Default::default() },
        security: 0,
        secret_env: Vec::new(),
        stdio: Stdio::Streams { stdin: pipe().0.into(), stderr: stdout.try_clone().unwrap(), stdout },
    };
    container.start(request).await.unwrap().wait().await.unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_step_had_and_wrote_can_be_looked_at() {
    let fixture = Fixture::new();
    let Some(client) = client(&fixture) else { return };
    let build = fixture.start("one", &client);
    let mut graph = GraphBuilder::new();
    let base = root(&mut graph);
    let mounts = vec![mount(0, "/", 0), mount(-1, "/out", -1), mount(-1, "beside", 1)];
    let script = "echo root > /made; echo out > /out/made; echo beside > /beside/made; exit 3";
    let failing = exec(&mut graph, &[base], script, mounts, &[]);
    let error = solve(&build, &graph, failing).await.unwrap_err();
    assert!(build.failed_step(&error.vertex.unwrap()).is_none(), "nobody asked for it");
    build.keep_failed_steps();
    let error = solve(&build, &graph, failing).await.unwrap_err();
    let step = build.failed_step(&error.vertex.unwrap()).unwrap();
    assert_eq!((step.part, step.inputs.len()), (FailedPart::Process, 3));
    assert!(step.inputs[0].is_some() && step.inputs[1].is_none());
    let at = |dest: &str, reference: &Option<Ref>| ContainerMount {
        mount: mount(-1, dest, -1),
        reference: reference.clone(),
        ..Default::default()
    };
    let mounts = vec![at("/", &step.mounts[0]), at("/out", &step.mounts[1]), at("/beside", &step.mounts[2])];
    let script = "read a < /made; read b < /out/made; read c < /beside/made; echo $a $b $c";
    assert_eq!(run_in(&build, mounts, script).await, "root out beside\n");

    // The second of three actions fails: what the first made is there.
    let first = mkfile(&mut graph, None, "/there", "text");
    let action = |position: i64, path: &str| pb::FileAction {
        input: position,
        secondary_input: -1,
        output: if position == 2 { 0 } else { -1 },
        action: Some(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
            path: path.to_owned(),
            mode: 0o644,
            timestamp: -1,
            ..Default::default()
        })),
    };
    let actions = vec![action(0, "/a"), action(1, "/no/b"), action(2, "/c")];
    let op = pb::op::Op::File(pb::FileOp { actions });
    let vertex = graph.add(&[first], op, None, VertexMeta::default());
    let error = solve(&build, &graph, Edge { vertex, index: 0 }).await.unwrap_err();
    let step = build.failed_step(&error.vertex.unwrap()).unwrap();
    assert_eq!((step.part, step.mounts.len()), (FailedPart::FileAction(1), 3));
    let left = step.mounts[1].as_ref();
    assert!(build.stat_file(left, "/there").await.is_ok() && build.stat_file(left, "/a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vertex_may_keep_its_result_out_of_caches() {
    let layers = async |export_cache: Option<pb::ExportCache>| {
        let cache = tempfile::tempdir().unwrap();
        let attributes = [("dest", cache.path().to_str().unwrap()), ("mode", "max")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let to = CacheSpec { kind: "local".to_owned(), attributes };
        let fixture = Fixture::new();
        let build = fixture.start("one", &Arc::new(Client::default()));
        build.use_cache(&CacheOptions { imports: Vec::new(), exports: vec![to] }, false).unwrap();
        let mut graph = GraphBuilder::new();
        let lower = mkfile(&mut graph, None, "/lower", "1");
        let upper = mkfile(&mut graph, Some(lower), "/upper", "2");
        let mut definition = graph.finish(Some(upper));
        let metadata = pb::OpMetadata { export_cache, ..Default::default() };
        definition.metadata.insert(upper.vertex.to_string(), metadata);
        let made = build.solve(definition, true).await.unwrap();
        let result = BuildResult::new(Refs::Single(made), Default::default());
        build.export(&result, &[], &ExportOptions::default()).await.unwrap();
        let blobs = std::fs::read_dir(cache.path().join("blobs/sha256")).unwrap();
        let blobs = blobs.map(|blob| std::fs::read(blob.unwrap().path()).unwrap());
        blobs.filter(|blob| blob.starts_with(&[0x1f, 0x8b])).count()
    };
    assert_eq!(layers(None).await, 2);
    assert_eq!(layers(Some(pb::ExportCache { value: true })).await, 2);
    assert_eq!(layers(Some(pb::ExportCache { value: false })).await, 1);
}
