//! Sessions: what clients offer to their builds, over the connection they made to us.
//!
//! A client opens `Control.Session`, a stream of bytes in both directions. Over it we are the client of an HTTP/2
//! connection on which the peer serves what it has announced: files, secrets, logins, places for outputs.
//!
//! Invariant: when the stream ends, however it does, every call that is under way over it fails, and the session
//! is forgotten.

mod agent;
mod content;
mod credentials;
mod exporters;
mod files;
mod health;
mod output;
mod policy;
mod service;
mod tunnel;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use slipway_engine::session::SharedDirectories;
use slipway_model::{Diagnostic, ErrorKind};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub(crate) use agent::AGENT;
pub(crate) use content::{STORE, open_blob};
pub(crate) use files::PACKETS;
pub(crate) use output::EXPORTER;
pub(crate) use policy::PolicySession;
pub(crate) use service::BuildSession;
pub(crate) use tunnel::Tunnel;

/// The name by which sessions know Docker Hub.
pub(crate) const HUB: &str = "registry-1.docker.io";
/// Bytes of one message, as the reference allows.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
/// How long a build waits for the session it names.
const WAIT: Duration = Duration::from_secs(5);
/// How many sessions there can be at once.
const MAX_SESSIONS: usize = 10_000;

/// One client's session.
#[derive(Debug)]
pub(crate) struct ClientSession {
    pub(crate) id: String,
    /// What builds have fetched over it.
    pub(crate) directories: Arc<SharedDirectories>,
    /// What is offered, as `/service/method` in lower case.
    methods: HashSet<String>,
    channel: Channel,
    gone: CancellationToken,
}

impl ClientSession {
    /// Tells whether the client offers a method, named as `/service/method`.
    pub(crate) fn supports(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Is cancelled when the client is gone.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Makes a call that ends with the session.
    pub(crate) async fn call<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            result = work => result,
            () = self.gone.cancelled() => Err(Status::unavailable("the client's session has ended")),
        }
    }
}

/// All sessions of the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: Mutex<HashMap<String, Arc<ClientSession>>>,
    /// What was fetched over sessions, also over those that have ended, as long as a build needs it.
    directories: Mutex<HashMap<String, Weak<SharedDirectories>>>,
    changed: Notify,
}

/// Forgets a session when dropped.
pub(crate) struct Registered {
    sessions: Sessions,
    session: Arc<ClientSession>,
    _watched: AbortOnDropHandle<()>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.session.gone.cancel();
        tracing::debug!(session = self.session.id, "session ended");
        let mut sessions = self.sessions.inner.sessions.lock();
        if sessions.get(&self.session.id).is_some_and(|known| Arc::ptr_eq(known, &self.session)) {
            sessions.remove(&self.session.id);
        }
    }
}

impl Sessions {
    /// Takes a connection as the session that `headers` describe; it lasts until the result is dropped.
    pub(crate) async fn register(
        &self,
        headers: &MetadataMap,
        tunnel: Tunnel,
        gone: CancellationToken,
    ) -> Result<Registered, Status> {
        let text =
            |key: &str| headers.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let id = text("x-docker-expose-session-uuid");
        if id.is_empty() {
            return Err(Status::invalid_argument("a session must have an id"));
        }
        let methods = headers.get_all("x-docker-expose-session-grpc-method").iter();
        let methods = methods.filter_map(|value| value.to_str().ok()).map(str::to_lowercase).collect();
        if self.inner.sessions.lock().len() >= MAX_SESSIONS {
            return Err(Status::resource_exhausted("there are too many sessions"));
        }
        let session = Arc::new(ClientSession {
            id,
            directories: Arc::new(SharedDirectories::new(text("x-docker-expose-session-sharedkey"))),
            methods,
            channel: connect(tunnel).await?,
            gone,
        });
        tracing::debug!(session = session.id, "session began");
        self.inner.sessions.lock().insert(session.id.clone(), session.clone());
        let mut directories = self.inner.directories.lock();
        directories.retain(|_, known| known.strong_count() > 0);
        directories.insert(session.id.clone(), Arc::downgrade(&session.directories));
        drop(directories);
        self.inner.changed.notify_waiters();
        let _watched = health::watch(session.clone(), headers);
        Ok(Registered { sessions: self.clone(), session, _watched })
    }

    /// Finds what was fetched over a session that is there, or was there and is needed.
    pub(crate) fn directories(&self, id: &str) -> Option<Arc<SharedDirectories>> {
        self.inner.directories.lock().get(own_part(id))?.upgrade()
    }

    /// Finds a session, and waits a little for one that is on its way.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<ClientSession>, Diagnostic> {
        let id = own_part(id);
        let found = async {
            loop {
                let changed = self.inner.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let known = self.inner.sessions.lock().get(id).cloned();
                if let Some(session) = known.filter(|session| !session.gone.is_cancelled()) {
                    return session;
                }
                changed.await;
            }
        };
        tokio::time::timeout(WAIT, found).await.map_err(|_| {
            Diagnostic::new(ErrorKind::User, format!("no active session for {id}: context deadline exceeded"))
        })
    }
}

/// Takes off the prefix that keeps equal contexts of different builds apart.
fn own_part(id: &str) -> &str {
    id.split_once(':').map_or(id, |(_, rest)| rest)
}

/// Speaks HTTP/2 over a tunnel.
async fn connect(tunnel: Tunnel) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(60));
    let once = Arc::new(Mutex::new(Some(tunnel)));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let tunnel = once.lock().take();
        async move { tunnel.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the session has ended")) }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(format!("the session cannot be used: {error}")))
}

/// Says what a call to the client was for when it failed.
#[track_caller]
pub(crate) fn failed(doing: impl Into<String>, status: &Status) -> Diagnostic {
    let kind = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => ErrorKind::Environment,
        _ => ErrorKind::User,
    };
    Diagnostic::new(kind, doing).cause(status.message())
}
