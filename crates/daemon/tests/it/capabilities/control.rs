//! What the daemon does beside building: outputs, caches elsewhere, tidying, the history.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEventType, BuildHistoryRequest, BytesMessage, Exporter, PruneRequest, SolveRequest,
};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use slipway_daemon::client::SolveSpec;
use slipway_model::llb::Edge;
use slipway_model::solve::CacheSpec;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::graph::{Graph, texts};
use super::lab::{Lab, recode};
use super::{Row, row, unique};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("cache.s3", bucket),
        row("exporter.image.annotations", annotations),
        row("exporter.image.attestations", attestations),
        row("exporter.sourcedateepoch", epoch),
        row("exporter.multiple", several),
        row("exporter.session", of_session),
        row("gc.freespacefilter", free_space),
        row("history.filter", history),
    ]
}

/// A cache in a bucket of the lab's server.
pub(super) fn cache(lab: &Lab, place: &str) -> CacheSpec {
    let (endpoint, prefix) = (lab.server.address(""), format!("{place}/"));
    let attributes = [
        ("bucket", "kept"),
        ("region", "here"),
        ("endpoint_url", endpoint.trim_end_matches('/')),
        ("use_path_style", "true"),
        ("prefix", &prefix),
        ("access_key_id", "known"),
        ("secret_access_key", "secret"),
        ("mode", "max"),
    ];
    CacheSpec { kind: "s3".to_owned(), attributes: texts(&attributes) }
}

/// Exports a cache; returns how many layers it has.
pub(super) async fn exported_cache(lab: &Lab, graph: &Graph, edge: Edge, place: &str) -> usize {
    let mut setup = lab.setup();
    setup.spec.cache_exports.push(cache(lab, place));
    setup.build(graph, edge).await.unwrap();
    let kept = lab.kept(&format!("kept/{place}/"));
    kept.iter().filter(|content| content.starts_with(&[0x1f, 0x8b])).count()
}

/// A step whose result is another each time it runs.
pub(super) fn once(graph: &mut Graph) -> Edge {
    graph.step(&format!("cat /proc/sys/kernel/random/uuid > /made # {}", unique("salt")), |_| {})
}

async fn bucket(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let (edge, place) = (once(&mut graph), unique("cache"));
    assert_ne!(exported_cache(&lab, &graph, edge, &place).await, 0);
    let made = lab.read(&graph, edge, "/made").await.unwrap();
    let mut setup = lab.elsewhere();
    setup.spec.cache_imports.push(cache(&lab, &place));
    assert_eq!(setup.read(&graph, edge, "/made").await, Ok(made));
}

/// Makes an archive of an image; returns it as text, its documents readable and without space.
async fn archive(lab: &Lab, attributes: &[(&str, &str)], frontend: &[(&str, &str)]) -> String {
    let mut graph = Graph::default();
    let edge = graph.file(None, "/it", "made");
    let place = unique("archive");
    let mut setup = lab.setup().export("oci", attributes, &place);
    setup.spec.attributes = texts(frontend);
    setup.build(&graph, edge).await.unwrap();
    let archive = std::fs::read(lab.environment.path(&place)).unwrap();
    String::from_utf8_lossy(&archive).split_whitespace().collect()
}

async fn annotations(lab: Arc<Lab>) {
    let archive = archive(&lab, &[("annotation.invalid.test", "noted")], &[]).await;
    assert!(archive.contains(r#""annotations":{"invalid.test":"noted"}"#), "{archive}");
}

async fn attestations(lab: Arc<Lab>) {
    let archive = archive(&lab, &[], &[("attest:provenance", "mode=max")]).await;
    assert!(archive.contains("application/vnd.in-toto+json") && archive.contains("slsa.dev/provenance"));
}

async fn epoch(lab: Arc<Lab>) {
    let archive = archive(&lab, &[("source-date-epoch", "1000000000")], &[]).await;
    assert!(archive.contains(r#""created":"2001-09-09T01:46:40Z""#), "{archive}");
}

async fn several(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let edge = graph.file(None, "/it", "made");
    let (files, archive) = (unique("files"), unique("archive"));
    lab.setup().export("local", &[], &files).export("oci", &[], &archive).build(&graph, edge).await.unwrap();
    assert_eq!(std::fs::read(lab.environment.path(&files).join("it")).unwrap(), b"made");
    assert!(lab.environment.path(&archive).is_file());
}

/// The outputs that a session asks for, as the service says them.
#[derive(Clone, PartialEq, prost::Message)]
struct Outputs {
    #[prost(message, repeated, tag = "1")]
    exporters: Vec<Exporter>,
}

/// What is asked, of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Anything {}

/// A session that asks for an image of that name, and hears when it is there.
#[derive(Clone)]
struct OutputService {
    image: String,
    finished: Arc<Mutex<Vec<String>>>,
}

impl NamedService for OutputService {
    const NAME: &'static str = "moby.exporter.v1.Exporter";
}

impl tower::Service<http::Request<Body>> for OutputService {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let attributes = [("name".to_owned(), self.image.clone())].into();
        let exporter = Exporter { r#type: "image".to_owned(), attrs: attributes };
        self.finished.lock().push(method.clone());
        let exporters = if method == "FindExporters" { vec![exporter] } else { Vec::new() };
        let answer = tower::service_fn(move |_: Request<Anything>| {
            let exporters = exporters.clone();
            async move { Ok::<_, Status>(Response::new(Outputs { exporters })) }
        });
        Box::pin(async move {
            Ok(Grpc::new(ProstCodec::<Outputs, Anything>::default()).unary(answer, request).await)
        })
    }
}

async fn of_session(lab: Arc<Lab>) {
    let image = format!("registry.invalid/{}:latest", unique("image"));
    let service = OutputService { image: image.clone(), finished: Arc::default() };
    let finished = service.finished.clone();
    let session = unique("session");
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (read, mut write) = tokio::io::split(ours);
    let outgoing = ReaderStream::new(read).map(|data| BytesMessage { data: data.unwrap().to_vec() });
    let mut request = Request::new(outgoing);
    let value = |text: &str| MetadataValue::try_from(text).unwrap();
    request.metadata_mut().insert("x-docker-expose-session-uuid", value(&session));
    for method in ["FindExporters", "FinalizeExport"] {
        let method = value(&format!("/moby.exporter.v1.Exporter/{method}"));
        request.metadata_mut().append("x-docker-expose-session-grpc-method", method);
    }
    let connections = futures_util::stream::once(async { Ok::<_, std::io::Error>(theirs) })
        .chain(futures_util::stream::pending());
    let serve = Server::builder().add_service(service).serve_with_incoming(connections);
    let mut incoming = lab.control().session(request).await.unwrap().into_inner();
    let hear = async {
        while let Ok(Some(message)) = incoming.message().await {
            write.write_all(&message.data).await.unwrap();
        }
    };
    let mut graph = Graph::default();
    let edge = graph.file(None, "/it", "made");
    let request = SolveRequest {
        r#ref: unique("build"),
        definition: Some(recode(&graph.definition(edge))),
        session,
        enable_session_exporter: true,
        ..SolveRequest::default()
    };
    let mut control = lab.control();
    let built = tokio::select! {
        built = control.solve(request) => built.unwrap().into_inner(),
        _ = serve => panic!("the session ended"),
        () = hear => panic!("the daemon ended the session"),
    };
    assert_eq!(built.exporter_response.get("image.name"), Some(&image));
    assert_eq!(*finished.lock(), ["FindExporters", "FinalizeExport"]);
}

async fn free_space(_: Arc<Lab>) {
    let daemon = crate::Daemon::start().await;
    let spec = SolveSpec { definition: Some(crate::one_file("x")), ..SolveSpec::default() };
    daemon.client.solve(spec, Arc::default(), crate::quiet()).await.unwrap();
    let removed = async |min_free_space: i64| {
        let request = PruneRequest { all: true, min_free_space, ..PruneRequest::default() };
        let stream =
            ControlClient::new(super::lab::connect(&daemon).await).prune(request).await.unwrap().into_inner();
        stream.count().await
    };
    assert_eq!(removed(1).await, 0, "so much is free");
    assert_ne!(removed(i64::MAX).await, 0);
}

async fn history(lab: Arc<Lab>) {
    let build = async || {
        let mut graph = Graph::default();
        let edge = graph.file(None, "/it", "made");
        let mut setup = lab.setup();
        setup.spec.id = unique("recorded");
        let id = setup.spec.id.clone();
        setup.build(&graph, edge).await.unwrap();
        id
    };
    let (first, _second) = (build().await, build().await);
    let filter = vec![format!("ref=={first}")];
    let request = BuildHistoryRequest { early_exit: true, filter, ..BuildHistoryRequest::default() };
    let events = lab.control().listen_build_history(request).await.unwrap().into_inner();
    let found: Vec<String> = events
        .filter_map(async |event| {
            // Those that are under way are told to all.
            let event = event.unwrap();
            let is_done = event.r#type == BuildHistoryEventType::Complete as i32;
            event.record.filter(|_| is_done).map(|record| record.r#ref)
        })
        .collect()
        .await;
    assert_eq!(found, [first]);
}
