//! Hashing file contents, many at a time.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use slipway_model::{Digest, Digester};

use crate::digest_cache::{DigestCache, FileDigest, now};
use crate::entry::{EntryRef, FileKind};
use crate::error::{FilesError, Result};
use crate::root::stat_fd;
use crate::tree::FileTree;
use crate::{work, xattrs};

/// How many files one thread takes at a time.
const BATCH: usize = 64;
const BUFFER: usize = 256 * 1024;
/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// Makes sure that `cache` has the digests of all these regular files, which are grouped by directory.
pub(crate) fn fill(tree: &dyn FileTree, cache: &DigestCache, files: Vec<EntryRef>) -> Result<()> {
    let mut batches: Vec<Vec<EntryRef>> = Vec::new();
    for file in files {
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH && batch[0].parent() == file.parent() => batch.push(file),
            _ => batches.push(vec![file]),
        }
    }
    work::run(work::disk_threads(), batches, |batch, _| {
        let directory = tree.open_dir(batch[0].parent())?;
        let mut buffer = vec![0; BUFFER];
        for file in &batch {
            hash_file(&directory, file, cache, &mut buffer)?;
        }
        Ok(())
    })
}

/// Opens a regular file that was seen in a directory; anything else in its place is a change of the context.
pub(crate) fn open_file(directory: &OwnedFd, entry: &EntryRef) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(directory, &*entry.name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::LOOP => FilesError::ChangedDuringBuild { path: entry.path() },
        _ => FilesError::os("open", &entry.path())(errno),
    })
}

fn hash_file(
    directory: &OwnedFd,
    entry: &EntryRef,
    cache: &DigestCache,
    buffer: &mut [u8],
) -> Result<FileDigest> {
    let path = || entry.path();
    for _ in 0..ATTEMPTS {
        let read_at = now();
        let fd = open_file(directory, entry)?;
        let before = stat_fd(&fd).map_err(|errno| FilesError::os("stat", &path())(errno))?;
        if before.kind != FileKind::File {
            break;
        }
        let attributes = attributes_digest(&fd, &path())?;
        let mut file = File::from(fd);
        let (content, size) = hash_reader(&mut file, buffer).map_err(|error| read_error(entry, &error))?;
        let after = stat_fd(&file).map_err(|errno| FilesError::os("stat", &path())(errno))?;
        if !after.same_content(&before) || size != after.size {
            continue;
        }
        let digest = cache.insert(&after, content, attributes, read_at);
        if !after.same_content(&entry.metadata) {
            // The file was replaced since the tree saw it. The tree keeps its first view, and the copy is
            // checked against this digest.
            return Ok(cache.insert_unkept(&entry.metadata, digest));
        }
        return Ok(digest);
    }
    Err(FilesError::ChangedDuringBuild { path: path() })
}

/// Hashes an open file from its beginning.
pub(crate) fn hash_all(file: &mut File, entry: &EntryRef) -> Result<Digest> {
    let hashed = file.rewind().and_then(|()| hash_reader(file, &mut vec![0; BUFFER]));
    hashed.map(|(digest, _)| digest).map_err(|error| read_error(entry, &error))
}

fn read_error(entry: &EntryRef, error: &std::io::Error) -> FilesError {
    let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    FilesError::os("read", &entry.path())(errno)
}

/// Hashes all there is to read; returns the number of bytes too.
fn hash_reader(file: &mut File, buffer: &mut [u8]) -> std::io::Result<(Digest, u64)> {
    let mut digester = Digester::new();
    let mut total = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok((digester.finish(), total)),
            Ok(length) => {
                digester.update(&buffer[..length]);
                total += length as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Names the extended attributes of an open file; zero when there are none.
pub(crate) fn attributes_digest(fd: &OwnedFd, path: &Path) -> Result<[u8; 16]> {
    let attributes = xattrs::read(fd).map_err(FilesError::os("read attributes of", path))?;
    let mut short = [0; 16];
    if !attributes.is_empty() {
        let mut digester = Digester::new();
        for (name, value) in &attributes {
            digester.field(name);
            digester.field(value);
        }
        short.copy_from_slice(&digester.finish().as_bytes()[..16]);
    }
    Ok(short)
}
