//! Calls: what a frontend says of a Dockerfile without building it.
//!
//! Its answer is no output, so it is asked for through the gateway, as a client-side frontend would.

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
use crate::wire::error;
use crate::wire::gateway::llb_bridge_client::LlbBridgeClient;
use crate::wire::gateway::{Result as WireResult, ReturnRequest, SolveRequest};
use crate::worker::new_id;

impl Client {
    /// Asks the frontend, and ends the build with its answer.
    pub(super) async fn call(
        &self,
        spec: &SolveSpec,
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
    ) -> Result<Built, Refused> {
        let session = new_id();
        let _served = offer::serve(&mut self.control(), &session, offer).await?;
        let mut wire = wire_request(spec, session);
        let question = SolveRequest {
            frontend: std::mem::take(&mut wire.frontend),
            frontend_opt: std::mem::take(&mut wire.frontend_attrs),
            frontend_inputs: std::mem::take(&mut wire.frontend_inputs),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..SolveRequest::default()
        };
        wire.exporters.clear();
        wire.cache = None;
        let reference = wire.r#ref.clone();
        let followed = self.follow(&reference, events);
        let mut control = self.control();
        let whole = control.solve(Request::new(wire));
        let asked = async {
            let answer = self.ask(&reference, question).await;
            self.give_back(&reference, &answer).await;
            answer
        };
        // The build ends with what it was given back; if it ends before, the question was in vain.
        let (whole, asked) = tokio::join!(whole, asked);
        let _ = tokio::time::timeout(LATE, followed).await;
        let metadata = asked.and_then(|metadata| whole.map(|_| metadata))?;
        let text =
            |key: &str| String::from_utf8_lossy(metadata.get(key).map_or(&[], Vec::as_slice)).into_owned();
        let json = text("result.json");
        let code = text("result.statuscode");
        let call = CallResult { failed: !matches!(code.as_str(), "" | "0"), text: text("result.txt"), json };
        Ok(Built { call: Some(call), ..Built::default() })
    }

    async fn ask(&self, build: &str, question: SolveRequest) -> Result<HashMap<String, Vec<u8>>, Status> {
        let answer = self.gateway().solve(of_build(build, question)?).await?.into_inner();
        Ok(answer.result.unwrap_or_default().metadata)
    }

    async fn give_back(&self, build: &str, answer: &Result<HashMap<String, Vec<u8>>, Status>) {
        let request = match answer {
            Ok(metadata) => ReturnRequest {
                result: Some(WireResult { metadata: metadata.clone(), ..WireResult::default() }),
                error: None,
            },
            Err(status) => ReturnRequest { result: None, error: Some(error::message_form(status)) },
        };
        let Ok(request) = of_build(build, request) else { return };
        if let Err(error) = self.gateway().r#return(request).await {
            tracing::debug!(%error, "the build has ended before");
        }
    }

    fn gateway(&self) -> LlbBridgeClient<tonic::transport::Channel> {
        LlbBridgeClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// Says in a header which build a call belongs to.
fn of_build<T>(build: &str, message: T) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(build).map_err(|_| Status::internal("a bad name of a build"))?;
    request.metadata_mut().insert(BUILD_ID, value);
    Ok(request)
}
