//! Metadata of files in the protocol's form: Go's `os.FileMode` bits, times in nanoseconds.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Stat as DiskStat, makedev};

use crate::fstypes::Stat;

pub(super) const MODE_DIR: u32 = 1 << 31;
pub(super) const MODE_SYMLINK: u32 = 1 << 27;
const MODE_DEVICE: u32 = 1 << 26;
const MODE_FIFO: u32 = 1 << 25;
const MODE_SOCKET: u32 = 1 << 24;
const MODE_SETUID: u32 = 1 << 23;
const MODE_SETGID: u32 = 1 << 22;
const MODE_CHAR: u32 = 1 << 21;
const MODE_STICKY: u32 = 1 << 20;
const MODE_IRREGULAR: u32 = 1 << 19;
const MODE_TYPE: u32 =
    MODE_DIR | MODE_SYMLINK | MODE_DEVICE | MODE_FIFO | MODE_SOCKET | MODE_CHAR | MODE_IRREGULAR;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// Another name of a file that was listed before.
    HardLink,
    Directory,
    Symlink,
    Fifo,
    CharDevice,
    BlockDevice,
    Other,
}

/// Returns what `stat` describes.
pub(super) fn kind(stat: &Stat) -> Kind {
    match stat.mode & MODE_TYPE {
        0 if stat.linkname.is_empty() => Kind::File,
        0 => Kind::HardLink,
        MODE_DIR => Kind::Directory,
        MODE_SYMLINK => Kind::Symlink,
        MODE_FIFO => Kind::Fifo,
        MODE_DEVICE => Kind::BlockDevice,
        bits if bits == MODE_DEVICE | MODE_CHAR => Kind::CharDevice,
        _ => Kind::Other,
    }
}

/// Returns whether contents can be asked for: both sides count these.
pub(super) fn has_contents(stat: &Stat) -> bool {
    stat.mode & MODE_TYPE == 0
}

/// Returns the 12 permission bits of Go's mode.
pub(super) fn permissions(mode: u32) -> u32 {
    let mut bits = mode & 0o777;
    for (go, unix) in [(MODE_SETUID, 0o4000), (MODE_SETGID, 0o2000), (MODE_STICKY, 0o1000)] {
        if mode & go != 0 {
            bits |= unix;
        }
    }
    bits
}

/// Returns Go's mode of a file on disk.
pub fn go_mode(raw: u32) -> u32 {
    let mut mode = raw & 0o777;
    for (go, unix) in [(MODE_SETUID, 0o4000), (MODE_SETGID, 0o2000), (MODE_STICKY, 0o1000)] {
        if raw & unix != 0 {
            mode |= go;
        }
    }
    mode | match FileType::from_raw_mode(raw) {
        FileType::Directory => MODE_DIR,
        FileType::Symlink => MODE_SYMLINK,
        FileType::Fifo => MODE_FIFO,
        FileType::BlockDevice => MODE_DEVICE,
        FileType::CharacterDevice => MODE_DEVICE | MODE_CHAR,
        // A socket is told as an empty file, as the reference does.
        FileType::Socket | FileType::RegularFile => 0,
        _ => MODE_IRREGULAR,
    }
}

/// Returns the mode that a file on disk has, of Go's.
pub fn raw_mode(mode: u32) -> u32 {
    let kind = match mode & MODE_TYPE {
        0 => FileType::RegularFile,
        MODE_DIR => FileType::Directory,
        MODE_SYMLINK => FileType::Symlink,
        MODE_FIFO => FileType::Fifo,
        MODE_SOCKET => FileType::Socket,
        MODE_DEVICE => FileType::BlockDevice,
        bits if bits == MODE_DEVICE | MODE_CHAR => FileType::CharacterDevice,
        _ => return permissions(mode),
    };
    kind.as_raw_mode() | permissions(mode)
}

/// Returns the time of last modification in nanoseconds since 1970.
pub(super) fn modified(stat: &DiskStat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64)
}

/// Returns the device number `stat` describes.
pub(super) fn device(stat: &Stat) -> u64 {
    makedev(stat.devmajor as u32, stat.devminor as u32)
}

/// Describes the entry `name` of `directory` under the name `path`.
///
/// The size of a directory is not told, and the target of a symbolic link is.
pub(super) fn stat_of(
    directory: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    path: String,
) -> Result<(Stat, DiskStat), rustix::io::Errno> {
    let disk = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let file_type = FileType::from_raw_mode(disk.st_mode);
    let mut stat = Stat {
        path,
        mode: go_mode(disk.st_mode),
        uid: disk.st_uid,
        gid: disk.st_gid,
        mod_time: modified(&disk),
        ..Stat::default()
    };
    match file_type {
        FileType::Directory => {}
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            stat.size = disk.st_size;
            stat.linkname = target.to_string_lossy().into_owned();
        }
        FileType::BlockDevice | FileType::CharacterDevice => {
            stat.devmajor = i64::from(rustix::fs::major(disk.st_rdev));
            stat.devminor = i64::from(rustix::fs::minor(disk.st_rdev));
        }
        FileType::Socket => {}
        _ => stat.size = disk.st_size,
    }
    Ok((stat, disk))
}

/// Reads the extended attributes of an open file; those of the kernel's own bookkeeping are left out.
pub(super) fn xattrs(file: BorrowedFd<'_>) -> HashMap<String, Vec<u8>> {
    let mut found = HashMap::new();
    let mut names = vec![0u8; 4096];
    let Ok(length) = rustix::fs::flistxattr(file, names.as_mut_slice()) else { return found };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name == "security.selinux" || name.starts_with("trusted.") || name.starts_with("system.") {
            continue;
        }
        let mut value = vec![0u8; 65536];
        if let Ok(length) = rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
            value.truncate(length);
            found.insert(name.to_owned(), value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), MODE_DIR | 0o755);
        assert_eq!(go_mode(0o104_755), MODE_SETUID | 0o755);
        assert_eq!(go_mode(0o020_600), MODE_DEVICE | MODE_CHAR | 0o600);
        assert_eq!(permissions(MODE_SETUID | MODE_STICKY | 0o751), 0o5751);
        let stat = |mode| Stat { mode, ..Stat::default() };
        assert_eq!(kind(&stat(MODE_DEVICE | MODE_CHAR)), Kind::CharDevice);
        assert_eq!(kind(&stat(MODE_SOCKET)), Kind::Other);
        assert_eq!(kind(&Stat { linkname: "a".into(), ..stat(0o644) }), Kind::HardLink);
    }
}
