//! The names of snapshots and what is told about them.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use slipway_model::{Descriptor, Digest};

/// Names a snapshot. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(i64);

impl SnapshotId {
    pub(crate) const fn from_row(row: i64) -> Self {
        Self(row)
    }

    pub(crate) const fn row(self) -> i64 {
        self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Says that a text is no snapshot id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid snapshot id `{0}`")]
pub struct ParseSnapshotIdError(String);

impl FromStr for SnapshotId {
    type Err = ParseSnapshotIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let row = text.parse().ok().filter(|_| plain);
        row.map(Self).ok_or_else(|| ParseSnapshotIdError(text.to_owned()))
    }
}

/// What a snapshot was made for; decides when it is collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    #[default]
    Regular,
    Internal,
    Frontend,
    LocalSource,
    GitCheckout,
}

impl SnapshotKind {
    pub(crate) const fn row(self) -> i64 {
        match self {
            Self::Regular => 0,
            Self::Internal => 1,
            Self::Frontend => 2,
            Self::LocalSource => 3,
            Self::GitCheckout => 4,
        }
    }

    pub(crate) const fn from_row(row: i64) -> Self {
        match row {
            1 => Self::Internal,
            2 => Self::Frontend,
            3 => Self::LocalSource,
            4 => Self::GitCheckout,
            _ => Self::Regular,
        }
    }
}

/// Whether a snapshot's own layer is there as files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Known by its blob only.
    Lazy,
    /// Unpacked, or made here.
    Ready,
}

/// What is known about a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: SnapshotId,
    pub parent: Option<SnapshotId>,
    pub state: SnapshotState,
    /// The digest of the layer's tar archive, once known.
    pub diff_id: Option<Digest>,
    /// The OCI ChainID, once all layers up to this one have a diff id.
    pub chain_id: Option<Digest>,
    /// Came from an image rather than being made here.
    pub imported: bool,
    pub description: String,
    pub kind: SnapshotKind,
    pub created_at: SystemTime,
    pub last_used_at: SystemTime,
    pub use_count: u64,
    /// Bytes on the disk, if they have been counted.
    pub size: Option<u64>,
}

/// A layer as a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    pub descriptor: Descriptor,
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
}

impl LayerBlob {
    /// The diff id of a layer without entries.
    pub const EMPTY_DIFF_ID: Digest = Digest::from_sha256([
        0x5f, 0x70, 0xbf, 0x18, 0xa0, 0x86, 0x00, 0x70, 0x16, 0xe9, 0x48, 0xb0, 0x4a, 0xed, 0x3b, 0x82, 0x10,
        0x3a, 0x36, 0xbe, 0xa4, 0x17, 0x55, 0xb6, 0xcd, 0xdf, 0xaf, 0x10, 0xac, 0xe3, 0xc6, 0xef,
    ]);

    /// Tells whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.diff_id == Self::EMPTY_DIFF_ID
    }
}

/// Describes a snapshot that is being made.
#[derive(Clone, Debug, Default)]
pub struct CommitInfo {
    pub description: String,
    pub kind: SnapshotKind,
    /// Now, if not given.
    pub created_at: Option<SystemTime>,
}

/// Computes the OCI ChainID of a layer over its parent's.
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => Digest::of(format!("{parent} {diff_id}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_diff_id_is_that_of_two_zero_blocks() {
        assert_eq!(LayerBlob::EMPTY_DIFF_ID, Digest::of([0; 1024]));
    }

    #[test]
    fn ids_parse_what_they_print() {
        let id = SnapshotId::from_row(42);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "-1", "+1", "x", "99999999999999999999"] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }
}
