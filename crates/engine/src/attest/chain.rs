//! What vouches for an image in a registry: its attestation manifest, and what signs that.
//!
//! Verifying is the client's; here is only found and fetched what it needs for that.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use slipway_dockerfile::ResolveMode;
use slipway_model::llb::pb;
use slipway_model::{
    Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex, Manifest, MediaType, Platform, Reference,
};

use super::statement::PREDICATE_TYPE;
use crate::blobs::BlobSource;
use crate::build::Build;
use crate::exporters::Attested;

/// The types of signatures, the preferred one first.
const SIGNATURES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.cosign.artifact.sig.v1+json"];

/// Documents that lead from an image's name to its signature.
#[derive(Clone, Debug)]
pub struct AttestationChain {
    /// The index.
    pub root: Digest,
    /// The image of the platform; it is not among the documents.
    pub image_manifest: Digest,
    pub attestation_manifest: Option<Digest>,
    pub signature_manifest: Option<Digest>,
    pub documents: BTreeMap<Digest, (Descriptor, Vec<u8>)>,
}

impl Build {
    /// Finds what vouches for the image of a pinned source, with the statements of some types; `None` for a source
    /// that is no index of a registry.
    pub async fn attestation_chain(
        &self,
        source: &pb::SourceOp,
        platform: Option<&Platform>,
        predicate_types: &[String],
    ) -> Result<Option<AttestationChain>, Diagnostic> {
        let Some(name) = source.identifier.strip_prefix("docker-image://") else { return Ok(None) };
        let reference = name.parse::<Reference>();
        let reference = reference.map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
        self.until_cancelled(self.chain(&reference, platform, predicate_types)).await
    }

    async fn chain(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        predicate_types: &[String],
    ) -> Result<Option<AttestationChain>, Diagnostic> {
        let blobs = &self.job.blobs;
        let root = blobs.resolve(reference, ResolveMode::Default).await?;
        if root.media_type != MediaType::OCI_INDEX {
            return Ok(None);
        }
        let source = BlobSource::Registry(reference.without_tag());
        let bytes = blobs.document(&root, &source).await?;
        let index: ImageIndex = parse(reference, &bytes)?;
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let image = index.select(&platform).ok_or_else(|| {
            let message = format!("{reference}: no match for platform in manifest: not found");
            Diagnostic::new(ErrorKind::User, message)
        })?;
        let mut chain = AttestationChain {
            root: root.digest,
            image_manifest: image.digest,
            attestation_manifest: None,
            signature_manifest: None,
            documents: [(root.digest, (root, bytes))].into(),
        };
        let about = |descriptor: &&Descriptor| Attested::of(descriptor) == Some(image.digest);
        let Some(attestation) = index.manifests.iter().find(about) else { return Ok(Some(chain)) };
        let bytes = blobs.document(attestation, &source).await?;
        let manifest: Manifest = parse(reference, &bytes)?;
        chain.attestation_manifest = Some(attestation.digest);
        chain.documents.insert(attestation.digest, (attestation.clone(), bytes));
        let wanted = |layer: &&Descriptor| {
            layer.annotations.get(PREDICATE_TYPE).is_some_and(|kind| predicate_types.contains(kind))
        };
        for layer in manifest.layers.iter().filter(wanted) {
            chain.documents.insert(layer.digest, (layer.clone(), blobs.document(layer, &source).await?));
        }
        // A registry that cannot say what refers to a manifest has no signatures either.
        let referrers = blobs.client().referrers(reference, attestation.digest).await.unwrap_or_default();
        let of_kind = |kind| referrers.iter().find(|found| found.artifact_type.as_deref() == Some(kind));
        if let Some(signature) = SIGNATURES.into_iter().find_map(of_kind) {
            let bytes = blobs.document(signature, &source).await?;
            let manifest: Manifest = parse(reference, &bytes)?;
            chain.signature_manifest = Some(signature.digest);
            chain.documents.insert(signature.digest, (signature.clone(), bytes));
            for layer in &manifest.layers {
                chain.documents.insert(layer.digest, (layer.clone(), blobs.document(layer, &source).await?));
            }
        }
        Ok(Some(chain))
    }
}

fn parse<T: DeserializeOwned>(reference: &Reference, bytes: &[u8]) -> Result<T, Diagnostic> {
    serde_json::from_slice(bytes).map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot use `{reference}`")).cause(error.to_string())
    })
}
