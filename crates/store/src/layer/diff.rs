//! Writes the archive of a layer: what its directory changes in the parent.
//!
//! The directory is overlayfs's upper directory, so what is in it is what was touched; the parent is
//! consulted, through a mount, only to leave out what was touched without being changed. The rules are
//! those of BuildKit's overlay differ, so that both make the same layers:
//! - a directory that differs from the parent's in neither mode nor owner is left out, but directories
//!   above an entry always come before it;
//! - a file is left out if mode, owner, capabilities, size and modification time are the parent's; where
//!   both times are whole seconds, as after unpacking, the content decides;
//! - a whiteout is written only if the parent has the name;
//! - an opaque directory over one of the parent is compared with it: what is gone gets a whiteout each, so that
//!   the layer, put over another parent, removes only what it has seen.
//!
//! A layer without a parent says what it says of any: its whiteouts and opaque marks were put there on purpose, by
//! a diff, and all are kept. The order is that of names within each directory, a directory before what is in it.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{OPAQUE, WHITEOUT};
use crate::error::{Result, StoreError};
use crate::mount::Flavour;
use crate::snapshot::SnapshotId;
use crate::tar::{EntryKind, Header, TarWriter};
use crate::tree;

/// Longer paths are refused: they could not be unpacked.
const MAX_PATH: usize = 4096;

/// Is shown the regular files that go into a layer.
pub trait FileObserver: Sync {
    /// Sees a file: its path in the image (without a slash in front), its mode, and its first bytes, at
    /// most 256.
    fn file(&self, path: &[u8], mode: u32, first: &[u8]);

    /// Tells that nobody wants the layer any more; it is asked before each entry, and now and then within a file.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Is told of a layer's blob while it is being made, so that it can be read before it is complete.
///
/// Called from the thread that writes: what takes long must be done elsewhere. Whether the blob was completed
/// shows in what [`crate::Snapshots::export_layer`] returns.
pub trait BlobWatcher: Sync {
    /// A blob is going to be written to this file, which keeps its content when it gets its name.
    ///
    /// The place to read from must be given with each call: the handle's own is where the blob is written.
    fn begun(&self, file: File);

    /// So many bytes are there.
    fn written(&self, bytes: u64);
}

/// How the archive of a layer is written.
#[derive(Clone, Copy, Default)]
pub struct DiffOptions<'a> {
    /// Times after this one, in seconds since 1970, become it.
    pub clamp_mtime: Option<i64>,
    pub observer: Option<&'a dyn FileObserver>,
    /// Who is told how far the layer's blob is, if one has to be made.
    pub watcher: Option<&'a dyn BlobWatcher>,
}

impl DiffOptions<'_> {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.observer.is_some_and(FileObserver::cancelled)
    }
}

/// What the layer's directory is compared with, and what is told in errors.
pub(crate) struct DiffContext<'a> {
    pub(crate) snapshot: SnapshotId,
    pub(crate) upper: BorrowedFd<'a>,
    /// The parent's root.
    pub(crate) base: Option<BorrowedFd<'a>>,
    pub(crate) form: UpperForm,
    pub(crate) flavour: Flavour,
}

/// What an upper directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpperForm {
    /// Overlayfs's upper directory: the changes.
    Changes,
    /// A whole directory: what it lacks is deleted.
    Whole,
}

/// One directory on the way down.
struct Level {
    upper: OwnedFd,
    base: Option<OwnedFd>,
    form: UpperForm,
    names: std::vec::IntoIter<Name>,
    /// The length of the path of this directory in `path`.
    path: usize,
    /// The directory's own entry, until something below it is written.
    unwritten: Option<Stat>,
}

enum Name {
    Present(CString),
    /// Only the base has it.
    Deleted(CString),
}

impl Name {
    fn as_cstring(&self) -> &CString {
        match self {
            Self::Present(name) | Self::Deleted(name) => name,
        }
    }
}

struct Walk<'a, W> {
    context: &'a DiffContext<'a>,
    options: &'a DiffOptions<'a>,
    archive: TarWriter<W>,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// The first path of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Writes the archive of a layer to `out`, and returns `out`.
pub(crate) fn write<W: Write>(context: &DiffContext<'_>, options: &DiffOptions<'_>, out: W) -> Result<W> {
    let mut walk = Walk {
        context,
        options,
        archive: TarWriter::new(out),
        levels: Vec::new(),
        path: Vec::new(),
        links: HashMap::new(),
    };
    walk.run()?;
    walk.archive.finish().map_err(output)
}

impl<W: Write> Walk<'_, W> {
    fn run(&mut self) -> Result<()> {
        let upper = tree::open_directory(self.context.upper, c".").map_err(|e| self.failed("open", e))?;
        let base = match self.context.base {
            Some(base) => Some(tree::open_directory(base, c".").map_err(|e| self.failed("open", e))?),
            None => None,
        };
        self.enter(upper, base, None, self.context.form)?;
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path);
            match level.names.next() {
                Some(Name::Present(name)) => self.entry(&name)?,
                Some(Name::Deleted(name)) => self.whiteout(name.to_bytes())?,
                None => drop(self.levels.pop()),
            }
        }
        Ok(())
    }

    /// Makes `path` lead to `name` in the current directory.
    fn push(&mut self, name: &[u8]) -> Result<()> {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if self.path.len() > MAX_PATH {
            let path = format!("{}…", String::from_utf8_lossy(&self.path[..80]));
            return Err(StoreError::UnsupportedFile {
                snapshot: self.context.snapshot,
                path,
                reason: "its path is longer than 4096 bytes",
            });
        }
        Ok(())
    }

    fn enter(
        &mut self,
        upper: OwnedFd,
        base: Option<OwnedFd>,
        unwritten: Option<Stat>,
        form: UpperForm,
    ) -> Result<()> {
        let listed = tree::list(&upper).map_err(|e| self.failed("list", e))?;
        let mut names: Vec<Name> = listed.into_iter().map(|(name, _)| Name::Present(name)).collect();
        if let (UpperForm::Whole, Some(base)) = (form, &base) {
            let present: std::collections::HashSet<CString> =
                names.iter().map(|name| name.as_cstring().clone()).collect();
            let below = tree::list(base).map_err(|e| self.failed("list", e))?;
            let deleted = below.into_iter().map(|(name, _)| name).filter(|name| !present.contains(name));
            names.extend(deleted.map(Name::Deleted));
            names.sort_by(|a, b| a.as_cstring().cmp(b.as_cstring()));
        }
        let (names, path) = (names.into_iter(), self.path.len());
        self.levels.push(Level { upper, base, form, names, path, unwritten });
        Ok(())
    }

    fn entry(&mut self, name: &CString) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        if self.options.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let stat = rustix::fs::statat(&level.upper, &**name, AtFlags::SYMLINK_NOFOLLOW);
        let below = match &level.base {
            None => Ok(None),
            Some(base) => match rustix::fs::statat(base, &**name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Ok(Some(stat)),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(error),
            },
        };
        let directory_path = self.path.len();
        self.push(name.to_bytes())?;
        let stat = stat.map_err(|e| self.failed("stat", e))?;
        let below = below.map_err(|e| self.failed("stat", e))?;
        if tree::is_whiteout(&stat) {
            if below.is_some() || self.stands_alone() {
                self.path.truncate(directory_path);
                self.whiteout(name.to_bytes())?;
            }
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(name, &stat, below.as_ref()),
            // A socket has no place in an archive.
            FileType::Socket => Ok(()),
            _ => self.leaf(name, &stat, below.as_ref()),
        }
    }

    fn directory(&mut self, name: &CString, stat: &Stat, below: Option<&Stat>) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let upper = tree::open_directory(&level.upper, name).map_err(|e| self.failed("open", e))?;
        let covers = below.filter(|below| kind_of(below) == FileType::Directory);
        let opaque = has_attribute(upper.as_fd(), self.context.flavour.opaque_attribute());
        let form = if opaque { UpperForm::Whole } else { level.form };
        let Some(below) = covers else {
            self.write_parents()?;
            self.header(EntryKind::Directory, stat, Some(upper.as_fd()))?;
            if opaque && self.stands_alone() {
                self.mark(OPAQUE)?;
            }
            return self.enter(upper, None, None, form);
        };
        if has_attribute(upper.as_fd(), self.context.flavour.redirect_attribute()) {
            return Err(self.unsupported("it was renamed by overlayfs"));
        }
        let changed = !same_inode_metadata(stat, below);
        if changed {
            self.write_parents()?;
            self.header(EntryKind::Directory, stat, Some(upper.as_fd()))?;
        }
        let base = level_base(self.levels.last(), name).map_err(|e| self.failed("open", e))?;
        self.enter(upper, base, (!changed).then_some(*stat), form)
    }

    /// Tells whether the layer is meant for any parent: there is none to compare it with.
    fn stands_alone(&self) -> bool {
        self.context.base.is_none()
    }

    fn leaf(&mut self, name: &CString, stat: &Stat, below: Option<&Stat>) -> Result<()> {
        let kind = kind_of(stat);
        let Some(level) = self.levels.last() else { return Ok(()) };
        let file = match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
                let opened = open_quietly(level.upper.as_fd(), name, flags);
                Some(opened.map_err(|e| self.failed("open", e))?)
            }
            _ => None,
        };
        if let (Some(below), Some(base)) = (below, &level.base) {
            let unchanged = same_leaf(level.upper.as_fd(), base.as_fd(), name, file.as_ref(), stat, below);
            if unchanged.map_err(|e| self.failed("compare", e))? {
                return Ok(());
            }
        }
        let target = match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&level.upper, &**name, Vec::new());
                target.map_err(|e| self.failed("read the link", e))?.into_bytes()
            }
            _ => Vec::new(),
        };
        self.write_parents()?;
        if stat.st_nlink > 1 && kind != FileType::Symlink {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode).cloned() {
                return self.header(EntryKind::HardLink { target: &first }, stat, None);
            }
            self.links.insert(inode, self.path.clone());
        }
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        match (kind, file) {
            (FileType::RegularFile, Some(file)) => self.file(&file, stat),
            (FileType::Symlink, _) => self.header(EntryKind::Symlink { target: &target }, stat, None),
            (FileType::CharacterDevice, _) => self.header(EntryKind::CharDevice { major, minor }, stat, None),
            (FileType::BlockDevice, _) => self.header(EntryKind::BlockDevice { major, minor }, stat, None),
            (FileType::Fifo, _) => self.header(EntryKind::Fifo, stat, None),
            _ => Err(self.unsupported("its type is unknown")),
        }
    }

    fn file(&mut self, file: &OwnedFd, stat: &Stat) -> Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.header(EntryKind::File { size }, stat, Some(file.as_fd()))?;
        let (observer, path, mode) = (self.options.observer, &self.path, stat.st_mode & 0o7777);
        let observe = |first: &[u8]| {
            if let Some(observer) = observer {
                observer.file(path, mode, first);
            }
        };
        self.archive.content(file.as_fd(), size, observe).map_err(output)
    }

    /// Writes the entries of the directories above that have none yet.
    fn write_parents(&mut self) -> Result<()> {
        for index in 0..self.levels.len() {
            let Some(stat) = self.levels[index].unwritten.take() else { continue };
            let path = self.path[..self.levels[index].path].to_vec();
            let fd = &self.levels[index].upper;
            let xattrs =
                tree::layer_xattrs(fd.as_fd()).map_err(|e| self.failed("read the attributes of", e))?;
            let header = self.header_of(&path, EntryKind::Directory, &stat, &xattrs);
            self.archive.header(&header).map_err(output)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        self.write_parents()?;
        self.mark(&[WHITEOUT, name].concat())
    }

    /// Writes an empty file `name` in the directory at `path`.
    fn mark(&mut self, name: &[u8]) -> Result<()> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let header = Header {
            path: &path,
            kind: EntryKind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: self.options.clamp_mtime.unwrap_or(0),
            xattrs: &[],
        };
        self.archive.header(&header).map_err(output)
    }

    /// Writes the header of the entry at `path`; `fd` is what may have attributes.
    fn header(&mut self, kind: EntryKind<'_>, stat: &Stat, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let xattrs = match fd {
            Some(fd) => tree::layer_xattrs(fd).map_err(|e| self.failed("read the attributes of", e))?,
            None => Vec::new(),
        };
        let header = self.header_of(&self.path, kind, stat, &xattrs);
        self.archive.header(&header).map_err(output)
    }

    fn header_of<'h>(
        &self,
        path: &'h [u8],
        kind: EntryKind<'h>,
        stat: &Stat,
        xattrs: &'h [(Vec<u8>, Vec<u8>)],
    ) -> Header<'h> {
        Header {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self.options.clamp_mtime.map_or(stat.st_mtime, |clamp| stat.st_mtime.min(clamp)),
            xattrs,
        }
    }

    fn failed(&self, action: &'static str, error: Errno) -> StoreError {
        let path = String::from_utf8_lossy(&self.path).into_owned();
        StoreError::io(action, path)(error)
    }

    fn unsupported(&self, reason: &'static str) -> StoreError {
        let path = String::from_utf8_lossy(&self.path).into_owned();
        StoreError::UnsupportedFile { snapshot: self.context.snapshot, path, reason }
    }
}

fn level_base(level: Option<&Level>, name: &CString) -> Result<Option<OwnedFd>, Errno> {
    level.and_then(|level| level.base.as_ref()).map(|base| tree::open_directory(base, name)).transpose()
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn output(error: io::Error) -> StoreError {
    match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(error) => StoreError::Output(error),
    }
}

/// Opens a file without touching its access time, where this process may do that.
fn open_quietly(directory: BorrowedFd<'_>, name: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(directory, &**name, flags, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, &**name, flags - OFlags::NOATIME, Mode::empty()),
        opened => opened,
    }
}

fn has_attribute(fd: BorrowedFd<'_>, name: &str) -> bool {
    let mut value = [0u8; 1];
    // A longer value does not fit: it is there all the same.
    matches!(rustix::fs::fgetxattr(fd, name, &mut value), Ok(1..) | Err(Errno::RANGE))
}

fn same_inode_metadata(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) == (b.st_mode, b.st_uid, b.st_gid, b.st_rdev)
}

/// Tells whether a file that was copied up is what the parent has.
fn same_leaf(
    upper: BorrowedFd<'_>,
    base: BorrowedFd<'_>,
    name: &CString,
    file: Option<&OwnedFd>,
    a: &Stat,
    b: &Stat,
) -> Result<bool, Errno> {
    if !same_inode_metadata(a, b)
        || (a.st_size, a.st_mtime, a.st_mtime_nsec) != (b.st_size, b.st_mtime, b.st_mtime_nsec)
    {
        return Ok(false);
    }
    if kind_of(a) == FileType::Symlink {
        let read = |directory| rustix::fs::readlinkat(directory, &**name, Vec::new());
        return Ok(read(upper)? == read(base)?);
    }
    let Some(file) = file else { return Ok(true) };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = open_quietly(base, name, flags)?;
    if capability(file.as_fd())? != capability(below.as_fd())? {
        return Ok(false);
    }
    if a.st_mtime_nsec != 0 {
        return Ok(true);
    }
    same_content(file.as_fd(), below.as_fd())
}

fn capability(fd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = [0u8; 64];
    match rustix::fs::fgetxattr(fd, "security.capability", &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares two files of the same size, without moving their positions.
fn same_content(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (mut left, mut right) = (vec![0u8; 64 << 10], vec![0u8; 64 << 10]);
    let mut offset = 0;
    loop {
        let count = rustix::io::pread(a, left.as_mut_slice(), offset)?;
        if count == 0 {
            return Ok(true);
        }
        let mut done = 0;
        while done < count {
            match rustix::io::pread(b, &mut right[done..count], offset + done as u64)? {
                0 => return Ok(false),
                read => done += read,
            }
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        offset += count as u64;
    }
}
