//! Where trees come from: images, directories of the person who builds, addresses on the web, repositories.

mod blob;
mod file;
mod git;
mod http;
mod image;
pub(crate) mod layout;
pub(crate) mod local;
mod signature;

use std::sync::Arc;

use slipway_model::llb::{Vertex, pb};
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_solver::CacheMap;

use crate::build::{GitMeta, HttpMeta, ResolveOptions};
use crate::job::Job;
use crate::ops::VertexOperation;
use crate::tree::Tree;

pub use git::GitObject;
pub(crate) use git::{KnownReferences, committed};
pub(crate) use image::is_layer;
pub use signature::{DetachedSignature, SignedBy};

/// What the scheme of a source's identifier says.
enum Source<'a> {
    Image(&'a str),
    OciLayout(&'a str),
    Local(&'a str),
    Http,
    Git,
    Blob,
}

impl<'a> Source<'a> {
    fn parse(identifier: &'a str) -> Result<Self, Diagnostic> {
        match identifier.split_once("://") {
            Some(("docker-image", rest)) => Ok(Self::Image(rest)),
            Some(("oci-layout", rest)) => Ok(Self::OciLayout(rest)),
            Some(("local", rest)) => Ok(Self::Local(rest)),
            Some(("http" | "https", _)) => Ok(Self::Http),
            Some(("git", _)) => Ok(Self::Git),
            Some((blob::REGISTRY | blob::LAYOUT, _)) => Ok(Self::Blob),
            _ => Err(Diagnostic::new(ErrorKind::User, format!("unknown source `{identifier}`"))),
        }
    }
}

/// Makes the cache map of a source, asking whoever has it what it is now.
pub(crate) async fn cache_map(
    operation: &VertexOperation,
    source: &pb::SourceOp,
) -> Result<CacheMap, Diagnostic> {
    match Source::parse(&source.identifier)? {
        Source::Image(reference) => image::cache_map(operation, reference, false).await,
        Source::OciLayout(reference) => image::cache_map(operation, reference, true).await,
        Source::Local(_) => Ok(local::cache_map(operation, source)),
        Source::Http => http::cache_map(operation, source).await,
        Source::Git => git::cache_map(operation, source).await,
        Source::Blob => blob::cache_map(operation, source),
    }
}

/// Gives the tree of a source.
pub(crate) async fn execute(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Tree, Diagnostic> {
    match Source::parse(&source.identifier)? {
        Source::Image(reference) => image::execute(operation, reference, false).await,
        Source::OciLayout(reference) => image::execute(operation, reference, true).await,
        Source::Local(name) => local::execute(operation, name, source).await,
        Source::Http => http::execute(operation, source).await,
        Source::Git => git::execute(operation, source).await,
        Source::Blob => blob::execute(operation, source).await,
    }
}

/// What is known of a source that is no image.
pub(crate) enum Found {
    Http(HttpMeta),
    Git(GitMeta),
    /// Nothing can be said of it without its files.
    Nothing,
}

/// Finds out what a source is now, without its files where that can be.
pub(crate) async fn find(
    job: &Arc<Job>,
    source: &pb::SourceOp,
    options: &ResolveOptions,
) -> Result<Found, Diagnostic> {
    let kind = Source::parse(&source.identifier)?;
    if !matches!(kind, Source::Http | Source::Git) {
        return Ok(Found::Nothing);
    }
    let name = match options.log_name.as_str() {
        "" => format!("resolve source metadata for {}", redacted(&source.identifier)),
        name => name.to_owned(),
    };
    let step = job.progress.step(name);
    let operation = alone(job, source, step.digest());
    let found = match kind {
        Source::Git => git::metadata(&operation, source, options.git_objects).await.map(Found::Git),
        _ => http::metadata(&operation, source, options.checksum.as_ref()).await.map(Found::Http),
    };
    step.end(found)
}

/// Makes an operation of a source that is in no definition; what it says is shown at the step of that digest.
fn alone(job: &Arc<Job>, source: &pb::SourceOp, digest: Digest) -> VertexOperation {
    let op = pb::Op { op: Some(pb::op::Op::Source(source.clone())), ..pb::Op::default() };
    let vertex =
        Vertex { digest, op, inputs: Vec::new(), metadata: pb::OpMetadata::default(), locations: Vec::new() };
    VertexOperation::new(Arc::new(vertex), Vec::new(), job.clone())
}

/// Takes the password out of an address.
fn redacted(identifier: &str) -> String {
    match url::Url::parse(identifier) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("xxxxx"));
            url.to_string()
        }
        _ => identifier.to_owned(),
    }
}
