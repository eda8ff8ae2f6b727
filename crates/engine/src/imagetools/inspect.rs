//! Looking at an image: its index, its manifests, its configs, its attestations.

use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::Value;
use slipway_model::{Descriptor, Diagnostic, ImageIndex, Manifest, MediaType, Platform};

use super::location::{Location, Place};
use crate::engine::Engine;

pub(crate) const REFERENCES: [&str; 2] = ["com.docker.reference.digest", "vnd.docker.reference.digest"];
pub(crate) const PREDICATE: &str = "in-toto.io/predicate-type";
const SPDX: &str = "https://spdx.dev/Document";
const SLSA: &str = "https://slsa.dev/provenance/";

/// What a place has under a name.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub location: Location,
    pub descriptor: Descriptor,
    /// The document as it is.
    pub raw: Bytes,
}

/// What is wanted beside the document.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub provenance: bool,
    pub sbom: bool,
}

/// One platform's image.
#[derive(Clone, Debug)]
pub struct PlatformInspection {
    pub platform: Platform,
    pub descriptor: Descriptor,
    pub manifest: Manifest,
    /// The config as it is.
    pub config: Value,
    /// The predicate of its provenance.
    pub provenance: Option<Value>,
    /// The predicates of its bills of materials.
    pub sboms: Vec<Value>,
}

impl Engine {
    /// Reads what a location names.
    pub async fn inspect(&self, location: &Location) -> Result<Inspection, Diagnostic> {
        let (descriptor, raw) = self.place(location).resolve().await?;
        Ok(Inspection { location: location.clone(), descriptor, raw })
    }

    /// Reads the manifests and configs of every platform, in order of the platform's name.
    pub async fn inspect_platforms(
        &self,
        inspection: &Inspection,
        wanted: Wanted,
    ) -> Result<Vec<PlatformInspection>, Diagnostic> {
        let place = self.place(&inspection.location);
        let root = (inspection.descriptor.clone(), inspection.raw.clone());
        let manifests = manifests(place, root).await?;
        let subject = |descriptor: &Descriptor| {
            REFERENCES.iter().find_map(|name| descriptor.annotations.get(*name)).cloned()
        };
        let images = manifests.iter().filter(|(descriptor, _)| subject(descriptor).is_none());
        let mut found = try_join_all(images.map(|(descriptor, manifest)| async {
            let config: Value = place.parse(&manifest.config, &place.blob(&manifest.config).await?)?;
            let platform = match &descriptor.platform {
                Some(platform) => platform.clone(),
                None => platform_of(&config),
            };
            let name = descriptor.digest.to_string();
            let about = manifests.iter().filter(|(other, _)| subject(other).as_ref() == Some(&name));
            let (mut provenance, mut sboms) = (None, Vec::new());
            for layer in about.flat_map(|(_, manifest)| &manifest.layers) {
                let kind = layer.annotations.get(PREDICATE).map(String::as_str).unwrap_or_default();
                if wanted.provenance && provenance.is_none() && kind.starts_with(SLSA) {
                    provenance = Some(predicate(place, layer).await?);
                } else if wanted.sbom && kind == SPDX {
                    sboms.push(predicate(place, layer).await?);
                }
            }
            Ok::<_, Diagnostic>(PlatformInspection {
                platform,
                descriptor: descriptor.clone(),
                manifest: manifest.clone(),
                config,
                provenance,
                sboms,
            })
        }))
        .await?;
        found.sort_by_key(|image| image.platform.to_string());
        Ok(found)
    }
}

/// Reads all manifests below a document.
async fn manifests(
    place: Place<'_>,
    root: (Descriptor, Bytes),
) -> Result<Vec<(Descriptor, Manifest)>, Diagnostic> {
    let (descriptor, bytes) = root;
    if MediaType::is_manifest(&descriptor.media_type) {
        let manifest = place.parse(&descriptor, &bytes)?;
        return Ok(vec![(descriptor, manifest)]);
    }
    if !MediaType::is_index(&descriptor.media_type) {
        return Ok(Vec::new());
    }
    let index: ImageIndex = place.parse(&descriptor, &bytes)?;
    let below = try_join_all(index.manifests.into_iter().map(|descriptor| async move {
        let bytes = place.document(&descriptor).await?;
        Box::pin(manifests(place, (descriptor, bytes))).await
    }));
    Ok(below.await?.into_iter().flatten().collect())
}

fn platform_of(config: &Value) -> Platform {
    let text = |name: &str| config.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match (text("os"), text("architecture")) {
        (Some(os), Some(architecture)) => Platform::new(os, architecture, text("variant")),
        _ => Platform::unknown(),
    }
}

/// Reads what an attestation says, signed or not.
async fn predicate(place: Place<'_>, layer: &Descriptor) -> Result<Value, Diagnostic> {
    let mut statement: Value = place.parse(layer, &place.blob(layer).await?)?;
    if layer.media_type.ends_with("+dsse") {
        let payload = statement.get("payload").and_then(Value::as_str).unwrap_or_default();
        let inner = base64::engine::general_purpose::STANDARD.decode(payload).unwrap_or_default();
        statement = place.parse(layer, &inner)?;
    }
    Ok(statement.get_mut("predicate").map(Value::take).unwrap_or_default())
}
