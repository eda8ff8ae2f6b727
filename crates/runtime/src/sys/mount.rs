//! The mount calls (`fsopen`, `fsmount`, `open_tree`, `move_mount`, `mount_setattr`) in our terms.
//!
//! Every mount here starts detached, as a descriptor, and is attached to a directory that is also a
//! descriptor; no path of the host's is looked up twice.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::clone::last_errno;

/// Options of a new file system, as `fsconfig` takes them.
pub(crate) type Options<'a> = &'a [(&'a str, &'a str)];

/// Makes a new, detached file system.
pub(crate) fn new(kind: &str, options: Options<'_>, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Clones the mount at `path` below `directory` (or `directory` itself, if `path` is empty), detached.
pub(crate) fn clone_tree(directory: impl AsFd, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(directory, path, flags)
}

/// Attaches a detached mount on top of `target`.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Makes a mount read-only, and what is mounted below it too if `recursive`.
pub(crate) fn set_readonly(mount: impl AsFd, recursive: bool) -> Result<(), Errno> {
    set_attributes(mount, MountAttrFlags::MOUNT_ATTR_RDONLY, 0, recursive)
}

/// Sets attributes of a mount.
pub(crate) fn add_attributes(
    mount: impl AsFd,
    attributes: MountAttrFlags,
    recursive: bool,
) -> Result<(), Errno> {
    set_attributes(mount, attributes, 0, recursive)
}

/// Cuts every mount below `directory` from the propagation of mounts in other namespaces.
pub(crate) fn make_private(directory: impl AsFd) -> Result<(), Errno> {
    set_attributes(directory, MountAttrFlags::empty(), libc::MS_PRIVATE, true)
}

fn set_attributes(
    mount: impl AsFd,
    set: MountAttrFlags,
    propagation: u64,
    recursive: bool,
) -> Result<(), Errno> {
    let attributes =
        libc::mount_attr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, the structure is initialised and of the given size, and the
    // descriptor is borrowed for the length of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Opens `path` inside `root` as a location (`O_PATH`); links and `..` cannot leave the root.
pub(crate) fn open_in_root(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    open_at(root, path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `root` with the given flags and resolution, trying again where the kernel asks to.
pub(crate) fn open_at(
    root: impl AsFd,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A concurrent rename made the kernel unsure whether `..` stayed inside.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}
