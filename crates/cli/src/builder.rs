//! The seam to the engine: every call that the command line makes of it, and the data it gets back.
//!
//! Commands know only this module; what is behind it may become a daemon or a remote builder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use slipway_model::progress::EventSink;
use slipway_model::solve::{LayoutSelector, NetworkMode};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, Platform, Reference, SolveRequest};
use tokio_util::sync::CancellationToken;

use crate::args::GlobalArgs;
use crate::error::Failure;
use crate::settings::filter::Filter;

/// A builder with its state.
pub(crate) struct Builder {
    _root: Option<PathBuf>,
    _config: Option<PathBuf>,
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
    pub(crate) json: Value,
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

/// What a registry holds under a name.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) reference: Reference,
    pub(crate) descriptor: Descriptor,
    /// The manifest or index, as it is in the registry.
    pub(crate) raw: Vec<u8>,
    /// The configs by platform; empty unless they were asked for.
    pub(crate) images: Vec<(Platform, Value)>,
}

/// An image in slipway's own store.
#[derive(Clone, Debug)]
pub(crate) struct StoredImage {
    pub(crate) name: Option<Reference>,
    pub(crate) digest: Digest,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) size: u64,
    pub(crate) created: Option<SystemTime>,
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

/// What `run` runs, and how.
#[derive(Debug)]
pub(crate) struct RunSettings {
    pub(crate) image: RunImage,
    pub(crate) platform: Platform,
    pub(crate) command: Vec<String>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) volumes: Vec<RunVolume>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) network: NetworkMode,
    pub(crate) interactive: bool,
    pub(crate) terminal: bool,
    pub(crate) pull: bool,
}

/// Where an image to run is.
#[derive(Debug)]
pub(crate) enum RunImage {
    Named(Reference),
    Layout { path: PathBuf, selector: LayoutSelector },
}

/// A directory or file of the host that the program sees.
#[derive(Debug)]
pub(crate) struct RunVolume {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

impl Builder {
    /// Opens the state, with the powers that steps and their files need; call it before any thread.
    pub(crate) fn open(global: &GlobalArgs) -> Result<Self, Failure> {
        slipway_runtime::rootless::enter_if_needed().map_err(|error| {
            let mut diagnostic = Diagnostic::from_error(error.kind(), &error);
            diagnostic.hint = error.hint();
            diagnostic
        })?;
        Self::open_unprivileged(global)
    }

    /// Opens the state for what reads and asks only.
    pub(crate) fn open_unprivileged(global: &GlobalArgs) -> Result<Self, Failure> {
        Ok(Self { _root: global.root.clone(), _config: global.config.clone() })
    }

    /// Builds.
    pub(crate) async fn build(
        &self,
        _request: SolveRequest,
        _events: Arc<dyn EventSink>,
        _cancel: CancellationToken,
    ) -> Result<BuildOutcome, Vec<Diagnostic>> {
        Err(vec![Diagnostic::new(ErrorKind::Internal, "`build` is not connected to the engine")])
    }

    /// Asks a registry for an image; its configs too if `configs`.
    pub(crate) async fn inspect(&self, _name: &Reference, _configs: bool) -> Result<Inspected, Failure> {
        Err(unconnected("imagetools inspect"))
    }

    /// Lists the images in the store.
    pub(crate) fn images(&self) -> Result<Vec<StoredImage>, Failure> {
        Err(unconnected("images"))
    }

    /// Lists what takes space.
    pub(crate) fn disk_usage(&self) -> Result<Vec<UsageRecord>, Failure> {
        Err(unconnected("du"))
    }

    /// Removes what nothing uses; returns it.
    pub(crate) fn prune(&self, _options: &PruneOptions) -> Result<Vec<UsageRecord>, Failure> {
        Err(unconnected("prune"))
    }

    /// Pushes an image of the store; returns its digest.
    pub(crate) async fn push(
        &self,
        _image: &Reference,
        _target: &Reference,
        _events: Arc<dyn EventSink>,
        _cancel: CancellationToken,
    ) -> Result<Digest, Failure> {
        Err(unconnected("push"))
    }

    /// Runs a program in an image; returns its exit code.
    pub(crate) async fn run(
        &self,
        _settings: RunSettings,
        _events: Arc<dyn EventSink>,
        _cancel: CancellationToken,
    ) -> Result<u8, Failure> {
        Err(unconnected("run"))
    }
}

fn unconnected(what: &str) -> Failure {
    Diagnostic::new(ErrorKind::Internal, format!("`{what}` is not connected to the engine")).into()
}
