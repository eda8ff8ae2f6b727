//! The sandbox server: a single-threaded process that clones steps and waits for them.
//!
//! Invariants: it never blocks on anything but its own `poll`, and for a moment on a process that clones
//! another; every process it made is killed when its control socket closes, when the engine's socket closes,
//! or when the server dies (each step asks the kernel for that); it holds no descriptor of a step's streams
//! once the step is cloned, so that readers see the end of the output.

mod start;
mod step;

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::ProcessError;
use crate::protocol::{self, Hello, Order, Starting, Surroundings};
use crate::sys::process;
pub(crate) use start::{DEVICES, Place};
pub(crate) use step::Report;

use step::{Asked, Step};

/// The name that makes this program a sandbox server.
pub(crate) const SERVER_NAME: &str = "slipway-sandbox";

/// Takes over if this process was started as a sandbox server; call it first thing in `main`.
///
/// Returns at once otherwise. It has to come before any thread is made.
pub fn dispatch() {
    let called = std::env::args_os().next();
    if called.is_some_and(|name| name == SERVER_NAME) {
        let code = match serve() {
            Ok(()) => 0,
            Err(_) => 1,
        };
        process::exit_now(code);
    }
}

/// Dispatches before `main`: the C library runs the functions of this section, with the program's
/// arguments, when it starts a program.
#[cfg(feature = "dispatch-before-main")]
#[used]
// SAFETY: the section holds addresses of functions with C calling convention; the standard library's
// own entry comes first and has stored the arguments by then.
#[unsafe(link_section = ".init_array")]
static DISPATCH: extern "C" fn() = {
    extern "C" fn run() {
        dispatch();
    }
    run
};

/// Runs until the engine closes its socket.
fn serve() -> Result<(), Errno> {
    let engine = take_socket()?;
    let _ = rustix::thread::set_name(c"slipway-sandbox");
    // Out of the terminal's process group: Ctrl-C is the engine's to handle.
    let _ = rustix::process::setsid();
    let Some(hello) = protocol::receive::<Hello>(&engine)? else { return Ok(()) };
    let place = match start::set_up(&hello, &engine) {
        Ok(place) => place,
        Err(failed) => {
            return protocol::send(
                &engine,
                &Starting::Failed { what: failed.what, errno: failed.errno.raw_os_error() },
            );
        }
    };
    protocol::send(&engine, &Starting::Ready)?;
    let mut server = Server { place, steps: Vec::new(), waiting: Vec::new() };
    server.run(&engine)
}

/// Moves the engine's socket from standard input, where it came in, to a descriptor of its own.
fn take_socket() -> Result<OwnedFd, Errno> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    process::set_stream(&null, 0)?;
    Ok(socket)
}

struct Server {
    place: start::Place,
    steps: Vec<Step>,
    /// What joins the container of a process that is not its program yet.
    waiting: Vec<Asked>,
}

/// What a descriptor that became ready belongs to.
enum Ready {
    Engine,
    Control(usize),
    Report(usize),
    Ended(usize),
}

impl Server {
    fn run(&mut self, engine: &OwnedFd) -> Result<(), Errno> {
        loop {
            for ready in self.wait(Some(engine))? {
                match ready {
                    Ready::Engine => match protocol::receive_with(engine, 64) {
                        Ok(message) if !message.bytes.is_empty() => {
                            // Whoever sent a bad request learns by its control socket, which was in the message.
                            self.waiting.extend(Asked::read(message));
                        }
                        Ok(_) => return self.shut_down(),
                        Err(Errno::CONNRESET) => return self.shut_down(),
                        Err(errno) => return Err(errno),
                    },
                    Ready::Control(index) => self.steps[index].obey(receive_order),
                    Ready::Report(index) => self.steps[index].read_report(),
                    Ready::Ended(index) => self.steps[index].finish(),
                }
            }
            self.steps.retain(|step| !step.is_over());
            self.start_steps();
        }
    }

    /// Waits until something happens; ends come last, so that what a step said before is read first.
    fn wait(&self, engine: Option<&OwnedFd>) -> Result<Vec<Ready>, Errno> {
        let mut kinds = Vec::new();
        let mut fds = Vec::new();
        if let Some(engine) = engine {
            fds.push(PollFd::new(engine, PollFlags::IN));
            kinds.push(Ready::Engine);
        }
        for (index, step) in self.steps.iter().enumerate() {
            if let Some(report) = step.report() {
                fds.push(PollFd::from_borrowed_fd(report, PollFlags::IN));
                kinds.push(Ready::Report(index));
            }
            if let Some(control) = step.control() {
                fds.push(PollFd::from_borrowed_fd(control, PollFlags::IN));
                kinds.push(Ready::Control(index));
            }
            fds.push(PollFd::from_borrowed_fd(step.pidfd(), PollFlags::IN));
            kinds.push(Ready::Ended(index));
        }
        loop {
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) => break,
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(kinds.into_iter().zip(ready).filter_map(|(kind, ready)| ready.then_some(kind)).collect())
    }

    /// Starts what was asked for, but what has to wait until the process it joins runs its program.
    fn start_steps(&mut self) {
        for asked in std::mem::take(&mut self.waiting) {
            let started = match asked.surroundings() {
                Surroundings::Own { .. } => Step::start(asked, &self.place),
                Surroundings::Shared { with } => match self.steps.iter().find(|step| step.id() == *with) {
                    Some(first) if first.is_set_up() => Step::join(asked, first, &self.place),
                    Some(_) => {
                        self.waiting.push(asked);
                        continue;
                    }
                    None => Err(asked.refuse(ProcessError::ContainerEnded)),
                },
            };
            self.steps.extend(started);
        }
    }

    /// Kills every step and waits until they are gone, so that nothing outlives the server.
    ///
    /// In any order: the first process of a container ends when the others there have been waited for.
    fn shut_down(&mut self) -> Result<(), Errno> {
        self.waiting.clear();
        for step in &mut self.steps {
            step.hang_up();
            step.kill();
        }
        while !self.steps.is_empty() {
            for ready in self.wait(None)? {
                match ready {
                    Ready::Report(index) => self.steps[index].read_report(),
                    Ready::Ended(index) => self.steps[index].finish(),
                    Ready::Engine | Ready::Control(_) => {}
                }
            }
            self.steps.retain(|step| !step.is_over());
        }
        Ok(())
    }
}

/// Reads an order; a closed or broken control socket is an order to kill.
fn receive_order(control: &OwnedFd) -> (Order, bool) {
    match protocol::receive::<Order>(control) {
        Ok(Some(order)) => (order, true),
        Ok(None) | Err(_) => (Order::Kill, false),
    }
}
