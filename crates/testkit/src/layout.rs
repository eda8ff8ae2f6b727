//! OCI layouts made by hand, so that they can be wrong.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Returns the digest of bytes as references write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An OCI layout in a directory, with one image for `linux/amd64`.
#[derive(Debug)]
pub struct Layout {
    directory: PathBuf,
    /// The image's manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The digests of the image's layers, lowest first.
    pub layers: Vec<String>,
}

impl Layout {
    /// Writes a layout whose image has these layers, all of them plain archives.
    pub fn write(directory: &Path, layers: &[Vec<u8>]) -> Self {
        let digests: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let config = config.to_string().into_bytes();
        let descriptors: Vec<Value> = layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": descriptors,
        });
        let manifest = manifest.to_string().into_bytes();
        let layout = Self { directory: directory.to_owned(), manifest, layers: digests };
        std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for blob in layers.iter().chain([&config, &layout.manifest]) {
            std::fs::write(layout.blob(&digest(blob)), blob).unwrap();
        }
        layout.index(&descriptor(MANIFEST, &layout.manifest));
        layout
    }

    /// Returns where a blob is.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs").join(digest.replace(':', "/"))
    }

    /// Replaces the manifest, honestly digested; what it says of other blobs may be a lie.
    pub fn set_manifest(&mut self, change: impl FnOnce(&mut Value)) {
        let mut manifest: Value = serde_json::from_slice(&self.manifest).unwrap();
        change(&mut manifest);
        self.manifest = manifest.to_string().into_bytes();
        std::fs::write(self.blob(&digest(&self.manifest)), &self.manifest).unwrap();
        self.index(&descriptor(MANIFEST, &self.manifest));
    }

    /// Returns the flag that makes the layout the context `base`.
    pub fn flag(&self) -> String {
        format!("--build-context=base=oci-layout://{}", self.directory.display())
    }

    fn index(&self, manifest: &Value) {
        let mut manifest = manifest.clone();
        manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(self.directory.join("index.json"), index.to_string()).unwrap();
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}
