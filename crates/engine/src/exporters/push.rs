//! Pushing an image: what is missing, in the order that never leaves a name pointing at nothing.
//!
//! Blobs first, then manifests by digest, the index, and the tag last. The questions come in the other order:
//! a registry that has the index has everything below it, so pushing what was pushed before costs one request.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use slipway_model::{Descriptor, Diagnostic, MediaType, Reference};
use slipway_registry::{Access, BlobSource as Body, Client, PushOptions, Pushed};

use super::Built;
use super::ahead::Ahead;
use super::assemble::{Document, Image};
use super::attested::Attested;
use crate::blobs::BlobSource;
use crate::error::Context as _;
use crate::job::Job;
use crate::progress::Step;

/// The size from which on a layer's progress is told.
const SHOWN: u64 = 1 << 20;

/// Pushes to the repository of `name`, and gives the image that name; a part of `step`.
pub(crate) async fn push(
    job: &Arc<Job>,
    built: &Built,
    name: &Reference,
    (by_digest, insecure): (bool, bool),
    step: &Step,
) -> Result<(), Diagnostic> {
    let digest = built.root.descriptor.digest;
    let name = match by_digest {
        true => name.without_tag().with_digest(digest),
        false => name.with_default_tag(),
    };
    let client = job.blobs.client().insecure(insecure);
    let pusher = Pusher { job, client, name, ahead: Some(&built.ahead), step };
    pusher.push(built).await?;
    built.ahead.settle().await;
    Ok(())
}

/// Pushes to one name.
pub(crate) struct Pusher<'a> {
    job: &'a Arc<Job>,
    client: Client,
    name: Reference,
    ahead: Option<&'a Ahead>,
    step: &'a Step,
}

impl<'a> Pusher<'a> {
    /// Pushes the parts of a cache, whose layers are told of by the caller.
    pub(crate) fn of_cache(job: &'a Arc<Job>, client: Client, name: Reference, step: &'a Step) -> Self {
        Self { job, client, name, ahead: None, step }
    }

    /// Tells whether the name stands for a manifest already.
    pub(crate) async fn has(&self, manifest: &Document) -> bool {
        let there = self.client.resolve(&self.name, Access::Push).await;
        there.is_ok_and(|there| there.digest == manifest.descriptor.digest)
    }

    /// Gives the name to a manifest whose parts are there.
    pub(crate) async fn named_manifest(&self, manifest: &Document) -> Result<(), Diagnostic> {
        self.manifest(&self.name, manifest).await
    }

    /// Pushes what is missing, and says so below the step as BuildKit does.
    async fn push(&self, built: &Built) -> Result<(), Diagnostic> {
        let root = &built.root;
        let doing = |what: String| self.step.progress().counter(self.step.digest(), what, 0);
        let naming =
            || doing(format!("pushing manifest for {}", self.name.with_digest(root.descriptor.digest)));
        // An error here is not the last word: a registry may refuse reading and allow writing.
        if self.has(root).await {
            drop(naming());
            return Ok(());
        }
        let layers = doing("pushing layers".to_owned());
        let by_digest = self.name.without_tag().with_digest(root.descriptor.digest);
        let tagged = self.name.tag().is_some();
        let known = tagged && self.client.resolve(&by_digest, Access::Push).await.is_ok();
        if !known {
            let images = built.images.iter().map(|image| self.image(image, built.is_index).boxed());
            let attested = built.attested.iter().map(|attested| self.attested(attested).boxed());
            let mut parts: FuturesUnordered<_> = images.chain(attested).collect();
            while let Some(done) = parts.next().await {
                done?;
            }
        }
        drop(layers);
        let _naming = naming();
        self.manifest(&self.name, root).await
    }

    async fn image(&self, image: &Image, is_index: bool) -> Result<(), Diagnostic> {
        let by_digest = self.name.without_tag().with_digest(image.manifest.descriptor.digest);
        if is_index && self.client.resolve(&by_digest, Access::Push).await.is_ok() {
            return Ok(());
        }
        let mut blobs: FuturesUnordered<_> =
            image.layers.iter().map(|layer| self.layer(&layer.descriptor)).collect();
        let config = self.config(&image.config);
        let layers = async {
            while let Some(done) = blobs.next().await {
                done?;
            }
            Ok::<(), Diagnostic>(())
        };
        let (config, layers) = futures_util::future::join(config, layers).await;
        config?;
        layers?;
        if is_index {
            self.manifest(&by_digest, &image.manifest).await?;
        }
        Ok(())
    }

    async fn attested(&self, attested: &Attested) -> Result<(), Diagnostic> {
        let by_digest = self.name.without_tag().with_digest(attested.manifest.descriptor.digest);
        if self.client.resolve(&by_digest, Access::Push).await.is_ok() {
            return Ok(());
        }
        let blobs = attested.statements.iter().chain([&attested.config]).map(|blob| self.config(blob));
        futures_util::future::try_join_all(blobs).await?;
        self.manifest(&by_digest, &attested.manifest).await
    }

    pub(crate) async fn layer(&self, layer: &Descriptor) -> Result<(), Diagnostic> {
        let slot = self.job.pushed_slot(&self.name.repository(), &layer.digest);
        slot.get_or_init(|| self.layer_once(layer)).await.clone()
    }

    async fn layer_once(&self, layer: &Descriptor) -> Result<(), Diagnostic> {
        let doing = || format!("cannot push the layer {} to {}", layer.digest, self.name);
        let repositories: Vec<Reference> = self
            .job
            .blobs
            .sources(&layer.digest)
            .into_iter()
            .filter_map(|source| match source {
                BlobSource::Registry(repository) => Some(repository),
                BlobSource::Layout(_) | BlobSource::Client(_) | BlobSource::Bucket(_) => None,
            })
            .collect();
        // A small layer is there before anyone could read how far it is.
        let counter = || {
            let name = format!("pushing layer {}", layer.digest);
            let count = || self.step.progress().counter(self.step.digest(), name, layer.size);
            (self.ahead.is_some() && layer.size >= SHOWN).then(count)
        };
        if let Some(ahead) = self.ahead
            && let Some(arrived) = ahead.arrival(&self.name, &layer.digest, counter).await
        {
            arrived.context(doing)?;
            self.job.blobs.remember(&layer.digest, &BlobSource::Registry(self.name.without_tag()));
            return Ok(());
        }
        let counter = counter().map(Arc::new);
        let options = PushOptions {
            mount_from: repositories.clone(),
            known_missing: false,
            progress: counter
                .map(|counter| Arc::new(move |sent| counter.set(sent)) as slipway_registry::Progress),
        };
        let content = self.job.engine.store.content();
        let here = content.contains(&layer.digest).diagnose()?.is_some();
        let pushed = match repositories.first().filter(|_| !here) {
            // A layer that was never downloaded goes from registry to registry, through us only if it must.
            Some(from) => match self.client.copy_blob(from, &self.name, layer, &options).await {
                // What a cache has lost is told by fetching it.
                Err(_) if self.job.blobs.is_of_cache(&layer.digest) => self.send(layer, &options).await?,
                copied => copied.context(doing)?,
            },
            None => self.send(layer, &options).await?,
        };
        if pushed != Pushed::Exists {
            self.job.blobs.remember(&layer.digest, &BlobSource::Registry(self.name.without_tag()));
        }
        Ok(())
    }

    /// Pushes a layer from the store, where it is after this if it was not.
    async fn send(&self, layer: &Descriptor, options: &PushOptions) -> Result<Pushed, Diagnostic> {
        self.job.blobs.ensure(std::slice::from_ref(layer), self.step.digest()).await?;
        let body = Body::Path(self.job.engine.store.content().path(&layer.digest));
        let pushed = self.client.push_blob(&self.name, layer, &body, options).await;
        pushed.context(|| format!("cannot push the layer {} to {}", layer.digest, self.name))
    }

    pub(crate) async fn config(&self, config: &Document) -> Result<(), Diagnostic> {
        let body = Body::Bytes(Bytes::from(config.bytes.clone()));
        self.client
            .push_blob(&self.name, &config.descriptor, &body, &PushOptions::default())
            .await
            .context(|| format!("cannot push the config to {}", self.name))
            .map(drop)
    }

    async fn manifest(&self, name: &Reference, document: &Document) -> Result<(), Diagnostic> {
        let kind = match MediaType::is_index(&document.descriptor.media_type) {
            true => "index",
            false => "manifest",
        };
        self.client
            .push_manifest(name, Bytes::from(document.bytes.clone()), &document.descriptor.media_type)
            .await
            .context(|| format!("cannot push the {kind} to {name}"))
            .map(drop)
    }
}
