//! From layers and a frontend's config to the documents of an image: config, manifest, image index.
//!
//! Pure. What it writes is decided by content alone: the same layers, config and options give the same
//! bytes, so a build in which nothing changed has the same digest as the last one.

use std::time::SystemTime;

use slipway_model::image_config::{History, RootFs};
use slipway_model::oci::{Annotations, Extra};
use slipway_model::solve::{AnnotationTarget, ImageOptions};
use slipway_model::{Descriptor, Digest, ImageConfig, ImageIndex, Manifest, MediaType, Platform};

use super::attested::Attested;

/// A layer as it will be shipped.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) created: SystemTime,
    pub(crate) description: String,
}

/// A document with its descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

impl Document {
    pub(super) fn json<T: serde::Serialize>(media_type: &str, value: &T) -> Self {
        let bytes =
            serde_json::to_vec_pretty(value).expect("a document of strings and numbers can be written");
        Self { descriptor: Descriptor::of(media_type, &bytes), bytes }
    }
}

/// One platform's image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) platform: Platform,
    pub(crate) config: Document,
    pub(crate) manifest: Document,
    pub(crate) layers: Vec<Layer>,
}

/// What all images of a build share.
#[derive(Clone, Debug)]
pub(crate) struct AssembleOptions<'a> {
    pub(crate) image: &'a ImageOptions,
    /// Seconds since 1970 to clamp `created` to.
    pub(crate) epoch: Option<i64>,
}

impl AssembleOptions<'_> {
    pub(crate) fn oci(&self) -> bool {
        self.image.oci_media_types.unwrap_or(true)
    }
}

/// Makes the config and the manifest of one platform.
pub(crate) fn assemble(
    mut config: ImageConfig,
    base_history: &[History],
    layers: Vec<Layer>,
    platform: &Platform,
    options: &AssembleOptions<'_>,
) -> Image {
    let epoch = options.epoch.map(rfc3339_seconds);
    config.history = complete_history(std::mem::take(&mut config.history), &layers);
    if let Some(epoch) = &epoch {
        clamp_history(&mut config.history, base_history, epoch);
        if config.created.as_ref().is_some_and(|created| created > epoch) {
            config.created = Some(epoch.clone());
        }
    }
    if config.created.is_none() {
        config.created = config.history.iter().rev().find_map(|h| h.created.clone()).or(epoch);
    }
    config.rootfs =
        RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|l| l.diff_id).collect() };

    let (config_type, manifest_type) = match options.oci() {
        true => (MediaType::OCI_CONFIG, MediaType::OCI_MANIFEST),
        false => (MediaType::DOCKER_CONFIG, MediaType::DOCKER_MANIFEST),
    };
    let config = Document::json(config_type, &config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        artifact_type: None,
        config: config.descriptor.clone(),
        layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        subject: None,
        annotations: options.image.annotations_for(AnnotationTarget::Manifest, Some(platform)),
        extra: Extra::new(),
    };
    let mut manifest = Document::json(manifest_type, &manifest);
    manifest.descriptor.annotations =
        options.image.annotations_for(AnnotationTarget::ManifestDescriptor, Some(platform));
    Image { platform: platform.clone(), config, manifest, layers }
}

/// Makes the index over the images of several platforms.
pub(crate) fn index(images: &[Image], attested: &[Attested], options: &AssembleOptions<'_>) -> Document {
    let media_type = if options.oci() { MediaType::OCI_INDEX } else { MediaType::DOCKER_INDEX };
    let manifests = images
        .iter()
        .map(|image| Descriptor {
            platform: Some(image.platform.clone()),
            ..image.manifest.descriptor.clone()
        })
        .chain(attested.iter().map(|attested| attested.manifest.descriptor.clone()))
        .collect();
    let index = ImageIndex {
        annotations: options.image.annotations_for(AnnotationTarget::Index, None),
        ..ImageIndex::new(media_type, manifests)
    };
    let mut document = Document::json(media_type, &index);
    document.descriptor.annotations = index_descriptor_annotations(options.image);
    document
}

fn index_descriptor_annotations(options: &ImageOptions) -> Annotations {
    options.annotations_for(AnnotationTarget::IndexDescriptor, None)
}

/// Makes history and layers agree, and gives every entry a time.
///
/// A layer's entry gets the time the layer was made; an entry without a layer the time of the first new
/// layer, or of the layer before it.
fn complete_history(history: Vec<History>, layers: &[Layer]) -> Vec<History> {
    let described = history.iter().filter(|h| !h.empty_layer).count();
    let mut surplus = described.saturating_sub(layers.len());
    let mut history: Vec<History> = history;
    for entry in history.iter_mut().rev().filter(|h| !h.empty_layer) {
        if surplus == 0 {
            break;
        }
        entry.empty_layer = true;
        surplus -= 1;
    }
    for layer in layers.iter().skip(described) {
        history.push(History {
            created: Some(rfc3339(layer.created)),
            created_by: Some(layer.description.clone()),
            comment: Some("buildkit.exporter.image.v0".to_owned()),
            ..History::default()
        });
    }
    let mut next = layers.iter();
    for entry in history.iter_mut().filter(|h| !h.empty_layer) {
        let layer = next.next();
        if entry.created.is_none() {
            entry.created = layer.map(|layer| rfc3339(layer.created));
        }
    }
    let mut time = first_new_time(&history);
    let mut filling = false;
    for entry in &mut history {
        match &entry.created {
            Some(created) if filling => time = Some(created.clone()),
            Some(_) => {}
            None => {
                filling = true;
                entry.created.clone_from(&time);
            }
        }
    }
    history
}

fn first_new_time(history: &[History]) -> Option<String> {
    let mut time = None;
    let mut seen_missing = false;
    for entry in history {
        match &entry.created {
            Some(created) => {
                time = Some(created.clone());
                if seen_missing {
                    break;
                }
            }
            None => seen_missing = true,
        }
    }
    time
}

/// Clamps the times of new entries; what comes from the base image keeps its own.
fn clamp_history(history: &mut [History], base: &[History], epoch: &String) {
    let mut new = false;
    for (index, entry) in history.iter_mut().enumerate() {
        new |= base.get(index) != Some(&*entry);
        if new && entry.created.as_ref().is_none_or(|created| created > epoch) {
            entry.created = Some(epoch.clone());
        }
    }
}

/// Formats a time as RFC 3339 in UTC, with nanoseconds as Docker has them.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Formats seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339_seconds(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn layer(text: &str, seconds: u64) -> Layer {
        Layer {
            descriptor: Descriptor::of(MediaType::OCI_LAYER_GZIP, text.as_bytes()),
            diff_id: Digest::of(text),
            created: at(seconds),
            description: text.to_owned(),
        }
    }

    fn entry(text: &str, empty_layer: bool) -> History {
        History { created_by: Some(text.to_owned()), empty_layer, ..History::default() }
    }

    fn times(config: &Document) -> Vec<String> {
        let config: ImageConfig = serde_json::from_slice(&config.bytes).unwrap();
        config.history.iter().map(|h| h.created.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn entries_without_layer_take_the_time_of_a_neighbour() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let mut config = ImageConfig::for_platform(&platform);
        config.history =
            vec![entry("base", false), entry("ENV", true), entry("RUN", false), entry("CMD", true)];
        let layers = vec![layer("base", 1), layer("RUN", 100)];
        let options = ImageOptions::default();
        let image =
            assemble(config, &[], layers, &platform, &AssembleOptions { image: &options, epoch: None });
        assert_eq!(
            times(&image.config),
            // `ENV` comes before the first new layer and takes that one's time, not the base's.
            ["1970-01-01T00:00:01Z", "1970-01-01T00:01:40Z", "1970-01-01T00:01:40Z", "1970-01-01T00:01:40Z"]
        );
    }

    #[test]
    fn an_epoch_clamps_what_is_new() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let base = History { created: Some("2020-01-01T00:00:00Z".to_owned()), ..entry("base", false) };
        let mut config = ImageConfig::for_platform(&platform);
        config.history = vec![base.clone(), entry("RUN", false)];
        let layers = vec![layer("base", 1), layer("RUN", 2_000_000_000)];
        let options = ImageOptions::default();
        let options = AssembleOptions { image: &options, epoch: Some(1_000) };
        let image = assemble(config, &[base], layers, &platform, &options);
        assert_eq!(times(&image.config), ["2020-01-01T00:00:00Z", "1970-01-01T00:16:40Z"]);
    }

    #[test]
    fn layers_nobody_described_are_described() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let options = ImageOptions::default();
        let options = AssembleOptions { image: &options, epoch: None };
        let image =
            assemble(ImageConfig::for_platform(&platform), &[], vec![layer("x", 5)], &platform, &options);
        let config: ImageConfig = serde_json::from_slice(&image.config.bytes).unwrap();
        assert_eq!(config.history.len(), 1);
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:05Z"));
    }
}
