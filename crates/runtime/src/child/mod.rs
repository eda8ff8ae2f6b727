//! The life of a step between `clone3` and `execve`: builds what it sees, gives up what it may not have.
//!
//! Runs as process 1 of its pid namespace, in a copy of the server's memory. The order matters: mounts
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
use crate::protocol::{self, Request};
use crate::seccomp::FILTER;
use crate::server::{Place, Report, StepFds};
use crate::spec::{Network, ProcessSettings, Security};
use crate::sys::{self, mount, process};

/// What an interrupted or failed set-up exits with; the report tells the engine what happened.
const SETUP_FAILED: i32 = 127;

/// Sets up and executes the program of a request.
pub(crate) fn run(
    request: Request,
    fds: StepFds,
    files: &[u8],
    place: &Place,
    group: Option<&Group>,
    report: &OwnedFd,
) -> ! {
    let error = match set_up(request, fds, files, place, group, report) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // If nobody listens, the server is dead, and so is this process in a moment.
    let _ = protocol::send(report, &Report::Failed(error));
    process::exit_now(SETUP_FAILED)
}

/// Turns an errno into an error that names what was being done.
fn at(what: &str) -> impl Fn(Errno) -> ProcessError + '_ {
    move |errno| ProcessError::Setup { what: what.to_owned(), errno: errno.raw_os_error() }
}

fn set_up(
    request: Request,
    fds: StepFds,
    files: &[u8],
    place: &Place,
    group: Option<&Group>,
    report: &OwnedFd,
) -> Result<std::convert::Infallible, ProcessError> {
    let StepFds { root, streams, mounts } = fds;
    let settings = request.settings;
    die_with_parent()?;
    process::reset_signals();
    rustix::process::setsid().map_err(at("setsid"))?;
    rustix::process::umask(Mode::empty());
    process::join_new_keyring();
    if let Some(group) = group {
        group.enter()?;
    }
    rustix::system::sethostname(settings.hostname.as_bytes()).map_err(at("hostname"))?;
    if settings.network == Network::None {
        sys::network::loopback_up().map_err(at("loopback device"))?;
    }

    let terminals = streams.first().filter(|_| request.terminal);
    let given = mounts::Given { requests: request.mounts, detached: mounts, files, terminals };
    let stubs = mounts::build(&root, &settings, given, place)?;
    // A few at a time: paths are long, messages are not. One at least, which also tells a dead server:
    // then there is nobody to run for.
    for some in stubs.chunks(4) {
        protocol::send(report, &Report::Stubs(some.to_vec())).map_err(at("report"))?;
    }
    protocol::send(report, &Report::Stubs(Vec::new())).map_err(at("report"))?;
    make_working_directory(&root, &settings)?;
    if settings.readonly_root {
        enter(&read_only(&root).map_err(at("read-only root"))?)?;
    } else {
        enter(&root)?;
    }

    set_limits(&settings)?;
    if request.terminal { connect_terminal(&settings) } else { connect(&streams) }?;
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
    if place.emulates || request.terminal {
        leave_process_one()?;
    }
    if request.terminal {
        take_terminal()?;
    }
    Err(program::execute(&settings))
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
fn connect_terminal(settings: &ProcessSettings) -> Result<(), ProcessError> {
    let what = at("terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let name = format!("/dev/pts/{}", crate::terminal::FIRST);
    let terminal = rustix::fs::open(name, flags, Mode::empty()).map_err(&what)?;
    rustix::fs::fchown(&terminal, Some(Uid::from_raw(settings.user.uid)), None).map_err(&what)?;
    (0..3).try_for_each(|number| process::set_stream(&terminal, number)).map_err(what)
}

/// Makes the terminal the controlling one of a new session, with this process in front.
fn take_terminal() -> Result<(), ProcessError> {
    rustix::process::setsid().map_err(at("setsid"))?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(at("terminal"))
}
