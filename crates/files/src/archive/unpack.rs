//! Unpacking an archive into a directory, as `ADD` does.
//!
//! Names are taken as if the directory were the root of the file system: a leading slash or `..` says nothing,
//! and symbolic links, those of the archive included, are followed inside it. What exists is replaced, but for a
//! directory by a directory, which is merged.

use std::ffi::{OsStr, OsString};
use std::io::{Error, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tar_core::EntryType;

use super::reader::{TarEntry, TarReader};
use crate::copy::CopyReport;
use crate::entry::Time;
use crate::error::{FilesError, Result};
use crate::patterns::clean_relative;
use crate::root::{NewDir, Root, change_owner, open_child_directory, remove_all_at, stat_at, timestamps};
use crate::xattrs;

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Whom all files belong to, instead of whom the archive says.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks a plain tar stream into `dest`; `shown` names the archive in errors.
pub fn unpack(data: impl Read, shown: &Path, dest: &Root, options: UnpackOptions) -> Result<CopyReport> {
    let mut unpacking = Unpacking {
        tar: TarReader::new(data),
        shown,
        dest,
        options,
        place: None,
        directories: Vec::new(),
        report: CopyReport::default(),
    };
    while let Some(entry) = unpacking.tar.next_entry().map_err(|source| unpacking.damaged(source))? {
        unpacking.entry(&entry)?;
    }
    unpacking.finish()
}

struct Unpacking<'u, R> {
    tar: TarReader<R>,
    shown: &'u Path,
    dest: &'u Root,
    options: UnpackOptions,
    /// The directory the last file was made in, by the path it was named with.
    place: Option<(PathBuf, OwnedFd)>,
    /// Directories whose times are set at the end, without symbolic links.
    directories: Vec<(PathBuf, Time)>,
    report: CopyReport,
}

impl<R: Read> Unpacking<'_, R> {
    fn damaged(&self, source: Error) -> FilesError {
        FilesError::Archive { path: self.shown.to_owned(), source }
    }

    fn entry(&mut self, entry: &TarEntry) -> Result<()> {
        let path = clean_relative(Path::new(OsStr::from_bytes(&entry.path)));
        let Some(name) = path.file_name() else {
            // The directory itself stays as it is.
            return if entry.kind.is_dir() { Ok(()) } else { Err(self.odd(entry, "has no name")) };
        };
        let (parent, to) = self.open_parent(path.parent().unwrap_or(Path::new("")))?;
        let outcome = self.replace(entry, &to, name, &path).and_then(|()| match entry.kind {
            EntryType::Directory => self.directory(entry, &to, name, &parent.join(name)),
            EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => {
                self.regular(entry, &to, name, &path)
            }
            EntryType::Symlink => self.symlink(entry, &to, name, &path),
            EntryType::Link => self.hard_link(entry, &to, name, &path),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.special(entry, &to, name, &path),
            _ => Err(self.odd(entry, "has a type that cannot be unpacked")),
        });
        // Only files of content leave every directory where it is.
        self.place = entry.kind.is_file().then_some((parent, to));
        outcome
    }

    fn odd(&self, entry: &TarEntry, what: &str) -> FilesError {
        let text = format!("entry `{}` {what}", String::from_utf8_lossy(&entry.path));
        self.damaged(Error::new(ErrorKind::InvalidData, text))
    }

    /// Opens the directory an entry goes into, which is made if the archive has no entry for it.
    fn open_parent(&mut self, named: &Path) -> Result<(PathBuf, OwnedFd)> {
        if let Some((last, fd)) = self.place.take()
            && last == named
        {
            return Ok((last, fd));
        }
        let resolved = self.dest.evaluate(named, true)?;
        // Whoever else the archive's files belong to, these are root's.
        let owner = rustix::process::geteuid().is_root().then_some((0, 0));
        self.dest.create_dir_all(&resolved, NewDir { mode: 0o755, owner, time: None })?;
        let fd = self.dest.open_directory(&resolved)?;
        Ok((resolved, fd))
    }

    /// Removes what is in the way of an entry.
    fn replace(&self, entry: &TarEntry, to: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
        match stat_at(to.as_fd(), name) {
            Ok(existing) if existing.is_dir() && entry.kind.is_dir() => Ok(()),
            Ok(_) => remove_all_at(to, name, shown),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(FilesError::os("lstat", shown)(errno)),
        }
    }

    fn owner(&self, entry: &TarEntry) -> Result<(u32, u32)> {
        match (self.options.owner, u32::try_from(entry.uid), u32::try_from(entry.gid)) {
            (Some(owner), ..) => Ok(owner),
            (None, Ok(uid), Ok(gid)) => Ok((uid, gid)),
            _ => Err(self.odd(entry, "belongs to an impossible user or group")),
        }
    }

    /// Sets the attributes of an open file but for its times.
    fn attributes(&self, entry: &TarEntry, fd: &OwnedFd, shown: &Path) -> Result<()> {
        let (uid, gid) = self.owner(entry)?;
        change_owner(fd, uid, gid).map_err(FilesError::os("chown", shown))?;
        xattrs::write(fd, &entry.attributes).map_err(FilesError::os("set attributes of", shown))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(FilesError::os("chmod", shown))
    }

    fn directory(&mut self, entry: &TarEntry, to: &OwnedFd, name: &OsStr, resolved: &Path) -> Result<()> {
        match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(FilesError::os("mkdir", resolved)(errno)),
        }
        let fd = open_child_directory(to, name).map_err(FilesError::os("open", resolved))?;
        self.attributes(entry, &fd, resolved)?;
        self.directories.push((resolved.to_owned(), bound(entry.modified)));
        Ok(())
    }

    fn regular(&mut self, entry: &TarEntry, to: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))
            .map_err(FilesError::os("create", shown))?;
        let mut end = 0;
        for piece in &entry.pieces {
            let mut offset = piece.offset;
            let mut failure = None;
            let read = self.tar.content(piece.length, |bytes| {
                write_at(&fd, bytes, offset).inspect_err(|errno| failure = Some(*errno))?;
                offset += bytes.len() as u64;
                Ok(())
            });
            if let Some(errno) = failure {
                return Err(FilesError::os("write", shown)(errno));
            }
            read.map_err(|source| self.damaged(source))?;
            end = end.max(offset);
        }
        if end < entry.size {
            rustix::fs::ftruncate(&fd, entry.size).map_err(FilesError::os("write", shown))?;
        }
        self.attributes(entry, &fd, shown)?;
        rustix::fs::futimens(&fd, &timestamps(bound(entry.modified)))
            .map_err(FilesError::os("utimes", shown))?;
        self.report.files += 1;
        self.report.bytes += entry.size;
        Ok(())
    }

    fn symlink(&mut self, entry: &TarEntry, to: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
        rustix::fs::symlinkat(entry.link.as_slice(), to, name).map_err(FilesError::os("symlink", shown))?;
        self.report.files += 1;
        self.attributes_by_name(entry, to, name, true, shown)
    }

    fn hard_link(&mut self, entry: &TarEntry, to: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
        let target = PathBuf::from(OsString::from_vec(entry.link.clone()));
        let resolved = self.dest.evaluate(&target, false)?;
        let (from, from_name) = self.dest.open_parent(&resolved)?;
        rustix::fs::linkat(&from, from_name, to, name, AtFlags::empty())
            .map_err(FilesError::os("link", shown))?;
        let linked = stat_at(to.as_fd(), name).map_err(FilesError::os("lstat", shown))?;
        self.report.files += 1;
        self.attributes_by_name(entry, to, name, linked.kind == crate::FileKind::Symlink, shown)
    }

    fn special(&mut self, entry: &TarEntry, to: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
        let kind = match entry.kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = match kind {
            FileType::Fifo => 0,
            _ => rustix::fs::makedev(entry.device.0, entry.device.1),
        };
        match rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), device) {
            Ok(()) => {}
            // In a user namespace no device can be made; the build goes on without it, and says so.
            Err(Errno::PERM) => {
                self.report.skipped_devices.push(shown.to_owned());
                return Ok(());
            }
            Err(errno) => return Err(FilesError::os("mknod", shown)(errno)),
        }
        self.report.files += 1;
        self.attributes_by_name(entry, to, name, false, shown)
    }

    fn attributes_by_name(
        &self,
        entry: &TarEntry,
        to: &OwnedFd,
        name: &OsStr,
        is_symlink: bool,
        shown: &Path,
    ) -> Result<()> {
        let (uid, gid) = self.owner(entry)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(to, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
            .map_err(FilesError::os("chown", shown))?;
        if !is_symlink {
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(FilesError::os("chmod", shown))?;
        }
        rustix::fs::utimensat(to, name, &timestamps(bound(entry.modified)), flags)
            .map_err(FilesError::os("utimes", shown))
    }

    /// Sets the times of directories, now that nothing is made in them any more.
    fn finish(self) -> Result<CopyReport> {
        for (path, time) in self.directories.iter().rev() {
            // A later entry may have put something else in its place.
            if let Ok(fd) = self.dest.open_directory(path) {
                rustix::fs::futimens(&fd, &timestamps(*time)).map_err(FilesError::os("utimes", path))?;
            }
        }
        Ok(self.report)
    }
}

/// Makes times before 1970 the first moment of it, as the reference does.
fn bound(time: Time) -> Time {
    if time.seconds < 0 { Time::default() } else { time }
}

fn write_at(fd: &OwnedFd, bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::pwrite(fd, rest, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => {
                rest = &rest[length..];
                offset += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
