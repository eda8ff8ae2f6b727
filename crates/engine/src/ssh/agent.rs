//! The agent that a person at this machine names: one that runs already, or one of our own with keys from files.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use slipway_model::solve::SshSpec;
use slipway_model::{Diagnostic, ErrorKind};

use super::keys::KeyAgent;
use crate::error::Context as _;

/// Who signs.
#[derive(Debug)]
pub(crate) enum Agent {
    /// One that runs already.
    Running(PathBuf),
    /// One of our own; it ends with this.
    Own(OwnAgent),
}

/// A thread that keeps an agent: an agent of our own lives as long as the thread that starts it.
#[derive(Debug)]
pub(crate) struct OwnAgent {
    socket: PathBuf,
    /// The thread ends when this is dropped.
    stop: Option<SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl OwnAgent {
    fn start(spec: &SshSpec, directory: &Path) -> Result<Self, Diagnostic> {
        let (stop, stopped) = sync_channel(1);
        let (ready, started) = sync_channel(1);
        let (paths, directory) = (spec.paths.clone(), directory.to_owned());
        let thread = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || match KeyAgent::start(&paths, &directory) {
                Ok(agent) => {
                    let _ = ready.send(Ok(agent.socket().to_owned()));
                    // Nothing is ever sent: this waits for the other end to go.
                    let _: Result<(), _> = stopped.recv();
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .diagnose()?;
        let socket = started.recv().map_err(|_| crate::error::internal("the ssh agent ended early"))??;
        Ok(Self { socket, stop: Some(stop), thread: Some(thread) })
    }
}

impl Agent {
    /// Finds the agent's socket, or starts one with the keys that are named, in a directory of its own; blocks.
    pub(crate) fn open(
        spec: &SshSpec,
        directory: impl FnOnce() -> Result<PathBuf, Diagnostic>,
    ) -> Result<Self, Diagnostic> {
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
            Ok(_) => OwnAgent::start(spec, &directory()?).map(Self::Own),
            Err(error) => Err(error).context(|| format!("cannot use `{}` for ssh", path.display())),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Running(path) => path,
            Self::Own(agent) => &agent.socket,
        }
    }
}
