//! From the trees and configs of a build to where they are wanted.
//!
//! An image is made once for each way of writing it (compression, media types), and every output that wants
//! it that way shares it.

mod ahead;
pub(crate) mod assemble;
mod attested;
mod beside;
mod client;
mod engine_load;
mod files;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod push;
pub(crate) mod tarball;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::json;
use slipway_model::image_config::History;
use slipway_model::solve::{ImageOptions, ImageOutput, OutputSpec};
use slipway_model::{
    Descriptor, Diagnostic, Digest, ImageConfig, ImageIndex, Manifest, MediaType, Platform, Reference,
    SourceSpan,
};
use slipway_store::Store;

use crate::attest::Prepared;
use crate::error::{Context as _, blocking};
use crate::identical_layers::IdenticalLayers;
use crate::job::Job;
use crate::progress::Step;
use crate::tree::Tree;
use ahead::Ahead;
use assemble::{Document, Image, Layer};
pub(crate) use attested::Attested;
use attested::Form;

/// The largest document of the store that is read.
const MAX_DOCUMENT: u64 = 64 << 20;

/// What one platform's build gave.
#[derive(Clone)]
pub(crate) struct PlatformResult {
    pub(crate) platform: Platform,
    pub(crate) tree: Tree,
    pub(crate) config: ImageConfig,
    pub(crate) base: Option<crate::platform_check::Base>,
    /// The history that came with the base image.
    pub(crate) base_history: Vec<History>,
    /// The instruction behind each layer that is not the base's, lowest first.
    pub(crate) layer_spans: Vec<Option<SourceSpan>>,
    pub(crate) attestations: Vec<Prepared>,
}

/// An image that is complete in the store.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) images: Vec<Image>,
    /// What is said of the images.
    pub(crate) attested: Vec<Attested>,
    /// The index, or the manifest where there is only one.
    pub(crate) root: Document,
    pub(crate) is_index: bool,
    /// Layers that are on their way to a registry.
    pub(crate) ahead: Ahead,
}

impl Built {
    /// Reads an image of the store.
    pub(crate) fn read(store: &Store, descriptor: &Descriptor) -> Result<Self, Diagnostic> {
        let content = store.content();
        let read = |descriptor: &Descriptor| -> Result<Document, Diagnostic> {
            let bytes = content.read(&descriptor.digest, MAX_DOCUMENT).diagnose()?;
            Ok(Document { descriptor: descriptor.clone(), bytes })
        };
        let root = read(descriptor)?;
        let invalid = |error: serde_json::Error| {
            crate::error::internal(format!("an image of the store is damaged: {error}"))
        };
        let is_index = MediaType::is_index(&descriptor.media_type);
        let manifests: Vec<Descriptor> = match is_index {
            true => serde_json::from_slice::<ImageIndex>(&root.bytes).map_err(invalid)?.manifests,
            false => vec![descriptor.clone()],
        };
        let mut images = Vec::with_capacity(manifests.len());
        let mut attested = Vec::new();
        for entry in manifests {
            let manifest = read(&entry)?;
            if Attested::is(&entry) {
                attested.push(Attested::read(manifest, read)?);
                continue;
            }
            let parsed: Manifest = serde_json::from_slice(&manifest.bytes).map_err(invalid)?;
            let config = read(&parsed.config)?;
            let stated: ImageConfig = serde_json::from_slice(&config.bytes).map_err(invalid)?;
            let ids = stated.rootfs.diff_ids.iter().copied();
            let layers = parsed.layers.into_iter().zip(ids).map(|(descriptor, diff_id)| Layer {
                descriptor,
                diff_id,
                created: std::time::SystemTime::UNIX_EPOCH,
                description: String::new(),
            });
            let platform = entry.platform.clone().unwrap_or_else(|| stated.platform());
            images.push(Image { platform, config, manifest, layers: layers.collect() });
        }
        Ok(Self { images, attested, root, is_index, ahead: Ahead::default() })
    }

    /// Lists all JSON documents, those that others refer to first.
    pub(crate) fn documents(&self) -> Vec<&Document> {
        let mut documents: Vec<&Document> =
            self.images.iter().flat_map(|image| [&image.config, &image.manifest]).collect();
        documents.extend(self.attested.iter().flat_map(Attested::documents));
        if self.is_index {
            documents.push(&self.root);
        }
        let mut seen = HashSet::new();
        documents.retain(|document| seen.insert(document.descriptor.digest));
        documents
    }

    /// Lists all layers, each once.
    pub(crate) fn layers(&self) -> Vec<&Descriptor> {
        let mut seen = HashSet::new();
        let layers = self.images.iter().flat_map(|image| image.layers.iter().map(|layer| &layer.descriptor));
        layers.filter(|layer| seen.insert(layer.digest)).collect()
    }

    /// Returns the digest of the one image's config.
    pub(crate) fn config_digest(&self) -> Option<Digest> {
        match self.images.as_slice() {
            [only] if !self.is_index => Some(only.config.descriptor.digest),
            _ => None,
        }
    }
}

/// What outputs share.
pub(crate) struct ExportContext {
    pub(crate) job: Arc<Job>,
    pub(crate) results: Vec<PlatformResult>,
    pub(crate) epoch: Option<i64>,
    /// An index even for a single platform.
    pub(crate) force_index: bool,
    pub(crate) platform_check: slipway_model::solve::PlatformCheck,
    pub(crate) identical_layers: IdenticalLayers,
    /// Images get their names in slipway's own store.
    pub(crate) keep: bool,
}

/// What the outputs say of themselves, for the metadata file and the terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exported {
    pub(crate) metadata: serde_json::Map<String, serde_json::Value>,
    pub(crate) digest: Option<Digest>,
    pub(crate) config_digest: Option<Digest>,
    /// The images that were made in the store or a registry, by the position of their output.
    pub(crate) images: BTreeMap<usize, Descriptor>,
}

impl Exported {
    /// Returns the metadata as BuildKit's exporter response, in which documents are in base64.
    pub(crate) fn response(&self) -> BTreeMap<String, String> {
        use base64::Engine as _;
        let encode = |document: &serde_json::Value| {
            base64::engine::general_purpose::STANDARD.encode(document.to_string())
        };
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| encode(value), str::to_owned);
        self.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }
}

/// Writes all outputs, one after the other.
pub(crate) async fn export(context: &ExportContext, outputs: &[OutputSpec]) -> Result<Exported, Diagnostic> {
    let mut exported = Exported::default();
    let mut built: BTreeMap<String, Arc<Built>> = BTreeMap::new();
    for (index, output) in outputs.iter().enumerate() {
        let (options, names): (&ImageOptions, &[Reference]) = match output {
            OutputSpec::Image(image) => (&image.image, &image.names),
            OutputSpec::Oci(archive) => (&archive.image, &archive.names),
            OutputSpec::Docker(docker) => (&docker.image, &docker.names),
            OutputSpec::Local(local) => {
                files::local(context, local).await?;
                continue;
            }
            OutputSpec::Tar(tar) => {
                files::tar(context, tar).await?;
                continue;
            }
            OutputSpec::CacheOnly => continue,
        };
        let form = form(output, options, names);
        let mut key = format!("{options:?}");
        if context.results.iter().any(|result| !form.wanted(result).is_empty()) {
            key.push_str(&format!(" {form:?}"));
        }
        let image = match (built.get(&key), output) {
            (Some(image), OutputSpec::Oci(_) | OutputSpec::Docker(_)) => image.clone(),
            (known, _) => {
                let (step, known) = (context.job.progress.step("exporting to image"), known.cloned());
                let make = async {
                    let image = match known {
                        Some(image) => image,
                        None => {
                            let ahead = ahead(context, outputs, options);
                            let image: BoxFuture<'_, _> =
                                Box::pin(image::build(context, options, &form, ahead, &step));
                            Arc::new(image.await?)
                        }
                    };
                    if let OutputSpec::Image(output) = output {
                        name(context, output, &image, &step).await?;
                    }
                    Ok::<_, Diagnostic>(image)
                };
                let image = make.await;
                step.end(image)?
            }
        };
        match output {
            OutputSpec::Image(_) => drop(exported.images.insert(index, image.root.descriptor.clone())),
            _ => write(context, output, &image).await?,
        }
        built.insert(key, image.clone());
        describe(&mut exported, &image, names);
    }
    Ok(exported)
}

/// Gives an image its names, here and in registries; a part of `step`.
async fn name(
    context: &ExportContext,
    output: &ImageOutput,
    built: &Built,
    step: &Step,
) -> Result<(), Diagnostic> {
    if context.keep {
        image::keep(context, built, &output.names)?;
    }
    if output.push {
        for name in &output.names {
            let how = (output.push_by_digest, output.insecure);
            push::push(&context.job, built, name, how, step).await?;
        }
    }
    Ok(())
}

/// Says how an output holds attestations.
fn form<'a>(output: &OutputSpec, options: &ImageOptions, names: &'a [Reference]) -> Form<'a> {
    let in_registry = matches!(output, OutputSpec::Image(_));
    let oci = options.oci_media_types.unwrap_or(true);
    Form {
        names,
        inline: options.attestation_inline.unwrap_or(in_registry),
        oci,
        artifact: options.oci_artifact.unwrap_or(oci),
    }
}

/// Says where layers may be sent while they are made: to the first name that an image made with `options` is
/// pushed to.
fn ahead(context: &ExportContext, outputs: &[OutputSpec], options: &ImageOptions) -> Ahead {
    let pushed = outputs.iter().find_map(|output| match output {
        OutputSpec::Image(image) if image.push && image.image == *options => {
            image.names.first().map(|name| (name, image.insecure))
        }
        _ => None,
    });
    match pushed {
        Some((name, insecure)) => Ahead::to(context.job.blobs.client().insecure(insecure), name),
        None => Ahead::default(),
    }
}

/// Writes one output of an image that is complete in the store.
pub(crate) async fn write_whole(
    job: Arc<Job>,
    output: &OutputSpec,
    built: &Arc<Built>,
) -> Result<(), Diagnostic> {
    let context = ExportContext {
        job,
        results: Vec::new(),
        epoch: None,
        force_index: built.is_index,
        platform_check: slipway_model::solve::PlatformCheck::Off,
        identical_layers: IdenticalLayers::new(None),
        keep: false,
    };
    write(&context, output, built).await
}

async fn write(context: &ExportContext, output: &OutputSpec, built: &Arc<Built>) -> Result<(), Diagnostic> {
    let job = &context.job;
    if let Some(archive) = client::ClientArchive::of(output) {
        image::fetch_layers(job, built).await?;
        return archive.send(context, built).await;
    }
    match output {
        OutputSpec::Image(output) => {
            let step = job.progress.step("exporting to image");
            let named = name(context, output, built, &step).await;
            step.end(named)
        }
        OutputSpec::Oci(archive) => {
            image::fetch_layers(job, built).await?;
            let step = job.progress.step("exporting to oci image format");
            let options = layout::LayoutOptions {
                names: archive.names.clone(),
                listing: layout::Listing::Oci,
                created: image::created(context, built),
            };
            let (content, built, archive) = (job.engine.store.content(), built.clone(), archive.clone());
            let counter = job.progress.counter(step.digest(), "sending tarball", total(&built));
            let written = blocking(move || {
                let progress = |bytes| counter.add(bytes);
                match (&archive.destination, archive.tar) {
                    (slipway_model::solve::Destination::Path(path), false) => {
                        layout::write_directory(&content, &built, &options, path, &progress)
                    }
                    (destination, _) => layout::write_tar(&content, &built, &options, destination, &progress),
                }
            })
            .await;
            step.end(written)
        }
        OutputSpec::Docker(docker) => {
            image::fetch_layers(job, built).await?;
            match &docker.destination {
                Some(destination) => {
                    let step = job.progress.step("exporting to docker image format");
                    let options = layout::LayoutOptions {
                        names: docker.names.clone(),
                        listing: layout::Listing::Both,
                        created: image::created(context, built),
                    };
                    let (content, built, destination) =
                        (job.engine.store.content(), built.clone(), destination.clone());
                    let written = blocking(move || {
                        layout::write_tar(&content, &built, &options, &destination, &|_| ())
                    })
                    .await;
                    step.end(written)
                }
                None => engine_load::load(context, built, docker).await,
            }
        }
        OutputSpec::Local(_) | OutputSpec::Tar(_) | OutputSpec::CacheOnly => Ok(()),
    }
}

fn total(built: &Built) -> u64 {
    built.layers().iter().map(|layer| layer.size).sum()
}

/// Adds what an output says of itself.
fn describe(exported: &mut Exported, built: &Built, names: &[Reference]) {
    let digest = built.root.descriptor.digest;
    exported.digest = Some(digest);
    exported.config_digest = built.config_digest();
    let metadata = &mut exported.metadata;
    metadata.insert("containerimage.digest".to_owned(), json!(digest));
    if let Some(config) = built.config_digest() {
        metadata.insert("containerimage.config.digest".to_owned(), json!(config));
    }
    metadata.insert("containerimage.descriptor".to_owned(), json!(built.root.descriptor));
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(|name| name.with_default_tag().to_string()).collect();
        metadata.insert("image.name".to_owned(), json!(names.join(",")));
    }
}
