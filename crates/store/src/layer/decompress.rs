//! Reads a layer's blob, however compressed.
//!
//! The form is told by the first bytes, not by the media type, which is sometimes wrong.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const BUFFER: usize = 256 << 10;

/// The blob, with its first bytes put back.
type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// Gives the archive in a blob.
pub(crate) enum Decompressor<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(Box<zstd::Decoder<'static, Input<R>>>),
}

impl<R: Read> Decompressor<R> {
    pub(crate) fn new(mut input: R) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(4);
        input.by_ref().take(4).read_to_end(&mut magic)?;
        let form = magic.clone();
        let input = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(input));
        Ok(match form.as_slice() {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(MultiGzDecoder::new(input))),
            // A frame, or a skippable one before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Self::Zstd(Box::new(zstd::Decoder::with_buffer(input)?))
            }
            _ => Self::Plain(input),
        })
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(input) => input.read(buffer),
            Self::Zstd(input) => input.read(buffer),
        }
    }
}
