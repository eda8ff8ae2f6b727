//! One build of one client: what it is told, and what it can be asked.
//!
//! A [`Build`] is made by [`Engine::start`] and is the only way to build. `Engine::solve` makes one for a
//! request of this process; the daemon makes one for each client and maps the calls of BuildKit's protocol
//! to its methods.
//!
//! Invariants:
//!
//! 1. A [`Ref`] is lazy: nothing runs until its files are asked for or the result is exported.
//! 2. What a build uses (snapshots, blobs, processes, mirrors) is held by the build's lease and ends with it:
//!    dropping a `Build` at any point leaves nothing behind.
//! 3. A method's future may be dropped at any point; what only it waited for is stopped.

mod container;
mod export;
mod exporter_request;
mod files;
mod reference;
mod result;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use slipway_model::llb::pb;
use slipway_model::progress::{self, EventSink};
use slipway_model::solve::{CacheOptions, CacheSpec, Entitlement};
use slipway_model::{Compatibility, Diagnostic, Digest, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::attest::{FrontendRequest, Scope};
use crate::engine::Engine;
use crate::failed::FailedStep;
use crate::job::Job;
use crate::policy::SourcePolicy;
use crate::session::{EmbeddedSession, Session};

pub use container::{Container, ContainerMount, ContainerProcess, ContainerRequest, ProcessRequest};
pub(crate) use export::platform_of;
pub use export::{ExportOptions, ExportResult};
pub use exporter_request::ExporterRequest;
pub use files::{FileInfo, FileKind};
pub(crate) use files::{read_file, read_up_to};
pub use reference::Ref;
pub use result::{Attestation, BuildResult, Refs, keys};
pub(crate) use result::{Details, key_of};
pub use source::{
    Checksum, ChecksumAlgorithm, ChecksumRequest, GitMeta, HttpMeta, ImageMeta, ResolveOptions, SourceMeta,
};

/// What a build is started with.
pub struct BuildOptions {
    /// Names the build, in history and on the wire.
    pub id: String,
    pub session: Arc<dyn Session>,
    /// What the client has granted, and the engine's owner too.
    pub entitlements: BTreeSet<Entitlement>,
    /// Steps reach the network through a proxy only, which asks the policies about every request.
    pub proxy_network: bool,
    /// What the client has asked for, as provenance tells it.
    pub request: FrontendRequest,
    /// The version of BuildKit's behaviour that the client wants.
    pub compatibility: Compatibility,
}

impl BuildOptions {
    /// Starts with a client that is this process and offers nothing.
    pub fn local(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            session: Arc::new(EmbeddedSession::default()),
            entitlements: BTreeSet::new(),
            proxy_network: false,
            request: FrontendRequest::default(),
            compatibility: Compatibility::default(),
        }
    }
}

/// A build that is under way, as the client or a frontend sees it.
pub struct Build {
    pub(crate) job: Arc<Job>,
    /// Who this handle is for: what is solved by it is theirs.
    pub(crate) scope: Arc<Scope>,
    _owner: Option<Owner>,
}

/// The client's own handle; the build ends with it.
struct Owner(Arc<Job>, Arc<Scope>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abort();
        self.1.forget(&self.0.engine.producers);
    }
}

impl Engine {
    /// Starts a build; it ends when the `Build` is dropped or `cancel` is called.
    pub fn start(
        &self,
        options: BuildOptions,
        events: Arc<dyn EventSink>,
        cancel: &CancellationToken,
    ) -> Result<Build, Diagnostic> {
        // Work in threads sees the end of the build, whichever way it comes, as cancellation.
        let scope = Scope::of_client(options.request.clone());
        let job = Arc::new(Job::start(&self.inner, options, events, cancel.child_token())?);
        Ok(Build { _owner: Some(Owner(job.clone(), scope.clone())), job, scope })
    }
}

impl Build {
    /// Takes a definition; `None` for the empty one, which is the empty file system.
    ///
    /// The definition is checked, and with `evaluate` it is built before this returns.
    pub async fn solve(&self, definition: pb::Definition, evaluate: bool) -> Result<Option<Ref>, Diagnostic> {
        self.solve_under(definition, evaluate, &[]).await
    }

    /// Takes a definition whose sources have to keep to further rules.
    pub async fn solve_under(
        &self,
        definition: pb::Definition,
        evaluate: bool,
        policies: &[SourcePolicy],
    ) -> Result<Option<Ref>, Diagnostic> {
        self.import_caches().await;
        self.job.contexts.keep(&definition).await;
        let definition = self.until_cancelled(self.admit_all(definition, policies)).await?;
        let Some(reference) = self.reference(definition)? else { return Ok(None) };
        if evaluate {
            self.evaluate(&reference).await?;
        }
        Ok(Some(reference))
    }

    /// Makes a reference of whoever this handle is for.
    pub(crate) fn reference(&self, definition: pb::Definition) -> Result<Option<Ref>, Diagnostic> {
        let reference = Ref::new(definition, &self.scope)?;
        if let Some(reference) = &reference {
            self.scope.solved(reference.decoded().clone());
        }
        Ok(reference)
    }

    /// Makes a handle for a frontend that is asked something; it does not keep the build alive.
    pub fn of_frontend(&self, request: FrontendRequest) -> Self {
        Self { job: self.job.clone(), scope: self.scope.frontend(request), _owner: None }
    }

    /// Makes a handle for a step; what is resolved to decide about what it fetches is no part of a result.
    pub(crate) fn of_step(job: &Arc<Job>) -> Self {
        Self { job: job.clone(), scope: Scope::of_client(FrontendRequest::default()), _owner: None }
    }

    /// Makes it known which request a frontend's result came from.
    pub(crate) fn produced(&self, result: &BuildResult) {
        for reference in result.refs.iter().filter_map(|(_, reference)| reference) {
            let pins = &self.job.notes.pins;
            let sources = self.scope.sources(Some(reference.decoded()), &[], pins, &<[_]>::to_vec);
            self.scope.produced(reference.decoded(), &sources, &self.job.engine.producers);
        }
    }

    /// Says where caches come from and go to, before anything is built; `inline` puts the cache into the image.
    pub fn use_cache(&self, options: &CacheOptions, inline: bool) -> Result<(), Diagnostic> {
        self.job.remote.request(options, inline)
    }

    /// Says of further places that caches come from them, for what is built from now on.
    pub fn import_cache(&self, imports: &[CacheSpec]) -> Result<(), Diagnostic> {
        self.job.remote.request_imports(imports)
    }

    /// Reads the caches that are to be imported, if they were not yet.
    pub(crate) async fn import_caches(&self) {
        let imported = self.until_cancelled::<_, Diagnostic>(async {
            self.job.remote.ready(&self.job).await;
            Ok(())
        });
        // Whoever is cancelled hears of it from what comes next.
        let _ = imported.await;
    }

    /// Runs a frontend by name, with BuildKit's options and inputs.
    pub async fn frontend(
        &self,
        name: &str,
        options: &BTreeMap<String, String>,
        inputs: BTreeMap<String, pb::Definition>,
    ) -> Result<BuildResult, Vec<Diagnostic>> {
        self.import_caches().await;
        for input in inputs.values() {
            self.job.contexts.keep(input).await;
        }
        // Boxed, since frontends ask frontends.
        let run: BoxFuture<'_, _> = Box::pin(crate::frontend::run(self, name, options, inputs));
        self.until_cancelled(run).await
    }

    /// Builds what a reference stands for.
    pub async fn evaluate(&self, reference: &Ref) -> Result<(), Diagnostic> {
        let evaluated = self.run(|| reference.evaluate(&self.job)).await;
        evaluated.map(drop).map_err(first)
    }

    /// Builds what several references stand for, at once.
    pub async fn evaluate_all(&self, references: &[Ref]) -> Result<(), Vec<Diagnostic>> {
        self.run(|| Ref::evaluate_all(references, &self.job)).await
    }

    /// Makes a handle for a frontend; it does not keep the build alive.
    pub fn share(&self) -> Self {
        Self { job: self.job.clone(), scope: self.scope.clone(), _owner: None }
    }

    /// Returns the engine that builds.
    pub fn engine(&self) -> Engine {
        Engine { inner: self.job.engine.clone() }
    }

    /// Keeps the files of steps that fail from now on, until the build ends.
    pub fn keep_failed_steps(&self) {
        self.job.notes.failed.want();
    }

    /// Finds what a failed step left, if it was kept; an error names its vertex.
    pub fn failed_step(&self, vertex: &Digest) -> Option<Arc<FailedStep>> {
        self.job.notes.failed.get(vertex)
    }

    /// Passes a warning of a frontend on to whoever follows the build.
    pub fn warn(&self, warning: progress::Warning) {
        self.job.progress.warn(warning);
    }

    /// Does work that needs results, until the build is cancelled; once more, if an imported cache has lost a layer.
    pub(crate) async fn run<T, E: From<Canceled>, F>(&self, work: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.until_cancelled(self.job.or_start_over(work)).await
    }

    pub(crate) async fn until_cancelled<T, E: From<Canceled>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            result = work => result,
            () = self.job.cancel.cancelled() => Err(Canceled.into()),
        }
    }
}

/// The build was cancelled.
pub(crate) struct Canceled;

impl From<Canceled> for Diagnostic {
    fn from(_: Canceled) -> Self {
        Self::new(ErrorKind::User, "canceled")
    }
}

impl From<Canceled> for Vec<Diagnostic> {
    fn from(canceled: Canceled) -> Self {
        vec![canceled.into()]
    }
}

/// Takes the first of several diagnostics, where only one can be passed on.
pub(crate) fn first(diagnostics: Vec<Diagnostic>) -> Diagnostic {
    let mut diagnostics = diagnostics.into_iter();
    diagnostics.next().unwrap_or_else(|| crate::error::internal("a failure without a reason"))
}
