//! What the proofs stand on: one daemon, a server of whatever is put there, what the client offers, and builds whose
//! frontend is the proof itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::pb as wire_pb;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use slipway_daemon::client::{Built, Offer, OutputPlace, SolveSpec};
use slipway_engine::config::Config;
use slipway_engine::session::EmbeddedSession;
use slipway_engine::{Engine, EngineOptions};
use slipway_model::llb::{Edge, pb};
use slipway_model::progress::{Event, EventSink};
use slipway_model::solve::{DockerfileRequest, Entitlement, SecretSource, SecretSpec, SshSpec};
use slipway_testkit::{Environment, FakeRegistry, Layout, Reply, base_context};
use tonic::Status;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use super::graph::Graph;
use crate::{Daemon, request};

/// What the secret `s` is.
pub(super) const SECRET: &str = "hidden";

/// Everything that proofs share.
pub(super) struct Lab {
    here: Place,
    /// Has none of what the first one has made.
    elsewhere: Place,
    pub(super) environment: Environment,
    pub(super) server: FakeRegistry,
    shelf: Shelf,
    session: Arc<EmbeddedSession>,
}

/// A daemon, and a connection to it.
struct Place {
    daemon: Daemon,
    channel: Channel,
}

impl Place {
    async fn of(daemon: Daemon) -> Self {
        let channel = connect(&daemon).await;
        Self { daemon, channel }
    }
}

/// Connects to a daemon.
pub(super) async fn connect(daemon: &Daemon) -> Channel {
    let socket = daemon.path("socket");
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

type Shelf = Arc<Mutex<BTreeMap<String, Reply>>>;

/// Turns a message into another type of the same shape.
pub(super) fn recode<A: Message, B: Message + Default>(message: &A) -> B {
    B::decode(message.encode_to_vec().as_slice()).unwrap()
}

impl Lab {
    /// Starts all of it; `None` where there is no program to run in steps.
    pub(super) async fn start() -> Option<Arc<Self>> {
        let busybox = base_context()?.join("amd64/busybox");
        let environment = Environment::new();
        environment.write("tools/sh", std::fs::read(busybox).unwrap());
        std::fs::set_permissions(
            environment.path("tools/sh"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        for applet in ["cat", "grep", "id", "ls", "mkdir", "rmdir", "sleep", "stat", "wget"] {
            std::os::unix::fs::symlink("sh", environment.path("tools").join(applet)).unwrap();
        }
        environment.write("files/a", "a of the client");
        environment.write("files/b", "b of the client");
        environment.write("files/dir/c", "c of the client");
        environment.write("secret", SECRET);
        let device = "kind: test.invalid/thing\n\
                      devices: [{ name: one, containerEdits: { env: [\"THING=one\"] } }]\n";
        environment.write("cdi/thing.yaml", device);
        let config = format!("[cdi]\nspecDirs = [\"{}\"]\n", environment.text("cdi"));
        let config = Config::load(Some(environment.write("buildkitd.toml", config))).unwrap();
        let grants = ["network.host", "security.insecure", "device"];
        let grants = grants.map(|grant| grant.parse::<Entitlement>().unwrap()).into();
        let daemon = Daemon::with(config, grants).await;

        let shelf = Shelf::default();
        let kept = shelf.clone();
        let server = FakeRegistry::start(move |request| {
            let path = request.path.split('?').next().unwrap_or_default().replace("%3A", ":");
            if request.method == "PUT" {
                kept.lock().insert(path, Reply::body("application/octet-stream", &request.body));
                return Reply::status(200);
            }
            kept.lock().get(&path).cloned().unwrap_or_else(|| Reply::status(404))
        });
        let root = Some(environment.path("client-state"));
        let engine = Engine::open(EngineOptions { root, ..EngineOptions::default() }).unwrap();
        let mut offered = request(DockerfileRequest::default(), Vec::new());
        let source = SecretSource::File(environment.path("secret"));
        offered.steps.secrets = vec![SecretSpec { id: "s".to_owned(), source }];
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &environment.text("key")])
            .status();
        assert!(made.unwrap().success());
        offered.steps.ssh = vec![SshSpec { id: "default".to_owned(), paths: vec![environment.path("key")] }];
        let session = Arc::new(EmbeddedSession::new(&engine, &offered));
        let here = Place::of(daemon).await;
        let elsewhere = Place::of(Daemon::start().await).await;
        Some(Arc::new(Self { here, elsewhere, environment, server, shelf, session }))
    }

    /// Puts something on the server; returns its address.
    pub(super) fn serve(&self, path: &str, reply: Reply) -> String {
        self.shelf.lock().insert(format!("/{path}"), reply);
        self.server.address(path)
    }

    /// Returns what is on the server below a path.
    pub(super) fn kept(&self, path: &str) -> Vec<Vec<u8>> {
        let shelf = self.shelf.lock();
        let below = shelf.iter().filter(|(known, _)| known.starts_with(&format!("/{path}")));
        below.map(|(_, reply)| reply.body.clone()).collect()
    }

    /// Lists the values of a header with which a path was asked for.
    pub(super) fn asked(&self, path: &str, header: &str) -> Vec<String> {
        let asked = self.server.requests().into_iter().filter(|request| request.path == format!("/{path}"));
        asked.filter_map(|request| request.header(header).map(str::to_owned)).collect()
    }

    /// Puts an image with these layers on the server, as a registry does; returns its reference.
    pub(super) fn image(&self, name: &str, layers: &[Vec<u8>]) -> (String, Layout) {
        let layout = Layout::write(&self.environment.path(&format!("layouts/{name}")), layers);
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let digest = slipway_testkit::digest(&layout.manifest);
        for blob in std::fs::read_dir(layout.blob("sha256:x").parent().unwrap()).unwrap() {
            let blob = blob.unwrap();
            let content = std::fs::read(blob.path()).unwrap();
            let digest = blob.file_name().into_string().unwrap();
            let reply = Reply::body("application/octet-stream", &content);
            self.serve(&format!("v2/{name}/blobs/sha256:{digest}"), reply);
        }
        for reference in ["latest", &digest] {
            let reply = Reply::body(manifest, &layout.manifest).header("Docker-Content-Digest", &digest);
            self.serve(&format!("v2/{name}/manifests/{reference}"), reply);
        }
        (self.server.reference(name), layout)
    }

    /// What the client lets a build use.
    pub(super) fn offer(&self) -> Offer {
        let directories = ["tools", "files"].map(|name| (name.to_owned(), self.environment.path(name)));
        Offer {
            directories: directories.into(),
            session: Some(self.session.clone()),
            shared_key: "lab".to_owned(),
            ..Offer::default()
        }
    }

    /// A build that may have everything, and its outputs in a directory of that name.
    pub(super) fn setup(&self) -> Setup<'_> {
        let entitlements = ["network.host", "security.insecure", "device"].map(str::to_owned).into();
        let spec = SolveSpec { entitlements, ..SolveSpec::default() };
        Setup { lab: self, place: &self.here, spec, offer: self.offer(), events: Arc::default() }
    }

    /// A build at a daemon that has none of what others made.
    pub(super) fn elsewhere(&self) -> Setup<'_> {
        let mut setup = Setup { place: &self.elsewhere, ..self.setup() };
        setup.spec.entitlements.clear();
        setup
    }

    /// Solves what a graph gives and reads a file of it.
    pub(super) async fn read(&self, graph: &Graph, edge: Edge, path: &str) -> Result<String, String> {
        self.setup().read(graph, edge, path).await
    }

    /// Insists that a file of what a graph gives has that text.
    #[track_caller]
    pub(super) fn gives<'a>(
        &'a self,
        graph: &'a Graph,
        edge: Edge,
        path: &'a str,
        text: &'a str,
    ) -> impl Future<Output = ()> + Send + 'a {
        let place = std::panic::Location::caller();
        async move {
            let read = self.read(graph, edge, path).await;
            assert_eq!(read.as_deref().map(str::trim_end), Ok(text), "{path} at {place}");
        }
    }

    /// Speaks to the daemon itself.
    pub(super) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.here.channel.clone())
    }
}

/// What has happened in a build.
#[derive(Default)]
pub(super) struct Happened(Mutex<Vec<Event>>);

impl EventSink for Happened {
    fn emit(&self, event: Event) {
        self.0.lock().push(event);
    }
}

impl Happened {
    /// Collects what is wanted of the events.
    pub(super) fn all<T>(&self, wanted: impl FnMut(&Event) -> Option<T>) -> Vec<T> {
        self.0.lock().iter().filter_map(wanted).collect()
    }
}

/// A build that is about to be asked for.
pub(super) struct Setup<'a> {
    lab: &'a Lab,
    place: &'a Place,
    pub(super) spec: SolveSpec,
    pub(super) offer: Offer,
    pub(super) events: Arc<Happened>,
}

impl Setup<'_> {
    /// Adds an exporter, with its output in the environment.
    pub(super) fn export(mut self, kind: &str, attributes: &[(&str, &str)], place: &str) -> Self {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let path = self.lab.environment.path(place);
        let place = match kind {
            "local" => OutputPlace::Directory { path, delete: false },
            _ => OutputPlace::File(path),
        };
        self.offer.outputs.insert(self.spec.exporters.len(), place);
        self.spec.exporters.push((kind.to_owned(), attributes.collect()));
        self
    }

    /// Builds what a graph gives, without a frontend.
    pub(super) async fn build(mut self, graph: &Graph, edge: Edge) -> Result<Built, String> {
        self.spec.definition = Some(graph.definition(edge));
        self.solve().await
    }

    /// Builds what is asked for.
    pub(super) async fn solve(self) -> Result<Built, String> {
        let client = &self.place.daemon.client;
        let built = client.solve(self.spec, Arc::new(self.offer), self.events).await;
        built.map_err(|error| error.to_string())
    }

    /// Runs a build whose frontend is `make`; it returns the build's result.
    pub(super) async fn by<T>(
        mut self,
        make: impl AsyncFnOnce(&Work) -> (T, wire::Result),
    ) -> (T, Result<Built, String>) {
        self.spec.id = crate::capabilities::unique("build");
        let id = BuildId(MetadataValue::try_from(self.spec.id.as_str()).unwrap());
        let work = Work { bridge: LlbBridgeClient::with_interceptor(self.place.channel.clone(), id) };
        let offer = Arc::new(self.offer);
        let built = self.place.daemon.client.solve(self.spec, offer, self.events);
        let make = async {
            let (made, result) = make(&work).await;
            let request = wire::ReturnRequest { result: Some(result), error: None };
            work.bridge.clone().r#return(request).await.unwrap();
            made
        };
        let (built, made) = tokio::join!(built, make);
        (made, built.map_err(|error| error.to_string()))
    }

    /// Runs a build whose frontend is `make`, and which has no result.
    pub(super) async fn work<T>(self, make: impl AsyncFnOnce(&Work) -> T) -> T {
        let (made, built) = self.by(async |work| (make(work).await, wire::Result::default())).await;
        built.unwrap();
        made
    }

    /// Solves what a graph gives and reads a file of it.
    pub(super) async fn read(self, graph: &Graph, edge: Edge, path: &str) -> Result<String, String> {
        let definition = graph.definition(edge);
        self.work(async |work| {
            let told = |status: Status| status.message().to_owned();
            let id = work.solve(&definition).await.map_err(told)?;
            work.read(&id, path).await.map_err(told)
        })
        .await
    }
}

/// Names a build in every call.
#[derive(Clone)]
pub(super) struct BuildId(MetadataValue<Ascii>);

impl tonic::service::Interceptor for BuildId {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("buildkit-controlapi-buildid", self.0.clone());
        Ok(request)
    }
}

/// A build that is under way, for its frontend.
pub(super) struct Work {
    pub(super) bridge: LlbBridgeClient<InterceptedService<Channel, BuildId>>,
}

impl Work {
    /// Solves a definition at once; returns the id of its files.
    pub(super) async fn solve(&self, definition: &pb::Definition) -> Result<String, Status> {
        let request = wire::SolveRequest { evaluate: true, ..question(definition) };
        let answer = self.bridge.clone().solve(request).await?.into_inner();
        Ok(reference(answer.result.unwrap_or_default()))
    }

    /// Reads a file as text.
    pub(super) async fn read(&self, id: &str, path: &str) -> Result<String, Status> {
        let request = wire::ReadFileRequest {
            r#ref: id.to_owned(),
            file_path: path.to_owned(),
            ..wire::ReadFileRequest::default()
        };
        let answer = self.bridge.clone().read_file(request).await?.into_inner();
        Ok(String::from_utf8_lossy(&answer.data).into_owned())
    }

    /// Says what is at a path.
    pub(super) async fn stat(
        &self,
        id: &str,
        path: &str,
    ) -> Result<bollard_buildkit_proto::fsutil::types::Stat, Status> {
        let request = wire::StatFileRequest {
            r#ref: id.to_owned(),
            path: path.to_owned(),
            ..wire::StatFileRequest::default()
        };
        Ok(self.bridge.clone().stat_file(request).await?.into_inner().stat.unwrap())
    }

    /// Asks what a source stands for.
    pub(super) async fn learn(
        &self,
        identifier: &str,
        change: impl FnOnce(&mut wire::ResolveSourceMetaRequest),
    ) -> Result<wire::ResolveSourceMetaResponse, Status> {
        let source = wire_pb::SourceOp { identifier: identifier.to_owned(), ..wire_pb::SourceOp::default() };
        let mut request = wire::ResolveSourceMetaRequest { source: Some(source), ..Default::default() };
        change(&mut request);
        Ok(self.bridge.clone().resolve_source_meta(request).await?.into_inner())
    }
}

/// Asks for what a definition gives.
pub(super) fn question(definition: &pb::Definition) -> wire::SolveRequest {
    wire::SolveRequest {
        definition: Some(recode(definition)),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..wire::SolveRequest::default()
    }
}

/// Returns the id of the only files of a result.
pub(super) fn reference(result: wire::Result) -> String {
    match result.result {
        Some(wire::result::Result::Ref(reference)) => reference.id,
        other => panic!("no reference: {other:?}"),
    }
}

/// Makes a result of files.
pub(super) fn result(id: String) -> wire::Result {
    let reference = wire::Ref { id, ..wire::Ref::default() };
    wire::Result { result: Some(wire::result::Result::Ref(reference)), ..wire::Result::default() }
}
