//! Making an image in the store: every layer as a blob, the documents over them, a name.

use std::sync::Arc;

use slipway_model::oci::MediaType;
use slipway_model::solve::{AnnotationTarget, ImageOptions};
use slipway_model::{Descriptor, Diagnostic, ErrorKind, Reference};
use slipway_store::{BlobWatcher, DiffOptions, LayerFormat, SnapshotInfo};

use super::ahead::Ahead;
use super::assemble::{self, AssembleOptions, Image, Layer};
use super::attested::{self, Form};
use super::{Built, ExportContext, PlatformResult};
use crate::error::{Context as _, blocking};
use crate::job::Job;
use crate::platform_check::{Checked, LayerCheck, Programs};
use crate::progress::Step;
use crate::tree::Tree;

/// Makes the image of every platform, and the index over them; a part of `step`.
pub(super) async fn build(
    context: &ExportContext,
    options: &ImageOptions,
    form: &Form<'_>,
    ahead: Ahead,
    step: &Step,
) -> Result<Built, Diagnostic> {
    let job = &context.job;
    let assemble = AssembleOptions { image: options, epoch: context.epoch };
    let mut images: Vec<Image> = Vec::with_capacity(context.results.len());
    for result in &context.results {
        images.push(one(context, result, &assemble, &ahead, step).await?);
    }
    let mut attested = Vec::new();
    for (result, image) in context.results.iter().zip(&images) {
        attested.extend(attested::make(context, result, image, form).await?);
    }
    let is_index = images.len() > 1 || context.force_index || !attested.is_empty();
    let for_index = |target| matches!(target, AnnotationTarget::Index | AnnotationTarget::IndexDescriptor);
    if let Some(lost) = options.annotations.iter().find(|one| !is_index && for_index(one.target)) {
        let error = Diagnostic::new(ErrorKind::User, "index annotations not supported for single platform export")
            .cause(format!("`{}` is for the index, and an image for one platform has none", lost.key))
            .hint("annotate the manifest: leave out `index:`; or make an index with `--build-arg BUILDKIT_MULTI_PLATFORM=1`");
        return Err(error);
    }
    let root = match (is_index, images.first()) {
        (false, Some(only)) => only.manifest.clone(),
        _ => assemble::index(&images, &attested, &assemble),
    };
    let built = Built { images, attested, root, is_index, ahead };
    let content = job.engine.store.content();
    let stored = built.documents().into_iter().try_for_each(|document| {
        let there = content.contains(&document.descriptor.digest)? == Some(document.descriptor.size);
        if there {
            return job.lease.hold_blobs(&[document.descriptor.digest]);
        }
        content.put(&document.bytes, &job.lease).map(drop)
    });
    stored.context(|| "cannot keep the image".to_owned())?;
    Ok(built)
}

async fn one(
    context: &ExportContext,
    result: &PlatformResult,
    assemble: &AssembleOptions<'_>,
    ahead: &Ahead,
    step: &Step,
) -> Result<Image, Diagnostic> {
    let (job, options) = (&context.job, assemble.image);
    let snapshots = job.engine.store.snapshots();
    let top = match &result.tree {
        Tree::Empty => None,
        Tree::Snapshot(id) => Some(*id),
        Tree::Local(_) => job.materialize(&result.tree, step.digest()).await?,
    };
    let chain = top.map(|id| snapshots.chain_info(id)).transpose().diagnose()?.unwrap_or_default();
    if options.force_compression {
        // To be compressed anew, what was never needed before is needed now.
        let imported = chain.iter().filter(|info| info.imported);
        let blobs =
            imported.map(|info| snapshots.blobs(info.id)).collect::<Result<Vec<_>, _>>().diagnose()?;
        let blobs: Vec<Descriptor> =
            blobs.into_iter().filter_map(|b| Some(b.first()?.descriptor.clone())).collect();
        job.blobs.ensure(&blobs, step.digest()).await?;
    }
    let format = LayerFormat {
        compression: options.compression,
        level: options.compression_level,
        oci: assemble.oci(),
        force: options.force_compression,
        threads: None,
    };
    let clamp_mtime = context.epoch.filter(|_| options.rewrite_timestamp);
    let ids: Vec<_> = chain.iter().map(|info| info.id).collect();
    let export = LayerExport { job: job.clone(), format, clamp_mtime, ahead: ahead.clone() };
    let (layers, programs) = blocking(move || export.all(&chain)).await?;
    let mut check = Checked::new(context, result);
    let new = layers.len() - result.layer_spans.len().min(layers.len());
    for (position, programs) in programs.into_iter().enumerate() {
        let span = position.checked_sub(new).and_then(|n| result.layer_spans.get(n)).cloned().flatten();
        if position >= new {
            let (identical, layer) = (&context.identical_layers, layers[position].diff_id);
            identical.note(&job.progress, layer, &result.platform, &programs, span.as_ref())?;
        }
        check.layer(programs, span);
    }
    check.start(top, step.digest()).await?;
    check.finish()?;
    let mut config = result.config.clone();
    crate::remote_cache::embed(job, &mut config, &ids, &layers)?;
    Ok(assemble::assemble(config, &result.base_history, layers, &result.platform, assemble))
}

/// The annotation of a layer whose times were clamped: to when, in seconds since 1970. BuildKit's name.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// Makes blobs of layers, where there are none yet.
struct LayerExport {
    job: Arc<Job>,
    format: LayerFormat,
    clamp_mtime: Option<i64>,
    ahead: Ahead,
}

impl LayerExport {
    fn all(&self, chain: &[SnapshotInfo]) -> Result<(Vec<Layer>, Vec<Programs>), Diagnostic> {
        let mut layers = Vec::with_capacity(chain.len());
        let mut programs = Vec::with_capacity(chain.len());
        for info in chain {
            let (layer, seen) = self.one(info)?;
            layers.push(layer);
            programs.push(seen);
        }
        Ok((layers, programs))
    }

    fn one(&self, info: &SnapshotInfo) -> Result<(Layer, Programs), Diagnostic> {
        let store = &self.job.engine.store;
        let observer = LayerCheck::new(self.job.cancel.clone());
        let watch = self.ahead.watch();
        let diff = DiffOptions {
            clamp_mtime: self.clamp_mtime,
            observer: Some(&observer),
            watcher: watch.as_ref().map(|watch| watch as &dyn BlobWatcher),
        };
        let blob = store
            .snapshots()
            .export_layer(info.id, &self.format, &diff, &self.job.lease)
            .context(|| "cannot make a layer of the image".to_owned())?;
        if let Some(watch) = watch {
            watch.done(&blob.descriptor);
        }
        let programs = observer.settle(store, info.id);
        let mut descriptor = blob.descriptor;
        descriptor.media_type = media_type(&descriptor.media_type, self.format.oci);
        descriptor.annotations.clear();
        // The base's layers stay as they are, and Docker's media types know no annotations.
        if let Some(epoch) = self.clamp_mtime.filter(|_| self.format.oci && !info.imported) {
            descriptor.annotations.insert(REWRITTEN.to_owned(), epoch.to_string());
        }
        let created = info.created_at;
        let layer =
            Layer { descriptor, diff_id: blob.diff_id, created, description: info.description.clone() };
        Ok((layer, programs))
    }
}

/// Names the same kind of layer as the other family of media types does.
pub(crate) fn media_type(name: &str, oci: bool) -> String {
    let pairs = [
        (MediaType::OCI_LAYER, MediaType::DOCKER_LAYER),
        (MediaType::OCI_LAYER_GZIP, MediaType::DOCKER_LAYER_GZIP),
        (MediaType::OCI_LAYER_ZSTD, MediaType::DOCKER_LAYER_ZSTD),
    ];
    let found = pairs.iter().find(|(a, b)| name == *a || name == *b);
    match (found, oci) {
        (Some((oci, _)), true) => (*oci).to_owned(),
        (Some((_, docker)), false) => (*docker).to_owned(),
        (None, _) => name.to_owned(),
    }
}

/// Gives the image its names in slipway's own store.
pub(super) fn keep(context: &ExportContext, built: &Built, names: &[Reference]) -> Result<(), Diagnostic> {
    let images = context.job.engine.store.images();
    for name in names {
        let name = name.with_default_tag().to_string();
        let known = images.get(&name).diagnose()?;
        if known.is_none_or(|known| known.descriptor != built.root.descriptor) {
            images
                .put(&name, &built.root.descriptor)
                .context(|| format!("cannot keep the image `{name}`"))?;
        }
    }
    Ok(())
}

/// Makes sure that all layers are in the store, for outputs that write them out.
pub(super) async fn fetch_layers(job: &Arc<Job>, built: &Built) -> Result<(), Diagnostic> {
    let layers: Vec<Descriptor> = built.layers().into_iter().cloned().collect();
    let content = job.engine.store.content();
    if layers.iter().all(|layer| matches!(content.contains(&layer.digest), Ok(Some(_)))) {
        return Ok(());
    }
    let step = job.progress.step("fetching layers of the base image");
    let fetched = job.blobs.ensure(&layers, step.digest()).await;
    step.end(fetched)
}

/// Returns the time that an archive says the image was made.
pub(super) fn created(context: &ExportContext, built: &Built) -> String {
    match context.epoch {
        Some(seconds) => assemble::rfc3339_seconds(seconds),
        None => {
            let layers = built.images.iter().flat_map(|image| &image.layers);
            let newest = layers.map(|layer| layer.created).max();
            assemble::rfc3339(newest.unwrap_or(std::time::SystemTime::UNIX_EPOCH))
        }
    }
}
