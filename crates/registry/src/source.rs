//! Content to be pushed, which can be read again from any place when a connection breaks.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};

/// How much of a file is read at once: large enough that the hand-over between threads costs nothing.
const CHUNK: u64 = 1 << 20;

/// Opens content at an offset.
pub type OpenBlob =
    Arc<dyn Fn(u64) -> BoxFuture<'static, io::Result<BoxStream<'static, io::Result<Bytes>>>> + Send + Sync>;

/// Gives the content of a blob, as often as it is asked.
#[derive(Clone)]
pub enum BlobSource {
    /// Content in memory.
    Bytes(Bytes),
    /// A file, opened when it is needed.
    Path(PathBuf),
    /// Anything that can be opened at an offset.
    Open(OpenBlob),
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Path(path) => write!(f, "Path({})", path.display()),
            Self::Open(_) => f.write_str("Open(..)"),
        }
    }
}

impl From<Bytes> for BlobSource {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<PathBuf> for BlobSource {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl BlobSource {
    /// Streams `length` bytes from `offset`; content that ends before is an error, more is cut off.
    pub(crate) fn stream(&self, offset: u64, length: u64) -> BoxStream<'static, io::Result<Bytes>> {
        let content = match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                stream::iter([Ok(bytes.slice(start..))]).boxed()
            }
            Self::Path(path) => read_file(path.clone(), offset, length),
            Self::Open(open) => {
                let opened = open(offset);
                stream::once(opened)
                    .flat_map(|opened| match opened {
                        Ok(content) => content,
                        Err(error) => stream::iter([Err(error)]).boxed(),
                    })
                    .boxed()
            }
        };
        exactly(content, length)
    }
}

/// Reads a file piece by piece on the blocking threads, one piece ahead of what is being sent.
fn read_file(path: PathBuf, offset: u64, length: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let open = move || -> io::Result<Reader> {
        let mut file = std::fs::File::open(&path)?;
        file.seek(SeekFrom::Start(offset))?;
        read_piece(file, length)
    };
    let first = tokio::task::spawn_blocking(open);
    stream::try_unfold(first, |pending| async move {
        let Reader { file, piece, left } = pending.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Ok(None);
        }
        let next = tokio::task::spawn_blocking(move || read_piece(file, left));
        Ok(Some((piece, next)))
    })
    .boxed()
}

struct Reader {
    file: std::fs::File,
    piece: Bytes,
    left: u64,
}

fn read_piece(mut file: std::fs::File, left: u64) -> io::Result<Reader> {
    let wanted = left.min(CHUNK);
    // One byte more, so that the last read finds the end without growing the buffer.
    let mut piece = Vec::with_capacity(wanted as usize + 1);
    (&mut file).take(wanted).read_to_end(&mut piece)?;
    let left = left - piece.len() as u64;
    Ok(Reader { file, piece: piece.into(), left })
}

fn exactly(
    content: BoxStream<'static, io::Result<Bytes>>,
    length: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream::try_unfold((content, length), |(mut content, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        match content.next().await {
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the content ends {left} bytes before its declared size"),
            )),
            Some(Err(error)) => Err(error),
            Some(Ok(mut piece)) => {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - piece.len() as u64;
                Ok(Some((piece, (content, left))))
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn read(source: &BlobSource, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = source.stream(offset, length).try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn every_source_gives_the_same() {
        let content: Vec<u8> = (0..3 * CHUNK as usize + 5).map(|i| (i % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        let bytes = Bytes::from(content.clone());
        let opened = bytes.clone();
        let open: OpenBlob = Arc::new(move |offset| {
            let rest = opened.slice(offset as usize..);
            Box::pin(async move { Ok(stream::iter([Ok(rest)]).boxed()) })
        });
        let sources =
            [BlobSource::Bytes(bytes), BlobSource::Path(file.path().into()), BlobSource::Open(open)];
        for source in sources {
            for (offset, length) in [(0, content.len()), (7, CHUNK as usize), (content.len(), 0), (5, 1)] {
                let read = read(&source, offset as u64, length as u64).await.unwrap();
                assert!(read == content[offset..offset + length], "{source:?} {offset} {length}");
            }
            let error = read(&source, 1, content.len() as u64).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{source:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error() {
        let source = BlobSource::from(PathBuf::from("/nonexistent/blob"));
        assert_eq!(read(&source, 0, 1).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
