//! Addresses of git repositories, as contexts and as sources of `ADD`.
//!
//! `https://host/path.git#ref:dir`, `git://…`, `ssh://…`, `git@host:path`, each also with a query
//! (`?ref=…&subdir=…`). An http address is a repository only if its path ends in `.git`.

use std::collections::BTreeMap;

use crate::text::{join, parse_bool, quote};

/// Names a repository, what to take of it, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitReference {
    /// The address for git itself: without query and fragment.
    pub remote: String,
    /// The host and the path, which do not depend on the protocol.
    pub location: String,
    /// A branch, tag or commit.
    pub reference: Option<String>,
    /// The commit it has to be.
    pub checksum: Option<String>,
    pub directory: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    /// `checkout` or `commit`.
    pub mtime: Option<String>,
    pub fetch_by_commit: bool,
    pub ssh: bool,
    /// `github.com/…` without a protocol, which may be a path as well; deprecated.
    pub looks_local: bool,
}

/// Says what is wrong with an address that is a repository's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GitReferenceError(String);

fn error<T>(message: String) -> Result<T, GitReferenceError> {
    Err(GitReferenceError(message))
}

impl GitReference {
    /// Parses an address; `None` if it is not a repository's.
    pub fn parse(text: &str) -> Result<Option<Self>, GitReferenceError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let Some(parts) = Parts::split(text) else { return Ok(None) };
        let http = matches!(parts.scheme, "http" | "https");
        if http && !parts.looks_local && !parts.path.ends_with(".git") {
            return Ok(None);
        }
        let mut reference = Self {
            remote: parts.remote.to_owned(),
            location: format!("{}{}", parts.host, join("/", parts.path)),
            ssh: parts.scheme == "ssh",
            looks_local: parts.looks_local,
            ..Self::default()
        };
        if let Some(fragment) = parts.fragment.filter(|fragment| !fragment.is_empty()) {
            let fragment = decode(fragment, false);
            let (name, directory) = fragment.split_once(':').unwrap_or((fragment.as_str(), ""));
            reference.reference = Some(name.to_owned()).filter(|name| !name.is_empty());
            let directory = join("/", directory).trim_start_matches('/').to_owned();
            reference.directory = Some(directory).filter(|directory| !directory.is_empty());
        }
        reference.query(parts.query.unwrap_or_default())?;
        Ok(Some(reference))
    }

    fn query(&mut self, query: &str) -> Result<(), GitReferenceError> {
        let (mut tag, mut branch) = (None, None);
        for (key, value) in query_pairs(query)? {
            match (key.as_str(), value) {
                ("submodules", value) => self.submodules = Some(truth(&key, value)?),
                ("keep-git-dir", value) => self.keep_git_dir = Some(truth(&key, value)?),
                ("fetch-by-commit", value) => self.fetch_by_commit = truth(&key, value)?,
                (_, None) => return error(format!("query {} has no value", quote(&key))),
                ("ref", Some(value)) => agree("ref", &mut self.reference, value)?,
                ("tag", Some(value)) => tag = Some(value),
                ("branch", Some(value)) => branch = Some(value),
                ("subdir", Some(value)) => agree("subdir", &mut self.directory, value)?,
                ("checksum" | "commit", Some(value)) => self.checksum = Some(value),
                ("mtime", Some(value)) if value == "checkout" || value == "commit" => {
                    self.mtime = Some(value)
                }
                ("mtime", Some(value)) => {
                    let value = quote(&value);
                    return error(format!(
                        "invalid mtime value: {value} (must be \"checkout\" or \"commit\")"
                    ));
                }
                (_, Some(_)) => return error(format!("unexpected query {}", quote(&key))),
            }
        }
        if let Some(tag) = &tag {
            agree("ref", &mut self.reference, with_prefix("refs/tags/", tag))?;
        }
        if let Some(branch) = branch {
            if tag.is_some() {
                return error("branch conflicts with tag".to_owned());
            }
            agree("ref", &mut self.reference, with_prefix("refs/heads/", &branch))?;
        }
        Ok(())
    }

    /// Returns the address in its short form: without the queries that a fragment can say.
    pub fn short(&self) -> String {
        let mut address = self.short_remote();
        if self.reference.is_some() || self.directory.is_some() {
            address.push('#');
            address.push_str(self.reference.as_deref().unwrap_or_default());
        }
        if let Some(directory) = &self.directory {
            address.push(':');
            address.push_str(directory);
        }
        address
    }

    /// Returns the address of the repository alone, as it may be shown.
    pub fn short_remote(&self) -> String {
        redacted(&self.remote)
    }

    /// Returns the identifier and the attributes of the source operation.
    pub(crate) fn source(&self) -> (String, BTreeMap<String, String>) {
        let mut identifier = format!("git://{}", self.location);
        if self.reference.is_some() || self.directory.is_some() {
            identifier.push('#');
            identifier.push_str(self.reference.as_deref().unwrap_or_default());
            if let Some(directory) = &self.directory {
                identifier.push(':');
                identifier.push_str(directory);
            }
        }
        let flag = |name: &'static str, on: bool| on.then(|| (name, "true".to_owned()));
        let remote = if self.looks_local { format!("https://{}", self.remote) } else { self.remote.clone() };
        let attributes = [
            Some(("git.fullurl", remote)),
            Some(("git.authtokensecret", "GIT_AUTH_TOKEN".to_owned())),
            Some(("git.authheadersecret", "GIT_AUTH_HEADER".to_owned())),
            self.ssh.then(|| ("git.mountsshsock", "default".to_owned())),
            self.checksum.clone().map(|checksum| ("git.checksum", checksum)),
            self.mtime.clone().map(|mtime| ("git.mtime", mtime)),
            flag("git.keepgitdir", self.keep_git_dir == Some(true)),
            flag("git.skipsubmodules", self.submodules == Some(false)),
            flag("git.fetchbycommit", self.fetch_by_commit),
        ];
        let attributes =
            attributes.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect();
        (identifier, attributes)
    }
}

/// Returns the address of a directory of the repository, or of the part of one, at `address`; `None` if that is
/// no repository's. What else the address says stays.
pub fn directory_of_repository(address: &str, directory: &str) -> Option<String> {
    let whole = GitReference::parse(address).ok()??;
    let below = join(&join("/", whole.directory.as_deref().unwrap_or_default()), directory);
    let below = below.trim_start_matches('/');
    if below == whole.directory.as_deref().unwrap_or_default() {
        return Some(address.to_owned());
    }
    let encoded = below.replace('%', "%25");
    let (base, fragment) = address.split_once('#').unwrap_or((address, ""));
    let is_directory = |pair: &&str| pair.split('=').next() == Some("subdir");
    let (base, query) = base.split_once('?').unwrap_or((base, ""));
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    // The fragment has to agree with a query of the same meaning.
    pairs.retain(|pair| !is_directory(pair));
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    let reference = fragment.split(':').next().unwrap_or_default();
    Some(match below {
        "" if reference.is_empty() => format!("{base}{query}"),
        "" => format!("{base}{query}#{reference}"),
        _ => format!("{base}{query}#{reference}:{encoded}"),
    })
}

/// Holds the parts of an address.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
    remote: &'a str,
    looks_local: bool,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (remote, query) = match rest.split_once('?') {
            Some((remote, query)) => (remote, Some(query)),
            None => (rest, None),
        };
        let parts = |scheme, host, path, looks_local| {
            Some(Self { scheme, host, path, query, fragment, remote, looks_local })
        };
        if let Some(path) = remote.strip_prefix("github.com/") {
            return parts("https", "github.com", path, true);
        }
        if let Some((scheme, rest)) = remote.split_once("://") {
            let scheme =
                ["http", "https", "ssh", "git"].into_iter().find(|s| s.eq_ignore_ascii_case(scheme))?;
            let (authority, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let host = authority.rsplit('@').next().unwrap_or(authority);
            return parts(scheme, host, path, false);
        }
        // git@host:path
        let (user, rest) = remote.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let word = |text: &str, extra: &[u8]| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        };
        if word(user, b"-_") && word(host, b"-.") { parts("ssh", host, path, false) } else { None }
    }
}

/// Returns an address as it may be shown: without a password.
pub(crate) fn redacted(address: &str) -> String {
    let shown = address.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, host) = authority.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:xxxxx@{host}{path}"))
    });
    shown.unwrap_or_else(|| address.to_owned())
}

fn with_prefix(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn agree(what: &str, slot: &mut Option<String>, value: String) -> Result<(), GitReferenceError> {
    match slot {
        Some(other) if *other != value => {
            error(format!("{what} conflicts: {} vs {}", quote(other), quote(&value)))
        }
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn truth(key: &str, value: Option<String>) -> Result<bool, GitReferenceError> {
    let Some(value) = value else { return Ok(true) };
    parse_bool(&value).map_or_else(|| error(format!("invalid {key} value: {}", quote(&value))), Ok)
}

/// Splits a query; a key without a value, or with an empty one, has `None`.
fn query_pairs(query: &str) -> Result<Vec<(String, Option<String>)>, GitReferenceError> {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key = decode(key, true);
        if pairs.iter().any(|(other, _)| *other == key) {
            return error(format!("query {} has multiple values", quote(&key)));
        }
        pairs.push((key, Some(decode(value, true)).filter(|value| !value.is_empty())));
    }
    Ok(pairs)
}

/// Resolves `%41`, and `+` where it means a blank.
pub(crate) fn decode(text: &str, plus_is_blank: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let value = hex.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, value) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 2;
            }
            (b'+', _) if plus_is_blank => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitReference {
        GitReference::parse(text).unwrap().unwrap_or_else(|| panic!("{text} is no repository"))
    }

    #[test]
    fn addresses() {
        let https = parse("https://user@github.com/moby/buildkit.git#v1:some/../dir");
        assert_eq!(https.remote, "https://user@github.com/moby/buildkit.git");
        assert_eq!(https.source().0, "git://github.com/moby/buildkit.git#v1:dir");
        let scp = parse("git@github.com:moby/buildkit.git#:dir");
        assert_eq!(scp.source().0, "git://github.com/moby/buildkit.git#:dir");
        assert_eq!(scp.source().1["git.mountsshsock"], "default");
        assert_eq!(parse("git://h/p").location, "h/p");
        assert!(parse("github.com/moby/buildkit").looks_local);
        for text in ["https://example.com/a.tar", "./x.git", "a/b", "ftp://h/x.git", "http://h/x.git/y"] {
            assert_eq!(GitReference::parse(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn directories_of_repositories_have_addresses() {
        for (address, directory, want) in [
            ("https://h/x.git", "bar", "https://h/x.git#:bar"),
            ("https://h/x.git", "./a/../bar/", "https://h/x.git#:bar"),
            ("https://h/x.git#main", "bar", "https://h/x.git#main:bar"),
            ("https://h/x.git#main:a", "b", "https://h/x.git#main:a/b"),
            ("https://h/x.git#main:a", "../b", "https://h/x.git#main:b"),
            ("https://h/x.git#main:a", ".", "https://h/x.git#main:a"),
            ("https://h/x.git#main:a", "..", "https://h/x.git#main"),
            ("https://h/x.git?ref=v1&subdir=a", "b", "https://h/x.git?ref=v1#:a/b"),
            ("https://h/x.git?ref=v1", "50%", "https://h/x.git?ref=v1#:50%25"),
            ("git@h:x.git", "bar", "git@h:x.git#:bar"),
        ] {
            let made = directory_of_repository(address, directory).unwrap();
            assert_eq!(made, want, "{address} {directory}");
            assert!(parse(&made).remote == parse(address).remote, "{made}");
        }
        assert_eq!(directory_of_repository("https://h/x.tar.gz", "a"), None);
    }

    #[test]
    fn addresses_have_a_short_form() {
        for (address, want) in [
            ("https://h/x.git?ref=main", "https://h/x.git#main"),
            (
                "https://me:secret@h/x.git?tag=v1&subdir=a&submodules=false",
                "https://me:xxxxx@h/x.git#refs/tags/v1:a",
            ),
            ("https://h/x.git#:a", "https://h/x.git#:a"),
            ("https://h/x.git", "https://h/x.git"),
        ] {
            assert_eq!(parse(address).short(), want, "{address}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redacted("https://me:pa@ss@h/x.git#a"), "https://me:xxxxx@h/x.git#a");
        for plain in ["https://me@h/x.git", "git@h:x/y.git", "https://h/a:b@c"] {
            assert_eq!(redacted(plain), plain);
        }
    }

    #[test]
    fn queries() {
        let parsed =
            parse("https://h/x.git?tag=v1&subdir=a&checksum=abc&keep-git-dir&submodules=false&mtime=commit");
        assert_eq!(parsed.reference.as_deref(), Some("refs/tags/v1"));
        assert_eq!(parsed.directory.as_deref(), Some("a"));
        assert_eq!((parsed.keep_git_dir, parsed.submodules), (Some(true), Some(false)));
        let (_, attributes) = parsed.source();
        assert_eq!(attributes["git.skipsubmodules"], "true");
        assert_eq!(attributes["git.checksum"], "abc");
        assert_eq!(parse("https://h/x.git?branch=b").reference.as_deref(), Some("refs/heads/b"));
        for (text, message) in [
            ("https://h/x.git?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("https://h/x.git?tag=a&branch=b", "branch conflicts with tag"),
            ("https://h/x.git?ref", "query \"ref\" has no value"),
            ("https://h/x.git?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("https://h/x.git?what=a", "unexpected query \"what\""),
            ("https://h/x.git?submodules=x", "invalid submodules value: \"x\""),
        ] {
            assert_eq!(GitReference::parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
