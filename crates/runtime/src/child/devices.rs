//! `/dev` of a step: a small tmpfs with the usual links, and the devices mounted into it one by one.
//!
//! The nodes are mounts of the server's own, not made: then the tmpfs can be `nodev`, and the same works
//! inside a user namespace, where no node can be made.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::at;
use super::mounts::Given;
use crate::error::{MountFailure, ProcessError};
use crate::server::{DEVICES, Place};
use crate::spec::{ProcessSettings, Security};
use crate::sys::mount;
use crate::terminal;

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The terminal of a step that has one.
const CONSOLE: &str = "console";

/// Size of `/dev/shm` where none is asked for, as container engines have it.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Makes the tmpfs with its nodes, links and the mount points of [`mount_below`].
pub(super) fn build(
    settings: &ProcessSettings,
    place: &Place,
    console: bool,
) -> Result<OwnedFd, ProcessError> {
    let what = at("/dev");
    let insecure = settings.security == Security::Insecure;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    if !insecure {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    let options = [("mode", "0755"), ("size", "65536k")];
    let dev = mount::new("tmpfs", &options, attributes).map_err(&what)?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).map_err(&what)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)).map_err(&what)?;
    }
    for name in DEVICES.into_iter().chain(console.then_some(CONSOLE)) {
        // A mount point for the server's node, or for the terminal.
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666)).map_err(&what)?;
    }
    if insecure && place.can_make_devices {
        make_more_devices(&dev);
    }
    Ok(dev)
}

/// Makes the devices that insecure steps are known to use (nested builds, images with file systems).
fn make_more_devices(dev: &OwnedFd) {
    let node = |name: &str, kind, major, minor| {
        let mode = Mode::from_raw_mode(0o666);
        // A device that cannot be made is one that this step does not have.
        let _ = rustix::fs::mknodat(dev, name, kind, mode, rustix::fs::makedev(major, minor));
    };
    let _ = rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755));
    for (name, major, minor) in [
        ("kmsg", 1, 11),
        ("cuse", 10, 203),
        ("fuse", 10, 229),
        ("kvm", 10, 232),
        ("net/tun", 10, 200),
        ("loop-control", 10, 237),
    ] {
        node(name, FileType::CharacterDevice, major, minor);
    }
    for number in 0..8 {
        node(&format!("loop{number}"), FileType::BlockDevice, 7, number);
    }
}

/// Mounts what belongs below `/dev`, which is attached by now.
pub(super) fn mount_below(
    root: &OwnedFd,
    settings: &ProcessSettings,
    given: &Given<'_>,
) -> Result<(), ProcessError> {
    let attach = |source: Result<OwnedFd, Errno>, name: &str| -> Result<(), ProcessError> {
        let path = format!("dev/{name}");
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        source
            .and_then(|source| mount::attach(source, mount::open_at(root, &path, OFlags::PATH, resolve)?))
            .map_err(|errno| ProcessError::Mount {
                destination: format!("/{path}"),
                reason: MountFailure::Refused(errno.raw_os_error()),
            })
    };
    let no_programs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    match given.terminals {
        None => attach(terminal::new_file_system(), "pts")?,
        Some(terminals) => {
            attach(rustix::io::fcntl_dupfd_cloexec(terminals, 3), "pts")?;
            if let Some(console) = given.console {
                attach(mount::clone_tree(terminals, console, false), CONSOLE)?;
            }
        }
    }
    let size = settings.shm_size.unwrap_or(DEFAULT_SHM_SIZE).to_string();
    let no_devices = no_programs | MountAttrFlags::MOUNT_ATTR_NODEV;
    attach(mount::new("tmpfs", &[("mode", "1777"), ("size", &size)], no_devices), "shm")?;
    match mount::new("mqueue", &[], no_devices) {
        // A kernel without message queues has nothing to show.
        Err(Errno::NODEV) => {}
        queues => attach(queues, "mqueue")?,
    }
    for name in DEVICES {
        attach(mount::clone_tree(CWD, &format!("/dev/{name}"), false), name)?;
    }
    Ok(())
}
