//! Images as sources: a chain of lazy layers, known by chain id; nothing is downloaded here.

use slipway_model::llb::pb;
use slipway_model::oci::MediaType;
use slipway_model::{Diagnostic, ErrorKind, ImageConfig, Platform, Reference};
use slipway_solver::CacheMap;
use slipway_store::{CommitInfo, LayerBlob};

use crate::error::{Context as _, internal};
use crate::images::Pinned;
use crate::ops::{VertexOperation, keys};
use crate::tree::Tree;

/// The key of an image is its manifest for the platform: what an index around it says besides does not matter.
pub(super) async fn cache_map(
    operation: &VertexOperation,
    name: &str,
    layout: bool,
) -> Result<CacheMap, Diagnostic> {
    let pinned = pin(operation, name, layout).await?;
    let platform = operation.vertex.platform();
    Ok(keys::source("image", platform.as_ref(), pinned.manifest_digest.as_bytes(), None))
}

/// Makes the image's layers known.
pub(super) async fn execute(
    operation: &VertexOperation,
    name: &str,
    layout: bool,
) -> Result<Tree, Diagnostic> {
    let job = &operation.job;
    let pinned = pin(operation, name, layout).await?;
    let config: ImageConfig = serde_json::from_slice(&pinned.config).map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot use the config of `{name}`"))
            .cause(error.to_string())
    })?;
    let (layers, diff_ids) = (&pinned.manifest.layers, &config.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        return Err(Diagnostic::new(ErrorKind::Environment, format!("the image `{name}` is inconsistent"))
            .cause(format!(
                "its manifest has {} layers, its config names {}",
                layers.len(),
                diff_ids.len()
            )));
    }
    let mut times = config.history.iter().filter(|h| !h.empty_layer);
    let blobs: Vec<(LayerBlob, CommitInfo)> = layers
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| {
            let history = times.next();
            let created =
                history.and_then(|h| h.created.as_deref()).and_then(|t| t.parse::<jiff::Timestamp>().ok());
            let created = created.map_or(std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::from);
            let info = CommitInfo {
                description: format!("layer of {name}"),
                created_at: Some(created),
                ..CommitInfo::default()
            };
            (LayerBlob { descriptor: descriptor.clone(), diff_id: *diff_id }, info)
        })
        .collect();
    if let Some(foreign) = layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        return Err(Diagnostic::new(ErrorKind::User, format!("cannot build on `{name}`")).cause(format!(
            "a layer has the media type `{}`, which is no file system layer",
            foreign.media_type
        )));
    }
    let snapshots = job.engine.store.snapshots().add_image(&blobs, &job.lease).diagnose()?;
    Ok(snapshots.last().copied().map_or(Tree::Empty, Tree::Snapshot))
}

/// Tells whether a media type is that of a file system layer.
pub(crate) fn is_layer(media_type: &str) -> bool {
    media_type.starts_with(MediaType::OCI_LAYER)
        || media_type.starts_with(MediaType::DOCKER_LAYER)
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
}

async fn pin(operation: &VertexOperation, name: &str, layout: bool) -> Result<Pinned, Diagnostic> {
    let platform = operation.vertex.platform().unwrap_or_else(Platform::host);
    if layout {
        let store = match &operation.vertex.op.op {
            Some(pb::op::Op::Source(source)) => source.attrs.get("oci.store").map(String::as_str),
            _ => None,
        };
        let (context, digest) =
            name.split_once('@').ok_or_else(|| internal(format!("`{name}` is not pinned")))?;
        let digest = digest.parse().map_err(|e: slipway_model::ParseDigestError| internal(e.to_string()))?;
        let images = &operation.job.images;
        // A definition from a client says which of the client's stores it means.
        return match store.filter(|store| !images.knows_layout(store)) {
            Some(store) => images.pin_client_layout(store, digest, &platform).await,
            None => images.pin_layout(context, Some(digest), &platform).await,
        };
    }
    let reference: Reference = name
        .parse()
        .map_err(|e: slipway_model::ParseReferenceError| Diagnostic::new(ErrorKind::User, e.to_string()))?;
    operation.job.images.pin_registry(&reference, &platform).await
}
