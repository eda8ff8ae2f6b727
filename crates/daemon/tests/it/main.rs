//! The daemon at a socket, driven by the client of the same interface.
//!
//! Only what is advertised is proved by programs in a sandbox; the rest of them is tested with the whole program.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod capabilities;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use slipway_daemon::client::{Client, Endpoint, Offer, OutputPlace, Patience, SolveSpec};
use slipway_daemon::{Address, DaemonOptions, InProcess};
use slipway_engine::config::Config;
use slipway_engine::registry::{
    Client as Registries, ClientOptions, Credential, CredentialError, Credentials,
};
use slipway_engine::{Engine, EngineOptions, ExportOptions, runtime};
use slipway_model::Secret;
use slipway_model::llb::pb;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta};
use slipway_model::progress::{Event, EventSink, NoEvents};
use slipway_model::solve::{
    ArchiveOutput, CacheOptions, CacheSpec, Call, ContextSource, Destination, DockerfileRequest,
    DockerfileSource, Entitlement, FilesOutput, Frontend, ImageOptions, ImageOutput, LayoutSelector,
    NamedContext, NamedContextSource, OutputSpec, PlatformCheck, SolveRequest, StepOptions,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Becomes the sandbox of steps when started as one: `main` is the test harness's.
#[used]
// SAFETY: the section holds addresses of functions with C calling convention that the C library runs at
// start-up, after the standard library has stored the arguments.
#[unsafe(link_section = ".init_array")]
static DISPATCH: extern "C" fn() = {
    extern "C" fn run() {
        runtime::dispatch();
    }
    run
};

/// A daemon with a state of its own.
struct Daemon {
    directory: tempfile::TempDir,
    client: Client,
    stop: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        Self::with(Config::default(), BTreeSet::new()).await
    }

    /// Starts a daemon whose builds may be given `entitlements`.
    async fn with(mut config: Config, entitlements: BTreeSet<Entitlement>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let root = Some(directory.path().join("state"));
        config.gc.off = true;
        let engine = Engine::open(EngineOptions { root, config, ..EngineOptions::default() }).unwrap();
        let options = DaemonOptions {
            addresses: vec![Address::Unix(socket.clone())],
            entitlements,
            ..DaemonOptions::default()
        };
        let stop = CancellationToken::new();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let serve = slipway_daemon::serve(engine, options, stop.clone(), move |_| ready.send(()).unwrap());
        #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
        let task = AbortOnDropHandle::new(tokio::spawn(async move { serve.await.unwrap() }));
        is_ready.await.unwrap();
        let client = Client::connect(&Endpoint::Unix(socket), None, Patience::default()).await.unwrap();
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

/// The names of the steps, each once, and whether they came from the cache.
#[derive(Default)]
struct Seen(parking_lot::Mutex<BTreeMap<String, bool>>);

impl EventSink for Seen {
    fn emit(&self, event: Event) {
        if let Event::Vertex(vertex) = event {
            *self.0.lock().entry(vertex.name).or_insert(false) |= vertex.cached;
        }
    }
}

fn quiet() -> Arc<dyn EventSink> {
    Arc::new(NoEvents)
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

fn out(daemon: &Daemon) -> OutputPlace {
    OutputPlace::Directory { path: daemon.path("out"), delete: false }
}

fn local() -> Vec<(String, BTreeMap<String, String>)> {
    vec![("local".to_owned(), BTreeMap::new())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_built_and_its_files_come_back() {
    let daemon = Daemon::start().await;
    let workers = daemon.client.workers().await.unwrap();
    assert_eq!((workers.len(), workers[0].platforms.is_empty()), (1, false));
    let offer = Arc::new(Offer { outputs: BTreeMap::from([(0, out(&daemon))]), ..Offer::default() });
    let spec = SolveSpec { definition: Some(one_file("text")), exporters: local(), ..SolveSpec::default() };
    daemon.client.solve(spec.clone(), offer.clone(), quiet()).await.unwrap();
    assert_eq!(std::fs::read(daemon.path("out/made")).unwrap(), b"text");
    let seen = Arc::new(Seen::default());
    daemon.client.solve(spec, offer, seen.clone()).await.unwrap();
    let steps = seen.0.lock().clone();
    assert!(steps.values().any(|cached| *cached), "{steps:?}");
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
        outputs: BTreeMap::from([(0, out(&daemon))]),
        shared_key: "key".to_owned(),
        ..Offer::default()
    });
    let spec = SolveSpec { frontend: "dockerfile.v0".to_owned(), exporters: local(), ..SolveSpec::default() };
    daemon.client.solve(spec.clone(), offer.clone(), quiet()).await.unwrap();
    assert_eq!(std::fs::read(daemon.path("out/dir/file")).unwrap(), b"first");
    assert!(!daemon.path("out/secret").exists());
    daemon.write("context/dir/file", "second");
    daemon.client.solve(spec.clone(), offer, quiet()).await.unwrap();
    assert_eq!(std::fs::read(daemon.path("out/dir/file")).unwrap(), b"second");

    let nothing = daemon.client.solve(spec, Arc::new(Offer::default()), quiet()).await.unwrap_err();
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
    let error = daemon.client.solve(spec, offer.clone(), quiet()).await.unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    let span = error.diagnostic().span.unwrap();
    let start = span.ranges.first().and_then(|range| range.start.as_ref());
    assert_eq!((span.source.filename.as_str(), start.map(|at| at.line)), ("Dockerfile", Some(2)));
    let foreign = error.diagnostic().foreign.unwrap();
    let stack = foreign.details.iter().find(|detail| detail.type_url.ends_with("/stack.Stack+json")).unwrap();
    let stack: serde_json::Value = serde_json::from_slice(&stack.value).unwrap();
    let frames = stack["frames"].as_array().unwrap();
    assert!(!frames.is_empty() && stack["pid"] == std::process::id(), "{stack}");
    for frame in frames {
        let (name, file) = (frame["Name"].as_str().unwrap(), frame["File"].as_str().unwrap());
        assert!(name.starts_with("slipway_") && file.starts_with("crates/"), "{frame}");
        assert!(frame["Line"].as_u64().is_some_and(|line| line > 0), "{frame}");
    }
    let cut = pb::Definition { def: vec![vec![0xff; 9]], ..pb::Definition::default() };
    let spec = SolveSpec { definition: Some(cut), ..SolveSpec::default() };
    let error = daemon.client.solve(spec, offer.clone(), quiet()).await.unwrap_err();
    assert!(error.to_string().contains("invalid LLB"), "{error}");
    let spec = SolveSpec {
        definition: Some(one_file("x")),
        entitlements: vec!["security.insecure".to_owned()],
        ..SolveSpec::default()
    };
    let error = daemon.client.solve(spec, offer, quiet()).await.unwrap_err();
    assert!(error.to_string().contains("not allowed"), "{error}");
}

/// A request of somebody at another machine, whose own engine is `client`.
fn request(dockerfile: DockerfileRequest, outputs: Vec<OutputSpec>) -> SolveRequest {
    SolveRequest {
        id: String::new(),
        frontend: Frontend::Dockerfile(Box::new(dockerfile)),
        platforms: Vec::new(),
        outputs,
        cache: CacheOptions::default(),
        steps: StepOptions::default(),
        attestations: Default::default(),
        entitlements: Default::default(),
        platform_check: PlatformCheck::Off,
        source_date_epoch: None,
        source_policy: None,
    }
}

impl Daemon {
    async fn build(&self, request: &SolveRequest) -> Result<slipway_daemon::client::Built, String> {
        let root = Some(self.path("client-state"));
        let engine = Engine::open(EngineOptions { root, ..EngineOptions::default() }).unwrap();
        let built = self.client.build(&engine, request, None, quiet(), CancellationToken::new(), None).await;
        built.map_err(|error| error.to_string())
    }

    fn local(&self) -> OutputSpec {
        OutputSpec::Local(FilesOutput {
            destination: Destination::Path(self.path("out")),
            platform_split: None,
            delete: true,
            attestation_prefix: String::new(),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_request_is_built_elsewhere_and_comes_back() {
    let daemon = Daemon::start().await;
    daemon.write("context/file", "in the context");
    daemon.write("other/file", "in another");
    let archive = ArchiveOutput {
        names: vec!["r.example/app:1".parse().unwrap()],
        destination: Destination::Path(daemon.path("layout")),
        tar: false,
        image: ImageOptions::default(),
    };
    let dockerfile = DockerfileRequest {
        context: ContextSource::Directory(daemon.path("context")),
        dockerfile: DockerfileSource::Inline(
            b"FROM scratch\nCOPY file /one\nCOPY --from=more file /two\n".to_vec(),
        ),
        named_contexts: vec![NamedContext {
            name: "more".to_owned(),
            platform: None,
            source: NamedContextSource::Directory(daemon.path("other")),
        }],
        ..DockerfileRequest::default()
    };
    let cache = CacheSpec {
        kind: "local".to_owned(),
        attributes: [("dest".to_owned(), daemon.path("cache").display().to_string())].into(),
    };
    let mut first = request(dockerfile, vec![daemon.local(), OutputSpec::Oci(archive)]);
    first.cache.exports.push(cache);
    daemon.write("out/stale", "goes away");
    let built = daemon.build(&first).await.unwrap();
    assert_eq!(built.response["image.name"], "r.example/app:1");
    let read = |name: &str| std::fs::read_to_string(daemon.path(name)).unwrap();
    assert_eq!((read("out/one").as_str(), read("out/two").as_str()), ("in the context", "in another"));
    assert!(!daemon.path("out/stale").exists());
    assert!(read("layout/index.json").contains("r.example/app:1"), "{}", read("layout/index.json"));
    assert!(read("cache/index.json").contains("\"latest\""), "{}", read("cache/index.json"));

    // The image in the layout is the base of another.
    let dockerfile = DockerfileRequest {
        dockerfile: DockerfileSource::Inline(b"FROM base\n".to_vec()),
        named_contexts: vec![NamedContext {
            name: "base".to_owned(),
            platform: None,
            source: NamedContextSource::OciLayout {
                path: daemon.path("layout"),
                selector: LayoutSelector::Tag("1".to_owned()),
            },
        }],
        ..DockerfileRequest::default()
    };
    daemon.build(&request(dockerfile, vec![daemon.local()])).await.unwrap();
    assert_eq!(read("out/two"), "in another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_the_same_process_needs_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("state");
    let engine =
        Engine::open(EngineOptions { root: Some(root.clone()), ..EngineOptions::default() }).unwrap();
    let export = ExportOptions { keep: true, ..ExportOptions::default() };
    let daemon = InProcess::start(engine.clone(), Default::default(), export).await.unwrap();
    std::fs::create_dir(directory.path().join("context")).unwrap();
    std::fs::write(directory.path().join("context/file"), "text").unwrap();
    let dockerfile = DockerfileRequest {
        context: ContextSource::Directory(directory.path().join("context")),
        dockerfile: DockerfileSource::Inline(b"FROM scratch\nCOPY file /\n".to_vec()),
        ..DockerfileRequest::default()
    };
    let image = ImageOutput { names: vec!["r.example/app:1".parse().unwrap()], ..ImageOutput::default() };
    let request =
        SolveRequest { id: "one".to_owned(), ..request(dockerfile, vec![OutputSpec::Image(image)]) };
    daemon.build(&engine, &request, None, quiet(), CancellationToken::new(), None).await.unwrap();
    let images = engine.images().unwrap();
    assert_eq!(images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), ["r.example/app:1"]);
    let records = std::fs::read_dir(root.join("daemon-history")).unwrap();
    let records = records.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file());
    assert_eq!(records.count(), 0, "who asks keeps records of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_is_asked_without_building() {
    let daemon = Daemon::start().await;
    let dockerfile = |text: &str, call| DockerfileRequest {
        dockerfile: DockerfileSource::Inline(text.as_bytes().to_vec()),
        call,
        ..DockerfileRequest::default()
    };
    let targets =
        request(dockerfile("FROM scratch AS one\nFROM scratch AS two\n", Call::Targets), Vec::new());
    let answer = daemon.build(&targets).await.unwrap().call.unwrap();
    assert!(!answer.failed && answer.json.contains("\"one\""), "{}", answer.json);
    let check = request(dockerfile("FROM scratch\nFRO x\n", Call::Outline), Vec::new());
    let error = daemon.build(&check).await.unwrap_err();
    assert!(error.contains("FRO"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_tells_what_it_keeps_and_removes_it() {
    let daemon = Daemon::start().await;
    let spec = SolveSpec { definition: Some(one_file("kept")), ..SolveSpec::default() };
    daemon
        .client
        .solve(
            SolveSpec { exporters: local(), ..spec },
            Arc::new(Offer { outputs: BTreeMap::from([(0, out(&daemon))]), ..Offer::default() }),
            quiet(),
        )
        .await
        .unwrap();
    assert!(!daemon.client.disk_usage(Vec::new()).await.unwrap().is_empty());
    let all = slipway_daemon::client::GarbageRule { all: true, ..Default::default() };
    assert!(!daemon.client.prune(&all).await.unwrap().is_empty());
    assert!(daemon.client.disk_usage(Vec::new()).await.unwrap().is_empty());
}

/// A registry that has nothing, and gives tokens to who knows the password; what it sees is sent on.
fn registry(seen: std::sync::mpsc::Sender<String>) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let host = address.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let login = head.iter().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
            });
            let login = login.unwrap_or_default();
            let answer = if head[0].contains("/token?") {
                "200 OK\r\ncontent-length: 15\r\n\r\n{\"token\":\"tok\"}".to_owned()
            } else if login == "Bearer tok" {
                "404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()
            } else {
                let realm = format!("www-authenticate: Bearer realm=\"http://{host}/token\"");
                format!("401 Unauthorized\r\n{realm}\r\ncontent-length: 0\r\n\r\n")
            };
            // The test may be over.
            let _ = seen.send(login);
            let _ = write!(stream, "HTTP/1.1 {}", answer.replacen("\r\n", "\r\nconnection: close\r\n", 1));
        }
    });
    address
}

/// One login for every registry.
struct Password(&'static str);

#[async_trait::async_trait]
impl Credentials for Password {
    async fn get(&self, _: &str) -> Result<Credential, CredentialError> {
        let password = Secret::new(self.0.to_owned());
        Ok(Credential::Basic { username: "me".to_owned(), password })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_fetches_tokens_and_keeps_its_password() {
    let daemon = Daemon::start().await;
    let (sender, seen) = std::sync::mpsc::channel();
    let host = registry(sender);
    daemon.write("context/Dockerfile", &format!("FROM {host}/a:1\n"));
    let mine = ClientOptions { credentials: Arc::new(Password("fetches")), ..ClientOptions::default() };
    let offer = Arc::new(Offer {
        directories: ["context", "dockerfile"].map(|n| (n.to_owned(), daemon.path("context"))).into(),
        // What is handed to a daemon that asks for it.
        credentials: Some(Arc::new(Password("handed on"))),
        registries: Some(Registries::new(mine)),
        ..Offer::default()
    });
    let spec = SolveSpec { frontend: "dockerfile.v0".to_owned(), ..SolveSpec::default() };
    let error = daemon.client.solve(spec, offer, quiet()).await.unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
    let logins: std::collections::BTreeSet<String> = seen.try_iter().collect();
    let basic = "Basic bWU6ZmV0Y2hlcw==";
    assert_eq!(logins.iter().map(String::as_str).collect::<Vec<_>>(), ["", basic, "Bearer tok"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_the_client_is_read_when_it_is_needed() {
    let (first, second) = (Daemon::start().await, Daemon::start().await);
    first.write("context/file", "text");
    let build = async |daemon: &Daemon, outputs: Vec<OutputSpec>, cache: (&str, &str)| {
        let dockerfile = DockerfileRequest {
            context: ContextSource::Directory(first.path("context")),
            dockerfile: DockerfileSource::Inline(b"FROM scratch\nCOPY file /one\n".to_vec()),
            ..DockerfileRequest::default()
        };
        let mut request = request(dockerfile, outputs);
        let attributes = [(cache.1, first.path("cache").display().to_string()), ("mode", "max".to_owned())];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value)).into();
        let spec = CacheSpec { kind: "local".to_owned(), attributes };
        match cache.0 {
            "to" => request.cache.exports.push(spec),
            _ => request.cache.imports.push(spec),
        }
        let root = Some(daemon.path("client-state"));
        let engine = Engine::open(EngineOptions { root, ..EngineOptions::default() }).unwrap();
        let seen = Arc::new(Seen::default());
        let built =
            daemon.client.build(&engine, &request, None, seen.clone(), CancellationToken::new(), None).await;
        built.map_err(|error| error.to_string()).unwrap();
        let steps = seen.0.lock().clone();
        steps.iter().any(|(name, cached)| name.contains("COPY") && *cached)
    };
    assert!(!build(&first, vec![first.local()], ("to", "dest")).await);
    // What is in a layer does not matter to who only has to know that it is there.
    let mut spoilt = 0;
    for blob in std::fs::read_dir(first.path("cache/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes[12..].fill(0);
            std::fs::write(path, bytes).unwrap();
            spoilt += 1;
        }
    }
    assert_eq!(spoilt, 1);
    assert!(build(&second, Vec::new(), ("from", "src")).await);
    // Who needs it makes it anew.
    build(&second, vec![second.local()], ("from", "src")).await;
    assert_eq!(std::fs::read(second.path("out/one")).unwrap(), b"text");
}
