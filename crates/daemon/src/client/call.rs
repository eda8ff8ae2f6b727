//! What a client asks a daemon through the gateway: beside a build that ends when it has the answer.
//!
//! A frontend's answer about a Dockerfile is no output, so it is asked for as a client-side frontend would.

use std::collections::HashMap;
use std::sync::Arc;

use slipway_engine::CallResult;
use slipway_model::progress::EventSink;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::solve::{LATE, wire_request};
use super::{Built, Client, Offer, Refused, SolveSpec, offer};
use crate::gateway::BUILD_ID;
use crate::session::MAX_MESSAGE;
use crate::wire::extra::ControlSolveRequest;
use crate::wire::gateway::llb_bridge_client::LlbBridgeClient;
use crate::wire::gateway::{
    ResolveSourceMetaRequest, ResolveSourceMetaResponse, Result as WireResult, ReturnRequest, SolveRequest,
};
use crate::wire::{error, recode};
use crate::worker::new_id;

/// The gateway of one build.
pub(super) struct Gateway<'a> {
    client: &'a Client,
    build: String,
}

type Metadata = HashMap<String, Vec<u8>>;

impl Gateway<'_> {
    fn client(&self) -> LlbBridgeClient<tonic::transport::Channel> {
        LlbBridgeClient::new(self.client.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Says in a header which build a call belongs to.
    fn of_build<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let value = MetadataValue::try_from(&self.build);
        let value = value.map_err(|_| Status::internal("a bad name of a build"))?;
        request.metadata_mut().insert(BUILD_ID, value);
        Ok(request)
    }

    /// Asks a frontend.
    async fn solve(&self, request: SolveRequest) -> Result<Metadata, Status> {
        let answer = self.client().solve(self.of_build(request)?).await?.into_inner();
        Ok(answer.result.unwrap_or_default().metadata)
    }

    /// Asks what a source stands for.
    pub(super) async fn resolve_source_meta(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Status> {
        Ok(self.client().resolve_source_meta(self.of_build(request)?).await?.into_inner())
    }

    /// Ends the build, with a result that nobody exports.
    async fn give_back(&self, metadata: Result<Metadata, &Status>) {
        let request = match metadata {
            Ok(metadata) => {
                ReturnRequest { result: Some(WireResult { metadata, ..WireResult::default() }), error: None }
            }
            Err(status) => ReturnRequest { result: None, error: Some(error::message_form(status)) },
        };
        let Ok(request) = self.of_build(request) else { return };
        if let Err(error) = self.client().r#return(request).await {
            tracing::debug!(%error, "the build has ended before");
        }
    }
}

impl Client {
    /// Asks the frontend, and ends the build with its answer.
    pub(super) async fn call(
        &self,
        spec: &SolveSpec,
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
    ) -> Result<Built, Refused> {
        let mut wire = wire_request(spec, new_id(), offer.judge.is_some());
        let inputs = std::mem::take(&mut wire.frontend_inputs);
        let question = SolveRequest {
            frontend: std::mem::take(&mut wire.frontend),
            frontend_opt: std::mem::take(&mut wire.frontend_attrs).into_iter().collect(),
            frontend_inputs: inputs.iter().map(|(name, input)| (name.clone(), recode(input))).collect(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..SolveRequest::default()
        };
        wire.exporters.clear();
        wire.cache = None;
        let ask = async |gateway: &Gateway<'_>| {
            let metadata = gateway.solve(question).await?;
            Ok((metadata.clone(), metadata))
        };
        let metadata = self.beside(wire, offer, events, ask).await?;
        let text =
            |key: &str| String::from_utf8_lossy(metadata.get(key).map_or(&[], Vec::as_slice)).into_owned();
        let json = text("result.json");
        let code = text("result.statuscode");
        let call = CallResult { failed: !matches!(code.as_str(), "" | "0"), text: text("result.txt"), json };
        Ok(Built { call: Some(call), ..Built::default() })
    }

    /// Asks something through the gateway of a build that does nothing else; the answer comes with the metadata
    /// that the build ends with.
    pub(super) async fn beside<T>(
        &self,
        wire: ControlSolveRequest,
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
        ask: impl AsyncFnOnce(&Gateway<'_>) -> Result<(T, Metadata), Status>,
    ) -> Result<T, Refused> {
        let _served = offer::serve(&mut self.control(), &wire.session, offer).await?;
        let gateway = Gateway { client: self, build: wire.reference.clone() };
        let followed = self.follow(&wire.reference, events);
        let whole = self.send(wire);
        let asked = async {
            let answer = ask(&gateway).await;
            match &answer {
                Ok((_, metadata)) => gateway.give_back(Ok(metadata.clone())).await,
                Err(status) => gateway.give_back(Err(status)).await,
            }
            answer
        };
        // The build ends with what it was given back; if it ends before, the question was in vain.
        let (whole, asked) = tokio::join!(whole, asked);
        let _ = tokio::time::timeout(LATE, followed).await;
        let (answer, _) = asked?;
        whole?;
        Ok(answer)
    }
}
