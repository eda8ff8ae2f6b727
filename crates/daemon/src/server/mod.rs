//! The daemon: sockets, services, and a stop that lets go of everything.

mod config;
mod in_process;
mod listen;
mod whole;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use slipway_engine::{Engine, ExportOptions};
use slipway_model::solve::Entitlement;
use slipway_model::{Diagnostic, ErrorKind};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

pub use config::{DaemonConfig, LogConfig, LogFormat, LogLevel};
pub use in_process::InProcess;
pub use listen::{Address, Owner};
pub(crate) use whole::Whole;

use crate::content::{Content, Recorded};
use crate::control::{ControlService, Daemon, InfoCall, SolveCall};
use crate::gateway::Gateway;
use crate::session::MAX_MESSAGE;
use crate::wire::control::InfoRequest;
use crate::wire::control::control_server::ControlServer;
use crate::wire::extra::ControlSolveRequest;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_server::{Health, HealthServer};
use crate::wire::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

/// How long builds have to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(10);

/// How the daemon is started.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    pub addresses: Vec<Address>,
    pub tls: Option<TlsFiles>,
    /// Whom unix sockets belong to.
    pub owner: Owner,
    /// What builds may be given.
    pub entitlements: BTreeSet<Entitlement>,
}

/// Files for TLS on tcp sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose clients are let in; without it, anybody's.
    pub client_authority: Option<PathBuf>,
}

/// Answers at all sockets until `stop` is called; `ready` is called when they are open.
pub async fn run(
    engine: Engine,
    options: DaemonOptions,
    stop: CancellationToken,
    ready: impl FnOnce(&[Address]),
) -> Result<(), Diagnostic> {
    let stopping = CancellationToken::new();
    let export = ExportOptions::default();
    let daemon = Daemon::open(engine, options.entitlements.clone(), export, stopping.clone())?;
    let daemon = Arc::new(daemon);
    let mut listeners = Vec::new();
    for address in &options.addresses {
        listeners.push(listen::open(address, options.owner)?);
    }
    let tls = options.tls.as_ref().map(tls).transpose()?;
    ready(&options.addresses);
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        let tls = tls.clone().filter(|_| listener.is_tcp());
        let (daemon, stopping) = (daemon.clone(), stopping.clone());
        servers.spawn(async move { listener.serve(services(&daemon, tls)?, stopping).await });
    }
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        first = servers.join_next() => match first {
            Some(Ok(Err(error))) => Err(Diagnostic::new(ErrorKind::Environment, "a socket stopped answering")
                .cause(error.to_string())),
            _ => Ok(()),
        },
    };
    stopping.cancel();
    let _ = tokio::time::timeout(GRACE, async { while servers.join_next().await.is_some() {} }).await;
    listen::clean_up(&options.addresses);
    ended
}

type ServeError = tonic::transport::Error;

fn services(
    daemon: &Arc<Daemon>,
    tls: Option<ServerTlsConfig>,
) -> Result<tonic::transport::server::Router, ServeError> {
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    let control = ControlServer::new(ControlService(daemon.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let gateway = Gateway::Named(daemon.builds.clone());
    Ok(server
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(60)))
        .add_service(HealthServer::new(Healthy))
        .add_service(Content(Recorded(daemon.clone())))
        .add_service(
            Whole::new(control)
                .answer::<ControlSolveRequest, _, _>("Solve", SolveCall(daemon.clone()))
                .answer::<InfoRequest, _, _>("Info", InfoCall),
        )
        .add_service(gateway.service()))
}

fn tls(files: &TlsFiles) -> Result<ServerTlsConfig, Diagnostic> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            Diagnostic::new(ErrorKind::Environment, format!("cannot read `{}`", path.display()))
                .cause(error.to_string())
        })
    };
    let mut config =
        ServerTlsConfig::new().identity(Identity::from_pem(read(&files.certificate)?, read(&files.key)?));
    if let Some(authority) = &files.client_authority {
        config = config.client_ca_root(tonic::transport::Certificate::from_pem(read(authority)?));
    }
    Ok(config)
}

/// Says that the daemon is there.
pub(crate) struct Healthy;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving as i32 }
}

#[tonic::async_trait]
impl Health for Healthy {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), serving())].into_iter().collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = futures_util::stream::BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        use futures_util::StreamExt as _;
        let forever =
            futures_util::stream::once(async { Ok(serving()) }).chain(futures_util::stream::pending());
        Ok(Response::new(forever.boxed()))
    }
}
