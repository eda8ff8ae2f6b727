//! Sending a blob while it is being made, so that little is left to send when it is complete.
//!
//! Its digest is not known before its end, so the registry cannot be asked first whether it has the blob: that is
//! asked at the end, and what was sent is thrown away if it has. What goes wrong before the end is no error
//! either: the blob is then pushed as if nothing had been sent. Small blobs are not begun at all.

use slipway_model::{Descriptor, Reference};
use tokio::sync::watch;

use super::Client;
use super::push::{PushOptions, Pushed};
use super::upload::{PIECE, Session, Transfer, Upload};
use crate::error::RegistryError;
use crate::host::Host;
use crate::scope::ScopeSet;
use crate::source::BlobSource;

/// How much must be there before it is sent.
const WORTH_SENDING: u64 = 16 << 20;

/// Says how far a blob has been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// So many bytes of it can be read.
    Written(u64),
    /// All of it can, and it is this.
    Done(Box<Descriptor>),
}

impl Client {
    /// Puts a blob that is being made into the repository of `reference`.
    ///
    /// `source` must give what `growth` says is there. Returns the blob's digest and size with what became of
    /// it; nothing if `growth` ended without the blob having been completed.
    pub async fn push_growing(
        &self,
        reference: &Reference,
        source: &BlobSource,
        mut growth: watch::Receiver<Growth>,
        options: &PushOptions,
    ) -> Result<Option<(Descriptor, Pushed)>, RegistryError> {
        let host = self.origin(reference);
        let progress = options.progress.clone();
        let action = format!("push a layer to `{}`", reference.without_tag().familiar());
        let mut transfer = Transfer { host: &host, reference, source, progress, action };
        let permit =
            if begins(&mut growth).await { host.transfers.clone().acquire_owned().await.ok() } else { None };
        let session = match permit {
            Some(_) => self.send_ahead(&transfer, &mut growth).await,
            None => None,
        };
        let Some(descriptor) = done(&mut growth).await else {
            if let Some(session) = session {
                self.cancel(&host, reference, session).await;
            }
            return Ok(None);
        };
        let Some(session) = session else {
            drop(permit);
            let pushed = self.push_blob(reference, &descriptor, source, options).await?;
            return Ok(Some((descriptor, pushed)));
        };
        if self.has(&host, reference, &descriptor).await {
            self.cancel(&host, reference, session).await;
            return Ok(Some((descriptor, Pushed::Exists)));
        }
        transfer.action =
            format!("push blob `{}` to `{}`", descriptor.digest, reference.without_tag().familiar());
        let pushed = match self.upload(&Upload { transfer, descriptor: &descriptor }, session).await {
            Ok(()) => Pushed::Uploaded,
            // Perhaps the pieces are to blame.
            Err(RegistryError::Rejected { .. }) => {
                self.push_blob(reference, &descriptor, source, options).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Some((descriptor, pushed)))
    }

    /// Sends pieces until the blob is done or no more comes; nothing if that did not work.
    async fn send_ahead(
        &self,
        transfer: &Transfer<'_>,
        growth: &mut watch::Receiver<Growth>,
    ) -> Option<Session> {
        let mut session = match self.start_upload(transfer.host, transfer.reference, &transfer.action).await {
            Ok(session) => session,
            Err(error) => {
                tracing::debug!(action = transfer.action, %error, "cannot send ahead");
                return None;
            }
        };
        let least = WORTH_SENDING.max(session.smallest_piece);
        loop {
            let written = written(growth, session.offset + least).await;
            let Some(written) = written else { return Some(session) };
            let end = written.min(session.offset + PIECE.max(least));
            if let Err(error) = self.send_piece(transfer, &mut session, end, end).await {
                tracing::debug!(action = transfer.action, %error, "sending ahead broke");
                self.cancel(transfer.host, transfer.reference, session).await;
                return None;
            }
        }
    }

    /// Tells whether the registry has the blob by now; not knowing counts as no.
    async fn has(&self, host: &Host, reference: &Reference, descriptor: &Descriptor) -> bool {
        let scopes = ScopeSet::push(reference.path());
        self.blob_is_there(host, reference, descriptor.digest, scopes).await.unwrap_or(false)
    }
}

/// Waits until there is something to begin with; false if the blob is complete before.
async fn begins(growth: &mut watch::Receiver<Growth>) -> bool {
    written(growth, WORTH_SENDING).await.is_some()
}

/// Waits until so much is there, and returns how much is; nothing if no more comes.
async fn written(growth: &mut watch::Receiver<Growth>, least: u64) -> Option<u64> {
    let enough = |growth: &Growth| match growth {
        Growth::Written(written) => *written >= least,
        Growth::Done(_) => true,
    };
    match &*growth.wait_for(enough).await.ok()? {
        Growth::Written(written) => Some(*written),
        Growth::Done(_) => None,
    }
}

async fn done(growth: &mut watch::Receiver<Growth>) -> Option<Descriptor> {
    match &*growth.wait_for(|growth| matches!(growth, Growth::Done(_))).await.ok()? {
        Growth::Done(descriptor) => Some(descriptor.as_ref().clone()),
        Growth::Written(_) => None,
    }
}
