//! A stream of messages in each direction, as one stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;
use tonic::transport::server::Connected;

/// Bytes in one message.
const CHUNK: usize = 64 * 1024;

/// Reads from one stream of messages and writes to another.
pub(crate) struct Tunnel {
    reader: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
    sender: PollSender<Bytes>,
}

impl Tunnel {
    /// Joins the two directions.
    pub(crate) fn new(
        incoming: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Self {
        Self { reader: StreamReader::new(incoming.boxed()), sender: PollSender::new(outgoing) }
    }
}

/// A client serves what it offers over it.
impl Connected for Tunnel {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        std::task::ready!(self.sender.poll_reserve(context)).map_err(|_| closed())?;
        let data = &data[..data.len().min(CHUNK)];
        self.sender.send_item(Bytes::copy_from_slice(data)).map_err(|_| closed())?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.close();
        Poll::Ready(Ok(()))
    }
}
