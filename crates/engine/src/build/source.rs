//! Pinning sources without fetching them: what a name stands for now.

use std::sync::Arc;

use slipway_dockerfile::ResolveMode;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform, Reference};

use super::Build;
use crate::attest::{self, ImageSource};
use crate::policy::SourcePolicy;
use crate::sources::{self, Found};

/// How a source is resolved.
#[derive(Clone, Debug, Default)]
pub struct ResolveOptions {
    pub platform: Option<Platform>,
    /// Whether an image may be what was known of it before.
    pub mode: ResolveMode,
    /// Shown to people while it is resolved.
    pub log_name: String,
    /// Of repositories, the commit and the tag themselves are wanted too, which have to be fetched.
    pub git_objects: bool,
    /// Of files at an address, another checksum is wanted too.
    pub checksum: Option<ChecksumRequest>,
    /// Further rules for the source.
    pub policies: Vec<SourcePolicy>,
}

/// What a source stands for.
#[derive(Clone, Debug)]
pub struct SourceMeta {
    /// The operation, pinned where it can be.
    pub op: pb::SourceOp,
    /// For images.
    pub image: Option<ImageMeta>,
    /// For files at an address.
    pub http: Option<HttpMeta>,
    /// For repositories.
    pub git: Option<GitMeta>,
}

/// What is at an address.
#[derive(Clone, Debug)]
pub struct HttpMeta {
    pub digest: Digest,
    pub filename: String,
    /// In seconds since 1970.
    pub last_modified: Option<i64>,
    pub checksum: Option<Checksum>,
}

/// Which commit a source means.
#[derive(Clone, Debug)]
pub struct GitMeta {
    /// The whole name, as `refs/heads/main`; the commit where that was given.
    pub reference: String,
    /// The commit, or the annotated tag.
    pub checksum: String,
    /// The commit behind an annotated tag.
    pub commit_checksum: Option<String>,
    /// As git has it; empty if it was not asked for.
    pub commit_object: Vec<u8>,
    pub tag_object: Vec<u8>,
}

/// Asks for a checksum of a file with something after it, as signatures are over.
#[derive(Clone, Debug)]
pub struct ChecksumRequest {
    pub algorithm: ChecksumAlgorithm,
    pub suffix: Vec<u8>,
}

/// How a checksum is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// Answers a [`ChecksumRequest`].
#[derive(Clone, Debug)]
pub struct Checksum {
    /// With the name of the algorithm before it.
    pub digest: String,
    pub suffix: Vec<u8>,
}

impl ChecksumRequest {
    const MAX_SUFFIX: usize = 4 << 10;

    pub(crate) fn check(&self) -> Result<(), Diagnostic> {
        match self.suffix.len() > Self::MAX_SUFFIX {
            true => Err(Diagnostic::new(
                ErrorKind::User,
                format!("http checksum request suffix exceeds max size {}", Self::MAX_SUFFIX),
            )),
            false => Ok(()),
        }
    }
}

impl SourceMeta {
    fn of_image(op: pb::SourceOp, image: ImageMeta) -> Self {
        Self { op, image: Some(image), http: None, git: None }
    }
}

/// What an image's name stands for.
#[derive(Clone, Debug)]
pub struct ImageMeta {
    /// The digest of the index or manifest.
    pub digest: Digest,
    /// The config of the platform's image, as it is in the registry.
    pub config: Arc<[u8]>,
}

impl Build {
    /// Finds what a source stands for now.
    pub async fn resolve_source(
        &self,
        mut op: pb::SourceOp,
        options: &ResolveOptions,
    ) -> Result<SourceMeta, Diagnostic> {
        let platform = options.platform.as_ref().map(pb::Platform::from);
        let admitted = self.admit(&mut op, platform.as_ref(), &options.policies);
        self.until_cancelled(admitted).await?;
        self.resolve_admitted(op, options).await
    }

    /// Finds what a source stands for now, without asking whether it may be used.
    pub(crate) async fn resolve_admitted(
        &self,
        op: pb::SourceOp,
        options: &ResolveOptions,
    ) -> Result<SourceMeta, Diagnostic> {
        self.until_cancelled(self.resolve(op, options)).await
    }

    async fn resolve(&self, op: pb::SourceOp, options: &ResolveOptions) -> Result<SourceMeta, Diagnostic> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let (kind, name) = op.identifier.split_once("://").unwrap_or_default();
        if kind == "oci-layout" {
            let name = name.to_owned();
            return self.resolve_layout(op, &name, &platform).await;
        }
        if kind != "docker-image" {
            return Ok(match sources::find(&self.job, &op, options).await? {
                Found::Http(http) => SourceMeta { op, image: None, http: Some(http), git: None },
                Found::Git(git) => SourceMeta { op, image: None, http: None, git: Some(git) },
                Found::Nothing => SourceMeta { op, image: None, http: None, git: None },
            });
        }
        let reference: Reference = name.parse().map_err(|e: slipway_model::ParseReferenceError| {
            Diagnostic::new(ErrorKind::User, e.to_string())
        })?;
        let reference = reference.with_default_tag();
        let shown = match options.log_name.as_str() {
            "" => format!("resolve image config for {reference}"),
            name => name.to_owned(),
        };
        let step = self.job.progress.step(shown);
        let pinned = step.end(self.job.images.pin_registry(&reference, &platform, options.mode).await)?;
        let digest = pinned.root.digest;
        self.note(reference.clone(), &platform, digest, false);
        let identifier = format!("docker-image://{}", reference.with_digest(digest));
        let op = pb::SourceOp { identifier, ..op };
        Ok(SourceMeta::of_image(op, ImageMeta { digest, config: pinned.config }))
    }

    /// Notes that an image was asked for.
    fn note(&self, reference: Reference, platform: &Platform, digest: Digest, local: bool) {
        let platform = Some(platform.clone());
        self.scope.resolved(ImageSource { reference, platform, digest, local });
    }

    /// Resolves an image in a content store of the client.
    async fn resolve_layout(
        &self,
        op: pb::SourceOp,
        name: &str,
        platform: &Platform,
    ) -> Result<SourceMeta, Diagnostic> {
        let invalid = |cause: String| {
            Diagnostic::new(ErrorKind::User, format!("could not parse oci-layout reference `{name}`"))
                .cause(cause)
        };
        let (store, digest) = name.rsplit_once('@').ok_or_else(|| invalid("it has no digest".to_owned()))?;
        let digest: Digest =
            digest.parse().map_err(|e: slipway_model::ParseDigestError| invalid(e.to_string()))?;
        let store = op.attrs.get("oci.store").map_or(store, String::as_str);
        let pinned = self.job.images.pin_client_layout(store, digest, platform).await?;
        let digest = pinned.root.digest;
        if let Some(reference) = attest::image_name(name, true) {
            self.note(reference, platform, digest, true);
        }
        Ok(SourceMeta::of_image(op, ImageMeta { digest, config: pinned.config }))
    }
}
