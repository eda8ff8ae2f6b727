//! The life of a step between `clone3` and `execve`: builds what it sees, gives up what it may not have.
//!
//! Runs in a copy of the server's memory: as process 1 of a new container, or beside it in one that is there. The order matters: mounts
//! and the filter need capabilities that are dropped afterwards; the death signal comes last because a
//! change of ids clears it. Nothing here returns: the process becomes the program, or reports and exits.

mod credentials;
mod devices;
mod mounts;
mod points;
mod program;

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::Signal;

pub(crate) use points::{Stub, remove_stubs};

use crate::cgroup::Group;
use crate::error::ProcessError;
use crate::listener::{self, Listener};
use crate::protocol::{self, MountRequest};
use crate::seccomp::FILTER;
use crate::server::{Place, Report};
use crate::spec::{Network, ProcessSettings, Security};
use crate::sys::{self, mount, process};

/// What an interrupted or failed set-up exits with; the report tells the engine what happened.
const SETUP_FAILED: i32 = 127;

/// A process that is about to become a program.
pub(crate) struct Child<'a> {
    pub(crate) settings: ProcessSettings,
    /// Its name below `/dev/pts`.
    pub(crate) terminal: Option<String>,
    /// Three, unless there is a terminal.
    pub(crate) streams: Vec<OwnedFd>,
    pub(crate) container: Container<'a>,
    pub(crate) group: Option<&'a Group>,
}

/// What the process sees.
pub(crate) enum Container<'a> {
    /// It is the first that sees it.
    New(New<'a>),
    /// What another process sees, by the namespaces of these kinds.
    Of { first: &'a OwnedFd, namespaces: i32 },
}

/// What a container is made of.
pub(crate) struct New<'a> {
    pub(crate) root: OwnedFd,
    pub(crate) mounts: Vec<MountRequest>,
    pub(crate) detached: Vec<OwnedFd>,
    /// The content of small files.
    pub(crate) files: &'a [u8],
    /// What becomes `/dev/pts`.
    pub(crate) terminals: Option<OwnedFd>,
    pub(crate) listener: Option<Listener>,
}

/// Turns an errno into an error that names what was being done.
fn at(what: &str) -> impl Fn(Errno) -> ProcessError + '_ {
    move |errno| ProcessError::Setup { what: what.to_owned(), errno: errno.raw_os_error() }
}

impl Child<'_> {
    /// Sets up and executes the program.
    pub(crate) fn run(self, place: &Place, report: &OwnedFd) -> ! {
        let error = match self.set_up(place, report) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // If nobody listens, the server is dead, and so is this process in a moment.
        let _ = protocol::send(report, &Report::Failed(error));
        process::exit_now(SETUP_FAILED)
    }

    fn set_up(self, place: &Place, report: &OwnedFd) -> Result<std::convert::Infallible, ProcessError> {
        let Self { settings, terminal, streams, container, group } = self;
        die_with_parent()?;
        process::reset_signals();
        rustix::process::setsid().map_err(at("setsid"))?;
        rustix::process::umask(Mode::empty());
        process::join_new_keyring();
        if let Some(group) = group {
            group.enter()?;
        }
        let is_first = matches!(container, Container::New(_));
        match container {
            Container::New(new) => make(new, &settings, terminal.as_deref(), place, report)?,
            Container::Of { first, namespaces } => join(first, namespaces, &settings, report)?,
        }

        set_limits(&settings)?;
        match &terminal {
            Some(name) => connect_terminal(name, &settings)?,
            None => connect(&streams)?,
        }
        process::close_others_on_exec();
        if settings.linux32 {
            process::set_linux32().map_err(at("personality"))?;
        }
        if settings.security == Security::Sandbox {
            sys::seccomp::install(FILTER).map_err(at("seccomp filter"))?;
        }
        credentials::take(&settings).map_err(at("credentials"))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        die_with_parent()?;
        if is_first && (place.emulates || terminal.is_some()) {
            leave_process_one()?;
        }
        if terminal.is_some() {
            take_terminal()?;
        }
        Err(program::execute(&settings))
    }
}

/// Makes a container and goes in.
fn make(
    new: New<'_>,
    settings: &ProcessSettings,
    terminal: Option<&str>,
    place: &Place,
    report: &OwnedFd,
) -> Result<(), ProcessError> {
    rustix::system::sethostname(settings.hostname.as_bytes()).map_err(at("hostname"))?;
    if settings.network == Network::None {
        sys::network::loopback_up().map_err(at("loopback device"))?;
    }
    let New { root, mounts, detached, files, terminals, listener } = new;
    if let Some(Listener { address, handover }) = listener {
        listener::hand_over(address, &handover).map_err(at("listener"))?;
    }
    let terminals = terminals.as_ref();
    let given = mounts::Given { requests: mounts, detached, files, terminals, console: terminal };
    let stubs = mounts::build(&root, settings, given, place)?;
    // A few at a time: paths are long, messages are not.
    for some in stubs.chunks(4) {
        protocol::send(report, &Report::Stubs(some.to_vec())).map_err(at("report"))?;
    }
    check_server(report)?;
    make_working_directory(&root, settings)?;
    if settings.readonly_root {
        enter(&read_only(&root).map_err(at("read-only root"))?)
    } else {
        enter(&root)
    }
}

/// Goes into the container of another process.
fn join(
    first: &OwnedFd,
    namespaces: i32,
    settings: &ProcessSettings,
    report: &OwnedFd,
) -> Result<(), ProcessError> {
    check_server(report)?;
    // The clone is in the pid namespace already.
    sys::clone::join(first, namespaces & !libc::CLONE_NEWPID).map_err(|errno| match errno {
        Errno::SRCH => ProcessError::ContainerEnded,
        errno => at("namespaces")(errno),
    })?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at("root"))?;
    make_working_directory(&root, settings)
}

/// Fails if the server is dead: then there is nobody to run for.
fn check_server(report: &OwnedFd) -> Result<(), ProcessError> {
    protocol::send(report, &Report::Stubs(Vec::new())).map_err(at("report"))
}

/// Goes on as a child of process 1, which then only waits and ends as the program does.
///
/// The kernel keeps signals from a process 1 that it has no handler for. An emulator whose program crashes sends
/// itself the signal, and would hang for ever; a program at a terminal would not hear Ctrl-C.
fn leave_process_one() -> Result<(), ProcessError> {
    match sys::clone::fork().map_err(at("fork"))? {
        None => die_with_parent(),
        Some(pid) => {
            // The streams and the report have to end with the program, not with this process.
            process::close_all();
            process::exit_now(process::reap_until(pid))
        }
    }
}

/// Asks the kernel to kill this process when the server dies.
fn die_with_parent() -> Result<(), ProcessError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at("death signal"))
}

/// Makes the step's root the root of this process and lets go of the server's.
fn enter(root: &OwnedFd) -> Result<(), ProcessError> {
    rustix::process::fchdir(root).map_err(at("root"))?;
    rustix::process::pivot_root(".", ".").map_err(at("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(at("unmount"))?;
    rustix::process::chdir("/").map_err(at("root"))
}

/// Clones the finished root and makes the clone read-only.
///
/// The mount that the engine and the server hold stays writable: the mount points go away through it.
fn read_only(root: &OwnedFd) -> Result<OwnedFd, Errno> {
    let clone = mount::clone_tree(root, "", true)?;
    mount::set_readonly(&clone, false)?;
    mount::attach(&clone, rustix::fs::open("/rootfs", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)?;
    Ok(clone)
}

/// Makes the working directory if it is missing; it belongs to the step's user and stays in the image.
fn make_working_directory(root: &OwnedFd, settings: &ProcessSettings) -> Result<(), ProcessError> {
    let path = &settings.cwd;
    match mount::open_in_root(root, path) {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => points::make_directories(root, path, (settings.user.uid, settings.user.gid)),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| ProcessError::WorkingDirectory { path: path.clone(), errno: errno.raw_os_error() })
}

fn set_limits(settings: &ProcessSettings) -> Result<(), ProcessError> {
    for limit in &settings.rlimits {
        let number = process::rlimit_number(&limit.name).ok_or(Errno::INVAL);
        number.and_then(|number| process::set_rlimit(number, limit.soft, limit.hard)).map_err(|errno| {
            ProcessError::Rlimit { name: limit.name.clone(), errno: errno.raw_os_error() }
        })?;
    }
    if let Some(score) = settings.oom_score_adj {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, "/proc/self/oom_score_adj", flags, Mode::empty(), ResolveFlags::empty())
            .and_then(|file| rustix::io::write(&file, score.to_string().as_bytes()))
            .map_err(at("oom score"))?;
    }
    Ok(())
}

/// Puts the streams where the program expects them.
fn connect(streams: &[OwnedFd]) -> Result<(), ProcessError> {
    for (number, stream) in (0..).zip(streams) {
        process::set_stream(stream, number).map_err(at("streams"))?;
    }
    Ok(())
}

/// Opens the terminal by the name it has for the program, whose user owns it, for all three streams.
fn connect_terminal(name: &str, settings: &ProcessSettings) -> Result<(), ProcessError> {
    let what = at("terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(format!("/dev/pts/{name}"), flags, Mode::empty()).map_err(&what)?;
    rustix::fs::fchown(&terminal, Some(Uid::from_raw(settings.user.uid)), None).map_err(&what)?;
    (0..3).try_for_each(|number| process::set_stream(&terminal, number)).map_err(what)
}

/// Makes the terminal the controlling one of a new session, with this process in front.
fn take_terminal() -> Result<(), ProcessError> {
    // It fails for one that leads a session already, which is as good.
    let _ = rustix::process::setsid();
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(at("terminal"))
}
