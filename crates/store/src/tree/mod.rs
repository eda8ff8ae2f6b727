//! Directory trees by descriptor: listing, removing, measuring, copying metadata.
//!
//! Everything here works below an open directory and never follows a symbolic link, because the trees
//! hold what images brought along.

pub(crate) mod walk;

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// Names and values of extended attributes.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

const LIST_BUFFER: usize = 32 << 10;
/// How many levels of directories are open at the same time while a tree is removed.
const MAX_OPEN: usize = 128;

/// Tells whether this is overlayfs's mark that a name is gone.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev as Dev == 0
}

/// Tells whether a layer may carry the attribute: file capabilities and what users set, but nothing that
/// overlayfs or a security module of the host gives a meaning.
pub(crate) fn is_layer_xattr(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Opens a directory for listing.
pub(crate) fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Lists a directory, sorted by name, with the types that the file system tells.
pub(crate) fn list(directory: impl AsFd) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut buffer = Vec::with_capacity(LIST_BUFFER);
    let mut entries = Vec::new();
    // Its own position: the descriptor may be listed again.
    let directory = open_directory(directory, c".")?;
    let mut raw = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            entries.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

/// Removes a file or a whole directory; missing is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(fd) => remove_at(fd.as_fd(), std::os::unix::ffi::OsStrExt::as_bytes(name)),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what `name` is in `parent`; missing is fine.
///
/// However deep, it takes no more than [`MAX_OPEN`] descriptors: a directory below that is moved up first.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut queue = vec![CString::new(name)?];
    let mut serial = 0;
    while let Some(name) = queue.pop() {
        remove_directory(parent, name, &mut queue, &mut serial)?;
    }
    Ok(())
}

/// A directory that is being emptied.
struct Emptied {
    fd: OwnedFd,
    name: CString,
    left: Vec<(CString, FileType)>,
}

impl Emptied {
    fn open(parent: BorrowedFd<'_>, name: CString) -> io::Result<Option<Self>> {
        let fd = match open_directory(parent, &name) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, &*name, Mode::from_raw_mode(0o700), AtFlags::empty())?;
                open_directory(parent, &name)?
            }
            opened => opened?,
        };
        let left = list(&fd)?;
        Ok(Some(Self { fd, name, left }))
    }
}

/// Removes a directory; what is too deep is moved to `top` and put into `queue`.
fn remove_directory(
    top: BorrowedFd<'_>,
    name: CString,
    queue: &mut Vec<CString>,
    serial: &mut u64,
) -> io::Result<()> {
    let mut stack: Vec<Emptied> = Emptied::open(top, name)?.into_iter().collect();
    while let Some(index) = stack.len().checked_sub(1) {
        let here = &mut stack[index];
        let Some((name, kind)) = here.left.pop() else {
            let parent = index.checked_sub(1).map_or(top, |above| stack[above].fd.as_fd());
            ignore_missing(rustix::fs::unlinkat(parent, &*stack[index].name, AtFlags::REMOVEDIR))?;
            stack.pop();
            continue;
        };
        if kind != FileType::Directory {
            match rustix::fs::unlinkat(&here.fd, &*name, AtFlags::empty()) {
                // The file system did not tell the type.
                Err(Errno::ISDIR | Errno::PERM) => {}
                done => {
                    ignore_missing(done)?;
                    continue;
                }
            }
        }
        if index + 1 < MAX_OPEN {
            let child = Emptied::open(here.fd.as_fd(), name)?;
            stack.extend(child);
        } else {
            queue.push(move_up(here.fd.as_fd(), &name, top, serial)?);
        }
    }
    Ok(())
}

fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, serial: &mut u64) -> io::Result<CString> {
    loop {
        *serial += 1;
        let target = CString::new(format!(".removed-{}-{serial}", std::process::id()))?;
        match rustix::fs::renameat_with(from, name, top, &*target, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(target),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

/// Counts the bytes that a tree takes on the disk; what has several links counts once.
pub(crate) fn disk_usage(path: &Path) -> io::Result<u64> {
    let root =
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut total = blocks(&rustix::fs::fstat(&root)?);
    let mut linked = HashSet::new();
    let mut stack = vec![(root, None::<std::vec::IntoIter<(CString, FileType)>>)];
    while let Some((directory, listing)) = stack.last_mut() {
        let listing = match listing {
            Some(listing) => listing,
            None => listing.insert(list(&*directory)?.into_iter()),
        };
        let Some((name, _)) = listing.next() else {
            stack.pop();
            continue;
        };
        let stat = match rustix::fs::statat(&*directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            total += blocks(&stat);
            match open_directory(&*directory, &name) {
                Ok(child) => stack.push((child, None)),
                Err(Errno::NOENT | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        } else if stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino)) {
            total += blocks(&stat);
        }
    }
    Ok(total)
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// Reads the attributes that a layer may carry, sorted by name.
pub(crate) fn layer_xattrs(fd: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let mut small = [0u8; 512];
    let names = match rustix::fs::flistxattr(fd, &mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut names = vec![0; 64 << 10];
            let length = rustix::fs::flistxattr(fd, names.as_mut_slice())?;
            names.truncate(length);
            names
        }
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| is_layer_xattr(name)) {
        let mut value = vec![0; 64 << 10];
        match rustix::fs::fgetxattr(fd, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                xattrs.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Gives one directory the owner, mode, times and attributes of another.
pub(crate) fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    for (name, value) in layer_xattrs(from)? {
        rustix::fs::fsetxattr(to, name.as_slice(), &value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_trees_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let top = rustix::io::dup(&fd).unwrap();
        for _ in 0..1000 {
            rustix::fs::mkdirat(&fd, "d", Mode::from_raw_mode(0o700)).unwrap();
            fd = open_directory(&fd, c"d").unwrap();
        }
        rustix::fs::openat(&fd, "f", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0)).unwrap();
        remove_at(top.as_fd(), b"d").unwrap();
        assert!(list(&top).unwrap().is_empty());
        remove_at(top.as_fd(), b"d").unwrap();
    }

    #[test]
    fn links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        let before = disk_usage(dir.path()).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(disk_usage(dir.path()).unwrap(), before);
        assert!(before >= 100_000);
    }
}
