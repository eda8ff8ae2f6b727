//! Reading an OCI image layout on disk ([image-layout.md]): `--build-context name=oci-layout://…`.
//!
//! Blobs are read where they are, and checked against their digest as they are copied into the store.
//!
//! [image-layout.md]: https://github.com/opencontainers/image-spec/blob/main/image-layout.md

use std::fs::File;
use std::path::{Path, PathBuf};

use slipway_model::solve::LayoutSelector;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex};

/// Names the image in `index.json`.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Documents larger than this are refused.
const MAX_DOCUMENT: u64 = 8 << 20;

/// A directory in OCI image layout.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    path: PathBuf,
}

impl Layout {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where a blob is, whether it exists or not.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Finds the image that `selector` means.
    pub(crate) fn select(&self, selector: &LayoutSelector) -> Result<Descriptor, Diagnostic> {
        let failed = |cause: String| {
            Diagnostic::new(ErrorKind::User, format!("cannot read the OCI layout `{}`", self.path.display()))
                .cause(cause)
        };
        if let LayoutSelector::Digest(digest) = selector {
            return self.describe(digest).map_err(|e| failed(e.to_string()));
        }
        let text =
            std::fs::read(self.path.join("index.json")).map_err(|e| failed(format!("index.json: {e}")))?;
        let index: ImageIndex = serde_json::from_slice(&text)
            .map_err(|e| failed(format!("index.json is no image index: {e}")))?;
        let named = |wanted: &str| {
            index.manifests.iter().find(|d| {
                d.annotations.get(REF_NAME).is_some_and(|name| name == wanted)
                    || d.annotations.get(IMAGE_NAME).is_some_and(|name| name.ends_with(&format!(":{wanted}")))
            })
        };
        let found = match selector {
            LayoutSelector::Tag(tag) => named(tag),
            _ => match index.manifests.as_slice() {
                [only] => Some(only),
                _ => named("latest"),
            },
        };
        found.cloned().ok_or_else(|| {
            let tags: Vec<&str> = index
                .manifests
                .iter()
                .filter_map(|d| d.annotations.get(REF_NAME))
                .map(String::as_str)
                .collect();
            let wanted = match selector {
                LayoutSelector::Tag(tag) => tag.as_str(),
                _ => "latest",
            };
            failed(format!("it has no image tagged `{wanted}`")).hint(match tags.is_empty() {
                true => "name the image by digest: `oci-layout://PATH@sha256:…`".to_owned(),
                false => format!("it has: {}", tags.join(", ")),
            })
        })
    }

    /// Describes a document that is known by digest only.
    fn describe(&self, digest: &Digest) -> std::io::Result<Descriptor> {
        describe(&self.read(digest)?)
    }

    /// Reads a document and checks its digest.
    pub(crate) fn read(&self, digest: &Digest) -> std::io::Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let invalid = |message: String| std::io::Error::new(std::io::ErrorKind::InvalidData, message);
        let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("blob {digest}: {e}"));
        let file = File::open(&path).map_err(named)?;
        if file.metadata().map_err(named)?.len() > MAX_DOCUMENT {
            return Err(invalid(format!("blob {digest} is too large for a document")));
        }
        let bytes = std::fs::read(&path).map_err(named)?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(invalid(format!("blob {digest} is altered: its content has digest {actual}")));
        }
        Ok(bytes)
    }
}

/// Describes a document of which only the bytes are known.
pub(crate) fn describe(bytes: &[u8]) -> std::io::Result<Descriptor> {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(default, rename = "mediaType")]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde_json::Value>,
    }
    let typed: Typed = serde_json::from_slice(bytes)?;
    let guess = match typed.manifests {
        Some(_) => slipway_model::MediaType::OCI_INDEX,
        None => slipway_model::MediaType::OCI_MANIFEST,
    };
    Ok(Descriptor::of(typed.media_type.as_deref().unwrap_or(guess), bytes))
}
