//! Outputs that are one stream: the client writes them to a file or to its standard output.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::stream;
use slipway_engine::session::OutputStream;
use slipway_model::{Diagnostic, ErrorKind};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Code, Request, Status};

use super::ClientSession;
use crate::wire::auth::BytesMessage;
use crate::wire::auth::file_send_client::FileSendClient;

/// The header that names the exporter.
pub(crate) const EXPORTER: &str = "buildkit-attachable-exporter-id";
/// Bytes in one message.
const CHUNK: usize = 256 * 1024;

/// Opens the client's end of an output.
pub(super) fn open(
    client: Arc<ClientSession>,
    exporter: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<Box<dyn OutputStream>, Diagnostic> {
    let (sender, receiver) = mpsc::channel::<Option<Vec<u8>>>(4);
    // The end of the data is said, not concluded: a writer that is dropped must not look complete.
    let messages = stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Some(Some(data)) => Some((BytesMessage { data }, receiver)),
            Some(None) => None,
            None => std::future::pending().await,
        }
    });
    let mut request = Request::new(messages);
    let invalid = || Diagnostic::new(ErrorKind::User, "an output's name cannot be sent to the client");
    let headers = request.metadata_mut();
    headers.insert(EXPORTER, MetadataValue::try_from(exporter).map_err(|_| invalid())?);
    for (key, value) in metadata {
        let key = format!("exporter-md-{}", key.to_lowercase());
        let key = MetadataKey::from_bytes(key.as_bytes()).map_err(|_| invalid())?;
        headers.insert(key, MetadataValue::try_from(value.as_str()).map_err(|_| invalid())?);
    }
    let call = async move {
        let mut files = FileSendClient::new(client.channel());
        let work = async {
            let mut answer = files.diff_copy(request).await?.into_inner();
            while answer.message().await?.is_some() {}
            Ok(())
        };
        client.call(work).await
    };
    #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
    let answer = AbortOnDropHandle::new(tokio::spawn(call));
    Ok(Box::new(Output { sender: PollSender::new(sender), answer, state: State::Open }))
}

enum State {
    Open,
    Ending,
    Done,
    /// The client does not want it.
    Needless,
}

struct Output {
    sender: PollSender<Option<Vec<u8>>>,
    answer: AbortOnDropHandle<Result<(), Status>>,
    state: State,
}

impl Output {
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context)).map_err(io::Error::other)?;
        self.state = State::Done;
        // The client has it already, and wants no more of it: what is written goes nowhere.
        if answer.as_ref().is_err_and(|status| status.code() == Code::AlreadyExists) {
            self.state = State::Needless;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(answer.map_err(|status| io::Error::other(status.message().to_owned())))
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.state {
            State::Done => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            State::Needless => return Poll::Ready(Ok(data.len())),
            State::Open | State::Ending => {}
        }
        match ready!(self.sender.poll_reserve(context)) {
            Ok(()) => {}
            Err(_) => {
                // The client has answered before it had everything: its answer tells why.
                ready!(self.poll_answer(context))?;
                return match self.state {
                    State::Needless => Poll::Ready(Ok(data.len())),
                    _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                };
            }
        }
        let data = &data[..data.len().min(CHUNK)];
        let sent = self.sender.send_item(Some(data.to_vec()));
        Poll::Ready(sent.map(|()| data.len()).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.state {
            State::Done | State::Needless => return Poll::Ready(Ok(())),
            State::Ending => {}
            State::Open => {
                if ready!(self.sender.poll_reserve(context)).is_ok() {
                    let _ = self.sender.send_item(None);
                }
                self.state = State::Ending;
            }
        }
        self.poll_answer(context)
    }
}
