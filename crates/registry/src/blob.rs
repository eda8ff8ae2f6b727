//! A blob as a stream of bytes, which mends itself when the connection breaks.
//!
//! No request is made before the first poll. The stream gives exactly the declared number of bytes or an
//! error; it does not hash them, because who stores a blob does that anyway. [`VerifiedBlob`] does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use http::{StatusCode, header};
use slipway_model::{Descriptor, Digest, Digester, Reference};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::client::{Access, Answer, Call, Client, Keep, SILENCE, fault_error, log_mirror};
use crate::error::RegistryError;
use crate::fault::{FaultKind, TransportFault};
use crate::host::{Host, Role, origin};
use crate::scope::ScopeSet;

/// How often a stream is mended: enough for a bad line, not for a registry that sends byte by byte.
const MOST_RESUMES: u32 = 16;
/// How often in a row without having got a single byte.
const MOST_FRUITLESS: u32 = 3;

/// Streams a blob.
pub struct BlobStream {
    source: Source,
    size: u64,
    /// How many bytes were given out, those before the first offset included.
    offset: u64,
    resumes: u32,
    fruitless: u32,
    state: State,
    /// What was read by [`AsyncRead`] only in part.
    rest: Bytes,
}

/// Says how to open the blob, again and again.
#[derive(Clone)]
struct Source {
    client: Client,
    reference: Reference,
    digest: Digest,
    action: String,
    /// The stream feeds a transfer that has a permit already.
    permitted: bool,
}

enum State {
    Closed,
    Opening(BoxFuture<'static, Result<Body, RegistryError>>),
    Reading(Body),
    Done,
}

/// Is the body of an answer.
struct Body {
    content: BoxStream<'static, Result<Bytes, TransportFault>>,
    origin: String,
    /// How much of it comes before what is wanted, because the registry does not know ranges.
    skip: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Client {
    /// Streams the blob that `descriptor` describes from `offset` on.
    ///
    /// Of the streams from one registry, [`ClientOptions::max_concurrency`] move at once: one more waits
    /// until another ends or is dropped, so whoever holds several must read them all.
    ///
    /// [`ClientOptions::max_concurrency`]: crate::ClientOptions::max_concurrency
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> BlobStream {
        let action =
            format!("fetch blob `{}` of `{}`", descriptor.digest, reference.without_tag().familiar());
        BlobStream {
            source: Source {
                client: self.clone(),
                reference: reference.clone(),
                digest: descriptor.digest,
                action,
                permitted: false,
            },
            size: descriptor.size,
            offset,
            resumes: 0,
            fruitless: 0,
            state: if offset >= descriptor.size { State::Done } else { State::Closed },
            rest: Bytes::new(),
        }
    }

    /// Fetches a small blob whole, such as an image's config, and checks its digest.
    pub async fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let blob = self.blob(reference, descriptor, 0);
        if descriptor.size > limit {
            return Err(RegistryError::TooLarge { action: blob.source.action, limit });
        }
        let mut blob = blob.verified();
        let mut whole = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or(0));
        while let Some(piece) = blob.next().await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.into())
    }
}

impl BlobStream {
    /// Returns how many bytes were given out, those before the first offset included.
    pub fn position(&self) -> u64 {
        self.offset - self.rest.len() as u64
    }

    /// Returns the same stream for a transfer that has a permit: if it waited for one of its own, copies within
    /// a registry could all wait for each other.
    pub(crate) fn permitted(mut self) -> Self {
        self.source.permitted = true;
        self
    }

    /// Returns the same stream with its digest checked at its end; it must be at its start.
    pub fn verified(self) -> VerifiedBlob {
        self.verified_after(Digester::new())
    }

    /// Returns the same stream with its digest checked; `digester` has seen all before its offset.
    pub fn verified_after(self, digester: Digester) -> VerifiedBlob {
        VerifiedBlob { blob: self, digester: Some(digester) }
    }

    /// Returns the same stream with errors as those of files are.
    pub(crate) fn into_io(self) -> BoxStream<'static, io::Result<Bytes>> {
        self.map(|piece| piece.map_err(io::Error::other)).boxed()
    }

    /// Decides whether to open the blob again after `fault`.
    fn mend(&mut self, origin: String, fault: TransportFault) -> Result<(), RegistryError> {
        self.resumes += 1;
        self.fruitless += 1;
        if self.resumes <= MOST_RESUMES && self.fruitless <= MOST_FRUITLESS && !fault.is_tls() {
            tracing::debug!(action = self.source.action, offset = self.offset, %fault, "resuming");
            self.state = State::Closed;
            return Ok(());
        }
        let action = self.source.action.clone();
        if fault.kind() == FaultKind::TimedOut {
            return Err(fault_error(action, origin, fault));
        }
        Err(RegistryError::Truncated { action, expected: self.size, received: self.offset })
    }

    /// Takes a piece of the body; nothing if all of it was to be skipped.
    fn take(&mut self, mut piece: Bytes) -> Result<Option<Bytes>, RegistryError> {
        if let State::Reading(body) = &mut self.state {
            let skipped = body.skip.min(piece.len() as u64);
            body.skip -= skipped;
            piece.advance(usize::try_from(skipped).unwrap_or(piece.len()));
        }
        if piece.is_empty() {
            return Ok(None);
        }
        let end = self.offset + piece.len() as u64;
        if end > self.size {
            let action = self.source.action.clone();
            return Err(RegistryError::SizeMismatch { action, expected: self.size, actual: end });
        }
        self.offset = end;
        self.fruitless = 0;
        Ok(Some(piece))
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, RegistryError>>> {
        loop {
            let result = match &mut self.state {
                State::Done => return Poll::Ready(None),
                State::Closed => {
                    let (source, offset, size) = (self.source.clone(), self.offset, self.size);
                    self.state = State::Opening(Box::pin(async move { source.open(offset, size).await }));
                    continue;
                }
                State::Opening(opening) => match ready!(opening.as_mut().poll(context)) {
                    Ok(body) => {
                        self.state = State::Reading(body);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                State::Reading(body) => match ready!(body.content.poll_next_unpin(context)) {
                    Some(Ok(piece)) => self.take(piece),
                    // Only the end of the answer was missing; having read it, the connection is reused.
                    _ if self.offset == self.size => {
                        self.state = State::Done;
                        Ok(None)
                    }
                    ended => {
                        let fault = match ended {
                            Some(Err(fault)) => fault,
                            _ => TransportFault::new(FaultKind::Broken, "the content ended early"),
                        };
                        let origin = body.origin.clone();
                        self.mend(origin, fault).map(|()| None)
                    }
                },
            };
            match result {
                Ok(None) => {}
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Err(error) => {
                    self.state = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Source {
    /// Opens the blob at `offset` at the first host that has it.
    async fn open(&self, offset: u64, size: u64) -> Result<Body, RegistryError> {
        for host in self.client.hosts(&self.reference, Access::Pull) {
            match self.open_at(&host, offset, size).await {
                Err(error) if host.role() == Role::Mirror => log_mirror(&host, &error),
                result => return result,
            }
        }
        Err(RegistryError::Unpinned { action: self.action.clone() })
    }

    async fn open_at(&self, host: &Host, offset: u64, size: u64) -> Result<Body, RegistryError> {
        let permit = if self.permitted { None } else { host.transfers.clone().acquire_owned().await.ok() };
        let path = format!("{}/blobs/{}", self.reference.path(), self.digest);
        let mut call = Call::get(path, ScopeSet::pull(self.reference.path()), self.action.clone());
        call.keep = Keep::Stream;
        if offset > 0 {
            call = call.with_header(header::RANGE, &format!("bytes={offset}-"));
        }
        let mut answer = self.client.send(host, &call).await?;
        let Some(response) = answer
            .stream
            .take()
            .filter(|_| matches!(answer.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT))
        else {
            return Err(answer.into_error(host, &self.action));
        };
        let start = self.start(host, &answer, offset)?;
        if let Some(length) = answer.length()
            && start.saturating_add(length) != size
        {
            let actual = start.saturating_add(length);
            return Err(RegistryError::SizeMismatch { action: self.action.clone(), expected: size, actual });
        }
        let origin = origin(&answer.url);
        Ok(Body { content: content(response), origin, skip: offset - start, _permit: permit })
    }

    /// Returns the place in the blob where the answer begins.
    fn start(&self, host: &Host, answer: &Answer, offset: u64) -> Result<u64, RegistryError> {
        if answer.status == StatusCode::OK {
            return Ok(0);
        }
        let range = answer.header(header::CONTENT_RANGE);
        let start = range
            .and_then(|range| range.trim().strip_prefix("bytes "))
            .and_then(|range| range.split('-').next()?.trim().parse::<u64>().ok());
        start.filter(|&start| start <= offset).ok_or_else(|| RegistryError::InvalidAnswer {
            action: self.action.clone(),
            host: host.key.domain.clone(),
            reason: "it sent another range than the one asked for".to_owned(),
        })
    }
}

fn content(response: reqwest::Response) -> BoxStream<'static, Result<Bytes, TransportFault>> {
    futures_util::stream::try_unfold(response, |mut response| async move {
        let piece = crate::client::within(SILENCE, response.chunk()).await?;
        Ok(piece.map(|piece| (piece, response)))
    })
    .boxed()
}

impl Stream for BlobStream {
    type Item = Result<Bytes, RegistryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        self.poll_piece(context)
    }
}

impl AsyncRead for BlobStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.poll_piece(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(piece)) => self.rest = piece,
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// Streams a blob, and fails at its end if its digest is another one.
///
/// All but the last piece are given out before the digest is known: who uses them must be able to drop
/// what was made of them. Where a mirror gave the content, [`Client::without_mirrors`] may have better.
pub struct VerifiedBlob {
    blob: BlobStream,
    digester: Option<Digester>,
}

impl Stream for VerifiedBlob {
    type Item = Result<Bytes, RegistryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.blob).poll_next(context));
        match &piece {
            Some(Ok(bytes)) => {
                if let Some(digester) = &mut self.digester {
                    digester.update(bytes);
                }
            }
            Some(Err(_)) => self.digester = None,
            None => {}
        }
        let ended = self.blob.offset >= self.blob.size && self.blob.rest.is_empty();
        if !ended {
            return Poll::Ready(piece);
        }
        let Some(digester) = self.digester.take() else { return Poll::Ready(piece) };
        let (actual, source) = (digester.finish(), &self.blob.source);
        if actual == source.digest {
            return Poll::Ready(piece);
        }
        Poll::Ready(Some(Err(RegistryError::DigestMismatch {
            action: source.action.clone(),
            expected: source.digest,
            actual,
        })))
    }
}
