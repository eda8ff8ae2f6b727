//! Logins to registries that the client has: tokens, from clients that get them themselves, or else passwords.
//!
//! A client names a key for each registry, by which a daemon can tell that two sessions have the same login and
//! share tokens. Here tokens belong to one build, and the key only tells that the client gets tokens.

use std::time::Duration;

use async_trait::async_trait;
use slipway_engine::registry::{AccessToken, Credential, CredentialError, Credentials, TokenDemand};
use slipway_model::Secret;
use tonic::Code;

use super::{BuildSession, HUB};
use crate::wire::auth::auth_client::AuthClient;
use crate::wire::auth::{CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest};

/// How long a client may take for a token.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the client of a build.
pub(super) struct SessionCredentials {
    session: BuildSession,
    /// Makes the client's keys useless for any other daemon.
    salt: Vec<u8>,
}

impl SessionCredentials {
    pub(super) fn new(session: BuildSession) -> Self {
        Self { session, salt: crate::worker::new_id().into_bytes() }
    }
}

fn problem(message: impl Into<String>) -> CredentialError {
    CredentialError::Failed { program: "session".to_owned(), message: message.into() }
}

/// Clients know Docker Hub by the name of the machine that serves it.
fn known_as(host: &str) -> String {
    if host == "docker.io" { HUB.to_owned() } else { host.to_owned() }
}

#[async_trait]
impl Credentials for SessionCredentials {
    async fn get(&self, host: &str) -> Result<Credential, CredentialError> {
        let client = self.session.client().await.map_err(|error| problem(error.to_string()))?;
        let request = CredentialsRequest { host: known_as(host) };
        let answer = match client.call(AuthClient::new(client.channel()).credentials(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => return Ok(Credential::Anonymous),
            Err(status) => return Err(problem(status.message())),
        };
        Ok(match (answer.username.is_empty(), answer.secret.is_empty()) {
            (_, true) => Credential::Anonymous,
            (true, false) => Credential::IdentityToken(Secret::new(answer.secret)),
            (false, false) => {
                Credential::Basic { username: answer.username, password: Secret::new(answer.secret) }
            }
        })
    }

    async fn token(&self, host: &str, demand: &TokenDemand) -> Result<Option<AccessToken>, CredentialError> {
        let client = self.session.client().await.map_err(|error| problem(error.to_string()))?;
        if !client.supports("/moby.filesync.v1.Auth/FetchToken") {
            return Ok(None);
        }
        let host = known_as(host);
        let question = GetTokenAuthorityRequest { host: host.clone(), salt: self.salt.clone() };
        let mut auth = AuthClient::new(client.channel());
        match client.call(auth.get_token_authority(question)).await {
            Ok(_) => {}
            // The second one is of clients who give passwords instead.
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::Unavailable) => {
                return Ok(None);
            }
            Err(status) => return Err(problem(status.message())),
        }
        let request = FetchTokenRequest {
            client_id: "slipway".to_owned(),
            host,
            realm: demand.realm.clone(),
            service: demand.service.clone().unwrap_or_default(),
            scopes: demand.scopes.clone(),
        };
        let fetched = tokio::time::timeout(PATIENCE, client.call(auth.fetch_token(request))).await;
        let answer = match fetched {
            Ok(answer) => answer.map_err(|status| problem(status.message()))?.into_inner(),
            Err(_) => return Err(problem(format!("no token within {} s", PATIENCE.as_secs()))),
        };
        let life = u64::try_from(answer.expires_in).ok().map(Duration::from_secs);
        Ok(Some(AccessToken { value: Secret::new(answer.token), life }))
    }
}
