//! Commits and tags as they are: their names, times and signatures.

use std::collections::BTreeMap;

use sha2::Digest as _;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};

use super::access::Access;
use super::command::{Call, Failure};
use super::repository::Repository;
use super::resolve::Resolved;
use crate::sources::signature::{self, SignedBy};

/// Where a signature begins in the message of a tag.
const SIGNATURES: [&str; 2] = ["-----BEGIN PGP SIGNATURE-----", "-----BEGIN SSH SIGNATURE-----"];
/// The headers of a commit that hold its signature.
const HEADERS: [&str; 2] = ["gpgsig", "gpgsig-sha256"];

/// Who has to have signed what.
#[derive(Clone, Debug)]
pub(super) struct SignatureRule {
    /// OpenPGP keys in armor, or an ssh key.
    keys: String,
    reject_expired: bool,
    /// A signed commit alone is not enough.
    require_tag: bool,
    /// A signed tag does not count.
    ignore_tag: bool,
}

impl SignatureRule {
    pub(super) fn of(source: &pb::SourceOp) -> Option<Self> {
        let attribute = |name: &str| source.attrs.get(&format!("git.sig.{name}"));
        let is_set = |name: &str| attribute(name).is_some_and(|value| value == "true");
        let rule = Self {
            keys: attribute("pubkey").cloned().unwrap_or_default(),
            reject_expired: is_set("rejectexpired"),
            require_tag: is_set("requiresignedtag"),
            ignore_tag: is_set("ignoresignedtag"),
        };
        source.attrs.keys().any(|name| name.starts_with("git.sig.")).then_some(rule)
    }
}

/// A commit, and the annotated tag that named it.
pub(super) struct Objects {
    pub(super) commit: Object,
    pub(super) tag: Option<Object>,
}

/// A commit or a tag.
pub(super) struct Object {
    /// The digest by which git knows it.
    pub(super) name: String,
    pub(super) raw: Vec<u8>,
}

impl Objects {
    /// Reads what was resolved from a repository that has it.
    pub(super) async fn read(
        access: &Access<'_>,
        repository: &Repository,
        resolved: &Resolved,
    ) -> Result<Result<Self, Diagnostic>, Failure> {
        let call = Call { git_dir: Some(repository.path()), ..Call::default() };
        let name = resolved.object.as_str();
        let kind = call.run(access, &["cat-file", "-t", name]).await?;
        let read = async |kind: &str, name: &str| -> Result<Object, Failure> {
            let raw = call.output(access, &["cat-file", kind, name]).await?;
            Ok(Object { name: name.to_owned(), raw })
        };
        Ok(Ok(match kind.trim() {
            "commit" => Self { commit: read("commit", name).await?, tag: None },
            "tag" => {
                let commit = call.run(access, &["rev-parse", &format!("{name}^{{commit}}")]).await?;
                let tag = read("tag", name).await?;
                Self { commit: read("commit", commit.trim()).await?, tag: Some(tag) }
            }
            other => return Ok(Err(refused(format!("expected commit or tag object, got {other}")))),
        }))
    }

    /// Checks that the tag, or else the commit, is signed as the rule wants.
    pub(super) fn check(&self, rule: &SignatureRule) -> Result<(), Diagnostic> {
        let tag = self.tag.as_ref().filter(|_| !rule.ignore_tag);
        let of_tag = tag.map(|tag| tag.check("tag", rule));
        match of_tag {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if rule.require_tag => Err(error),
            None if rule.require_tag => Err(refused("signed tag required but no signed tag found")),
            _ => self.commit.check("commit", rule),
        }
    }
}

impl Object {
    /// Checks that the object is what its name says, and who signed it.
    fn check(&self, kind: &str, rule: &SignatureRule) -> Result<(), Diagnostic> {
        let object = GitObject::parse(&self.raw);
        if !object.is_named(&self.name) {
            return Err(refused(format!("{kind} object checksum verification failed"))
                .cause(format!("expected {}", self.name)));
        }
        object.verify(&rule.keys, rule.reject_expired).map_err(|error| match object.is_signed() {
            true => error,
            false => error.cause(format!("it is the {kind} {}", self.name)),
        })
    }
}

/// A commit or an annotated tag.
pub struct GitObject<'a> {
    raw: &'a [u8],
    is_tag: bool,
    signed: Signed,
}

impl<'a> GitObject<'a> {
    /// Takes apart what git has.
    pub fn parse(raw: &'a [u8]) -> Self {
        let is_tag = raw.starts_with(b"object ");
        Self { raw, is_tag, signed: Signed::parse(raw, is_tag) }
    }

    /// Tells whether a name, of either length, is that of the object.
    pub fn is_named(&self, name: &str) -> bool {
        let header = format!("{} {}\0", if self.is_tag { "tag" } else { "commit" }, self.raw.len());
        name == match name.len() {
            40 => hex::encode(sha1::Sha1::new().chain_update(&header).chain_update(self.raw).finalize()),
            _ => hex::encode(sha2::Sha256::new().chain_update(&header).chain_update(self.raw).finalize()),
        }
    }

    /// Returns the values of a header.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.signed.data);
        let headers = text.lines().take_while(|line| !line.is_empty());
        let pairs = headers.filter_map(|line| line.split_once(' '));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// Returns the message, without the signature.
    pub fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.signed.data);
        let message = text.split_once("\n\n").map_or("", |(_, message)| message);
        message.strip_suffix('\n').unwrap_or(message).to_owned()
    }

    /// Tells whether there is a signature, right or wrong.
    pub fn is_signed(&self) -> bool {
        !self.signed.signature.is_empty()
    }

    /// Says which key has signed, if that can be read.
    pub fn signed_by(&self) -> Option<SignedBy> {
        let text = self.signed.signature.as_str();
        signature::pgp::signed_by(text).or_else(|| signature::ssh::signed_by(text))
    }

    /// Checks that one of `keys` has signed: armored OpenPGP keys, or a line as in `authorized_keys`.
    ///
    /// # Errors
    /// It has not, or the object is not signed.
    pub fn verify(&self, keys: &str, reject_expired: bool) -> Result<(), Diagnostic> {
        let data = self.signed.data.as_slice();
        match self.signed.signature.as_str() {
            "" => Err(refused("git object is not signed")),
            pgp if pgp.starts_with(SIGNATURES[0]) => signature::pgp::verify(data, pgp, keys, reject_expired),
            ssh if ssh.starts_with(SIGNATURES[1]) => signature::ssh::verify(data, ssh, keys),
            _ => Err(refused("invalid signature format")),
        }
    }
}

fn refused(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}

/// What of an object is signed, and the signature.
struct Signed {
    data: Vec<u8>,
    signature: String,
}

impl Signed {
    /// Takes the signature out of a commit's headers, or off the end of a tag.
    fn parse(raw: &[u8], is_tag: bool) -> Self {
        let (mut data, mut signature) = (Vec::with_capacity(raw.len()), Vec::new());
        let (mut in_headers, mut in_signature) = (true, false);
        for line in raw.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if in_headers && !is_tag {
                let value = HEADERS.iter().find_map(|name| text.strip_prefix(format!("{name} ").as_bytes()));
                let goes_on = text.strip_prefix(b" ").filter(|_| in_signature);
                if let Some(part) = value.or(goes_on) {
                    signature.extend_from_slice(part);
                    signature.push(b'\n');
                    in_signature = true;
                    continue;
                }
                in_signature = false;
            }
            let begins = || SIGNATURES.iter().any(|marker| text == marker.as_bytes());
            if is_tag && !in_headers && (in_signature || begins()) {
                in_signature = true;
                signature.extend_from_slice(line);
                continue;
            }
            in_headers &= !text.is_empty();
            data.extend_from_slice(line);
        }
        Self { data, signature: String::from_utf8_lossy(&signature).into_owned() }
    }
}

/// Returns when a commit was made, in seconds since 1970.
pub(crate) fn committed(commit: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(commit);
    let headers: BTreeMap<&str, &str> =
        text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(' ')).collect();
    let (_, after) = headers.get("committer")?.rsplit_once('>')?;
    after.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "tree 1\nauthor A <a@b> 1 +0000\ncommitter C <D> E <c@d> 1700000000 +0100\n";

    #[test]
    fn commits_say_when() {
        assert_eq!(committed(format!("{COMMIT}\nmessage\n").as_bytes()), Some(1_700_000_000));
        assert_eq!(committed(b"tree 1\n\ncommitter x <y> 5 +0"), None);
    }

    #[test]
    fn signatures_are_taken_out() {
        let commit =
            format!("{COMMIT}gpgsig -----BEGIN X-----\n abc\n -----END X-----\nencoding x\n\nmessage\n");
        let signed = Signed::parse(commit.as_bytes(), false);
        assert_eq!(String::from_utf8(signed.data).unwrap(), format!("{COMMIT}encoding x\n\nmessage\n"));
        assert_eq!(signed.signature, "-----BEGIN X-----\nabc\n-----END X-----\n");
        let tag = format!("object 1\ntag v1\n\nmessage\n{}\nabc\n", SIGNATURES[1]);
        let signed = Signed::parse(tag.as_bytes(), true);
        assert_eq!(signed.data, b"object 1\ntag v1\n\nmessage\n");
        assert_eq!(signed.signature, format!("{}\nabc\n", SIGNATURES[1]));
    }

    /// Of a repository with `signed-tag` at `signed-commit`, and `tag` at `commit`.
    fn objects(tag: Option<(&str, &[u8])>, commit: (&str, &[u8])) -> Objects {
        let object = |(name, raw): (&str, &[u8])| Object { name: name.to_owned(), raw: raw.to_vec() };
        Objects { commit: object(commit), tag: tag.map(object) }
    }

    #[test]
    fn a_signed_tag_or_else_a_signed_commit_counts() {
        let signed_commit =
            ("e4a1b701ae4dfbb2fdacc0a21d9710ab2bcc8330", &include_bytes!("fixtures/signed-commit")[..]);
        let signed_tag =
            ("940a44405112705bc330e601dc8b0860c66c41d6", &include_bytes!("fixtures/signed-tag")[..]);
        let commit = ("ecb47010798cc7e6f1247526171aa5ddbca373ea", &include_bytes!("fixtures/commit")[..]);
        let tag = ("14d72ce31a4cc326256329c2153685365c3c7ed5", &include_bytes!("fixtures/tag")[..]);
        let rule = |attributes: &[&str], key: &str| {
            let mut source = pb::SourceOp::default();
            source.attrs.insert("git.sig.pubkey".to_owned(), key.to_owned());
            for name in attributes {
                source.attrs.insert(format!("git.sig.{name}"), "true".to_owned());
            }
            SignatureRule::of(&source).unwrap()
        };
        let ours = |attributes: &[&str]| rule(attributes, include_str!("fixtures/key.pub"));
        let theirs = rule(&[], include_str!("fixtures/other.pub"));
        let error = |objects: &Objects, rule: &SignatureRule| objects.check(rule).unwrap_err().to_string();
        assert!(SignatureRule::of(&pb::SourceOp::default()).is_none());

        let both = objects(Some(signed_tag), signed_commit);
        both.check(&ours(&["requiresignedtag"])).unwrap();
        assert!(error(&both, &theirs).contains("failed to verify ssh signature"));
        let none = objects(Some(tag), commit);
        assert!(error(&none, &ours(&[])).contains("git object is not signed"));
        let tag_alone = objects(Some(signed_tag), commit);
        tag_alone.check(&ours(&[])).unwrap();
        assert!(error(&tag_alone, &ours(&["ignoresignedtag"])).contains("not signed"));
        let commit_alone = objects(Some(tag), signed_commit);
        commit_alone.check(&ours(&[])).unwrap();
        assert!(error(&commit_alone, &ours(&["requiresignedtag"])).contains("not signed"));
        let untagged = objects(None, signed_commit);
        untagged.check(&ours(&[])).unwrap();
        assert!(error(&untagged, &ours(&["requiresignedtag"])).contains("no signed tag found"));
        let other = objects(None, (commit.0, signed_commit.1));
        assert!(error(&other, &ours(&[])).contains("checksum verification failed"));
    }
}
