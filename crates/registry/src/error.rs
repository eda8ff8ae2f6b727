//! What can go wrong between us and a registry, by who can mend it.
//!
//! No variant holds a credential: texts that come from a registry pass [`crate::message`] first, and
//! URLs are reduced to scheme and host.

use std::io;
use std::time::Duration;

use slipway_model::{Digest, ErrorKind, Hint};

use crate::config::ConfigError;
use crate::fault::{FaultKind, TransportFault};

/// Says what a registry does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No repository of that name is there, or none that we may see.
    Repository,
    /// The repository is there, the tag or the manifest is not.
    Manifest,
    /// A blob is not there.
    Blob,
    /// The registry did not say which.
    Unknown,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Repository => "the repository does not exist",
            Self::Manifest => "the tag or manifest does not exist",
            Self::Blob => "the blob does not exist",
            Self::Unknown => "not found",
        })
    }
}

/// Says why a request to a registry had no good end.
///
/// `action` is what was being done and to what: "resolve `reg.example/app:1`".
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot {action}: `{origin}` does not answer")]
    Unreachable { action: String, origin: String, source: TransportFault },
    #[error("cannot {action}: the connection to `{origin}` broke")]
    Interrupted { action: String, origin: String, source: TransportFault },
    #[error("cannot {action}: no trusted connection to `{host}`")]
    Tls { action: String, host: String, source: TransportFault },
    #[error("cannot {action}: `{host}` wants a login{}", detail(message))]
    Unauthorized { action: String, host: String, message: Option<String>, problem: Option<String> },
    #[error("cannot {action}: `{host}` denies access{}", detail(message))]
    Denied { action: String, host: String, message: Option<String> },
    #[error("cannot {action}: {missing}{}", detail(message))]
    NotFound { action: String, host: String, missing: Missing, message: Option<String> },
    #[error("cannot {action}: `{host}` limits the rate of requests{}", detail(message))]
    TooManyRequests { action: String, host: String, retry_after: Option<Duration>, message: Option<String> },
    #[error("cannot {action}: `{host}` failed with status {status}{}", detail(message))]
    ServerError { action: String, host: String, status: u16, message: Option<String> },
    #[error("cannot {action}: `{host}` refused with status {status}{}", detail(message))]
    Rejected { action: String, host: String, status: u16, code: Option<String>, message: Option<String> },
    #[error("cannot {action}: `{host}` gave an answer that makes no sense: {reason}")]
    InvalidAnswer { action: String, host: String, reason: String },
    #[error("cannot {action}: content has digest `{actual}` instead of `{expected}`")]
    DigestMismatch { action: String, expected: Digest, actual: Digest },
    #[error("cannot {action}: content has {actual} bytes instead of {expected}")]
    SizeMismatch { action: String, expected: u64, actual: u64 },
    #[error("cannot {action}: content ends after {received} of {expected} bytes")]
    Truncated { action: String, expected: u64, received: u64 },
    #[error("cannot {action}: invalid manifest: {reason}")]
    InvalidManifest { action: String, reason: String },
    #[error("cannot {action}: content is larger than the limit of {limit} bytes")]
    TooLarge { action: String, limit: u64 },
    #[error("cannot {action}: reading the content failed")]
    Source { action: String, source: io::Error },
    #[error("cannot {action}: the reference has neither a tag nor a digest")]
    Unpinned { action: String },
    #[error("cannot set up the connection to `{host}`")]
    Config { host: String, source: ConfigError },
}

fn detail(message: &Option<String>) -> String {
    message.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
}

impl RegistryError {
    /// Says who can mend the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Unauthorized { .. } | Self::Denied { .. } | Self::Config { .. } => {
                ErrorKind::User
            }
            Self::Unpinned { .. } => ErrorKind::Internal,
            _ => ErrorKind::Environment,
        }
    }

    /// Names what mends the error, where something is known to.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Unreachable { origin, source, .. } => Some(hint_unreachable(origin, source)),
            Self::Interrupted { origin, source, .. } if source.kind() == FaultKind::NotHttp => {
                Some(format!("is `{origin}` the address of a registry?"))
            }
            Self::Tls { host, source, .. } => hint_tls(host, source),
            Self::Unauthorized { host, problem: Some(problem), .. } => {
                Some(format!("{problem}; mend it or run `docker login {host}`"))
            }
            Self::Unauthorized { host, .. } => {
                Some(format!("run `docker login {host}`, and check that the repository exists"))
            }
            Self::Denied { host, .. } => {
                Some(format!("the account that is logged in to `{host}` lacks the permission for this"))
            }
            Self::NotFound { missing: Missing::Repository, .. } => {
                Some("check the spelling of the name; for a private repository, `docker login` first".into())
            }
            Self::NotFound { missing: Missing::Manifest, .. } => Some("check the tag".into()),
            Self::TooManyRequests { host, retry_after: Some(after), .. } if after.as_secs() > 0 => Some(format!(
                "try again in {} s, log in with `docker login {host}` for a higher limit, or set up a mirror",
                after.as_secs()
            )),
            Self::TooManyRequests { host, .. } => {
                Some(format!("try again later, log in with `docker login {host}` for a higher limit, or set up a mirror"))
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::Truncated { .. } => Some(
                "the registry, or a proxy before it, gives altered content; try again or another mirror"
                    .into(),
            ),
            Self::InvalidManifest { reason, .. } if reason.contains("schema version 1") => {
                Some("push the image anew with a current builder".into())
            }
            Self::InvalidManifest { .. } => Some(
                "is this the address of a registry? a proxy or a login page before it may have answered instead"
                    .into(),
            ),
            _ => None,
        }
    }

    /// Tells whether the registry said that the content is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

fn hint_unreachable(origin: &str, fault: &TransportFault) -> Hint {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    match fault.kind() {
        FaultKind::UnknownHost => format!("check the spelling of `{host}` and the name server"),
        _ if origin.starts_with("https:") => format!(
            "is the registry running? for plain http add `http = true` under `[registry.\"{host}\"]` in buildkitd.toml"
        ),
        _ => format!("is the registry running? nothing answers http at `{host}`"),
    }
}

fn hint_tls(host: &str, fault: &TransportFault) -> Option<Hint> {
    match fault.kind() {
        FaultKind::UntrustedCertificate => Some(format!(
            "put the authority's certificate at `/etc/docker/certs.d/{host}/ca.crt`, or name it as `ca` under \
             `[registry.\"{host}\"]` in buildkitd.toml"
        )),
        FaultKind::NotTls => Some(format!(
            "the registry speaks plain http: add `http = true` under `[registry.\"{host}\"]` in buildkitd.toml, or \
             `{host}` to `insecure-registries` in daemon.json"
        )),
        _ => None,
    }
}
