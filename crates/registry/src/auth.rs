//! What a host wants to see with each request, and the tokens it accepted ([token authentication]).
//!
//! Nothing is sent until a host has demanded it; from then on every request carries it from the start.
//! Tokens are kept per set of scopes until shortly before they expire, and a token that covers more than
//! what is needed serves as well. Requests that need the same new token wait for one exchange.
//!
//! [token authentication]: https://distribution.github.io/distribution/spec/auth/token/

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde::Deserialize;
use slipway_model::Secret;

use crate::challenge::Demand;
use crate::client::{Call, Client, Payload, Target};
use crate::config::is_loopback;
use crate::credentials::{AccessToken, Credential, TokenDemand};
use crate::error::RegistryError;
use crate::host::{Host, authority};
use crate::scope::ScopeSet;

/// Holds the credential and the tokens for one host.
#[derive(Default)]
pub(crate) struct Authorizer {
    state: Mutex<State>,
    /// One lock for each set of scopes, held while its token is fetched so that it is fetched once.
    fetching: Mutex<HashMap<ScopeSet, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct State {
    demand: Option<Demand>,
    credential: Option<Credential>,
    /// Why no credential could be had, for the error if being anonymous does not do.
    problem: Option<String>,
    tokens: Vec<Token>,
}

#[derive(Clone)]
struct Token {
    scopes: ScopeSet,
    value: HeaderValue,
    expires: Instant,
}

/// Is what to send, and whether it was made just now.
pub(crate) struct Authorization {
    pub(crate) value: HeaderValue,
    pub(crate) fresh: bool,
}

/// A token server's answer; either member may hold the token.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// What cannot stand for itself in a form.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What the specification says of tokens that do not tell.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(3600 * 24);
const TOKEN_ANSWER_LIMIT: u64 = 1 << 20;

impl Authorizer {
    /// Notes what the host demands.
    pub(crate) fn learn(&self, demand: Demand) {
        self.state.lock().demand = Some(demand);
    }

    /// Returns why no credential could be had.
    pub(crate) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }

    /// Lists all that must not be in a message, in the forms in which a host may echo it.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut secrets = Vec::new();
        match &state.credential {
            Some(Credential::Basic { username, password }) => {
                secrets.push(BASE64_STANDARD.encode(format!("{username}:{}", password.expose())));
                secrets.push(password.expose().clone());
            }
            Some(Credential::IdentityToken(token) | Credential::RegistryToken(token)) => {
                secrets.push(token.expose().clone());
            }
            Some(Credential::Anonymous) | None => {}
        }
        let bare = |token: &Token| token.value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned);
        secrets.extend(state.tokens.iter().filter_map(bare));
        secrets
    }

    fn cached(&self, scopes: &ScopeSet, rejected: Option<&HeaderValue>, now: Instant) -> Option<HeaderValue> {
        let state = self.state.lock();
        let good = |token: &&Token| {
            token.expires > now && token.scopes.covers(scopes) && Some(&token.value) != rejected
        };
        state.tokens.iter().find(good).map(|token| token.value.clone())
    }

    fn keep(&self, token: Token, rejected: Option<&HeaderValue>, now: Instant) {
        let mut state = self.state.lock();
        state.tokens.retain(|old| {
            old.expires > now && Some(&old.value) != rejected && !token.scopes.covers(&old.scopes)
        });
        state.tokens.push(token);
    }
}

impl Client {
    /// Returns what `host` is known to want for `scopes`; nothing while it has not demanded anything.
    ///
    /// `rejected` is what it has just refused to take.
    pub(crate) async fn authorization(
        &self,
        host: &Host,
        scopes: &ScopeSet,
        rejected: Option<&HeaderValue>,
        action: &str,
    ) -> Result<Option<Authorization>, RegistryError> {
        let demand = host.auth.state.lock().demand.clone();
        let Some(demand) = demand else { return Ok(None) };
        if let Some(value) = host.auth.cached(scopes, rejected, self.clock().now()) {
            return Ok(Some(Authorization { value, fresh: false }));
        }
        let (realm, service) = match demand {
            Demand::Bearer { realm, service, .. } => (realm, service),
            Demand::Basic => {
                return Ok(match self.credential(host).await {
                    Credential::RegistryToken(token) => bearer(&token).map(fixed),
                    Credential::Basic { username, password } => {
                        let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
                        sensitive(format!("Basic {pair}")).map(fixed)
                    }
                    Credential::IdentityToken(_) | Credential::Anonymous => None,
                });
            }
        };
        let lock = host.auth.fetching.lock().entry(scopes.clone()).or_default().clone();
        let _one_at_a_time = lock.lock().await;
        if let Some(value) = host.auth.cached(scopes, rejected, self.clock().now()) {
            return Ok(Some(Authorization { value, fresh: false }));
        }
        let asked = self.clock().now();
        let demand = TokenDemand { realm, service, scopes: scopes.texts().collect() };
        let token = match self.credentials().token(&host.key.domain, &demand).await {
            Ok(Some(token)) => token,
            Ok(None) => match self.credential(host).await {
                Credential::RegistryToken(token) => return Ok(bearer(&token).map(fixed)),
                credential => self.fetch_token(host, demand.with(credential, action)).await?,
            },
            Err(error) => {
                tracing::warn!(host = host.key.domain, %error, "no token, going on without a login");
                host.auth.state.lock().problem = Some(error.to_string());
                self.fetch_token(host, demand.with(Credential::Anonymous, action)).await?
            }
        };
        let value = bearer(&token.value).ok_or_else(|| RegistryError::InvalidAnswer {
            action: action.to_owned(),
            host: host.authority.clone(),
            reason: "the token is not printable".to_owned(),
        })?;
        let life = token.life.filter(|life| !life.is_zero()).unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
        // Renewed early, so that no request starts with a token that expires on its way.
        let margin = (life / 4).min(Duration::from_secs(10));
        let token = Token { scopes: scopes.clone(), value: value.clone(), expires: asked + life - margin };
        host.auth.keep(token, rejected, self.clock().now());
        Ok(Some(Authorization { value, fresh: true }))
    }

    /// Gets a token for the registry of `domain` from its token server, with our own login there.
    pub async fn access_token(
        &self,
        domain: &str,
        demand: TokenDemand,
    ) -> Result<AccessToken, RegistryError> {
        let host = self.registry(domain);
        match self.credential(&host).await {
            Credential::RegistryToken(value) => Ok(AccessToken { value, life: None }),
            credential => {
                let action = format!("get a token for `{domain}`");
                self.fetch_token(&host, demand.with(credential, &action)).await
            }
        }
    }

    async fn credential(&self, host: &Host) -> Credential {
        if let Some(known) = host.auth.state.lock().credential.clone() {
            return known;
        }
        let found = self.credentials().get(&host.key.domain).await;
        let mut state = host.auth.state.lock();
        let credential = found.unwrap_or_else(|error| {
            tracing::warn!(host = host.key.domain, %error, "no credential, going on without");
            state.problem = Some(error.to_string());
            Credential::Anonymous
        });
        state.credential.insert(credential).clone()
    }

    async fn fetch_token(&self, host: &Host, wanted: TokenRequest<'_>) -> Result<AccessToken, RegistryError> {
        let action = wanted.action.to_owned();
        let call = wanted.into_call(host)?;
        let answer = self.send_plainly(host, &call).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error(host, &call.action));
        }
        let invalid = |reason: &str| RegistryError::InvalidAnswer {
            action: action.clone(),
            host: authority(&answer.url),
            reason: reason.to_owned(),
        };
        let parsed: TokenAnswer =
            serde_json::from_slice(&answer.body).map_err(|_| invalid("the token server sent no JSON"))?;
        let token = parsed.token.filter(|token| !token.is_empty()).or(parsed.access_token);
        let token = token.ok_or_else(|| invalid("the token server sent no token"))?;
        let life = parsed.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(AccessToken { value: Secret::new(token), life })
    }
}

impl TokenDemand {
    fn with(self, credential: Credential, action: &str) -> TokenRequest<'_> {
        TokenRequest { demand: self, credential, action }
    }
}

struct TokenRequest<'a> {
    demand: TokenDemand,
    credential: Credential,
    action: &'a str,
}

impl TokenRequest<'_> {
    /// Makes a GET for a name and password or for nobody, an OAuth 2 POST for a refresh token.
    fn into_call(self, host: &Host) -> Result<Call, RegistryError> {
        let invalid = |reason: String| RegistryError::InvalidAnswer {
            action: self.action.to_owned(),
            host: host.authority.clone(),
            reason,
        };
        let base = host.url(host.security(), "").ok_or_else(|| invalid("its address is no URL".into()))?;
        let mut realm = base.join(&self.demand.realm).map_err(|_| invalid("the realm is no URL".into()))?;
        // A password in the realm would be shown with it.
        let _ = (realm.set_username(""), realm.set_password(None));
        let has_secret = self.credential != Credential::Anonymous;
        let plain = realm.scheme() == "http" && !is_loopback(&authority(&realm));
        if !matches!(realm.scheme(), "http" | "https") || (plain && has_secret && base.scheme() == "https") {
            let realm = crate::host::origin(&realm);
            return Err(invalid(format!("it wants the credential sent without encryption to `{realm}`")));
        }
        let mut headers = HeaderMap::new();
        let mut body = Payload::Empty;
        let mut method = Method::GET;
        if let Credential::IdentityToken(token) = &self.credential {
            method = Method::POST;
            headers
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            body = Payload::Bytes(self.form(token).into());
        } else {
            self.append_query(&mut realm);
            if let Credential::Basic { username, password } = &self.credential {
                let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
                if let Some(value) = sensitive(format!("Basic {pair}")) {
                    headers.insert(header::AUTHORIZATION, value);
                }
            }
        }
        Ok(Call {
            method,
            target: Target::Url(realm),
            headers,
            body,
            limit: TOKEN_ANSWER_LIMIT,
            ..Call::get("", ScopeSet::default(), format!("{} (logging in)", self.action))
        })
    }

    fn append_query(&self, realm: &mut Url) {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = &self.demand.service {
            query.append_pair("service", service);
        }
        for scope in &self.demand.scopes {
            query.append_pair("scope", scope);
        }
        if let Credential::Basic { username, .. } = &self.credential {
            query.append_pair("account", username);
        }
    }

    fn form(&self, refresh_token: &Secret<String>) -> String {
        let scopes = self.demand.scopes.join(" ");
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", self.demand.service.as_deref().unwrap_or_default()),
            ("client_id", "slipway"),
            ("scope", &scopes),
            ("refresh_token", refresh_token.expose()),
        ];
        let encoded = fields.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED)));
        encoded.join("&")
    }
}

/// Wraps what cannot be renewed: it counts as made just now.
fn fixed(value: HeaderValue) -> Authorization {
    Authorization { value, fresh: true }
}

fn bearer(token: &Secret<String>) -> Option<HeaderValue> {
    sensitive(format!("Bearer {}", token.expose()))
}

/// Makes a header value that is not shown by `Debug` and not kept in HTTP/2's compression table.
fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
