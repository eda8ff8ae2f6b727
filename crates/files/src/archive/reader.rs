//! Reading a tar stream entry by entry.
//!
//! The format itself is read by `tar-core`, which bounds what a hostile archive can make us hold in memory; this
//! adds the stream under it, times with fractions or before 1970, and the content of sparse files.

use std::io::{Error, ErrorKind, Read, Result};

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

use crate::entry::Time;
use crate::xattrs::Attribute;

const CHUNK: usize = 64 * 1024;

/// What a header says.
#[derive(Debug)]
pub(super) struct TarEntry {
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) modified: Time,
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) attributes: Vec<Attribute>,
    /// Where the stored bytes belong in the file.
    pub(super) pieces: Vec<Piece>,
    /// The size of the file.
    pub(super) size: u64,
}

/// A run of stored bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A tar stream.
pub(super) struct TarReader<R> {
    inner: R,
    parser: Parser,
    buffer: Vec<u8>,
    /// Where the unread bytes of the buffer begin.
    start: usize,
    /// How many bytes of the entry's content were not read, and of the padding after it.
    content: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        let mut parser = Parser::new(Limits { max_path_len: Some(4096), ..Limits::default() });
        // Negative times are refused otherwise; they are read from the raw header below.
        parser.set_ignore_pax_errors(true);
        parser.set_allow_empty_path(true);
        Self { inner, parser, buffer: Vec::new(), start: 0, content: 0, padding: 0 }
    }

    /// Reads the next header, passing over what was not read of the last entry; `None` at the end.
    pub(super) fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        let mut left = self.content + self.padding;
        while left > 0 {
            let buffered = self.buffered()?;
            if buffered == 0 {
                return Err(unexpected_end());
            }
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(buffered);
            self.start += skipped;
            left -= skipped as u64;
        }
        (self.content, self.padding) = (0, 0);
        loop {
            let (consumed, found) = match self.parser.parse(&self.buffer[self.start..]).map_err(invalid)? {
                ParseEvent::NeedData { min_bytes } => {
                    if self.start == self.buffer.len() && self.fill(1)? == 0 {
                        return Ok(None);
                    }
                    if self.fill(min_bytes)? < min_bytes {
                        // A lone block of zeros at the end is an end too.
                        let rest = &self.buffer[self.start..];
                        let ends = rest.len() == 512 && rest.iter().all(|byte| *byte == 0);
                        return if ends { Ok(None) } else { Err(unexpected_end()) };
                    }
                    continue;
                }
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::End { .. } => return Ok(None),
                ParseEvent::Entry { consumed, entry } => {
                    let whole = Piece { offset: 0, length: entry.size };
                    self.content = entry.size;
                    (consumed, Some(describe(&entry, vec![whole], entry.size)))
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    let pieces =
                        sparse_map.iter().map(|piece| Piece { offset: piece.offset, length: piece.length });
                    self.content = entry.size;
                    (consumed, Some(describe(&entry, pieces.collect(), real_size)))
                }
            };
            self.start += consumed;
            if let Some(entry) = found {
                self.padding = self.content.wrapping_neg() % 512;
                return Ok(Some(entry));
            }
        }
    }

    /// Passes up to `length` bytes of content on to `take`.
    pub(super) fn content(
        &mut self,
        mut length: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if length > self.content {
            return Err(Error::new(ErrorKind::InvalidData, "the sparse map is larger than the content"));
        }
        while length > 0 {
            let buffered = self.buffered()?;
            if buffered == 0 {
                return Err(unexpected_end());
            }
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(buffered);
            take(&self.buffer[self.start..self.start + count])?;
            self.start += count;
            self.content -= count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    /// Returns how many bytes are at hand, reading some if there are none.
    fn buffered(&mut self) -> Result<usize> {
        if self.start == self.buffer.len() { self.fill(1) } else { Ok(self.buffer.len() - self.start) }
    }

    /// Reads until `wanted` bytes are at hand; returns how many are, which is less only at the end.
    fn fill(&mut self, wanted: usize) -> Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        while self.buffer.len() < wanted {
            let at = self.buffer.len();
            self.buffer.resize(at + CHUNK, 0);
            let outcome = self.inner.read(&mut self.buffer[at..]);
            self.buffer.truncate(at + *outcome.as_ref().unwrap_or(&0));
            match outcome {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(unexpected_end()),
                Err(error) => return Err(error),
            }
        }
        Ok(self.buffer.len())
    }
}

fn describe(entry: &ParsedEntry<'_>, pieces: Vec<Piece>, size: u64) -> TarEntry {
    let mut kind = entry.entry_type;
    if kind.is_file() && entry.path.ends_with(b"/") {
        // What archives older than POSIX call a directory.
        kind = EntryType::dir();
    }
    TarEntry {
        path: entry.path.to_vec(),
        kind,
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        modified: entry
            .pax
            .and_then(pax_time)
            .unwrap_or(Time { seconds: i64::try_from(entry.mtime).unwrap_or_default(), nanoseconds: 0 }),
        link: entry.link_target.as_deref().unwrap_or_default().to_vec(),
        device: (entry.dev_major.unwrap_or_default(), entry.dev_minor.unwrap_or_default()),
        attributes: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        pieces,
        size,
    }
}

/// Reads the modification time of an extended header, which may have a fraction and a sign.
fn pax_time(pax: &[u8]) -> Option<Time> {
    let mut found = None;
    for extension in PaxExtensions::new(pax) {
        let extension = extension.ok()?;
        if extension.key_bytes() == b"mtime" {
            found = parse_time(extension.value().ok()?);
        }
    }
    found
}

fn parse_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    let seconds: i64 = whole.parse().ok()?;
    Some(match (whole.starts_with('-'), nanoseconds) {
        (false, _) | (true, 0) => Time { seconds, nanoseconds },
        (true, _) => Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn unexpected_end() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "unexpected EOF")
}

fn invalid(error: tar_core::parse::ParseError) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}
