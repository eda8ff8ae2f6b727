//! The seam to the engine: every call that the command line makes of it, and the data it gets back.
//!
//! Commands know only this module. Builds run at a [`Place`]: in this process, or at nodes elsewhere.

mod caches;
mod embedded;
mod fan_out;
mod nodes;
mod remote;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde_json::{Map, Value};
use slipway_daemon::Frontends;
pub(crate) use slipway_daemon::client::Feature;
use slipway_daemon::client::Stepper;
use slipway_engine::config::Config;
use slipway_engine::history::{ExplainedStep, History, Outcome, Record, Recording, RequestRecord};
use slipway_engine::policy::{KnownSource, SourceJudge, Wanted as WantedOfSource};
use slipway_engine::{
    Attachment, CallResult, DebugOptions, DebugStep, Engine, EngineOptions, RemoteFiles, RemoteFilesRequest,
    runtime,
};
pub(crate) use slipway_engine::{
    CombineOptions, Combined, ImageSource, Inspection, Location, PlatformInspection, RunOptions, RunSource,
    Stated, Volume, Wanted,
};
use slipway_model::llb::pb;
use slipway_model::progress::EventSink;
use slipway_model::solve::{Call, Frontend};
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform, Reference, SolveRequest};
use tokio_util::sync::CancellationToken;

use crate::args::GlobalArgs;
use crate::builders::{self, BuildInputs, Docker, Selected, Store};
use crate::error::Failure;
use crate::settings::filter::Filter;
use embedded::Embedded;
use remote::Remote;

/// A builder with its state.
pub(crate) struct Builder {
    /// For what is here, wherever builds run: the store, registries, records of builds.
    engine: Engine,
    selected: Selected,
    place: Box<dyn Place>,
}

/// Where builds run, and what is kept of them there.
#[async_trait]
trait Place: Send + Sync {
    /// Builds, in the order of a stepper if there is one; `judge` is asked about every source.
    async fn build(
        &self,
        request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<BuildOutcome, Vec<Diagnostic>>;

    /// Finds out what a source stands for.
    async fn learn(&self, source: &pb::SourceOp, wanted: &WantedOfSource) -> Result<KnownSource, Diagnostic>;

    /// Returns the platform that is built for if nobody says which.
    async fn platform(&self) -> Result<Platform, Diagnostic>;

    /// Checks that the daemons that build do something; `name` is what an error calls it.
    async fn check_has(&self, feature: Feature, name: &str) -> Result<(), Diagnostic>;

    /// Lists what takes space.
    async fn disk_usage(&self) -> Result<Vec<UsageRecord>, Failure>;

    /// Removes what nothing uses; returns it.
    async fn prune(&self, options: &PruneOptions) -> Result<Vec<UsageRecord>, Failure>;

    /// Lists the documents of what a build has made.
    async fn attachments(&self, record: &Record) -> Result<Vec<Attachment>, Failure>;

    /// Reads one of the documents.
    async fn attachment(&self, digest: &Digest) -> Result<Vec<u8>, Failure>;

    /// Lists what a person should know before a build.
    fn notes(&self, request: &SolveRequest) -> Vec<String> {
        let _ = request;
        Vec::new()
    }

    /// Says, before the first build, that there will be several.
    fn share_directories(&mut self) {}

    /// Tidies up, if that is ours to do.
    fn tidy(&self) {}
}

/// The member of the metadata that names a build.
const BUILD_REF: &str = "buildx.build.ref";

/// Names a build among those of all builders.
fn reference(builder: &str, node: &str, id: &str) -> String {
    format!("{builder}/{node}/{id}")
}

/// What a build has made.
#[derive(Debug, Default)]
pub(crate) struct BuildOutcome {
    /// The members of the metadata file.
    pub(crate) metadata: Map<String, Value>,
    /// What answers a call.
    pub(crate) answer: Option<CallAnswer>,
}

/// What a call has found.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    /// For people.
    pub(crate) text: String,
    pub(crate) json: String,
    /// Something should be mended.
    pub(crate) failed: bool,
}

impl BuildOutcome {
    /// Returns what identifies the image: the config's digest, or that of an index.
    pub(crate) fn image_id(&self) -> Option<&str> {
        let text = |key: &str| self.metadata.get(key).and_then(Value::as_str);
        text("containerimage.config.digest").or_else(|| text("containerimage.digest"))
    }
}

/// An image in slipway's own store.
#[derive(Clone, Debug)]
pub(crate) struct StoredImage {
    pub(crate) name: Option<Reference>,
    pub(crate) digest: Digest,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) size: u64,
    pub(crate) created: SystemTime,
}

/// Something that takes space in the state.
#[derive(Clone, Debug)]
pub(crate) struct UsageRecord {
    pub(crate) id: String,
    pub(crate) parents: Vec<String>,
    pub(crate) kind: String,
    pub(crate) description: String,
    pub(crate) size: u64,
    pub(crate) mutable: bool,
    pub(crate) in_use: bool,
    pub(crate) shared: bool,
    pub(crate) usage_count: u64,
    pub(crate) created: SystemTime,
    pub(crate) last_used: Option<SystemTime>,
}

/// What `prune` removes.
#[derive(Debug, Default)]
pub(crate) struct PruneOptions {
    pub(crate) all: bool,
    pub(crate) filter: Filter,
    pub(crate) reserved_space: Option<u64>,
    pub(crate) max_used_space: Option<u64>,
    pub(crate) min_free_space: Option<u64>,
}

impl Builder {
    /// Opens the state, with the powers that steps and their files need; call it before any thread.
    pub(crate) fn open(global: &GlobalArgs) -> Result<Self, Failure> {
        let selected = builders::select(global.builder.as_deref(), &Docker::of_process())?;
        if selected.elsewhere.is_some() {
            // Steps run elsewhere: nothing here needs powers.
            return Self::with(global, selected);
        }
        runtime::rootless::enter_if_needed().map_err(|error| {
            let mut diagnostic = Diagnostic::from_error(error.kind(), &error);
            diagnostic.hint = error.hint();
            diagnostic
        })?;
        Self::open_unprivileged(global)
    }

    /// Opens the state for what reads and asks only.
    pub(crate) fn open_unprivileged(global: &GlobalArgs) -> Result<Self, Failure> {
        Self::with(global, builders::select(global.builder.as_deref(), &Docker::of_process())?)
    }

    /// Tells whether platforms may be built in different places.
    pub(crate) fn has_several_nodes(global: &GlobalArgs) -> Result<bool, Failure> {
        Ok(builders::select(global.builder.as_deref(), &Docker::of_process())?.has_several_nodes())
    }

    /// Tells whether this builder builds in different places.
    pub(crate) fn is_spread(&self) -> bool {
        self.selected.has_several_nodes()
    }

    /// Says, before the first build, that there will be several: what they read of directories they have in common.
    pub(crate) fn share_directories(&mut self) {
        self.place.share_directories();
    }

    fn with(global: &GlobalArgs, selected: Selected) -> Result<Self, Failure> {
        let options = EngineOptions {
            root: global.root.clone(),
            config: Config::load(global.config.clone().or_else(|| selected.config.clone()))?,
            emulators: global.emulator.clone(),
            frontends: Some(Arc::new(Frontends::default())),
            one_command: true,
        };
        let engine = Engine::open(options)?;
        let place: Box<dyn Place> = match &selected.elsewhere {
            Some(group) => Box::new(Remote::new(engine.clone(), group.clone())),
            None => Box::new(Embedded {
                engine: engine.clone(),
                name: selected.name.clone(),
                node: selected.node.clone(),
            }),
        };
        Ok(Self { engine, selected, place })
    }

    /// Lists what a person should know of the builder: what of its configuration has no effect.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self.selected.elsewhere {
            Some(_) => Vec::new(),
            None => self.engine.notes().to_vec(),
        }
    }

    /// Returns the driver and the name of a builder that builds elsewhere.
    pub(crate) fn label(&self) -> Option<(String, String)> {
        self.selected.elsewhere.as_ref().map(|group| (group.driver.clone(), group.name.clone()))
    }

    /// Returns what a build of this builder is called.
    pub(crate) fn reference_of(&self, id: &str) -> String {
        reference(&self.selected.name, &self.selected.node, id)
    }

    /// Lists what a person should know before a build.
    pub(crate) fn notes_on(&self, request: &SolveRequest) -> Vec<String> {
        self.place.notes(request)
    }

    /// Builds, in the order of a stepper if there is one; `judge` is asked about every source.
    pub(crate) async fn build(
        &self,
        request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<BuildOutcome, Vec<Diagnostic>> {
        self.note_use(&request);
        let recording = self.begin(&request);
        let events = match &recording {
            Some(recording) => recording.sink(events),
            None => events,
        };
        let solved = self.place.build(request, judge, events, cancel.clone(), stepper).await;
        if let Some(recording) = recording {
            let (outcome, metadata) = match &solved {
                Ok(built) => (Outcome::Completed, built.metadata.clone()),
                Err(_) if cancel.is_cancelled() => (Outcome::Canceled, Map::new()),
                Err(errors) => {
                    let first = errors.first().map(|error| error.message.clone()).unwrap_or_default();
                    (Outcome::Failed(first), Map::new())
                }
            };
            recording.finish(outcome, metadata);
        }
        solved
    }

    /// Starts the record of a build; looking at a Dockerfile is none.
    fn begin(&self, request: &SolveRequest) -> Option<Recording> {
        if matches!(&request.frontend, Frontend::Dockerfile(dockerfile) if dockerfile.call != Call::Build) {
            return None;
        }
        // A state that cannot be written to fails the build itself, with a better error.
        self.engine.history().begin(&request.id, RequestRecord::from(request)).ok()
    }

    /// Returns the records of what was built.
    pub(crate) fn history(&self) -> History {
        self.engine.history()
    }

    /// Finds out what a source stands for.
    pub(crate) async fn learn(
        &self,
        source: &pb::SourceOp,
        wanted: &WantedOfSource,
    ) -> Result<KnownSource, Diagnostic> {
        self.place.learn(source, wanted).await
    }

    /// Returns the platform that is built for if nobody says which.
    pub(crate) async fn platform(&self) -> Result<Platform, Diagnostic> {
        self.place.platform().await
    }

    /// Checks that what builds does something; `name` is what an error calls it.
    pub(crate) async fn check_has(&self, feature: Feature, name: &str) -> Result<(), Diagnostic> {
        self.place.check_has(feature, name).await
    }

    /// Fetches files from an address.
    pub(crate) async fn remote_files(
        &self,
        request: RemoteFilesRequest,
        events: Arc<dyn EventSink>,
        cancel: &CancellationToken,
    ) -> Result<RemoteFiles, Diagnostic> {
        self.engine.remote_files(request, events, cancel).await
    }

    /// Lists the documents of what a build has made, as far as the builder keeps them.
    pub(crate) async fn attachments(&self, record: &Record) -> Result<Vec<Attachment>, Failure> {
        self.check_builder_of(record)?;
        self.place.attachments(record).await
    }

    /// Reads one of the documents.
    pub(crate) async fn attachment(&self, record: &Record, digest: &Digest) -> Result<Vec<u8>, Failure> {
        self.check_builder_of(record)?;
        self.place.attachment(digest).await
    }

    /// Refuses a build that another builder has made, which has its documents.
    fn check_builder_of(&self, record: &Record) -> Result<(), Failure> {
        let reference = record.metadata.get(BUILD_REF).and_then(Value::as_str).unwrap_or_default();
        match reference.split('/').next().filter(|name| !name.is_empty()) {
            Some(name) if name != self.selected.name => Err(Diagnostic::new(
                ErrorKind::User,
                format!("`{}` was built by the builder `{name}`", record.id),
            )
            .hint(format!("ask that one, with `--builder {name}`"))
            .into()),
            _ => Ok(()),
        }
    }

    /// Finds a step of a build that a program can be started in.
    pub(crate) fn debug_step(&self, reference: &str, step: Option<&str>) -> Result<DebugStep, Failure> {
        Ok(self.engine.debug_step(reference, step)?)
    }

    /// Runs a program in a step, with this process's streams; returns its exit code.
    pub(crate) async fn debug(
        &self,
        step: &DebugStep,
        options: DebugOptions<'_>,
        cancel: &CancellationToken,
    ) -> Result<u8, Failure> {
        Ok(self.engine.debug(step, options, cancel).await?)
    }

    /// Tells of each step of a build whether it was in the cache, and why.
    pub(crate) fn explain(&self, reference: &str) -> Result<Vec<ExplainedStep>, Failure> {
        Ok(self.engine.explain(reference)?)
    }

    /// Notes when a builder with a name of its own was last used, and for what: Docker's other tools look there.
    fn note_use(&self, request: &SolveRequest) {
        if self.selected.name == builders::DEFAULT {
            return;
        }
        // What cannot be written down is no reason not to build.
        let noted = Store::open(Docker::of_process().builders()).and_then(|store| {
            store.touch(&self.selected.name)?;
            match BuildInputs::of(request) {
                Some(inputs) => store.save_inputs(&self.reference_of(&request.id), &inputs),
                None => Ok(()),
            }
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "the builder's use cannot be noted");
        }
    }

    /// Tidies the state, if that is due; for when everything the user waits for is done.
    pub(crate) fn tidy(&self) {
        self.place.tidy();
    }

    /// Reads an image where it is.
    pub(crate) async fn inspect(&self, location: &Location) -> Result<Inspection, Failure> {
        Ok(self.engine.inspect(location).await?)
    }

    /// Reads what an image has for each platform.
    pub(crate) async fn inspect_platforms(
        &self,
        found: &Inspection,
        wanted: Wanted,
    ) -> Result<Vec<PlatformInspection>, Failure> {
        Ok(self.engine.inspect_platforms(found, wanted).await?)
    }

    /// Makes one image of several; nothing is written.
    pub(crate) async fn combine(
        &self,
        sources: &[ImageSource],
        options: &CombineOptions,
    ) -> Result<Combined, Failure> {
        Ok(self.engine.combine(sources, options).await?)
    }

    /// Copies an image to its places and names it there.
    pub(crate) async fn publish(
        &self,
        image: &Combined,
        targets: &[Location],
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<(), Failure> {
        Ok(self.engine.publish(image, targets, events, cancel).await?)
    }

    /// Lists the images in the store.
    pub(crate) fn images(&self) -> Result<Vec<StoredImage>, Failure> {
        let images = self.engine.images()?.into_iter().map(|image| StoredImage {
            name: image.name.parse().ok(),
            digest: image.descriptor.digest,
            platforms: image.platforms,
            size: image.size,
            created: image.created,
        });
        Ok(images.collect())
    }

    /// Lists what takes space.
    pub(crate) async fn disk_usage(&self) -> Result<Vec<UsageRecord>, Failure> {
        self.place.disk_usage().await
    }

    /// Removes what nothing uses; returns it.
    pub(crate) async fn prune(&self, options: &PruneOptions) -> Result<Vec<UsageRecord>, Failure> {
        self.place.prune(options).await
    }

    /// Pushes an image of the store; returns its digest.
    pub(crate) async fn push(
        &self,
        image: &Reference,
        target: &Reference,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<Digest, Failure> {
        Ok(self.engine.push(image, target, events, cancel).await?)
    }

    /// Runs a program in an image; returns its exit code.
    pub(crate) async fn run(
        &self,
        options: RunOptions,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<u8, Failure> {
        Ok(self.engine.run(options, events, cancel).await?)
    }
}

impl From<CallResult> for CallAnswer {
    fn from(call: CallResult) -> Self {
        Self { text: call.text, json: call.json, failed: call.failed }
    }
}
