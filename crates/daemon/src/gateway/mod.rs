//! `moby.buildkit.v1.frontend.LLBBridge`: what clients and frontends use while a build is under way.
//!
//! A client names its build in a header. A frontend in a container speaks over its standard streams, and can only
//! mean the build it was started for.

mod bridge;
mod containers;
mod convert;
mod files;
mod frontends;

use std::pin::Pin;
use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

pub(crate) use bridge::Bridge;
pub(crate) use convert::{known, known_to_wire, result_to_wire, wanted, wanted_to_wire};
pub use frontends::Frontends;

use crate::builds::Builds;
use crate::server::Whole;
use crate::session::MAX_MESSAGE;
use crate::wire::extra::GatewaySolveRequest;
use crate::wire::gateway::llb_bridge_server::{LlbBridge, LlbBridgeServer};
use crate::wire::gateway::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, ReleaseContainerRequest, ReleaseContainerResponse, ResolveImageConfigRequest,
    ResolveImageConfigResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest,
    WarnResponse,
};
use crate::wire::recode;

/// The header that names the build.
pub(crate) const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// Which build a call is about.
#[derive(Clone)]
pub(crate) enum Gateway {
    /// The one the header names.
    Named(Builds),
    /// Always this one.
    Fixed(Arc<Bridge>),
}

impl Gateway {
    async fn bridge<T>(&self, request: &Request<T>) -> Result<Arc<Bridge>, Status> {
        match self {
            Self::Fixed(bridge) => Ok(bridge.clone()),
            Self::Named(builds) => {
                let id = request.metadata().get(BUILD_ID).and_then(|value| value.to_str().ok());
                let id = id.ok_or_else(|| Status::unknown("no buildid found in context"))?;
                builds.bridge(id).await
            }
        }
    }

    /// Makes the service, which takes definitions as they came.
    pub(crate) fn service(&self) -> Whole<LlbBridgeServer<Self>> {
        let server = LlbBridgeServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(usize::MAX);
        Whole::new(server).answer::<GatewaySolveRequest, _, _>("Solve", SolveCall(self.clone()))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl LlbBridge for Gateway {
    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Answer<ResolveImageConfigResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.resolve_image_config(request.into_inner()).await.map(Response::new)
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Answer<ResolveSourceMetaResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.resolve_source_meta(request.into_inner()).await.map(Response::new)
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Answer<SolveResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.solve(recode(request.get_ref())).await.map(Response::new)
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Answer<ReadFileResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.read_file(request.into_inner()).await.map(Response::new)
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Answer<ReadDirResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.read_dir(request.into_inner()).await.map(Response::new)
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Answer<StatFileResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.stat_file(request.into_inner()).await.map(Response::new)
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Answer<EvaluateResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.evaluate(&request.into_inner().r#ref).await?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Answer<PongResponse> {
        Ok(Response::new(self.bridge(&request).await?.ping()))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Answer<ReturnResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.take_result(request.into_inner())?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Answer<InputsResponse> {
        Ok(Response::new(self.bridge(&request).await?.inputs()))
    }

    async fn new_container(&self, request: Request<NewContainerRequest>) -> Answer<NewContainerResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.new_container(request.into_inner()).await?;
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Answer<ReleaseContainerResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.release_container(&request.into_inner().container_id)?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    type ExecProcessStream = Pin<Box<dyn futures_util::Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<ExecMessage>>,
    ) -> Answer<Self::ExecProcessStream> {
        let bridge = self.bridge(&request).await?;
        Ok(Response::new(containers::exec(bridge, request.into_inner())))
    }

    async fn read_file_container(&self, request: Request<ReadFileRequest>) -> Answer<ReadFileResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.read_file_container(request.into_inner()).await.map(Response::new)
    }

    async fn read_dir_container(&self, request: Request<ReadDirRequest>) -> Answer<ReadDirResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.read_dir_container(request.into_inner()).await.map(Response::new)
    }

    async fn stat_file_container(&self, request: Request<StatFileRequest>) -> Answer<StatFileResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.stat_file_container(request.into_inner()).await.map(Response::new)
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Answer<WarnResponse> {
        let bridge = self.bridge(&request).await?;
        bridge.warn(request.into_inner())?;
        Ok(Response::new(WarnResponse {}))
    }
}

/// Answers `LLBBridge.Solve` with all fields of the request.
#[derive(Clone)]
struct SolveCall(Gateway);

impl tonic::server::UnaryService<GatewaySolveRequest> for SolveCall {
    type Response = SolveResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SolveResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<GatewaySolveRequest>) -> Self::Future {
        let gateway = self.0.clone();
        Box::pin(async move {
            let bridge = gateway.bridge(&request).await?;
            bridge.solve(request.into_inner()).await.map(Response::new)
        })
    }
}
