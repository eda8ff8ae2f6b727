//! Containers of clients and frontends: made of references, with processes whose streams are messages.
//!
//! All processes of one `ExecProcess` stream live as long as the stream; one that is dropped is killed. Processes of
//! several streams may be in one container.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use slipway_engine::runtime::{Stdio, Terminal};
use slipway_engine::{Container, ContainerMount, ContainerProcess, ContainerRequest, ProcessRequest};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind, Platform};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::Bridge;
use crate::wire::gateway::exec_message::Input;
use crate::wire::gateway::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, NewContainerRequest, StartedMessage,
};
use crate::wire::{RpcStatus, error, recode};

/// Bytes in one message.
const CHUNK: usize = 32 * 1024;
/// How long what a process wrote is read on after its end.
const DRAIN: Duration = Duration::from_secs(5);

type Messages = mpsc::Sender<Result<ExecMessage, Status>>;

impl Bridge {
    pub(super) async fn new_container(&self, request: NewContainerRequest) -> Result<(), Status> {
        if self.containers.lock().contains_key(&request.container_id) {
            return Err(Status::already_exists(format!("Container {} already exists", request.container_id)));
        }
        let mut mounts = Vec::with_capacity(request.mounts.len());
        for mount in &request.mounts {
            let reference = self.find_files(&mount.result_id)?;
            mounts.push(ContainerMount { mount: recode(mount), reference, content: None });
        }
        let platform = request.platform.as_ref().map(|platform| {
            let mut platform: pb::Platform = recode(platform);
            // One that does not say its architecture is this machine's.
            if platform.architecture.is_empty() {
                platform.architecture = Platform::host().architecture;
            }
            Platform::from(&platform)
        });
        let container = self.build.container(ContainerRequest {
            mounts,
            network: request.network,
            platform,
            hostname: request.hostname,
            extra_hosts: request.extra_hosts.iter().map(recode).collect(),
        });
        let container = container.await.map_err(|diagnostic| self.status(&diagnostic))?;
        self.containers.lock().insert(request.container_id, Arc::new(container));
        Ok(())
    }

    pub(super) fn release_container(&self, id: &str) -> Result<(), Status> {
        let released = self.containers.lock().remove(id);
        let container = released.ok_or_else(|| not_found(id))?;
        container.release().map_err(|diagnostic| error::status(&diagnostic))
    }

    /// Finds a container.
    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        self.containers.lock().get(id).cloned().ok_or_else(|| not_found(id))
    }
}

fn not_found(id: &str) -> Status {
    Status::unknown(format!("container details for {id} not found"))
}

/// Runs the processes of one stream; its messages are the result.
pub(super) fn exec(
    bridge: Arc<Bridge>,
    incoming: Streaming<ExecMessage>,
) -> BoxStream<'static, Result<ExecMessage, Status>> {
    let (sender, receiver) = mpsc::channel(64);
    let run = async move {
        if let Err(status) = serve(&bridge, incoming, &sender).await {
            let _ = sender.send(Err(status)).await;
        }
    };
    let driver = stream::once(run).filter_map(|()| std::future::ready(None));
    stream::select(ReceiverStream::new(receiver), driver).boxed()
}

/// The side of a process that messages of the client go to.
struct Started {
    process: Arc<ContainerProcess>,
    terminal: Option<Arc<Terminal>>,
    stdin: Option<mpsc::Sender<Vec<u8>>>,
}

async fn serve(
    bridge: &Arc<Bridge>,
    mut incoming: Streaming<ExecMessage>,
    sender: &Messages,
) -> Result<(), Status> {
    let mut started: HashMap<String, Started> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut open = true;
    while open || !tasks.is_empty() {
        tokio::select! {
            message = incoming.message(), if open => match message? {
                None => open = false,
                Some(message) => take(bridge, message, &mut started, &mut tasks, sender).await?,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
    Ok(())
}

async fn take(
    bridge: &Arc<Bridge>,
    message: ExecMessage,
    started: &mut HashMap<String, Started>,
    tasks: &mut JoinSet<()>,
    sender: &Messages,
) -> Result<(), Status> {
    let id = message.process_id;
    if id.is_empty() {
        return Err(Status::invalid_argument("ProcessID required"));
    }
    if let Some(Input::Init(init)) = message.input {
        if started.contains_key(&id) {
            return Err(Status::already_exists(format!("Process {id} already exists")));
        }
        if let Some(process) = start(bridge, &id, init, tasks, sender).await? {
            started.insert(id, process);
        }
        return Ok(());
    }
    let process = started
        .get_mut(&id)
        .ok_or_else(|| Status::not_found(format!("IO for process \"{id}\" not found")))?;
    match message.input {
        Some(Input::File(file)) if file.fd == 0 => {
            if !file.data.is_empty()
                && let Some(stdin) = &process.stdin
            {
                // A process that has ended reads no more.
                let _ = stdin.send(file.data).await;
            }
            if file.eof {
                process.stdin = None;
            }
        }
        Some(Input::Resize(size)) => {
            if let Some(terminal) = &process.terminal {
                let cell = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
                let size = rustix::termios::Winsize {
                    ws_row: cell(size.rows),
                    ws_col: cell(size.cols),
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let _ = rustix::termios::tcsetwinsize(terminal.master(), size);
            }
        }
        Some(Input::Signal(signal)) => {
            let number = signal_number(&signal.name)
                .ok_or_else(|| Status::invalid_argument(format!("Unknown signal {}", signal.name)))?;
            process.process.signal(number);
        }
        _ => {}
    }
    Ok(())
}

fn io(error: std::io::Error) -> Status {
    Status::internal(format!("cannot make the streams of a process: {error}"))
}

async fn start(
    bridge: &Arc<Bridge>,
    id: &str,
    init: InitMessage,
    tasks: &mut JoinSet<()>,
    sender: &Messages,
) -> Result<Option<Started>, Status> {
    let container = bridge.containers.lock().get(&init.container_id).cloned().ok_or_else(|| {
        Status::not_found(format!("container \"{}\" previously released or not created", init.container_id))
    })?;
    let streams = Streams::open(&container, &init)?;
    let Streams { stdio, stdin, outputs, terminal } = streams;
    let request = ProcessRequest {
        meta: init.meta.as_ref().map(recode).unwrap_or_default(),
        security: init.security,
        secret_env: init.secretenv.iter().map(recode).collect(),
        stdio,
    };
    let process = match request.security {
        0 | 1 => container.start(request).await,
        other => Err(Diagnostic::new(ErrorKind::User, format!("invalid security mode: {other}"))),
    };
    let send = |input: Input| {
        let message = ExecMessage { process_id: id.to_owned(), input: Some(input) };
        async { sender.send(Ok(message)).await.map_err(|_| Status::cancelled("gone")) }
    };
    send(Input::Started(StartedMessage {})).await?;
    let process = match process {
        Ok(process) => Arc::new(process),
        // Clients wait for the end of a process, not of the stream.
        Err(diagnostic) => {
            let error = Some(error::rpc_status(&diagnostic));
            send(Input::Exit(ExitMessage { code: 255, error })).await?;
            send(Input::Done(DoneMessage {})).await?;
            return Ok(None);
        }
    };
    let feed = stdin.map(|stdin| feed(stdin, init.tty, tasks));
    let run = run(id.to_owned(), process.clone(), terminal.clone(), outputs, sender.clone());
    tasks.spawn(run);
    Ok(Some(Started { process, terminal, stdin: feed }))
}

/// What a process reads from and writes to.
struct Streams {
    stdio: Stdio,
    stdin: Option<OwnedFd>,
    outputs: Vec<(u32, OwnedFd)>,
    terminal: Option<Arc<Terminal>>,
}

impl Streams {
    fn open(container: &Container, init: &InitMessage) -> Result<Self, Status> {
        if init.tty {
            let terminal = Arc::new(container.terminals().open().map_err(|errno| io(errno.into()))?);
            let clone = || terminal.master().try_clone_to_owned().map_err(io);
            let stdio = Stdio::Terminal(terminal.name().to_owned());
            let (stdin, outputs) = (Some(clone()?), vec![(1, clone()?)]);
            return Ok(Self { stdio, stdin, outputs, terminal: Some(terminal) });
        }
        let nothing = || {
            let file = std::fs::File::options().read(true).write(true).open("/dev/null");
            file.map(OwnedFd::from).map_err(io)
        };
        let (mut stdin, mut outputs) = (None, Vec::new());
        let theirs_in = match init.fds.contains(&0) {
            true => {
                let (reader, writer) = std::io::pipe().map_err(io)?;
                stdin = Some(writer.into());
                reader.into()
            }
            false => nothing()?,
        };
        let mut output = |fd: u32| match init.fds.contains(&fd) {
            true => {
                let (reader, writer) = std::io::pipe().map_err(io)?;
                outputs.push((fd, reader.into()));
                Ok::<OwnedFd, Status>(writer.into())
            }
            false => nothing(),
        };
        let (stdout, stderr) = (output(1)?, output(2)?);
        Ok(Self {
            stdio: Stdio::Streams { stdin: theirs_in, stdout, stderr },
            stdin,
            outputs,
            terminal: None,
        })
    }
}

/// Writes what the client sends to a process, until one of them ends.
fn feed(stdin: OwnedFd, is_terminal: bool, tasks: &mut JoinSet<()>) -> mpsc::Sender<Vec<u8>> {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(16);
    tasks.spawn(async move {
        if is_terminal {
            let mut file = std::fs::File::from(stdin);
            while let Some(data) = receiver.recv().await {
                let write = tokio::task::spawn_blocking(move || {
                    let written = std::io::Write::write_all(&mut file, &data);
                    written.map(|()| file)
                });
                match write.await {
                    Ok(Ok(back)) => file = back,
                    _ => break,
                }
            }
        } else if let Ok(mut pipe) = pipe::Sender::from_owned_fd(stdin) {
            while let Some(data) = receiver.recv().await {
                if pipe.write_all(&data).await.is_err() {
                    break;
                }
            }
        }
    });
    sender
}

async fn run(
    id: String,
    process: Arc<ContainerProcess>,
    terminal: Option<Arc<Terminal>>,
    outputs: Vec<(u32, OwnedFd)>,
    sender: Messages,
) {
    let send = |input: Input| sender.send(Ok(ExecMessage { process_id: id.clone(), input: Some(input) }));
    let mut readers = JoinSet::new();
    for (fd, output) in outputs {
        readers.spawn(pass_on(id.clone(), fd, output, terminal.is_some(), sender.clone()));
    }
    let ended = process.wait().await;
    if let Some(terminal) = &terminal {
        terminal.hang_up();
    }
    // Whatever else holds the streams has been killed with the first process; what another one left may run on.
    let drained = async { while readers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    let (code, error) = match ended {
        Ok(0) => (0, None),
        Ok(code) => (code as u32, Some(exit_error(code))),
        Err(diagnostic) => (255, Some(error::rpc_status(&diagnostic))),
    };
    let _ = send(Input::Exit(ExitMessage { code, error })).await;
    let _ = send(Input::Done(DoneMessage {})).await;
}

fn exit_error(code: i32) -> RpcStatus {
    let mut diagnostic = Diagnostic::new(ErrorKind::User, format!("exit code: {code}"));
    diagnostic.exit_code = Some(code);
    RpcStatus { code: Code::Unknown as i32, ..error::rpc_status(&diagnostic) }
}

async fn pass_on(id: String, fd: u32, output: OwnedFd, is_terminal: bool, sender: Messages) {
    let message = |data: Vec<u8>, eof: bool| {
        let input = Some(Input::File(FdMessage { fd, eof, data }));
        Ok(ExecMessage { process_id: id.clone(), input })
    };
    if is_terminal {
        let mut file = std::fs::File::from(output);
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK];
                let length = std::io::Read::read(&mut file, &mut chunk).unwrap_or(0);
                chunk.truncate(length);
                (file, chunk)
            });
            let Ok((back, chunk)) = read.await else { break };
            file = back;
            if chunk.is_empty() || sender.send(message(chunk, false)).await.is_err() {
                break;
            }
        }
    } else if let Ok(mut pipe) = pipe::Receiver::from_owned_fd(output) {
        loop {
            let mut chunk = vec![0; CHUNK];
            match pipe.read(&mut chunk).await {
                Ok(length) if length > 0 => {
                    chunk.truncate(length);
                    if sender.send(message(chunk, false)).await.is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
    }
    let _ = sender.send(message(Vec::new(), true)).await;
}

/// Returns the number of a signal by its name without `SIG`.
fn signal_number(name: &str) -> Option<i32> {
    let names = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = name.strip_prefix("SIG").unwrap_or(name);
    names.iter().position(|known| *known == name).map(|index| index as i32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_numbers_of_linux() {
        assert_eq!(signal_number("HUP"), Some(1));
        assert_eq!(signal_number("SIGKILL"), Some(9));
        assert_eq!(signal_number("TERM"), Some(15));
        assert_eq!(signal_number("WINCH"), Some(28));
        assert_eq!(signal_number("SYS"), Some(31));
        assert_eq!(signal_number("NONE"), None);
    }
}
