//! The seam to the engine: every call that the command line makes of it, and the data it gets back.
//!
//! Commands know only this module; what is behind it may become a daemon or a remote builder.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use slipway_daemon::Frontends;
use slipway_engine::history::{ExplainedStep, History, Outcome, Recording, RequestRecord};
use slipway_engine::store::{self, UsageItem, UsageKind};
pub(crate) use slipway_engine::{
    CombineOptions, Combined, ImageSource, Inspection, Location, PlatformInspection, RunOptions, RunSource,
    Stated, Volume, Wanted,
};
use slipway_engine::{DebugOptions, DebugStep, Engine, EngineOptions, SolveResponse, runtime};
use slipway_model::progress::EventSink;
use slipway_model::solve::{Call, Frontend};
use slipway_model::{Diagnostic, Digest, Platform, Reference, SolveRequest};
use tokio_util::sync::CancellationToken;

use crate::args::GlobalArgs;
use crate::builders::{self, Docker, Selected, Store};
use crate::error::Failure;
use crate::settings::filter::Filter;

/// A builder with its state.
pub(crate) struct Builder {
    engine: Engine,
    selected: Selected,
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
        runtime::rootless::enter_if_needed().map_err(|error| {
            let mut diagnostic = Diagnostic::from_error(error.kind(), &error);
            diagnostic.hint = error.hint();
            diagnostic
        })?;
        Self::open_unprivileged(global)
    }

    /// Opens the state for what reads and asks only.
    pub(crate) fn open_unprivileged(global: &GlobalArgs) -> Result<Self, Failure> {
        let selected = builders::select(global.builder.as_deref(), &Docker::of_process())?;
        let options = EngineOptions {
            root: global.root.clone(),
            config: global.config.clone().or_else(|| selected.config.clone()),
            emulators: global.emulator.clone(),
            frontends: Some(Arc::new(Frontends::default())),
            ..EngineOptions::default()
        };
        Ok(Self { engine: Engine::open(options)?, selected })
    }

    /// Lists what a person should know of the builder: how it was chosen, what of its configuration has no effect.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.selected.notes.iter().chain(self.engine.notes()).cloned().collect()
    }

    /// Builds.
    pub(crate) async fn build(
        &self,
        request: SolveRequest,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome, Vec<Diagnostic>> {
        self.note_use();
        let recording = self.begin(&request);
        let events = match &recording {
            Some(recording) => recording.sink(events),
            None => events,
        };
        let mut solved = self.engine.solve(request, events, cancel.clone()).await.map(BuildOutcome::from);
        if let Ok(built) = &mut solved
            && let Some(Value::String(reference)) = built.metadata.get_mut("buildx.build.ref")
        {
            *reference = format!("{}/{}/{reference}", self.selected.name, self.selected.node);
        }
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

    /// Returns what a build is called in `buildx.build.ref`.
    pub(crate) fn full_reference(id: &str) -> String {
        format!("default/default/{id}")
    }

    /// Notes when a builder with a name of its own was last used.
    fn note_use(&self) {
        if self.selected.name == builders::DEFAULT {
            return;
        }
        // A time that cannot be written down is no reason not to build.
        let _ =
            Store::open(Docker::of_process().builders()).and_then(|store| store.touch(&self.selected.name));
    }

    /// Tidies the state, if that is due; for when everything the user waits for is done.
    pub(crate) fn tidy(&self) {
        self.engine.collect_garbage();
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
    pub(crate) fn disk_usage(&self) -> Result<Vec<UsageRecord>, Failure> {
        Ok(self.engine.usage()?.iter().map(UsageRecord::from).collect())
    }

    /// Removes what nothing uses; returns it.
    pub(crate) fn prune(&self, options: &PruneOptions) -> Result<Vec<UsageRecord>, Failure> {
        let now = SystemTime::now();
        let wanted = |item: &UsageItem| options.filter.matches(&UsageRecord::from(item), now);
        let removed = self.engine.prune(&store::PruneOptions {
            all: options.all,
            keep_duration: options.filter.until,
            filter: Some(&wanted),
            max_used: options.max_used_space.unwrap_or(0),
            reserved: options.reserved_space.unwrap_or(0),
            min_free: options.min_free_space.unwrap_or(0),
            dry_run: false,
        })?;
        Ok(removed.iter().map(UsageRecord::from).collect())
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

impl From<SolveResponse> for BuildOutcome {
    fn from(response: SolveResponse) -> Self {
        let answer =
            response.call.map(|call| CallAnswer { text: call.text, json: call.json, failed: call.failed });
        Self { metadata: response.metadata, answer }
    }
}

impl From<&UsageItem> for UsageRecord {
    fn from(item: &UsageItem) -> Self {
        Self {
            id: item.id.to_string(),
            parents: item.parents.iter().map(ToString::to_string).collect(),
            kind: item.kind.name().to_owned(),
            description: item.description.clone(),
            size: item.size,
            // Only cache mounts are written to.
            mutable: item.kind == UsageKind::CacheMount,
            in_use: item.in_use,
            shared: item.shared,
            usage_count: item.use_count,
            created: item.created_at,
            last_used: Some(item.last_used_at),
        }
    }
}
