//! Programs in a step that is stopped at, in a terminal that the editor opens.
//!
//! The editor starts `dap attach` with the path of a socket. Whoever is attached is with the thread that holds the
//! terminal: the first one that stops. When it goes on its program ends, and the terminal waits for the next stop.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use slipway_daemon::client::{Container, ContainerSpec, Gateway, Process, ProcessEvent, ProgramSpec};
use slipway_model::Diagnostic;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::attach::Typed;

/// What is run where nothing else was asked for.
const PROGRAM: &str = "/bin/sh";

/// The place where terminals attach.
#[derive(Debug)]
pub(super) struct Shell {
    listener: UnixListener,
    path: PathBuf,
    _directory: TempDir,
    /// What is run next.
    command: Mutex<Vec<String>>,
    /// Held by the thread that may use the terminal.
    terminal: tokio::sync::Mutex<Option<Terminal>>,
}

/// What a program is run in.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) container: ContainerSpec,
    /// Its arguments are of the command.
    pub(super) program: ProgramSpec,
    pub(super) line: i64,
}

/// Why a program is not attended to any more.
enum Ended {
    Program,
    Terminal,
    /// The thread goes on.
    Stopped,
}

impl Shell {
    /// Makes a place where only this user can attach.
    pub(super) fn open() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("slipway-dap").tempdir()?;
        let path = directory.path().join("s.sock");
        Ok(Self {
            listener: UnixListener::bind(&path)?,
            path,
            _directory: directory,
            command: Mutex::default(),
            terminal: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets what is run by who attaches next; nothing is a shell.
    pub(super) fn run_next(&self, command: Vec<String>) {
        *self.command.lock() = command;
    }

    /// Runs a program for each terminal that attaches, until `stop`.
    pub(super) async fn serve(&self, gateway: &Gateway, target: Option<&Target>, stop: &CancellationToken) {
        let mut held = tokio::select! {
            held = self.terminal.lock() => held,
            () = stop.cancelled() => return,
        };
        loop {
            let mut terminal = match held.take() {
                Some(terminal) => terminal,
                None => tokio::select! {
                    accepted = self.listener.accept() => match accepted {
                        Ok((stream, _)) => Terminal::new(stream).await,
                        Err(error) => return tracing::debug!(%error, "no terminal can attach any more"),
                    },
                    () = stop.cancelled() => return,
                },
            };
            match self.run(gateway, target, &mut terminal, stop).await {
                Ended::Program | Ended::Terminal => {}
                Ended::Stopped => {
                    *held = Some(terminal);
                    return;
                }
            }
        }
    }

    /// Runs a program for a terminal until `stop`: no terminal that takes nothing more, and no program that reads
    /// nothing, keeps the thread.
    async fn run(
        &self,
        gateway: &Gateway,
        target: Option<&Target>,
        terminal: &mut Terminal,
        stop: &CancellationToken,
    ) -> Ended {
        let container = OnceCell::new();
        let ended = tokio::select! {
            ended = self.attend(gateway, target, terminal, &container) => ended,
            () = stop.cancelled() => Ended::Stopped,
        };
        if let Some(container) = container.get() {
            container.release().await;
        }
        ended
    }

    async fn attend(
        &self,
        gateway: &Gateway,
        target: Option<&Target>,
        terminal: &mut Terminal,
        container: &OnceCell<Container>,
    ) -> Ended {
        let Some(target) = target else {
            terminal.say("Nothing can be run here: there are no files yet.").await;
            return terminal.idle().await;
        };
        let container = container.get_or_try_init(|| gateway.container(target.container.clone()));
        let started = match container.await {
            Ok(container) => self.start(container, target, terminal).await,
            Err(error) => Err(error),
        };
        let mut process = match started {
            Ok(process) => process,
            Err(error) => return terminal.refused(&error).await,
        };
        let input = process.input();
        if let Some((rows, columns)) = terminal.size {
            input.resize(rows, columns).await;
        }
        loop {
            tokio::select! {
                event = process.next() => match event {
                    Ok(ProcessEvent::Output(data)) => terminal.show(&data).await,
                    Ok(ProcessEvent::Exited(_, None)) => return Ended::Program,
                    Ok(ProcessEvent::Exited(_, Some(text))) => {
                        terminal.say(&format!("Build container is not executable. (reason: {text})")).await;
                        return terminal.idle().await;
                    }
                    Err(error) => return terminal.refused(&error).await,
                },
                typed = terminal.typed() => match typed {
                    Some(Typed::Keys(keys)) => input.write(keys).await,
                    Some(Typed::Size { rows, columns }) => input.resize(rows, columns).await,
                    None => return Ended::Terminal,
                },
                Ok((stream, _)) = self.listener.accept() => {
                    Terminal::new(stream).await.say("Another terminal is attached already.").await;
                }
            }
        }
    }

    /// Starts what is asked for.
    async fn start(
        &self,
        container: &Container,
        target: &Target,
        terminal: &mut Terminal,
    ) -> Result<Process, Diagnostic> {
        let mut program = target.program.clone();
        program.meta.args = self.command.lock().clone();
        if program.meta.args.is_empty() {
            program.meta.args.push(PROGRAM.to_owned());
        }
        let name = program.meta.args.join(" ");
        terminal.say(&format!("Running {name} in build container from line {}.", target.line)).await;
        terminal.say("Changes to the container will be reset after the next step is executed.").await;
        container.start(program).await
    }
}

/// A terminal that is attached.
#[derive(Debug)]
struct Terminal {
    stream: UnixStream,
    arrived: Vec<u8>,
    size: Option<(u16, u16)>,
}

impl Terminal {
    async fn new(stream: UnixStream) -> Self {
        let mut terminal = Self { stream, arrived: Vec::new(), size: None };
        terminal.say("Attached to build process.").await;
        terminal
    }

    /// Shows what a program wrote; a terminal that is gone is noticed when it is read from.
    async fn show(&mut self, data: &[u8]) {
        let _ = self.stream.write_all(data).await;
    }

    /// Shows a line of ours.
    async fn say(&mut self, line: &str) {
        self.show(format!("{}\r\n", crate::ui::printable(line)).as_bytes()).await;
    }

    /// Waits for what is typed; `None` if nobody types any more. It may be dropped while it waits.
    async fn typed(&mut self) -> Option<Typed> {
        loop {
            let typed = Typed::decode(&mut self.arrived).ok()?;
            if let Some(Typed::Size { rows, columns }) = typed {
                self.size = Some((rows, columns));
            }
            if typed.is_some() {
                return typed;
            }
            match self.stream.read_buf(&mut self.arrived).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    /// Waits where nothing runs; what is typed is lost.
    async fn idle(&mut self) -> Ended {
        while self.typed().await.is_some() {}
        Ended::Terminal
    }

    async fn refused(&mut self, error: &Diagnostic) -> Ended {
        self.say(&format!("Nothing can be run here: {error}")).await;
        self.idle().await
    }
}
