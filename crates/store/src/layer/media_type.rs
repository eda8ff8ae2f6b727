//! Which media type says which compression.

use slipway_model::MediaType;
use slipway_model::solve::Compression;

/// Returns the media type of a layer, OCI's or Docker's.
pub fn layer_media_type(compression: Compression, oci: bool) -> &'static str {
    match (compression, oci) {
        (Compression::Uncompressed, true) => MediaType::OCI_LAYER,
        (Compression::Gzip, true) => MediaType::OCI_LAYER_GZIP,
        (Compression::Zstd, true) => MediaType::OCI_LAYER_ZSTD,
        (Compression::Uncompressed, false) => MediaType::DOCKER_LAYER,
        (Compression::Gzip, false) => MediaType::DOCKER_LAYER_GZIP,
        (Compression::Zstd, false) => MediaType::DOCKER_LAYER_ZSTD,
    }
}

/// Returns how a layer of this media type is compressed; the "nondistributable" and "foreign" types
/// included.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let last = media_type.rsplit(['+', '.']).next()?;
    let layer = media_type.contains(".image.layer.") || media_type.contains(".image.rootfs.");
    match last {
        _ if !layer => None,
        "tar" => Some(Compression::Uncompressed),
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_round_trip() {
        for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
            for oci in [true, false] {
                assert_eq!(layer_compression(layer_media_type(compression, oci)), Some(compression));
            }
        }
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(layer_compression(foreign), Some(Compression::Gzip));
        assert_eq!(layer_compression(MediaType::OCI_CONFIG), None);
    }
}
