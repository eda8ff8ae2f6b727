//! Attributes of files on the wire.

use slipway_engine::{FileInfo, FileKind};

use crate::wire::fstypes::Stat;
use slipway_fsutil as fsutil;

/// Puts what is known of a file on the wire.
pub(super) fn stat(info: &FileInfo) -> Stat {
    let kind = match info.kind {
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Fifo => 0o010_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::CharacterDevice => 0o020_000,
        FileKind::Socket => 0o140_000,
        FileKind::File => 0o100_000,
    };
    let nanoseconds = info.modified.seconds.saturating_mul(1_000_000_000);
    Stat {
        path: info.path.clone(),
        mode: fsutil::go_mode(kind | info.mode),
        uid: info.uid,
        gid: info.gid,
        size: if info.kind == FileKind::Directory { 0 } else { info.size as i64 },
        mod_time: nanoseconds.saturating_add(i64::from(info.modified.nanoseconds)),
        linkname: info.link.clone(),
        devmajor: i64::from(info.device.0),
        devminor: i64::from(info.device.1),
        ..Stat::default()
    }
}
