//! Which compression some bytes have, and reading through it.

use std::io::{BufRead, BufReader, Read, Result};

/// A compression a layer or an archive may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// How much memory a dictionary of an xz archive may take, in KiB: what `xz -9` writes, and more.
const XZ_MEMORY: u32 = 256 * 1024;

/// Opens a reader of the plain data.
pub(super) fn open<'r>(data: impl Read + Send + 'r) -> Result<Box<dyn Read + Send + 'r>> {
    let mut data = BufReader::with_capacity(64 * 1024, data);
    let mut start = data.fill_buf()?.to_vec();
    start.truncate(8);
    Ok(match detect(&start) {
        Compression::None => Box::new(data),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(data)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(data)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(data, true, XZ_MEMORY)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(data)?),
    })
}

fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, which zstd archives may begin with.
        [magic, 0x2a, 0x4d, 0x18, _, _, _, _] if magic & 0xf0 == 0x50 => Compression::Zstd,
        _ => Compression::None,
    }
}
