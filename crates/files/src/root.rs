//! A directory as the top of a tree that nothing leads out of.
//!
//! Every path is relative to the directory the [`Root`] holds. It is first resolved to one without symbolic
//! links ([`Root::evaluate`]), the links being followed as if the directory were `/`; what is then done goes
//! through `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, so a link put in the way meanwhile makes the
//! call fail instead of leading elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, StatxFlags, Timespec, Timestamps, Uid,
    openat2,
};
use rustix::io::Errno;

use crate::entry::{Dir, Entry, EntryRef, FileKind, Metadata, Time};
use crate::error::{FilesError, Result};
use crate::hash::attributes_digest;
use crate::patterns::clean_relative;
use crate::tree::FileTree;

/// How many symbolic links one path may lead through.
pub(crate) const MAX_LINKS: usize = 255;

/// The longest path given to the kernel in one call; longer ones are opened in pieces.
const MAX_PATH: usize = 3500;

/// How deep directories are read: walks recurse, and the stack of a thread is not endless.
const MAX_DEPTH: usize = 1024;

const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory that is the root of everything done through it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// How a new directory is made.
#[derive(Clone, Copy, Debug)]
pub struct NewDir {
    pub mode: u32,
    /// The owner and group; those of the process when absent.
    pub owner: Option<(u32, u32)>,
    /// The modification time; now when absent.
    pub time: Option<Time>,
}

impl Default for NewDir {
    fn default() -> Self {
        Self { mode: 0o755, owner: None, time: None }
    }
}

impl From<OwnedFd> for Root {
    /// Takes a directory descriptor, for example that of a detached mount.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Opens a directory of the host.
    pub fn open(directory: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Err(FilesError::Host {
                operation: "open directory",
                path: directory.to_owned(),
                source: errno.into(),
            }),
        }
    }

    /// Makes another handle of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| FilesError::Host {
            operation: "duplicate descriptor",
            path: PathBuf::new(),
            source: error,
        })?;
        Ok(Self { fd })
    }

    /// Resolves `path` inside the root, symbolic links included, the last one too if `follow_last`.
    ///
    /// Names that do not exist are kept as they are, so the result may be made by the caller.
    pub fn evaluate(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        let cleaned = clean_relative(path);
        if !has_dots(path) {
            match self.open_at(&cleaned, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) if !follow_last => {
                    drop(fd);
                    return Ok(cleaned);
                }
                Ok(fd) => {
                    let kind = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
                    if kind.is_ok_and(|kind| kind != FileType::Symlink) {
                        return Ok(cleaned);
                    }
                }
                Err(_) => {}
            }
        }
        crate::tree::resolve_by_steps(self, path, follow_last)
    }

    /// Opens the regular file that `path` leads to, and returns it with its own path; `None` when there is none.
    pub fn open_file(&self, path: &Path) -> Result<Option<(PathBuf, File)>> {
        let found = self.evaluate(path, true)?;
        if self.metadata(&found)?.is_none_or(|metadata| metadata.kind != FileKind::File) {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_resolved(&found, flags, "open")?;
        Ok(Some((found, File::from(fd))))
    }

    /// Opens a path without symbolic links.
    pub(crate) fn open_resolved(
        &self,
        path: &Path,
        flags: OFlags,
        operation: &'static str,
    ) -> Result<OwnedFd> {
        self.open_at(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(FilesError::os(operation, path))
    }

    /// Opens a path without symbolic links, in pieces if it is very long.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut rest = path.as_os_str().as_bytes();
        if rest.is_empty() {
            return openat2(&self.fd, ".", flags & !OFlags::NOFOLLOW, mode, resolve);
        }
        let mut at: Option<OwnedFd> = None;
        while rest.len() > MAX_PATH {
            let cut = rest[..MAX_PATH].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let from = at.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            at = Some(openat2(from, OsStr::from_bytes(&rest[..cut]), flags, Mode::empty(), resolve)?);
            rest = &rest[cut + 1..];
        }
        openat2(
            at.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd),
            OsStr::from_bytes(rest),
            flags,
            mode,
            resolve,
        )
    }

    /// Opens a directory for reading, or for use as the place where names are made.
    pub(crate) fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, READ_DIRECTORY, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => FilesError::NotADirectory { operation: "open", path: path.to_owned() },
            _ => FilesError::os("open", path)(errno),
        })
    }

    /// Opens the directory a path without symbolic links is in, and returns it with the last name.
    pub(crate) fn open_parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| FilesError::os("open", path)(Errno::BUSY))?;
        Ok((self.open_directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Reads the attributes of a path without symbolic links; `None` when there is no such file.
    pub fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        Ok(self.look(path)?.map(|(metadata, _)| metadata))
    }

    fn look(&self, path: &Path) -> Result<Option<(Metadata, OwnedFd)>> {
        let fd = match self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(FilesError::os("lstat", path)(errno)),
        };
        let metadata = stat_fd(&fd).map_err(FilesError::os("lstat", path))?;
        Ok(Some((metadata, fd)))
    }

    /// Makes the directory at a path without symbolic links, and those above it, where they do not exist yet;
    /// returns the ones it made, outermost first. What exists is left as it is.
    pub fn create_dir_all(&self, path: &Path, new: NewDir) -> Result<Vec<PathBuf>> {
        let mut made = Vec::new();
        match self.metadata(path) {
            Ok(Some(metadata)) if metadata.is_dir() => return Ok(made),
            Ok(Some(_)) => {
                return Err(FilesError::NotADirectory { operation: "mkdir", path: path.to_owned() });
            }
            _ => {}
        }
        let mut at = PathBuf::new();
        for part in path.components() {
            at.push(part);
            match self.metadata(&at)? {
                Some(metadata) if metadata.is_dir() => {}
                Some(_) => return Err(FilesError::NotADirectory { operation: "mkdir", path: at }),
                None => {
                    self.create_dir(&at, new)?;
                    made.push(at.clone());
                }
            }
        }
        Ok(made)
    }

    /// Makes one directory, with exactly the mode asked for.
    pub(crate) fn create_dir(&self, path: &Path, new: NewDir) -> Result<()> {
        let failed = |errno| FilesError::os("mkdir", path)(errno);
        let (parent, name) = self.open_parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)).map_err(failed)?;
        let fd = open_child_directory(&parent, name).map_err(failed)?;
        if let Some((uid, gid)) = new.owner {
            change_owner(&fd, uid, gid).map_err(FilesError::os("chown", path))?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(new.mode & 0o7777))
            .map_err(FilesError::os("chmod", path))?;
        if let Some(time) = new.time {
            rustix::fs::futimens(&fd, &timestamps(time)).map_err(FilesError::os("utimes", path))?;
        }
        Ok(())
    }

    /// Removes what is at a path without symbolic links, with all below it. Nothing there is no error.
    pub fn remove_all(&self, path: &Path) -> Result<()> {
        let (parent, name) = match self.open_parent(path) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        remove_all_at(&parent, name, path)
    }
}

impl FileTree for Root {
    fn find(&self, path: &Path) -> Result<Option<EntryRef>> {
        let Some((metadata, fd)) = self.look(path)? else { return Ok(None) };
        let target = match metadata.kind {
            FileKind::Symlink => {
                let target =
                    rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(FilesError::os("readlink", path))?;
                Some(OsString::from_vec(target.into_bytes()))
            }
            _ => None,
        };
        let name = path.file_name().unwrap_or_default().into();
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let dir = Dir { path: parent, entries: vec![Entry { name, metadata, target }], attributes: [0; 16] };
        Ok(Some(EntryRef::new(Arc::new(dir), 0)))
    }

    fn children(&self, path: &Path) -> Result<Arc<Dir>> {
        let fd = self.open_directory(path)?;
        let attributes = attributes_digest(&fd, path)?;
        let entries = read_directory(&fd, path, |_, _| true)?;
        Ok(Arc::new(Dir { path: path.to_owned(), entries, attributes }))
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        self.open_directory(path)
    }

    fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        self.evaluate(path, follow_last)
    }
}

/// Reads the entries of a directory that `keep` wants, in the order of their names.
///
/// `keep` is asked before a file is looked at, so that an excluded one that cannot be read is no error.
pub(crate) fn read_directory(
    fd: &OwnedFd,
    path: &Path,
    mut keep: impl FnMut(&OsStr, FileType) -> bool,
) -> Result<Vec<Entry>> {
    let failed = |errno| FilesError::os("read directory", path)(errno);
    if path.components().count() > MAX_DEPTH {
        return Err(FilesError::TooDeep { path: path.to_owned() });
    }
    let mut entries = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut names = RawDir::new(fd, &mut buffer);
    while let Some(name) = names.next() {
        let name_entry = name.map_err(failed)?;
        let bytes = name_entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." || !keep(OsStr::from_bytes(bytes), name_entry.file_type()) {
            continue;
        }
        let c_name = name_entry.file_name();
        let metadata = match stat_at(fd.as_fd(), c_name) {
            Ok(metadata) => metadata,
            // Removed since the directory was read.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(FilesError::os("lstat", &path.join(OsStr::from_bytes(bytes)))(errno)),
        };
        let target = match metadata.kind {
            FileKind::Symlink => match rustix::fs::readlinkat(fd, c_name, Vec::new()) {
                Ok(target) => Some(OsString::from_vec(target.into_bytes())),
                Err(Errno::NOENT | Errno::INVAL) => continue,
                Err(errno) => {
                    return Err(FilesError::os("readlink", &path.join(OsStr::from_bytes(bytes)))(errno));
                }
            },
            _ => None,
        };
        entries.push(Entry { name: OsStr::from_bytes(bytes).into(), metadata, target });
    }
    entries.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(entries)
}

const STAT_FIELDS: StatxFlags = StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME);

/// Reads the attributes of a name in a directory, itself and not what it links to.
pub(crate) fn stat_at<P: rustix::path::Arg>(
    directory: BorrowedFd<'_>,
    name: P,
) -> rustix::io::Result<Metadata> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, STAT_FIELDS).map(|stat| Metadata::from_statx(&stat))
}

/// Reads the attributes of an open file.
pub(crate) fn stat_fd(fd: impl AsFd) -> rustix::io::Result<Metadata> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, STAT_FIELDS).map(|stat| Metadata::from_statx(&stat))
}

/// Opens a directory by its name in another.
pub(crate) fn open_child_directory<P: rustix::path::Arg>(
    parent: &OwnedFd,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, READ_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Sets the owner and group of an open file.
pub(crate) fn change_owner(fd: &OwnedFd, uid: u32, gid: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Says to set both times of a file.
pub(crate) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes a name of a directory with all below it, never following a link.
///
/// The tree is emptied without recursion, and with two descriptors at a time, so depth costs nothing.
pub(crate) fn remove_all_at(parent: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
    let failed = |errno| FilesError::os("remove", shown)(errno);
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(failed(errno)),
    }
    if rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
        return Ok(());
    }
    let top = open_child_directory(parent, name).map_err(failed)?;
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let mut trail = Vec::new();
    let mut here = top.try_clone().map_err(|_| failed(Errno::MFILE))?;
    loop {
        match empty_directory(&here).map_err(failed)? {
            Some(directory) => {
                let above = identity(&here).map_err(failed)?;
                here = open_child_directory(&here, directory.as_os_str()).map_err(failed)?;
                trail.push((directory, above));
            }
            None => {
                let Some((emptied, above)) = trail.pop() else { break };
                here = rustix::fs::openat(&here, "..", READ_DIRECTORY, Mode::empty()).map_err(failed)?;
                // The directory was moved meanwhile: what is above it now is none of ours.
                if identity(&here).map_err(failed)? != above {
                    return Err(failed(Errno::STALE));
                }
                rustix::fs::unlinkat(&here, emptied.as_os_str(), AtFlags::REMOVEDIR).map_err(failed)?;
            }
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed)
}

/// Removes what is no directory, and empty directories; returns the first directory that is not empty.
fn empty_directory(fd: &OwnedFd) -> rustix::io::Result<Option<OsString>> {
    rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
    let mut names = RawDir::new(fd, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let removed = match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return Ok(Some(OsString::from_vec(name.to_bytes().to_vec())));
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn has_dots(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}
