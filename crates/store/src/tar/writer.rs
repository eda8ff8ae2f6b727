//! Writes archives: the same entries always give the same bytes.
//!
//! The headers are POSIX ustar; a PAX header comes before an entry only for what ustar cannot say: long
//! names, large numbers, times before 1970, extended attributes. GNU tar, Go's `archive/tar`, libarchive
//! and Python read them. Names are written as the bytes they are.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use super::BLOCK;

const BUFFER: usize = 256 << 10;

/// What an entry is, with what only that kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind<'a> {
    File { size: u64 },
    HardLink { target: &'a [u8] },
    Symlink { target: &'a [u8] },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Directory,
    Fifo,
}

/// The metadata of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    /// Relative, without a slash at the end.
    pub(crate) path: &'a [u8],
    pub(crate) kind: EntryKind<'a>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes an archive to `out` in pieces of 256 KiB.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    out: W,
    buffer: Vec<u8>,
    filled: usize,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, buffer: vec![0; BUFFER], filled: 0 }
    }

    /// Writes the header of an entry. The content of a file must follow.
    pub(crate) fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let mut pax = Vec::new();
        let block = header.encode(&mut pax);
        if !pax.is_empty() {
            self.pax(&pax, header.path)?;
        }
        self.bytes(&block)
    }

    fn pax(&mut self, records: &[u8], path: &[u8]) -> io::Result<()> {
        // The name matters only to readers that do not know PAX.
        let base = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let name = [b"PaxHeaders.0/", &base[..base.len().min(80)]].concat();
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(&name);
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], records.len() as u64);
        octal(&mut block[136..148], 0);
        seal(&mut block, b'x');
        self.bytes(&block)?;
        self.bytes(records)?;
        self.pad(records.len() as u64)
    }

    /// Writes the content of a file from `file`, which must have `size` bytes. `first` is shown the
    /// beginning, up to 256 bytes.
    pub(crate) fn content(
        &mut self,
        file: BorrowedFd<'_>,
        size: u64,
        mut first: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut left = size;
        if self.buffer.len() - self.filled < BLOCK {
            self.flush()?;
        }
        while left > 0 {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = self.buffer.len() - self.filled;
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(room);
            let target = &mut self.buffer[self.filled..self.filled + want];
            let read = match rustix::io::read(file, &mut *target) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                Ok(read) => read,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if left == size {
                first(&target[..read.min(256)]);
            }
            self.filled += read;
            left -= read as u64;
        }
        if size == 0 {
            first(&[]);
        }
        self.pad(size)
    }

    /// Ends the archive and returns what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.bytes(&[0; 2 * BLOCK])?;
        self.flush()?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest > 0 { self.bytes(&[0; BLOCK][rest..]) } else { Ok(()) }
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let count = bytes.len().min(self.buffer.len() - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.write_all(&self.buffer[..self.filled]);
        self.filled = 0;
        result
    }
}

impl Header<'_> {
    /// Makes the ustar block, and adds what does not fit to the records of a PAX header.
    fn encode(&self, pax: &mut Vec<u8>) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        self.encode_path(&mut block, pax);
        octal(&mut block[100..108], u64::from(self.mode & 0o7777));
        number(&mut block[108..116], u64::from(self.uid), "uid", pax);
        number(&mut block[116..124], u64::from(self.gid), "gid", pax);
        let size = if let EntryKind::File { size } = self.kind { size } else { 0 };
        number(&mut block[124..136], size, "size", pax);
        match u64::try_from(self.mtime) {
            Ok(mtime) => number(&mut block[136..148], mtime, "mtime", pax),
            Err(_) => {
                octal(&mut block[136..148], 0);
                record(pax, b"mtime", self.mtime.to_string().as_bytes());
            }
        }
        let (flag, link, device): (u8, &[u8], _) = match self.kind {
            EntryKind::File { .. } => (b'0', b"", None),
            EntryKind::HardLink { target } => (b'1', target, None),
            EntryKind::Symlink { target } => (b'2', target, None),
            EntryKind::CharDevice { major, minor } => (b'3', b"", Some((major, minor))),
            EntryKind::BlockDevice { major, minor } => (b'4', b"", Some((major, minor))),
            EntryKind::Directory => (b'5', b"", None),
            EntryKind::Fifo => (b'6', b"", None),
        };
        if link.len() <= 100 {
            block[157..157 + link.len()].copy_from_slice(link);
        } else {
            record(pax, b"linkpath", link);
        }
        if let Some((major, minor)) = device {
            octal(&mut block[329..337], u64::from(major));
            octal(&mut block[337..345], u64::from(minor));
        }
        for (name, value) in self.xattrs {
            record(pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        seal(&mut block, flag);
        block
    }

    /// Puts the path into the name field, into prefix and name, or into the PAX header.
    fn encode_path(&self, block: &mut [u8; BLOCK], pax: &mut Vec<u8>) {
        let mut path = self.path.to_vec();
        if self.kind == EntryKind::Directory {
            path.push(b'/');
        }
        if path.len() <= 100 {
            block[..path.len()].copy_from_slice(&path);
            return;
        }
        // The slash between prefix and name is in neither; the name must not be empty.
        let split = path[..path.len() - 1]
            .iter()
            .enumerate()
            .find(|&(at, &byte)| byte == b'/' && at > 0 && path.len() - at - 1 <= 100);
        match split {
            Some((at, _)) if at <= 155 => {
                block[..path.len() - at - 1].copy_from_slice(&path[at + 1..]);
                block[345..345 + at].copy_from_slice(&path[..at]);
            }
            _ => {
                block[..100].copy_from_slice(&path[..100]);
                record(pax, b"path", &path);
            }
        }
    }
}

/// Writes `value` in octal digits and a NUL; the caller knows that it fits.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    field[digits] = 0;
}

fn number(field: &mut [u8], value: u64, key: &str, pax: &mut Vec<u8>) {
    if value >> (3 * (field.len() - 1)) == 0 {
        octal(field, value);
    } else {
        octal(field, 0);
        record(pax, key.as_bytes(), value.to_string().as_bytes());
    }
}

/// Adds `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// Sets type, magic and checksum.
fn seal(block: &mut [u8; BLOCK], flag: u8) {
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
    block[155] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for value_length in 0..2000 {
            let mut pax = Vec::new();
            record(&mut pax, b"path", &vec![b'x'; value_length]);
            let digits: String = pax.iter().take_while(|b| b.is_ascii_digit()).map(|&b| b as char).collect();
            assert_eq!(digits.parse::<usize>().unwrap(), pax.len());
        }
    }

    #[test]
    fn paths_are_split_where_they_fit() {
        let encode = |path: &[u8]| {
            let header = Header {
                path,
                kind: EntryKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: &[],
            };
            let mut pax = Vec::new();
            header.encode(&mut pax);
            pax.is_empty()
        };
        let part = |length| vec![b'a'; length];
        assert!(encode(&part(99)));
        assert!(!encode(&part(100)));
        assert!(encode(&[part(155), part(99)].join(&b'/')));
        assert!(!encode(&[part(156), part(99)].join(&b'/')));
        assert!(!encode(&[part(100), part(100)].join(&b'/')));
    }
}
