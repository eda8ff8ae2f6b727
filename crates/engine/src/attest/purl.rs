//! Package URLs: how statements name images, and the redaction of addresses that statements hold.

use slipway_model::{Platform, Reference};

/// What kind of package an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Package {
    /// In a registry.
    Docker,
    /// In an OCI layout.
    Oci,
}

/// Names an image: `pkg:docker/alpine@3.22?platform=linux%2Famd64`.
pub(crate) fn of_image(
    package: Package,
    reference: &Reference,
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> String {
    let named = if reference.digest().is_some() { reference.clone() } else { reference.with_default_tag() };
    let plain = named.familiar();
    let name = plain.split('@').next().unwrap_or_default();
    let name = match named.tag() {
        Some(tag) => name.strip_suffix(tag).and_then(|name| name.strip_suffix(':')).unwrap_or(name),
        None => name,
    };
    let kind = match package {
        Package::Docker => "docker",
        Package::Oci => "oci",
    };
    let mut url = format!("pkg:{kind}/{}", name.replace(':', "%3A"));
    if let Some(tag) = named.tag() {
        url.push('@');
        url.push_str(tag);
    }
    let digest = named.digest().map(|digest| ("digest", digest.to_string()));
    let platform = platform.map(|platform| ("platform", platform.to_string()));
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    for (position, (name, value)) in digest.into_iter().chain(platform).chain(more).enumerate() {
        url.push(if position == 0 { '?' } else { '&' });
        url.push_str(name);
        url.push('=');
        url.push_str(&escape(&value));
    }
    url
}

/// Escapes a part of a path as Go's `url.PathEscape` does.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.push(byte.into()),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b':' | b'=' | b'@' => escaped.push(byte.into()),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// What stands for a name or a password.
const MASK: &str = "xxxxx";

/// Takes the name and the password out of an address; what is no address stays as it is.
pub(crate) fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return address.to_owned() };
    let user = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => String::new(),
        None => MASK.to_owned(),
    };
    format!("{scheme}://{user}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_urls() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let amd64: Platform = "linux/amd64".parse().unwrap();
        let of = |name: &str, platform| of_image(Package::Docker, &name.parse().unwrap(), platform, &[]);
        assert_eq!(of("docker.io/library/alpine", None), "pkg:docker/alpine@latest");
        assert_eq!(of("user/test:v2", None), "pkg:docker/user/test@v2");
        assert_eq!(of("127.0.0.1:5000/foo/bar", None), "pkg:docker/127.0.0.1%3A5000/foo/bar@latest");
        assert_eq!(
            of(&format!("alpine:3@{digest}"), Some(&amd64)),
            format!("pkg:docker/alpine@3?digest={digest}&platform=linux%2Famd64")
        );
        assert_eq!(of(&format!("alpine@{digest}"), None), format!("pkg:docker/alpine?digest={digest}"));
    }

    #[test]
    fn passwords_are_taken_out() {
        for (address, shown) in [
            ("https://me:secret@host/x@y.git#v1:dir", "https://xxxxx:xxxxx@host/x@y.git#v1:dir"),
            ("ssh://git@host/x", "ssh://xxxxx@host/x"),
            ("https://host/a:b@c", "https://host/a:b@c"),
            ("local:src", "local:src"),
        ] {
            assert_eq!(redacted(address), shown);
        }
    }
}
