//! Mount points inside a root: finds them, makes the missing ones, and takes those away afterwards.
//!
//! Every path is resolved by the kernel with the root as its top (`RESOLVE_IN_ROOT`), so that no link
//! in an image leads outside. A missing mount point ("stub") is made, and its parent's times are put
//! back at once, so that a build step's own changes to the parent still show. When the step has ended,
//! stubs that are still empty are removed: they never were part of the image.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::MountFailure;
use crate::sys::mount::{open_at, open_in_root};

/// Links followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// A mount point that was made for one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stub {
    /// The parent's path from the root, with no links in it; empty for the root itself.
    pub parent: String,
    pub name: String,
    pub directory: bool,
}

/// Whether a mount point has to be a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Kind {
    pub(super) fn of(stat: &Stat) -> Self {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            Self::Directory
        } else {
            Self::File
        }
    }
}

/// Which of the made files and directories count as stubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// What is made stays: `/proc`, `/sys`, `/dev`, working directories.
    Everything,
    /// The mount point goes, directories made on the way stay.
    Parents,
    Nothing,
}

/// Opens the mount point at `path`, making it if it is missing.
pub(super) fn open_or_make(
    root: &OwnedFd,
    path: &str,
    kind: Kind,
    keep: Keep,
    stubs: &mut Vec<Stub>,
) -> Result<OwnedFd, MountFailure> {
    let found = match open_in_root(root, path) {
        Ok(found) => found,
        Err(Errno::NOENT) => {
            let mut made = make(root, path, kind, (0, 0))?;
            match keep {
                Keep::Everything => made.clear(),
                Keep::Parents => drop(made.drain(..made.len().saturating_sub(1))),
                Keep::Nothing => {}
            }
            stubs.extend(made);
            open_in_root(root, path).map_err(|errno| MountFailure::BadDestination(errno.raw_os_error()))?
        }
        Err(errno) => return Err(MountFailure::BadDestination(errno.raw_os_error())),
    };
    let stat = rustix::fs::fstat(&found).map_err(|errno| MountFailure::Refused(errno.raw_os_error()))?;
    if Kind::of(&stat) != kind {
        return Err(MountFailure::WrongType { source_is_directory: kind == Kind::Directory });
    }
    Ok(found)
}

/// Makes a directory and those above it, as far as they are missing.
pub(super) fn make_directories(root: &OwnedFd, path: &str, owner: (u32, u32)) -> Result<(), Errno> {
    match make(root, path, Kind::Directory, owner) {
        Ok(_) => Ok(()),
        Err(MountFailure::BadDestination(errno) | MountFailure::CannotCreate(errno)) => {
            Err(Errno::from_raw_os_error(errno))
        }
        Err(_) => Err(Errno::INVAL),
    }
}

/// Makes what is missing of `path`; returns what was made in the root's own file system, parents first.
fn make(root: &OwnedFd, path: &str, kind: Kind, owner: (u32, u32)) -> Result<Vec<Stub>, MountFailure> {
    let bad = |errno: Errno| MountFailure::BadDestination(errno.raw_os_error());
    let mut made = Vec::new();
    let mut links = 0;
    let mut current = String::new();
    // What is still to walk, last part first.
    let mut parts: Vec<String> = components(path).rev().map(str::to_owned).collect();
    while let Some(part) = parts.pop() {
        if part == ".." {
            current.truncate(current.rfind('/').unwrap_or(0));
            continue;
        }
        let parent = open_plain(root, &current, ResolveFlags::empty()).map_err(bad)?;
        match rustix::fs::statat(&parent, part.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(bad(Errno::LOOP));
                }
                let target = rustix::fs::readlinkat(&parent, part.as_str(), Vec::new()).map_err(bad)?;
                let target = target.into_string().map_err(|_| bad(Errno::ILSEQ))?;
                if target.starts_with('/') {
                    current.clear();
                }
                parts.extend(components(&target).rev().map(str::to_owned));
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let last = parts.is_empty();
                let kind = if last { kind } else { Kind::Directory };
                match make_one(&parent, &part, kind, owner) {
                    // Only what lies in the root's own mount ends up in the image.
                    Ok(()) if open_plain(root, &current, ResolveFlags::NO_XDEV).is_ok() => {
                        let directory = kind == Kind::Directory;
                        made.push(Stub { parent: current.clone(), name: part.clone(), directory });
                    }
                    // Another process of the same container was faster: it is the other's to take away.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(MountFailure::CannotCreate(errno.raw_os_error())),
                }
            }
            Err(errno) => return Err(bad(errno)),
        }
        if !current.is_empty() {
            current.push('/');
        }
        current.push_str(&part);
    }
    Ok(made)
}

/// Makes one file or directory and puts the times of its parent back.
fn make_one(parent: &OwnedFd, name: &str, kind: Kind, owner: (u32, u32)) -> Result<(), Errno> {
    let before = rustix::fs::fstat(parent)?;
    match kind {
        Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?,
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)?;
        }
    }
    if owner != (0, 0) {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    set_times(parent, &before)
}

/// Opens a directory by a path without links, for use as a parent.
fn open_plain(root: &OwnedFd, path: &str, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | more;
    open_at(root, path, OFlags::RDONLY | OFlags::DIRECTORY, resolve)
}

/// Splits a path, leaving out empty parts and `.`.
fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

fn set_times(directory: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(directory, &times)
}

/// Removes the stubs of a step that has ended, as far as they are empty.
///
/// What cannot be removed stays: it is at worst an empty directory in the image, and the step itself
/// has succeeded or failed already.
pub(crate) fn remove_stubs(root: &OwnedFd, stubs: &[Stub]) {
    for stub in stubs.iter().rev() {
        let _ = remove_stub(root, stub);
    }
}

fn remove_stub(root: &OwnedFd, stub: &Stub) -> Result<(), Errno> {
    let parent = open_plain(root, &stub.parent, ResolveFlags::NO_XDEV)?;
    let stat = rustix::fs::statat(&parent, stub.name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if stub.directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if !stub.directory && stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    let before = rustix::fs::fstat(&parent)?;
    rustix::fs::unlinkat(&parent, stub.name.as_str(), flags)?;
    set_times(&parent, &before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn tree() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn missing_mount_points_are_made_and_taken_away() {
        let dir = tree();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let old = std::fs::metadata(dir.path().join("etc")).unwrap().modified().unwrap();
        let root = open(dir.path());
        let mut stubs = Vec::new();
        open_or_make(&root, "/etc/hosts", Kind::File, Keep::Nothing, &mut stubs).unwrap();
        open_or_make(&root, "/a/b/c", Kind::Directory, Keep::Nothing, &mut stubs).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        assert_eq!(stubs.len(), 4);
        assert_eq!(std::fs::metadata(dir.path().join("etc")).unwrap().modified().unwrap(), old);

        remove_stubs(&root, &stubs);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["etc"]);
        assert_eq!(std::fs::read_dir(dir.path().join("etc")).unwrap().count(), 0);
        assert_eq!(std::fs::metadata(dir.path().join("etc")).unwrap().modified().unwrap(), old);
    }

    #[test]
    fn what_a_step_filled_stays() {
        let dir = tree();
        let root = open(dir.path());
        let mut stubs = Vec::new();
        open_or_make(&root, "/a/b", Kind::Directory, Keep::Nothing, &mut stubs).unwrap();
        open_or_make(&root, "/f", Kind::File, Keep::Nothing, &mut stubs).unwrap();
        std::fs::write(dir.path().join("a/mine"), "x").unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        remove_stubs(&root, &stubs);
        assert!(dir.path().join("a/mine").exists() && dir.path().join("f").exists());
        assert!(!dir.path().join("a/b").exists());
    }

    #[test]
    fn processes_that_make_the_same_mount_point_at_once_all_get_it() {
        for _ in 0..50 {
            let root = tree();
            let start = std::sync::Barrier::new(4);
            let make = || {
                let root = open(root.path());
                start.wait();
                open_or_make(&root, "/etc/resolv.conf", Kind::File, Keep::Nothing, &mut Vec::new()).map(drop)
            };
            std::thread::scope(|scope| {
                let made: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
                assert!(made.into_iter().all(|made| made.join().unwrap().is_ok()));
            });
        }
    }

    #[test]
    fn parents_stay_where_only_the_mount_point_is_to_go() {
        let dir = tree();
        let root = open(dir.path());
        let mut stubs = Vec::new();
        open_or_make(&root, "/a/b", Kind::Directory, Keep::Parents, &mut stubs).unwrap();
        open_or_make(&root, "/proc", Kind::Directory, Keep::Everything, &mut stubs).unwrap();
        remove_stubs(&root, &stubs);
        assert!(dir.path().join("a").exists() && !dir.path().join("a/b").exists());
        assert!(dir.path().join("proc").exists());
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let outside = tree();
        let dir = tree();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink("../../../../../up", dir.path().join("climb")).unwrap();
        symlink("/run/there/file", dir.path().join("resolv.conf")).unwrap();
        let root = open(dir.path());
        let mut stubs = Vec::new();
        for path in ["/out/a", "/climb/b", "/../../c"] {
            open_or_make(&root, path, Kind::Directory, Keep::Nothing, &mut stubs).unwrap();
        }
        open_or_make(&root, "/resolv.conf", Kind::File, Keep::Nothing, &mut stubs).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(dir.path().join("up/b").is_dir());
        assert!(dir.path().join("run/there/file").is_file());
        let inside = outside.path().strip_prefix("/").unwrap();
        assert!(dir.path().join(inside).join("a").is_dir());
        remove_stubs(&root, &stubs);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn loops_and_files_on_the_way_are_errors() {
        let dir = tree();
        symlink("loop", dir.path().join("loop")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let root = open(dir.path());
        let open = |path: &str, kind| {
            open_or_make(&root, path, kind, Keep::Nothing, &mut Vec::new()).map(drop).unwrap_err()
        };
        let looped = MountFailure::BadDestination(Errno::LOOP.raw_os_error());
        assert_eq!(open("/loop/a", Kind::Directory), looped);
        assert!(matches!(open("/file/a", Kind::Directory), MountFailure::BadDestination(_)));
        assert_eq!(open("/file", Kind::Directory), MountFailure::WrongType { source_is_directory: true });
        assert_eq!(open("/", Kind::File), MountFailure::WrongType { source_is_directory: false });
    }
}
