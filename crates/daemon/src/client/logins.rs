//! Logins to registries: a daemon that a registry asks for a token or a password may ask for it here.
//!
//! Tokens are fetched on this side, so that passwords stay here. A registry that takes nothing but the password
//! itself gets it by way of the daemon. The key that is made for each registry shows a daemon that two clients have
//! the same login without telling it; a daemon that shares tokens between builds asks for it.

use std::sync::Arc;

use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use slipway_engine::Engine;
use slipway_engine::registry::{Client, Credential, DockerCredentials, TokenDemand};
use slipway_model::{Diagnostic, ErrorKind};
use tonic::{Request, Response, Status};

use super::Offer;
use super::seeds::Seeds;
use crate::session::HUB;
use crate::wire::auth::auth_server::Auth;
use crate::wire::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};

/// How long a token is good for that does not tell.
const DEFAULT_LIFE: i64 = 60;

/// Makes the daemon ask for passwords instead of tokens, as where only it can reach the registry; BuildKit's name.
const NO_TOKEN: &str = "BUILDKIT_NO_CLIENT_TOKEN";

/// Offers the logins of whoever runs this process.
pub(super) fn offered(engine: &Engine) -> Offer {
    let variable = |name: &str| std::env::var_os(name);
    let is_true = |name: &str| {
        variable(name)
            .is_some_and(|value| matches!(value.to_str(), Some("1" | "t" | "T" | "true" | "TRUE" | "True")))
    };
    Offer {
        credentials: Some(Arc::new(DockerCredentials::usual(variable))),
        registries: (!is_true(NO_TOKEN)).then(|| engine.registries().clone()),
        seeds: DockerCredentials::directory(variable),
        ..Offer::default()
    }
}

pub(super) struct Logins {
    offer: Arc<Offer>,
    seeds: Seeds,
}

impl Logins {
    pub(super) fn new(offer: Arc<Offer>) -> Self {
        let seeds = Seeds::new(offer.seeds.clone());
        Self { offer, seeds }
    }

    async fn credential(&self, host: &str) -> Result<Credential, Status> {
        match &self.offer.credentials {
            Some(credentials) => {
                credentials.get(domain(host)).await.map_err(|error| Status::unknown(error.to_string()))
            }
            None => Ok(Credential::Anonymous),
        }
    }

    /// Returns what fetches tokens; an error if that is not wanted.
    fn registries(&self) -> Result<&Client, Status> {
        self.offer.registries.as_ref().ok_or_else(|| Status::unavailable("client side tokens disabled"))
    }

    /// Makes the key for a registry: nobody else's with the same login, and the same for all who have none.
    async fn key(&self, host: &str, salt: &[u8]) -> Result<Ed25519KeyPair, Status> {
        self.registries()?;
        let seed = match self.credential(host).await? {
            Credential::Anonymous => Vec::new(),
            _ => self.seeds.get(host),
        };
        let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), &seed);
        Ed25519KeyPair::from_seed_unchecked(code.as_ref()).map_err(|_| Status::internal("cannot make a key"))
    }
}

/// Returns the name by which references know a registry.
fn domain(host: &str) -> &str {
    if host == HUB { "docker.io" } else { host }
}

#[tonic::async_trait]
impl Auth for Logins {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        Ok(Response::new(match self.credential(&request.get_ref().host).await? {
            Credential::Basic { username, password } => {
                CredentialsResponse { username, secret: password.expose().clone() }
            }
            Credential::IdentityToken(token) => {
                CredentialsResponse { username: String::new(), secret: token.expose().clone() }
            }
            Credential::Anonymous | Credential::RegistryToken(_) => CredentialsResponse::default(),
        }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let request = request.into_inner();
        let demand = TokenDemand {
            realm: request.realm,
            service: Some(request.service).filter(|service| !service.is_empty()),
            scopes: request.scopes,
        };
        let fetched = self.registries()?.access_token(domain(&request.host), demand).await;
        let told = |error| Status::unknown(Diagnostic::from_error(ErrorKind::User, &error).to_string());
        let token = fetched.map_err(told)?;
        let life = token.life.and_then(|life| i64::try_from(life.as_secs()).ok()).filter(|life| *life > 0);
        Ok(Response::new(FetchTokenResponse {
            token: token.value.expose().clone(),
            expires_in: life.unwrap_or(DEFAULT_LIFE),
            issued_at: 0,
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let request = request.get_ref();
        let key = self.key(&request.host, &request.salt).await?;
        Ok(Response::new(GetTokenAuthorityResponse { public_key: key.public_key().as_ref().to_vec() }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let request = request.get_ref();
        let key = self.key(&request.host, &request.salt).await?;
        let mut signed = key.sign(&request.payload).as_ref().to_vec();
        signed.extend_from_slice(&request.payload);
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use ring::signature::{ED25519, UnparsedPublicKey};
    use slipway_engine::registry::{Anonymous, ClientOptions, CredentialError, Credentials};
    use slipway_model::Secret;

    use super::*;

    struct Password;

    #[async_trait]
    impl Credentials for Password {
        async fn get(&self, _: &str) -> Result<Credential, CredentialError> {
            Ok(Credential::Basic { username: "me".into(), password: Secret::new("word".into()) })
        }
    }

    fn logins(credentials: Arc<dyn Credentials>) -> Logins {
        let registries = Some(Client::new(ClientOptions::default()));
        Logins::new(Arc::new(Offer { credentials: Some(credentials), registries, ..Offer::default() }))
    }

    async fn key(logins: &Logins, host: &str, salt: &[u8]) -> Vec<u8> {
        let request = GetTokenAuthorityRequest { host: host.to_owned(), salt: salt.to_vec() };
        logins.get_token_authority(Request::new(request)).await.unwrap().into_inner().public_key
    }

    #[tokio::test]
    async fn who_has_a_login_can_show_it_and_nobody_else() {
        let (mine, theirs) = (logins(Arc::new(Password)), logins(Arc::new(Password)));
        let public = key(&mine, "a", b"salt").await;
        assert_eq!(public, key(&mine, "a", b"salt").await);
        for other in [
            key(&mine, "b", b"salt").await,
            key(&mine, "a", b"pepper").await,
            key(&theirs, "a", b"salt").await,
        ] {
            assert_ne!(public, other);
        }
        let nobody = || logins(Arc::new(Anonymous));
        assert_eq!(key(&nobody(), "a", b"salt").await, key(&nobody(), "b", b"salt").await);

        let request = VerifyTokenAuthorityRequest {
            host: "a".into(),
            payload: b"question".to_vec(),
            salt: b"salt".to_vec(),
        };
        let signed = mine.verify_token_authority(Request::new(request)).await.unwrap().into_inner().signed;
        let (signature, payload) = signed.split_at(64);
        assert_eq!(payload, b"question");
        UnparsedPublicKey::new(&ED25519, &public).verify(payload, signature).unwrap();
    }

    #[tokio::test]
    async fn a_daemon_hears_when_it_has_to_ask_for_the_password() {
        let offer = Offer { credentials: Some(Arc::new(Password)), ..Offer::default() };
        let logins = Logins::new(Arc::new(offer));
        let refused = logins.get_token_authority(Request::new(Default::default())).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        let given = logins.credentials(Request::new(Default::default())).await.unwrap().into_inner();
        assert_eq!((given.username.as_str(), given.secret.as_str()), ("me", "word"));
    }
}
