//! One build, from a request to what its outputs were.
//!
//! The order is chosen so that what can fail early does: the Dockerfile is read and parsed, every base image
//! of every platform is resolved, and how each platform's steps will run is decided, before the first step.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use slipway_dockerfile::{
    BaseImage, ConvertOptions, Converted, LintWarning, ResolveMode, ResolveRequest, SourceFile,
};
use slipway_model::llb::{Definition, pb};
use slipway_model::progress::EventSink;
use slipway_model::solve::{
    Call, DockerfileRequest, Frontend, NamedContextSource, OutputSpec, SolveRequest, SourceDateEpoch,
};
use slipway_model::{Diagnostic, Digest, Digester, ErrorKind, Platform, SourceSpan, progress};
use slipway_solver::{Observer, SolveError, VertexId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::cache::StoredCache;
use crate::engine::Engine;
use crate::error::Context as _;
use crate::exporters::{self, ExportContext, Exported, PlatformResult};
use crate::graph;
use crate::images::Images;
use crate::job::{Job, Notes};
use crate::ops::VertexOperation;
use crate::platform_check::{Base, check_bases};
use crate::progress::Progress;
use crate::sandbox::Sandboxes;
use crate::sources::layout::Layout;
use crate::sources::local::LocalContexts;
use crate::tree::Tree;

/// How long, after a failure, others are waited for that nothing has to run for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a build gave.
#[derive(Clone, Debug, Default)]
pub struct SolveResponse {
    /// The entries of the metadata file.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// The digest of the index, or of the manifest where there is one platform.
    pub digest: Option<Digest>,
    /// The digest of the config, where there is one platform and no index.
    pub config_digest: Option<Digest>,
    /// What the Dockerfile's checks say.
    pub warnings: Vec<LintWarning>,
    /// The answer to a call that does not build.
    pub call: Option<CallResult>,
}

/// The answer to `--call`.
#[derive(Clone, Debug)]
pub struct CallResult {
    pub text: String,
    pub json: String,
    /// The check found something that the Dockerfile calls an error.
    pub failed: bool,
}

impl Engine {
    /// Builds.
    ///
    /// # Errors
    /// Every independent failure that was found; at least one.
    pub async fn solve(
        &self,
        request: SolveRequest,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<SolveResponse, Vec<Diagnostic>> {
        let Frontend::Dockerfile(dockerfile) = &request.frontend else {
            return Err(vec![Diagnostic::new(ErrorKind::User, "a ready definition cannot be built yet")]);
        };
        let mut solve =
            Solve::start(self, &request, dockerfile, events, cancel.clone()).map_err(|e| vec![e])?;
        let work = solve.run();
        tokio::select! {
            result = work => result,
            () = cancel.cancelled() => Err(vec![Diagnostic::new(ErrorKind::User, "canceled")]),
        }
    }
}

/// A build that is under way.
struct Solve<'a> {
    engine: &'a Engine,
    request: &'a SolveRequest,
    dockerfile: &'a DockerfileRequest,
    progress: Progress,
    cancel: CancellationToken,
    lease: slipway_store::Lease,
    platforms: Vec<Platform>,
    job: Option<Arc<Job>>,
}

impl Drop for Solve<'_> {
    fn drop(&mut self) {
        if let Some(job) = &self.job {
            job.abort();
        }
    }
}

impl<'a> Solve<'a> {
    fn start(
        engine: &'a Engine,
        request: &'a SolveRequest,
        dockerfile: &'a DockerfileRequest,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<Self, Diagnostic> {
        let platforms = match request.platforms.is_empty() {
            true => vec![Platform::host()],
            false => request.platforms.clone(),
        };
        let lease = engine.inner.store.lease().diagnose()?;
        let progress = Progress::new(events);
        // Work in threads sees the end of the solve, whichever way it comes, as cancellation.
        let cancel = cancel.child_token();
        Ok(Self { engine, request, dockerfile, progress, cancel, lease, platforms, job: None })
    }

    async fn run(&mut self) -> Result<SolveResponse, Vec<Diagnostic>> {
        let contexts =
            LocalContexts::open(self.dockerfile, &self.engine.inner, &self.lease).map_err(|e| vec![e])?;
        let source = self.load_dockerfile(&contexts).map_err(|e| vec![e])?;
        self.check_frontend(&source).map_err(|e| vec![e])?;
        let images = self.images();
        let options: Vec<ConvertOptions> =
            self.platforms.iter().map(|platform| self.convert_options(platform, &contexts)).collect();
        if self.dockerfile.call != Call::Build {
            let call = crate::services::call(self.dockerfile.call, &source, &options[0], &images).await?;
            return Ok(SolveResponse { call: Some(call), ..SolveResponse::default() });
        }
        self.preflight(&source, &options, &images).await?;
        let converted = self.convert(&source, &options, &images).await?;
        self.check_bases(&converted).map_err(|e| vec![e])?;
        let definitions = converted
            .iter()
            .map(|c| Definition::decode(&c.definition))
            .collect::<Result<Vec<Definition>, _>>()
            .map_err(|e| vec![crate::error::internal(e.to_string())])?;
        let sandboxes = self.sandboxes(&definitions)?;
        let job = Arc::new(Job {
            permits: Semaphore::new(self.engine.inner.parallelism),
            notes: Notes::default(),
            engine: self.engine.inner.clone(),
            lease: self.lease.clone(),
            progress: self.progress.clone(),
            blobs: images.blobs().clone(),
            images,
            contexts: contexts.into_map(),
            options: self.request.steps.clone(),
            sandboxes,
            cancel: self.cancel.clone(),
            nonce: nonce(&self.request.id),
        });
        self.job = Some(job.clone());
        let built = self.build(&definitions, &job).await;
        // What was read of the context need not be read again, whether or not the build succeeded.
        job.contexts.values().for_each(|context| context.save_digests());
        let trees = built?;
        let epoch = self.epoch(&job).await.map_err(|e| vec![e])?;
        let results = self.results(&converted, trees);
        let context = ExportContext {
            job,
            results,
            epoch,
            force_index: self.dockerfile.build_args.get("BUILDKIT_MULTI_PLATFORM").is_some_and(|v| truthy(v)),
            platform_check: self.request.platform_check,
        };
        let exported = exporters::export(&context, &self.outputs()).await.map_err(|e| vec![e])?;
        Ok(self.response(exported, &converted))
    }

    fn load_dockerfile(&self, contexts: &LocalContexts) -> Result<SourceFile, Diagnostic> {
        let name = contexts.dockerfile_name(&self.dockerfile.dockerfile);
        let step = self.progress.step(format!("[internal] load build definition from {name}"));
        step.end(contexts.read_dockerfile(&self.dockerfile.dockerfile))
    }

    fn check_frontend(&self, source: &SourceFile) -> Result<(), Diagnostic> {
        match slipway_dockerfile::frontend_for(source, &self.dockerfile.build_args) {
            slipway_dockerfile::FrontendChoice::BuiltIn => Ok(()),
            slipway_dockerfile::FrontendChoice::Image { reference, lines, .. } => Err(Diagnostic::new(
                ErrorKind::User,
                format!("the frontend image `{reference}` cannot be run yet"),
            )
            .hint(match lines {
                Some(_) => "remove the `# syntax=` line if the file is an ordinary Dockerfile",
                None => "leave out `--build-arg BUILDKIT_SYNTAX` if the file is an ordinary Dockerfile",
            })),
        }
    }

    fn images(&self) -> Images {
        let inner = &self.engine.inner;
        let blobs = Blobs::new(
            inner.client.clone(),
            inner.store.clone(),
            self.lease.clone(),
            self.progress.clone(),
            self.cancel.clone(),
        );
        let layouts = self
            .dockerfile
            .named_contexts
            .iter()
            .filter_map(|context| match &context.source {
                NamedContextSource::OciLayout { path, selector } => {
                    let name = crate::sources::local::context_key(&context.name, context.platform.as_ref());
                    Some((name, (Layout::new(path), selector.clone())))
                }
                _ => None,
            })
            .collect();
        Images::new(blobs, layouts)
    }

    fn convert_options(&self, platform: &Platform, contexts: &LocalContexts) -> ConvertOptions {
        let request = self.request;
        let mut options = ConvertOptions::new(platform.clone(), Platform::host());
        options.target = self.dockerfile.target.clone();
        options.implicit_platform = request.platforms.is_empty();
        options.build_args = self.dockerfile.build_args.clone();
        options.labels = self.dockerfile.labels.clone();
        options.named_contexts = self.dockerfile.named_contexts.clone();
        options.main_context = contexts.main();
        options.no_cache = self.dockerfile.no_cache_stages.clone();
        options.pull = self.dockerfile.pull;
        options.network = request.steps.network;
        options.extra_hosts = request.steps.extra_hosts.clone();
        options.shm_size = request.steps.shm_size;
        options.ulimits = request.steps.ulimits.clone();
        options.cgroup_parent = request.steps.cgroup_parent.clone();
        options.resources = request.steps.resources.clone();
        options.multi_platform = self.platforms.len() > 1;
        options.entitlements = request.entitlements.clone();
        options.ignored = contexts.ignored();
        options
    }

    /// Resolves every base image for every platform at once, and reports all that is missing.
    async fn preflight(
        &self,
        source: &SourceFile,
        options: &[ConvertOptions],
        images: &Images,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut wanted = Vec::new();
        for options in options {
            wanted.extend(slipway_dockerfile::bases(source, options)?);
        }
        let mut seen = BTreeSet::new();
        wanted.retain(|base| seen.insert(format!("{} {} {:?}", base.reference, base.platform, base.origin)));
        let steps = wanted.iter().map(|base| base.reference.to_string()).collect::<BTreeSet<_>>();
        let steps: Vec<_> = steps
            .iter()
            .map(|name| self.progress.step(format!("[internal] load metadata for {name}")))
            .collect();
        let requests: Vec<ResolveRequest> = wanted.into_iter().map(request_of).collect();
        let resolved = join_all(requests.iter().map(|request| images.find(request))).await;
        let failures: Vec<Diagnostic> = resolved.into_iter().filter_map(Result::err).collect();
        match failures.first() {
            None => steps.into_iter().for_each(|step| step.done()),
            Some(failure) => steps.into_iter().for_each(|step| step.failed(failure)),
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    async fn convert(
        &self,
        source: &SourceFile,
        options: &[ConvertOptions],
        images: &Images,
    ) -> Result<Vec<Converted>, Vec<Diagnostic>> {
        let conversions = options.iter().map(|options| slipway_dockerfile::convert(source, options, images));
        let mut converted = Vec::with_capacity(options.len());
        let mut failures = Vec::new();
        let mut told = BTreeSet::new();
        for conversion in join_all(conversions).await {
            match conversion {
                Ok(one) => {
                    self.warn(&one.warnings, &one.source, &mut told);
                    converted.push(one);
                }
                Err(failure) => failures.push(failure),
            }
        }
        // The same mistake is found once for each platform; told once, it is for all of them.
        match failures.into_iter().next() {
            None => Ok(converted),
            Some(failure) => {
                self.warn(&failure.warnings, &source.info(), &mut told);
                Err(failure.diagnostics)
            }
        }
    }

    /// Passes on what the checks found, each finding once.
    fn warn(&self, warnings: &[LintWarning], source: &Arc<pb::SourceInfo>, told: &mut BTreeSet<String>) {
        for warning in warnings {
            if !told.insert(format!("{:?} {}", warning.lines, warning.short())) {
                continue;
            }
            self.progress.warn(progress::Warning {
                vertex: Digest::of(&source.data),
                level: 1,
                short: warning.short(),
                detail: vec![warning.rule.description.to_owned()],
                url: Some(warning.rule.url.to_owned()).filter(|url| !url.is_empty()),
                source: Some(source.clone()),
                ranges: warning.lines.ranges(),
            });
        }
    }

    /// Decides how the steps of each platform run.
    fn sandboxes(&self, definitions: &[Definition]) -> Result<Sandboxes, Vec<Diagnostic>> {
        let steps = definitions.iter().flat_map(|d| &d.vertices);
        let platforms: BTreeSet<Platform> = steps
            .filter(|vertex| matches!(vertex.op.op, Some(pb::op::Op::Exec(_))))
            .map(|vertex| vertex.platform().unwrap_or_else(Platform::host))
            .collect();
        Sandboxes::decide(|| self.engine.inner.facts(), platforms)
    }

    async fn build(&self, definitions: &[Definition], job: &Arc<Job>) -> Result<Vec<Tree>, Vec<Diagnostic>> {
        let merged = graph::merge(definitions, job).map_err(|e| vec![e])?;
        let wanted: Vec<_> = merged.results.iter().flatten().copied().collect();
        let cache = StoredCache::new(job.engine.store.cache(), self.lease.clone());
        let observer = Narrator { progress: self.progress.clone(), graph: &merged.graph };
        let solved = slipway_solver::solve(&merged.graph, &wanted, &cache, &observer).await;
        let told = |failures: Vec<_>| {
            crate::failures::told(failures.into_iter().map(|f: SolveError<_>| f.error).collect())
        };
        let mut trees = solved.map_err(told)?.into_iter();
        Ok(merged.results.iter().map(|r| r.and_then(|_| trees.next()).unwrap_or(Tree::Empty)).collect())
    }

    async fn epoch(&self, job: &Arc<Job>) -> Result<Option<i64>, Diagnostic> {
        match self.request.source_date_epoch {
            Some(SourceDateEpoch::Seconds(seconds)) => Ok(Some(seconds)),
            Some(SourceDateEpoch::Context) => match job.contexts.get("context") {
                Some(context) => context.newest().await,
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// Returns what the image of a platform is for.
    fn platform_of(&self, platform: &Platform, converted: &Converted) -> Platform {
        match self.request.platforms.is_empty() {
            true => converted.image.platform(),
            false => platform.clone(),
        }
    }

    fn check_bases(&self, converted: &[Converted]) -> Result<(), Diagnostic> {
        let bases: Vec<_> = converted.iter().map(Base::of).collect();
        let platforms = self.platforms.iter().zip(converted).map(|(p, c)| self.platform_of(p, c));
        let results = platforms.zip(bases.iter().map(Option::as_ref));
        check_bases(self.request.platform_check, &self.outputs(), results, &self.progress)
    }

    fn results(&self, converted: &[Converted], trees: Vec<Tree>) -> Vec<PlatformResult> {
        let platforms = self.platforms.iter();
        platforms
            .zip(converted)
            .zip(trees)
            .map(|((platform, converted), tree)| PlatformResult {
                platform: self.platform_of(platform, converted),
                tree,
                base: Base::of(converted),
                config: converted.image.clone(),
                base_history: converted
                    .base
                    .as_ref()
                    .map(|base| base.config.history.clone())
                    .unwrap_or_default(),
                layer_spans: layer_spans(converted),
            })
            .collect()
    }

    /// Without any output an image with a name is kept, so that it can be run, pushed or exported later.
    fn outputs(&self) -> Vec<OutputSpec> {
        self.request.outputs.clone()
    }

    fn response(&self, exported: Exported, converted: &[Converted]) -> SolveResponse {
        let mut metadata = exported.metadata;
        metadata.insert("buildx.build.ref".to_owned(), serde_json::json!(self.request.id));
        let mut warnings: Vec<LintWarning> = Vec::new();
        for warning in converted.iter().flat_map(|c| &c.warnings) {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
        SolveResponse {
            metadata,
            digest: exported.digest,
            config_digest: exported.config_digest,
            warnings,
            call: None,
        }
    }
}

fn request_of(base: BaseImage) -> ResolveRequest {
    ResolveRequest {
        reference: base.reference,
        platform: base.platform,
        origin: base.origin,
        mode: ResolveMode::default(),
        span: base.span,
    }
}

/// Returns the place of the instruction behind each layer that is not the base image's.
fn layer_spans(converted: &Converted) -> Vec<Option<SourceSpan>> {
    let entries = converted.image.history.iter().zip(&converted.history_lines);
    let base = converted.base.as_ref().map_or(0, |base| base.config.history.len());
    let layers = entries.skip(base).filter(|(history, _)| !history.empty_layer);
    layers
        .map(|(_, lines)| {
            let lines = lines.as_ref()?;
            Some(SourceSpan { source: converted.source.clone(), ranges: lines.ranges() })
        })
        .collect()
}

/// Interprets a value as Go's `strconv.ParseBool` does.
fn truthy(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn nonce(id: &str) -> Digest {
    let mut digester = Digester::new();
    digester.field(id);
    digester.field(std::process::id().to_le_bytes());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    digester.field(now.as_nanos().to_le_bytes());
    digester.finish()
}

/// Tells what happens to vertices.
struct Narrator<'a> {
    progress: Progress,
    graph: &'a slipway_solver::Graph<VertexOperation>,
}

impl Narrator<'_> {
    fn vertex(&self, id: VertexId, operation: &VertexOperation) -> progress::Vertex {
        progress::Vertex {
            digest: operation.digest(),
            name: operation.name.clone(),
            inputs: self.graph.inputs(id).iter().map(|input| self.graph.digest(input.vertex)).collect(),
            started: None,
            completed: None,
            cached: false,
            error: None,
            progress_group: operation.vertex.metadata.progress_group.clone(),
        }
    }
}

impl Observer<VertexOperation> for Narrator<'_> {
    fn patience(&self) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(PATIENCE))
    }

    fn cached(&self, id: VertexId, operation: &VertexOperation) {
        let now = Some(std::time::SystemTime::now());
        let vertex = self.vertex(id, operation);
        self.progress.vertex(progress::Vertex { started: now, completed: now, cached: true, ..vertex });
    }

    fn started(&self, id: VertexId, operation: &VertexOperation) {
        let now = std::time::SystemTime::now();
        operation.mark_started(now);
        self.progress.vertex(progress::Vertex { started: Some(now), ..self.vertex(id, operation) });
    }

    fn completed(&self, id: VertexId, operation: &VertexOperation) {
        let completed = Some(std::time::SystemTime::now());
        let started = operation.started();
        self.progress.vertex(progress::Vertex { started, completed, ..self.vertex(id, operation) });
    }

    fn failed(&self, id: VertexId, operation: &VertexOperation, error: &Diagnostic) {
        let now = Some(std::time::SystemTime::now());
        let started = operation.started().or(now);
        let vertex = self.vertex(id, operation);
        self.progress.vertex(progress::Vertex {
            started,
            completed: now,
            error: Some(error.to_string()),
            ..vertex
        });
    }
}
