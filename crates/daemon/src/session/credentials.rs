//! Logins to registries that the client has.

use async_trait::async_trait;
use slipway_engine::registry::{Credential, CredentialError, Credentials};
use slipway_model::Secret;
use tonic::Code;

use super::BuildSession;
use crate::wire::auth::CredentialsRequest;
use crate::wire::auth::auth_client::AuthClient;

/// Asks the client of a build.
pub(super) struct SessionCredentials {
    session: BuildSession,
}

impl SessionCredentials {
    pub(super) fn new(session: BuildSession) -> Self {
        Self { session }
    }
}

#[async_trait]
impl Credentials for SessionCredentials {
    async fn get(&self, host: &str) -> Result<Credential, CredentialError> {
        let problem = |message: String| CredentialError::Failed { program: "session".to_owned(), message };
        let client = self.session.client().await.map_err(|error| problem(error.to_string()))?;
        // Clients know Docker Hub by the name of the machine that serves it.
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let request = CredentialsRequest { host: host.to_owned() };
        let answer = match client.call(AuthClient::new(client.channel()).credentials(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => return Ok(Credential::Anonymous),
            Err(status) => return Err(problem(status.message().to_owned())),
        };
        Ok(match (answer.username.is_empty(), answer.secret.is_empty()) {
            (_, true) => Credential::Anonymous,
            (true, false) => Credential::IdentityToken(Secret::new(answer.secret)),
            (false, false) => {
                Credential::Basic { username: answer.username, password: Secret::new(answer.secret) }
            }
        })
    }
}
