//! The client's ssh agents.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use slipway_engine::session::{AgentOffer, AgentStream};
use slipway_model::{Diagnostic, ErrorKind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::{ClientSession, Tunnel, failed};
use crate::wire::ssh::ssh_client::SshClient;
use crate::wire::ssh::{BytesMessage, CheckAgentRequest};

/// The header that names the agent.
pub(crate) const AGENT: &str = "buildkit.ssh.id";
/// The agent that is meant where none is named.
const DEFAULT: &str = "default";

/// Tells whether the client forwards the agent `id`.
pub(super) async fn check(client: &ClientSession, id: &str) -> Result<AgentOffer, Diagnostic> {
    let id = if id.is_empty() { DEFAULT } else { id };
    let request = CheckAgentRequest { id: id.to_owned() };
    match client.call(SshClient::new(client.channel()).check_agent(request)).await {
        Ok(_) => Ok(AgentOffer::Forwarded),
        Err(status) if status.code() == Code::Unimplemented => Ok(AgentOffer::Nothing),
        Err(status) if status.message().starts_with("unset ssh forward key") => Ok(AgentOffer::OtherNames),
        Err(status) => Err(failed(format!("cannot use the client's ssh agent `{id}`"), &status)),
    }
}

/// Makes a connection to the agent `id`.
pub(super) fn connect(client: &ClientSession, id: &str) -> Result<Box<dyn AgentStream>, Diagnostic> {
    let id = if id.is_empty() { DEFAULT } else { id };
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let messages = ReceiverStream::new(receiver).map(|data| BytesMessage { data: data.to_vec() });
    let mut request = Request::new(messages);
    let value = MetadataValue::try_from(id)
        .map_err(|_| Diagnostic::new(ErrorKind::User, format!("invalid ssh agent name `{id}`")))?;
    request.metadata_mut().insert(AGENT, value);
    let mut agent = SshClient::new(client.channel());
    let gone = client.gone().clone();
    // The answer begins with the agent's first bytes, which come after ours: it must not be waited for.
    let answer = async move { agent.forward_agent(request).await.map(tonic::Response::into_inner) };
    let incoming = stream::once(answer)
        .try_flatten()
        .map(|message| message.map(|message| Bytes::from(message.data)).map_err(std::io::Error::other))
        .take_until(async move { gone.cancelled().await });
    Ok(Box::new(Tunnel::new(Box::pin(incoming), sender)))
}
