//! Frontends in images: the gateway over the standard streams of their programs.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use slipway_engine::{Build, FrontendHost, FrontendReturn, FrontendStream};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{Bridge, Gateway};
use crate::server::Healthy;
use crate::wire::health::health_server::HealthServer;
use crate::worker::{self, Worker};

/// Serves the gateway to frontends in images.
#[derive(Debug, Default)]
pub struct Frontends {
    worker: OnceLock<Worker>,
}

impl Frontends {
    fn worker(&self, build: &Build) -> Result<&Worker, Diagnostic> {
        if let Some(worker) = self.worker.get() {
            return Ok(worker);
        }
        let worker = Worker::open(&build.engine())?;
        Ok(self.worker.get_or_init(|| worker))
    }
}

#[async_trait]
impl FrontendHost for Frontends {
    async fn serve(
        &self,
        build: Build,
        inputs: BTreeMap<String, pb::Definition>,
        stream: FrontendStream,
        returned: FrontendReturn,
    ) {
        let worker = match self.worker(&build) {
            Ok(worker) => worker.clone(),
            Err(diagnostic) => {
                // Nobody is left to hear of it only when the build has ended.
                let _ = returned.send(Err(diagnostic));
                return;
            }
        };
        let bridge = Arc::new(Bridge::new(worker, Arc::new(build), inputs, returned));
        let (stream, closed) = Connection::new(stream);
        let connections = stream::once(async { Ok::<_, std::io::Error>(stream) }).chain(stream::pending());
        let serve = Server::builder()
            .add_service(HealthServer::new(Healthy))
            .add_service(Gateway::Fixed(bridge).service())
            .serve_with_incoming(connections);
        tokio::select! {
            served = serve => if let Err(error) = served {
                tracing::debug!(%error, "the gateway of a frontend stopped");
            },
            _ = closed => {}
        }
    }

    fn environment(&self, build: &Build) -> Result<Vec<String>, Diagnostic> {
        let workers = json!([self.worker(build)?.info(&build.engine())]);
        Ok(vec![
            format!("BUILDKIT_WORKERS={workers}"),
            format!("BUILDKIT_EXPORTEDPRODUCT={}", worker::PRODUCT),
        ])
    }
}

/// A frontend's streams as a connection; who holds the other half learns when it is closed.
struct Connection {
    stream: FrontendStream,
    _open: tokio::sync::oneshot::Sender<()>,
}

impl Connection {
    fn new(stream: FrontendStream) -> (Self, tokio::sync::oneshot::Receiver<()>) {
        let (_open, closed) = tokio::sync::oneshot::channel();
        (Self { stream, _open }, closed)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use slipway_engine::{BuildOptions, Engine, EngineOptions};
    use slipway_model::progress::{Event, EventSink};
    use tokio::net::unix::pipe;
    use tokio_util::sync::CancellationToken;
    use tonic::transport::{Channel, Endpoint};

    use super::*;
    use crate::wire::gateway::llb_bridge_client::LlbBridgeClient;
    use crate::wire::gateway::{PingRequest, ReturnRequest, SolveRequest};

    struct Unheard;

    impl EventSink for Unheard {
        fn emit(&self, _: Event) {}
    }

    /// Our ends and a frontend's ends of two pipes.
    fn pipes() -> (FrontendStream, FrontendStream) {
        let (answers, requests) = (pipe::pipe().unwrap(), pipe::pipe().unwrap());
        let ours = tokio::io::join(requests.1, answers.0);
        (ours, tokio::io::join(answers.1, requests.0))
    }

    async fn connect(stream: FrontendStream) -> LlbBridgeClient<Channel> {
        let mut stream = Some(stream);
        let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let stream = stream.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| std::io::Error::other("there was one")) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        LlbBridgeClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_frontend_speaks_over_its_streams_and_returns_a_result() {
        let directory = tempfile::tempdir().unwrap();
        let root = Some(directory.path().join("state"));
        let engine = Engine::open(EngineOptions { root, ..EngineOptions::default() }).unwrap();
        let events = Arc::new(Unheard);
        let cancel = CancellationToken::new();
        let build = engine.start(BuildOptions::local("one"), events, &cancel).unwrap();
        let frontends = Frontends::default();
        let told = frontends.environment(&build).unwrap();
        assert!(told[0].starts_with("BUILDKIT_WORKERS=[{"), "{told:?}");

        let (ours, theirs) = pipes();
        let (returned, result) = tokio::sync::oneshot::channel();
        let serve = frontends.serve(build.share(), BTreeMap::new(), ours, returned);
        let speak = async {
            let mut frontend = connect(theirs).await;
            let pong = frontend.ping(PingRequest {}).await.unwrap().into_inner();
            assert_eq!(pong.workers.len(), 1);
            let solved = frontend.solve(SolveRequest { allow_result_return: true, ..Default::default() });
            let result = solved.await.unwrap().into_inner().result;
            frontend.r#return(ReturnRequest { result, error: None }).await.unwrap();
        };
        // The frontend is gone, and with it who serves it.
        tokio::join!(serve, speak);
        assert!(result.await.unwrap().is_ok());
    }
}
