//! `input.git`.

use jiff::tz::{Offset, TimeZone};
use serde_json::Value;
use slipway_engine::{GitMeta, GitObject, SignedBy};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use url::Url;

use super::{Document, host, object};
use crate::unknown::OF_OBJECTS;
use crate::wrong;

/// Fields that are known when the reference is resolved.
const OF_REFERENCE: [&str; 3] = ["git.tagName", "git.branch", "git.ref"];
/// Fields that are known when the commit is.
const OF_COMMIT: [&str; 4] = ["git.checksum", "git.isAnnotatedTag", "git.commitChecksum", "git.isSHA256"];

/// What an address of a repository says.
struct Remote {
    schema: String,
    host: String,
    remote: String,
}

impl Remote {
    fn parse(text: &str) -> Result<Self, Diagnostic> {
        let text = text.split('#').next().unwrap_or(text);
        if !text.contains("://") {
            // As ssh has it: `user@host:path`.
            let (place, _) = text.split_once(':').unwrap_or((text, ""));
            let host = place.rsplit('@').next().unwrap_or(place).to_owned();
            return Ok(Self { schema: "ssh".to_owned(), host, remote: text.to_owned() });
        }
        let url = Url::parse(text).map_err(|error| {
            wrong(format!("cannot read the address of the repository `{text}`")).cause(error.to_string())
        })?;
        Ok(Self { schema: url.scheme().to_owned(), host: host(&url), remote: text.to_owned() })
    }
}

/// Adds the scheme that an address without one means.
fn with_scheme(text: &str) -> String {
    let has_scheme =
        ["http://", "https://", "ssh://", "git://"].iter().any(|scheme| text.starts_with(scheme));
    let is_scp = text.split('/').next().is_some_and(|first| first.contains('@') && first.contains(':'));
    if has_scheme || is_scp { text.to_owned() } else { format!("https://{text}") }
}

/// Makes the document of a repository; `rest` is the identifier without its scheme.
pub(super) fn document(
    op: &pb::SourceOp,
    rest: &str,
    known: Option<&GitMeta>,
) -> Result<Document, Diagnostic> {
    let (location, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (asked, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    let full = op.attrs.get("git.fullurl").map(|full| with_scheme(full));
    let remote = Remote::parse(&full.clone().unwrap_or_else(|| with_scheme(location)))?;
    let is_commit = matches!(asked.len(), 40 | 64) && asked.bytes().all(|b| b.is_ascii_hexdigit());
    let is_whole = is_commit || asked.starts_with("refs/tags/") || asked.starts_with("refs/heads/");
    let mut unknown: Vec<&str> = Vec::new();
    let objects = known.filter(|known| !known.commit_object.is_empty());
    if known.is_none() {
        unknown.extend(OF_REFERENCE.iter().filter(|_| !is_whole));
        unknown.extend(OF_COMMIT.iter().filter(|_| !is_commit));
    }
    if objects.is_none() {
        unknown.extend(OF_OBJECTS);
    }
    let own = Some(asked).filter(|_| is_whole).unwrap_or_default();
    let reference = known.map_or(own, |known| known.reference.as_str());
    let checksum = match known {
        Some(known) => known.checksum.as_str(),
        None => Some(asked).filter(|_| is_commit).unwrap_or_default(),
    };
    let commit = known.and_then(|known| known.commit_checksum.as_deref()).unwrap_or(checksum);
    let named = |prefix: &str| {
        let found = reference.strip_prefix(prefix).or_else(|| asked.strip_prefix(prefix));
        Value::from(found)
    };
    let directory = directory.trim_matches('/').trim_start_matches("./");
    let fields = object([
        ("schema", remote.schema.into()),
        ("host", remote.host.into()),
        ("remote", remote.remote.into()),
        ("fullURL", full.into()),
        ("tagName", named("refs/tags/")),
        ("branch", named("refs/heads/")),
        ("ref", reference.into()),
        ("subDir", if directory == "." { Value::Null } else { directory.into() }),
        ("isCommitRef", is_commit.into()),
        ("isSHA256", (checksum.len() == 64).into()),
        ("checksum", checksum.into()),
        ("commitChecksum", commit.into()),
        ("isAnnotatedTag", (checksum != commit).into()),
        (
            "tag",
            objects
                .filter(|known| !known.tag_object.is_empty())
                .map(|known| tag(known, checksum))
                .transpose()?
                .into(),
        ),
        ("commit", objects.map(|known| self::commit(known, commit)).transpose()?.into()),
    ]);
    Ok(Document::new("git", fields, unknown))
}

/// An object that is not what its name says would let anybody say anything.
fn checked<'a>(raw: &'a [u8], name: &str) -> Result<GitObject<'a>, Diagnostic> {
    let object = GitObject::parse(raw);
    match object.is_named(name) {
        true => Ok(object),
        false => Err(wrong(format!("checksum mismatch: the object that was sent is not {name}"))),
    }
}

fn tag(known: &GitMeta, name: &str) -> Result<Value, Diagnostic> {
    let tag = checked(&known.tag_object, name)?;
    let header = |name: &str| Value::from(tag.headers(name).into_iter().next());
    let [pgp, ssh] = signature(&tag);
    Ok(object([
        ("object", header("object")),
        ("type", header("type")),
        ("tag", header("tag")),
        ("tagger", tag.headers("tagger").first().map(|text| actor(text)).into()),
        ("message", tag.message().into()),
        ("pgpSignature", pgp),
        ("sshSignature", ssh),
    ]))
}

fn commit(known: &GitMeta, name: &str) -> Result<Value, Diagnostic> {
    let commit = checked(&known.commit_object, name)?;
    let header = |name: &str| commit.headers(name).into_iter().next();
    let [pgp, ssh] = signature(&commit);
    Ok(object([
        ("tree", header("tree").into()),
        ("parents", commit.headers("parent").into()),
        ("author", header("author").map(|text| actor(&text)).into()),
        ("committer", header("committer").map(|text| actor(&text)).into()),
        ("message", commit.message().into()),
        ("pgpSignature", pgp),
        ("sshSignature", ssh),
    ]))
}

/// Says which keys have signed: OpenPGP, ssh.
fn signature(object: &GitObject<'_>) -> [Value; 2] {
    match object.signed_by() {
        Some(SignedBy::Pgp { version, key_id }) => {
            [self::object([("version", version.into()), ("keyID", key_id.into())]), Value::Null]
        }
        Some(SignedBy::Ssh { version, fingerprint }) => {
            [Value::Null, self::object([("version", version.into()), ("pubKey", fingerprint.into())])]
        }
        None => [Value::Null, Value::Null],
    }
}

/// Reads `Name <address> seconds +offset`.
fn actor(text: &str) -> Value {
    let Some((name, rest)) = text.rsplit_once('<') else { return object([("name", text.trim().into())]) };
    let Some((email, when)) = rest.rsplit_once('>') else { return object([("name", text.trim().into())]) };
    object([("name", name.trim().into()), ("email", email.trim().into()), ("when", time(when).into())])
}

fn time(text: &str) -> Option<String> {
    let (seconds, zone) = text.trim().split_once(' ')?;
    let time = jiff::Timestamp::from_second(seconds.parse().ok()?).ok()?;
    let zone: i32 = zone.trim().parse().ok()?;
    let seconds = (zone / 100 * 60 + zone % 100).checked_mul(60)?;
    if seconds == 0 {
        return Some(time.to_string());
    }
    let offset = Offset::from_seconds(seconds).ok()?;
    Some(time.to_zoned(TimeZone::fixed(offset)).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_have_names_addresses_and_times() {
        let expected = json!({ "name": "A <B", "email": "a@b", "when": "2023-11-14T23:13:20+01:00" });
        assert_eq!(actor("A <B <a@b> 1700000000 +0100"), expected);
        assert_eq!(actor("A <a@b> 1700000000 +0000")["when"], "2023-11-14T22:13:20Z");
        assert_eq!(actor("A <a@b> 1 +2147483647"), json!({ "name": "A", "email": "a@b" }));
        assert_eq!(actor("nobody"), json!({ "name": "nobody" }));
    }

    #[test]
    fn an_object_has_to_be_what_it_is_called() {
        let known = GitMeta {
            reference: "refs/heads/main".to_owned(),
            checksum: "0".repeat(40),
            commit_checksum: None,
            commit_object: b"tree 1\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nm\n".to_vec(),
            tag_object: Vec::new(),
        };
        let error = document(&pb::SourceOp::default(), "example.com/a.git", Some(&known)).unwrap_err();
        assert!(error.message.contains("checksum mismatch"), "{error}");
    }
}
