//! What a build has made, document by document: indexes, manifests, configs and attestations, as far as whoever
//! has them still does.

use async_trait::async_trait;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex, Manifest, MediaType, Platform};

use crate::engine::Engine;
use crate::error::Context as _;
use crate::history::Record;
use crate::imagetools::{PREDICATE, REFERENCES};

/// Documents are small; what is larger is none.
const MAX_SIZE: u64 = 64 << 20;

/// One document of a build's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub digest: Digest,
    /// The platform of the image that it belongs to.
    pub platform: Option<Platform>,
    /// The media type, or of an attestation the type of what it states.
    pub kind: String,
}

/// A place that has documents.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Reads a document.
    ///
    /// # Errors
    /// It is not there.
    async fn document(&self, digest: &Digest) -> Result<Vec<u8>, Diagnostic>;
}

#[async_trait]
impl Documents for Engine {
    async fn document(&self, digest: &Digest) -> Result<Vec<u8>, Diagnostic> {
        let content = self.inner.store.content();
        if content.contains(digest).diagnose()?.is_none() {
            return Err(Diagnostic::new(ErrorKind::User, format!("there is no `{digest}` in the store"))
                .hint("`slipway history inspect` lists what a build has made, as far as it is here"));
        }
        content.read(digest, MAX_SIZE).diagnose()
    }
}

impl Engine {
    /// Lists the documents of a build's result that are here.
    pub async fn attachments(&self, record: &Record) -> Vec<Attachment> {
        let root = record.metadata.get("containerimage.descriptor");
        match root.and_then(|value| serde_json::from_value::<Descriptor>(value.clone()).ok()) {
            Some(root) => Attachment::below(&root, None, self).await,
            None => Vec::new(),
        }
    }
}

impl Attachment {
    /// Lists the documents below one, as far as `place` has them; `platform` is that of what says none itself.
    pub async fn below(root: &Descriptor, platform: Option<&Platform>, place: &dyn Documents) -> Vec<Self> {
        let mut found = Vec::new();
        // An index holds manifests; what holds indexes is none of an image.
        let top = (root.clone(), root.platform.clone().or_else(|| platform.cloned()));
        let mut waiting = vec![top];
        while let Some((descriptor, platform)) = waiting.pop() {
            let Ok(bytes) = place.document(&descriptor.digest).await else { continue };
            let one = |digest: Digest, kind: &str| Self {
                digest,
                platform: platform.clone(),
                kind: kind.to_owned(),
            };
            found.push(one(descriptor.digest, &descriptor.media_type));
            if descriptor.digest == root.digest && MediaType::is_index(&descriptor.media_type) {
                let Ok(index) = serde_json::from_slice::<ImageIndex>(&bytes) else { continue };
                let below = index.manifests.iter().rev();
                waiting
                    .extend(below.map(|manifest| (manifest.clone(), platform_of(manifest, &index).cloned())));
            } else if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
                let stated: Vec<Self> = manifest
                    .layers
                    .iter()
                    .filter_map(|layer| Some(one(layer.digest, layer.annotations.get(PREDICATE)?)))
                    .collect();
                match stated.is_empty() {
                    true => found.push(one(manifest.config.digest, &manifest.config.media_type)),
                    false => found.extend(stated),
                }
            }
        }
        found
    }
}

/// Returns the platform of a manifest, or of the one that it states something about.
fn platform_of<'a>(manifest: &'a Descriptor, index: &'a ImageIndex) -> Option<&'a Platform> {
    let about = REFERENCES.iter().find_map(|key| manifest.annotations.get(*key));
    let subject =
        about.and_then(|digest| index.manifests.iter().find(|other| other.digest.to_string() == *digest));
    subject.unwrap_or(manifest).platform.as_ref()
}
