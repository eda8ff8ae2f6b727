//! A daemon without a socket, for one client in the same process.
//!
//! What only BuildKit's interface can ask for, such as frontends in images, a build without a daemon asks for here.
//! Everything is in the state of the client's own engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use slipway_engine::policy::SourceJudge;
use slipway_engine::{Engine, ExportOptions};
use slipway_model::progress::EventSink;
use slipway_model::solve::{Entitlement, SolveRequest};
use slipway_model::{Diagnostic, ErrorKind};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Built, Client, Stepper};
use crate::control::Daemon;

/// How much one side may be ahead of the other.
const BUFFER: usize = 1 << 20;

/// A daemon and its client; both end when it is dropped.
#[derive(Debug)]
pub struct InProcess {
    client: Client,
    _stop: DropGuard,
    _server: AbortOnDropHandle<()>,
}

impl InProcess {
    /// Starts a daemon that may give builds `entitlements`.
    ///
    /// # Errors
    /// The state cannot be used.
    pub async fn start(
        engine: Engine,
        entitlements: BTreeSet<Entitlement>,
        export: ExportOptions,
    ) -> Result<Self, Diagnostic> {
        let stopping = CancellationToken::new();
        let daemon = Arc::new(Daemon::open(engine, entitlements, export, stopping.clone())?);
        let failed = |error: tonic::transport::Error| {
            Diagnostic::new(ErrorKind::Internal, "cannot speak to the frontend's host")
                .cause(error.to_string())
        };
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let router = super::services(&daemon, None).map_err(failed)?;
        let connections = stream::once(async { Ok::<_, std::io::Error>(theirs) }).chain(stream::pending());
        let serve = async move {
            if let Err(error) = router.serve_with_incoming(connections).await {
                tracing::debug!(%error, "the daemon of this process stopped");
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
        let server = AbortOnDropHandle::new(tokio::spawn(serve));
        let client = Client::over(ours).await.map_err(failed)?;
        Ok(Self { client, _stop: stopping.drop_guard(), _server: server })
    }

    /// Builds what a request of this machine asks for.
    ///
    /// # Errors
    /// Whatever keeps it from being built.
    pub async fn build(
        &self,
        engine: &Engine,
        request: &SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<Built, Diagnostic> {
        let built = self.client.build(engine, request, judge, events, cancel, stepper).await;
        // Who asks keeps records of its own: the daemon's was for the answer alone.
        self.client.forget(&request.id).await;
        built
    }
}
