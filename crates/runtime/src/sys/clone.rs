//! `clone3`: makes a process in new namespaces.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use rustix::thread::ThreadNameSpaceType;

/// The first version of the kernel's `struct clone_args`, which every kernel with `clone3` takes.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// The two sides of a clone.
pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Clones the calling process, as `fork` does, with `flags` such as `CLONE_NEWPID`.
///
/// The child gets a copy of the address space. The caller has to be single-threaded, which makes the
/// copy a complete one: no lock can be held by a thread that does not exist in the child.
pub(crate) fn clone_process(flags: i32) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: i64::from(flags).cast_unsigned() | i64::from(libc::CLONE_PIDFD).cast_unsigned(),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: i64::from(libc::SIGCHLD).cast_unsigned(),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is initialised and of the given size; without CLONE_VM the child has its own copy
    // of the memory and goes on from here, like `fork`. The kernel writes one int to `pidfd`.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match result {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has just opened this descriptor for us (CLONE_PIDFD), nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
            Ok(Cloned::Parent { pid, pidfd })
        }
        _ => Err(last_errno()),
    }
}

/// Clones the calling process into the pid namespace of another process, and no other new namespace.
///
/// The child is the caller's, so that it can be waited for; in the namespace it has no parent. A process in between
/// makes it: one that has sent its children to another namespace cannot always call them back, as a user namespace's
/// root may not for a namespace from outside of that. It ends at once.
pub(crate) fn clone_into(target: &OwnedFd) -> Result<Cloned, Errno> {
    let (told, tells) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match clone_process(0)? {
        Cloned::Child => {
            let number = match join(target, libc::CLONE_NEWPID).and_then(|()| clone_sibling()) {
                Ok(None) => return Ok(Cloned::Child),
                Ok(Some(pid)) => pid,
                Err(errno) => -errno.raw_os_error(),
            };
            // A caller that does not hear of it is gone, and its children with it.
            let _ = rustix::io::write(&tells, &number.to_ne_bytes());
            super::process::exit_now(0)
        }
        Cloned::Parent { pid: between, .. } => {
            drop(tells);
            let mut number = [0; 4];
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut number))?;
            let between = Pid::from_raw(between);
            rustix::io::retry_on_intr(|| rustix::process::waitpid(between, WaitOptions::empty()))?;
            match (length, i32::from_ne_bytes(number)) {
                // It cannot be another process of that number: the caller has not waited for it.
                (4, pid @ 1..) => {
                    let child = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
                    let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
                    Ok(Cloned::Parent { pid, pidfd })
                }
                (4, errno) => Err(Errno::from_raw_os_error(-errno)),
                _ => Err(Errno::CHILD),
            }
        }
    }
}

/// Clones the calling process as another child of its parent; `None` in the child, its id in the caller.
fn clone_sibling() -> Result<Option<i32>, Errno> {
    let args = CloneArgs { flags: i64::from(libc::CLONE_PARENT).cast_unsigned(), ..CloneArgs::default() };
    // SAFETY: as in `clone_process`; the kernel wants no signal of its own for a sibling, which has the caller's.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match result {
        0 => Ok(None),
        pid if pid > 0 => i32::try_from(pid).map(Some).map_err(|_| Errno::OVERFLOW),
        _ => Err(last_errno()),
    }
}

/// Moves the calling process into namespaces of another process, of the kinds that `flags` has.
///
/// With `CLONE_NEWNS` its root and working directory become the root of that mount namespace.
pub(crate) fn join(target: &OwnedFd, flags: i32) -> Result<(), Errno> {
    let kinds = ThreadNameSpaceType::from_bits_retain(flags.cast_unsigned());
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), kinds)
}

/// Forks the calling process, which has to be single-threaded; `None` in the child, its id in the parent.
///
/// The C library's `fork` is a plain `clone`, which the system call filter lets through where `clone3`,
/// whose flags it cannot see, is refused.
pub(crate) fn fork() -> Result<Option<i32>, Errno> {
    // SAFETY: with a single thread no lock can be held in the copy of the address space that the child gets.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid)),
        _ => Err(last_errno()),
    }
}

/// Returns the error of the last failed call of the C library.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Leaves the given namespaces for new ones.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> Result<(), Errno> {
    // SAFETY: unsharing namespaces changes no memory; the flag that would split the table of open files
    // between threads, which I/O safety relies on, is never passed.
    unsafe { rustix::thread::unshare_unsafe(flags - rustix::thread::UnshareFlags::FILES) }
}
