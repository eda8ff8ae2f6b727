//! Signatures of what is fetched: OpenPGP for files, commits and tags, ssh for commits and tags.
//!
//! Checked here, not by `gpg` and `ssh-keygen`: those may not be installed, and would look into the keyrings of
//! whoever runs the build. The only keys that count are those that the operation names.

pub(super) mod pgp;
pub(super) mod ssh;

use slipway_model::{Diagnostic, ErrorKind};

/// Says why a signature does not count.
fn refused(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}
