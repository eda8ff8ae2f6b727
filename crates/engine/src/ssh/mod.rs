//! Forwarding an ssh agent into a step: a socket of the step's own that leads to the person's agent.
//!
//! The agent's socket itself is not mounted: its owner and mode would be the host's, and a step that runs as
//! another user could not open it. And a step may use keys, but not take them away, add some or lock the agent:
//! what it asks for besides is refused here.

mod keys;
mod relay;

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use slipway_model::llb::pb;
use slipway_model::solve::SshSpec;
use slipway_model::{Diagnostic, ErrorKind};

use crate::error::Context as _;
use keys::KeyAgent;

/// A socket in a directory of the store; removed when dropped.
pub(crate) struct AgentSocket {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Who signs.
enum Agent {
    /// One that runs already.
    Running(PathBuf),
    /// One of our own, with keys from files.
    Own(KeyAgent),
}

impl AgentSocket {
    /// Listens in `directory`, with the owner and mode that the step asks for.
    pub(crate) fn listen(spec: &SshSpec, options: &pb::SshOpt, directory: &Path) -> Result<Self, Diagnostic> {
        let path = directory.join("agent.sock");
        let listener =
            UnixListener::bind(&path).context(|| format!("cannot forward the ssh agent `{}`", spec.id))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(options.mode & 0o777)).diagnose()?;
        std::os::unix::fs::chown(&path, Some(options.uid), Some(options.gid)).diagnose()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = stopped.clone();
        let (ready, started) = sync_channel(1);
        let (spec, directory) = (spec.clone(), directory.to_owned());
        // An agent of our own lives as long as the thread that starts it.
        let thread = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&spec, &directory, &listener, &ready, &flag))
            .diagnose()?;
        let socket = Self { path, stopped, thread: Some(thread) };
        let started = started.recv().map_err(|_| crate::error::internal("the ssh agent ended early"))?;
        started.map(|()| socket)
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
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Agent {
    /// Finds the agent's socket, or starts one with the keys that are named.
    fn open(spec: &SshSpec, directory: &Path) -> Result<Self, Diagnostic> {
        let path = match spec.paths.as_slice() {
            [] => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
                Diagnostic::new(ErrorKind::User, format!("no ssh agent to forward as `{}`", spec.id))
                    .cause("SSH_AUTH_SOCK is not set")
                    .hint(format!(
                        "start one with `eval $(ssh-agent)` and add keys with `ssh-add`, or name a key: \
                         `--ssh {}=FILE`",
                        spec.id
                    ))
            })?,
            [path, ..] => path.clone(),
        };
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.file_type().is_socket() && spec.paths.len() > 1 => {
                Err(Diagnostic::new(ErrorKind::User, format!("cannot use `{}` for ssh", path.display()))
                    .cause("it is the socket of an agent, and other keys are named beside it")
                    .hint("forward agents and keys under different names"))
            }
            Ok(metadata) if metadata.file_type().is_socket() => Ok(Self::Running(path)),
            Ok(_) => KeyAgent::start(&spec.paths, directory).map(Self::Own),
            Err(error) => Err(error).context(|| format!("cannot use `{}` for ssh", path.display())),
        }
    }

    fn socket(&self) -> &Path {
        match self {
            Self::Running(path) => path,
            Self::Own(agent) => agent.socket(),
        }
    }
}

fn serve(
    spec: &SshSpec,
    directory: &Path,
    listener: &UnixListener,
    ready: &SyncSender<Result<(), Diagnostic>>,
    stopped: &AtomicBool,
) {
    let agent = match Agent::open(spec, directory) {
        Ok(agent) => agent,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let _ = ready.send(Ok(()));
    for client in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let connection = client.and_then(|client| Ok((client, UnixStream::connect(agent.socket())?)));
        let relayed = connection.and_then(|(client, agent)| relay::start(client, agent));
        if let Err(error) = relayed {
            tracing::debug!(%error, "could not relay to the ssh agent");
        }
    }
}
