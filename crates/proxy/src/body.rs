//! The body of an answer on its way to the step: its digest is made as it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use slipway_model::Digester;

use crate::record::{Reason, Recorder};

/// A body that notes what it was.
pub(crate) struct Watched {
    inner: reqwest::Body,
    /// Until it is known how the body ended; `None` from the start if nobody wants to know.
    digest: Option<Watching>,
}

struct Watching {
    recorder: Arc<Recorder>,
    digester: Digester,
    url: String,
    /// The bytes that are still to come, if the server has said how many there are.
    left: Option<u64>,
}

impl Watching {
    fn complete(self) {
        self.recorder.material(self.url, self.digester.finish());
    }
}

impl Watched {
    /// Lets a body pass unseen.
    pub(crate) fn unseen(inner: reqwest::Body) -> Self {
        Self { inner, digest: None }
    }

    /// Notes what `url` gave: with the last byte, before the step has it.
    pub(crate) fn new(inner: reqwest::Body, recorder: Arc<Recorder>, url: String) -> Self {
        let watching = Watching { recorder, digester: Digester::new(), url, left: inner.size_hint().exact() };
        let mut this = Self { inner, digest: Some(watching) };
        this.settle();
        this
    }

    /// Completes the digest if that was the end. Who sends the body on may not ask any more then.
    fn settle(&mut self) {
        let ended = self.inner.is_end_stream();
        if let Some(watching) = self.digest.take_if(|watching| ended || watching.left == Some(0)) {
            watching.complete();
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(watching), Some(data)) = (&mut self.digest, frame.data_ref()) {
                    watching.digester.update(data);
                    let read = data.len() as u64;
                    watching.left = watching.left.map(|left| left.saturating_sub(read));
                }
                self.settle();
            }
            // What is left of it is told when it is dropped.
            Some(Err(_)) => {}
            None => {
                if let Some(watching) = self.digest.take() {
                    watching.complete();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(watching) = self.digest.take() {
            watching.recorder.incomplete("GET", watching.url, Reason::BodyReadFailed);
        }
    }
}
