//! Images without building: looking at them, combining them, copying them; in registries and in OCI layouts.
//!
//! Documents pass through byte for byte unless something about them is asked to be changed, so that a copy has
//! the digest of its original. Nothing goes through the store: blobs move from place to place.

mod combine;
mod copy;
mod inspect;
mod layout;
mod location;
mod write;

use std::sync::Arc;

use futures_util::future::try_join_all;
use slipway_model::progress::EventSink;
use slipway_model::solve::AnnotationSpec;
use slipway_model::{Descriptor, Diagnostic, ErrorKind, MediaType, Platform};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::progress::Progress;

pub use combine::Combined;
pub use inspect::{Inspection, PlatformInspection, Wanted};
pub(crate) use inspect::{PREDICATE, REFERENCES};
pub use location::Location;

use combine::{Options, Part};
use location::Place;

/// The type of the manifests that carry provenance and SBOMs.
const ATTESTATION: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// How many blobs are copied at once.
const BLOBS_AT_ONCE: usize = 3;

/// What refers to an image and is copied with it: attestations and signatures.
const REFERRERS: [&str; 3] = [
    ATTESTATION,
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// One image to combine.
#[derive(Clone, Debug)]
pub struct ImageSource {
    pub location: Location,
    /// What is said of it, beside its digest: this wins over what is found.
    pub stated: Option<Stated>,
}

/// What a descriptor in JSON says.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stated {
    pub media_type: String,
    pub digest: Option<slipway_model::Digest>,
    pub size: u64,
    pub annotations: slipway_model::oci::Annotations,
    pub platform: Option<StatedPlatform>,
}

/// A platform of which parts may be missing.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct StatedPlatform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

/// What to make of several images.
#[derive(Clone, Debug, Default)]
pub struct CombineOptions {
    pub annotations: Vec<AnnotationSpec>,
    /// Make an index even of a single manifest.
    pub prefer_index: bool,
    /// Keep only these platforms; empty keeps all.
    pub platforms: Vec<Platform>,
}

impl Engine {
    /// Reads images and makes one of them; nothing is written.
    pub async fn combine(
        &self,
        sources: &[ImageSource],
        options: &CombineOptions,
    ) -> Result<Combined, Diagnostic> {
        let parts = try_join_all(sources.iter().map(|source| self.part(source))).await?;
        let options = Options {
            annotations: &options.annotations,
            prefer_index: options.prefer_index,
            platforms: &options.platforms,
        };
        let mut combined = combine::combine(parts, &options)?;
        if MediaType::is_index(&combined.descriptor.media_type) {
            let found = try_join_all(combined.unattested().map(|(descriptor, location)| async {
                let place = self.place(location);
                let referrers = place.referrers(descriptor).await;
                let attestation =
                    referrers.into_iter().find(|found| found.artifact_type.as_deref() == Some(ATTESTATION));
                Ok::<_, Diagnostic>(attestation.map(|found| (descriptor.digest, found, location.clone())))
            }))
            .await?;
            combined.attest(found.into_iter().flatten())?;
        }
        Ok(combined)
    }

    /// Copies a combined image to its places, the names last.
    pub async fn publish(
        &self,
        image: &Combined,
        targets: &[Location],
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<(), Diagnostic> {
        let mut places: Vec<(String, Vec<&Location>)> = Vec::new();
        for target in targets {
            let name = target.repository();
            match places.iter_mut().find(|(known, _)| *known == name) {
                Some((_, list)) => list.push(target),
                None => places.push((name, vec![target])),
            }
        }
        let progress = Progress::new(events);
        // A copy from one registry to itself reads and writes at once; of what a registry serves at once, some
        // must stay for reading.
        let permits = Arc::new(Semaphore::new(BLOBS_AT_ONCE));
        let work = try_join_all(places.into_iter().map(|(name, targets)| {
            let (progress, permits) = (progress.clone(), permits.clone());
            async move {
                let step = progress.step(format!("[internal] pushing {name}"));
                let copied = copy::Copier { engine: self, step: &step, target: targets[0], permits }
                    .publish(image, &targets)
                    .await;
                step.end(copied)
            }
        }));
        tokio::select! {
            result = work => result.map(drop),
            () = cancel.cancelled() => Err(Diagnostic::new(ErrorKind::User, "canceled")),
        }
    }

    /// Reads one image.
    async fn part(&self, source: &ImageSource) -> Result<Part, Diagnostic> {
        let place = self.place(&source.location);
        let (mut descriptor, bytes) = place.resolve().await?;
        if let Some(stated) = &source.stated {
            if stated.size != 0 && stated.size != descriptor.size {
                return Err(Diagnostic::new(
                    ErrorKind::User,
                    format!("the size {} of {} is wrong", stated.size, descriptor.digest),
                )
                .hint(format!("it has {} bytes: leave `size` out, or correct it", descriptor.size)));
            }
            if !stated.media_type.is_empty() {
                descriptor.media_type.clone_from(&stated.media_type);
            }
            if !stated.annotations.is_empty() {
                descriptor.annotations.clone_from(&stated.annotations);
            }
        }
        if MediaType::is_manifest(&descriptor.media_type) {
            let known = descriptor.platform.clone();
            let stated = source.stated.as_ref().and_then(|stated| stated.platform.clone());
            descriptor.platform = match (stated, known) {
                (Some(stated), _) if !stated.os.is_empty() && !stated.architecture.is_empty() => {
                    Some(stated.fill(&Platform::unknown()))
                }
                (stated, Some(known)) => Some(stated.unwrap_or_default().fill(&known)),
                (stated, None) => {
                    let found = place.platform_of(&descriptor, &bytes).await?;
                    Some(stated.unwrap_or_default().fill(&found))
                }
            };
        }
        Ok(Part::new(descriptor, bytes, source.location.clone()))
    }

    fn place<'a>(&'a self, location: &'a Location) -> Place<'a> {
        Place { client: &self.inner.client, location }
    }
}

impl StatedPlatform {
    /// Returns the platform with what is missing taken from another one.
    fn fill(&self, other: &Platform) -> Platform {
        let whole = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
        let variant = match (self.variant.is_empty(), self.architecture.is_empty()) {
            (false, _) => Some(self.variant.as_str()),
            (true, true) => other.variant.as_deref(),
            (true, false) => None,
        };
        Platform::new(&whole(&self.os, &other.os), &whole(&self.architecture, &other.architecture), variant)
    }
}

/// Describes bytes by what they say of themselves.
pub(super) fn describe(bytes: &[u8]) -> Result<Descriptor, serde_json::Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        config: Option<serde::de::IgnoredAny>,
    }
    let typed: Typed = serde_json::from_slice(bytes)?;
    let guess = if typed.config.is_some() { MediaType::DOCKER_MANIFEST } else { MediaType::DOCKER_INDEX };
    Ok(Descriptor::of(typed.media_type.as_deref().unwrap_or(guess), bytes))
}
