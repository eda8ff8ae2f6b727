//! Sending a blob's bytes: in one piece if nothing goes wrong, from where it broke if the registry kept
//! what it had, from the start if not, in small pieces if something on the way limits the size.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use reqwest::Url;
use slipway_model::{Descriptor, Reference};

use super::call::{Call, Payload};
use super::exchange::silent;
use super::push::Progress;
use super::{Answer, Client};
use crate::error::RegistryError;
use crate::fault::TransportFault;
use crate::host::Host;
use crate::scope::ScopeSet;
use crate::source::BlobSource;

/// How large a piece is where a proxy refuses the whole (many stop at 100 MB).
pub(super) const PIECE: u64 = 32 << 20;

/// Is an upload that the registry has begun: where to send to, and from which byte on.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(super) place: Url,
    pub(super) offset: u64,
    pub(super) smallest_piece: u64,
}

/// Says what is sent where.
pub(super) struct Transfer<'a> {
    pub(super) host: &'a Host,
    pub(super) reference: &'a Reference,
    pub(super) source: &'a BlobSource,
    pub(super) progress: Option<Progress>,
    pub(super) action: String,
}

/// Says which blob a transfer makes.
pub(super) struct Upload<'a> {
    pub(super) transfer: Transfer<'a>,
    pub(super) descriptor: &'a Descriptor,
}

/// Is a part of a blob as a request's body.
#[derive(Clone)]
pub(crate) struct Piece {
    source: BlobSource,
    offset: u64,
    length: u64,
    progress: Option<Progress>,
}

impl Session {
    /// Reads the place out of an answer that begins a session.
    pub(super) fn begin(answer: &Answer) -> Option<Self> {
        let place = answer.location()?;
        let smallest = answer.headers.get("oci-chunk-min-length");
        let smallest_piece = smallest.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        Some(Self { place, offset: 0, smallest_piece })
    }

    /// Moves on as an answer says, which names the next place and what has arrived so far.
    fn advance(&mut self, answer: &Answer) -> Option<()> {
        if let Some(place) = answer.location() {
            self.place = place;
        }
        let range = answer.header(header::RANGE)?;
        let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
        // "0-0" is what registries say of nothing; one byte is as well sent again.
        self.offset = if last == 0 { 0 } else { last.checked_add(1)? };
        Some(())
    }
}

impl Client {
    /// Sends the blob to `session`, and to further ones if that fails in a way that may pass.
    pub(super) async fn upload(&self, upload: &Upload<'_>, session: Session) -> Result<(), RegistryError> {
        let size = upload.descriptor.size;
        let Transfer { host, reference, action, .. } = &upload.transfer;
        // What was begun in pieces goes on in pieces.
        let mut piece = if session.offset > 0 { PIECE.max(session.smallest_piece) } else { u64::MAX };
        let mut session = session;
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.send_blob(upload, &mut session, piece).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let refused_for_size = matches!(error, RegistryError::Rejected { status: 413, .. });
            if refused_for_size && piece > PIECE && size > PIECE {
                tracing::debug!(action, "too large in one piece");
                piece = PIECE.max(session.smallest_piece);
                session = self.start_upload(host, reference, action).await?;
                continue;
            }
            if tries >= self.shared.retry.tries || !may_pass(&error) {
                return Err(error);
            }
            let asked = match &error {
                RegistryError::TooManyRequests { retry_after, .. } => *retry_after,
                _ => None,
            };
            if asked.is_some_and(|asked| asked > self.shared.retry.longest_retry_after) {
                return Err(error);
            }
            tracing::debug!(action, %error, tries, "the upload broke");
            self.clock().sleep(asked.unwrap_or_else(|| self.shared.retry.pause(tries))).await;
            match self.pick_up(upload, &session).await? {
                Some(resumed) => session = resumed,
                // The answer to the last request was lost, not the request.
                None if self.arrived(upload).await => return Ok(()),
                None => {
                    session = self.start_upload(host, reference, action).await?;
                }
            }
        }
    }

    async fn send_blob(
        &self,
        upload: &Upload<'_>,
        session: &mut Session,
        piece: u64,
    ) -> Result<(), RegistryError> {
        let size = upload.descriptor.size;
        let Transfer { host, action, .. } = &upload.transfer;
        let in_one = session.offset == 0 && size <= piece;
        while !in_one && session.offset < size {
            let end = session.offset + piece.min(size - session.offset);
            self.send_piece(&upload.transfer, session, end, size).await?;
        }
        let mut place = session.place.clone();
        place.query_pairs_mut().append_pair("digest", &upload.descriptor.digest.to_string());
        let mut call = upload
            .transfer
            .call(Method::PUT, place)
            .with_header(header::CONTENT_TYPE, "application/octet-stream");
        if in_one && size > 0 {
            let body = upload.transfer.piece(0, size);
            call = call.with_header(header::CONTENT_LENGTH, &size.to_string()).with_body(body);
        }
        let answer = self.send_once(host, &call).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error(host, action));
        }
        match answer.digest().filter(|&actual| actual != upload.descriptor.digest) {
            Some(actual) => Err(RegistryError::DigestMismatch {
                action: action.clone(),
                expected: upload.descriptor.digest,
                actual,
            }),
            None => Ok(()),
        }
    }

    /// Sends what is between the session's offset and `end` of a blob of at most `size` bytes.
    pub(super) async fn send_piece(
        &self,
        transfer: &Transfer<'_>,
        session: &mut Session,
        end: u64,
        size: u64,
    ) -> Result<(), RegistryError> {
        let before = session.offset;
        let length = end - before;
        let call = transfer
            .call(Method::PATCH, session.place.clone())
            .with_header(header::CONTENT_TYPE, "application/octet-stream")
            .with_header(header::CONTENT_RANGE, &format!("{before}-{}", end - 1))
            .with_header(header::CONTENT_LENGTH, &length.to_string())
            .with_body(transfer.piece(before, length));
        let answer = self.send_once(transfer.host, &call).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error(transfer.host, &transfer.action));
        }
        if session.advance(&answer).is_none() {
            session.offset = end;
        }
        if session.offset > size || session.offset <= before {
            return Err(transfer.nonsense(format!("it has {} of {size} bytes", session.offset)));
        }
        Ok(())
    }

    /// Asks the registry how much of a broken upload it has; nothing if it is to be begun anew.
    async fn pick_up(&self, upload: &Upload<'_>, broken: &Session) -> Result<Option<Session>, RegistryError> {
        let call = upload.transfer.call(Method::GET, broken.place.clone());
        let answer = match self.send_once(upload.transfer.host, &call).await {
            Ok(answer) => answer,
            // Whether the registry is back shows when the new session is begun, with patience.
            Err(error) if may_pass(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut session = broken.clone();
        let known = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED);
        let usable = known && session.advance(&answer).is_some() && session.offset <= upload.descriptor.size;
        Ok(usable.then_some(session))
    }

    async fn arrived(&self, upload: &Upload<'_>) -> bool {
        let digest = upload.descriptor.digest;
        let Transfer { host, reference, action, .. } = &upload.transfer;
        let path = format!("{}/blobs/{digest}", reference.path());
        let call =
            Call::get(path, ScopeSet::push(reference.path()), action.clone()).with_method(Method::HEAD);
        self.send_once(host, &call).await.is_ok_and(|answer| answer.status.is_success())
    }
}

impl Transfer<'_> {
    fn call(&self, method: Method, place: Url) -> Call {
        Call::get("", ScopeSet::push(self.reference.path()), self.action.clone())
            .with_method(method)
            .with_target(place)
    }

    fn piece(&self, offset: u64, length: u64) -> Payload {
        Payload::Piece(Piece { source: self.source.clone(), offset, length, progress: self.progress.clone() })
    }

    fn nonsense(&self, reason: String) -> RegistryError {
        RegistryError::InvalidAnswer {
            action: self.action.clone(),
            host: self.host.key.domain.clone(),
            reason,
        }
    }
}

impl Piece {
    /// Sends `request` with this piece as its body; gives up when nothing moves for `limit`.
    ///
    /// The error is either a fault of the connection or that the content could not be read.
    pub(super) async fn send(
        &self,
        request: reqwest::RequestBuilder,
        limit: Duration,
        action: &str,
    ) -> Result<reqwest::Response, Result<TransportFault, RegistryError>> {
        let moved = Arc::new(AtomicU64::new(0));
        let unreadable = Arc::new(Mutex::new(None));
        let content = self.source.stream(self.offset, self.length).map({
            let (moved, unreadable) = (moved.clone(), unreadable.clone());
            let (progress, offset) = (self.progress.clone(), self.offset);
            move |piece| match piece {
                Ok(piece) => {
                    let sent = moved.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
                    if let Some(progress) = &progress {
                        progress(offset + sent);
                    }
                    Ok(piece)
                }
                Err(error) => {
                    let text = io::Error::new(error.kind(), "the content cannot be read");
                    *unreadable.lock() = Some(error);
                    Err(text)
                }
            }
        });
        let sending = request.body(reqwest::Body::wrap_stream(content)).send();
        tokio::pin!(sending);
        let mut seen = 0;
        loop {
            tokio::select! {
                sent = &mut sending => {
                    if let Some(source) = unreadable.lock().take() {
                        return Err(Err(RegistryError::Source { action: action.to_owned(), source }));
                    }
                    return sent.map_err(|error| Ok(TransportFault::from_reqwest(&error)));
                }
                () = tokio::time::sleep(limit) => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == seen {
                        return Err(Ok(silent(limit)));
                    }
                    seen = now;
                }
            }
        }
    }
}

/// Tells whether an upload that failed so may do better another time.
fn may_pass(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. }
        | RegistryError::Interrupted { .. }
        | RegistryError::TooManyRequests { .. }
        // The registry forgot the session.
        | RegistryError::NotFound { .. } => true,
        RegistryError::ServerError { status, .. } => *status != 501,
        RegistryError::Rejected { status, .. } => matches!(status, 408 | 416),
        _ => false,
    }
}
