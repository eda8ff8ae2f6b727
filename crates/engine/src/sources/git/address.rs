//! The address of a repository, apart from the password that may be in it.
//!
//! A command line can be read by every user of the machine. So a password never goes on one: it is taken out
//! here, and goes to git as a header in its environment.

use std::fmt;

use slipway_model::{Diagnostic, ErrorKind, Secret};

/// What may be spoken with a remote. Others (`file`, `ext`, …) reach into this machine.
pub(super) const PROTOCOLS: [&str; 4] = ["http", "https", "ssh", "git"];

/// Where a repository is.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// For git, without a password.
    text: String,
    /// With the port; of the form `user@host:path`, without a user.
    pub(super) host: String,
    /// Of an address by http.
    pub(super) password: Option<(String, Secret<String>)>,
    pub(super) is_http: bool,
    pub(super) is_ssh: bool,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, Diagnostic> {
        let refused = |why: &str| {
            let shown = text.split('@').next_back().unwrap_or_default();
            Diagnostic::new(ErrorKind::User, format!("cannot fetch `{shown}` with git")).cause(why)
        };
        if text.starts_with('-') || text.contains(char::is_control) {
            return Err(refused("it is no address"));
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return match text.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?))) {
                Some((user, (host, _))) if !user.contains('/') => {
                    Ok(Self { host: host.to_owned(), is_ssh: true, ..Self::plain(text.to_owned()) })
                }
                _ => Self::parse(&format!("https://{text}")),
            };
        };
        let scheme = scheme.to_ascii_lowercase();
        if !PROTOCOLS.contains(&scheme.as_str()) {
            return Err(refused(&format!("`{scheme}` is not among the protocols {}", PROTOCOLS.join(", "))));
        }
        let mut url = url::Url::parse(text).map_err(|error| refused(&error.to_string()))?;
        let is_http = scheme.starts_with("http");
        let mut address = Self { is_http, is_ssh: scheme == "ssh", ..Self::plain(text.to_owned()) };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        address.host = format!("{}{port}", url.host_str().unwrap_or_default());
        if let Some(password) = url.password().map(decode) {
            let user = decode(url.username());
            let _ = url.set_password(None);
            if is_http {
                address.password = Some((user, Secret::new(password)));
                let _ = url.set_username("");
            }
            address.text = url.to_string();
        }
        Ok(address)
    }

    fn plain(text: String) -> Self {
        Self { text, host: String::new(), password: None, is_http: false, is_ssh: false }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the addresses for which a password of this one counts: its own, and on github.com all, so that
    /// submodules beside a private repository can be fetched.
    pub(super) fn scope(&self) -> &str {
        let github = ["https://github.com/", "https://www.github.com/"];
        github.into_iter().find(|prefix| self.text.starts_with(prefix)).unwrap_or(&self.text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn decode(text: &str) -> String {
    let pairs = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pairs.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_taken_out() {
        let address = Address::parse("https://me:p%40ss+x@host:8443/a/b.git").unwrap();
        assert_eq!(address.as_str(), "https://host:8443/a/b.git");
        let (user, password) = address.password.clone().unwrap();
        assert_eq!((user.as_str(), password.expose().as_str()), ("me", "p@ss+x"));
        assert_eq!(address.host, "host:8443");
        assert!(!format!("{address:?}").contains("p@ss"));
        assert_eq!(Address::parse("https://me@host/a.git").unwrap().as_str(), "https://me@host/a.git");
    }

    #[test]
    fn forms() {
        let short = Address::parse("git@host.example:team/a.git").unwrap();
        assert!(short.is_ssh && short.host == "host.example" && !short.is_http);
        assert!(Address::parse("ssh://git@host:22/a.git").unwrap().is_ssh);
        assert!(Address::parse("host.example/a.git").unwrap().is_http);
        assert_eq!(Address::parse("https://github.com/a/b.git").unwrap().scope(), "https://github.com/");
        for text in ["file:///etc", "ext::sh -c x", "--upload-pack=x", "ftp://h/a.git"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
