//! The archive format of layers: our own deterministic writer, and a reader over `tar-core`.

mod reader;
mod writer;

pub(crate) use reader::{Entry, Sparse, TarError, TarReader};
pub(crate) use writer::{EntryKind, Header, TarWriter};

/// The unit of an archive.
pub(crate) const BLOCK: usize = 512;
