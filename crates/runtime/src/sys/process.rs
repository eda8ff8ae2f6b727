//! What a process sets about itself before `execve`, and how its end is collected.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::io::Errno;

use super::clone::last_errno;
use crate::exit::{ExitStatus, Usage};

/// Puts every signal back to its default action and blocks none.
///
/// `execve` keeps ignored signals and the mask, and the Rust runtime ignores SIGPIPE.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: the default action refers to no code of ours. The two signals that the C library
            // keeps for itself are refused, which does no harm.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: the set is initialised by `sigemptyset` before it is used.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Sets the execution domain that makes `uname -m` tell the 32-bit sibling.
pub(crate) fn set_linux32() -> Result<(), Errno> {
    const PER_LINUX32: libc::c_ulong = 0x8;
    // SAFETY: `personality` takes a number and touches no memory.
    let result = unsafe { libc::personality(PER_LINUX32) };
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Joins a new, empty session keyring, so that keys of slipway's session are out of reach.
pub(crate) fn join_new_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name makes an anonymous keyring; no memory is touched. A kernel without keyrings
    // has nothing to protect, so that the error does not matter.
    unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>());
    }
}

/// Returns the number of an rlimit by its lower-case name without `RLIMIT_`.
pub(crate) fn rlimit_number(name: &str) -> Option<u32> {
    let number = match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    };
    Some(number)
}

/// Sets a resource limit of the calling process; `None` is unlimited.
pub(crate) fn set_rlimit(number: u32, soft: Option<u64>, hard: Option<u64>) -> Result<(), Errno> {
    let limit = libc::rlimit {
        rlim_cur: soft.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: hard.unwrap_or(libc::RLIM_INFINITY),
    };
    // SAFETY: the structure is initialised and only read; an unknown number is refused by the kernel.
    let result = unsafe { libc::setrlimit(number, &raw const limit) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Collects a child that has ended; `None` if it still runs.
pub(crate) fn reap(pid: i32, wall: Duration) -> Result<Option<(ExitStatus, Usage)>, Errno> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to writable memory of the right type for the length of the call.
    let result = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match result {
        0 => Ok(None),
        reaped if reaped == pid => {
            // SAFETY: zeroed is a valid `rusage`, and the kernel has filled it in.
            let usage = unsafe { usage.assume_init() };
            let time = |t: libc::timeval| {
                Duration::from_secs(t.tv_sec.unsigned_abs()) + Duration::from_micros(t.tv_usec.unsigned_abs())
            };
            let usage = Usage {
                wall,
                user: time(usage.ru_utime),
                system: time(usage.ru_stime),
                max_rss: usage.ru_maxrss.unsigned_abs() * 1024,
                out_of_memory: false,
            };
            Ok(Some((ExitStatus::from_wait(status), usage)))
        }
        _ => Err(last_errno()),
    }
}

/// Sends a signal to the process behind a pidfd; a process that is gone is no error.
pub(crate) fn signal(pidfd: impl AsFd, number: i32) {
    // SAFETY: the call takes numbers and a null `siginfo`, and touches no memory of ours.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

/// Moves a descriptor to one of the numbers 0, 1 and 2, inherited by `execve`.
pub(crate) fn set_stream(fd: impl AsFd, number: i32) -> Result<(), Errno> {
    // SAFETY: `dup2` onto 0, 1 or 2 replaces a standard stream, which Rust does not own exclusively.
    let result = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) };
    if result == -1 {
        return Err(last_errno());
    }
    if fd.as_fd().as_raw_fd() == number {
        // `dup2` onto itself leaves the close-on-exec flag.
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}

/// Marks every descriptor but the standard streams to be closed by `execve`.
pub(crate) fn close_others_on_exec() {
    // SAFETY: no descriptor is closed here, only flagged; older kernels refuse, and then the flags that
    // every descriptor of ours is opened with have to do.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Closes every descriptor, the standard streams too; for a process that only waits from now on.
pub(crate) fn close_all() {
    // SAFETY: the process uses no descriptor after this, owned or not: it waits and then calls `_exit`.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, 0);
    }
}

/// Collects children until `pid` has ended, and returns its exit code as a shell tells it.
pub(crate) fn reap_until(pid: i32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a writable int for the length of the call.
        let reaped = unsafe { libc::wait4(-1, &raw mut status, 0, std::ptr::null_mut()) };
        if reaped == pid {
            return ExitStatus::from_wait(status).code();
        }
        if reaped == -1 && last_errno() != Errno::INTR {
            return 255;
        }
    }
}

/// Ends the calling process without running destructors or exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and does not return.
    unsafe { libc::_exit(code) }
}
