//! Logins to registries: a daemon that a registry asks for one may ask for it here.
//!
//! Names and passwords are handed on; tokens are fetched by the daemon with them.

use std::sync::Arc;

use slipway_engine::registry::Credential;
use tonic::{Request, Response, Status};

use super::Offer;
use crate::wire::auth::auth_server::Auth;
use crate::wire::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};

/// The name by which daemons ask for Docker Hub.
const HUB: &str = "registry-1.docker.io";

pub(super) struct Logins(pub(super) Arc<Offer>);

#[tonic::async_trait]
impl Auth for Logins {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let Some(credentials) = &self.0.credentials else {
            return Ok(Response::new(CredentialsResponse::default()));
        };
        let host = match request.get_ref().host.as_str() {
            HUB => "docker.io",
            host => host,
        };
        let found = credentials.get(host).await.map_err(|error| Status::unknown(error.to_string()))?;
        Ok(Response::new(match found {
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
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unavailable("client side tokens disabled"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unavailable("client side tokens disabled"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unavailable("client side tokens disabled"))
    }
}
