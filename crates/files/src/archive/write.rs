//! Writing a tree as a tar stream, the same bytes for the same tree.
//!
//! Entries come in the order of their names, a directory before what is in it. Headers are POSIX ustar; what
//! does not fit (long or non-ASCII names, large numbers, times before 1970, extended attributes) goes into a PAX
//! header. Times are whole seconds. Sockets are left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::entry::{Entry, EntryRef, FileKind, Metadata, Time};
use crate::error::{FilesError, Result};
use crate::hash::open_file;
use crate::tree::FileTree;
use crate::xattrs::{self, Attribute};

const BLOCK: usize = 512;
/// The largest number that fits the fields of user and group (seven octal digits).
const MAX_ID: u64 = 0o7_777_777;
/// The largest number that fits the fields of size and time (eleven octal digits).
const MAX_LONG: u64 = 0o77_777_777_777;

/// Writes a tree, without its root directory, as a whole archive; `time` replaces all times.
pub fn write_tar(tree: &dyn FileTree, out: impl Write, time: Option<Time>) -> Result<()> {
    let mut tar = TarWriter::new(out, time);
    tar.tree(tree, Path::new(""))?;
    tar.finish()?;
    Ok(())
}

/// An archive that is being written.
pub struct TarWriter<W> {
    out: W,
    time: Option<Time>,
    buffer: Vec<u8>,
}

/// What is the same for all entries of a tree.
struct Walk<'w> {
    tree: &'w dyn FileTree,
    prefix: &'w Path,
    /// The first names of files with several.
    links: HashMap<(u64, u64), PathBuf>,
}

/// A header before it is laid out.
struct Header<'h> {
    path: &'h [u8],
    kind: u8,
    metadata: &'h Metadata,
    owner: (u32, u32),
    size: u64,
    link: &'h [u8],
    attributes: &'h [Attribute],
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive; `time` replaces all times.
    pub fn new(out: W, time: Option<Time>) -> Self {
        Self { out, time, buffer: vec![0; 256 * 1024] }
    }

    /// Adds a tree under a directory of the archive, which is itself added if it has a name.
    pub fn tree(&mut self, tree: &dyn FileTree, prefix: &Path) -> Result<()> {
        let mut walk = Walk { tree, prefix, links: HashMap::new() };
        if !prefix.as_os_str().is_empty() {
            let root =
                tree.find(Path::new(""))?.ok_or_else(|| FilesError::NotFound { path: PathBuf::new() })?;
            let metadata = Metadata { mode: 0o755, ..root.metadata };
            let mut path = prefix.as_os_str().as_bytes().to_vec();
            path.push(b'/');
            self.header(&Header {
                path: &path,
                kind: b'5',
                metadata: &metadata,
                owner: (0, 0),
                size: 0,
                link: b"",
                attributes: &[],
            })?;
        }
        self.directory(&mut walk, Path::new(""))
    }

    /// Adds a file that is in no tree, readable by its owner only.
    pub fn add_file(&mut self, path: &Path, content: &[u8], modified: Time) -> Result<()> {
        let metadata = Metadata {
            kind: FileKind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            blocks: 0,
            links: 1,
            device: 0,
            inode: 0,
            special: (0, 0),
            modified,
            changed: modified,
        };
        self.header(&Header {
            path: path.as_os_str().as_bytes(),
            kind: b'0',
            metadata: &metadata,
            owner: (0, 0),
            size: metadata.size,
            link: b"",
            attributes: &[],
        })?;
        self.write(content)?;
        self.pad(metadata.size)
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(write_error)?;
        Ok(self.out)
    }

    fn directory(&mut self, walk: &mut Walk<'_>, path: &Path) -> Result<()> {
        let dir = walk.tree.children(path)?;
        let fd = walk.tree.open_dir(path)?;
        for (index, entry) in dir.entries.iter().enumerate() {
            self.entry(walk, &EntryRef::new(Arc::clone(&dir), index), &fd)?;
            if entry.metadata.is_dir() {
                self.directory(walk, &path.join(&entry.name))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, walk: &mut Walk<'_>, entry: &EntryRef, parent: &OwnedFd) -> Result<()> {
        let metadata = &entry.metadata;
        let path = walk.prefix.join(entry.path());
        let mut name = path.as_os_str().as_bytes().to_vec();
        let owner = walk.tree.owner().unwrap_or((metadata.uid, metadata.gid));
        let mut header =
            Header { path: &[], kind: b'0', metadata, owner, size: 0, link: b"", attributes: &[] };
        header.kind = match metadata.kind {
            FileKind::Socket => return Ok(()),
            FileKind::File => return self.file(walk, entry, parent, &path, owner),
            FileKind::Directory => b'5',
            FileKind::Symlink => b'2',
            FileKind::CharacterDevice => b'3',
            FileKind::BlockDevice => b'4',
            FileKind::Fifo => b'6',
        };
        let mut attributes = Vec::new();
        if metadata.is_dir() {
            name.push(b'/');
            let fd = walk.tree.open_dir(&entry.path())?;
            attributes = read_attributes(&fd, entry)?;
        }
        header.link = target(entry);
        self.header(&Header { path: &name, attributes: &attributes, ..header })
    }

    fn file(
        &mut self,
        walk: &mut Walk<'_>,
        entry: &EntryRef,
        parent: &OwnedFd,
        path: &Path,
        owner: (u32, u32),
    ) -> Result<()> {
        let metadata = &entry.metadata;
        let name = path.as_os_str().as_bytes();
        let header = Header { path: name, kind: b'0', metadata, owner, size: 0, link: b"", attributes: &[] };
        if metadata.links > 1 {
            let first =
                walk.links.entry((metadata.device, metadata.inode)).or_insert_with(|| path.to_owned());
            if first != path {
                return self.header(&Header { kind: b'1', link: first.as_os_str().as_bytes(), ..header });
            }
        }
        let fd = open_file(parent, entry)?;
        let attributes = read_attributes(&fd, entry)?;
        self.header(&Header { size: metadata.size, attributes: &attributes, ..header })?;
        self.content(File::from(fd), entry)
    }

    /// Writes exactly as many bytes as the header promised.
    fn content(&mut self, mut file: File, entry: &EntryRef) -> Result<()> {
        let size = entry.metadata.size;
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            match file.read(&mut self.buffer[..wanted]) {
                Ok(0) => return Err(FilesError::ChangedDuringBuild { path: entry.path() }),
                Ok(length) => {
                    self.out.write_all(&self.buffer[..length]).map_err(write_error)?;
                    left -= length as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let errno = error
                        .raw_os_error()
                        .map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error);
                    return Err(FilesError::os("read", &entry.path())(errno));
                }
            }
        }
        self.pad(size)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        let time = self.time.unwrap_or(header.metadata.modified);
        let mut records = Vec::new();
        if header.path.len() > 100 || !header.path.is_ascii() {
            record(&mut records, b"path", header.path);
        }
        if header.link.len() > 100 || !header.link.is_ascii() {
            record(&mut records, b"linkpath", header.link);
        }
        for (name, value) in [(&b"uid"[..], header.owner.0), (b"gid", header.owner.1)] {
            if u64::from(value) > MAX_ID {
                record(&mut records, name, value.to_string().as_bytes());
            }
        }
        if header.size > MAX_LONG {
            record(&mut records, b"size", header.size.to_string().as_bytes());
        }
        if time.seconds < 0 || time.seconds.unsigned_abs() > MAX_LONG {
            record(&mut records, b"mtime", time.seconds.to_string().as_bytes());
        }
        for (name, value) in header.attributes {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let pax = Metadata { mode: 0o644, ..*header.metadata };
            let plain = Header {
                path: b"PaxHeaders.0/x",
                kind: b'x',
                metadata: &pax,
                owner: (0, 0),
                size: records.len() as u64,
                link: b"",
                attributes: &[],
            };
            self.write(&lay_out(&plain, Time::default()))?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.write(&lay_out(header, time))
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.write(&[0; BLOCK][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(write_error)
    }
}

fn write_error(source: std::io::Error) -> FilesError {
    FilesError::Host { operation: "write archive", path: PathBuf::from("-"), source }
}

fn target(entry: &Entry) -> &[u8] {
    entry.target.as_deref().map(OsStrExt::as_bytes).unwrap_or_default()
}

fn read_attributes(fd: &OwnedFd, entry: &EntryRef) -> Result<Vec<Attribute>> {
    xattrs::read(fd).map_err(|errno| FilesError::os("read attributes of", &entry.path())(errno))
}

/// Adds a PAX record, whose length counts its own digits.
fn record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(name);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Lays out a ustar header; what does not fit is cut, a PAX header before it saying it in full.
fn lay_out(header: &Header<'_>, time: Time) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let text = |block: &mut [u8; BLOCK], at: usize, room: usize, value: &[u8]| {
        let length = value.len().min(room);
        block[at..at + length].copy_from_slice(&value[..length]);
    };
    text(&mut block, 0, 100, header.path);
    octal(&mut block[100..108], u64::from(header.metadata.mode));
    let fits = |value: u64, most: u64| if value > most { 0 } else { value };
    octal(&mut block[108..116], fits(u64::from(header.owner.0), MAX_ID));
    octal(&mut block[116..124], fits(u64::from(header.owner.1), MAX_ID));
    octal(&mut block[124..136], fits(header.size, MAX_LONG));
    octal(&mut block[136..148], fits(u64::try_from(time.seconds).unwrap_or_default(), MAX_LONG));
    block[156] = header.kind;
    text(&mut block, 157, 100, header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(header.kind, b'3' | b'4') {
        octal(&mut block[329..337], u64::from(header.metadata.special.0));
        octal(&mut block[337..345], u64::from(header.metadata.special.1));
    }
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Writes a number with zeros in front and a NUL behind.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    field[digits] = 0;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}
