//! Pseudo-terminals of programs, on a devpts file system that becomes the programs' `/dev/pts`.
//!
//! The file system is made by the engine, so that the engine holds the masters from the start, and attached by
//! the first process that runs there, so that each terminal has a name inside: `/dev/pts/0` is what `ttyname`
//! finds. A terminal of the host's devpts would have none, since the host's files are not there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::sys::mount;

/// The terminals of one container, which are its `/dev/pts`.
#[derive(Clone, Debug)]
pub struct Terminals {
    file_system: Arc<OwnedFd>,
}

impl Terminals {
    /// Makes a file system without any terminal.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { file_system: Arc::new(new_file_system()?) })
    }

    /// Makes a terminal.
    pub fn open(&self) -> Result<Terminal, Errno> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(&self.file_system, "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let path = rustix::pty::ptsname(&master, Vec::new())?.into_string().map_err(|_| Errno::ILSEQ)?;
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Terminal { terminals: self.clone(), master, name })
    }
}

impl AsFd for Terminals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file_system.as_fd()
    }
}

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    terminals: Terminals,
    master: OwnedFd,
    name: String,
}

impl Terminal {
    /// Returns the side that what the process prints is read from, and what it reads is written to.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// Returns what [`crate::Stdio::Terminal`] takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the reading of the master, when the process is gone: also if it has never opened its side.
    pub fn hang_up(&self) {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        // The last one to close the other side is what a reader notices.
        let _ = rustix::fs::openat(&self.terminals, self.name.as_str(), flags, Mode::empty());
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
