//! A client of BuildKit's interface: asks a daemon, slipway's or another, to build.
//!
//! What the build may use of the client is in an [`Offer`], served over the connection that the client itself
//! has opened. A daemon reaches nothing that was not offered.
//!
//! [`Client::build`] takes a whole [`SolveRequest`], as the embedded engine does: `request` and `places` turn it into
//! what the protocol has, `solve` follows it. [`Client::solve`] is the protocol's own call. Where this side makes the
//! result, it does so through a [`Gateway`]: answers to calls, and builds that somebody steps through.

mod agents;
mod call;
mod directories;
mod endpoint;
mod gateway;
mod learn;
mod logins;
mod offer;
mod outputs;
mod parts;
mod places;
mod policies;
mod records;
mod request;
mod seeds;
mod selection;
mod solve;
mod sources;
mod stepping;
mod storage;
mod stores;
mod stream;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use serde_json::Value;
use slipway_engine::CallResult;
use slipway_model::llb::pb;
use slipway_model::solve::CacheSpec;
use slipway_model::{Diagnostic, SourceRules};
use tokio::io::DuplexStream;
use tonic::Status;
use tonic::codegen::http::Uri;
use tonic::transport::Channel;

pub use endpoint::{ClientTls, Endpoint, InvalidEndpoint, Patience, Ssh};
pub use gateway::{
    Container, ContainerSpec, Files, Gateway, Process, ProcessEvent, ProcessInput, ProgramSpec,
};
pub use offer::{Offer, OutputPlace};
pub use stepping::{EngineStepper, Part, Stepper};
pub use storage::{Feature, GarbageRule, Usage, Worker};
pub use stream::Stream;

use crate::session::MAX_MESSAGE;
use crate::wire::control::control_client::ControlClient;
use crate::wire::error;
use directories::Directories;

/// A connection to a daemon.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    /// The directories of all its builds, where they are had in common.
    directories: Option<Arc<Directories>>,
}

/// What is to be built.
#[derive(Clone, Debug, Default)]
pub struct SolveSpec {
    /// Names the build; if empty, a name is made.
    pub id: String,
    /// Empty for a definition.
    pub frontend: String,
    pub attributes: BTreeMap<String, String>,
    pub definition: Option<pb::Definition>,
    /// What the frontend takes for directories, by name.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// Kinds and attributes of outputs; their places at the client are in the offer, by index.
    pub exporters: Vec<(String, BTreeMap<String, String>)>,
    pub cache_imports: Vec<CacheSpec>,
    pub cache_exports: Vec<CacheSpec>,
    pub entitlements: Vec<String>,
    /// Rules for sources.
    pub source_policy: Option<SourceRules>,
    /// Steps reach the network through a proxy only.
    pub proxy_network: bool,
}

/// What a build gave.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The exporters' response.
    pub response: BTreeMap<String, String>,
    /// Members of a metadata file that tell how the results were made, if that was asked for.
    pub provenance: Vec<(String, Value)>,
    /// The answer to a call that does not build.
    pub call: Option<CallResult>,
}

/// Says why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct Refused(#[from] Status);

impl Refused {
    /// Returns what people are told.
    pub fn diagnostic(&self) -> Diagnostic {
        error::diagnostic(&self.0)
    }
}

impl From<Refused> for Diagnostic {
    fn from(refused: Refused) -> Self {
        refused.diagnostic()
    }
}

impl Client {
    /// Connects to a daemon.
    ///
    /// # Errors
    /// It cannot be reached, or is not who it should be.
    pub async fn connect(
        endpoint: &Endpoint,
        tls: Option<&ClientTls>,
        patience: Patience,
    ) -> Result<Self, Diagnostic> {
        let client = Self { channel: endpoint.channel(tls, patience).await?, directories: None };
        if let Endpoint::Ssh(_) = endpoint {
            // What `ssh` complains of is heard when it is first spoken to.
            match client.workers().await {
                // What has a source was not said by the daemon.
                Err(refused) if std::error::Error::source(&refused.0).is_some() => {
                    return Err(endpoint.unreachable(refused.diagnostic()));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(client)
    }

    /// Speaks to a daemon over a connection that is there, and cannot be made anew.
    pub(crate) async fn over(stream: DuplexStream) -> Result<Self, tonic::transport::Error> {
        let mut stream = Some(stream);
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost")
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        Ok(Self { channel: endpoint.connect_with_connector(connector).await?, directories: None })
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}
