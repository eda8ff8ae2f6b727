//! The daemon at a socket, driven by the client of the same interface.
//!
//! Nothing here runs a program in a sandbox; that is tested with the whole program.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use slipway_daemon::client::{Client, Offer, OutputPlace, SolveSpec};
use slipway_daemon::{Address, DaemonConfig, DaemonOptions};
use slipway_engine::{Engine, EngineOptions};
use slipway_model::llb::pb;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A daemon with a state of its own.
struct Daemon {
    directory: tempfile::TempDir,
    client: Client,
    stop: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let root = Some(directory.path().join("state"));
        let engine = Engine::open(EngineOptions { root, ..EngineOptions::default() }).unwrap();
        let options = DaemonOptions {
            addresses: vec![Address::Unix(socket.clone())],
            config: DaemonConfig { gc: false, ..DaemonConfig::default() },
            ..DaemonOptions::default()
        };
        let stop = CancellationToken::new();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let serve = slipway_daemon::serve(engine, options, stop.clone(), move |_| ready.send(()).unwrap());
        #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
        let task = AbortOnDropHandle::new(tokio::spawn(async move { serve.await.unwrap() }));
        is_ready.await.unwrap();
        let client = Client::unix(&socket).await.unwrap();
        Self { directory, client, stop, _task: task }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A definition that makes one file.
fn one_file(text: &str) -> pb::Definition {
    let mut graph = GraphBuilder::new();
    let action = pb::file_action::Action::Mkfile(pb::FileActionMkFile {
        path: "/made".into(),
        mode: 0o640,
        data: text.as_bytes().to_vec(),
        timestamp: -1,
        ..Default::default()
    });
    let actions = vec![pb::FileAction { input: -1, secondary_input: -1, output: 0, action: Some(action) }];
    let made = graph.add(&[], pb::op::Op::File(pb::FileOp { actions }), None, VertexMeta::default());
    graph.finish(Some(Edge { vertex: made, index: 0 }))
}

fn local() -> Vec<(String, BTreeMap<String, String>)> {
    vec![("local".to_owned(), BTreeMap::new())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_built_and_its_files_come_back() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.client.workers().await.unwrap().len(), 1);
    let offer = Arc::new(Offer {
        outputs: BTreeMap::from([(0, OutputPlace::Directory(daemon.path("out")))]),
        ..Offer::default()
    });
    let spec = SolveSpec { definition: Some(one_file("text")), exporters: local(), ..SolveSpec::default() };
    daemon.client.solve(spec.clone(), offer.clone()).await.unwrap();
    assert_eq!(std::fs::read(daemon.path("out/made")).unwrap(), b"text");
    let again = daemon.client.solve(spec, offer).await.unwrap();
    assert!(again.steps.values().any(|cached| *cached), "{:?}", again.steps);
    daemon.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_is_built_from_directories_of_the_client() {
    let daemon = Daemon::start().await;
    daemon.write("context/Dockerfile", "FROM scratch\nCOPY . /\n");
    daemon.write("context/.dockerignore", "secret\nDockerfile\n");
    daemon.write("context/secret", "not for the image");
    daemon.write("context/dir/file", "first");
    let offer = Arc::new(Offer {
        directories: ["context", "dockerfile"].map(|n| (n.to_owned(), daemon.path("context"))).into(),
        outputs: BTreeMap::from([(0, OutputPlace::Directory(daemon.path("out")))]),
        shared_key: "key".to_owned(),
        ..Offer::default()
    });
    let spec = SolveSpec { frontend: "dockerfile.v0".to_owned(), exporters: local(), ..SolveSpec::default() };
    daemon.client.solve(spec.clone(), offer.clone()).await.unwrap();
    assert_eq!(std::fs::read(daemon.path("out/dir/file")).unwrap(), b"first");
    assert!(!daemon.path("out/secret").exists());
    daemon.write("context/dir/file", "second");
    daemon.client.solve(spec.clone(), offer).await.unwrap();
    assert_eq!(std::fs::read(daemon.path("out/dir/file")).unwrap(), b"second");

    let nothing = daemon.client.solve(spec, Arc::new(Offer::default())).await.unwrap_err();
    assert!(nothing.to_string().contains("no access allowed"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_with_their_place() {
    let daemon = Daemon::start().await;
    daemon.write("context/Dockerfile", "FROM scratch\nCOPY nothing /\n");
    let offer = Arc::new(Offer {
        directories: ["context", "dockerfile"].map(|n| (n.to_owned(), daemon.path("context"))).into(),
        ..Offer::default()
    });
    let spec = SolveSpec { frontend: "dockerfile.v0".to_owned(), ..SolveSpec::default() };
    let error = daemon.client.solve(spec, offer.clone()).await.unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    let source = "github.com/moby/buildkit/errdefs.Source+json".to_owned();
    assert!(error.details().contains(&source), "{:?}", error.details());
    let cut = pb::Definition { def: vec![vec![0xff; 9]], ..pb::Definition::default() };
    let spec = SolveSpec { definition: Some(cut), ..SolveSpec::default() };
    let error = daemon.client.solve(spec, offer.clone()).await.unwrap_err();
    assert!(error.to_string().contains("invalid LLB"), "{error}");
    let spec = SolveSpec {
        definition: Some(one_file("x")),
        entitlements: vec!["security.insecure".to_owned()],
        ..SolveSpec::default()
    };
    let error = daemon.client.solve(spec, offer).await.unwrap_err();
    assert!(error.to_string().contains("not allowed"), "{error}");
}
