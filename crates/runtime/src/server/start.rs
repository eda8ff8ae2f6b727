//! How a server sets itself up: user namespace, binfmt_misc table, and a root of its own.
//!
//! The server lives in a small tmpfs instead of the host's root: cloning its mount namespace for a step
//! then copies a dozen mounts instead of the host's hundreds, no mount of the host is kept busy, and a
//! step that broke out of its root would find nothing. What a step needs from the host is kept there:
//!
//! ```text
//! /proc /sys    the host's, as sources of bind mounts (and to prove to the kernel that they are visible)
//! /dev/null...  the device nodes of every step
//! /rootfs       where a step attaches its root
//! /files        where a step attaches the tmpfs of its small files
//! /stage        where a step attaches a mount of which it shows a part
//! /empty        covers masked directories
//! /binfmt       the server's own binfmt_misc table; it lives as long as this mount
//! ```

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use crate::cgroup::Hierarchies;
use crate::error::StartStage;
use crate::protocol::{self, Hello, Starting};
use crate::sys::mount;

/// The devices every step has.
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where the server is, which decides what a step may do.
#[derive(Debug)]
pub(crate) struct Place {
    /// Programs run through emulators of ours.
    pub emulates: bool,
    /// Device nodes can be made: the user namespace is the machine's first one.
    pub can_make_devices: bool,
    /// Cgroup namespaces make sense: the machine has cgroup v2 only.
    pub cgroup_namespace: bool,
    pub cgroups: Hierarchies,
}

pub(super) struct Failed {
    pub what: StartStage,
    pub errno: Errno,
}

pub(super) fn set_up(hello: &Hello, engine: &OwnedFd) -> Result<Place, Failed> {
    let at = |what: StartStage| move |errno| Failed { what, errno };
    let cgroups = Hierarchies::detect();
    if hello.user_namespace {
        unshare(UnshareFlags::NEWUSER).map_err(at(StartStage::UserNamespace))?;
        protocol::send(engine, &Starting::MapIds).map_err(at(StartStage::Protocol))?;
        match protocol::receive::<()>(engine) {
            Ok(Some(())) => {}
            Ok(None) => return Err(Failed { what: StartStage::Protocol, errno: Errno::PIPE }),
            Err(errno) => return Err(Failed { what: StartStage::Protocol, errno }),
        }
    }
    unshare(UnshareFlags::NEWNS).map_err(at(StartStage::MountNamespace))?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(at(StartStage::MountNamespace))?;
    mount::make_private(&root).map_err(at(StartStage::MountNamespace))?;
    let table = if hello.binfmt.is_empty() { None } else { Some(register(&hello.binfmt)?) };
    // Device nodes need CAP_MKNOD over the machine: the first user namespace, which maps every id.
    let first = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]));
    let can_make_devices = first && !hello.user_namespace;
    enter_root(table)?;
    let cgroup_namespace = cgroups.is_unified();
    Ok(Place { emulates: !hello.binfmt.is_empty(), can_make_devices, cgroup_namespace, cgroups })
}

/// Makes the table of emulators of this user namespace; the returned mount keeps it alive.
fn register(lines: &[String]) -> Result<OwnedFd, Failed> {
    let mounted = mount::new("binfmt_misc", &[], MountAttrFlags::empty());
    let table = mounted.map_err(|errno| Failed { what: StartStage::BinfmtMount, errno })?;
    for line in lines {
        let written = rustix::fs::openat(&table, "register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::write(&file, line.as_bytes()));
        if let Err(errno) = written {
            let name = line.split(':').nth(1).unwrap_or_default().to_owned();
            return Err(Failed { what: StartStage::BinfmtRegister(name), errno });
        }
    }
    Ok(table)
}

/// Builds the server's root and moves into it.
fn enter_root(table: Option<OwnedFd>) -> Result<(), Failed> {
    let at = |what: &str| {
        let what = StartStage::Root(what.to_owned());
        move |errno| Failed { what, errno }
    };
    let none = MountAttrFlags::empty();
    let root = mount::new("tmpfs", &[("mode", "0755"), ("size", "1m")], none).map_err(at("tmpfs"))?;
    let proc = mount::clone_tree(CWD, "/proc", true).map_err(at("/proc"))?;
    // A host without /sys has none to show.
    let sys = mount::clone_tree(CWD, "/sys", true).ok();
    let devices: Vec<(&str, OwnedFd)> = DEVICES
        .iter()
        .map(|name| Ok((*name, mount::clone_tree(CWD, &format!("/dev/{name}"), false)?)))
        .collect::<Result<_, Errno>>()
        .map_err(at("/dev"))?;

    // Some directory has to carry the new root until it is the root; /proc exists on every host.
    let carrier =
        rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at("/proc"))?;
    mount::attach(&root, &carrier).map_err(at("attach"))?;
    for name in ["proc", "sys", "dev", "rootfs", "files", "stage", "empty", "binfmt"] {
        rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755)).map_err(at("mkdir"))?;
    }
    let place = |mount: &OwnedFd, name: &str| {
        mount::open_at(&root, name, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
            .and_then(|target| mount::attach(mount, target))
    };
    place(&proc, "proc").map_err(at("/proc"))?;
    if let Some(sys) = &sys {
        place(sys, "sys").map_err(at("/sys"))?;
    }
    if let Some(table) = &table {
        place(table, "binfmt").map_err(at("binfmt_misc"))?;
    }
    for (name, device) in &devices {
        let path = format!("dev/{name}");
        rustix::fs::openat(&root, &path, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)
            .map_err(at("device"))?;
        place(device, &path).map_err(at("device"))?;
    }
    rustix::process::fchdir(&root).map_err(at("chdir"))?;
    rustix::process::pivot_root(".", ".").map_err(at("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(at("unmount"))?;
    rustix::process::chdir("/").map_err(at("chdir"))
}

/// Leaves the given namespaces for new ones.
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    crate::sys::clone::unshare(flags)
}
