//! What a client asks a daemon through the gateway: beside a build that ends when it has the answer.
//!
//! A frontend's answer about a Dockerfile is no output, so it is asked for as a client-side frontend would.

use std::sync::Arc;

use slipway_engine::CallResult;
use slipway_model::progress::EventSink;

use super::solve::wire_request;
use super::{Built, Client, Gateway, Offer, Refused, SolveSpec, gateway};
use crate::wire::gateway::Result as WireResult;

impl Client {
    /// Asks the frontend, and ends the build with its answer.
    pub(super) async fn call(
        &self,
        spec: &SolveSpec,
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
    ) -> Result<Built, Refused> {
        let mut wire = wire_request(spec, &offer);
        let question = gateway::question(&mut wire);
        wire.frontend_attrs.clear();
        wire.exporters.clear();
        wire.cache = None;
        let ask = async |gateway: &Gateway| {
            let metadata = gateway.frontend(question).await?.metadata;
            Ok((metadata.clone(), WireResult { metadata, ..WireResult::default() }))
        };
        let (metadata, _) = self.solve_here(wire, offer, events, ask).await?;
        let text =
            |key: &str| String::from_utf8_lossy(metadata.get(key).map_or(&[], Vec::as_slice)).into_owned();
        let json = text("result.json");
        let code = text("result.statuscode");
        let call = CallResult { failed: !matches!(code.as_str(), "" | "0"), text: text("result.txt"), json };
        Ok(Built { call: Some(call), ..Built::default() })
    }
}
