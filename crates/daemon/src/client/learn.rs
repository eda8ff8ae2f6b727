//! Asking a daemon what a source stands for.

use std::sync::Arc;

use slipway_engine::Engine;
use slipway_engine::policy::{KnownSource, Wanted};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use slipway_model::progress::NoEvents;

use super::solve::wire_request;
use super::{Client, Gateway, Refused, SolveSpec, logins};
use crate::gateway;
use crate::wire::gateway::Result as WireResult;

impl Client {
    /// Asks the daemon what is wanted of a source.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn learn(
        &self,
        engine: &Engine,
        source: &pb::SourceOp,
        wanted: &Wanted,
    ) -> Result<KnownSource, Diagnostic> {
        let offer = logins::offered(engine);
        let request = gateway::wanted_to_wire(source, wanted);
        let ask = async |gateway: &Gateway| {
            Ok((gateway.resolve_source_meta(request).await?, WireResult::default()))
        };
        let wire = wire_request(&SolveSpec::default(), &offer);
        let answer = self.solve_here(wire, Arc::new(offer), Arc::new(NoEvents), ask).await;
        let (answer, _) = answer.map_err(|refused| refused.diagnostic())?;
        gateway::known(answer).map_err(|status| Refused::from(status).diagnostic())
    }
}
