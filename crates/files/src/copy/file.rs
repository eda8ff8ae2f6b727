//! Copying one file that is no directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::walk::Job;
use super::{CopyReport, Ownership};
use crate::digest_cache::FileDigest;
use crate::entry::{EntryRef, FileKind, Metadata};
use crate::error::{FilesError, Result};
use crate::hash::open_file;
use crate::root::{change_owner, stat_fd, timestamps};
use crate::xattrs;

/// A directory of the destination that files are made in.
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
    /// Whether new files get its group instead of that of the process.
    gives_group: bool,
}

/// Whom new files belong to.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
}

impl Identity {
    pub(super) fn of_process() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

impl Place {
    pub(super) fn new(fd: OwnedFd, path: PathBuf) -> Result<Self> {
        let metadata = stat_fd(&fd).map_err(FilesError::os("stat", &path))?;
        Ok(Self { fd, path, gives_group: metadata.mode & 0o2000 != 0 })
    }
}

impl Job<'_> {
    /// Copies a file into a directory, replacing what is there under its name if that is no directory.
    pub(super) fn copy_file(
        &self,
        from: &OwnedFd,
        entry: &EntryRef,
        to: &Place,
        name: &OsStr,
        report: &mut CopyReport,
    ) -> Result<()> {
        let shown = to.path.join(name);
        match entry.metadata.kind {
            FileKind::File => report.bytes += self.copy_regular(from, entry, to, name, &shown)?,
            FileKind::Symlink => self.copy_symlink(entry, to, name, &shown)?,
            FileKind::Directory => return Err(FilesError::ChangedDuringBuild { path: entry.path() }),
            FileKind::Fifo | FileKind::Socket | FileKind::CharacterDevice | FileKind::BlockDevice => {
                if !self.copy_special(entry, to, name, &shown)? {
                    report.skipped_devices.push(shown);
                    return Ok(());
                }
            }
        }
        report.files += 1;
        Ok(())
    }

    fn copy_regular(
        &self,
        from: &OwnedFd,
        entry: &EntryRef,
        to: &Place,
        name: &OsStr,
        shown: &Path,
    ) -> Result<u64> {
        let known = self.digests.and_then(|digests| digests.get(&entry.metadata));
        let source = open_file(from, entry)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.create("create", to, name, shown, || {
            rustix::fs::openat(&to.fd, name, flags, Mode::from_raw_mode(0o600))
        })?;
        let copied = self.fill_regular(&source, entry, known, &file, shown);
        let outcome = copied.and_then(|size| {
            self.set_attributes(&source, entry, known, &file, to, shown)?;
            Ok(size)
        });
        if outcome.is_err() {
            let _ = rustix::fs::unlinkat(&to.fd, name, AtFlags::empty());
        }
        outcome
    }

    /// Copies the content, and makes sure that it is what the digest stands for.
    fn fill_regular(
        &self,
        source: &OwnedFd,
        entry: &EntryRef,
        known: Option<FileDigest>,
        file: &OwnedFd,
        shown: &Path,
    ) -> Result<u64> {
        let changed = || FilesError::ChangedDuringBuild { path: entry.path() };
        let hashing = known.is_some_and(|known| known.racy);
        let moved = self.data.copy(source, file, &entry.metadata, hashing);
        let moved = moved.map_err(|errno| match errno {
            // A directory or a device took the place of the file.
            Errno::ISDIR => changed(),
            _ => FilesError::os("copy to", shown)(errno),
        })?;
        let after = stat_fd(source).map_err(|errno| FilesError::os("stat", &entry.path())(errno))?;
        if after.kind != FileKind::File {
            return Err(changed());
        }
        match (known, moved.digest) {
            (None, _) => Ok(moved.size),
            (Some(known), Some(digest)) if known.content == digest => Ok(moved.size),
            (Some(_), Some(_)) => Err(changed()),
            (Some(_), None) if after.same_content(&entry.metadata) && moved.size == after.size => {
                Ok(moved.size)
            }
            (Some(known), None) => {
                let digest = self.data.digest(file).map_err(FilesError::os("read", shown))?;
                if digest == known.content { Ok(moved.size) } else { Err(changed()) }
            }
        }
    }

    fn set_attributes(
        &self,
        source: &OwnedFd,
        entry: &EntryRef,
        known: Option<FileDigest>,
        file: &OwnedFd,
        to: &Place,
        shown: &Path,
    ) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry) {
            let own = (uid, gid) == (self.identity.uid, self.identity.gid) && !to.gives_group;
            if !own {
                change_owner(file, uid, gid).map_err(FilesError::os("chown", shown))?;
            }
        }
        let mode = Mode::from_raw_mode(self.mode(entry.metadata.mode, false));
        rustix::fs::fchmod(file, mode).map_err(FilesError::os("chmod", shown))?;
        // Known digests tell whether there are attributes; asking is a system call for each file.
        if known.is_none_or(|known| known.racy || known.attributes != [0; 16]) {
            let attributes = xattrs::read(source)
                .map_err(|errno| FilesError::os("read attributes of", &entry.path())(errno))?;
            xattrs::write(file, &attributes).map_err(FilesError::os("set attributes of", shown))?;
        }
        let time = self.options.time.unwrap_or(entry.metadata.modified);
        rustix::fs::futimens(file, &timestamps(time)).map_err(FilesError::os("utimes", shown))
    }

    fn copy_symlink(&self, entry: &EntryRef, to: &Place, name: &OsStr, shown: &Path) -> Result<()> {
        let target = entry.target.as_deref().unwrap_or_default();
        self.create("symlink", to, name, shown, || rustix::fs::symlinkat(target, &to.fd, name))?;
        self.set_attributes_by_name(entry, to, name, shown)
    }

    /// Makes a fifo, a device, or an empty file in place of a socket; returns false if it may not be made.
    fn copy_special(&self, entry: &EntryRef, to: &Place, name: &OsStr, shown: &Path) -> Result<bool> {
        let Metadata { kind, special: (major, minor), .. } = entry.metadata;
        let file_type = match kind {
            FileKind::Fifo => FileType::Fifo,
            FileKind::CharacterDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::RegularFile,
        };
        let device = match file_type {
            FileType::CharacterDevice | FileType::BlockDevice => rustix::fs::makedev(major, minor),
            _ => 0,
        };
        let made = self.create("mknod", to, name, shown, || {
            rustix::fs::mknodat(&to.fd, name, file_type, Mode::from_raw_mode(0o600), device)
        });
        match made {
            Ok(()) => {}
            Err(FilesError::Os { source: crate::OsError(Errno::PERM), .. }) if device != 0 => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.set_attributes_by_name(entry, to, name, shown)?;
        Ok(true)
    }

    /// Sets the attributes of what cannot be opened.
    fn set_attributes_by_name(&self, entry: &EntryRef, to: &Place, name: &OsStr, shown: &Path) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = self.owner(entry) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&to.fd, name, Some(uid), Some(gid), flags)
                .map_err(FilesError::os("chown", shown))?;
        }
        if entry.metadata.kind != FileKind::Symlink {
            let mode = Mode::from_raw_mode(self.mode(entry.metadata.mode, false));
            rustix::fs::chmodat(&to.fd, name, mode, AtFlags::empty())
                .map_err(FilesError::os("chmod", shown))?;
        }
        let time = self.options.time.unwrap_or(entry.metadata.modified);
        rustix::fs::utimensat(&to.fd, name, &timestamps(time), flags).map_err(FilesError::os("utimes", shown))
    }

    /// Calls `make` for a new name, and again when what was there is removed.
    fn create<T>(
        &self,
        operation: &'static str,
        to: &Place,
        name: &OsStr,
        shown: &Path,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(&to.fd, name, shown)?;
                make().map_err(FilesError::os(operation, shown))
            }
            other => other.map_err(FilesError::os(operation, shown)),
        }
    }

    /// Returns whom the copy of an entry belongs to; `None` to leave it as it is made.
    pub(super) fn owner(&self, entry: &EntryRef) -> Option<(u32, u32)> {
        match self.options.ownership {
            Ownership::Source => {
                Some(self.source.owner().unwrap_or((entry.metadata.uid, entry.metadata.gid)))
            }
            Ownership::Fixed { uid, gid } => Some((uid, gid)),
            Ownership::Process => None,
        }
    }

    /// Returns the mode of the copy of an entry.
    pub(super) fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        self.options.mode.as_ref().map_or(mode, |change| change.apply(mode, is_directory))
    }
}

/// Lends a place as a descriptor.
impl AsFd for Place {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
