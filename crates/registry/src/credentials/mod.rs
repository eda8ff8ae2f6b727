//! Who we are to a registry.
//!
//! A [`Credentials`] is asked only once a registry has demanded a login, so that pulls which need none
//! start no helper program and open no key ring.

mod docker;
mod helper;

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use slipway_model::Secret;

pub use docker::DockerCredentials;

/// Is what proves to a registry who we are.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: only what is public is asked for.
    #[default]
    Anonymous,
    /// A name and a password.
    Basic { username: String, password: Secret<String> },
    /// A refresh token, to be exchanged for access tokens (OAuth 2).
    IdentityToken(Secret<String>),
    /// An access token, sent as it is.
    RegistryToken(Secret<String>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic([redacted])",
            Self::IdentityToken(_) => "IdentityToken([redacted])",
            Self::RegistryToken(_) => "RegistryToken([redacted])",
        })
    }
}

/// A token that is wanted of a registry's token server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenDemand {
    /// The address of the server.
    pub realm: String,
    pub service: Option<String>,
    /// What it is to allow, as `repository:a/b:pull`.
    pub scopes: Vec<String>,
}

/// What a token server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    pub value: Secret<String>,
    /// How long it is good for, if that is known.
    pub life: Option<Duration>,
}

/// Finds the credential for a registry.
///
/// 1. `host` is the domain of references: `docker.io` for Docker Hub, with the port where there is one.
/// 2. A host that nothing is known of is [`Credential::Anonymous`], not an error.
/// 3. After an error the client goes on anonymously, and shows the error only if that is refused.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns the credential for `host`.
    async fn get(&self, host: &str) -> Result<Credential, CredentialError>;

    /// Gets a token for `host`, where passwords are somebody else's and are not given away.
    ///
    /// `None` is for those who give them: then [`Credentials::get`] is asked.
    async fn token(
        &self,
        _host: &str,
        _demand: &TokenDemand,
    ) -> Result<Option<AccessToken>, CredentialError> {
        Ok(None)
    }
}

/// Knows no credential.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn get(&self, _host: &str) -> Result<Credential, CredentialError> {
        Ok(Credential::Anonymous)
    }
}

/// Says why a credential could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    // The parser's own text can quote a piece of the file, and so a password.
    #[error("`{path}` is not valid JSON at line {line}")]
    Json { path: PathBuf, line: usize },
    #[error("`{path}` holds a login for `{host}` that cannot be decoded")]
    Encoding { path: PathBuf, host: String },
    #[error("the credential helper `{program}` cannot be started")]
    Start { program: String, source: io::Error },
    #[error("the credential helper `{program}` did not answer within {seconds} s")]
    TimedOut { program: String, seconds: u64 },
    #[error("the credential helper `{program}` failed: {message}")]
    Failed { program: String, message: String },
    #[error("the credential helper `{program}` gave an answer that cannot be read")]
    Answer { program: String },
}
