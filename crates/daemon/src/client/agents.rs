//! Connections to the client's ssh agents.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use slipway_engine::session::{AgentOffer, Session};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Offer;
use crate::session::{AGENT, Tunnel};
use crate::wire::ssh::ssh_server::Ssh;
use crate::wire::ssh::{BytesMessage, CheckAgentRequest, CheckAgentResponse};

/// The agent that is meant where none is named.
const DEFAULT: &str = "default";

pub(super) struct Agents(pub(super) Arc<Offer>);

impl Agents {
    fn session(&self, id: &str) -> Result<&Arc<dyn Session>, Status> {
        self.0.session.as_ref().ok_or_else(|| unset(id))
    }
}

fn unset(id: &str) -> Status {
    Status::unknown(format!("unset ssh forward key {id}"))
}

#[tonic::async_trait]
impl Ssh for Agents {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        let id = Some(request.into_inner().id).filter(|id| !id.is_empty()).unwrap_or(DEFAULT.to_owned());
        match self.session(&id)?.has_ssh(&id).await {
            Ok(AgentOffer::Forwarded) => Ok(Response::new(CheckAgentResponse {})),
            Ok(AgentOffer::OtherNames | AgentOffer::Nothing) => Err(unset(&id)),
            Err(error) => Err(Status::unknown(error.to_string())),
        }
    }

    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get(AGENT).and_then(|value| value.to_str().ok());
        let id = id.filter(|id| !id.is_empty()).unwrap_or(DEFAULT).to_owned();
        let agent = self.session(&id)?.ssh(&id).await.map_err(|error| Status::unknown(error.to_string()))?;
        let (sender, receiver) = mpsc::channel::<Bytes>(16);
        let incoming = request
            .into_inner()
            .map(|message| message.map(|message| Bytes::from(message.data)).map_err(std::io::Error::other));
        let (mut tunnel, mut agent) = (Tunnel::new(incoming, sender), agent);
        let copy = async move {
            if let Err(error) = tokio::io::copy_bidirectional(&mut tunnel, &mut agent).await {
                tracing::debug!(%error, "a connection to an ssh agent broke");
            }
        };
        // The stream does the work, so that it ends with the call.
        let copy = stream::once(copy).filter_map(|()| std::future::ready(None));
        let answer = ReceiverStream::new(receiver).map(|data| Ok(BytesMessage { data: data.to_vec() }));
        Ok(Response::new(stream::select(answer, copy).boxed()))
    }
}
