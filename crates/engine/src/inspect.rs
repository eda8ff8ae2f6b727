//! Looking at an image in a registry: its index, its manifests, its configs.

use slipway_model::{Descriptor, Diagnostic, ImageIndex, Manifest, MediaType, Platform, Reference};
use slipway_registry::Access;

use crate::engine::Engine;
use crate::error::Context as _;

/// Configs larger than this are refused.
const MAX_CONFIG: u64 = 8 << 20;

/// What a registry has under a name.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub reference: Reference,
    pub descriptor: Descriptor,
    /// The document as the registry has it.
    pub raw: Vec<u8>,
    /// Set if the document is an index.
    pub index: Option<ImageIndex>,
    /// Set if the document is a manifest.
    pub manifest: Option<Manifest>,
}

/// One platform's image.
#[derive(Clone, Debug)]
pub struct PlatformInspection {
    pub platform: Platform,
    pub descriptor: Descriptor,
    pub manifest: Manifest,
    /// The config as it is.
    pub config: serde_json::Value,
}

impl Engine {
    /// Fetches what a reference names.
    pub async fn inspect(&self, reference: &Reference) -> Result<Inspection, Diagnostic> {
        let reference = reference.with_default_tag();
        let doing = || format!("cannot inspect {reference}");
        let (descriptor, raw) =
            self.inner.client.resolve_manifest(&reference, Access::default()).await.context(doing)?;
        let parse = |what: &str, error: serde_json::Error| {
            Diagnostic::new(slipway_model::ErrorKind::Environment, doing())
                .cause(format!("it is no {what}: {error}"))
        };
        let (mut index, mut manifest) = (None, None);
        if MediaType::is_index(&descriptor.media_type) {
            index = Some(serde_json::from_slice(&raw).map_err(|e| parse("image index", e))?);
        } else {
            manifest = Some(serde_json::from_slice(&raw).map_err(|e| parse("image manifest", e))?);
        }
        Ok(Inspection { reference, descriptor, raw: raw.to_vec(), index, manifest })
    }

    /// Fetches the manifests and configs of every platform; attestations are left out.
    pub async fn inspect_platforms(
        &self,
        inspection: &Inspection,
    ) -> Result<Vec<PlatformInspection>, Diagnostic> {
        let reference = &inspection.reference;
        let doing = || format!("cannot inspect {reference}");
        let mut found = Vec::new();
        let entries: Vec<Descriptor> = match &inspection.index {
            Some(index) => index.manifests.clone(),
            None => vec![inspection.descriptor.clone()],
        };
        for descriptor in entries {
            if descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown") {
                continue;
            }
            let manifest: Manifest = match &inspection.manifest {
                Some(manifest) => manifest.clone(),
                None => {
                    let text = self.inner.client.manifest(reference, &descriptor).await.context(doing)?;
                    serde_json::from_slice(&text).map_err(|e| crate::error::internal(e.to_string()))?
                }
            };
            let text =
                self.inner.client.blob_bytes(reference, &manifest.config, MAX_CONFIG).await.context(doing)?;
            let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let stated = descriptor.platform.clone();
            let platform = stated.or_else(|| {
                let config: slipway_model::ImageConfig = serde_json::from_slice(&text).ok()?;
                Some(config.platform())
            });
            let platform = platform.unwrap_or_else(Platform::unknown);
            found.push(PlatformInspection { platform, descriptor, manifest, config });
        }
        Ok(found)
    }
}
