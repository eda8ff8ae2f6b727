//! An OpenPGP signature of a file that somebody else has: all that is needed of the file is a checksum.

use pgp::composed::{Deserializable as _, DetachedSignature as Armored};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion};
use pgp::ser::Serialize as _;
use slipway_model::Diagnostic;

use super::{pgp as keys, refused};
use crate::build::{ChecksumAlgorithm, ChecksumRequest};

/// Where the length of the hashed subpackets is in a signature of version 4.
const HASHED_LENGTH: std::ops::Range<usize> = 4..6;

/// A signature, and the checksum it is over.
#[derive(Debug)]
pub struct DetachedSignature {
    signature: Signature,
    checksum: ChecksumRequest,
}

impl DetachedSignature {
    /// Reads an armored signature.
    ///
    /// # Errors
    /// It is none, or one that is over more than a checksum of the file and something after it.
    pub fn parse(armored: &str) -> Result<Self, Diagnostic> {
        let (read, _) = Armored::from_armor_single(armored.as_bytes())
            .map_err(|error| refused("failed to decode armored signature").cause(error.to_string()))?;
        let signature = read.signature;
        keys::check_algorithms(&signature)?;
        let algorithm = match signature.config().map(|config| config.hash_alg) {
            Some(HashAlgorithm::Sha256) => ChecksumAlgorithm::Sha256,
            Some(HashAlgorithm::Sha384) => ChecksumAlgorithm::Sha384,
            Some(HashAlgorithm::Sha512) => ChecksumAlgorithm::Sha512,
            other => return Err(refused(format!("unsupported hash of a signature: {other:?}"))),
        };
        if signature.version() != SignatureVersion::V4 || signature.typ() != Some(SignatureType::Binary) {
            return Err(refused("only signatures of version 4, of binary files, can be checked"));
        }
        let suffix = suffix(&signature)?;
        Ok(Self { signature, checksum: ChecksumRequest { algorithm, suffix } })
    }

    /// Returns which checksum of the file is needed.
    pub fn checksum(&self) -> &ChecksumRequest {
        &self.checksum
    }

    /// Checks that one of some armored keys has signed the file with this checksum, as `sha256:…`.
    ///
    /// # Errors
    /// None has, or the key is not to be used any more.
    pub fn verify(&self, checksum: &str, armored_keys: &str) -> Result<(), Diagnostic> {
        let digest = checksum.split_once(':').and_then(|(_, digits)| hex::decode(digits).ok());
        let digest = digest.ok_or_else(|| refused(format!("invalid checksum `{checksum}`")))?;
        keys::verify_digest(&self.signature, &digest, armored_keys)
    }
}

/// Returns what is hashed after the file: the signature's own head, and how long that is.
fn suffix(signature: &Signature) -> Result<Vec<u8>, Diagnostic> {
    let body = signature.to_bytes();
    let body = body.map_err(|error| refused("unreadable signature").cause(error.to_string()))?;
    let length = body.get(HASHED_LENGTH).and_then(|length| length.try_into().ok()).map(u16::from_be_bytes);
    let end = HASHED_LENGTH.end + usize::from(length.unwrap_or_default());
    let head = body.get(..end).ok_or_else(|| refused("unreadable signature"))?;
    let mut suffix = head.to_vec();
    suffix.extend([4, 0xff]);
    suffix.extend((head.len() as u32).to_be_bytes());
    Ok(suffix)
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    const CONTENT: &[u8] = include_bytes!("fixtures/content");
    const SIGNATURE: &str = include_str!("fixtures/one.asc");
    const KEY: &str = include_str!("fixtures/one.pub");
    const OTHER: &str = include_str!("fixtures/two.pub");

    #[test]
    fn a_checksum_is_enough_of_the_file() {
        let signature = DetachedSignature::parse(SIGNATURE).unwrap();
        let request = signature.checksum();
        let of = |content: &[u8]| match request.algorithm {
            ChecksumAlgorithm::Sha256 => {
                let hash = sha2::Sha256::new().chain_update(content).chain_update(&request.suffix);
                format!("sha256:{}", hex::encode(hash.finalize()))
            }
            ChecksumAlgorithm::Sha384 => {
                let hash = sha2::Sha384::new().chain_update(content).chain_update(&request.suffix);
                format!("sha384:{}", hex::encode(hash.finalize()))
            }
            ChecksumAlgorithm::Sha512 => {
                let hash = sha2::Sha512::new().chain_update(content).chain_update(&request.suffix);
                format!("sha512:{}", hex::encode(hash.finalize()))
            }
        };
        signature.verify(&of(CONTENT), KEY).unwrap();
        assert!(signature.verify(&of(b"other"), KEY).is_err());
        assert!(signature.verify(&of(CONTENT), OTHER).is_err());
        assert!(signature.verify("sha256:zz", KEY).is_err());
    }
}
