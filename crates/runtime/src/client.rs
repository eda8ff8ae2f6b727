//! The engine's side: starts a sandbox server and runs processes through it.
//!
//! All calls block and may be made from any thread. A [`Process`] has a socket of its own, so waiting
//! for one disturbs no other, and dropping it kills the process.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::error::{ProcessError, StartError, StartStage};
use crate::exit::Exit;
use crate::protocol::{
    self, Hello, MountRequest, Order, Outcome, Request, SourceRequest, Starting, Surroundings,
};
use crate::server::SERVER_NAME;
use crate::spec::{MountSource, ProcessSettings, ProcessSpec, Stdio};
use crate::sys::mount;

/// What kind of sandbox server to start.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Puts the server in a child user namespace in which every id means what it means here.
    pub user_namespace: bool,
    /// Lines to register in the server's own binfmt_misc table; needs `user_namespace`.
    ///
    /// With the flag `F` the interpreter is opened now, from the host's file system. The host's own
    /// table is not touched.
    pub binfmt: Vec<String>,
    /// The program to run as the server: one that calls [`crate::dispatch`]; by default this one.
    pub program: Option<PathBuf>,
}

/// A running sandbox server.
#[derive(Debug)]
pub struct SandboxServer {
    requests: OwnedFd,
    child: Mutex<Child>,
    next: AtomicU64,
}

impl SandboxServer {
    /// Starts a server and waits until it can take requests.
    ///
    /// # Errors
    /// With `user_namespace` or `binfmt`, an error tells that this kernel, or its configuration, has no
    /// such thing; nothing is left running.
    pub fn start(options: &ServerOptions) -> Result<Arc<Self>, StartError> {
        let (ours, theirs) = protocol::pair().map_err(StartError::Connection)?;
        let program = options.program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let mut child = Command::new(program)
            .arg0(SERVER_NAME)
            .env_clear()
            .envs(
                ["LD_LIBRARY_PATH", "RUST_BACKTRACE"].iter().filter_map(|n| Some((n, std::env::var_os(n)?))),
            )
            .current_dir("/")
            .stdin(ProcessStdio::from(theirs))
            .stdout(ProcessStdio::null())
            .spawn()
            .map_err(StartError::Spawn)?;
        let started = greet(&ours, &child, options);
        if let Err(error) = started {
            drop(ours);
            // The server ends by itself at the end of its socket; a kill makes sure of it.
            child.kill().and_then(|()| child.wait()).map_err(StartError::Spawn)?;
            return Err(error);
        }
        Ok(Arc::new(Self { requests: ours, child: Mutex::new(child), next: AtomicU64::new(0) }))
    }

    /// Starts a process in a container of its own.
    ///
    /// Errors of the set-up inside the sandbox are reported by [`Process::wait`], except those that
    /// show before anything is sent.
    pub fn spawn(&self, spec: ProcessSpec) -> Result<Process, ProcessError> {
        let ProcessSpec { root, mut mounts, terminals, stdio, listener, settings } = spec;
        mounts.sort_by_key(|mount| path_depth(&mount.destination));
        let mut files: Vec<Vec<u8>> = Vec::new();
        let mut detached = Vec::new();
        let mut offset = 0;
        let mut requests = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let source = match mount.source {
                MountSource::Detached(fd) => {
                    if mount.readonly {
                        mount::set_readonly(&fd, true).map_err(|errno| ProcessError::Mount {
                            destination: mount.destination.clone(),
                            reason: crate::MountFailure::Refused(errno.raw_os_error()),
                        })?;
                    }
                    detached.push(fd);
                    SourceRequest::Detached
                }
                MountSource::Device(fd) => {
                    detached.push(fd);
                    SourceRequest::Device
                }
                MountSource::Subtree { mount, path } => {
                    detached.push(mount);
                    SourceRequest::Subtree { path }
                }
                MountSource::Tmpfs { size, mode } => SourceRequest::Tmpfs { size, mode },
                MountSource::File(file) => {
                    let length = file.content.len();
                    files.push(file.content);
                    offset += length;
                    let (mode, uid, gid) = (file.mode, file.uid, file.gid);
                    SourceRequest::File { offset: offset - length, length, mode, uid, gid }
                }
            };
            requests.push(MountRequest { destination: mount.destination, readonly: mount.readonly, source });
        }
        if detached.len() > protocol::MAX_MOUNT_FDS {
            return Err(ProcessError::TooManyMounts(detached.len()));
        }
        let surroundings = Surroundings::Own {
            mounts: requests,
            terminals: terminals.is_some(),
            listener: listener.as_ref().map(|listener| listener.address),
        };
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let mut fds = vec![root.as_fd()];
        fds.extend(terminals.iter().map(AsFd::as_fd));
        fds.extend(listener.iter().map(|listener| listener.handover.as_fd()));
        fds.extend(detached.iter().map(AsFd::as_fd));
        self.send(settings, surroundings, &files, &stdio, &fds)
    }

    /// Starts a process in the container of another one, `first`, which this server has started.
    ///
    /// It has the namespaces and mounts of the first process, and a user, limits and rights of its own. It waits for
    /// the first one's program to run, and is killed when that ends. An end of the first process before that is
    /// reported by [`Process::wait`].
    pub fn join(
        &self,
        first: &Process,
        stdio: &Stdio,
        settings: ProcessSettings,
    ) -> Result<Process, ProcessError> {
        self.send(settings, Surroundings::Shared { with: first.id }, &[], stdio, &[])
    }

    fn send(
        &self,
        settings: ProcessSettings,
        surroundings: Surroundings,
        files: &[&[u8]],
        stdio: &Stdio,
        more: &[BorrowedFd<'_>],
    ) -> Result<Process, ProcessError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (terminal, streams) = match stdio {
            Stdio::Streams { stdin, stdout, stderr } => {
                (None, vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
            }
            Stdio::Terminal(name) => (Some(name.clone()), Vec::new()),
        };
        let request = Request { id, settings, terminal, surroundings };
        let send = || {
            let (body, length) = protocol::write_body(&request, files)?;
            let (ours, theirs) = protocol::pair()?;
            let mut fds: Vec<BorrowedFd<'_>> = vec![body.as_fd(), theirs.as_fd()];
            fds.extend(streams);
            fds.extend(more);
            protocol::send_with(&self.requests, &length.to_le_bytes(), &fds)?;
            Ok(Process { id, control: Arc::new(ours), outcome: Mutex::new(None) })
        };
        send().map_err(|errno| match errno {
            Errno::PIPE | Errno::CONNRESET => ProcessError::ServerGone,
            other => ProcessError::Connection(other.raw_os_error()),
        })
    }

    /// Returns the process id of the server.
    pub fn id(&self) -> u32 {
        self.child.lock().id()
    }
}

impl Drop for SandboxServer {
    /// Ends the server, which kills what still runs, and waits for it.
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.requests, rustix::net::Shutdown::Both);
        let _ = self.child.get_mut().wait();
    }
}

/// Sends the options, writes the id maps when asked to, and waits until the server is ready.
fn greet(socket: &OwnedFd, child: &Child, options: &ServerOptions) -> Result<(), StartError> {
    let hello = Hello { user_namespace: options.user_namespace, binfmt: options.binfmt.clone() };
    protocol::send(socket, &hello).map_err(StartError::Connection)?;
    loop {
        match protocol::receive::<Starting>(socket) {
            Ok(Some(Starting::Ready)) => return Ok(()),
            Ok(Some(Starting::MapIds)) => {
                write_identity_maps(child.id()).map_err(StartError::IdMap)?;
                protocol::send(socket, &()).map_err(StartError::Connection)?;
            }
            Ok(Some(Starting::Failed { what, errno })) => {
                return Err(StartError::Setup { what, errno: Errno::from_raw_os_error(errno) });
            }
            Ok(None) | Err(Errno::CONNRESET) => return Err(StartError::Ended),
            Err(Errno::BADMSG) => {
                return Err(StartError::Setup { what: StartStage::Protocol, errno: Errno::BADMSG });
            }
            Err(errno) => return Err(StartError::Connection(errno)),
        }
    }
}

/// Maps every id that exists here to itself in the user namespace of a child process.
fn write_identity_maps(pid: u32) -> std::io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        let own = std::fs::read_to_string(format!("/proc/self/{map}"))?;
        let mut file = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/{map}"))?;
        // The kernel takes a map in one write only.
        file.write_all(identity_map(&own).as_bytes())?;
    }
    Ok(())
}

/// Turns `inside outside count` lines into `inside inside count` ones.
fn identity_map(own: &str) -> String {
    let mut text = String::new();
    for line in own.lines() {
        let mut fields = line.split_ascii_whitespace();
        if let (Some(inside), Some(count)) = (fields.next(), fields.nth(1)) {
            text.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    text
}

/// Sorts mounts so that a directory comes before what is below it, and equal depths keep their order.
fn path_depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").count()
}

/// A running process; dropping it kills it, and everything in its container if it is the first there.
#[derive(Debug)]
pub struct Process {
    id: u64,
    control: Arc<OwnedFd>,
    outcome: Mutex<Option<Outcome>>,
}

impl Process {
    /// Waits for the end of the process.
    ///
    /// # Errors
    /// The process could not be run at all, or the server was killed.
    pub fn wait(&self) -> Result<Exit, ProcessError> {
        let mut outcome = self.outcome.lock();
        outcome
            .get_or_insert_with(|| match protocol::receive::<Outcome>(&self.control) {
                Ok(Some(outcome)) => outcome,
                Ok(None) | Err(Errno::CONNRESET) => Err(ProcessError::ServerGone),
                Err(errno) => Err(ProcessError::Connection(errno.raw_os_error())),
            })
            .clone()
    }

    /// Kills the process, and everything in its container if it is the first there; [`Process::wait`] then tells so.
    pub fn kill(&self) {
        self.killer().kill();
    }

    /// Sends a signal to the process (not to its children).
    pub fn signal(&self, signal: i32) {
        self.killer().signal(signal);
    }

    /// Returns a handle for another thread that can end the process but does not keep it alive.
    pub fn killer(&self) -> Killer {
        Killer { control: Arc::clone(&self.control) }
    }
}

impl AsFd for Process {
    /// Returns a descriptor that becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends a process from another thread.
#[derive(Clone, Debug)]
pub struct Killer {
    control: Arc<OwnedFd>,
}

impl Killer {
    /// Kills the process, and everything in its container if it is the first there.
    pub fn kill(&self) {
        self.order(Order::Kill);
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        self.order(Order::Signal(signal));
    }

    fn order(&self, order: Order) {
        // A process that is gone needs no order.
        let _ = protocol::send(&self.control, &order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_map_keeps_every_id_where_it_is() {
        assert_eq!(identity_map("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_map("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(identity_map(""), "");
    }

    #[test]
    fn parents_are_mounted_first() {
        let mut paths = ["/a/b/c", "/x", "/a/b", "//a/./", "/"];
        paths.sort_by_key(|path| path_depth(path));
        assert_eq!(paths, ["/", "/x", "//a/./", "/a/b", "/a/b/c"]);
    }
}
