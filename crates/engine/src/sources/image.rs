//! Images as sources: a chain of lazy layers, known by chain id; nothing is downloaded here.

use slipway_dockerfile::ResolveMode;
use slipway_model::llb::pb;
use slipway_model::oci::MediaType;
use slipway_model::{Diagnostic, Digest, ErrorKind, ImageConfig, Platform, Reference};
use slipway_solver::CacheMap;
use slipway_store::{CommitInfo, LayerBlob};

use crate::attest::Pin;
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
    let wanted = Wanted::of(operation)?;
    let pinned = pin(operation, name, layout).await?;
    wanted.check(name, &pinned)?;
    let layers = pinned.manifest.layers.len();
    let (digest, layers) = (pinned.root.digest, wanted.layers.map_or(layers, |limit| limit.min(layers)));
    operation.pin(Pin::Image { digest, layers });
    let platform = operation.vertex.platform();
    let mut data = pinned.manifest_digest.as_bytes().to_vec();
    data.extend(wanted.layers.iter().flat_map(|limit| (*limit as u64).to_le_bytes()));
    Ok(keys::source("image", platform.as_ref(), &data, None))
}

/// What a definition says of an image besides its name.
#[derive(Debug, PartialEq)]
struct Wanted {
    /// How many layers are taken, from the lowest.
    layers: Option<usize>,
    /// What the name must stand for.
    digest: Option<Digest>,
}

impl Wanted {
    fn of(operation: &VertexOperation) -> Result<Self, Diagnostic> {
        let Some(pb::op::Op::Source(source)) = &operation.vertex.op.op else {
            return Err(internal("an image is no source"));
        };
        Self::parse(|name| source.attrs.get(name).map(String::as_str))
    }

    fn parse<'a>(attribute: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Diagnostic> {
        let layers = attribute("image.layerlimit").or(attribute("oci.layerlimit"));
        let layers = layers.map(|text| match text.parse::<usize>() {
            Ok(limit) if limit > 0 => Ok(limit),
            _ => Err(Diagnostic::new(ErrorKind::User, format!("invalid layer limit {text}"))),
        });
        let digest = attribute("image.checksum").map(|text| {
            text.parse().map_err(|error: slipway_model::ParseDigestError| {
                Diagnostic::new(ErrorKind::User, format!("invalid image checksum {text}"))
                    .cause(error.to_string())
            })
        });
        Ok(Self { layers: layers.transpose()?, digest: digest.transpose()? })
    }

    fn check(&self, name: &str, pinned: &Pinned) -> Result<(), Diagnostic> {
        let (is, has) = (pinned.root.digest, pinned.manifest.layers.len());
        if let Some(expected) = self.digest.filter(|expected| *expected != is) {
            let message = format!("image digest {is} for {name} does not match expected checksum {expected}");
            return Err(Diagnostic::new(ErrorKind::User, message));
        }
        match self.layers.filter(|limit| *limit > has) {
            None => Ok(()),
            Some(limit) => {
                let message =
                    format!("layer limit {limit} is greater than the number of layers in the image {has}");
                Err(Diagnostic::new(ErrorKind::User, message))
            }
        }
    }
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
        .take(Wanted::of(operation)?.layers.unwrap_or(usize::MAX))
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
    let attribute = |name: &str| match &operation.vertex.op.op {
        Some(pb::op::Op::Source(source)) => source.attrs.get(name).map(String::as_str),
        _ => None,
    };
    if layout {
        let store = attribute("oci.store");
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
    let mode = attribute("image.resolvemode").unwrap_or_default().parse();
    let mode: ResolveMode = mode.map_err(|error: String| Diagnostic::new(ErrorKind::User, error))?;
    operation.job.images.pin_registry(&reference, &platform, mode).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<Wanted, Diagnostic> {
        Wanted::parse(|name| (name == key).then_some(value))
    }

    fn pinned(layers: usize) -> Pinned {
        let layer = slipway_model::Descriptor::of(MediaType::OCI_LAYER, b"layer");
        let manifest = slipway_model::Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: slipway_model::Descriptor::of(MediaType::OCI_CONFIG, b"{}"),
            layers: vec![layer; layers],
            subject: None,
            annotations: Default::default(),
            extra: Default::default(),
        };
        let root = slipway_model::Descriptor::of(MediaType::OCI_MANIFEST, b"manifest");
        Pinned { manifest_digest: root.digest, root, manifest, config: b"{}".as_slice().into() }
    }

    #[test]
    fn an_image_may_be_taken_in_part() {
        for key in ["image.layerlimit", "oci.layerlimit"] {
            let wanted = parse(key, "2").unwrap();
            assert_eq!(wanted, Wanted { layers: Some(2), digest: None });
            assert!(wanted.check("a", &pinned(2)).is_ok());
            assert!(wanted.check("a", &pinned(1)).is_err());
            for value in ["0", "-1", "x", ""] {
                assert_eq!(parse(key, value).unwrap_err().message, format!("invalid layer limit {value}"));
            }
        }
    }

    #[test]
    fn a_name_may_be_held_to_a_digest() {
        let (is, other) = (pinned(1).root.digest, Digest::of("other"));
        assert!(parse("image.checksum", &is.to_string()).unwrap().check("a", &pinned(1)).is_ok());
        let error =
            parse("image.checksum", &other.to_string()).unwrap().check("a:1", &pinned(1)).unwrap_err();
        assert_eq!(
            error.message,
            format!("image digest {is} for a:1 does not match expected checksum {other}")
        );
        assert!(parse("image.checksum", "nonsense").is_err());
    }
}
