//! What is known of one file without opening it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Statx, StatxTimestamp};

/// A point in time, in seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub kind: FileKind,
    /// The permission bits with set-user-id, set-group-id and sticky: 12 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Disk use in units of 512 bytes, which tells sparse files.
    pub blocks: u64,
    pub links: u32,
    pub device: u64,
    pub inode: u64,
    /// The device a device file stands for, as (major, minor).
    pub special: (u32, u32),
    pub modified: Time,
    pub changed: Time,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: OsString,
    pub metadata: Metadata,
    /// The target, when it is a symbolic link.
    pub target: Option<OsString>,
}

/// A directory that was read: its entries in the order of their names' bytes.
#[derive(Debug, Default)]
pub struct Dir {
    /// Where it is, relative to the root of its tree.
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    /// Names its extended attributes; zero when there are none.
    pub attributes: [u8; 16],
}

/// An entry together with the directory it is in.
#[derive(Clone, Debug)]
pub struct EntryRef {
    dir: Arc<Dir>,
    index: usize,
}

impl Time {
    /// Makes a time from nanoseconds since 1970, as the build graph carries it.
    pub fn from_nanoseconds(nanoseconds: i64) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let seconds = nanoseconds.div_euclid(SECOND);
        // The remainder of a Euclidean division by 10^9 fits.
        Self { seconds, nanoseconds: u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or_default() }
    }
}

impl From<StatxTimestamp> for Time {
    fn from(time: StatxTimestamp) -> Self {
        Self { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
    }
}

impl Metadata {
    /// Reads the answer of `statx`.
    pub(crate) fn from_statx(stat: &Statx) -> Self {
        Self {
            kind: FileKind::from_type(FileType::from_raw_mode(u32::from(stat.stx_mode))),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            links: stat.stx_nlink,
            device: (u64::from(stat.stx_dev_major) << 32) | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            special: (stat.stx_rdev_major, stat.stx_rdev_minor),
            modified: stat.stx_mtime.into(),
            changed: stat.stx_ctime.into(),
        }
    }

    /// Says whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Says whether two readings are of one unchanged file.
    pub fn same_content(&self, other: &Self) -> bool {
        (self.kind, self.device, self.inode, self.size, self.modified, self.changed)
            == (other.kind, other.device, other.inode, other.size, other.modified, other.changed)
    }
}

impl FileKind {
    fn from_type(kind: FileType) -> Self {
        match kind {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            _ => Self::File,
        }
    }
}

impl Dir {
    /// Finds the entry called `name`.
    pub fn find(&self, name: &OsStr) -> Option<usize> {
        use std::os::unix::ffi::OsStrExt;
        self.entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes())).ok()
    }
}

impl EntryRef {
    /// Refers to the entry at `index` of `dir`.
    pub fn new(dir: Arc<Dir>, index: usize) -> Self {
        Self { dir, index }
    }

    /// Returns the path relative to the root of the tree; the root's own is empty.
    pub fn path(&self) -> PathBuf {
        self.dir.path.join(&self.name)
    }

    /// Returns the path of the directory the entry is in.
    pub fn parent(&self) -> &Path {
        &self.dir.path
    }
}

impl std::ops::Deref for EntryRef {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.dir.entries[self.index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_round_down() {
        assert_eq!(Time::from_nanoseconds(-1), Time { seconds: -1, nanoseconds: 999_999_999 });
        assert_eq!(Time::from_nanoseconds(1_500_000_000), Time { seconds: 1, nanoseconds: 500_000_000 });
    }
}
