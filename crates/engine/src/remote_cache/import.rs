//! Reading a cache: its manifest and config, or the configs of images that have one in them.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;
use slipway_model::{
    Descriptor, Diagnostic, Digest, ErrorKind, ImageConfig, ImageIndex, Manifest, MediaType, Reference,
};
use slipway_registry::{Access, Client};

use super::config::{self, CacheConfig, CacheLayer, Checked, Layer, Output};
use super::options::ImportFrom;
use super::{Bucket, BucketSpec};
use crate::blobs::{BlobSource, Blobs};
use crate::error::{Context as _, Explain as _};
use crate::job::Job;
use crate::sources::layout::Layout;

/// The largest config that is read.
const MAX_CONFIG: u64 = 16 << 20;

/// A cache that was read. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Import(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: BlobSource,
    content: Checked,
    /// From every key to the canonical one.
    keys: HashMap<Digest, Digest>,
}

impl Import {
    fn new(source: BlobSource, content: Checked) -> Self {
        let mut keys: HashMap<Digest, Digest> = HashMap::new();
        for (canonical, record) in &content.records {
            for key in &record.keys {
                keys.insert(*key, *canonical);
            }
        }
        // A key that is canonical itself leads nowhere else.
        keys.extend(content.records.keys().map(|canonical| (*canonical, *canonical)));
        Self(Arc::new(Inner { source, content, keys }))
    }

    pub(super) fn source(&self) -> &BlobSource {
        &self.0.source
    }

    pub(super) fn canonical(&self, key: &Digest) -> Option<Digest> {
        self.0.keys.get(key).copied()
    }

    /// The keys that lead to a canonical one.
    pub(super) fn keys(&self, canonical: &Digest) -> &[Digest] {
        self.0.content.records.get(canonical).map(|record| record.keys.as_slice()).unwrap_or_default()
    }

    /// The outputs of a result; none if there is no result.
    pub(super) fn outputs(&self, canonical: &Digest) -> &[Option<Output>] {
        self.0.content.records.get(canonical).map(|record| record.outputs.as_slice()).unwrap_or_default()
    }

    pub(super) fn has_blob(&self, blob: &Digest) -> bool {
        self.0.content.layers.iter().flatten().any(|layer| layer.descriptor.digest == *blob)
    }

    pub(super) fn chain(&self, top: usize) -> Vec<&Layer> {
        self.0.content.chain(top)
    }
}

/// Imports caches, all at once; those that cannot be used are told of, and left out.
pub(super) async fn all(job: &Job, places: &[ImportFrom]) -> Vec<Import> {
    let imports = places.iter().map(|place| async move {
        let step = job.progress.step(format!("importing cache manifest from {}", place.name()));
        step.end(read(job, place).await).unwrap_or_default()
    });
    futures_util::future::join_all(imports).await.into_iter().flatten().collect()
}

async fn read(job: &Job, place: &ImportFrom) -> Result<Vec<Import>, Diagnostic> {
    if let ImportFrom::Bucket(spec) = place {
        let found = in_bucket(job, spec).await?;
        if found.is_empty() {
            let names = spec.names.join("`, `");
            return Err(unusable(format!("there is no cache named `{names}` in the bucket")));
        }
        return found.into_iter().map(Written::check).collect();
    }
    match Place::open(job, place).await? {
        Found::There(place, root, bytes) => place.parse(*root, bytes).await,
        Found::Missing(error) => Err(error),
    }
}

/// A cache's config as it was written, with what is known of its blobs and where they are.
pub(super) struct Written {
    pub(super) config: CacheConfig,
    pub(super) blobs: HashMap<Digest, Descriptor>,
    pub(super) source: BlobSource,
}

impl Written {
    fn check(self) -> Result<Import, Diagnostic> {
        let checked = self.config.check(&self.blobs).map_err(unusable)?;
        Ok(Import::new(self.source, checked))
    }
}

/// Reads the configs that a place has under the names that are asked for; none if nothing has those names.
pub(super) async fn configs(job: &Job, place: &ImportFrom) -> Result<Vec<Written>, Diagnostic> {
    if let ImportFrom::Bucket(spec) = place {
        return in_bucket(job, spec).await;
    }
    let Found::There(place, _, bytes) = Place::open(job, place).await? else { return Ok(Vec::new()) };
    let listed = Listed::read(&bytes)?.blobs;
    match place.config(&listed).await? {
        Some(written) => Ok(vec![written]),
        None => Err(unusable("it is an image".to_owned())),
    }
}

/// Reads the caches in a bucket: of each its config alone, which says what is to be known of the layers.
async fn in_bucket(job: &Job, spec: &BucketSpec) -> Result<Vec<Written>, Diagnostic> {
    let bucket = Arc::new(Bucket::open(job.blobs.client(), spec).await?);
    let source = job.blobs.add_bucket(spec.id(), bucket.clone());
    let mut found = Vec::new();
    for name in &spec.names {
        let Some(text) = bucket.config(name).await? else { continue };
        let config: CacheConfig = json(&text, "cache config")?;
        found.push(Written { blobs: config.described(), config, source: source.clone() });
    }
    Ok(found)
}

/// What is under a name.
enum Found {
    There(Place, Box<Descriptor>, Vec<u8>),
    Missing(Diagnostic),
}

/// What the root document of a cache lists.
struct Listed {
    blobs: Vec<Descriptor>,
    /// The root document itself, if it is no index.
    manifest: Option<Manifest>,
}

impl Listed {
    fn read(bytes: &[u8]) -> Result<Self, Diagnostic> {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(default)]
            manifests: Option<serde_json::Value>,
        }
        let shape: Shape = json(bytes, "manifest")?;
        if shape.manifests.is_some() {
            let index: ImageIndex = json(bytes, "index")?;
            return Ok(Self { blobs: index.manifests, manifest: None });
        }
        let manifest: Manifest = json(bytes, "manifest")?;
        let blobs = manifest.layers.iter().chain([&manifest.config]).cloned().collect();
        Ok(Self { blobs, manifest: Some(manifest) })
    }
}

/// Where the documents of a cache are.
enum Place {
    Registry(Client, Reference),
    Layout(Layout),
    /// A content store of the client.
    Session(Blobs, String),
}

impl Place {
    /// Reads the root document of a cache that is no bucket's.
    async fn open(job: &Job, place: &ImportFrom) -> Result<Found, Diagnostic> {
        match place {
            ImportFrom::Bucket(_) => Err(crate::error::internal("a bucket has no root document")),
            ImportFrom::Registry { reference, insecure } => {
                if *insecure {
                    job.blobs.allow_insecure(reference.domain());
                }
                let client = job.blobs.client().insecure(*insecure);
                let reference = reference.with_default_tag();
                match client.resolve_manifest(&reference, Access::Pull).await {
                    Err(error) if error.is_not_found() => Ok(Found::Missing(error.explain())),
                    Err(error) => Err(error.explain()),
                    Ok((descriptor, bytes)) => {
                        let place = Self::Registry(client, reference.without_tag());
                        Ok(Found::There(place, Box::new(descriptor), bytes.to_vec()))
                    }
                }
            }
            ImportFrom::Local { directory, selector } => {
                let layout = Layout::new(directory.clone());
                let descriptor = match layout.select(selector) {
                    Ok(descriptor) => descriptor,
                    Err(error) => return Ok(Found::Missing(error)),
                };
                let place = Self::Layout(layout);
                let bytes = place.read(&descriptor).await?;
                Ok(Found::There(place, Box::new(descriptor), bytes))
            }
            ImportFrom::Session { store, digest, .. } => {
                let descriptor = job.blobs.describe(&BlobSource::Client(store.clone()), digest).await?;
                let place = Self::Session(job.blobs.clone(), store.clone());
                let bytes = place.read(&descriptor).await?;
                Ok(Found::There(place, Box::new(descriptor), bytes))
            }
        }
    }

    fn source(&self) -> BlobSource {
        match self {
            Self::Registry(_, repository) => BlobSource::Registry(repository.clone()),
            Self::Layout(layout) => BlobSource::Layout(layout.path().to_owned()),
            Self::Session(_, store) => BlobSource::Client(store.clone()),
        }
    }

    async fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Diagnostic> {
        let media_type = &descriptor.media_type;
        let manifest = MediaType::is_index(media_type) || MediaType::is_manifest(media_type);
        match self {
            Self::Registry(client, repository) if manifest => {
                client.manifest(repository, descriptor).await.diagnose().map(|bytes| bytes.to_vec())
            }
            Self::Registry(client, repository) => client
                .blob_bytes(repository, descriptor, MAX_CONFIG)
                .await
                .diagnose()
                .map(|bytes| bytes.to_vec()),
            Self::Session(blobs, store) => blobs.client_document(store, &descriptor.digest, MAX_CONFIG).await,
            Self::Layout(layout) => layout
                .read(&descriptor.digest)
                .context(|| format!("cannot read the cache in `{}`", layout.path().display())),
        }
    }

    /// Reads the config that is listed, if one is.
    async fn config(&self, listed: &[Descriptor]) -> Result<Option<Written>, Diagnostic> {
        let is_config = |descriptor: &&Descriptor| descriptor.media_type == config::CONFIG_TYPE;
        let Some(described) = listed.iter().find(is_config) else { return Ok(None) };
        let config: CacheConfig = json(&self.read(described).await?, "cache config")?;
        let blobs = listed.iter().map(|blob| (blob.digest, blob.clone())).collect();
        Ok(Some(Written { config, blobs, source: self.source() }))
    }

    /// Reads what the root document refers to.
    async fn parse(&self, root: Descriptor, bytes: Vec<u8>) -> Result<Vec<Import>, Diagnostic> {
        let listed = Listed::read(&bytes)?;
        if let Some(written) = self.config(&listed.blobs).await? {
            return Ok(vec![written.check()?]);
        }
        let images = match listed.manifest {
            Some(image) => vec![image],
            None => self.images(&root, &listed.blobs).await?,
        };
        let mut imports = Vec::new();
        for image in &images {
            imports.extend(self.inline(image).await?);
        }
        Ok(imports)
    }

    /// Reads the manifests of an index of images.
    async fn images(&self, root: &Descriptor, listed: &[Descriptor]) -> Result<Vec<Manifest>, Diagnostic> {
        let is_image = |descriptor: &&Descriptor| {
            let known = descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            known && MediaType::is_manifest(&descriptor.media_type)
        };
        let reads = listed
            .iter()
            .filter(is_image)
            .map(|descriptor| async move { json::<Manifest>(&self.read(descriptor).await?, "manifest") });
        let images = futures_util::future::try_join_all(reads).await?;
        if images.is_empty() {
            return Err(unusable(format!("{} has neither a cache nor an image", root.digest)));
        }
        Ok(images)
    }

    /// Reads the cache in an image; most images have none.
    async fn inline(&self, image: &Manifest) -> Result<Option<Import>, Diagnostic> {
        let text = self.read(&image.config).await?;
        let config: ImageConfig = json(&text, "image config")?;
        let Some(embedded) = config.extra.get(config::INLINE).and_then(|value| value.as_str()) else {
            return Ok(None);
        };
        let records = base64::engine::general_purpose::STANDARD
            .decode(embedded)
            .map_err(|error| unusable(format!("the cache in the image: {error}")))?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(unusable("the image's manifest and config have different layers".to_owned()));
        }
        let mut history = config.history.iter().filter(|entry| !entry.empty_layer);
        let mut layers = Vec::new();
        let mut blobs: HashMap<Digest, Descriptor> = HashMap::new();
        for (position, (blob, diff_id)) in image.layers.iter().zip(diff_ids).enumerate() {
            let entry = history.next();
            let created = entry.and_then(|entry| entry.created.clone()).unwrap_or_default();
            layers.push(CacheLayer {
                blob: blob.digest.to_string(),
                parent: position as i64 - 1,
                annotations: Some(config::LayerAnnotations {
                    diff_id: diff_id.to_string(),
                    created_at: created,
                    ..config::LayerAnnotations::default()
                }),
            });
            let mut blob = blob.clone();
            let description = entry.and_then(|entry| entry.created_by.clone()).unwrap_or_default();
            blob.annotations.insert(config::DESCRIPTION.to_owned(), description);
            blobs.entry(blob.digest).or_insert(blob);
        }
        let config = CacheConfig { layers, records: json(&records, "cache in the image")? };
        let checked = config.check(&blobs).map_err(unusable)?;
        Ok(Some(Import::new(self.source(), checked)))
    }
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Diagnostic> {
    serde_json::from_slice(bytes).map_err(|error| unusable(format!("the {what} is no valid JSON: {error}")))
}

pub(super) fn unusable(cause: String) -> Diagnostic {
    Diagnostic::new(ErrorKind::Environment, "cannot use the cache").cause(cause)
}
