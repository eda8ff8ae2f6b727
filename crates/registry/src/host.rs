//! One registry as the client knows it: its address, how to speak to it, its tokens, its permits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use reqwest::Url;
use tokio::sync::Semaphore;

use crate::auth::Authorizer;
use crate::config::{RegistryConfig, Security};

/// Tells whether a host is the one a reference names or one that has copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Origin,
    Mirror,
}

/// Identifies a host among those a client has spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostKey {
    /// The domain of the references that lead here, or the mirror's authority.
    pub(crate) domain: String,
    /// The domain that this is a mirror of.
    pub(crate) mirror_of: Option<String>,
    /// What comes before a repository's path.
    pub(crate) path: String,
    pub(crate) insecure: bool,
}

/// Is a registry, or a mirror of one.
pub(crate) struct Host {
    pub(crate) key: HostKey,
    /// Host and port to connect to.
    pub(crate) authority: String,
    pub(crate) auth: Authorizer,
    /// Permits for transfers of blobs.
    pub(crate) transfers: Arc<Semaphore>,
    /// Permits for all other requests, so that a hundred at once do not open a hundred connections.
    pub(crate) requests: Semaphore,
    candidates: Vec<Security>,
    /// Index into the candidates once one has worked; 255 until then.
    decided: AtomicU8,
}

const MOST_REQUESTS: usize = 16;
const UNDECIDED: u8 = u8::MAX;

impl Host {
    pub(crate) fn new(
        key: HostKey,
        http: Option<bool>,
        config: &RegistryConfig,
        transfers: Arc<Semaphore>,
    ) -> Self {
        let authority =
            if key.domain == "docker.io" { "registry-1.docker.io".to_owned() } else { key.domain.clone() };
        let mut candidates = config.securities(&key.domain, key.insecure).to_vec();
        match http {
            Some(true) => candidates = vec![Security::Plain],
            Some(false) => candidates.retain(|&security| security != Security::Plain),
            None => {}
        }
        if candidates.is_empty() {
            candidates.push(Security::Verified);
        }
        Self {
            auth: Authorizer::default(),
            key,
            authority,
            transfers,
            requests: Semaphore::new(MOST_REQUESTS),
            candidates,
            decided: AtomicU8::new(UNDECIDED),
        }
    }

    pub(crate) fn role(&self) -> Role {
        if self.key.mirror_of.is_some() { Role::Mirror } else { Role::Origin }
    }

    /// Lists the ways to speak that are still open: one, once it has worked.
    pub(crate) fn candidates(&self) -> &[Security] {
        match self.decided.load(Ordering::Relaxed) {
            UNDECIDED => &self.candidates,
            index => std::slice::from_ref(&self.candidates[usize::from(index)]),
        }
    }

    /// Notes that `security` works.
    pub(crate) fn decide(&self, security: Security) {
        if let Some(index) = self.candidates.iter().position(|&candidate| candidate == security) {
            self.decided.store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Returns the way that works, or the one that is tried first.
    pub(crate) fn security(&self) -> Security {
        self.candidates()[0]
    }

    /// Makes the URL of `path` (below `/v2/`, with its query) here; nothing if the address makes no URL.
    pub(crate) fn url(&self, security: Security, path: &str) -> Option<Url> {
        let prefix = if self.key.path.is_empty() { String::new() } else { format!("{}/", self.key.path) };
        let text = format!("{}://{}/v2/{prefix}{path}", security.scheme(), self.authority);
        let mut url = Url::parse(&text).ok()?;
        if let Some(domain) = &self.key.mirror_of {
            // A mirror of many registries needs to know which one is meant; others do not look at it.
            url.query_pairs_mut().append_pair("ns", domain);
        }
        Some(url)
    }

    /// Returns `url` as it is to be used if it leads to this host, and so may see its credential.
    ///
    /// A registry behind a proxy that ends TLS believes that it speaks http and says so in locations;
    /// those are followed by https, never the other way round.
    pub(crate) fn adopt(&self, mut url: Url) -> Option<Url> {
        let own_scheme = self.security().scheme();
        let same_address = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/", self.authority)).is_ok_and(|own| {
                own.host_str() == url.host_str() && own.port_or_known_default() == url.port_or_known_default()
            })
        };
        if url.scheme() == own_scheme {
            return same_address(own_scheme).then_some(url);
        }
        if url.scheme() == "http" && same_address("http") {
            url.set_scheme(own_scheme).ok()?;
            return Some(url);
        }
        None
    }
}

/// Returns host and port of `url` as they are written in references.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Returns scheme, host and port of `url`: all of it that may be shown.
pub(crate) fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(domain: &str, mirror_of: Option<&str>, path: &str) -> Host {
        let key = HostKey {
            domain: domain.into(),
            mirror_of: mirror_of.map(str::to_owned),
            path: path.into(),
            insecure: false,
        };
        Host::new(key, None, &RegistryConfig::default(), Arc::new(Semaphore::new(1)))
    }

    #[test]
    fn urls_of_origins_and_mirrors() {
        let url = |host: &Host| host.url(host.security(), "a/b/manifests/1").map(|url| url.to_string());
        let hub = host("docker.io", None, "");
        assert_eq!(url(&hub).as_deref(), Some("https://registry-1.docker.io/v2/a/b/manifests/1"));
        let mirror = host("m.example:8443", Some("docker.io"), "proxy");
        assert_eq!(
            url(&mirror).as_deref(),
            Some("https://m.example:8443/v2/proxy/a/b/manifests/1?ns=docker.io")
        );
    }

    #[test]
    fn urls_belong_to_a_host_by_name_and_port() {
        let adopt = |domain: &str, url: &str| {
            host(domain, None, "").adopt(Url::parse(url).unwrap()).map(|url| url.to_string())
        };
        assert!(adopt("r.example", "https://r.example:443/x").is_some());
        assert_eq!(adopt("r.example", "http://r.example/x").as_deref(), Some("https://r.example/x"));
        assert_eq!(adopt("r.example:5", "http://r.example:5/x").as_deref(), Some("https://r.example:5/x"));
        assert_eq!(adopt("r.example", "https://r.example:5000/x"), None);
        assert_eq!(adopt("r.example", "https://s.example/x"), None);
        assert_eq!(adopt("localhost:5", "https://localhost:5/x"), None, "never from https to http");
        assert!(adopt("localhost:5", "http://localhost:5/x").is_some());
    }

    #[test]
    fn what_worked_is_kept() {
        let host = host("localhost:5000", None, "");
        assert_eq!(host.candidates(), [Security::Plain, Security::Unverified]);
        host.decide(Security::Unverified);
        assert_eq!(host.candidates(), [Security::Unverified]);
    }
}
