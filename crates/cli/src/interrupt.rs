//! Ctrl-C: the first one lets the build stop in order, the second ends the process at once.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, INTERRUPTED};

/// Watches for SIGINT and SIGTERM until it is dropped.
pub(crate) struct Watch {
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Cancels `token` at the first signal; call it inside the runtime.
    pub(crate) fn start(token: CancellationToken) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("failed to listen for signals", &error));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let mut docker = docker_socket();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = hung_up(&mut docker) => {}
                }
                if token.is_cancelled() {
                    // Steps die with this process, and the state is safe at any moment.
                    slipway_engine::restore_terminal();
                    std::process::exit(INTERRUPTED.into());
                }
                token.cancel();
            }
        });
        Ok(Self { _tasks: tasks })
    }
}

/// Connects to the docker that runs us as its plugin: it hangs up when it was told to stop.
fn docker_socket() -> Option<UnixStream> {
    let name = std::env::var("DOCKER_CLI_PLUGIN_SOCKET").ok()?;
    let connect = || {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    };
    connect().ok()
}

/// Waits until docker hangs up, once; without a docker, for ever.
async fn hung_up(docker: &mut Option<UnixStream>) {
    let Some(stream) = docker else { return std::future::pending().await };
    let mut buffer = [0; 64];
    while let Ok(1..) = stream.read(&mut buffer).await {}
    *docker = None;
}

/// Makes the runtime of a command that waits for network, disk and processes.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("failed to start", &error))
}
