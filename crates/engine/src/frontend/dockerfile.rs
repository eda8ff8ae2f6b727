//! The built-in Dockerfile frontend: from a request to references, one for each platform.
//!
//! The order is chosen so that what can fail early does: the Dockerfile is read and parsed, and every base
//! image of every platform is resolved, before anything is converted. Nothing runs here; the references are
//! lazy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::{join, join_all};
use slipway_dockerfile::{
    BaseImage, ContextPaths, ConvertOptions, Converted, ImageOrigin, LintWarning, ResolveMode,
    ResolveRequest, SourceFile,
};
use slipway_model::llb::pb;
use slipway_model::progress::NoEvents;
use slipway_model::solve::{
    Call, ContextSource, DockerfileRequest, DockerfileSource, Frontend, NamedContextSource, NoCache,
    SolveRequest,
};
use slipway_model::{Diagnostic, Digest, Platform, SourceSpan, progress};

use super::client::{self, ClientDirectory, ClientDockerfile, IGNORE, Place};
use super::context::BuildContext;
use super::image;
use super::resolver::Resolver;
use crate::attest::{Scanner, Targets};
use crate::build::{Attestation, Build, BuildResult, Details, Ref, Refs, key_of, keys};
use crate::job::Job;
use crate::platform_check::Base;
use crate::progress::Progress;
use crate::session::LocalRequest;
use crate::sources::layout::Layout;
use crate::sources::local::{IgnoreFile, MAIN, Origin, session_of};

/// The answer to `--call`.
#[derive(Clone, Debug)]
pub struct CallResult {
    pub text: String,
    pub json: String,
    /// The check found something that the Dockerfile calls an error.
    pub failed: bool,
}

impl CallResult {
    /// Takes the answer of a frontend.
    fn of_result(result: &BuildResult) -> Self {
        let text = |key: &str| {
            result
                .metadata
                .get(key)
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default()
        };
        let failed = !matches!(text("result.statuscode").as_str(), "" | "0");
        Self { text: text("result.txt"), json: text("result.json"), failed }
    }

    /// Returns the answer as a frontend gives it.
    pub(super) fn into_result(self) -> BuildResult {
        let mut metadata = BTreeMap::new();
        metadata.insert("result.txt".to_owned(), self.text.into_bytes());
        metadata.insert("result.json".to_owned(), self.json.into_bytes());
        metadata.insert("version".to_owned(), b"1.0.0".to_vec());
        metadata
            .insert("result.statuscode".to_owned(), if self.failed { b"1".to_vec() } else { b"0".to_vec() });
        BuildResult::new(Refs::Single(None), metadata)
    }
}

/// What the directory with the Dockerfile is called.
const DOCKERFILE: &str = "dockerfile";

/// What the frontend gives.
pub(crate) enum Answer {
    Built(BuildResult),
    Called(CallResult),
    /// The file is for a frontend in an image, by this name, which only a client of BuildKit's interface can ask.
    Elsewhere(String),
}

/// One request to the frontend.
pub(crate) struct DockerfileFrontend<'a> {
    build: &'a Build,
    job: &'a Job,
    request: &'a SolveRequest,
    dockerfile: &'a DockerfileRequest,
    platforms: Vec<Platform>,
    /// Hears what is done to read the Dockerfile.
    progress: Progress,
    /// The result is a part of another request's.
    is_part: bool,
    /// What the client wrote, for a frontend in an image that the file names.
    asked: Option<Asked<'a>>,
}

/// A request as clients of BuildKit write it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) options: &'a BTreeMap<String, String>,
    pub(super) inputs: &'a BTreeMap<String, pb::Definition>,
}

impl<'a> DockerfileFrontend<'a> {
    /// Takes a request for a Dockerfile.
    pub(crate) fn new(build: &'a Build, request: &'a SolveRequest) -> Result<Self, Diagnostic> {
        let Frontend::Dockerfile(dockerfile) = &request.frontend else {
            return Err(crate::error::internal("the request is not for the Dockerfile frontend"));
        };
        let platforms = match request.platforms.is_empty() {
            true => vec![Platform::host()],
            false => request.platforms.clone(),
        };
        let (job, progress) = (&*build.job, build.job.progress.clone());
        Ok(Self { build, job, request, dockerfile, platforms, progress, is_part: false, asked: None })
    }

    /// Says that the result is a part of another request's, and that somebody else tells of the Dockerfile.
    pub(super) fn part_of_another(self) -> Self {
        Self { progress: Progress::new(Arc::new(NoEvents)), is_part: true, ..self }
    }

    /// Says how the client wrote the request.
    pub(super) fn asked(self, asked: Asked<'a>) -> Self {
        Self { asked: Some(asked), ..self }
    }

    /// Reads, resolves and converts.
    pub(crate) async fn run(&self) -> Result<Answer, Vec<Diagnostic>> {
        let (context, source) = self.load().await.map_err(|e| vec![e])?;
        if let Some(forwarded) = self.forward(&source).await {
            return forwarded;
        }
        if let Some(asked) = &self.asked {
            super::options::check_capabilities(asked.options, true).map_err(|e| vec![e])?;
        }
        self.add_layouts();
        let resolver = Resolver(self.build);
        let mut options: Vec<ConvertOptions> =
            self.platforms.iter().map(|platform| self.convert_options(platform, &context)).collect();
        if self.dockerfile.call != Call::Build {
            let call = crate::services::call(self.dockerfile.call, &source, &options[0], &resolver).await?;
            return Ok(Answer::Called(call));
        }
        // Caches are read while base images are asked for, and only now: for another frontend's file, that build reads them.
        let (resolved, ()) = join(self.preflight(&source, &options), self.build.import_caches()).await;
        resolved?;
        let converted = self.convert(&source, &options).await?;
        let converted = self.narrow(&source, &mut options, converted, &context).await?;
        let converted = self.admit(converted).await?;
        let epoch = converted.iter().find_map(|one| one.epoch);
        let scans = self.scans(&converted, &options, &context).await.map_err(|e| vec![e])?;
        let mut result = self.result(converted, epoch).map_err(|e| vec![e])?;
        result.attestations = scans;
        Ok(Answer::Built(result))
    }

    /// Finds the main context and reads the Dockerfile.
    async fn load(&self) -> Result<(BuildContext, SourceFile), Diagnostic> {
        if let DockerfileSource::Client { directory, path } = &self.dockerfile.dockerfile {
            let directory = &self.build.admit_local(directory).await?;
            let step = self.progress().step(format!("[internal] load build definition from {path}"));
            let file = ClientDockerfile::fetch(self.job, &self.place(directory), path, &step).await;
            let file = step.end(file)?;
            self.build.scope.read(directory);
            let context = self.context(file.ignore).await?;
            let source = SourceFile::new(path.clone(), file.text);
            return Ok((context, SourceFile { definition: Some(file.definition), ..source }));
        }
        if self.has_local_dockerfile() {
            self.build.admit_local(DOCKERFILE).await?;
        }
        let context = self.context(None).await?;
        let source = self.load_dockerfile(&context).await;
        for named in &self.dockerfile.named_contexts {
            if let NamedContextSource::Directory(path) = &named.source {
                let name = format!("{MAIN}:{}", named.key());
                let request = local(&name, session_of(path));
                self.job.contexts.ignore(&request, IgnoreFile::read(path, None)?);
                self.job.contexts.get(&request, Digest::of(&name)).await?;
            }
        }
        Ok((context, source?))
    }

    /// Finds the main context; `special` is the Dockerfile's own ignore file, where it is known already.
    async fn context(&self, special: Option<IgnoreFile>) -> Result<BuildContext, Diagnostic> {
        match &self.dockerfile.context {
            ContextSource::Url(url) => {
                let options = self.convert_options(&self.platforms[0], &BuildContext::Nothing);
                let context = BuildContext::fetch(self.build, url, options).await?;
                Ok(context.below(self.dockerfile.context_directory.as_deref()))
            }
            ContextSource::Definition(definition) => {
                let context = BuildContext::of_definition(self.build, definition).await?;
                Ok(context.below(self.dockerfile.context_directory.as_deref()))
            }
            ContextSource::Client(name) => {
                let name = &self.build.admit_local(name).await?;
                let step = self.progress().step(format!("[internal] load {IGNORE}"));
                if special.is_none() {
                    self.build.scope.read(name);
                }
                let opened = ClientDirectory::open(self.job, &self.place(name), name, special, &step).await;
                step.done();
                Ok(opened.map_or_else(|why| BuildContext::Missing(Box::new(why)), BuildContext::Client))
            }
            ContextSource::Empty | ContextSource::Archive(_) | ContextSource::Directory(_) => {
                self.build.admit_local(MAIN).await?;
                self.local_context().await
            }
        }
    }

    /// Tells whether the Dockerfile is on this machine: not in a context elsewhere, nor at an address.
    fn has_local_dockerfile(&self) -> bool {
        let elsewhere =
            matches!(self.dockerfile.context, ContextSource::Url(_) | ContextSource::Definition(_));
        match &self.dockerfile.dockerfile {
            DockerfileSource::Path(path) => path.is_absolute() || !elsewhere,
            DockerfileSource::Inline(_) => true,
            DockerfileSource::Url(_)
            | DockerfileSource::Client { .. }
            | DockerfileSource::Definition { .. } => false,
        }
    }

    /// Opens a context that is on this machine.
    async fn local_context(&self) -> Result<BuildContext, Diagnostic> {
        let contexts = &self.job.contexts;
        let request = local(MAIN, self.session_of_context());
        contexts.comes_from(
            &request,
            match self.dockerfile.context {
                ContextSource::Empty => Origin::Nowhere,
                ContextSource::Archive(_) => Origin::Archive,
                _ => Origin::Named,
            },
        );
        let fetched = contexts.directory(&request, Digest::of(MAIN)).await?;
        match &self.dockerfile.context {
            ContextSource::Empty => {}
            _ => self.build.scope.read(MAIN),
        }
        self.build.scope.read(DOCKERFILE);
        let has_context = self.dockerfile.context != ContextSource::Empty;
        let directory = has_context.then_some(fetched.directory.path.as_path());
        let special = directory.and_then(|d| ignore_file_of(d, &self.dockerfile.dockerfile));
        contexts.ignore(&request, IgnoreFile::read(&fetched.directory.path, special)?);
        let context = contexts.get(&request, Digest::of(MAIN)).await?;
        Ok(match has_context {
            true => BuildContext::Local(context),
            false => BuildContext::Empty(context),
        })
    }

    async fn load_dockerfile(&self, context: &BuildContext) -> Result<SourceFile, Diagnostic> {
        let source = &self.dockerfile.dockerfile;
        let name = context.dockerfile_name(source);
        let step = self.progress().step(format!("[internal] load build definition from {name}"));
        step.end(context.read_dockerfile(self.build, source, &name).await)
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Names the session of the main context, where that is a directory of this machine.
    fn session_of_context(&self) -> String {
        match &self.dockerfile.context {
            ContextSource::Directory(path) => session_of(path),
            _ => String::new(),
        }
    }

    /// Has every platform's result scanned, if a bill of materials is asked for; what the Dockerfile says of the
    /// build context and of stages beside the result is known only here.
    async fn scans(
        &self,
        converted: &[Converted],
        options: &[ConvertOptions],
        context: &BuildContext,
    ) -> Result<BTreeMap<String, Vec<Attestation>>, Diagnostic> {
        let Some(asked) = &self.request.attestations.sbom else { return Ok(BTreeMap::new()) };
        let scope = &self.build.scope;
        let scanner = Scanner::resolve(asked, self.job, scope).await?;
        let ignore_cache = self.dockerfile.no_cache_stages == NoCache::All;
        let mut scans = BTreeMap::new();
        for ((one, options), platform) in converted.iter().zip(options).zip(&self.platforms) {
            let mut targets = Targets { core: one.definition.clone(), ..Targets::default() };
            if one.scan_context {
                let mut options = options.clone();
                if let (BuildContext::Client(directory), None) = (context, options.locals.get(MAIN)) {
                    let source = directory.source(&ContextPaths::All);
                    options.locals.insert(MAIN.to_owned(), source);
                }
                targets.extras.insert(MAIN.to_owned(), slipway_dockerfile::context_definition(&options)?);
            }
            let stages = one.scan_stages.iter().map(|stage| (stage.name.clone(), stage.definition.clone()));
            targets.extras.extend(stages);
            let platform =
                if self.request.platforms.is_empty() { one.image.platform() } else { platform.clone() };
            let id = platform.to_string();
            let scan = scanner.scan(&id, &targets, ignore_cache, scope)?;
            scans.insert(id, vec![scan]);
        }
        Ok(scans)
    }

    /// Makes the layouts that the request names known to the resolver.
    fn add_layouts(&self) {
        for context in &self.dockerfile.named_contexts {
            let name = context.key();
            match &context.source {
                NamedContextSource::OciLayout { path, selector } => {
                    self.job.images.add_layout(name, Layout::new(path), selector.clone());
                }
                NamedContextSource::ClientLayout { store, .. } => {
                    self.job.images.add_client_layout(name, store.clone());
                }
                _ => {}
            }
        }
    }

    /// Names a directory of the client, and the session that has it: what is made of it may go to another build.
    fn place(&self, name: &str) -> Place {
        let session = self.dockerfile.client_sessions.get(name).cloned();
        Place { name: name.to_owned(), session: session.unwrap_or_else(|| self.job.session.id()) }
    }

    /// Hands the request on to a frontend in an image, if the file or a build argument names one.
    async fn forward(&self, source: &SourceFile) -> Option<Result<Answer, Vec<Diagnostic>>> {
        use slipway_dockerfile::FrontendChoice::{BuiltIn, Image};
        // Who has named the frontend already means this one.
        if self.asked.is_some_and(|asked| asked.options.contains_key(image::COMMAND_LINE)) {
            return None;
        }
        let (reference, command_line, lines) =
            match slipway_dockerfile::frontend_for(source, &self.dockerfile.build_args) {
                BuiltIn => return None,
                Image { reference, command_line, lines } => (reference, command_line, lines),
            };
        let named_by = match lines {
            Some(_) => "the `# syntax=` line",
            None => "`--build-arg BUILDKIT_SYNTAX`",
        };
        let span = lines.map(|lines| SourceSpan { source: source.info(), ranges: lines.ranges() });
        let explain = |mut failure: Diagnostic| {
            if failure.hint.is_none() && failure.vertex.is_none() {
                failure = failure.hint(format!("leave out {named_by} if the file is an ordinary Dockerfile"));
            }
            if span.is_none() && failure.span.is_none() {
                let failed = format!("failed with build-arg:BUILDKIT_SYNTAX = {command_line}");
                let message = std::mem::replace(&mut failure.message, failed);
                failure.causes.insert(0, message);
            }
            failure.at(span.clone())
        };
        let answered = self.run_image(&reference, &command_line).await;
        Some(answered.map_err(|failures| failures.into_iter().map(explain).collect()))
    }

    async fn run_image(&self, reference: &str, command_line: &str) -> Result<Answer, Vec<Diagnostic>> {
        let Some(Asked { options, inputs }) = self.asked else {
            return Ok(Answer::Elsewhere(reference.to_owned()));
        };
        let (mut options, inputs) = (options.clone(), inputs.clone());
        options.insert(image::SOURCE.to_owned(), reference.to_owned());
        options.insert(image::COMMAND_LINE.to_owned(), command_line.to_owned());
        let result = super::run(self.build, "gateway.v0", &options, inputs).await?;
        match self.dockerfile.call {
            Call::Build => Ok(Answer::Built(result)),
            _ => Ok(Answer::Called(CallResult::of_result(&result))),
        }
    }

    /// Resolves an image by name as `FROM` would, for the build's own platform.
    pub(super) async fn base_image(
        &self,
        name: &str,
    ) -> Result<(Option<Ref>, slipway_model::ImageConfig), Vec<Diagnostic>> {
        self.add_layouts();
        let source = SourceFile::new(name, format!("FROM {name}\n"));
        let mut options = [self.convert_options(&Platform::host(), &BuildContext::Nothing)];
        self.preflight(&source, &options).await?;
        let converted = self.convert(&source, &options).await?;
        let converted = self.narrow(&source, &mut options, converted, &BuildContext::Nothing).await?;
        let one = self.admit(converted).await?.into_iter().next();
        let one = one.ok_or_else(|| vec![crate::error::internal("an image became nothing")])?;
        Ok((self.build.reference(one.definition).map_err(|e| vec![e])?, one.image))
    }

    fn convert_options(&self, platform: &Platform, context: &BuildContext) -> ConvertOptions {
        let request = self.request;
        let mut options = ConvertOptions::new(platform.clone(), Platform::host());
        options.target = self.dockerfile.target.clone();
        options.implicit_platform = request.platforms.is_empty();
        options.build_args = self.dockerfile.build_args.clone();
        options.labels = self.dockerfile.labels.clone();
        options.named_contexts = self.dockerfile.named_contexts.clone();
        options.main_context = context.main();
        options.no_cache = self.dockerfile.no_cache_stages.clone();
        options.pull = self.dockerfile.pull;
        options.network = request.steps.network;
        options.extra_hosts = request.steps.extra_hosts.clone();
        options.shm_size = request.steps.shm_size;
        options.ulimits = request.steps.ulimits.clone();
        options.hostname = request.steps.hostname.clone();
        options.cgroup_parent = request.steps.cgroup_parent.clone();
        options.resources = request.steps.resources.clone();
        options.multi_platform = self.platforms.len() > 1;
        options.entitlements = request.entitlements.clone();
        options.ignored = context.ignored();
        options.locals = self.locals();
        options
    }

    /// Returns the operations that give directories of this machine.
    fn locals(&self) -> BTreeMap<String, pb::SourceOp> {
        let source = |name: &str, path: &Path| {
            let mut source = slipway_dockerfile::local(name);
            source.attrs.insert("local.session".to_owned(), session_of(path));
            source
        };
        let mut locals = BTreeMap::new();
        if let ContextSource::Directory(path) = &self.dockerfile.context {
            locals.insert(MAIN.to_owned(), source(MAIN, path));
        }
        for named in &self.dockerfile.named_contexts {
            if let NamedContextSource::Directory(path) = &named.source {
                let key = named.key();
                locals.insert(key.clone(), source(&format!("{MAIN}:{key}"), path));
            }
        }
        locals
    }

    /// Resolves every base image for every platform at once, and reports all that is missing.
    async fn preflight(
        &self,
        source: &SourceFile,
        options: &[ConvertOptions],
    ) -> Result<(), Vec<Diagnostic>> {
        let mut wanted = Vec::new();
        for options in options {
            // What is wrong with the file is told by its conversion, with what else the checks found.
            let Ok(bases) = slipway_dockerfile::bases(source, options) else { return Ok(()) };
            wanted.extend(bases);
        }
        let mut seen = BTreeSet::new();
        wanted.retain(|base| seen.insert(format!("{} {} {:?}", base.reference, base.platform, base.origin)));
        let steps = wanted.iter().map(|base| base.reference.to_string()).collect::<BTreeSet<_>>();
        let steps: Vec<_> = steps
            .iter()
            .map(|name| self.progress().step(format!("[internal] load metadata for {name}")))
            .collect();
        let requests: Vec<ResolveRequest> = wanted.into_iter().map(request_of).collect();
        let resolved = join_all(requests.into_iter().map(|request| self.resolve(request))).await;
        let failures: Vec<Diagnostic> = resolved.into_iter().filter_map(Result::err).collect();
        match failures.first() {
            None => steps.into_iter().for_each(|step| step.done()),
            Some(failure) => steps.into_iter().for_each(|step| step.failed(failure)),
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// Resolves an image, or what the client's policy wants instead of it.
    async fn resolve(&self, request: ResolveRequest) -> Result<(), Diagnostic> {
        let images = &self.job.images;
        if request.origin == ImageOrigin::Registry {
            let admitted = self.build.admit_image(&request.reference, &request.platform).await;
            let admitted = admitted.map_err(|diagnostic| {
                let mut diagnostic = diagnostic.at(request.span.clone());
                let cause = std::mem::replace(
                    &mut diagnostic.message,
                    "could not resolve image due to policy".to_owned(),
                );
                diagnostic.causes.insert(0, cause);
                diagnostic
            })?;
            if let Some(source) = admitted {
                images.replace(&request.reference, &request.platform, source);
            }
        }
        images.resolve(request, &self.build.scope).await.map(drop)
    }

    /// Has the sources of what was converted decided about.
    async fn admit(&self, mut converted: Vec<Converted>) -> Result<Vec<Converted>, Vec<Diagnostic>> {
        for one in &mut converted {
            let definition = std::mem::take(&mut one.definition);
            one.definition = self.build.admit_all(definition, &[]).await.map_err(|e| vec![e])?;
        }
        Ok(converted)
    }

    async fn convert(
        &self,
        source: &SourceFile,
        options: &[ConvertOptions],
    ) -> Result<Vec<Converted>, Vec<Diagnostic>> {
        let resolver = &Resolver(self.build);
        let conversions =
            options.iter().map(|options| slipway_dockerfile::convert(source, options, resolver));
        let mut converted = Vec::with_capacity(options.len());
        let mut failures = Vec::new();
        for conversion in join_all(conversions).await {
            match conversion {
                Ok(one) => converted.push(one),
                Err(failure) => failures.push(failure),
            }
        }
        // The same is found once for each platform; told once, it is for all of them.
        match failures.into_iter().next() {
            None => {
                if let Some(first) = converted.first() {
                    self.warn(&first.warnings, &first.source);
                }
                Ok(converted)
            }
            Some(failure) => {
                self.warn(&failure.warnings, &source.info());
                Err(failure.diagnostics)
            }
        }
    }

    /// Converts again where directories of a client are used, so that only what is needed of them is fetched.
    async fn narrow(
        &self,
        source: &SourceFile,
        options: &mut [ConvertOptions],
        converted: Vec<Converted>,
        context: &BuildContext,
    ) -> Result<Vec<Converted>, Vec<Diagnostic>> {
        let needed = client::needed(converted.iter().map(|one| &one.contexts), MAIN);
        let mut locals = BTreeMap::new();
        match (context, needed.get(MAIN)) {
            (BuildContext::Client(directory), Some(paths)) => {
                locals.insert(MAIN.to_owned(), directory.source(paths));
            }
            (BuildContext::Missing(why), Some(_)) => return Err(vec![(**why).clone()]),
            _ => {}
        }
        for named in &self.dockerfile.named_contexts {
            let key = named.key();
            if let (NamedContextSource::Client(name), Some(paths)) = (&named.source, needed.get(&key)) {
                let hint = format!("{MAIN}:{key}");
                let step = self.progress().step(format!("[context {key}] load {IGNORE}"));
                let opened = ClientDirectory::open(self.job, &self.place(name), &hint, None, &step).await;
                let directory = step.end(opened).map_err(|e| vec![e])?;
                locals.insert(key, directory.source(paths));
            }
        }
        if locals.is_empty() {
            return Ok(converted);
        }
        for options in &mut *options {
            options.locals = locals.clone();
        }
        let resolver = &Resolver(self.build);
        let again = options.iter().map(|options| slipway_dockerfile::convert(source, options, resolver));
        join_all(again).await.into_iter().map(|one| one.map_err(|failure| failure.diagnostics)).collect()
    }

    /// Passes on what the checks found, each finding once.
    fn warn(&self, warnings: &[LintWarning], source: &Arc<pb::SourceInfo>) {
        if self.is_part {
            // The target's own build tells.
            return;
        }
        let mut told = BTreeSet::new();
        for warning in warnings {
            if !told.insert(format!("{:?} {}", warning.lines, warning.short())) {
                continue;
            }
            self.progress().warn(progress::Warning {
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

    fn result(&self, converted: Vec<Converted>, epoch: Option<i64>) -> Result<BuildResult, Diagnostic> {
        let several = self.platforms.len() > 1
            || self.dockerfile.build_args.get("BUILDKIT_MULTI_PLATFORM").is_some_and(|v| truthy(v));
        let mut result = BuildResult::new(Refs::Single(None), BTreeMap::new());
        let mut platforms = Vec::with_capacity(converted.len());
        let mut references = BTreeMap::new();
        for (asked, one) in self.platforms.iter().zip(converted) {
            let platform =
                if self.request.platforms.is_empty() { one.image.platform() } else { asked.clone() };
            let id = if several { platform.to_string() } else { String::new() };
            let json = |value: &slipway_model::ImageConfig| serde_json::to_vec(value).unwrap_or_default();
            result.metadata.insert(key_of(keys::CONFIG, &id), json(&one.image));
            if let Some(base) = &one.base {
                result.metadata.insert(key_of(keys::BASE_CONFIG, &id), json(&base.config));
            }
            let details =
                Details { layer_spans: layer_spans(&one), base: Base::of(&one), lint: one.lint.clone() };
            result.details.insert(id.clone(), details);
            // Those of the other platforms say the same, or what only this machine's user cannot mend.
            if references.is_empty() {
                result.warnings = one.warnings;
            }
            platforms.push((platform.to_string(), platform));
            references.insert(id, self.build.reference(one.definition)?);
        }
        result.refs = match several {
            true => Refs::ByPlatform(references),
            false => Refs::Single(references.into_values().next().flatten()),
        };
        result.set_platforms(platforms);
        if let Some(epoch) = epoch {
            result.metadata.insert(keys::EPOCH.to_owned(), epoch.to_string().into_bytes());
        }
        Ok(result)
    }
}

/// Asks for a directory as the frontend's own definitions do.
fn local(name: &str, session: String) -> LocalRequest {
    LocalRequest { shared_key_hint: name.to_owned(), session, ..LocalRequest::named(name) }
}

/// Finds `<Dockerfile>.dockerignore`, which wins over `.dockerignore`.
fn ignore_file_of(directory: &Path, dockerfile: &DockerfileSource) -> Option<PathBuf> {
    let DockerfileSource::Path(path) = dockerfile else { return None };
    let mut name = directory.join(path).into_os_string();
    name.push(".dockerignore");
    Some(PathBuf::from(name))
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

fn truthy(value: &str) -> bool {
    slipway_model::parse_bool(value) == Some(true)
}
