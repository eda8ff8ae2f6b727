//! The socket in the step's network: connections, and the tunnels in them that lead to hosts of `https`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Authority as HostPort;
use http::{Method, Response};
use http_body_util::{Either, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, AuthorityError};
use crate::exchange::{self, Answer};
use crate::record::{Record, Recorder};
use crate::{Outside, Shared};

/// So many connections are served at once; others wait.
const MAX_CONNECTIONS: usize = 256;
/// Below those that the kernel gives to whoever asks for none.
const PORT: u16 = 31280;
/// What is not asked of a proxy: the step's own servers.
const NOT_PROXIED: &str = "127.0.0.1,localhost,::1";

/// A proxy for one step.
pub struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// Where the proxy listens in the step's network, which nobody else is in.
    pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);

    /// Makes a proxy that serves nobody yet.
    ///
    /// # Errors
    /// Its certificate cannot be made.
    pub fn new(outside: Arc<dyn Outside>) -> Result<Self, AuthorityError> {
        let shared = Shared { outside, authority: Authority::new()?, record: Arc::new(Recorder::default()) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns the certificate to believe, as PEM.
    pub fn certificate(&self) -> &str {
        self.shared.authority.pem()
    }

    /// Leads the programs of an environment (`NAME=value`) to the proxy.
    pub fn lead(environment: &mut Vec<String>) {
        let proxy = format!("http://{}", Self::ADDRESS);
        let variables = [("HTTP_PROXY", proxy.as_str()), ("HTTPS_PROXY", &proxy), ("NO_PROXY", NOT_PROXIED)];
        for (name, value) in variables {
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                environment.retain(|entry| entry.split('=').next() != Some(&name));
                environment.push(format!("{name}={value}"));
            }
        }
    }

    /// Serves the connections of a socket at [`Proxy::ADDRESS`], on the runtime that this is called in.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub fn serve(&self, listener: TcpListener) -> std::io::Result<Serving> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, shared) = (CancellationToken::new(), self.shared.clone());
        let mut task = JoinSet::new();
        let stopped = stop.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            let accept = accept(&listener, &shared, &mut connections);
            stopped.run_until_cancelled(accept).await;
            connections.shutdown().await;
        });
        Ok(Serving { stop, task })
    }

    /// Ends the record; what is still under way is not in it.
    pub fn finish(self) -> Record {
        self.shared.record.finish()
    }
}

/// A proxy at work; dropping it breaks off what it does.
pub struct Serving {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Serving {
    /// Breaks off what is still under way, when nobody is left to wait for it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

async fn accept(listener: &tokio::net::TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, shared.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a step");
                // Without descriptors there is nothing to do but wait for one that ends.
                if connections.join_next().await.is_none() {
                    return;
                }
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let tunnel: Mutex<Option<(HostPort, OnUpgrade)>> = Mutex::new(None);
    let service = service_fn(|mut request| {
        let host = request.uri().authority().filter(|_| request.method() == Method::CONNECT).cloned();
        let opened = host.map(|host| *tunnel.lock() = Some((host, hyper::upgrade::on(&mut request))));
        let shared = &shared;
        async move {
            Ok::<Answer, Infallible>(match opened {
                Some(()) => Response::new(Either::Right(Full::<Bytes>::default())),
                None => exchange::answer(shared, None, request).await,
            })
        }
    });
    let served = http().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of a step to the proxy failed");
    }
    let Some((host, upgrade)) = tunnel.into_inner() else { return };
    if let Ok(upgraded) = upgrade.await {
        serve_tunnel(upgraded, &host, &shared).await;
    }
}

/// Stands for the host that a tunnel leads to. What does not speak TLS there goes no further.
async fn serve_tunnel(upgraded: Upgraded, host: &HostPort, shared: &Shared) {
    let config = match shared.authority.host(host.host().trim_matches(['[', ']'])) {
        Ok(config) => config,
        Err(error) => {
            tracing::debug!(%error, %host, "cannot stand for a host");
            return;
        }
    };
    let stream = match TlsAcceptor::from(config).accept(TokioIo::new(upgraded)).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, %host, "a step does not accept the proxy's certificate");
            return;
        }
    };
    let service = service_fn(|request| async move {
        Ok::<Answer, Infallible>(exchange::answer(shared, Some(host), request).await)
    });
    if let Err(error) = http().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, %host, "a tunnel of a step failed");
    }
}

fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // As servers of this version usually write them; there are programs that look for that.
    builder.title_case_headers(true);
    // BusyBox asks a proxy for `https` in one request, and says at once that it will say no more.
    builder.half_close(true);
    builder
}
