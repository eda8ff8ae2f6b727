//! Finds directories below a root, component by component, never leaving it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::EntryFault;
use crate::layer::path::EntryPath;

/// As the kernel has it.
const MAX_LINKS: usize = 40;

/// Whether symbolic links in the middle of a path are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    Never,
    /// Followed as if the root were `/`; a link that climbs above it is a fault.
    InRoot,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Step {
    Directory(OwnedFd),
    /// A symbolic link on the way, with [`Follow::Never`].
    Symlink,
    /// Something on the way that is neither directory nor link.
    Other,
}

/// Finds directories below a root; remembers the last path, as the next is often close to it.
pub(crate) struct Walker<'a> {
    root: BorrowedFd<'a>,
    last: Vec<(Vec<u8>, OwnedFd)>,
    followed: bool,
}

enum Found {
    Directory(OwnedFd),
    Symlink,
    Other,
    Missing,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, last: Vec::new(), followed: false }
    }

    /// Forgets the last path: something was removed that may have been part of it.
    pub(crate) fn forget(&mut self) {
        self.last.clear();
    }

    /// Tells whether any symbolic link was followed.
    pub(crate) fn has_followed(&self) -> bool {
        self.followed
    }

    /// Opens a directory and makes what is missing; `made` is told the path of each directory made.
    pub(crate) fn open(
        &mut self,
        components: &[Vec<u8>],
        follow: Follow,
        made: &mut dyn FnMut(EntryPath),
    ) -> Result<Step, EntryFault> {
        match self.walk(components, follow, Some(made))? {
            Some(step) => Ok(step),
            None => Err(EntryFault::Io(Errno::NOENT.into())),
        }
    }

    /// Opens a directory; `None` if there is nothing.
    pub(crate) fn lookup(
        &mut self,
        components: &[Vec<u8>],
        follow: Follow,
    ) -> Result<Option<Step>, EntryFault> {
        self.walk(components, follow, None)
    }

    fn walk(
        &mut self,
        components: &[Vec<u8>],
        follow: Follow,
        mut made: Option<&mut dyn FnMut(EntryPath)>,
    ) -> Result<Option<Step>, EntryFault> {
        let same = self.last.iter().zip(components).take_while(|((name, _), wanted)| name == *wanted).count();
        self.last.truncate(same);
        for depth in same..components.len() {
            let here = self.last.last().map_or(self.root, |(_, fd)| fd.as_fd());
            let name = &components[depth];
            let mut found = find(here, name)?;
            if matches!(found, Found::Missing) {
                let Some(made) = made.as_mut() else { return Ok(None) };
                make(here, name)?;
                made(EntryPath::from_components(&components[..=depth]));
                found = find(here, name)?;
            }
            let fd = match found {
                Found::Directory(fd) => fd,
                Found::Symlink if follow == Follow::InRoot => {
                    let mut budget = MAX_LINKS;
                    self.followed = true;
                    match self.follow(here, name, made.is_some(), &mut budget)? {
                        Some(Step::Directory(fd)) => fd,
                        other => return Ok(other),
                    }
                }
                Found::Symlink => return Ok(Some(Step::Symlink)),
                Found::Other => return Ok(Some(Step::Other)),
                Found::Missing => return Ok(None),
            };
            self.last.push((name.clone(), fd));
        }
        let here = self.last.last().map_or(self.root, |(_, fd)| fd.as_fd());
        Ok(Some(Step::Directory(here.try_clone_to_owned().map_err(EntryFault::Io)?)))
    }

    /// Resolves the symbolic link `name` in `here` to a directory.
    fn follow(
        &self,
        here: BorrowedFd<'_>,
        name: &[u8],
        make_missing: bool,
        budget: &mut usize,
    ) -> Result<Option<Step>, EntryFault> {
        *budget = budget.checked_sub(1).ok_or(EntryFault::LinkLoop)?;
        let target = rustix::fs::readlinkat(here, name, Vec::new()).map_err(io)?.into_bytes();
        let start = if target.starts_with(b"/") { self.root } else { here };
        let mut current = start.try_clone_to_owned().map_err(EntryFault::Io)?;
        for component in target.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => current = self.up(current.as_fd())?,
                name => {
                    let mut found = find(current.as_fd(), name)?;
                    if matches!(found, Found::Missing) && make_missing {
                        make(current.as_fd(), name)?;
                        found = find(current.as_fd(), name)?;
                    }
                    current = match found {
                        Found::Directory(fd) => fd,
                        Found::Symlink => match self.follow(current.as_fd(), name, make_missing, budget)? {
                            Some(Step::Directory(fd)) => fd,
                            other => return Ok(other),
                        },
                        Found::Other => return Ok(Some(Step::Other)),
                        Found::Missing => return Ok(None),
                    };
                }
            }
        }
        Ok(Some(Step::Directory(current)))
    }

    fn up(&self, here: BorrowedFd<'_>) -> Result<OwnedFd, EntryFault> {
        let identity = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(io);
        if identity(here)? == identity(self.root)? {
            return Err(EntryFault::Escapes);
        }
        rustix::fs::openat(here, "..", directory_flags(), Mode::empty()).map_err(io)
    }
}

fn find(here: BorrowedFd<'_>, name: &[u8]) -> Result<Found, EntryFault> {
    let name = CString::new(name).map_err(|_| EntryFault::Empty)?;
    match rustix::fs::openat(here, &*name, directory_flags(), Mode::empty()) {
        Ok(fd) => Ok(Found::Directory(fd)),
        Err(Errno::NOENT) => Ok(Found::Missing),
        // With `O_DIRECTORY`, a link is "not a directory" too.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let stat = rustix::fs::statat(here, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
            let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            Ok(if link { Found::Symlink } else { Found::Other })
        }
        Err(error) => Err(io(error)),
    }
}

fn make(here: BorrowedFd<'_>, name: &[u8]) -> Result<(), EntryFault> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(here, name, mode) {
        // Whatever the umask.
        Ok(()) => rustix::fs::chmodat(here, name, mode, AtFlags::empty()).map_err(io),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(io(error)),
    }
}

fn directory_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn io(error: Errno) -> EntryFault {
    EntryFault::Io(error.into())
}
