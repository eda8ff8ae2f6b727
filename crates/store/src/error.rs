//! What can go wrong with the local state, and who can mend it.
//!
//! One enum for the crate. A full disk is told apart wherever an I/O error enters, so that its hint is
//! never lost, and every fault of a layer names the layer and the entry.

use std::io;
use std::path::{Path, PathBuf};

use slipway_model::{Digest, ErrorKind, Hint};

use crate::SnapshotId;

/// The result of an operation on the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Says why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("failed to {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no space left on the device while trying to {action} `{}`", path.display())]
    NoSpace {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write to the output")]
    Output(#[source] io::Error),
    #[error("the metadata database failed")]
    Database(#[source] rusqlite::Error),
    #[error("the metadata database has no space left on its device")]
    DatabaseFull(#[source] rusqlite::Error),
    #[error("the state in `{}` was written by a newer slipway (schema {found}, this one knows {known})", path.display())]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("a record in the metadata database is damaged: {what}")]
    DamagedRecord { what: String },

    #[error("blob {0} is not in the store")]
    BlobMissing(Digest),
    #[error("content does not match its digest: expected {expected}, received {actual}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("content of {digest} has the wrong size: expected {expected} bytes, received {actual}")]
    SizeMismatch { digest: Digest, expected: u64, actual: u64 },
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    BlobTooLarge { digest: Digest, size: u64, limit: u64 },

    #[error("snapshot {0} is not in the store")]
    SnapshotMissing(SnapshotId),
    #[error("snapshot {0} has not been unpacked")]
    NotUnpacked(SnapshotId),
    #[error("snapshot {0} has neither files nor a blob")]
    NoContent(SnapshotId),
    #[error("snapshot {0} is in use")]
    InUse(SnapshotId),

    #[error("layer {layer} has a bad entry `{entry}`")]
    LayerEntry {
        layer: Digest,
        entry: String,
        #[source]
        fault: EntryFault,
    },
    #[error("layer {layer} is not a valid archive: {reason}")]
    MalformedLayer { layer: Digest, reason: String },
    #[error(
        "layer {layer} unpacks to other content than its image says: expected diff id {expected}, got {actual}"
    )]
    DiffIdMismatch { layer: Digest, expected: Digest, actual: Digest },
    #[error("`{path}` in snapshot {snapshot} cannot be put into a layer: {reason}")]
    UnsupportedFile { snapshot: SnapshotId, path: String, reason: &'static str },

    #[error("failed to mount the snapshot: {step}")]
    Mount {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("image document {0} is not valid")]
    InvalidImage(Digest, #[source] serde_json::Error),
    #[error("cancelled")]
    Cancelled,
}

/// Says what is wrong with one entry of a layer's archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    #[error("the path is absolute")]
    Absolute,
    #[error("the path contains `..`")]
    ParentDirectory,
    #[error("the path names nothing")]
    Empty,
    #[error("the path leaves the root through a symbolic link")]
    Escapes,
    #[error("the path has too many symbolic links")]
    LinkLoop,
    #[error("a directory in the path is not a directory")]
    NotADirectory,
    #[error("the hard link's target `{0}` is not in the image")]
    LinkTarget(String),
    #[error("the whiteout names nothing")]
    Whiteout,
    #[error("entries of type `{0}` are not supported")]
    Type(char),
    #[error("the owner {uid}:{gid} is out of range")]
    Owner { uid: u64, gid: u64 },
    #[error("the owner {uid}:{gid} is not mapped in this user namespace")]
    UnmappedOwner { uid: u64, gid: u64 },
    #[error("the map of the sparse file is not valid")]
    SparseMap,
    #[error("it cannot be made")]
    Io(#[source] io::Error),
}

impl StoreError {
    /// Makes a function that turns an I/O error at `path` into a store error.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| {
            let (source, path) = (source.into(), path.as_ref().to_owned());
            if is_full(&source) {
                Self::NoSpace { action, path, source }
            } else {
                Self::Io { action, path, source }
            }
        }
    }

    /// Makes a function that turns the error of a mount call into a store error.
    pub(crate) fn mount<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Mount { step, source: source.into() }
    }

    /// Makes the error of an entry of a layer.
    pub(crate) fn entry(layer: Digest, path: &[u8], fault: EntryFault) -> Self {
        let entry = String::from_utf8_lossy(path).into_owned();
        match fault {
            EntryFault::Io(source) if is_full(&source) => {
                Self::NoSpace { action: "unpack", path: entry.into(), source }
            }
            fault => Self::LayerEntry { layer, entry, fault },
        }
    }

    /// Says who can mend this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SnapshotMissing(_)
            | Self::NotUnpacked(_)
            | Self::NoContent(_)
            | Self::DamagedRecord { .. } => ErrorKind::Internal,
            Self::UnsupportedFile { .. } | Self::InUse(_) | Self::Cancelled => ErrorKind::User,
            _ => ErrorKind::Environment,
        }
    }

    /// Names the command or flag that mends this error, where there is one.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NoSpace { .. } | Self::DatabaseFull(_) => {
                Some("run `slipway prune`, or put the state on another disk with `--root`".to_owned())
            }
            Self::Database(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
                ) =>
            {
                Some(
                    "remove `metadata.db` and its companions from the state directory to start afresh"
                        .to_owned(),
                )
            }
            Self::NewerSchema { .. } => {
                Some("use the newer slipway, or another state directory with `--root`".to_owned())
            }
            Self::LayerEntry { fault: EntryFault::UnmappedOwner { .. }, .. } => {
                Some("give this user more subordinate ids in `/etc/subuid` and `/etc/subgid`".to_owned())
            }
            Self::Mount { .. } => {
                Some("slipway needs overlayfs and the new mount API: Linux 5.11 or newer".to_owned())
            }
            _ => None,
        }
    }

    /// Tells whether the disk or the quota is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::DatabaseFull(_) => true,
            Self::Output(source) => is_full(source),
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DatabaseFull(error),
            _ => Self::Database(error),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_a_kind_and_a_hint() {
        let error = StoreError::io("write", "/x")(rustix::io::Errno::NOSPC);
        assert!(matches!(error, StoreError::NoSpace { .. }) && error.is_no_space());
        assert_eq!(error.kind(), ErrorKind::Environment);
        assert!(error.hint().is_some_and(|hint| hint.contains("slipway prune")));
    }
}
