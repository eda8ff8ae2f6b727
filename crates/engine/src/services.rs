//! What is asked of an engine besides building: what a Dockerfile has to say, what is in the store.

use std::sync::Arc;
use std::time::SystemTime;

use slipway_dockerfile::{ConvertOptions, ImageResolver, SourceFile};
use slipway_model::progress::{EventSink, NoEvents};
use slipway_model::solve::Call;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex, MediaType, Platform, Reference};
use slipway_store::{PruneOptions, UsageItem};

use tokio_util::sync::CancellationToken;

use crate::build::BuildOptions;
use crate::engine::Engine;
use crate::error::Context as _;
use crate::exporters::{self, Attested, Built};
use crate::frontend::CallResult;
use crate::job::Job;

/// The largest document of the store that is read.
const MAX_DOCUMENT: u64 = 8 << 20;

/// An image in slipway's own store.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    pub name: String,
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
    /// Bytes of all layers, compressed, of all platforms; shared ones once.
    pub size: u64,
    pub created: SystemTime,
}

impl Engine {
    /// Reads a Dockerfile at an address.
    pub async fn fetch_dockerfile(&self, url: &str) -> Result<Vec<u8>, Diagnostic> {
        let cancel = CancellationToken::new();
        let build = self.start(BuildOptions::local(String::new()), Arc::new(NoEvents), &cancel)?;
        crate::frontend::download(&build, url).await
    }

    /// Lists the images that have a name.
    pub fn images(&self) -> Result<Vec<ImageSummary>, Diagnostic> {
        let images = self.inner.store.images().list().diagnose()?;
        Ok(images.into_iter().map(|image| self.summarize(image)).collect())
    }

    fn summarize(&self, image: slipway_store::NamedImage) -> ImageSummary {
        let content = self.inner.store.content();
        let read = |descriptor: &Descriptor| content.read(&descriptor.digest, MAX_DOCUMENT).ok();
        let manifests: Vec<Descriptor> = match MediaType::is_index(&image.descriptor.media_type) {
            true => read(&image.descriptor)
                .and_then(|text| serde_json::from_slice::<ImageIndex>(&text).ok())
                .map(|index| index.manifests)
                .unwrap_or_default(),
            false => vec![image.descriptor.clone()],
        };
        let mut platforms = Vec::new();
        let mut layers = std::collections::BTreeMap::new();
        for descriptor in manifests.iter().filter(|descriptor| !Attested::is(descriptor)) {
            let Some(manifest) = read(descriptor)
                .and_then(|text| serde_json::from_slice::<slipway_model::Manifest>(&text).ok())
            else {
                continue;
            };
            layers.extend(manifest.layers.iter().map(|layer| (layer.digest, layer.size)));
            let stated = descriptor.platform.clone();
            let platform = stated.or_else(|| {
                let config: slipway_model::ImageConfig =
                    serde_json::from_slice(&read(&manifest.config)?).ok()?;
                Some(config.platform())
            });
            platforms.extend(platform);
        }
        ImageSummary {
            name: image.name,
            descriptor: image.descriptor,
            platforms,
            size: layers.values().sum(),
            created: image.updated_at,
        }
    }

    /// Takes an image's name away; what only it needed is freed by the next collection.
    pub fn remove_image(&self, name: &Reference) -> Result<(), Diagnostic> {
        let name = name.with_default_tag().to_string();
        match self.inner.store.images().remove(&name).diagnose()? {
            true => Ok(()),
            false => Err(Diagnostic::new(ErrorKind::User, format!("there is no image `{name}`"))
                .hint("`slipway images` lists those there are")),
        }
    }

    /// Pushes an image of the store to a repository; returns the digest of what has the name now.
    pub async fn push(
        &self,
        image: &Reference,
        target: &Reference,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<Digest, Diagnostic> {
        let name = image.with_default_tag().to_string();
        let stored = self.inner.store.images().get(&name).diagnose()?.ok_or_else(|| {
            Diagnostic::new(ErrorKind::User, format!("there is no image `{name}`"))
                .hint("`slipway images` lists those there are")
        })?;
        let built = Built::read(&self.inner.store, &stored.descriptor)?;
        let job = Arc::new(Job::start(&self.inner, BuildOptions::local("push"), events, cancel)?);
        let step = job.progress.step(format!("pushing {}", target.with_default_tag()));
        let pushed = exporters::push::push(&job, &built, target, (false, false), &step).await;
        step.end(pushed)?;
        Ok(built.root.descriptor.digest)
    }

    /// Opens a blob of the store.
    pub fn open_blob(&self, digest: &Digest) -> Result<std::fs::File, Diagnostic> {
        self.inner.store.content().open(digest).diagnose()
    }

    /// Lists what takes up space.
    pub fn usage(&self) -> Result<Vec<UsageItem>, Diagnostic> {
        self.inner.store.usage().diagnose()
    }

    /// Frees space; what a running build needs stays.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<Vec<UsageItem>, Diagnostic> {
        self.inner.store.prune(options).diagnose()
    }
}

/// Answers a call that looks at the Dockerfile only.
pub(crate) async fn call(
    call: Call,
    source: &SourceFile,
    options: &ConvertOptions,
    resolver: &dyn ImageResolver,
) -> Result<CallResult, Vec<Diagnostic>> {
    match call {
        Call::Build => Err(vec![crate::error::internal("a build is not a call")]),
        Call::Describe => {
            let (text, json) =
                (slipway_dockerfile::describe_text(false), slipway_dockerfile::describe_text(true));
            Ok(CallResult { failed: false, text, json })
        }
        Call::Check => {
            let results = slipway_dockerfile::check(source, options, resolver).await;
            Ok(CallResult { failed: !results.is_clean(), text: results.to_text(), json: results.to_json() })
        }
        Call::Outline => {
            let outline = slipway_dockerfile::outline(source, options, resolver)
                .await
                .map_err(|failure| failure.diagnostics)?;
            Ok(CallResult { failed: false, text: outline.to_text(), json: outline.to_json() })
        }
        Call::Targets => {
            let targets = slipway_dockerfile::targets(source)?;
            Ok(CallResult { failed: false, text: targets.to_text(), json: targets.to_json() })
        }
    }
}
