//! Processes that reach the network through a proxy only: what the proxy asks of their build, and what they need of
//! it.
//!
//! A container that is proxied has a network of its own, in which there is nothing but the proxy's socket. Its files
//! hold the certificate of the proxy from [`StepProxy::enter`] to [`Entered::leave`], so that it is in no layer. What
//! a step fetched is kept beside its result, for the provenance of builds that find the step in the cache.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_proxy::{Fetched, Outside, Proxy, Record, Serving, Trust};
use slipway_runtime::{Listener, Network, PendingListener, ProcessSettings};
use slipway_store::{Store, StoreError};

use crate::build::Build;
use crate::error::Context as _;
use crate::job::Job;

/// The key-value namespace of what steps fetched, by their canonical keys.
const FETCHED: &str = "fetched";
/// For how long that is kept after its last use.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

impl Job {
    /// Tells whether a process that asks for this network has the proxy instead.
    pub(crate) fn is_proxied(&self, network: i32) -> bool {
        self.proxy_network && self.engine.network(network) == Network::Host
    }

    /// Makes the proxy of a container that asks for this network; `None` if it has none.
    pub(crate) fn proxy(self: &Arc<Self>, network: i32) -> Result<Option<StepProxy>, Diagnostic> {
        if !self.is_proxied(network) {
            return Ok(None);
        }
        let outside = Arc::new(World { build: Build::of_step(self) });
        let proxy = Proxy::new(outside).map_err(|error| {
            Diagnostic::new(ErrorKind::Internal, "cannot make the proxy of a step").cause(error.to_string())
        })?;
        Ok(Some(StepProxy { proxy }))
    }

    /// Notes what a step fetched, for this build and for those that find it under its key.
    pub(crate) fn keep_fetched(
        &self,
        vertex: Digest,
        key: &Digest,
        fetched: Fetched,
    ) -> Result<(), Diagnostic> {
        let text = serde_json::to_vec(&fetched).map_err(|error| crate::error::internal(error.to_string()))?;
        self.engine.store.key_values().put(FETCHED, key.as_bytes(), &text).diagnose()?;
        self.notes.pins.set_fetched(vertex, fetched);
        Ok(())
    }

    /// Notes what a step fetched when it was run, which may have been in another build.
    pub(crate) fn recall_fetched(&self, vertex: Digest, key: &Digest) {
        if self.notes.pins.fetched(&vertex).is_some() {
            return;
        }
        let values = self.engine.store.key_values();
        let Some(stored) = values.get(FETCHED, key.as_bytes()).ok().flatten() else { return };
        if let Ok(fetched) = serde_json::from_slice(&stored.value) {
            // Kept for longer, since it is used.
            let _ = values.put(FETCHED, key.as_bytes(), &stored.value);
            self.notes.pins.set_fetched(vertex, fetched);
        }
    }
}

/// Forgets what was fetched by steps that nobody has asked for in a long time.
pub(crate) fn forget_fetched(store: &Store) -> Result<(), StoreError> {
    let deadline = SystemTime::now().checked_sub(KEPT).unwrap_or(SystemTime::UNIX_EPOCH);
    store.key_values().remove_older(FETCHED, deadline)
}

/// What is behind the proxy of a build's step.
struct World {
    build: Build,
}

#[async_trait]
impl Outside for World {
    async fn admit(&self, address: &str) -> Result<Option<String>, Vec<String>> {
        let asked = pb::SourceOp { identifier: address.to_owned(), ..pb::SourceOp::default() };
        let mut admitted = asked.clone();
        let decided = self.build.until_cancelled(self.build.admit(&mut admitted, None, &[])).await;
        decided.map_err(|refused| [vec![refused.message], refused.causes].concat())?;
        match admitted.attrs.is_empty() {
            true => Ok((admitted != asked).then_some(admitted.identifier)),
            false => Err(vec![format!(
                "the source policy sets attributes of {address}, and a proxy can only ask another address"
            )]),
        }
    }

    async fn client(&self, address: &url::Url) -> Result<reqwest::Client, String> {
        self.build.job.engine.client.relay(address.authority()).await.map_err(|error| error.to_string())
    }
}

/// A proxy that waits for its container.
pub(crate) struct StepProxy {
    proxy: Proxy,
}

impl StepProxy {
    /// Puts a process into the proxy's network, and its programs on the way to it.
    pub(crate) fn lead(&self, settings: &mut ProcessSettings) {
        settings.network = Network::None;
        Proxy::lead(&mut settings.env);
    }

    /// Makes programs below a root believe the proxy.
    pub(crate) fn trust(&self, root: BorrowedFd<'_>) -> Result<Trust, Diagnostic> {
        Trust::add(root, self.proxy.certificate()).map_err(|error| untrusted(&error))
    }

    /// Serves the container whose first process was started; `None` if that has ended. Blocks.
    pub(crate) fn serve(&self, pending: PendingListener) -> Result<Option<Serving>, Diagnostic> {
        let listener = pending.wait().map_err(std::io::Error::from);
        let serve = || listener?.map(|listener| self.proxy.serve(listener)).transpose();
        serve().context(|| "cannot serve the proxy of a step".to_owned())
    }

    /// Prepares a step's only process, and its files.
    pub(crate) fn enter(
        self,
        root: BorrowedFd<'_>,
        settings: &mut ProcessSettings,
    ) -> Result<Entered, Diagnostic> {
        let socket = listener()?;
        self.lead(settings);
        Ok(Entered { trust: self.trust(root)?, proxy: self, socket: Some(socket) })
    }
}

/// Asks for the socket of a proxy.
pub(crate) fn listener() -> Result<(Listener, PendingListener), Diagnostic> {
    Listener::at(Proxy::ADDRESS).map_err(std::io::Error::from).diagnose()
}

/// A proxy whose step is prepared.
pub(crate) struct Entered {
    proxy: StepProxy,
    trust: Trust,
    /// Until the process is started.
    socket: Option<(Listener, PendingListener)>,
}

impl Entered {
    /// Returns what the process is started with, and what its socket comes by.
    pub(crate) fn take_socket(&mut self) -> (Option<Listener>, Option<PendingListener>) {
        self.socket.take().unzip()
    }

    /// Serves the process that was started, see [`StepProxy::serve`].
    pub(crate) fn serve(&self, pending: PendingListener) -> Result<Option<Serving>, Diagnostic> {
        self.proxy.serve(pending)
    }

    /// Takes the certificate out of the step's files, when the process has ended; tells what it asked for.
    pub(crate) fn leave(self, root: BorrowedFd<'_>) -> Result<Record, Diagnostic> {
        self.trust.remove(root).map_err(|error| untrusted(&error))?;
        Ok(self.proxy.proxy.finish())
    }
}

fn untrusted(error: &dyn std::error::Error) -> Diagnostic {
    let diagnostic = Diagnostic::new(ErrorKind::Environment, error.to_string());
    match error.source() {
        Some(cause) => diagnostic.cause(cause.to_string()),
        None => diagnostic,
    }
}
