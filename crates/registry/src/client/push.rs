//! Getting a blob into a repository by the cheapest way: it is there, it is next door, it is sent.

use std::fmt;
use std::sync::Arc;

use http::{Method, StatusCode};
use slipway_model::{Descriptor, Digest, Reference};

use super::call::Call;
use super::upload::{Session, Transfer, Upload};
use super::{Answer, Client};
use crate::error::RegistryError;
use crate::host::Host;
use crate::scope::ScopeSet;
use crate::source::BlobSource;

/// How many repositories are tried as the source of a mount; each costs a request.
const MOST_MOUNTS: usize = 3;

/// Is told how much of a blob has been sent; a repeated part counts once, so the number can fall.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Says what is known of a blob to be pushed.
#[derive(Clone, Default)]
pub struct PushOptions {
    /// Repositories that have the blob; those of other registries are passed over.
    pub mount_from: Vec<Reference>,
    /// Whether the blob is known not to be there, which saves asking.
    pub known_missing: bool,
    /// Who is told of progress.
    pub progress: Option<Progress>,
}

impl fmt::Debug for PushOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("mount_from", &self.mount_from)
            .field("known_missing", &self.known_missing)
            .finish_non_exhaustive()
    }
}

/// Says how a blob came to be in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry linked it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// Says what became of the request for a mount or an upload.
enum Begun {
    Mounted,
    Session(Session),
}

impl Client {
    /// Tells whether the repository of `reference` has the blob.
    pub async fn blob_exists(&self, reference: &Reference, digest: Digest) -> Result<bool, RegistryError> {
        self.blob_is_there(&self.origin(reference), reference, digest, ScopeSet::pull(reference.path())).await
    }

    /// Returns the size of a blob; `None` if the repository of `reference` does not have it, or does not say.
    pub async fn blob_size(
        &self,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let scopes = ScopeSet::pull(reference.path());
        let found = self.look_for_blob(&self.origin(reference), reference, digest, scopes).await?;
        Ok(found.and_then(|answer| answer.length()))
    }

    /// Puts the blob that `descriptor` describes into the repository of `reference`.
    ///
    /// What `source` gives is checked by the registry against the descriptor's digest.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &BlobSource,
        options: &PushOptions,
    ) -> Result<Pushed, RegistryError> {
        let host = self.origin(reference);
        let scopes = ScopeSet::push(reference.path());
        if !options.known_missing {
            match self.blob_is_there(&host, reference, descriptor.digest, scopes.clone()).await {
                Ok(true) => return Ok(Pushed::Exists),
                Ok(false) => {}
                // Some storages sign their redirects for GET only; whether we may push shows in a moment.
                Err(RegistryError::Denied { .. } | RegistryError::Rejected { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let _permit = host.transfers.clone().acquire_owned().await.ok();
        let session = match self.begin(&host, reference, descriptor.digest, options).await? {
            Begun::Mounted => return Ok(Pushed::Mounted),
            Begun::Session(session) => session,
        };
        let action = format!("push blob `{}` to `{}`", descriptor.digest, reference.without_tag().familiar());
        let progress = options.progress.clone();
        let transfer = Transfer { host: &host, reference, source, progress, action };
        let upload = Upload { transfer, descriptor };
        self.upload(&upload, session).await?;
        Ok(Pushed::Uploaded)
    }

    /// Checks that blobs may be pushed to the repository of `reference`, and leaves nothing there.
    pub async fn check_push(&self, reference: &Reference) -> Result<(), RegistryError> {
        let host = self.origin(reference);
        let action = format!("push to `{}`", reference.without_tag().familiar());
        let session = self.start_upload(&host, reference, &action).await?;
        self.cancel(&host, reference, session).await;
        Ok(())
    }

    /// Puts a blob of `from`'s repository into that of `to`, through us only if it must.
    pub async fn copy_blob(
        &self,
        from: &Reference,
        to: &Reference,
        descriptor: &Descriptor,
        options: &PushOptions,
    ) -> Result<Pushed, RegistryError> {
        let (client, repository, wanted) = (self.clone(), from.clone(), descriptor.clone());
        let source = BlobSource::Open(Arc::new(move |offset| {
            let stream = client.blob(&repository, &wanted, offset).permitted();
            Box::pin(async move { Ok(stream.into_io()) })
        }));
        let mut options = options.clone();
        options.mount_from.insert(0, from.clone());
        self.push_blob(to, descriptor, &source, &options).await
    }

    pub(super) async fn blob_is_there(
        &self,
        host: &Host,
        reference: &Reference,
        digest: Digest,
        scopes: ScopeSet,
    ) -> Result<bool, RegistryError> {
        self.look_for_blob(host, reference, digest, scopes).await.map(|found| found.is_some())
    }

    /// Returns what the registry says of a blob that it has.
    async fn look_for_blob(
        &self,
        host: &Host,
        reference: &Reference,
        digest: Digest,
        scopes: ScopeSet,
    ) -> Result<Option<Answer>, RegistryError> {
        let action = format!("look for blob `{digest}` in `{}`", reference.without_tag().familiar());
        let path = format!("{}/blobs/{digest}", reference.path());
        let call = Call::get(path, scopes, action).with_method(Method::HEAD);
        let answer = self.send(host, &call).await?;
        match answer.status {
            status if status.is_success() => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.into_error(host, &call.action)),
        }
    }

    /// Asks for a mount from one repository after the other; the last refusal is an upload session.
    async fn begin(
        &self,
        host: &Host,
        reference: &Reference,
        digest: Digest,
        options: &PushOptions,
    ) -> Result<Begun, RegistryError> {
        let action = format!("push blob `{digest}` to `{}`", reference.without_tag().familiar());
        let usable =
            |from: &&Reference| from.domain() == reference.domain() && from.path() != reference.path();
        let mut session = None;
        for from in options.mount_from.iter().filter(usable).take(MOST_MOUNTS) {
            if let Some(session) = session.take() {
                self.cancel(host, reference, session).await;
            }
            match self.mount(host, reference, digest, from).await {
                Ok(Begun::Mounted) => return Ok(Begun::Mounted),
                Ok(Begun::Session(begun)) => session = Some(begun),
                // Not being allowed to read the other repository is no reason not to write to this one.
                Err(error) => tracing::debug!(from = from.path(), %error, "the mount was refused"),
            }
        }
        match session {
            Some(session) => Ok(Begun::Session(session)),
            None => self.start_upload(host, reference, &action).await.map(Begun::Session),
        }
    }

    async fn mount(
        &self,
        host: &Host,
        reference: &Reference,
        digest: Digest,
        from: &Reference,
    ) -> Result<Begun, RegistryError> {
        let action = format!("mount blob `{digest}` from `{}`", from.without_tag().familiar());
        let mut scopes = ScopeSet::push(reference.path());
        scopes.merge(&ScopeSet::pull(from.path()));
        let path = format!("{}/blobs/uploads/?mount={digest}&from={}", reference.path(), from.path());
        let call = Call::get(path, scopes, action).with_method(Method::POST);
        let answer = self.send(host, &call).await?;
        if answer.status == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        self.session(host, &call.action, answer).map(Begun::Session)
    }

    pub(super) async fn start_upload(
        &self,
        host: &Host,
        reference: &Reference,
        action: &str,
    ) -> Result<Session, RegistryError> {
        let path = format!("{}/blobs/uploads/", reference.path());
        let call = Call::get(path, ScopeSet::push(reference.path()), action).with_method(Method::POST);
        let answer = self.send(host, &call).await?;
        self.session(host, action, answer)
    }

    fn session(&self, host: &Host, action: &str, answer: Answer) -> Result<Session, RegistryError> {
        if answer.status != StatusCode::ACCEPTED {
            return Err(answer.into_error(host, action));
        }
        Session::begin(&answer).ok_or_else(|| RegistryError::InvalidAnswer {
            action: action.to_owned(),
            host: host.key.domain.clone(),
            reason: "it names no place for the upload".to_owned(),
        })
    }

    /// Gives an upload session back; the registry drops forgotten ones by itself, so failing is harmless.
    pub(super) async fn cancel(&self, host: &Host, reference: &Reference, session: Session) {
        let call = Call::get("", ScopeSet::push(reference.path()), "cancel the upload")
            .with_method(Method::DELETE)
            .with_target(session.place);
        let _ = self.send_once(host, &call).await;
    }
}
