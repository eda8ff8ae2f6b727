//! Builds in steps: a client decides what is built next, and may look at it before it goes on.
//!
//! Whoever steps ([`Stepper`]) sees a [`Gateway`] and nothing else. A daemon's is at the end of the connection. An
//! engine of this process serves its own, over a connection in memory, so that both are one to the stepper.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use slipway_engine::{Build, BuildResult, Debugger};
use slipway_model::llb::pb;
use slipway_model::progress::EventSink;
use slipway_model::{Diagnostic, ErrorKind};
use tokio::sync::oneshot;
use tonic::transport::Server;

use super::solve::wire_request;
use super::{Built, Client, Files, Gateway, Offer, Refused, SolveSpec, gateway, parts};
use crate::gateway::{Bridge, Gateway as Service, result_to_wire};
use crate::wire::gateway::{Ref as WireRef, Result as WireResult, result};
use crate::wire::{error, recode};
use crate::worker::Worker;

/// Bytes that are under way between the two sides of a build in this process.
const BUFFER: usize = 256 * 1024;

/// Whoever steps through builds.
#[async_trait]
pub trait Stepper: Send + Sync {
    /// Builds what a frontend made, in its own order; what is left when it returns is built as always.
    ///
    /// # Errors
    /// What failed, or why it shall not go on: the build ends with it.
    async fn step(&self, gateway: &Gateway, parts: Vec<Part>) -> Result<(), Diagnostic>;
}

/// What a frontend made for one platform.
#[derive(Clone, Debug)]
pub struct Part {
    /// The platform's name, where there are several.
    pub platform: Option<String>,
    pub definition: pb::Definition,
    pub files: Files,
    /// The image's config, as it is written.
    pub config: Vec<u8>,
}

impl Client {
    /// Builds what the frontend makes of a request, and of the requests that contexts are made of; as `stepper` says,
    /// if there is one.
    pub(super) async fn assemble(
        &self,
        spec: &SolveSpec,
        of_contexts: &[parts::Part],
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
        stepper: Option<&dyn Stepper>,
    ) -> Result<Built, Refused> {
        let mut wire = wire_request(spec, &offer);
        let mut question = gateway::question(&mut wire);
        let told = events.clone();
        let make = async |gateway: &Gateway| {
            parts::settle(gateway, of_contexts, &mut question, &*told).await?;
            let result = gateway.frontend(question).await?;
            if let Some(stepper) = stepper {
                let stepped = stepper.step(gateway, with_steps(&result)).await;
                stepped.map_err(|diagnostic| error::status(&diagnostic))?;
            }
            Ok(((), result))
        };
        let ((), response) = self.solve_here(wire, offer, events, make).await?;
        Ok(Built { response, ..Built::default() })
    }
}

/// Lets a stepper into the builds of an engine of this process.
pub struct EngineStepper<'a>(pub &'a dyn Stepper);

#[async_trait]
impl Debugger for EngineStepper<'_> {
    async fn debug(&self, build: Build, result: &BuildResult) -> Result<(), Diagnostic> {
        let worker = Worker::open(&build.engine())?;
        // The result is known already: nobody waits for another one.
        let (returned, _) = oneshot::channel();
        let bridge = Arc::new(Bridge::new(worker, Arc::new(build), BTreeMap::new(), returned));
        let parts = with_steps(&result_to_wire(&bridge, result, true));
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let connections = stream::once(async { Ok::<_, std::io::Error>(theirs) }).chain(stream::pending());
        let serve =
            Server::builder().add_service(Service::Fixed(bridge).service()).serve_with_incoming(connections);
        let step = async {
            let client = Client::over(ours).await.map_err(|error| broken(Some(error)))?;
            self.0.step(&Gateway::of_connection(client.channel), parts).await
        };
        tokio::select! {
            served = serve => Err(broken(served.err())),
            stepped = step => stepped,
        }
    }
}

fn broken(error: Option<tonic::transport::Error>) -> Diagnostic {
    let diagnostic = Diagnostic::new(ErrorKind::Internal, "the gateway of the build stopped");
    match error {
        Some(error) => diagnostic.cause(error.to_string()),
        None => diagnostic,
    }
}

/// Takes a result apart, without what has no steps.
fn with_steps(result: &WireResult) -> Vec<Part> {
    let mut parts = parts_of(result);
    parts.retain(|part| !part.definition.def.is_empty());
    parts
}

/// Takes a result apart; the empty file system has the empty definition.
pub(super) fn parts_of(result: &WireResult) -> Vec<Part> {
    let config = |key: &str| result.metadata.get(key).cloned().unwrap_or_default();
    let part = |platform: Option<&String>, reference: &WireRef| {
        let config = match platform {
            Some(platform) => config(&format!("containerimage.config/{platform}")),
            None => config("containerimage.config"),
        };
        let definition = reference.def.as_ref().map(recode).unwrap_or_default();
        Part { platform: platform.cloned(), definition, files: Files(reference.id.clone()), config }
    };
    let mut parts: Vec<Part> = match &result.result {
        Some(result::Result::Ref(reference)) => vec![part(None, reference)],
        Some(result::Result::Refs(refs)) => {
            refs.refs.iter().map(|(platform, reference)| part(Some(platform), reference)).collect()
        }
        _ => Vec::new(),
    };
    parts.sort_by(|a, b| a.platform.cmp(&b.platform));
    parts
}
