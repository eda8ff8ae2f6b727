//! Forwarding an ssh agent into a step: a socket of the step's own that leads to the client's agent.
//!
//! The agent's socket itself is not mounted: its owner and mode would be the host's, and a step that runs as
//! another user could not open it; and the agent of a client elsewhere has no socket here. And a step may use
//! keys, but not take them away, add some or lock the agent: what it asks for besides is refused here.

mod agent;
mod keys;
mod relay;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::error::Context as _;
use crate::session::Session;

pub(crate) use agent::Agent;

/// A socket in a directory of the store; removed when dropped, with all connections through it.
pub(crate) struct AgentSocket {
    path: PathBuf,
    /// Stops when it is dropped.
    _server: JoinSet<()>,
}

impl AgentSocket {
    /// Listens in `directory`, with the owner and mode that the step asks for.
    pub(crate) fn listen(
        session: Arc<dyn Session>,
        options: &pb::SshOpt,
        directory: &Path,
    ) -> Result<Self, Diagnostic> {
        let id = options.id.clone();
        let path = directory.join("agent.sock");
        let listener =
            UnixListener::bind(&path).context(|| format!("cannot forward the ssh agent `{id}`"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(options.mode & 0o777)).diagnose()?;
        std::os::unix::fs::chown(&path, Some(options.uid), Some(options.gid)).diagnose()?;
        let mut server = JoinSet::new();
        server.spawn(accept(listener, session, id));
        Ok(Self { path, _server: server })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, session: Arc<dyn Session>, id: String) {
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = client else { return };
        let (session, id) = (session.clone(), id.clone());
        connections.spawn(async move {
            if let Err(error) = connect(client, session, &id).await {
                tracing::debug!(%error, "could not relay to the ssh agent");
            }
        });
    }
}

async fn connect(mut client: UnixStream, session: Arc<dyn Session>, id: &str) -> Result<(), Diagnostic> {
    let mut agent = session.ssh(id).await?;
    relay::relay(&mut client, &mut agent).await;
    Ok(())
}
