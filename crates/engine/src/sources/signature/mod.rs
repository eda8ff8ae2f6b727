//! Signatures of what is fetched: OpenPGP for files, commits and tags, ssh for commits and tags.
//!
//! Checked here, not by `gpg` and `ssh-keygen`: those may not be installed, and would look into the keyrings of
//! whoever runs the build. The only keys that count are those that the operation names.

mod detached;
pub(super) mod pgp;
pub(super) mod ssh;

pub use detached::DetachedSignature;

use slipway_model::{Diagnostic, ErrorKind};

/// Says by which key something is signed; whether the signature is right is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// An OpenPGP key.
    Pgp {
        /// The version of the signature.
        version: u8,
        /// In hexadecimal; empty if the signature does not say.
        key_id: String,
    },
    /// An ssh key.
    Ssh {
        /// The version of the signature.
        version: u32,
        /// The fingerprint, as `SHA256:…`.
        fingerprint: String,
    },
}

/// Says why a signature does not count.
fn refused(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}
