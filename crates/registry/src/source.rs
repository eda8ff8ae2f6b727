//! Content to be pushed, which can be read again from any place when a connection breaks.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
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
    /// An open file, which may have lost its name; where it is read is not changed.
    File(Arc<File>),
    /// Anything that can be opened at an offset.
    Open(OpenBlob),
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Path(path) => write!(f, "Path({})", path.display()),
            Self::File(_) => f.write_str("File(..)"),
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
            Self::Path(path) => {
                let path = path.clone();
                read_file(move || File::open(path).map(Arc::new), offset, length)
            }
            Self::File(file) => {
                let file = file.clone();
                read_file(move || Ok(file), offset, length)
            }
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
fn read_file(
    open: impl FnOnce() -> io::Result<Arc<File>> + Send + 'static,
    offset: u64,
    length: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let first = tokio::task::spawn_blocking(move || read_piece(open()?, offset, length));
    stream::try_unfold(first, |pending| async move {
        let Reader { file, piece, offset, left } = pending.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Ok(None);
        }
        let next = tokio::task::spawn_blocking(move || read_piece(file, offset, left));
        Ok(Some((piece, next)))
    })
    .boxed()
}

struct Reader {
    file: Arc<File>,
    piece: Bytes,
    /// Where the next piece is, and how much is left from there.
    offset: u64,
    left: u64,
}

fn read_piece(file: Arc<File>, offset: u64, left: u64) -> io::Result<Reader> {
    // A chunk fits into memory.
    let wanted = left.min(CHUNK) as usize;
    let mut piece = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut piece[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    let read = filled as u64;
    Ok(Reader { file, piece: piece.into(), offset: offset + read, left: left - read })
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
        let sources = [
            BlobSource::Bytes(bytes),
            BlobSource::Path(file.path().into()),
            BlobSource::Open(open),
            BlobSource::File(Arc::new(file.reopen().unwrap())),
        ];
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
