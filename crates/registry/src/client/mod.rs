//! The client: what the rest of slipway calls, and the state that its calls share.

mod answer;
mod call;
mod catalog;
mod exchange;
mod growing;
mod manifest;
mod push;
mod send;
mod upload;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slipway_model::Reference;
use tokio::sync::Semaphore;

use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, Mirror, RegistryConfig};
use crate::credentials::{Anonymous, Credentials};
use crate::host::{Host, HostKey};
use crate::retry::RetryPolicy;
use crate::transport::Transport;

pub(crate) use answer::Answer;
pub(crate) use call::{Call, Keep, Payload, Target};
pub(crate) use exchange::{SILENCE, within};
pub use growing::Growth;
pub(crate) use manifest::log_mirror;
pub use push::{Progress, PushOptions, Pushed};
pub(crate) use send::fault_error;

/// How long a mirror that did not answer is left alone.
const MIRROR_REST: Duration = Duration::from_secs(60);

/// Says what a reference is resolved for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// To pull: mirrors are asked first, and the right to read suffices.
    #[default]
    Pull,
    /// To push: only the registry itself is asked, and the login is for writing too, so that the push
    /// which follows needs no other one.
    Push,
}

/// Says how a [`Client`] works.
pub struct ClientOptions {
    /// What is known of registries.
    pub config: RegistryConfig,
    /// Who we are to them.
    pub credentials: Arc<dyn Credentials>,
    /// What is sent as `User-Agent`.
    pub user_agent: String,
    /// How many blobs move at once between us and one registry.
    pub max_concurrency: usize,
    /// How failed requests are tried again.
    pub retry: RetryPolicy,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            config: RegistryConfig::default(),
            credentials: Arc::new(Anonymous),
            user_agent: concat!("slipway/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_concurrency: 6,
            retry: RetryPolicy::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Speaks to registries; clones share connections, tokens and permits.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    view: View,
}

struct Shared {
    config: Arc<RegistryConfig>,
    credentials: Arc<dyn Credentials>,
    transport: Arc<Transport>,
    max_concurrency: usize,
    retry: RetryPolicy,
    clock: Arc<dyn Clock>,
    hosts: Mutex<HashMap<HostKey, Arc<Host>>>,
    /// Mirrors that did not answer, until when they are left alone.
    resting: Mutex<HashMap<String, Instant>>,
}

/// Is what differs between clones of one client.
#[derive(Clone, Copy)]
struct View {
    insecure: bool,
    mirrors: bool,
}

impl Client {
    /// Makes a client; nothing is read or connected before the first request.
    pub fn new(options: ClientOptions) -> Self {
        let config = Arc::new(options.config);
        let shared = Shared {
            transport: Arc::new(Transport::new(config.clone(), options.user_agent)),
            config,
            credentials: options.credentials,
            max_concurrency: options.max_concurrency.max(1),
            retry: options.retry,
            clock: options.clock,
            hosts: Mutex::default(),
            resting: Mutex::default(),
        };
        Self { shared: Arc::new(shared), view: View { insecure: false, mirrors: true } }
    }

    /// Returns the same client, for requests that may go without verification or encryption.
    #[must_use]
    pub fn insecure(&self, insecure: bool) -> Self {
        Self { view: View { insecure, ..self.view }, ..self.clone() }
    }

    /// Returns a client for somebody else: connections are shared, logins and tokens are not.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<dyn Credentials>) -> Self {
        let shared = Shared {
            config: self.shared.config.clone(),
            credentials,
            transport: self.shared.transport.clone(),
            max_concurrency: self.shared.max_concurrency,
            retry: self.shared.retry.clone(),
            clock: self.shared.clock.clone(),
            hosts: Mutex::default(),
            resting: Mutex::default(),
        };
        Self { shared: Arc::new(shared), view: self.view }
    }

    /// Returns the same client, for requests that go to the registry itself only.
    #[must_use]
    pub fn without_mirrors(&self) -> Self {
        Self { view: View { mirrors: false, ..self.view }, ..self.clone() }
    }

    /// Makes an HTTP client for addresses that are no registry's, such as those of `ADD https://…`.
    pub async fn web(&self, https: bool) -> Result<reqwest::Client, ConfigError> {
        self.shared.transport.web(https).await
    }

    /// Returns an HTTP client that passes on requests of others to a host, as they are: it follows no redirects.
    pub async fn relay(&self, authority: &str) -> Result<reqwest::Client, ConfigError> {
        self.shared.transport.relay(authority).await
    }

    /// Makes an HTTP client for a service behind a unix socket, such as a container engine.
    pub fn unix(&self, socket: &Path) -> Result<reqwest::Client, ConfigError> {
        self.shared.transport.unix(socket)
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    pub(crate) fn credentials(&self) -> &dyn Credentials {
        &*self.shared.credentials
    }

    /// Returns the registry that `reference` names.
    fn origin(&self, reference: &Reference) -> Arc<Host> {
        self.registry(reference.domain())
    }

    pub(crate) fn registry(&self, domain: &str) -> Arc<Host> {
        let key = HostKey {
            domain: domain.to_owned(),
            mirror_of: None,
            path: String::new(),
            insecure: self.view.insecure,
        };
        self.host(key, None)
    }

    /// Lists the registries to ask for content of `reference`, in order; the one it names is the last.
    pub(crate) fn hosts(&self, reference: &Reference, access: Access) -> Vec<Arc<Host>> {
        let mut hosts = Vec::new();
        if access == Access::Pull && self.view.mirrors {
            let now = self.clock().now();
            let rests = |mirror: &&Mirror| {
                self.shared.resting.lock().get(&mirror.authority).is_none_or(|&until| until <= now)
            };
            for mirror in self.shared.config.mirrors(reference.domain()).iter().filter(rests) {
                let key = HostKey {
                    domain: mirror.authority.clone(),
                    mirror_of: Some(reference.domain().to_owned()),
                    path: mirror.path.clone(),
                    insecure: self.view.insecure,
                };
                hosts.push(self.host(key, mirror.http));
            }
        }
        hosts.push(self.origin(reference));
        hosts
    }

    fn host(&self, key: HostKey, http: Option<bool>) -> Arc<Host> {
        let mut hosts = self.shared.hosts.lock();
        let make = || {
            let transfers = Arc::new(Semaphore::new(self.shared.max_concurrency));
            Arc::new(Host::new(key.clone(), http, &self.shared.config, transfers))
        };
        hosts.entry(key.clone()).or_insert_with(make).clone()
    }

    /// Leaves a mirror alone for a while.
    fn rest(&self, mirror: &Host) {
        let until = self.clock().now() + MIRROR_REST;
        self.shared.resting.lock().insert(mirror.authority.clone(), until);
    }
}
