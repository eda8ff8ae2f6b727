//! Where an image is or goes: a repository of a registry, or an OCI layout on disk; and reading from either.

use std::path::PathBuf;

use bytes::Bytes;
use slipway_model::solve::LayoutSelector;
use slipway_model::{
    Descriptor, Diagnostic, Digest, ErrorKind, ImageConfig, ImageIndex, Manifest, MediaType, Platform,
    Reference,
};
use slipway_registry::{Access, Client};

use super::{REFERRERS, describe};
use crate::error::Context as _;
use crate::sources::layout::Layout;

/// Configs and attestations larger than this are refused.
const MAX_DOCUMENT: u64 = 64 << 20;

/// Names an image by where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Registry(Reference),
    Layout { path: PathBuf, selector: LayoutSelector },
}

impl Location {
    /// Returns the name without tag and digest.
    pub fn repository(&self) -> String {
        match self {
            Self::Registry(reference) => reference.repository(),
            Self::Layout { path, .. } => path.display().to_string(),
        }
    }

    /// Names another image in the same place.
    pub fn with_digest(&self, digest: Digest) -> Self {
        match self {
            Self::Registry(reference) => Self::Registry(reference.with_digest(digest)),
            Self::Layout { path, .. } => {
                Self::Layout { path: path.clone(), selector: LayoutSelector::Digest(digest) }
            }
        }
    }

    /// Names the image that the place has under no name of its own: `latest`.
    pub fn without_selection(&self) -> Self {
        match self {
            Self::Registry(reference) => Self::Registry(reference.without_tag().with_default_tag()),
            Self::Layout { path, .. } => {
                Self::Layout { path: path.clone(), selector: LayoutSelector::Default }
            }
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { path, selector } => {
                write!(f, "oci-layout://{}", path.display())?;
                match selector {
                    LayoutSelector::Default => Ok(()),
                    LayoutSelector::Tag(tag) => write!(f, ":{tag}"),
                    LayoutSelector::Digest(digest) => write!(f, "@{digest}"),
                }
            }
        }
    }
}

/// A location that can be read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) client: &'a Client,
    pub(super) location: &'a Location,
}

impl Place<'_> {
    /// Reads what the location names.
    pub(super) async fn resolve(&self) -> Result<(Descriptor, Bytes), Diagnostic> {
        match self.location {
            Location::Registry(reference) => {
                let reference = reference.with_default_tag();
                let (descriptor, bytes) = self
                    .client
                    .resolve_manifest(&reference, Access::Pull)
                    .await
                    .context(|| format!("cannot read {reference}"))?;
                Ok((descriptor, bytes))
            }
            Location::Layout { path, selector } => {
                let layout = Layout::new(path.clone());
                let descriptor = layout.select(selector)?;
                let bytes = self.read_layout(&layout, &descriptor.digest)?;
                // The entry's annotations are names in that layout, and mean nothing elsewhere.
                let described = describe(&bytes).map_err(|error| self.failed(error))?;
                let media_type = match descriptor.media_type.is_empty() {
                    true => described.media_type.clone(),
                    false => descriptor.media_type,
                };
                Ok((Descriptor { media_type, platform: descriptor.platform, ..described }, bytes))
            }
        }
    }

    /// Reads a manifest or index that is beside what the location names.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, Diagnostic> {
        match self.location {
            Location::Registry(reference) => self
                .client
                .manifest(reference, descriptor)
                .await
                .context(|| format!("cannot read {} of {reference}", descriptor.digest)),
            Location::Layout { path, .. } => self.read_layout(&Layout::new(path.clone()), &descriptor.digest),
        }
    }

    /// Reads a small blob: a config, an attestation.
    pub(super) async fn blob(&self, descriptor: &Descriptor) -> Result<Bytes, Diagnostic> {
        match self.location {
            Location::Registry(reference) => self
                .client
                .blob_bytes(reference, descriptor, MAX_DOCUMENT)
                .await
                .context(|| format!("cannot read {} of {reference}", descriptor.digest)),
            Location::Layout { .. } => self.document(descriptor).await,
        }
    }

    /// Returns the platform that the config of a manifest states.
    pub(super) async fn platform_of(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<Platform, Diagnostic> {
        let manifest: Manifest = self.parse(descriptor, bytes)?;
        let config: ImageConfig = self.parse(&manifest.config, &self.blob(&manifest.config).await?)?;
        Ok(config.platform())
    }

    /// Lists what refers to a manifest and goes with it; a place that keeps no such list has none.
    pub(super) async fn referrers(&self, descriptor: &Descriptor) -> Vec<Descriptor> {
        let found = match self.location {
            Location::Registry(reference) => {
                self.client.referrers(reference, descriptor.digest).await.unwrap_or_default()
            }
            Location::Layout { path, .. } => referrers_in(&Layout::new(path.clone()), &descriptor.digest),
        };
        let wanted =
            |found: &Descriptor| found.artifact_type.as_deref().is_some_and(|kind| REFERRERS.contains(&kind));
        found.into_iter().filter(wanted).collect()
    }

    /// Parses a document that was read here.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<T, Diagnostic> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.failed(format!("{} is not what it should be: {error}", descriptor.digest)))
    }

    fn read_layout(&self, layout: &Layout, digest: &Digest) -> Result<Bytes, Diagnostic> {
        layout.read(digest).map(Bytes::from).map_err(|error| self.failed(error))
    }

    fn failed(&self, why: impl ToString) -> Diagnostic {
        Diagnostic::new(ErrorKind::Environment, format!("cannot read {}", self.location))
            .cause(why.to_string())
    }
}

/// Looks through the manifests that a layout's index lists for those with this subject.
fn referrers_in(layout: &Layout, subject: &Digest) -> Vec<Descriptor> {
    let Ok(text) = std::fs::read(layout.path().join("index.json")) else { return Vec::new() };
    let Ok(index) = serde_json::from_slice::<ImageIndex>(&text) else { return Vec::new() };
    let about = |descriptor: &Descriptor| {
        if !MediaType::is_manifest(&descriptor.media_type) {
            return None;
        }
        let manifest: Manifest = serde_json::from_slice(&layout.read(&descriptor.digest).ok()?).ok()?;
        if manifest.subject.as_ref()?.digest != *subject {
            return None;
        }
        let artifact_type = manifest.artifact_type.unwrap_or(manifest.config.media_type);
        Some(Descriptor { artifact_type: Some(artifact_type), ..descriptor.clone() })
    };
    index.manifests.iter().filter_map(about).collect()
}
