//! Reads archives: a pull reader over the `tar-core` parser.
//!
//! Owns the buffer; entries are returned with what an extraction needs, content is lent from the buffer.
//! Strict, as `tar-core` is, but for times before 1970, which real images have. An archive may end
//! without its two zero blocks, as other readers allow, but not inside an entry.

use std::io::{self, Read};

use tar_core::parse::{Limits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

use super::BLOCK;

const BUFFER: usize = 1 << 20;

/// Says why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    #[error("{0}")]
    Read(#[source] io::Error),
    #[error("{0}")]
    Parse(#[source] ParseError),
    #[error("the archive ends inside an entry")]
    Truncated,
    #[error("the value of `{0}` is not a number")]
    Number(&'static str),
}

/// One entry of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970 and nanoseconds after that.
    pub(crate) mtime: (i64, u32),
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of content in the archive.
    pub(crate) size: u64,
    pub(crate) sparse: Option<Sparse>,
}

/// Where the content of a sparse file belongs.
#[derive(Clone, Debug)]
pub(crate) struct Sparse {
    /// Offsets and lengths.
    pub(crate) map: Vec<(u64, u64)>,
    pub(crate) size: u64,
}

/// Reads an archive entry by entry.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    input: R,
    parser: Parser,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Content and padding of the current entry that has not been taken.
    content: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        let limits = Limits { max_path_len: Some(4096), ..Limits::default() };
        let mut parser = Parser::new(limits);
        parser.set_ignore_pax_errors(true);
        Self { input, parser, buffer: vec![0; BUFFER], start: 0, end: 0, content: 0, padding: 0 }
    }

    /// Returns the next entry, skipping what is left of the one before.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip()?;
        loop {
            let wanted =
                match self.parser.parse(&self.buffer[self.start..self.end]).map_err(TarError::Parse)? {
                    ParseEvent::NeedData { min_bytes } => min_bytes,
                    ParseEvent::GlobalExtensions { consumed, .. } => {
                        self.start += consumed;
                        continue;
                    }
                    ParseEvent::End { .. } => return Ok(None),
                    ParseEvent::Entry { consumed, entry } => {
                        let entry = own(&entry, None)?;
                        return Ok(Some(self.begin(consumed, entry)));
                    }
                    ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                        let map = sparse_map.iter().map(|part| (part.offset, part.length)).collect();
                        let entry = own(&entry, Some(Sparse { map, size: real_size }))?;
                        return Ok(Some(self.begin(consumed, entry)));
                    }
                };
            if !self.fill(wanted)? {
                let rest = &self.buffer[self.start..self.end];
                let ended = rest.iter().all(|&byte| byte == 0);
                return if ended { Ok(None) } else { Err(TarError::Truncated) };
            }
        }
    }

    fn begin(&mut self, consumed: usize, entry: Entry) -> Entry {
        self.start += consumed;
        self.content = entry.size;
        self.padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
        entry
    }

    /// Lends the next piece of the current entry's content; empty at its end. A small file is one piece.
    pub(crate) fn content(&mut self) -> Result<&[u8], TarError> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let wanted = usize::try_from(self.content).unwrap_or(usize::MAX).min(self.buffer.len() / 2);
        if self.end - self.start < wanted && !self.fill(wanted)? && self.start == self.end {
            return Err(TarError::Truncated);
        }
        let count = usize::try_from(self.content).unwrap_or(usize::MAX).min(self.end - self.start);
        let piece = self.start..self.start + count;
        self.start += count;
        self.content -= count as u64;
        Ok(&self.buffer[piece])
    }

    fn skip(&mut self) -> Result<(), TarError> {
        while !self.content()?.is_empty() {}
        while self.padding > 0 {
            if self.start == self.end && !self.fill(1)? {
                return Err(TarError::Truncated);
            }
            let count = usize::try_from(self.padding).unwrap_or(usize::MAX).min(self.end - self.start);
            self.start += count;
            self.padding -= count as u64;
        }
        Ok(())
    }

    /// Reads what follows the archive, to the end of the input, and returns the input.
    pub(crate) fn drain(mut self) -> Result<R, TarError> {
        loop {
            (self.start, self.end) = (0, 0);
            if !self.fill(1)? {
                return Ok(self.input);
            }
        }
    }

    /// Reads until `wanted` bytes are in the buffer; false if the input ends before.
    fn fill(&mut self, wanted: usize) -> Result<bool, TarError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if wanted > self.buffer.len() {
                // At most the parser's limits.
                self.buffer.resize(wanted.next_power_of_two(), 0);
            }
        }
        while self.end - self.start < wanted {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(true)
    }
}

fn own(entry: &ParsedEntry<'_>, sparse: Option<Sparse>) -> Result<Entry, TarError> {
    let mut kind = entry.entry_type;
    let old_directory = entry.header.as_bytes()[156] == 0 && entry.path.ends_with(b"/");
    if old_directory {
        kind = EntryType::Directory;
    }
    // As Go's reader has it: these have no content, whatever the size field says.
    let bare = matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    );
    let mut mtime = (entry.mtime.cast_signed(), 0);
    if let Some(pax) = entry.pax {
        mtime = check_pax(pax)?.unwrap_or(mtime);
    }
    Ok(Entry {
        path: entry.path.to_vec(),
        kind,
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        mtime,
        link: entry.link_target.as_deref().unwrap_or_default().to_vec(),
        device: (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0)),
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        size: if bare { 0 } else { entry.size },
        sparse,
    })
}

/// Refuses the numbers that the parser was told to ignore when malformed, and returns the exact time.
fn check_pax(pax: &[u8]) -> Result<Option<(i64, u32)>, TarError> {
    let mut mtime = None;
    for extension in PaxExtensions::new(pax) {
        let extension = extension.map_err(|error| TarError::Parse(error.into()))?;
        let number = |key| {
            let parsed = extension.value().ok().and_then(|value| value.parse::<u64>().ok());
            parsed.map(drop).ok_or(TarError::Number(key))
        };
        match extension.key_bytes() {
            b"size" => number("size")?,
            b"uid" => number("uid")?,
            b"gid" => number("gid")?,
            b"mtime" => {
                let parsed = extension.value().ok().and_then(parse_time);
                mtime = Some(parsed.ok_or(TarError::Number("mtime"))?);
            }
            _ => {}
        }
    }
    Ok(mtime)
}

/// Parses seconds with an optional fraction, before 1970 too, into seconds and nanoseconds after them.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (negative, nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(parse_time("12"), Some((12, 0)));
        assert_eq!(parse_time("12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(parse_time("1.0000000019"), Some((1, 1)));
        for text in ["", "x", "1.x", "1e5", "99999999999999999999"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn an_archive_may_lack_its_end_but_not_its_content() {
        let mut archive = Vec::new();
        let mut writer = crate::tar::TarWriter::new(&mut archive);
        let header = crate::tar::Header {
            path: b"a",
            kind: crate::tar::EntryKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: &[],
        };
        writer.header(&header).unwrap();
        writer.finish().unwrap();
        for end in [512, 1024, 1536] {
            let mut reader = TarReader::new(&archive[..end]);
            assert_eq!(reader.next().unwrap().unwrap().path, b"a/");
            assert!(reader.next().unwrap().is_none());
        }
        assert!(matches!(TarReader::new(&archive[..100]).next(), Err(TarError::Truncated)));
        assert!(TarReader::new(&[][..]).next().unwrap().is_none());
    }
}
