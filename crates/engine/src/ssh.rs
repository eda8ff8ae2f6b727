//! Forwarding an ssh agent into a step: a socket of the step's own that leads to the person's agent.
//!
//! The agent's socket itself is not mounted: its owner and mode would be the host's, and a step that runs as
//! another user could not open it.

use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipway_model::llb::pb;
use slipway_model::solve::SshSpec;
use slipway_model::{Diagnostic, ErrorKind};

use crate::error::Context as _;

/// A socket in a directory of the store; removed when dropped.
pub(crate) struct AgentSocket {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
}

impl AgentSocket {
    /// Listens in `directory`, with the owner and mode that the step asks for.
    pub(crate) fn listen(spec: &SshSpec, options: &pb::SshOpt, directory: &Path) -> Result<Self, Diagnostic> {
        let agent = agent_path(spec)?;
        let path = directory.join("agent.sock");
        let listener =
            UnixListener::bind(&path).context(|| format!("cannot forward the ssh agent `{}`", spec.id))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(options.mode & 0o777)).diagnose()?;
        std::os::unix::fs::chown(&path, Some(options.uid), Some(options.gid)).diagnose()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = stopped.clone();
        std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || accept(&listener, &agent, &flag))
            .diagnose()?;
        Ok(Self { path, stopped })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the listener, which then sees the flag.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Finds the agent's socket; keys in files are for a later version.
fn agent_path(spec: &SshSpec) -> Result<PathBuf, Diagnostic> {
    let path = match spec.paths.as_slice() {
        [] => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
            Diagnostic::new(ErrorKind::User, format!("no ssh agent to forward as `{}`", spec.id))
                .cause("SSH_AUTH_SOCK is not set")
                .hint("start one with `eval $(ssh-agent)` and add keys with `ssh-add`")
        })?,
        [path, ..] => path.clone(),
    };
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(path),
        Ok(_) => Err(Diagnostic::new(ErrorKind::User, format!("cannot use `{}` for ssh", path.display()))
            .cause("it is not the socket of an agent")
            .hint("load the key into an agent with `ssh-add`, and forward that with `--ssh default`")),
        Err(error) => Err(error).context(|| format!("cannot use `{}` for ssh", path.display())),
    }
}

fn accept(listener: &UnixListener, agent: &Path, stopped: &AtomicBool) {
    for client in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let connection = client.and_then(|client| Ok((client, UnixStream::connect(agent)?)));
        if let Ok((client, agent)) = connection
            && let Err(error) = relay(client, agent)
        {
            tracing::debug!(%error, "could not relay to the ssh agent");
        }
    }
}

/// Copies both ways on two threads until either side ends.
fn relay(client: UnixStream, agent: UnixStream) -> io::Result<()> {
    let copy = |mut from: UnixStream, mut to: UnixStream| {
        std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    copy(client.try_clone()?, agent.try_clone()?)?;
    copy(agent, client)?;
    Ok(())
}
