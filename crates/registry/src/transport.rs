//! HTTP clients by what they trust, each made when it is first needed.
//!
//! Hosts without certificates of their own share one client and so one pool; plain http on loopback has
//! a client that looks at no proxy and no certificate, as the requests of a local build all go there.
//!
//! Over https, uploads go by HTTP/1.1, each on a connection of its own: the windows that servers give in
//! HTTP/2 (1 MiB for a whole connection in Go's) would hold them to some 20 MB/s at 50 ms. All else goes
//! by HTTP/2 where it is offered, with windows of ours that are large enough.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::{ConfigError, RegistryConfig, Security, is_loopback};
use crate::tls;

/// Makes and keeps HTTP clients.
pub(crate) struct Transport {
    config: Arc<RegistryConfig>,
    user_agent: String,
    clients: Mutex<HashMap<Pool, Arc<OnceCell<reqwest::Client>>>>,
}

/// Says what a request moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bulk {
    /// A blob from us.
    Upload,
    /// Anything else.
    Other,
}

const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Larger than the usual 16 KiB, each of which would be a piece of its own.
const FRAME: u32 = 256 << 10;

/// Says which requests share a client.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Pool {
    Loopback,
    Plain,
    /// For requests of others.
    Relay {
        loopback: bool,
    },
    /// https to a host, which may have certificates of its own.
    Host(String, Security, Bulk),
}

impl Transport {
    pub(crate) fn new(config: Arc<RegistryConfig>, user_agent: String) -> Self {
        Self { config, user_agent, clients: Mutex::default() }
    }

    /// Returns the client for requests to `authority`.
    pub(crate) async fn client(
        &self,
        authority: &str,
        security: Security,
        bulk: Bulk,
    ) -> Result<reqwest::Client, ConfigError> {
        let pool = match security {
            Security::Plain if is_loopback(authority) => Pool::Loopback,
            Security::Plain => Pool::Plain,
            _ => Pool::Host(authority.to_owned(), security, bulk),
        };
        let cell = self.clients.lock().entry(pool).or_default().clone();
        let client = cell.get_or_try_init(|| self.make(authority, security, bulk)).await?;
        Ok(client.clone())
    }

    /// Makes a client for an address that is no registry's, `https` or not: it follows redirects.
    pub(crate) async fn web(&self, https: bool) -> Result<reqwest::Client, ConfigError> {
        let security = if https { Security::Verified } else { Security::Plain };
        let make = move || tls::settings(&RegistryConfig::default(), "", security);
        let settings = match https {
            true => tokio::task::spawn_blocking(make)
                .await
                .map_err(|error| ConfigError::Tls { reason: error.to_string() })??,
            // Nothing is read for plain http, so there is nothing to wait for.
            false => make()?,
        };
        finish(
            reqwest::Client::builder()
                .tls_backend_preconfigured(settings)
                .user_agent(self.user_agent.as_str())
                .connect_timeout(Duration::from_secs(15))
                .referer(false),
        )
    }

    /// Returns the client that passes on requests of others to `authority`: it adds nothing and follows nothing.
    pub(crate) async fn relay(&self, authority: &str) -> Result<reqwest::Client, ConfigError> {
        let loopback = is_loopback(authority);
        let cell = self.clients.lock().entry(Pool::Relay { loopback }).or_default().clone();
        let make = || async move {
            let make = || tls::settings(&RegistryConfig::default(), "", Security::Verified);
            let settings = tokio::task::spawn_blocking(make)
                .await
                .map_err(|error| ConfigError::Tls { reason: error.to_string() })??;
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(settings)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(15))
                .referer(false);
            finish(if loopback { builder.no_proxy() } else { builder })
        };
        cell.get_or_try_init(make).await.cloned()
    }

    /// Makes a client for a service behind a unix socket.
    pub(crate) fn unix(&self, socket: &Path) -> Result<reqwest::Client, ConfigError> {
        let settings = tls::settings(&RegistryConfig::default(), "", Security::Plain)?;
        finish(
            reqwest::Client::builder()
                .tls_backend_preconfigured(settings)
                .user_agent(self.user_agent.as_str())
                .unix_socket(socket)
                .no_proxy(),
        )
    }

    async fn make(
        &self,
        authority: &str,
        security: Security,
        bulk: Bulk,
    ) -> Result<reqwest::Client, ConfigError> {
        let mut settings = if security == Security::Plain {
            tls::settings(&RegistryConfig::default(), authority, security)?
        } else {
            let (config, authority) = (self.config.clone(), authority.to_owned());
            tokio::task::spawn_blocking(move || tls::settings(&config, &authority, security))
                .await
                .map_err(|error| ConfigError::Tls { reason: error.to_string() })??
        };
        if bulk == Bulk::Upload {
            settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(settings)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(self.user_agent.as_str())
            .connect_timeout(Duration::from_secs(15))
            .tcp_keepalive(Duration::from_secs(60))
            .pool_idle_timeout(Duration::from_secs(60))
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_frame_size(FRAME)
            .referer(false);
        if is_loopback(authority) {
            builder = builder.no_proxy();
        }
        finish(builder)
    }
}

fn finish(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, ConfigError> {
    builder.build().map_err(|error| ConfigError::Tls { reason: error.without_url().to_string() })
}
