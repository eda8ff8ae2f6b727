//! One request and its answer: the choice of the scheme, redirects, limits on silence.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Url;

use super::{Answer, Call, Client, Keep, Payload, Target};
use crate::config::{Security, has_port, is_loopback};
use crate::error::RegistryError;
use crate::fault::{FaultKind, TransportFault};
use crate::host::{Host, authority, origin};
use crate::transport::Bulk;

/// How long a peer may be silent before it counts as gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// How long a registry may think about a change: it may copy what was sent to its own storage.
const THOUGHT: Duration = Duration::from_secs(300);
const MOST_REDIRECTS: usize = 10;
/// How much of an error's body is looked at.
const ERROR_LIMIT: u64 = 64 << 10;

/// Says why there is no answer.
pub(super) enum Failure {
    /// The exchange broke; trying again may help.
    Fault { origin: String, fault: TransportFault },
    /// Nothing can help.
    Fatal(RegistryError),
}

impl Client {
    /// Sends `call` to `host` by the first scheme that works.
    pub(super) async fn exchange(
        &self,
        host: &Host,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let path = match &call.target {
            Target::Path(path) => path,
            Target::Url(url) => {
                let url = host.adopt(url.clone()).unwrap_or_else(|| url.clone());
                return self.follow(host, call, url, authorization).await;
            }
        };
        let candidates = host.candidates();
        let mut first_result = None;
        for (index, &security) in candidates.iter().enumerate() {
            let is_last = index + 1 == candidates.len();
            let url = host.url(security, path).ok_or_else(|| {
                Failure::Fatal(RegistryError::InvalidAnswer {
                    action: call.action.clone(),
                    host: host.authority.clone(),
                    reason: "the address makes no URL".to_owned(),
                })
            })?;
            let result = self.follow_from(host, call, url, security, authorization).await;
            let open = candidates.len() > 1;
            match result {
                Ok(answer) if open && security == Security::Plain && wants_tls(call, &answer) => {
                    first_result.get_or_insert(Ok(answer));
                }
                Ok(answer) => {
                    host.decide(security);
                    return Ok(answer);
                }
                Err(Failure::Fault { origin, fault }) if open && wrong_scheme(&fault, &host.authority) => {
                    first_result.get_or_insert(Err(Failure::Fault { origin, fault }));
                }
                Err(failure) => return Err(failure),
            }
            if is_last {
                break;
            }
        }
        // Every way failed: the first one is the one that was meant.
        first_result.unwrap_or_else(|| {
            Err(Failure::Fault {
                origin: host.authority.clone(),
                fault: TransportFault::new(FaultKind::Refused, "no way to connect"),
            })
        })
    }

    async fn follow(
        &self,
        host: &Host,
        call: &Call,
        url: Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let security = self.security_of(host, &url);
        // What the registry named elsewhere gets no credential of the registry's.
        let authorization = authorization.filter(|_| host.adopt(url.clone()).is_some());
        self.follow_from(host, call, url, security, authorization).await
    }

    /// Sends `call` to `url` and to wherever that redirects.
    async fn follow_from(
        &self,
        host: &Host,
        call: &Call,
        url: Url,
        security: Security,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let (mut url, mut security) = (url, security);
        let bulk = if matches!(call.body, Payload::Piece(_)) { Bulk::Upload } else { Bulk::Other };
        let mut headers = call.headers.clone();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        for _ in 0..=MOST_REDIRECTS {
            let client =
                self.shared.transport.client(&authority(&url), security, bulk).await.map_err(|source| {
                    Failure::Fatal(RegistryError::Config { host: authority(&url), source })
                })?;
            let request = client.request(call.method.clone(), url.clone()).headers(headers.clone());
            let response = send(request, call, &url).await?;
            let Some(next) = next_place(&response, call, &url) else {
                return self.collect(response, url, call).await;
            };
            tracing::debug!(from = origin(&url), to = origin(&next), "redirected");
            if origin(&next) != origin(&url) {
                headers.remove(header::AUTHORIZATION);
                security = self.security_of(host, &next);
            }
            url = next;
        }
        Err(Failure::Fatal(RegistryError::InvalidAnswer {
            action: call.action.clone(),
            host: host.key.domain.clone(),
            reason: format!("more than {MOST_REDIRECTS} redirects"),
        }))
    }

    /// Says how to speak to `url`, to which `host` sent us.
    fn security_of(&self, host: &Host, url: &Url) -> Security {
        if url.scheme() == "http" {
            return Security::Plain;
        }
        if host.adopt(url.clone()).is_some() {
            return host.security();
        }
        let own = self.shared.config.securities(&authority(url), host.key.insecure);
        let trusted_blindly =
            host.candidates().contains(&Security::Unverified) && !is_loopback(&host.authority);
        match own.iter().copied().find(|&security| security != Security::Plain) {
            Some(Security::Verified) | None if trusted_blindly => Security::Unverified,
            Some(security) => security,
            None => Security::Verified,
        }
    }

    async fn collect(&self, response: reqwest::Response, url: Url, call: &Call) -> Result<Answer, Failure> {
        let status = response.status();
        let headers = response.headers().clone();
        if status.is_success() && call.keep == Keep::Stream {
            return Ok(Answer { status, headers, url, body: Bytes::new(), stream: Some(response) });
        }
        let body = if status.is_success() {
            let whole = read_whole(response, call.limit, &url).await?;
            whole.ok_or_else(|| {
                Failure::Fatal(RegistryError::TooLarge { action: call.action.clone(), limit: call.limit })
            })?
        } else {
            // A status without a readable body still is an answer.
            match read_whole(response, ERROR_LIMIT, &url).await {
                Ok(body) => body.unwrap_or_default(),
                Err(_) => Bytes::new(),
            }
        };
        Ok(Answer { status, headers, url, body, stream: None })
    }
}

impl Call {
    /// Tells whether the body itself is a secret: the form that exchanges a refresh token.
    fn is_form(&self) -> bool {
        matches!(self.target, Target::Url(_))
            && self.method == Method::POST
            && !matches!(self.body, Payload::Empty)
    }
}

/// Returns where `response` redirects to; nothing if it does not, or if it is not to be followed.
fn next_place(response: &reqwest::Response, call: &Call, url: &Url) -> Option<Url> {
    let followed = match response.status().as_u16() {
        301..=303 => call.is_safe(),
        307 | 308 => true,
        _ => false,
    };
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let next =
        url.join(location).ok().filter(|next| followed && matches!(next.scheme(), "http" | "https"))?;
    // A header can be left behind, the body cannot.
    let leaks = call.is_form() && origin(&next) != origin(url);
    (!leaks).then_some(next)
}

async fn send(
    request: reqwest::RequestBuilder,
    call: &Call,
    url: &Url,
) -> Result<reqwest::Response, Failure> {
    let limit = if call.is_safe() { SILENCE } else { THOUGHT };
    let sent = match &call.body {
        Payload::Empty => within(limit, request.send()).await,
        Payload::Bytes(bytes) => within(limit, request.body(bytes.clone()).send()).await,
        Payload::Piece(piece) => {
            return piece.send(request, THOUGHT, &call.action).await.map_err(|failure| match failure {
                Ok(fault) => Failure::Fault { origin: origin(url), fault },
                Err(error) => Failure::Fatal(error),
            });
        }
    };
    sent.map_err(|fault| Failure::Fault { origin: origin(url), fault })
}

/// Waits for `future`, but not longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, TransportFault> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result.map_err(|error| TransportFault::from_reqwest(&error)),
        Err(_) => Err(silent(limit)),
    }
}

pub(super) fn silent(limit: Duration) -> TransportFault {
    TransportFault::new(FaultKind::TimedOut, format!("nothing was heard for {} s", limit.as_secs()))
}

/// Reads a body; nothing if it is larger than `limit`.
async fn read_whole(
    mut response: reqwest::Response,
    limit: u64,
    url: &Url,
) -> Result<Option<Bytes>, Failure> {
    let failed = |fault| Failure::Fault { origin: origin(url), fault };
    let mut whole = BytesMut::new();
    while let Some(piece) = within(SILENCE, response.chunk()).await.map_err(failed)? {
        if (whole.len() + piece.len()) as u64 > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}

/// Recognises what TLS servers say to a client that speaks plain http.
fn wants_tls(call: &Call, answer: &Answer) -> bool {
    if answer.status != StatusCode::BAD_REQUEST {
        return false;
    }
    // An answer to HEAD has no words; registries find nothing bad in looking for something.
    if call.method == Method::HEAD {
        return true;
    }
    let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    text.contains("http") && text.contains("https")
}

/// Tells whether a fault shows that the other scheme is spoken at `authority`.
fn wrong_scheme(fault: &TransportFault, authority: &str) -> bool {
    match fault.kind() {
        FaultKind::NotTls | FaultKind::NotHttp | FaultKind::Broken => true,
        // Without a port, the other scheme is at another one.
        FaultKind::Refused | FaultKind::TimedOut => !has_port(authority),
        _ => false,
    }
}
