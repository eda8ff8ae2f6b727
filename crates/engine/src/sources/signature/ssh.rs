//! Signatures by ssh keys, as `git` makes them with `gpg.format=ssh` ([PROTOCOL.sshsig]).
//!
//! [PROTOCOL.sshsig]: https://cvsweb.openbsd.org/src/usr.bin/ssh/PROTOCOL.sshsig

use slipway_model::Diagnostic;
use ssh_key::{HashAlg, PublicKey, SshSig};

use super::{SignedBy, refused};

/// What git's signatures are for.
const NAMESPACE: &str = "git";

/// Checks that `key`, a line as in `authorized_keys`, has signed `content`.
pub(in crate::sources) fn verify(content: &[u8], signature: &str, key: &str) -> Result<(), Diagnostic> {
    let signature = SshSig::from_pem(signature.trim_end())
        .map_err(|error| refused("failed to parse ssh signature").cause(error.to_string()))?;
    if !matches!(signature.hash_alg(), HashAlg::Sha256 | HashAlg::Sha512) {
        return Err(refused("unsupported SSH signature hash algorithm"));
    }
    if signature.namespace() != NAMESPACE {
        return Err(refused(format!("unexpected SSH signature namespace: {:?}", signature.namespace())));
    }
    let keys = key.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = keys.into_iter().next().unwrap_or_default();
    let key: PublicKey = key.parse().map_err(|error: ssh_key::Error| {
        refused("failed to parse ssh public key").cause(error.to_string())
    })?;
    key.verify(NAMESPACE, content, &signature)
        .map_err(|error| refused("failed to verify ssh signature").cause(error.to_string()))
}

/// Says which key has made a signature.
pub(in crate::sources) fn signed_by(signature: &str) -> Option<SignedBy> {
    let signature = SshSig::from_pem(signature.trim_end()).ok()?;
    let key = PublicKey::from(signature.public_key().clone());
    Some(SignedBy::Ssh {
        version: signature.version(),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = include_bytes!("fixtures/content");
    const ED25519: &str = include_str!("fixtures/ssh.pub");
    const BY_ED25519: &str = include_str!("fixtures/ssh.sig");
    const ECDSA: &str = include_str!("fixtures/ssh2.pub");
    const BY_ECDSA: &str = include_str!("fixtures/ssh2.sig");
    /// By the first key, for something else than git.
    const FOR_FILES: &str = include_str!("fixtures/ssh-file.sig");

    #[test]
    fn signatures_are_of_a_key_a_purpose_and_a_content() {
        verify(CONTENT, BY_ED25519, ED25519).unwrap();
        verify(CONTENT, BY_ECDSA, ECDSA).unwrap();
        let error = |content: &[u8], signature, key| verify(content, signature, key).unwrap_err().to_string();
        assert!(error(b"other\n", BY_ED25519, ED25519).contains("failed to verify ssh signature"));
        assert!(error(CONTENT, BY_ED25519, ECDSA).contains("failed to verify ssh signature"));
        assert!(error(CONTENT, FOR_FILES, ED25519).contains("unexpected SSH signature namespace: \"file\""));
        assert!(error(CONTENT, BY_ED25519, "nothing").contains("failed to parse ssh public key"));
        assert!(error(CONTENT, "nothing", ED25519).contains("failed to parse ssh signature"));
    }
}
