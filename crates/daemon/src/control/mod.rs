//! `moby.buildkit.v1.Control`: what clients ask of the daemon.

mod cache;
pub(crate) mod check;
pub(crate) mod solve;
mod storage;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};
use slipway_engine::{Engine, ExportOptions};
use slipway_model::Diagnostic;
use slipway_model::filter::Filters;
use slipway_model::solve::Entitlement;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::builds::Builds;
use crate::history::History;
use crate::session::{Sessions, Tunnel};
use crate::wire::control::control_server::Control;
use crate::wire::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use crate::wire::extra::{self, ControlSolveRequest};
use crate::wire::{recode, status};
use crate::worker::{self, Worker};

/// What all calls share.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    /// What builds may be given.
    pub(crate) entitlements: BTreeSet<Entitlement>,
    /// How results are exported where the request says nothing.
    pub(crate) export: ExportOptions,
    pub(crate) worker: Worker,
    pub(crate) sessions: Sessions,
    pub(crate) builds: Builds,
    pub(crate) history: History,
    /// Is cancelled when the daemon stops.
    pub(crate) stopping: CancellationToken,
}

impl Daemon {
    /// Opens what is kept of earlier daemons in the engine's state.
    pub(crate) fn open(
        engine: Engine,
        entitlements: BTreeSet<Entitlement>,
        export: ExportOptions,
        stopping: CancellationToken,
    ) -> Result<Self, Diagnostic> {
        Ok(Self {
            worker: Worker::open(&engine)?,
            history: History::open(engine.root(), engine.config().history),
            engine,
            entitlements,
            export,
            sessions: Sessions::default(),
            builds: Builds::default(),
            stopping,
        })
    }
}

/// The service; cloning is cheap.
#[derive(Clone)]
pub(crate) struct ControlService(pub(crate) Arc<Daemon>);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl Control for ControlService {
    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        storage::disk_usage(self.0.clone(), request.into_inner()).await.map(Response::new)
    }

    type PruneStream = Messages<UsageRecord>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let removed = storage::prune(self.0.clone(), request.into_inner()).await?;
        Ok(Response::new(stream::iter(removed.into_iter().map(Ok)).boxed()))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        // The server takes this call apart itself, with the newer fields; this is for callers within.
        let request: ControlSolveRequest = recode(request.get_ref());
        solve::solve(self.0.clone(), request).await.map(Response::new)
    }

    type StatusStream = Messages<StatusResponse>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let id = &request.get_ref().r#ref;
        if !self.0.builds.knows(id)
            && let Some(responses) = self.0.history.happened(id)
        {
            return Ok(Response::new(stream::iter(responses.into_iter().map(Ok)).boxed()));
        }
        let happened = self.0.builds.happened(id).await?;
        let responses = stream::unfold((happened, 0usize), |(happened, from)| async move {
            let events = happened.since(from).await?;
            let mut response = StatusResponse::default();
            let mut told = 0;
            for event in &events {
                status::add(&mut response, event);
                told += 1;
                if status::is_full(&response) {
                    break;
                }
            }
            Some((Ok(response), (happened, from + told)))
        });
        Ok(Response::new(responses.boxed()))
    }

    type SessionStream = Messages<BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let headers = request.metadata().clone();
        let gone = self.0.stopping.child_token();
        let (sender, receiver) = mpsc::channel::<Bytes>(32);
        let ended = gone.clone().drop_guard();
        let incoming = request
            .into_inner()
            .map(|message| message.map(|message| Bytes::from(message.data)).map_err(std::io::Error::other));
        // The end of the client's stream is the end of the session, whoever notices it first.
        let incoming = incoming.chain(stream::once(async move {
            drop(ended);
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }));
        let tunnel = Tunnel::new(incoming, sender);
        let registered = self.0.sessions.register(&headers, tunnel, gone.clone()).await?;
        let outgoing = ReceiverStream::new(receiver)
            .map(move |data| {
                let _held = &registered;
                Ok(BytesMessage { data: data.to_vec() })
            })
            .take_until(async move { gone.cancelled().await });
        Ok(Response::new(outgoing.boxed()))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let worker = &self.0.worker;
        let filters = Filters::parse(&request.get_ref().filter);
        let filters = filters.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let record = match worker.matches(&filters) {
            true => vec![worker.record(&self.0.engine)],
            false => Vec::new(),
        };
        Ok(Response::new(ListWorkersResponse { record }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(worker::version()) }))
    }

    type ListenBuildHistoryStream = Messages<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Ok(Response::new(self.0.history.listen(request.into_inner())?.boxed()))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        self.0.history.update(&request.into_inner())?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// Answers `Control.Info` with all fields of the response.
#[derive(Clone)]
pub(crate) struct InfoCall;

impl tonic::server::UnaryService<InfoRequest> for InfoCall {
    type Response = extra::InfoResponse;
    type Future = std::future::Ready<Result<Response<extra::InfoResponse>, Status>>;

    fn call(&mut self, _: Request<InfoRequest>) -> Self::Future {
        let own = worker::version();
        let version = extra::Version {
            package: own.package,
            version: own.version,
            revision: own.revision,
            dockerfile_version: slipway_engine::DOCKERFILE_VERSION.to_owned(),
        };
        std::future::ready(Ok(Response::new(extra::InfoResponse { version: Some(version) })))
    }
}

/// Answers `Control.Solve` with all fields of the request.
#[derive(Clone)]
pub(crate) struct SolveCall(pub(crate) Arc<Daemon>);

impl tonic::server::UnaryService<ControlSolveRequest> for SolveCall {
    type Response = SolveResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SolveResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<ControlSolveRequest>) -> Self::Future {
        let daemon = self.0.clone();
        Box::pin(async move { solve::solve(daemon, request.into_inner()).await.map(Response::new) })
    }
}
