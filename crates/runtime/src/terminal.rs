//! A pseudo-terminal for one process, on a devpts file system that becomes the process's `/dev/pts`.
//!
//! The file system is made by the engine, so that the engine holds the master from the start, and attached by
//! the process, so that the terminal has a name inside: `/dev/pts/0` is what `ttyname` finds. A terminal of the
//! host's devpts would have none, since the host's files are not there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::sys::mount;

/// The first terminal of a new devpts; nobody but us has opened its multiplexer before.
pub(crate) const FIRST: &str = "0";

/// A pseudo-terminal and the file system that it is on.
#[derive(Debug)]
pub struct Terminal {
    file_system: OwnedFd,
    master: OwnedFd,
}

impl Terminal {
    /// Makes a terminal.
    pub fn open() -> Result<Self, Errno> {
        let file_system = new_file_system()?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(&file_system, "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        Ok(Self { file_system, master })
    }

    /// Returns the side that what the process prints is read from, and what it reads is written to.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// Returns what [`crate::Stdio::Terminal`] takes.
    pub fn file_system(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.file_system, 3)
    }

    /// Ends the reading of the master, when the process is gone: also if it has never opened its side.
    pub fn hang_up(&self) {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        // The last one to close the other side is what a reader notices.
        let _ = rustix::fs::openat(&self.file_system, FIRST, flags, Mode::empty());
    }
}

/// Makes a devpts; terminals belong to group `tty` where that id exists.
pub(crate) fn new_file_system() -> Result<OwnedFd, Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let common = [("ptmxmode", "0666"), ("mode", "0620")];
    let with_group = [common[0], common[1], ("gid", "5")];
    mount::new("devpts", &with_group, attributes).or_else(|errno| match errno {
        Errno::INVAL => mount::new("devpts", &common, attributes),
        other => Err(other),
    })
}
