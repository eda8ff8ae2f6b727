//! Puts the entries of an archive into a directory.
//!
//! # Safety of the host
//!
//! Every path is walked one component at a time with `O_NOFOLLOW` from the root's descriptor. A symbolic
//! link in the middle is never left to the kernel: it is either followed here, inside the root, or makes
//! the extraction end with [`Outcome::NeedsParent`]. So nothing outside the root is reached, whatever the
//! archive says.
//!
//! # Independence of the parent
//!
//! A layer is extracted without its parent ([`Placement::Detached`]), so that all layers of an image can
//! be extracted at once. What an entry means depends on the parent only in three cases:
//! - a directory that the archive implies but does not contain has the parent's owner, mode and times;
//!   these directories are reported and mended once the parent is there;
//! - a path through something that is no directory in this layer, perhaps a symbolic link;
//! - a hard link to a file of the parent.
//!
//! The last two end the extraction; the caller does it again through a mount over the parent
//! ([`Placement::Merged`]).
//!
//! Directories get their metadata at the end, when nothing is put into them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use slipway_model::Digest;
use tar_core::EntryType;

use super::path::EntryPath;
use super::{OPAQUE, WHITEOUT};
use crate::error::{EntryFault, Result, StoreError};
use crate::mount::Flavour;
use crate::tar::{Entry, Sparse, TarError, TarReader};
use crate::tree;
use crate::tree::walk::{Follow, Step, Walker};

/// What the directory that a layer is extracted into stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The lowest layer: there is nothing below.
    Alone,
    /// The upper directory over a parent that is not looked at: whiteouts become overlayfs's.
    Detached,
    /// A mount over the parent: whiteouts remove.
    Merged,
}

/// How an extraction ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(Extracted),
    /// Only [`Placement::Detached`]: the archive refers to what the parent has.
    NeedsParent,
}

/// What is to be known about an extracted layer.
#[derive(Debug)]
pub(crate) struct Extracted {
    /// Directories, without the root, that must get their metadata from the parent.
    pub(crate) implied: Vec<EntryPath>,
    /// The archive says what the root directory is like.
    pub(crate) has_root: bool,
    /// The directory serves over any parent.
    pub(crate) portable: bool,
}

/// Extracts one layer.
pub(crate) struct Extractor<'a> {
    layer: Digest,
    flavour: Flavour,
    placement: Placement,
    walker: Walker<'a>,
    directories: BTreeMap<EntryPath, DirectoryMeta>,
    implied: BTreeSet<EntryPath>,
    /// `Merged` only: what this layer made, and an opaque directory must keep.
    made: BTreeSet<EntryPath>,
    owner: (u32, u32),
    portable: bool,
    xattrs_refused: bool,
}

struct DirectoryMeta {
    mode: u32,
    owner: (u32, u32),
    times: Timestamps,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Ends an entry: a fault, or the need of the parent.
enum Stop {
    Fault(EntryFault),
    Archive(TarError),
    NeedsParent,
}

impl From<EntryFault> for Stop {
    fn from(fault: EntryFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Fault(EntryFault::Io(error.into()))
    }
}

impl From<TarError> for Stop {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}

impl<'a> Extractor<'a> {
    pub(crate) fn new(layer: Digest, root: BorrowedFd<'a>, placement: Placement, flavour: Flavour) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            layer,
            flavour,
            placement,
            walker: Walker::new(root),
            directories: BTreeMap::new(),
            implied: BTreeSet::new(),
            made: BTreeSet::new(),
            owner,
            portable: true,
            xattrs_refused: false,
        }
    }

    /// Extracts all entries of `archive`, then reads it to its end.
    pub(crate) fn run<R: Read>(mut self, mut archive: TarReader<R>) -> Result<Outcome> {
        while let Some(entry) = archive.next().map_err(|error| malformed(self.layer, error))? {
            match self.entry(&entry, &mut archive) {
                Ok(()) => {}
                Err(Stop::NeedsParent) => return Ok(Outcome::NeedsParent),
                Err(Stop::Archive(error)) => return Err(malformed(self.layer, error)),
                Err(Stop::Fault(fault)) => return Err(StoreError::entry(self.layer, &entry.path, fault)),
            }
        }
        archive.drain().map_err(|error| malformed(self.layer, error))?;
        self.finish_directories()?;
        let has_root = self.directories.contains_key(&EntryPath::default());
        let implied: Vec<_> = self.implied.into_iter().collect();
        let portable = self.portable && !self.walker.has_followed() && implied.is_empty();
        Ok(Outcome::Done(Extracted { implied, has_root, portable }))
    }

    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> Result<(), Stop> {
        let path = EntryPath::parse(&entry.path)?;
        let Some((name, parent_path)) = path.split_last() else {
            return self.root_entry(entry);
        };
        if matches!(entry.kind, EntryType::Other(b'V')) {
            return Ok(()); // GNU tar's volume label.
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(name, hidden, parent_path);
        }
        let parent = self.parent(parent_path)?;
        match entry.kind {
            EntryType::Directory => self.directory(parent.as_fd(), name, &path, entry)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => {
                self.make_room(parent.as_fd(), name, &path)?;
                self.file(parent.as_fd(), name, entry, archive)?;
            }
            EntryType::Symlink => {
                self.make_room(parent.as_fd(), name, &path)?;
                rustix::fs::symlinkat(entry.link.as_slice(), &parent, name)?;
                self.finish_at(parent.as_fd(), name, entry)?;
            }
            EntryType::Link => self.hard_link(parent.as_fd(), name, &path, entry)?,
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.device(parent.as_fd(), name, &path, entry)?;
            }
            other => return Err(EntryFault::Type(char::from(other.to_byte())).into()),
        }
        if self.placement == Placement::Merged {
            self.made.insert(path);
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        if entry.kind != EntryType::Directory {
            return Err(EntryFault::Empty.into());
        }
        let meta = self.directory_meta(entry)?;
        self.directories.insert(EntryPath::default(), meta);
        Ok(())
    }

    /// Opens the directory that an entry goes to, making what is missing.
    fn parent(&mut self, components: &[Vec<u8>]) -> Result<OwnedFd, Stop> {
        let follow = if self.placement == Placement::Detached { Follow::Never } else { Follow::InRoot };
        let (implied, walker) = (&mut self.implied, &mut self.walker);
        let made = walker.open(components, follow, &mut |made| {
            implied.insert(made);
        });
        match made? {
            Step::Directory(fd) => Ok(fd),
            Step::Symlink => Err(Stop::NeedsParent),
            Step::Other if self.placement == Placement::Detached => Err(Stop::NeedsParent),
            Step::Other => Err(EntryFault::NotADirectory.into()),
        }
    }

    /// Removes what an earlier entry, or in a mount the parent, has at the place of an entry.
    fn make_room(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<(), Stop> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => self.walker.forget(),
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                tree::remove_at(parent, name).map_err(EntryFault::Io)?;
                self.walker.forget();
                self.directories.retain(|other, _| !other.starts_with(path));
                self.implied.retain(|other| !other.starts_with(path));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &EntryPath,
        entry: &Entry,
    ) -> Result<(), Stop> {
        let meta = self.directory_meta(entry)?;
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    self.make_room(parent, name, path)?;
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                    if self.placement == Placement::Detached {
                        // What was here, or its whiteout, hid what the parent may have.
                        self.set_opaque(parent, name)?;
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.implied.remove(path);
        self.directories.insert(path.clone(), meta);
        Ok(())
    }

    fn directory_meta(&self, entry: &Entry) -> Result<DirectoryMeta, Stop> {
        let (owner, times) = (owner(entry)?, times(entry));
        Ok(DirectoryMeta { mode: entry.mode, owner, times, xattrs: entry.xattrs.clone() })
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> Result<(), Stop> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        match &entry.sparse {
            None => loop {
                let piece = archive.content()?;
                if piece.is_empty() {
                    break;
                }
                write_all(file.as_fd(), piece)?;
            },
            Some(sparse) => write_sparse(file.as_fd(), sparse, archive)?,
        }
        self.finish_file(file.as_fd(), entry)
    }

    fn finish_file(&mut self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Stop> {
        let (uid, gid) = owner(entry)?;
        if (uid, gid) != self.owner {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| unmapped(error, entry))?;
        }
        self.set_xattrs(file, &entry.xattrs)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        rustix::fs::futimens(file, &times(entry))?;
        Ok(())
    }

    /// Sets owner, mode and times of what is no file or directory.
    fn finish_at(&self, parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Stop> {
        let (uid, gid) = owner(entry)?;
        if (uid, gid) != self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| unmapped(error, entry))?;
        }
        if entry.kind != EntryType::Symlink {
            // Made a moment ago by this process, so no link.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &EntryPath,
        entry: &Entry,
    ) -> Result<(), Stop> {
        let missing = || EntryFault::LinkTarget(String::from_utf8_lossy(&entry.link).into_owned());
        let target = EntryPath::parse_link(&entry.link)?;
        let (target_name, target_parent) = target.split_last().ok_or_else(missing)?;
        if target == *path {
            return Ok(());
        }
        let detached = self.placement == Placement::Detached;
        let follow = if detached { Follow::Never } else { Follow::InRoot };
        let found = match self.walker.lookup(target_parent, follow)? {
            Some(Step::Directory(fd)) => {
                match rustix::fs::statat(&fd, target_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if !(detached && tree::is_whiteout(&stat)) => Some(fd),
                    Ok(_) | Err(Errno::NOENT) => None,
                    Err(error) => return Err(error.into()),
                }
            }
            _ => None,
        };
        match found {
            Some(fd) => {
                self.make_room(parent, name, path)?;
                rustix::fs::linkat(&fd, target_name, parent, name, AtFlags::empty())?;
                Ok(())
            }
            None if detached => Err(Stop::NeedsParent),
            None => Err(missing().into()),
        }
    }

    fn device(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &EntryPath,
        entry: &Entry,
    ) -> Result<(), Stop> {
        let kind = match entry.kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && self.flavour.user_namespace {
            let path = String::from_utf8_lossy(&entry.path);
            tracing::warn!(layer = %self.layer, %path, "left out a device, which needs root");
            return Ok(());
        }
        self.make_room(parent, name, path)?;
        let (major, minor) = if kind == FileType::Fifo { (0, 0) } else { entry.device };
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(entry.mode), device)?;
        self.finish_at(parent, name, entry)
    }

    fn whiteout(&mut self, name: &[u8], hidden: &[u8], parent_path: &[Vec<u8>]) -> Result<(), Stop> {
        if name != OPAQUE && hidden.starts_with(WHITEOUT) {
            return Ok(()); // Aufs's own files.
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryFault::Whiteout.into());
        }
        let parent = match self.placement {
            Placement::Detached => self.parent(parent_path)?,
            Placement::Alone => {
                self.portable = false;
                return Ok(());
            }
            Placement::Merged => match self.walker.lookup(parent_path, Follow::InRoot)? {
                Some(Step::Directory(fd)) => fd,
                _ => return Ok(()),
            },
        };
        let parent = parent.as_fd();
        if name == OPAQUE {
            return self.opaque(parent, parent_path);
        }
        let mut components = parent_path.to_vec();
        components.push(hidden.to_vec());
        let path = EntryPath::from_components(&components);
        match self.placement {
            Placement::Alone => {}
            Placement::Merged => {
                // What this layer has itself stays: a whiteout is about the layers below.
                if !self.made.iter().any(|made| made.starts_with(&path)) {
                    self.make_room(parent, hidden, &path)?;
                }
            }
            Placement::Detached => {
                let mode = Mode::from_raw_mode(0);
                match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, mode, 0) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        // Hides already what is below, unless it is a directory.
                        let stat = rustix::fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW)?;
                        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                            self.set_opaque(parent, hidden)?;
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn opaque(&mut self, directory: BorrowedFd<'_>, components: &[Vec<u8>]) -> Result<(), Stop> {
        match self.placement {
            Placement::Alone => {}
            Placement::Detached => self.set_opaque(directory, b".")?,
            Placement::Merged => {
                let path = EntryPath::from_components(components);
                for (name, _) in tree::list(directory)? {
                    let mut child = components.to_vec();
                    child.push(name.to_bytes().to_vec());
                    let child = EntryPath::from_components(&child);
                    if !self.made.iter().any(|made| made.starts_with(&child)) {
                        self.make_room(directory, name.to_bytes(), &child)?;
                    }
                }
                tracing::trace!(layer = %self.layer, path = ?path, "emptied an opaque directory");
            }
        }
        Ok(())
    }

    fn set_opaque(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        rustix::fs::fsetxattr(&fd, self.flavour.opaque_attribute(), b"y", XattrFlags::empty())?;
        Ok(())
    }

    /// Sets the attributes that a layer may have: none that mean something to overlayfs or to the host.
    fn set_xattrs(&mut self, fd: BorrowedFd<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Stop> {
        for (name, value) in xattrs.iter().filter(|(name, _)| tree::is_layer_xattr(name)) {
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM) => {
                    if !std::mem::replace(&mut self.xattrs_refused, true) {
                        tracing::warn!(layer = %self.layer, "the file system refuses extended attributes");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn finish_directories(&mut self) -> Result<()> {
        let follow = if self.placement == Placement::Detached { Follow::Never } else { Follow::InRoot };
        // Children before parents, whose times change last.
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            let done = match self.walker.lookup(path.components(), follow) {
                Ok(Some(Step::Directory(fd))) => self.finish_directory(&fd, &meta),
                // A later entry took its place.
                Ok(_) => Ok(()),
                Err(fault) => Err(fault.into()),
            };
            match done {
                Ok(()) => {}
                Err(Stop::Fault(fault)) => {
                    return Err(StoreError::entry(self.layer, &path.to_bytes(), fault));
                }
                Err(_) => {}
            }
            if path.is_root() {
                self.directories.insert(path, meta);
            }
        }
        Ok(())
    }

    fn finish_directory(&mut self, fd: &OwnedFd, meta: &DirectoryMeta) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(fd, ".", flags, Mode::empty())?;
        let (uid, gid) = meta.owner;
        if meta.owner != self.owner || self.placement == Placement::Merged {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|error| {
                match error {
                    Errno::INVAL => EntryFault::UnmappedOwner { uid: uid.into(), gid: gid.into() },
                    error => EntryFault::Io(error.into()),
                }
            })?;
        }
        self.set_xattrs(fd.as_fd(), &meta.xattrs)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.mode))?;
        rustix::fs::futimens(&fd, &meta.times)?;
        Ok(())
    }
}

fn malformed(layer: Digest, error: TarError) -> StoreError {
    match error {
        // The pipe in front says more than `read failed`.
        TarError::Read(source) => match source.downcast::<StoreError>() {
            Ok(error) => error,
            Err(source) => StoreError::MalformedLayer { layer, reason: source.to_string() },
        },
        other => StoreError::MalformedLayer { layer, reason: other.to_string() },
    }
}

fn owner(entry: &Entry) -> Result<(u32, u32), EntryFault> {
    // The largest value means "leave it" to the kernel.
    let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX);
    id(entry.uid).zip(id(entry.gid)).ok_or(EntryFault::Owner { uid: entry.uid, gid: entry.gid })
}

fn unmapped(error: Errno, entry: &Entry) -> EntryFault {
    match error {
        Errno::INVAL => EntryFault::UnmappedOwner { uid: entry.uid, gid: entry.gid },
        error => EntryFault::Io(error.into()),
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), EntryFault> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(EntryFault::Io(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(EntryFault::Io(error.into())),
        }
    }
    Ok(())
}

fn write_sparse<R: Read>(
    file: BorrowedFd<'_>,
    sparse: &Sparse,
    archive: &mut TarReader<R>,
) -> Result<(), Stop> {
    rustix::fs::ftruncate(file, sparse.size)?;
    let mut parts = sparse.map.iter().copied().filter(|&(_, length)| length > 0);
    let mut part = parts.next();
    let mut position = 0;
    loop {
        let mut piece = archive.content()?;
        if piece.is_empty() {
            return if part.is_none() { Ok(()) } else { Err(EntryFault::SparseMap.into()) };
        }
        while !piece.is_empty() {
            let (offset, length) = part.ok_or(EntryFault::SparseMap)?;
            let end = offset.checked_add(length).filter(|&end| end <= sparse.size);
            end.ok_or(EntryFault::SparseMap)?;
            let count = usize::try_from(length - position).unwrap_or(usize::MAX).min(piece.len());
            rustix::fs::seek(file, rustix::fs::SeekFrom::Start(offset + position))?;
            write_all(file, &piece[..count])?;
            piece = &piece[count..];
            position += count as u64;
            if position == length {
                (part, position) = (parts.next(), 0);
            }
        }
    }
}

/// Opens the directory that a layer is extracted into.
pub(crate) fn open_root(path: &std::path::Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(StoreError::io("open", path))
}
