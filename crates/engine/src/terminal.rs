//! The terminal that slipway was started in, behind the one of a program in an image.
//!
//! While a [`Relay`] lives, our terminal is raw: keys, Ctrl-C too, are the program's. However it ends, by the
//! program's end, an error, a panic or a second signal, the terminal is put back as it was.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::termios::{self, OptionalActions, Termios};
use slipway_model::Diagnostic;
use slipway_runtime::{Stdio, Terminal, Terminals};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::error::Context as _;

/// What a terminal reads as the end of its input: Ctrl-D.
const END_OF_INPUT: [u8; 1] = [4];

/// How our terminal was before it became raw.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Puts our terminal back as it was; for a process that ends without returning.
pub fn restore_terminal() {
    if let Some(original) = ORIGINAL.lock().take() {
        // A terminal that is gone needs no mending.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &original);
    }
}

/// Our terminal, raw for as long as this lives: keys are passed on as they are. What is no terminal stays as it is.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes our terminal raw.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn enter() -> std::io::Result<Self> {
        make_raw().map(|()| Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Our streams, for a program: passed on as they are, or behind a terminal of its own.
pub(crate) struct OwnStreams {
    terminal: Option<Terminal>,
    input: bool,
}

impl OwnStreams {
    /// Returns what the program gets, a terminal if there is where to make it; our standard input only if `input`.
    pub(crate) fn open(terminals: Option<&Terminals>, input: bool) -> Result<(Self, Stdio), Diagnostic> {
        if let Some(terminals) = terminals {
            let terminal = terminals
                .open()
                .map_err(std::io::Error::from)
                .context(|| "cannot make a terminal for the program".to_owned())?;
            let stdio = Stdio::Terminal(terminal.name().to_owned());
            return Ok((Self { terminal: Some(terminal), input }, stdio));
        }
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().diagnose();
        let stdin = match input {
            true => copy(std::io::stdin().as_fd())?,
            false => File::open("/dev/null").diagnose()?.into(),
        };
        let stdio = Stdio::Streams {
            stdin,
            stdout: copy(std::io::stdout().as_fd())?,
            stderr: copy(std::io::stderr().as_fd())?,
        };
        Ok((Self { terminal: None, input }, stdio))
    }

    /// Starts to pass bytes on, until what this returns is dropped.
    pub(crate) fn relay(self) -> Result<Option<Relay>, Diagnostic> {
        let input = self.input;
        self.terminal.map(|terminal| Relay::start(terminal, input)).transpose().diagnose()
    }
}

/// Passes bytes between our streams and a program's terminal, and the size of ours.
pub(crate) struct Relay {
    terminal: Arc<Terminal>,
    output: Option<JoinHandle<()>>,
    _size: JoinSet<()>,
}

impl Relay {
    /// Starts to pass bytes on; our standard input too if `input`.
    fn start(terminal: Terminal, input: bool) -> std::io::Result<Self> {
        let terminal = Arc::new(terminal);
        let size = follow_size(terminal.clone())?;
        let master = || terminal.master().try_clone_to_owned().map(File::from);
        let from_program = master()?;
        if input {
            let to_program = master()?;
            make_raw()?;
            std::thread::Builder::new()
                .name("terminal-in".to_owned())
                .spawn(move || pass_input(to_program))
                .inspect_err(|_| restore_terminal())?;
        }
        let output = std::thread::Builder::new()
            .name("terminal-out".to_owned())
            .spawn(move || pass_output(from_program))
            .inspect_err(|_| restore_terminal())?;
        Ok(Self { terminal, output: Some(output), _size: size })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.terminal.hang_up();
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
        restore_terminal();
    }
}

/// Makes our standard input raw, if it is a terminal.
fn make_raw() -> std::io::Result<()> {
    static PANICS: Once = Once::new();
    if !std::io::stdin().is_terminal() {
        return Ok(());
    }
    PANICS.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore_terminal();
            previous(panic);
        }));
    });
    let original = termios::tcgetattr(std::io::stdin())?;
    let mut raw = original.clone();
    raw.make_raw();
    *ORIGINAL.lock() = Some(original);
    termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
    Ok(())
}

fn pass_input(mut to_program: File) {
    let copied = std::io::copy(&mut std::io::stdin().lock(), &mut to_program);
    // A terminal has no end of file: the program has to be told as a person would.
    if copied.is_ok() {
        let _ = to_program.write_all(&END_OF_INPUT);
    }
}

fn pass_output(mut from_program: File) {
    let mut buffer = [0u8; 8192];
    // Reading fails when the program's side is closed, which is its end.
    while let Ok(read @ 1..) = from_program.read(&mut buffer) {
        let mut out = std::io::stdout().lock();
        if out.write_all(&buffer[..read]).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
}

/// Gives the program's terminal the size of ours, now and whenever ours changes.
fn follow_size(terminal: Arc<Terminal>) -> std::io::Result<JoinSet<()>> {
    let copy = move || {
        if let Ok(size) = termios::tcgetwinsize(std::io::stdout()) {
            let _ = termios::tcsetwinsize(terminal.master(), size);
        }
    };
    // Listening first: a change between the two would be missed.
    let mut changes = signal(SignalKind::window_change())?;
    copy();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while changes.recv().await.is_some() {
            copy();
        }
    });
    Ok(tasks)
}
