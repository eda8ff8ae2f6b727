//! A client of BuildKit's interface: asks a daemon, slipway's or another, to build.
//!
//! What the build may use of the client is in an [`Offer`], served over the connection that the client itself
//! has opened. A daemon reaches nothing that was not offered.

mod offer;
mod outputs;
mod sources;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use slipway_model::llb::pb;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub use offer::{Offer, OutputPlace};

use crate::session::MAX_MESSAGE;
use crate::wire::control::control_client::ControlClient;
use crate::wire::control::{Exporter, ListWorkersRequest, SolveRequest, StatusRequest, StatusResponse};
use crate::wire::recode;
use crate::worker::new_id;

/// A connection to a daemon.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// What is to be built.
#[derive(Clone, Debug, Default)]
pub struct SolveSpec {
    /// Empty for a definition.
    pub frontend: String,
    pub attributes: BTreeMap<String, String>,
    pub definition: Option<pb::Definition>,
    /// Kinds and attributes of outputs; their places at the client are in the offer, by index.
    pub exporters: Vec<(String, BTreeMap<String, String>)>,
    pub entitlements: Vec<String>,
}

/// What a build gave.
#[derive(Clone, Debug, Default)]
pub struct Solved {
    /// The exporters' response.
    pub response: BTreeMap<String, String>,
    /// The names of the steps, each once, and whether they came from the cache.
    pub steps: BTreeMap<String, bool>,
}

/// Says why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to the daemon")]
    Connect(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(#[from] Status),
}

impl ClientError {
    /// Lists the types of the details that came with the error.
    pub fn details(&self) -> Vec<String> {
        let Self::Refused(status) = self else { return Vec::new() };
        let decoded = crate::wire::RpcStatus::decode(status.details()).unwrap_or_default();
        decoded.details.into_iter().map(|detail| detail.type_url).collect()
    }
}

impl Client {
    /// Connects to a unix socket.
    pub async fn unix(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        Ok(Self { channel: endpoint.connect_with_connector(connector).await? })
    }

    /// Lists the ids of the daemon's workers.
    pub async fn workers(&self) -> Result<Vec<String>, ClientError> {
        let answer = self.control().list_workers(ListWorkersRequest::default()).await?;
        Ok(answer.into_inner().record.into_iter().map(|worker| worker.id).collect())
    }

    /// Builds, offering `offer` to the daemon meanwhile.
    pub async fn solve(&self, spec: SolveSpec, offer: Arc<Offer>) -> Result<Solved, ClientError> {
        let session = new_id();
        let reference = new_id();
        let _served = offer::serve(&mut self.control(), &session, offer).await?;
        let exporters = spec
            .exporters
            .into_iter()
            .map(|(kind, attributes)| Exporter { r#type: kind, attrs: attributes.into_iter().collect() });
        let request = SolveRequest {
            r#ref: reference.clone(),
            definition: spec.definition.as_ref().map(recode),
            session,
            frontend: spec.frontend,
            frontend_attrs: spec.attributes.into_iter().collect(),
            entitlements: spec.entitlements,
            exporters: exporters.collect(),
            ..SolveRequest::default()
        };
        let mut control = self.control();
        // A build that was refused is never known by its reference: nobody waits for what happens in it.
        let solved = async { Ok::<_, Status>(control.solve(Request::new(request)).await?.into_inner()) };
        let follow = async { Ok(self.follow(reference).await.unwrap_or_default()) };
        let (solved, steps) = tokio::try_join!(solved, follow)?;
        Ok(Solved { response: solved.exporter_response.into_iter().collect(), steps })
    }

    async fn follow(&self, reference: String) -> Result<BTreeMap<String, bool>, Status> {
        let mut steps = BTreeMap::new();
        let mut responses = self.control().status(StatusRequest { r#ref: reference }).await?.into_inner();
        while let Some(response) = responses.message().await? {
            let StatusResponse { vertexes, .. } = response;
            for vertex in vertexes {
                *steps.entry(vertex.name).or_insert(false) |= vertex.cached;
            }
        }
        Ok(steps)
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}
