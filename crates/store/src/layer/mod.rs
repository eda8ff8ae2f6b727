//! Layers: from archive to directory and back.
//!
//! `extract` puts an archive into a directory, `diff` writes the archive of a directory, `compress`
//! makes it small, `export` joins the last two and keeps the result as a blob. What a layer means to a
//! chain of snapshots is the `snapshot` module's business.

pub(crate) mod compress;
mod decompress;
mod dense;
pub(crate) mod diff;
mod export;
pub(crate) mod extract;
mod media_type;
pub(crate) mod path;
mod variant;

pub(crate) use decompress::Decompressor;
pub use diff::{BlobWatcher, DiffOptions, FileObserver};
pub use export::LayerFormat;
pub use media_type::{layer_compression, layer_media_type};
pub(crate) use variant::Variant;

/// The prefix of the name of a whiteout in an archive.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name of the mark that a directory hides what is below.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
