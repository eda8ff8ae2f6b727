//! Where trees come from: images, directories of the person who builds, addresses on the web, repositories.

mod git;
mod http;
mod image;
pub(crate) mod layout;
pub(crate) mod local;

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};
use slipway_solver::CacheMap;

use crate::ops::VertexOperation;
use crate::tree::Tree;

pub(crate) use image::is_layer;

/// What the scheme of a source's identifier says.
enum Source<'a> {
    Image(&'a str),
    OciLayout(&'a str),
    Local(&'a str),
    Http,
    Git,
}

impl<'a> Source<'a> {
    fn parse(identifier: &'a str) -> Result<Self, Diagnostic> {
        match identifier.split_once("://") {
            Some(("docker-image", rest)) => Ok(Self::Image(rest)),
            Some(("oci-layout", rest)) => Ok(Self::OciLayout(rest)),
            Some(("local", rest)) => Ok(Self::Local(rest)),
            Some(("http" | "https", _)) => Ok(Self::Http),
            Some(("git", _)) => Ok(Self::Git),
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
    }
}
