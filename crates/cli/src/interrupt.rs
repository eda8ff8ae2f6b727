//! Ctrl-C: the first one lets the build stop in order, the second ends the process at once.

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
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
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

/// Makes the runtime of a command that waits for network, disk and processes.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("failed to start", &error))
}
