//! The documents of the [OCI image spec]: descriptor, manifest, image index; and their Docker twins.
//!
//! A document that is read and written again keeps what this version does not know (`extra`), and maps
//! are ordered, so that the same content has the same digest wherever it is made.
//!
//! [OCI image spec]: https://github.com/opencontainers/image-spec

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform};

/// Holds the annotations of a document, in order of key.
pub type Annotations = BTreeMap<String, String>;

/// Holds members of a JSON object that this version has no name for.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// The media types that slipway reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct MediaType;

impl MediaType {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

    /// Tells whether `media_type` is an image index or a Docker manifest list.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, Self::OCI_INDEX | Self::DOCKER_INDEX)
    }

    /// Tells whether `media_type` is an image manifest.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, Self::OCI_MANIFEST | Self::DOCKER_MANIFEST)
    }
}

/// Points at content: what it is, its digest, its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "null_is_default")]
    pub annotations: Annotations,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Descriptor {
    /// Describes `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Makes a descriptor with nothing but the three required members.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: Annotations::new(),
            platform: None,
            artifact_type: None,
            extra: Extra::new(),
        }
    }
}

/// Lists the config and the layers of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "null_is_default")]
    pub annotations: Annotations,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Lists the manifests of an image, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "null_is_default")]
    pub annotations: Annotations,
    #[serde(flatten)]
    pub extra: Extra,
}

impl ImageIndex {
    /// Makes an index of manifests, with nothing else in it.
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: Annotations::new(),
            extra: Extra::new(),
        }
    }

    /// Picks the manifest that serves `platform` best: an exact match before a compatible one. Of one for Windows the
    /// version has to fit.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        platform.compatible().into_iter().find_map(|wanted| {
            self.manifests.iter().find(|descriptor| {
                let same = descriptor
                    .platform
                    .as_ref()
                    .is_some_and(|p| p.same_machine(&wanted) && platform.accepts_version(p));
                same && (descriptor.media_type.is_empty() || MediaType::is_manifest(&descriptor.media_type))
            })
        })
    }

    /// Lists the platforms that the index has images for, attestations left out.
    pub fn platforms(&self) -> Vec<Platform> {
        let known = |p: &Platform| p.os != "unknown" && !p.os.is_empty();
        self.manifests.iter().filter_map(|d| d.platform.clone()).filter(known).collect()
    }
}

/// Takes `null` for a member's default: Go writes it for an empty map or list.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_survive() {
        let text = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"x":1}],"y":[2]}"#;
        let index: ImageIndex = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&index).unwrap(), text);
    }

    #[test]
    fn selection_prefers_the_exact_platform() {
        let entry = |platform: &str| Descriptor {
            platform: Some(platform.parse().unwrap()),
            ..Descriptor::of(MediaType::OCI_MANIFEST, platform.as_bytes())
        };
        let index = ImageIndex {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: vec![entry("linux/arm/v6"), entry("linux/arm/v7"), entry("linux/arm64")],
            subject: None,
            annotations: Annotations::new(),
            extra: Extra::new(),
        };
        let pick = |p: &str| {
            index.select(&p.parse().unwrap()).and_then(|d| d.platform.clone()).map(|p| p.to_string())
        };
        assert_eq!(pick("linux/arm/v7").as_deref(), Some("linux/arm/v7"));
        assert_eq!(pick("linux/arm/v6").as_deref(), Some("linux/arm/v6"));
        assert_eq!(pick("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(pick("linux/amd64"), None);
    }

    #[test]
    fn selection_for_windows_looks_at_the_version() {
        let manifest = |platform: &str| Descriptor {
            platform: Some(platform.parse().unwrap()),
            ..Descriptor::of(MediaType::OCI_MANIFEST, platform.as_bytes())
        };
        let text = r#"{"schemaVersion":2,"manifests":[]}"#;
        let mut index: ImageIndex = serde_json::from_str(text).unwrap();
        index.manifests = vec![manifest("windows(1.2.3)/amd64"), manifest("windows(1.1.0)/amd64")];
        let wanted = "windows(1.1.0)/amd64".parse().unwrap();
        assert_eq!(index.select(&wanted).and_then(|d| d.platform.clone()), Some(wanted));
    }
}
