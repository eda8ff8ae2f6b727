//! Image references: `[domain/]path[:tag][@digest]`, with Docker's defaults filled in.
//!
//! The grammar is the [distribution reference] grammar. `busybox` means `docker.io/library/busybox`; a
//! first component is a domain if it holds `.` or `:`, is `localhost`, or has an upper-case letter. A
//! reference keeps whether a tag was written, because `name` alone means `:latest` only when resolved.
//!
//! [distribution reference]: https://pkg.go.dev/github.com/distribution/reference

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

/// Names an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Says why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    #[error("invalid reference: the name is empty")]
    Empty,
    #[error("invalid reference `{0}`: the repository name must be lowercase")]
    Uppercase(String),
    #[error("invalid reference format: `{0}`")]
    Malformed(String),
    #[error("invalid reference `{0}`: the name is longer than 255 characters")]
    TooLong(String),
    #[error("invalid reference `{reference}`")]
    Digest { reference: String, source: crate::ParseDigestError },
}

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

impl Reference {
    /// Returns the registry's host and port; `docker.io` where none was written.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository's path, with `library/` where Docker Hub has it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag that was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest that was written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns `domain/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the tag, `latest` where neither a tag nor a digest was written.
    pub fn tag_or_default(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG),
        }
    }

    /// Returns the same reference with `:latest` written out where it is meant.
    pub fn with_default_tag(&self) -> Self {
        Self { tag: self.tag_or_default().map(str::to_owned), ..self.clone() }
    }

    /// Returns the same repository with `tag` and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        if !is_tag(tag) {
            return Err(ParseReferenceError::Malformed(format!("{}:{tag}", self.repository())));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Returns the same reference pinned to `digest`.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns the same repository without tag and digest.
    pub fn without_tag(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// Returns the short form people write: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let name = match (self.domain.as_str(), self.path.strip_prefix("library/")) {
            (DEFAULT_DOMAIN, Some(rest)) if !rest.contains('/') => rest.to_owned(),
            (DEFAULT_DOMAIN, _) => self.path.clone(),
            _ => self.repository(),
        };
        self.append_suffix(name)
    }

    fn append_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    /// Writes the whole form, domain included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.append_suffix(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseReferenceError::Malformed(text.to_owned());
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let parsed = digest
                    .parse()
                    .map_err(|source| ParseReferenceError::Digest { reference: text.to_owned(), source })?;
                (rest, Some(parsed))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed());
        }
        let (domain, path) = split_domain(name);
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseReferenceError::Uppercase(text.to_owned()));
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) {
            return Err(malformed());
        }
        if path.len() > 255 {
            return Err(ParseReferenceError::TooLong(text.to_owned()));
        }
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }
}

fn split_domain(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            let domain = if first == "index.docker.io" { DEFAULT_DOMAIN } else { first };
            (domain.to_owned(), rest.to_owned())
        }
        _ => (DEFAULT_DOMAIN.to_owned(), name.to_owned()),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            if !host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            ("v6", rest.strip_prefix(':'))
        }
        None => match domain.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .filter(|s| !s.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    matches!(bytes.first(), Some(&b) if word(b))
        && bytes.len() <= 128
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn defaults_are_filled_in() {
        for (text, whole) in [
            ("busybox", "docker.io/library/busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app"),
            ("index.docker.io/user/app", "docker.io/user/app"),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
            ("localhost/app", "localhost/app"),
            ("[::1]:5000/a__b/c-d", "[::1]:5000/a__b/c-d"),
        ] {
            assert_eq!(parse(text).to_string(), whole, "{text}");
            assert_eq!(parse(whole), parse(text));
        }
        assert_eq!(parse("busybox").with_default_tag().familiar(), "busybox:latest");
    }

    #[test]
    fn digests_pin() {
        let digest = Digest::of("x");
        let reference = parse(&format!("r.example/a:1@{digest}"));
        assert_eq!((reference.tag(), reference.digest()), (Some("1"), Some(digest)));
        assert_eq!(reference.tag_or_default(), Some("1"));
        assert_eq!(parse(&format!("a@{digest}")).tag_or_default(), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "Busybox", "a//b", "-a", "a:", "a:-x", "a@sha256:12", "a b", "r.example/", "$IMAGE", "a/B"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
