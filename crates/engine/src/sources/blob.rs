//! Single blobs of registries and of OCI layouts of a client, as files: `docker-image+blob://name@digest` and
//! `oci-layout+blob://name@digest`.

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind, Reference};
use slipway_solver::CacheMap;

use super::file::SingleFile;
use crate::attest::Pin;
use crate::blobs::BlobSource;
use crate::job::Job;
use crate::ops::{VertexOperation, keys};
use crate::tree::Tree;

/// The scheme of blobs in registries.
pub(super) const REGISTRY: &str = "docker-image+blob";
/// The scheme of blobs in OCI layouts.
pub(super) const LAYOUT: &str = "oci-layout+blob";

/// One blob, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BlobLocation {
    pub(super) digest: Digest,
    source: BlobSource,
}

impl BlobLocation {
    /// Reads `scheme://name@digest`; `store` names the client's store, if it is not called as the blob is.
    pub(super) fn parse(identifier: &str, store: Option<&str>) -> Result<Self, Diagnostic> {
        let invalid = |cause: String| {
            Diagnostic::new(ErrorKind::User, format!("invalid blob reference `{identifier}`")).cause(cause)
        };
        let (scheme, name) =
            identifier.split_once("://").ok_or_else(|| invalid("missing scheme".to_owned()))?;
        let (place, digest) = name.rsplit_once('@').ok_or_else(|| invalid("it has no digest".to_owned()))?;
        let digest: Digest =
            digest.parse().map_err(|error: slipway_model::ParseDigestError| invalid(error.to_string()))?;
        let source = match scheme {
            REGISTRY => {
                let reference: Reference = place
                    .parse()
                    .map_err(|error: slipway_model::ParseReferenceError| invalid(error.to_string()))?;
                BlobSource::Registry(reference.without_tag())
            }
            LAYOUT => BlobSource::client_layout(store.unwrap_or(place)),
            other => return Err(invalid(format!("the scheme {other:?} is not {REGISTRY:?} or {LAYOUT:?}"))),
        };
        Ok(Self { digest, source })
    }

    /// Makes sure that the blob is in the store.
    pub(super) async fn fetch(&self, job: &Job, vertex: Digest) -> Result<(), Diagnostic> {
        job.blobs.ensure_alone(self.digest, &self.source, vertex).await
    }
}

fn location(source: &pb::SourceOp) -> Result<BlobLocation, Diagnostic> {
    let store = source.attrs.get("oci.store").map(String::as_str).filter(|store| !store.is_empty());
    if source.identifier.starts_with(LAYOUT) && store.is_none() {
        return Err(Diagnostic::new(ErrorKind::User, "oci-layout blob source requires store id"));
    }
    BlobLocation::parse(&source.identifier, store)
}

/// The key of a blob is its digest, and how the file is to be: nothing has to be asked.
pub(super) fn cache_map(operation: &VertexOperation, source: &pb::SourceOp) -> Result<CacheMap, Diagnostic> {
    let blob = location(source)?;
    operation.pin(Pin::Blob);
    let mut data = blob.digest.to_string();
    for name in ["http.filename", "http.perm", "http.uid", "http.gid"] {
        data.push('\0');
        data.push_str(source.attrs.get(name).map(String::as_str).unwrap_or_default());
    }
    Ok(keys::source("blob", None, data.as_bytes(), None))
}

/// Makes a snapshot with the blob alone in it.
pub(super) async fn execute(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Tree, Diagnostic> {
    let blob = location(source)?;
    blob.fetch(&operation.job, operation.digest()).await?;
    let name = source.attrs.get("http.filename").filter(|name| !name.is_empty()).cloned();
    let file = SingleFile {
        name: name.unwrap_or_else(|| blob.digest.hex()),
        description: format!("blob {}", source.identifier),
        ..SingleFile::of(source, blob.digest)?
    };
    file.keep(operation.job.clone()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read() {
        let digest = Digest::of("x");
        let parse = |identifier: String, store| BlobLocation::parse(&identifier, store);
        let found = parse(format!("docker-image+blob://localhost:5000/a/b@{digest}"), None).unwrap();
        assert_eq!(found.source, BlobSource::Registry("localhost:5000/a/b".parse().unwrap()));
        let found = parse(format!("oci-layout+blob://not/real@{digest}"), Some("mine")).unwrap();
        assert_eq!(found, BlobLocation { digest, source: BlobSource::Client("oci:mine".to_owned()) });
        for wrong in ["docker-image+blob://a/b", "docker-image+blob://a@sha256:1", "file://a@x", "a"] {
            assert!(parse(wrong.to_owned(), None).is_err(), "{wrong}");
        }
    }
}
