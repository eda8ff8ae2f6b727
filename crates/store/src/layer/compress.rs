//! Makes layers small: gzip on several threads, or zstd.
//!
//! # Gzip
//!
//! One member, made of blocks of 256 KiB that are compressed at once, each with the last 32 KiB before it
//! as its dictionary, as `pigz` does it. Where blocks begin does not depend on the number of threads, so
//! neither does the result: the same archive gives the same blob on every machine.
//!
//! Blocks of what is compressed already (archives, pictures, random bytes) are stored as they are: trying
//! would cost the most time of all and gain nothing. Whether a block is such is told from its bytes alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression as Level, FlushCompress};
use slipway_model::solve::Compression;

use super::dense::Detector;

const BLOCK: usize = 256 << 10;
const WINDOW: usize = 32 << 10;

/// The level used when none is asked for: about what Go's level 6 gives, which other builders use, for
/// three quarters of the work of our level 6 (1.6 % smaller).
const GZIP_LEVEL: i32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// Returns the level that is used where `level` is asked for.
pub(crate) fn effective_level(compression: Compression, level: Option<i32>) -> i32 {
    match compression {
        Compression::Uncompressed => 0,
        Compression::Gzip => level.unwrap_or(GZIP_LEVEL).clamp(0, 9),
        Compression::Zstd => level.unwrap_or(ZSTD_LEVEL).clamp(1, 22),
    }
}

/// Compresses what is written to it into `W`.
pub(crate) enum Compressor<W: Write> {
    Plain(W),
    Gzip(Box<ParallelGzip<W>>),
    Zstd(Box<zstd::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    pub(crate) fn new(
        out: W,
        compression: Compression,
        level: Option<i32>,
        threads: usize,
    ) -> io::Result<Self> {
        let threads = threads.clamp(1, 64);
        let level = effective_level(compression, level);
        Ok(match compression {
            Compression::Uncompressed => Self::Plain(out),
            Compression::Gzip => Self::Gzip(Box::new(ParallelGzip::new(out, level.unsigned_abs(), threads)?)),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                // Without workers the output differs from that with any number of them.
                encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Ends the stream and returns what it was written to.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses into one gzip member on several threads.
pub(crate) struct ParallelGzip<W: Write> {
    out: W,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    /// The results to come, in order.
    pending: VecDeque<Receiver<io::Result<Block>>>,
    block: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    checksum: crc32fast::Hasher,
    length: u64,
}

struct Job {
    data: Arc<Vec<u8>>,
    before: Option<Arc<Vec<u8>>>,
    last: bool,
    result: SyncSender<io::Result<Block>>,
}

struct Block {
    compressed: Vec<u8>,
    checksum: crc32fast::Hasher,
    length: u64,
}

impl<W: Write> ParallelGzip<W> {
    fn new(mut out: W, level: u32, threads: usize) -> io::Result<Self> {
        // No name and no time, made on Unix; deflate's speed hint for the levels that have one.
        let hint = match level {
            9 => 2,
            0..=1 => 4,
            _ => 0,
        };
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, hint, 3])?;
        let (jobs, queue) = sync_channel(threads);
        let queue = Arc::new(Mutex::new(queue));
        let start = |index| {
            let queue = Arc::clone(&queue);
            let builder = std::thread::Builder::new().name(format!("gzip-{index}"));
            builder.spawn(move || work(&queue, level))
        };
        let workers = (0..threads).map(start).collect::<io::Result<_>>()?;
        Ok(Self {
            out,
            jobs: Some(jobs),
            workers,
            pending: VecDeque::new(),
            block: Vec::with_capacity(BLOCK),
            before: None,
            checksum: crc32fast::Hasher::new(),
            length: 0,
        })
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        while self.pending.len() > 2 * self.workers.len() {
            self.receive()?;
        }
        let data = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        let (result, receiver) = sync_channel(1);
        let job = Job { data: Arc::clone(&data), before: self.before.replace(data), last, result };
        let jobs = self.jobs.as_ref().ok_or_else(worker_gone)?;
        jobs.send(job).map_err(|_| worker_gone())?;
        self.pending.push_back(receiver);
        Ok(())
    }

    /// Writes the next block's result.
    fn receive(&mut self) -> io::Result<()> {
        let Some(receiver) = self.pending.pop_front() else { return Ok(()) };
        let block = receiver.recv().map_err(|_| worker_gone())??;
        self.checksum.combine(&block.checksum);
        self.length += block.length;
        self.out.write_all(&block.compressed)
    }

    fn finish(mut self) -> io::Result<W> {
        self.send(true)?;
        while !self.pending.is_empty() {
            self.receive()?;
        }
        self.jobs = None;
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| worker_gone())?;
        }
        let checksum = std::mem::take(&mut self.checksum).finalize();
        self.out.write_all(&checksum.to_le_bytes())?;
        // Modulo 2^32, as the format has it.
        self.out.write_all(&(self.length as u32).to_le_bytes())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.send(false)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn worker_gone() -> io::Error {
    io::Error::other("a compression thread ended early")
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    let mut deflate = Compress::new(Level::new(level), false);
    let mut detector = Detector::new();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let dense = level > 0 && job.data.len() == BLOCK && detector.is_dense(&job.data);
        // The receiver is gone if the writing failed.
        let _ = job.result.send(if dense { Ok(stored(&job)) } else { compress(&mut deflate, &job) });
    }
}

/// The most that any level makes of so many bytes: fixed Huffman codes have up to nine bits for eight.
///
/// zlib-rs 0.6.8 panics at level 1 where there is less room than that.
const fn room_for(length: usize) -> usize {
    length + length / 8 + 4096
}

/// Wraps a block in stored blocks ([RFC 1951, 3.2.4]); what comes before it ended at a byte's boundary.
///
/// [RFC 1951, 3.2.4]: https://www.rfc-editor.org/rfc/rfc1951#section-3.2.4
fn stored(job: &Job) -> Block {
    let mut compressed = Vec::with_capacity(job.data.len() + 64);
    let mut pieces = job.data.chunks(usize::from(u16::MAX)).peekable();
    while let Some(piece) = pieces.next() {
        let last = job.last && pieces.peek().is_none();
        // A piece is no longer than the largest length that fits.
        let length = piece.len() as u16;
        compressed.push(u8::from(last));
        compressed.extend_from_slice(&length.to_le_bytes());
        compressed.extend_from_slice(&(!length).to_le_bytes());
        compressed.extend_from_slice(piece);
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&job.data);
    Block { compressed, checksum, length: job.data.len() as u64 }
}

fn compress(deflate: &mut Compress, job: &Job) -> io::Result<Block> {
    deflate.reset();
    if let Some(before) = &job.before {
        let window = before.len().saturating_sub(WINDOW);
        deflate.set_dictionary(&before[window..]).map_err(io::Error::other)?;
    }
    let mut compressed = Vec::with_capacity(room_for(job.data.len()));
    let flush = if job.last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let taken = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let status = deflate.compress_vec(&job.data[taken..], &mut compressed, flush);
        let status = status.map_err(io::Error::other)?;
        let taken = deflate.total_in() == job.data.len() as u64;
        // Room that is left over says that nothing more is to come.
        let done = if job.last {
            status == flate2::Status::StreamEnd
        } else {
            taken && compressed.len() < compressed.capacity()
        };
        if done {
            break;
        }
        compressed.reserve(compressed.capacity().max(4096));
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&job.data);
    Ok(Block { compressed, checksum, length: job.data.len() as u64 })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        // Neither random nor constant.
        let mut state = 1u32;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.extend_from_slice(format!("line {} of a file\n", state >> 20).as_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn compressed(bytes: &[u8], compression: Compression, level: Option<i32>, threads: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression, level, threads).unwrap();
        compressor.write_all(bytes).unwrap();
        compressor.finish().unwrap()
    }

    #[test]
    fn output_does_not_depend_on_threads_and_reads_back() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77] {
            let bytes = sample(length);
            for (compression, levels) in
                [(Compression::Gzip, [0, 1, 4, 6, 9]), (Compression::Zstd, [1, 3, 5, 9, 12])]
            {
                for level in levels {
                    let one = compressed(&bytes, compression, Some(level), 1);
                    assert!(
                        one == compressed(&bytes, compression, Some(level), 4),
                        "{compression:?} {level}"
                    );
                    let mut back = Vec::new();
                    crate::layer::Decompressor::new(one.as_slice()).unwrap().read_to_end(&mut back).unwrap();
                    assert!(back == bytes, "{compression:?} {level} {length}");
                }
            }
        }
    }

    #[test]
    fn what_is_dense_is_stored_and_what_only_looks_so_is_not() {
        let mut state = 7u64;
        let mut random = |length: usize| -> Vec<u8> {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            };
            (0..length).map(|_| next()).collect()
        };
        let dense = random(3 * BLOCK);
        let out = compressed(&dense, Compression::Gzip, None, 2);
        assert!(out.len() < dense.len() + dense.len() / 1000 + 64, "{}", out.len());
        let repeated = random(4096).repeat(2 * BLOCK / 4096);
        assert!(compressed(&repeated, Compression::Gzip, None, 2).len() < repeated.len() / 10);
        for bytes in [dense, repeated] {
            let mut back = Vec::new();
            let packed = compressed(&bytes, Compression::Gzip, None, 2);
            crate::layer::Decompressor::new(packed.as_slice()).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes);
        }
    }

    #[test]
    fn a_failing_output_is_an_error_not_a_hang() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if bytes.len() == 10 { Ok(10) } else { Err(io::ErrorKind::StorageFull.into()) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut compressor = Compressor::new(Full, Compression::Gzip, None, 2).unwrap();
        let written = compressor.write_all(&sample(20 * BLOCK)).and_then(|()| compressor.finish().map(drop));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
