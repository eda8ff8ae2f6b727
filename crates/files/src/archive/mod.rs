//! Archives: unpacking them for `ADD`, and writing a tree as one for the `tar` output.
//!
//! An archive is known by its content, not its name: a tar, plain or compressed with gzip, bzip2, xz or zstd,
//! whose first header can be read. Anything else is a file to be copied.

mod compression;
mod reader;
mod unpack;
mod write;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use rustix::fs::OFlags;

pub use unpack::{UnpackOptions, unpack};
pub use write::{TarWriter, write_tar};

use crate::copy::{CopyOptions, CopyReport, Ownership};
use crate::digest_cache::DigestCache;
use crate::entry::{EntryRef, FileKind, Metadata};
use crate::error::{FilesError, Result};
use crate::hash::{hash_all, open_file};
use crate::root::{NewDir, Root, stat_fd};
use crate::tree::FileTree;

/// Opens `data` for reading, decompressed if it is compressed.
pub fn decompress<'r>(data: impl Read + Send + 'r) -> std::io::Result<Box<dyn Read + Send + 'r>> {
    compression::open(data)
}

/// Says whether `data` starts like an archive that can be unpacked.
pub fn is_archive(data: impl Read + Send) -> bool {
    decompress(data)
        .is_ok_and(|plain| reader::TarReader::new(plain).next_entry().is_ok_and(|entry| entry.is_some()))
}

/// Finds the newest time of the files in an archive, in seconds since 1970; `None` if it has none or is no archive.
pub fn newest(data: impl Read + Send) -> Option<i64> {
    let mut reader = reader::TarReader::new(decompress(data).ok()?);
    let mut newest = None;
    while let Some(entry) = reader.next_entry().ok()? {
        if entry.kind.is_file() {
            newest = newest.max(Some(entry.modified.seconds));
        }
    }
    newest
}

/// Unpacks a source of `ADD` into a directory if it is an archive; `None`, with nothing done, if it is not.
pub(crate) fn add(
    source: &dyn FileTree,
    path: &Path,
    dest: &Root,
    dest_path: &Path,
    options: &CopyOptions,
    digests: Option<&DigestCache>,
) -> Result<Option<CopyReport>> {
    let resolved = source.resolve(path, true)?;
    let Some(entry) = source.find(&resolved)? else { return Ok(None) };
    if entry.metadata.kind != FileKind::File {
        return Ok(None);
    }
    let mut file = File::from(open_file(&source.open_dir(entry.parent())?, &entry)?);
    if !is_archive(&file) {
        return Ok(None);
    }
    let failed = |source| FilesError::Archive { path: resolved.clone(), source };
    let before = check(&mut file, &entry, digests)?;
    file.rewind().map_err(failed)?;
    let owner = match options.ownership {
        Ownership::Fixed { uid, gid } => Some((uid, gid)),
        Ownership::Source | Ownership::Process => None,
    };
    let directory = dest.evaluate(dest_path, true)?;
    dest.create_dir_all(&directory, NewDir { mode: 0o755, owner, time: options.time })?;
    let top = Root::from(dest.open_resolved(&directory, OFlags::RDONLY | OFlags::DIRECTORY, "open")?);
    let mut report = unpack(decompress(&file).map_err(failed)?, &resolved, &top, UnpackOptions { owner })?;
    let after = stat_file(&file, &entry)?;
    if digests.is_some() && !after.same_content(&before) {
        return Err(FilesError::ChangedDuringBuild { path: entry.path() });
    }
    for skipped in &mut report.skipped_devices {
        *skipped = directory.join(&*skipped);
    }
    Ok(Some(report))
}

/// Makes sure that an archive is what its digest was taken of; returns its attributes.
fn check(file: &mut File, entry: &EntryRef, digests: Option<&DigestCache>) -> Result<Metadata> {
    let metadata = stat_file(file, entry)?;
    if let Some(known) = digests.and_then(|digests| digests.get(&entry.metadata))
        && (known.racy || !metadata.same_content(&entry.metadata))
        && hash_all(file, entry)? != known.content
    {
        return Err(FilesError::ChangedDuringBuild { path: entry.path() });
    }
    Ok(metadata)
}

fn stat_file(file: &File, entry: &EntryRef) -> Result<Metadata> {
    stat_fd(file).map_err(|errno| FilesError::os("stat", &entry.path())(errno))
}
