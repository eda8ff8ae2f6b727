//! How a builder's nodes are reached: by their address, or through the container engine that runs them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use slipway_daemon::client::{Client, ClientTls, Endpoint, Patience, Stream};
use slipway_model::progress::{EventSink, NoEvents};
use slipway_model::{Diagnostic, ErrorKind};

use super::container::Container;
use super::store::{Node, NodeGroup};
use crate::settings::values;

/// The driver whose nodes are containers.
pub(crate) const CONTAINER: &str = "docker-container";

/// The variable that says how long a node may be silent before it is taken for lost.
const TIMEOUT: &str = "SLIPWAY_NODE_TIMEOUT";

/// Checks what a node was created with, without reaching for it.
pub(crate) fn check(group: &NodeGroup, node: &Node) -> Result<(), Diagnostic> {
    if group.driver == CONTAINER {
        return Container::new(node).map(drop);
    }
    tls(node)?;
    endpoint(node).map(drop)
}

/// Connects to a node that runs.
pub(crate) async fn connect(group: &NodeGroup, node: &Node) -> Result<Client, Diagnostic> {
    if group.driver == CONTAINER {
        return Client::connect(&Container::new(node)?.endpoint(), None, patience()?).await;
    }
    let tls = tls(node)?;
    let connected = Client::connect(&endpoint(node)?, tls.as_ref(), patience()?).await;
    connected.map_err(|error| match error.hint {
        Some(_) => error,
        None => error.hint(format!(
            "is the daemon of the node `{}` running? `slipway inspect {}` tells",
            node.name, group.name
        )),
    })
}

/// Returns how long a node may be silent.
pub(crate) fn patience() -> Result<Patience, Diagnostic> {
    let Some(text) = std::env::var(TIMEOUT).ok().filter(|text| !text.is_empty()) else {
        return Ok(Patience::default());
    };
    values::duration(&text).map(Patience).map_err(|reason| {
        Diagnostic::new(ErrorKind::User, format!("`{TIMEOUT}={text}` is no duration"))
            .cause(reason)
            .hint(format!("write it as `{TIMEOUT}=30s`"))
    })
}

/// Opens one stream of bytes to a node's daemon.
pub(crate) async fn dial(group: &NodeGroup, node: &Node) -> Result<Stream, Diagnostic> {
    let silent: Arc<dyn EventSink> = Arc::new(NoEvents);
    let endpoint = match group.driver == CONTAINER {
        true => {
            let container = Container::new(node)?;
            container.boot(&silent).await?;
            container.endpoint()
        }
        false if tls(node)?.is_some() => {
            return Err(Diagnostic::new(
                ErrorKind::User,
                format!("the connection to the node `{}` is encrypted, and cannot be handed on", node.name),
            ));
        }
        false => endpoint(node)?,
    };
    endpoint.dial(patience()?).await.map_err(|error| silent_node(node).cause(error.to_string()))
}

/// Connects to a node; one that is a container is started first, or made.
pub(crate) async fn boot(
    group: &NodeGroup,
    node: &Node,
    events: &Arc<dyn EventSink>,
) -> Result<Client, Diagnostic> {
    if group.driver == CONTAINER {
        Container::new(node)?.boot(events).await?;
    }
    connect(group, node).await
}

/// Returns the word for a node that is known not to run.
pub(crate) async fn asleep(group: &NodeGroup, node: &Node) -> Result<Option<&'static str>, Diagnostic> {
    match group.driver == CONTAINER {
        true => Container::new(node)?.asleep().await,
        false => Ok(None),
    }
}

/// Stops what was started for a node.
pub(crate) async fn stop(group: &NodeGroup, node: &Node) -> Result<(), Diagnostic> {
    match group.driver == CONTAINER {
        true => Container::new(node)?.stop().await,
        false => Ok(()),
    }
}

/// Removes what was made for a node; `keep_state` leaves what its builds have left.
pub(crate) async fn remove(
    group: &NodeGroup,
    node: &Node,
    keep_state: bool,
    keep_daemon: bool,
) -> Result<(), Diagnostic> {
    match group.driver == CONTAINER && !keep_daemon {
        true => Container::new(node)?.remove(keep_state).await,
        false => Ok(()),
    }
}

/// Says that a node does not answer.
pub(crate) fn silent_node(node: &Node) -> Diagnostic {
    Diagnostic::new(ErrorKind::Environment, format!("the node `{}` does not answer", node.name))
        .cause(format!("at {}", node.endpoint))
}

fn endpoint(node: &Node) -> Result<Endpoint, Diagnostic> {
    node.endpoint.parse().map_err(|error| {
        Diagnostic::from_error(ErrorKind::User, &error)
            .cause(format!("the node `{}` has it", node.name))
            .hint("use unix://PATH, tcp://HOST:PORT, ssh://HOST or docker-container://NAME")
    })
}

/// Reads what a node's options say of certificates.
fn tls(node: &Node) -> Result<Option<ClientTls>, Diagnostic> {
    let none = BTreeMap::new();
    let options = node.driver_opts.as_ref().unwrap_or(&none);
    let refuse = |text: String| Err(Diagnostic::new(ErrorKind::User, text));
    let mut tls = ClientTls::default();
    for (key, value) in options {
        let file = match key.as_str() {
            "cacert" => &mut tls.ca,
            "cert" => &mut tls.certificate,
            "key" => &mut tls.key,
            "servername" => {
                tls.server_name = Some(value.clone());
                continue;
            }
            "default-load" => continue,
            other => return refuse(format!("invalid driver option {other} for remote driver")),
        };
        if !Path::new(value).is_absolute() {
            return refuse(format!("non-absolute path '{value}' provided for {key}"));
        }
        *file = Some(value.into());
    }
    if tls == ClientTls::default() {
        return Ok(None);
    }
    let missing = [
        ("cacert", tls.ca.is_none()),
        ("key", tls.certificate.is_some() && tls.key.is_none()),
        ("cert", tls.key.is_some() && tls.certificate.is_none()),
    ];
    let missing: Vec<&str> = missing.iter().filter(|(_, absent)| *absent).map(|(name, _)| *name).collect();
    match missing.is_empty() {
        true => Ok(Some(tls)),
        false => refuse(format!("tls enabled, but missing keys {}", missing.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> Result<Option<ClientTls>, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let node = Node { driver_opts: Some(options.collect()), ..Node::default() };
        tls(&node).map_err(|error| error.message)
    }

    #[test]
    fn certificates_are_whole_or_an_error() {
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[("default-load", "true")]), Ok(None));
        let whole = with(&[("cacert", "/ca"), ("cert", "/cert"), ("key", "/key"), ("servername", "b")]);
        let expected = ClientTls {
            ca: Some("/ca".into()),
            certificate: Some("/cert".into()),
            key: Some("/key".into()),
            server_name: Some("b".into()),
        };
        assert_eq!(whole, Ok(Some(expected)));
        assert_eq!(with(&[("cert", "/c")]), Err("tls enabled, but missing keys cacert, key".into()));
        assert_eq!(with(&[("cacert", "ca")]), Err("non-absolute path 'ca' provided for cacert".into()));
        assert_eq!(with(&[("moon", "1")]), Err("invalid driver option moon for remote driver".into()));
    }
}
