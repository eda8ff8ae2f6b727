//! An answer of a registry, and what it means when it is not the wanted one.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use reqwest::Url;
use slipway_model::Digest;

use crate::error::{Missing, RegistryError};
use crate::host::{Host, Role, authority};
use crate::{message, retry};

/// Is an answer whose body was read, or (if good and asked so) still is to be read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Where it came from, after redirects.
    pub(crate) url: Url,
    pub(crate) body: Bytes,
    pub(crate) stream: Option<reqwest::Response>,
}

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

impl Answer {
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Tells whether the answer is a refusal with this code.
    pub(crate) fn says(&self, code: &str) -> bool {
        self.status.is_client_error() && message::parse(&self.body, &[]).code.as_deref() == Some(code)
    }

    /// Returns the digest that the registry claims for the content.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.header(CONTENT_DIGEST)?.trim().parse().ok()
    }

    /// Returns the size that the registry claims for the content.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// Returns the media type without its parameters.
    pub(crate) fn media_type(&self) -> Option<&str> {
        let text = self.header(header::CONTENT_TYPE)?;
        let media_type = text.split(';').next().unwrap_or(text).trim();
        (!media_type.is_empty()).then_some(media_type)
    }

    /// Returns the place that the registry names, made absolute.
    pub(crate) fn location(&self) -> Option<Url> {
        self.url.join(self.header(header::LOCATION)?).ok()
    }

    /// Makes an error of an answer that is not the wanted one.
    pub(crate) fn into_error(self, host: &Host, action: &str) -> RegistryError {
        let secrets = host.auth.secrets();
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let text = message::parse(&self.body, &secrets);
        let (code, mut message) = (text.code, text.message);
        let action = action.to_owned();
        // The name people know the registry by, unless a redirect led elsewhere.
        let host_name = match host.adopt(self.url.clone()) {
            Some(_) => host.key.domain.clone(),
            None => authority(&self.url),
        };
        if host.role() == Role::Mirror
            && let Some(domain) = &host.key.mirror_of
        {
            message = Some(format!("{} (mirror of `{domain}`)", message.unwrap_or_default()));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                RegistryError::Unauthorized { action, host: host_name, message, problem: host.auth.problem() }
            }
            StatusCode::FORBIDDEN => RegistryError::Denied { action, host: host_name, message },
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                action,
                host: host_name,
                missing: missing(code.as_deref()),
                message: message.filter(|_| code.is_none()),
            },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests {
                action,
                host: host_name,
                retry_after: retry::retry_after(&self.headers),
                message,
            },
            status if status.is_server_error() => {
                RegistryError::ServerError { action, host: host_name, status: status.as_u16(), message }
            }
            status if status.is_client_error() => {
                RegistryError::Rejected { action, host: host_name, status: status.as_u16(), code, message }
            }
            status => RegistryError::InvalidAnswer {
                action,
                host: host_name,
                reason: format!("unexpected status {}", status.as_u16()),
            },
        }
    }
}

fn missing(code: Option<&str>) -> Missing {
    match code {
        Some("NAME_UNKNOWN" | "NAME_INVALID" | "PROJECT_UNKNOWN") => Missing::Repository,
        Some("MANIFEST_UNKNOWN" | "TAG_INVALID") => Missing::Manifest,
        Some("BLOB_UNKNOWN") => Missing::Blob,
        _ => Missing::Unknown,
    }
}
