//! The engine's view of a client's session.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use slipway_engine::registry::Credentials;
use slipway_engine::session::{
    AgentOffer, AgentStream, ContentReader, ExporterId, LocalDirectory, LocalRequest, MirrorDirectory,
    OutputStream, OutputTree, Session, SharedDirectories,
};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, Secret};
use tonic::Code;

use super::credentials::SessionCredentials;
use super::{ClientSession, MAX_MESSAGE, Sessions, failed};
use crate::wire::secrets::GetSecretRequest;
use crate::wire::secrets::secrets_client::SecretsClient;

/// What one build has of its client: the session it named when it began.
#[derive(Clone, Debug)]
pub(crate) struct BuildSession {
    sessions: Sessions,
    id: String,
}

impl BuildSession {
    /// Names a session; one that does not come is missed only when it is needed.
    pub(crate) fn new(sessions: Sessions, id: impl Into<String>) -> Self {
        Self { sessions, id: id.into() }
    }

    /// Finds the client.
    pub(crate) async fn client(&self) -> Result<Arc<ClientSession>, Diagnostic> {
        if self.id.is_empty() {
            return Err(Diagnostic::new(ErrorKind::User, "the build has no session"));
        }
        self.sessions.get(&self.id).await
    }

    /// Finds who has the directories of a session; for one that nobody knows the build's own stands, as
    /// in the reference.
    async fn with_directories(&self, id: &str) -> Result<Arc<ClientSession>, Diagnostic> {
        if id.is_empty() || id == self.id {
            return self.client().await;
        }
        match self.sessions.get(id).await {
            Ok(found) => Ok(found),
            // It was there: what this build has by the same name is something else.
            Err(gone) if self.sessions.directories(id).is_some() => Err(gone),
            Err(gone) => self.client().await.map_err(|_| gone),
        }
    }
}

#[async_trait]
impl Session for BuildSession {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn directories(&self, session: &str) -> Result<Arc<SharedDirectories>, Diagnostic> {
        match self.sessions.directories(session) {
            Some(known) => Ok(known),
            None => Ok(self.with_directories(session).await?.directories.clone()),
        }
    }

    async fn local(
        &self,
        request: &LocalRequest,
        mirror: &MirrorDirectory,
    ) -> Result<LocalDirectory, Diagnostic> {
        let client = self.with_directories(&request.session).await?;
        let path = mirror.path().await?.to_owned();
        super::files::fetch(&client, request, &path, mirror).await?;
        Ok(LocalDirectory { path, filtered: true })
    }

    async fn secret(&self, id: &str) -> Result<Option<Secret<Vec<u8>>>, Diagnostic> {
        let client = self.client().await?;
        let mut secrets = SecretsClient::new(client.channel()).max_decoding_message_size(MAX_MESSAGE);
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        match client.call(secrets.get_secret(request)).await {
            Ok(answer) => Ok(Some(Secret::new(answer.into_inner().data))),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
            Err(status) => Err(failed(format!("cannot get the secret `{id}` from the client"), &status)),
        }
    }

    async fn has_ssh(&self, id: &str) -> Result<AgentOffer, Diagnostic> {
        super::agent::check(&*self.client().await?, id).await
    }

    async fn ssh(&self, id: &str) -> Result<Box<dyn AgentStream>, Diagnostic> {
        super::agent::connect(&*self.client().await?, id)
    }

    fn credentials(&self) -> Option<Arc<dyn Credentials>> {
        (!self.id.is_empty()).then(|| Arc::new(SessionCredentials::new(self.clone())) as Arc<dyn Credentials>)
    }

    async fn content(&self, store: &str, digest: &Digest) -> Result<ContentReader, Diagnostic> {
        super::content::read(self.client().await?, store, digest).await
    }

    async fn has_content(&self, store: &str, digest: &Digest) -> Result<bool, Diagnostic> {
        super::content::has(&*self.client().await?, store, digest).await
    }

    async fn put_content(
        &self,
        store: &str,
        descriptor: &Descriptor,
        content: ContentReader,
    ) -> Result<(), Diagnostic> {
        super::content::write(&*self.client().await?, store, descriptor, content).await
    }

    async fn upload(&self, path: &str) -> Result<ContentReader, Diagnostic> {
        super::content::upload(self.client().await?, path).await
    }

    async fn file(
        &self,
        exporter: &ExporterId,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Box<dyn OutputStream>, Diagnostic> {
        super::output::open(self.client().await?, exporter, metadata)
    }

    async fn files(&self, exporter: &ExporterId, trees: Vec<OutputTree>) -> Result<(), Diagnostic> {
        super::files::give(&*self.client().await?, exporter, trees).await
    }
}
