//! Detached OpenPGP signatures in armor.
//!
//! The rules are BuildKit's: SHA-2 only, RSA (2048 bits and more), EdDSA or ECDSA, no revoked key, no signature
//! from the future. A key that has expired since it signed still counts, unless the operation says otherwise.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::{
    Deserializable as _, DetachedSignature, PublicOrSecret, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails as _, PublicParams, Tag, Timestamp, VerifyingKey as _};
use slipway_model::Diagnostic;

use super::{SignedBy, refused};

/// How much in the future a signature may be, by clocks that differ.
const CLOCKS: Duration = Duration::from_secs(300);
const SHORTEST_RSA: u16 = 2048;
/// Begins each of several keys in one text.
const BEGIN: &str = "-----BEGIN PGP ";

/// Checks that one of `keys`, in armor, has signed `content`.
pub(in crate::sources) fn verify(
    content: impl Read,
    signature: &str,
    keys: &str,
    reject_expired: bool,
) -> Result<(), Diagnostic> {
    let (signature, _) = DetachedSignature::from_armor_single(signature.as_bytes())
        .map_err(|error| refused("failed to decode armored signature").cause(error.to_string()))?;
    let signature = signature.signature;
    check_algorithms(&signature)?;
    check(&signature, keys, reject_expired, |signer| signer.verify(&signature, content))
}

/// Checks that one of `keys` has signed what has this digest.
pub(super) fn verify_digest(signature: &Signature, digest: &[u8], keys: &str) -> Result<(), Diagnostic> {
    check(signature, keys, false, |signer| signer.verify_digest(signature, digest))
}

/// Says which key has made a signature.
pub(in crate::sources) fn signed_by(armored: &str) -> Option<SignedBy> {
    let (signature, _) = DetachedSignature::from_armor_single(armored.as_bytes()).ok()?;
    let signature = signature.signature;
    let key_id = signature.issuer_key_id().first().map(|id| id.to_string().to_lowercase());
    Some(SignedBy::Pgp { version: signature.version().into(), key_id: key_id.unwrap_or_default() })
}

fn check(
    signature: &Signature,
    keys: &str,
    reject_expired: bool,
    verify: impl FnOnce(&Signer<'_>) -> pgp::errors::Result<()>,
) -> Result<(), Diagnostic> {
    let created =
        signature.created().ok_or_else(|| refused("the signature does not say when it was made"))?;
    let keys = read_keys(keys)?;
    let signer = keys.iter().find_map(|key| Signer::find(key, signature)).ok_or_else(|| {
        refused(format!("signature by {}: signature made by unknown entity", issuer(signature)))
    })?;
    verify(&signer)
        .map_err(|error| refused(format!("signature by {}", issuer(signature))).cause(error.to_string()))?;
    let now = now();
    signer.check_usable(if reject_expired { now } else { seconds(created) })?;
    if seconds(created) > now + CLOCKS.as_secs() {
        return Err(refused("signature creation time is in the future"));
    }
    Ok(())
}

fn seconds(time: Timestamp) -> u64 {
    u64::from(time.as_secs())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn issuer(signature: &Signature) -> String {
    let ids = signature.issuer_key_id();
    ids.first().map_or_else(|| "an unnamed key".to_owned(), |id| id.to_string().to_uppercase())
}

pub(super) fn check_algorithms(signature: &Signature) -> Result<(), Diagnostic> {
    let config = signature.config().ok_or_else(|| refused("unsupported version of a signature"))?;
    match config.hash_alg {
        HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512 => {}
        other => return Err(refused(format!("rejecting weak/unknown hash: {other:?}"))),
    }
    match config.pub_alg {
        PublicKeyAlgorithm::RSA
        | PublicKeyAlgorithm::RSASign
        | PublicKeyAlgorithm::EdDSALegacy
        | PublicKeyAlgorithm::Ed25519
        | PublicKeyAlgorithm::ECDSA => Ok(()),
        other => Err(refused(format!("rejecting unsupported pubkey algorithm: {other:?}"))),
    }
}

/// Reads all keys of a text, which may be several armored blocks one after the other.
fn read_keys(text: &str) -> Result<Vec<SignedPublicKey>, Diagnostic> {
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(start, _)| start).collect();
    let mut keys = Vec::new();
    for (index, &start) in starts.iter().enumerate() {
        let block = &text[start..starts.get(index + 1).copied().unwrap_or(text.len())];
        let failed =
            |error: pgp::errors::Error| refused("failed to read armored public key").cause(error.to_string());
        let (read, _) = PublicOrSecret::from_armor_many(block.as_bytes()).map_err(failed)?;
        for key in read {
            keys.push(match key.map_err(failed)? {
                PublicOrSecret::Public(key) => key,
                PublicOrSecret::Secret(key) => key.to_public_key(),
            });
        }
    }
    match keys.is_empty() {
        true => Err(refused("failed to read armored public key: no armored data found")),
        false => Ok(keys),
    }
}

/// The key that a signature says it is by: a primary key or one below it.
struct Signer<'k> {
    key: &'k SignedPublicKey,
    subkey: Option<&'k SignedPublicSubKey>,
}

impl<'k> Signer<'k> {
    fn find(key: &'k SignedPublicKey, signature: &Signature) -> Option<Self> {
        if is_by(signature, &key.primary_key) {
            return Some(Self { key, subkey: None });
        }
        let subkey = key.public_subkeys.iter().find(|subkey| is_by(signature, &subkey.key))?;
        Some(Self { key, subkey: Some(subkey) })
    }

    fn verify(&self, signature: &Signature, content: impl Read) -> pgp::errors::Result<()> {
        match self.subkey {
            None => signature.verify(&self.key.primary_key, content),
            Some(subkey) => signature.verify(&subkey.key, content),
        }
    }

    fn verify_digest(&self, signature: &Signature, digest: &[u8]) -> pgp::errors::Result<()> {
        let (Some(config), Some(bytes)) = (signature.config(), signature.signature()) else {
            return Err(pgp::errors::Error::Message {
                message: "unsupported version of a signature".to_owned(),
                backtrace: None,
            });
        };
        match self.subkey {
            None => self.key.primary_key.verify(config.hash_alg, digest, bytes),
            Some(subkey) => subkey.key.verify(config.hash_alg, digest, bytes),
        }
    }

    /// Checks that the key may sign, and could at that time.
    fn check_usable(&self, at: u64) -> Result<(), Diagnostic> {
        let primary = &self.key.primary_key;
        let revoked = self.key.details.revocation_signatures.iter();
        if let Some(revocation) = revoked.into_iter().find(|signature| signature.verify_key(primary).is_ok())
        {
            let reason = revocation.revocation_reason_string().filter(|reason| !reason.is_empty());
            return Err(refused(match reason {
                Some(reason) => format!("key revoked: {}", String::from_utf8_lossy(reason)),
                None => "key revoked".to_owned(),
            }));
        }
        check_strength(primary.public_params())?;
        let own = self.certification();
        check_binding(own, primary.created_at(), at, self.subkey.is_none())?;
        let Some(subkey) = self.subkey else { return Ok(()) };
        check_strength(subkey.key.public_params())?;
        let signatures = subkey.signatures.iter();
        if signatures.clone().any(|s| s.typ() == Some(SignatureType::SubkeyRevocation)) {
            return Err(refused("key revoked"));
        }
        let bound = signatures.filter(|signature| {
            let backward = signature.embedded_signature();
            signature.verify_subkey_binding(primary, &subkey.key).is_ok()
                && backward.is_some_and(|s| s.verify_primary_key_binding(&subkey.key, primary).is_ok())
        });
        let bound = bound.max_by_key(|signature| signature.created().map(seconds));
        match bound {
            Some(_) => check_binding(bound, subkey.key.created_at(), at, true),
            None => Err(refused("the subkey that signed is not bound to its key")),
        }
    }

    /// Returns the newest signature by which the key says what it is for.
    fn certification(&self) -> Option<&Signature> {
        let (primary, details) = (&self.key.primary_key, &self.key.details);
        let of_users = details.users.iter().flat_map(|user| {
            let own = move |signature: &&Signature| {
                signature.typ() != Some(SignatureType::CertRevocation)
                    && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
            };
            user.signatures.iter().filter(own)
        });
        let direct = details.direct_signatures.iter().filter(|s| s.verify_key(primary).is_ok());
        of_users.chain(direct).max_by_key(|signature| signature.created().map(seconds))
    }
}

/// Checks what the signature over a key allows, if there is one.
fn check_binding(
    binding: Option<&Signature>,
    created: Timestamp,
    at: u64,
    signs: bool,
) -> Result<(), Diagnostic> {
    let Some(binding) = binding else { return Ok(()) };
    let flags = binding.key_flags();
    if signs && flags != Default::default() && !flags.sign() {
        return Err(refused("the key is not for signing"));
    }
    let lifetime =
        binding.key_expiration_time().map(|time| u64::from(time.as_secs())).filter(|time| *time > 0);
    match lifetime.map(|lifetime| seconds(created) + lifetime) {
        Some(end) if at > end => {
            Err(refused("key expired").cause(format!("it was valid until {}", date(end))))
        }
        _ => Ok(()),
    }
}

fn check_strength(params: &PublicParams) -> Result<(), Diagnostic> {
    let PublicParams::RSA(_) = params else { return Ok(()) };
    // They begin with the modulus, which begins with its length.
    let bytes = params.to_bytes().map_err(|error| refused("unreadable key").cause(error.to_string()))?;
    match bytes.first_chunk().map(|length| u16::from_be_bytes(*length)) {
        Some(bits) if bits >= SHORTEST_RSA => Ok(()),
        bits => Err(refused(format!("RSA key too short: {} bits", bits.unwrap_or(0)))),
    }
}

fn date(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Tells whether a signature names a key as its maker.
fn is_by(signature: &Signature, key: &impl pgp::types::KeyDetails) -> bool {
    let (ids, fingerprints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
    (ids.is_empty() && fingerprints.is_empty())
        || ids.iter().any(|id| **id == key.legacy_key_id())
        || fingerprints.iter().any(|fingerprint| **fingerprint == key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &str = include_str!("fixtures/content");
    /// Signs by a key below it.
    const ONE: &str = include_str!("fixtures/one.pub");
    const BY_ONE: &str = include_str!("fixtures/one.asc");
    /// Expired the day after it signed.
    const TWO: &str = include_str!("fixtures/two.pub");
    const BY_TWO: &str = include_str!("fixtures/two.asc");
    /// By the first one, of a SHA-1 digest.
    const WEAK: &str = include_str!("fixtures/weak.asc");
    const REVOKED: &str = include_str!("fixtures/revoked.pub");

    fn check(content: &str, signature: &str, keys: &str, reject_expired: bool) -> String {
        let verified = verify(content.as_bytes(), signature, keys, reject_expired);
        verified.map_or_else(|error| error.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn signatures_are_of_a_key_and_a_content() {
        assert_eq!(check(CONTENT, BY_ONE, ONE, true), "good");
        assert_eq!(check(CONTENT, BY_ONE, &format!("{TWO}\n{ONE}"), true), "good");
        assert!(check(CONTENT, BY_ONE, TWO, false).contains("unknown entity"));
        assert!(check(CONTENT, WEAK, ONE, false).contains("rejecting weak/unknown hash"));
        assert!(check("other\n", BY_ONE, ONE, false).starts_with("signature by "));
        assert_eq!(check(CONTENT, BY_ONE, REVOKED, false), "key revoked");
    }

    #[test]
    fn keys_that_expired_later_count_unless_told_otherwise() {
        assert_eq!(check(CONTENT, BY_TWO, TWO, false), "good");
        assert!(check(CONTENT, BY_TWO, TWO, true).contains("key expired"));
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(check(CONTENT, "nothing", ONE, false).contains("failed to decode armored signature"));
        assert!(check(CONTENT, BY_ONE, "nothing", false).contains("no armored data found"));
        assert!(check(CONTENT, BY_ONE, BY_ONE, false).contains("failed to read armored public key"));
    }
}
