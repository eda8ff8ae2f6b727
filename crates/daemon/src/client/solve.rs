//! A build at a daemon: asked for, followed, and ended with what it gave or why it failed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use slipway_engine::Engine;
use slipway_engine::policy::SourceJudge;
use slipway_model::progress::{Event, EventSink};
use slipway_model::solve::{CacheSpec, Call, Frontend, SolveRequest};
use slipway_model::{Diagnostic, Digest, ErrorKind};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{Built, Client, Gateway, Offer, Refused, SolveSpec, Stepper, offer, request};
use crate::session::MAX_MESSAGE;
use crate::wire::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveResponse, StatusRequest};
use crate::wire::extra::ControlSolveRequest;
use crate::wire::gateway::Result as WireResult;
use crate::wire::{policy, status};
use crate::worker::new_id;

/// The method that builds.
const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
/// How long what happened may still come after the build's end.
const LATE: Duration = Duration::from_secs(5);
/// Lines of a failed step that are shown again with the error.
const TAIL: usize = 20;

impl Client {
    /// Builds what a request of this machine asks for, as a stepper says if there is one; calls that do not build
    /// are answered too.
    ///
    /// # Errors
    /// What the daemon says is wrong, or what of this machine cannot be offered.
    pub async fn build(
        &self,
        engine: &Engine,
        request: &SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<Built, Diagnostic> {
        let work = async {
            let mut prepared = request::prepare(engine, request).await?;
            let tail = Arc::new(Tail { inner: events, lines: Mutex::default() });
            prepared.offer.judge = judge;
            let _apart = self.serve_apart(&mut prepared).await.map_err(Refused::from)?;
            let offer = Arc::new(std::mem::take(&mut prepared.offer));
            let built = async {
                let built = match stepper {
                    _ if is_call(request) => self.call(&prepared.spec, offer, tail.clone()).await,
                    None if prepared.parts.is_empty() => {
                        self.solve(prepared.spec.clone(), offer, tail.clone()).await
                    }
                    stepper => {
                        let (spec, parts) = (&prepared.spec, &prepared.parts);
                        self.assemble(spec, parts, offer, tail.clone(), stepper).await
                    }
                };
                built.map_err(|refused| tail.add_to(refused.diagnostic()))
            };
            let work = try_join_all(std::mem::take(&mut prepared.places.work));
            let (built, _) = tokio::try_join!(built, work)?;
            prepared.places.finish(&built.response)?;
            let provenance = match request.attestations.metadata.filter(|_| built.call.is_none()) {
                Some(mode) => self.provenance(&request.id, mode).await?,
                None => Vec::new(),
            };
            Ok(Built { provenance, ..built })
        };
        tokio::select! {
            result = work => result,
            () = cancel.cancelled() => Err(Diagnostic::new(ErrorKind::User, "canceled")),
        }
    }

    /// Builds, offering `offer` to the daemon meanwhile.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn solve(
        &self,
        spec: SolveSpec,
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
    ) -> Result<Built, Refused> {
        let wire = wire_request(&spec, &offer);
        let _served = offer::serve(&mut self.control(), &wire.session, offer).await?;
        let follow = self.follow(&wire.reference, events);
        let response = self.send(wire).await;
        // A build that was refused is never known by its name: nobody waits long for what happened in it.
        let late = if response.is_ok() { LATE } else { LATE / 5 };
        let _ = tokio::time::timeout(late, follow).await;
        let response = response?.exporter_response;
        Ok(Built { response: response.into_iter().collect(), ..Built::default() })
    }

    /// Asks for a build, with the fields that the generated client does not know.
    pub(super) async fn send(&self, wire: ControlSolveRequest) -> Result<SolveResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<ControlSolveRequest, SolveResponse> = ProstCodec::default();
        let answer = grpc.unary(Request::new(wire), PathAndQuery::from_static(SOLVE), codec).await?;
        Ok(answer.into_inner())
    }

    /// Starts a build whose result this side makes through the gateway; returns what was found out by that, and the
    /// exporters' response.
    pub(super) async fn solve_here<T>(
        &self,
        wire: ControlSolveRequest,
        offer: Arc<Offer>,
        events: Arc<dyn EventSink>,
        make: impl AsyncFnOnce(&Gateway) -> Result<(T, WireResult), Status>,
    ) -> Result<(T, BTreeMap<String, String>), Refused> {
        let gateway = Gateway::of_build(self.channel.clone(), &wire.reference)?;
        let _served = offer::serve(&mut self.control(), &wire.session, offer).await?;
        let followed = self.follow(&wire.reference, events);
        let whole = self.send(wire);
        tokio::pin!(whole);
        let made = tokio::select! {
            made = make(&gateway) => made,
            // Without a result it ends only if something is wrong with it.
            ended = &mut whole => {
                let _ = tokio::time::timeout(LATE / 5, followed).await;
                let early = || Status::unknown("the build ended before it had a result");
                return Err(ended.err().unwrap_or_else(early).into());
            }
        };
        let (whole, ()) =
            tokio::join!(whole, gateway.give_back(made.as_ref().map(|(_, result)| result.clone())));
        let _ = tokio::time::timeout(LATE, followed).await;
        let ((found, _), whole) = made.and_then(|made| whole.map(|whole| (made, whole)))?;
        Ok((found, whole.exporter_response.into_iter().collect()))
    }

    /// Passes on what happens in a build, until it has ended.
    fn follow(&self, reference: &str, events: Arc<dyn EventSink>) -> AbortOnDropHandle<()> {
        let (mut control, reference) = (self.control(), reference.to_owned());
        let follow = async move {
            let answer = control.status(StatusRequest { r#ref: reference }).await;
            let mut responses = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => return tracing::debug!(%status, "the build cannot be followed"),
            };
            while let Ok(Some(response)) = responses.message().await {
                status::events(response).for_each(|event| events.emit(event));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
        AbortOnDropHandle::new(tokio::spawn(follow))
    }
}

fn is_call(request: &SolveRequest) -> bool {
    matches!(&request.frontend, Frontend::Dockerfile(dockerfile) if dockerfile.call != Call::Build)
}

/// Makes the message that asks for a build with an offer, which may be asked about sources too.
pub(super) fn wire_request(spec: &SolveSpec, offer: &Offer) -> ControlSolveRequest {
    let session = if offer.id.is_empty() { new_id() } else { offer.id.clone() };
    let exporter = |(kind, attributes): &(String, BTreeMap<String, String>)| Exporter {
        r#type: kind.clone(),
        attrs: attributes.clone().into_iter().collect(),
    };
    let mut attributes = spec.attributes.clone();
    if !spec.cache_imports.is_empty() && !spec.frontend.is_empty() {
        // The reference's frontend reads them here, each for itself.
        let imports = spec.cache_imports.iter();
        let imports = imports.map(|cache| serde_json::json!({"Type": cache.kind, "Attrs": cache.attributes}));
        let imports = serde_json::Value::Array(imports.collect());
        attributes.insert("cache-imports".to_owned(), imports.to_string());
    }
    ControlSolveRequest {
        reference: if spec.id.is_empty() { new_id() } else { spec.id.clone() },
        definition: spec.definition.clone(),
        frontend_inputs: spec.inputs.clone(),
        frontend: spec.frontend.clone(),
        frontend_attrs: attributes,
        cache: Some(CacheOptions {
            imports: spec.cache_imports.iter().map(cache).collect(),
            exports: spec.cache_exports.iter().map(cache).collect(),
            ..CacheOptions::default()
        }),
        entitlements: spec.entitlements.clone(),
        exporters: spec.exporters.iter().map(exporter).collect(),
        source_policy: spec.source_policy.as_ref().map(policy::to_wire),
        source_policy_session: if offer.judge.is_some() { session.clone() } else { String::new() },
        proxy_network: spec.proxy_network,
        session,
        ..ControlSolveRequest::default()
    }
}

fn cache(cache: &CacheSpec) -> CacheOptionsEntry {
    CacheOptionsEntry { r#type: cache.kind.clone(), attrs: cache.attributes.clone().into_iter().collect() }
}

/// Keeps the last lines that each step wrote, for the error of one that fails.
struct Tail {
    inner: Arc<dyn EventSink>,
    lines: Mutex<HashMap<Digest, VecDeque<String>>>,
}

impl EventSink for Tail {
    fn part(&self, name: &str, steps: &[Digest]) {
        self.inner.part(name, steps);
    }

    fn emit(&self, event: Event) {
        if let Event::Log(log) = &event {
            let mut steps = self.lines.lock();
            let lines = steps.entry(log.vertex).or_default();
            let text = String::from_utf8_lossy(&log.data);
            for (at, piece) in text.split_inclusive('\n').enumerate() {
                match lines.back_mut().filter(|line| at == 0 && !line.ends_with('\n')) {
                    Some(begun) => begun.push_str(piece),
                    None => lines.push_back(piece.to_owned()),
                }
            }
            let surplus = lines.len().saturating_sub(TAIL);
            lines.drain(..surplus);
        }
        self.inner.emit(event);
    }
}

impl Tail {
    fn add_to(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Some(lines) = diagnostic.vertex.and_then(|vertex| self.lines.lock().remove(&vertex)) {
            diagnostic.log_tail =
                lines.iter().map(|line| line.trim_end_matches(['\r', '\n']).to_owned()).collect();
        }
        diagnostic
    }
}
