//! Which registries are spoken to how: scheme, trust, client certificates, mirrors.
//!
//! What users already wrote for other tools is read where they wrote it. Where several files speak of one
//! host, the first in this order wins, member by member (authorities and client certificates add up):
//!
//! 1. `insecure` asked for by the request itself (`--output registry.insecure=true`);
//! 2. BuildKit's `buildkitd.toml`: the user's, buildx's default one, then the system's;
//! 3. `registries.conf` of the containers tools, for whole hosts (no prefixes with a path);
//! 4. Docker's `daemon.json`: `insecure-registries`, `registry-mirrors`;
//! 5. loopback addresses speak plain http unless told otherwise, and https without verification where
//!    the answer shows that the server wants that; anything else speaks verified https.
//!
//! Certificates come from the system's store, from `ca` and `keypair` of BuildKit's file, and from
//! `certs.d/<host>/*.{crt,cert,key}` of Docker and the containers tools; those directories are looked
//! into only when https is spoken to that host.

mod buildkit;
mod certs;
mod containers;
mod docker;
mod paths;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use paths::ConfigPaths;

/// Says why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is not valid TOML")]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
    #[error("`{path}` is not valid JSON")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("invalid registry address `{address}` in `{path}`")]
    Address { path: PathBuf, address: String },
    #[error("`{path}` holds no usable certificate or key")]
    Pem { path: PathBuf },
    #[error("TLS cannot be set up: {reason}")]
    Tls { reason: String },
}

/// Says how one host is to be spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Registries that are asked before this one when pulling, in order.
    pub mirrors: Vec<Mirror>,
    /// Whether plain http is spoken.
    pub http: Option<bool>,
    /// Whether certificates are left unverified.
    pub insecure: Option<bool>,
    /// Files with authorities to trust beside the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates to show.
    pub key_pairs: Vec<KeyPair>,
}

/// Is a client certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Is a registry that has copies of another one's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Whether http or https was written; otherwise the mirror's own configuration decides.
    pub http: Option<bool>,
    /// Host and port.
    pub authority: String,
    /// What comes before the repository's path, without slashes at the ends; mostly empty.
    pub path: String,
}

impl Mirror {
    /// Parses `[scheme://]host[:port][/path]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (http, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(true), rest),
            Some(("https", rest)) => (Some(false), rest),
            Some(_) => return None,
            None => (None, text),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let valid = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(valid) {
            return None;
        }
        let path = path.trim_matches('/');
        let path = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path });
        Some(Self { http, authority: authority.to_owned(), path: path.to_owned() })
    }
}

/// Is one way to speak to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// Plain http.
    Plain,
    /// https with any certificate.
    Unverified,
    /// https with a certificate that is trusted.
    Verified,
}

impl Security {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Unverified | Self::Verified => "https",
        }
    }
}

/// Holds what is known of all hosts.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    hosts: BTreeMap<String, HostConfig>,
    insecure_networks: Vec<(IpAddr, u8)>,
    certs_directories: Vec<PathBuf>,
}

impl RegistryConfig {
    /// Reads the configuration files that exist among `paths`.
    pub fn load(paths: &ConfigPaths) -> Result<Self, ConfigError> {
        let mut config = Self { certs_directories: paths.certs_directories.clone(), ..Self::default() };
        for path in &paths.buildkit {
            if let Some(text) = read_if_there(path)? {
                buildkit::load(&mut config, path, &text)?;
            }
        }
        for path in &paths.containers {
            if let Some(text) = read_if_there(path)? {
                containers::load(&mut config, path, &text)?;
            }
        }
        for path in &paths.docker {
            if let Some(text) = read_if_there(path)? {
                docker::load(&mut config, path, &text)?;
            }
        }
        Ok(config)
    }

    /// Adds what is said of `host`; what is known already wins.
    pub fn add(&mut self, host: &str, said: HostConfig) {
        let known = self.hosts.entry(canonical_host(host).to_owned()).or_default();
        known.http = known.http.or(said.http);
        known.insecure = known.insecure.or(said.insecure);
        if known.mirrors.is_empty() {
            known.mirrors = said.mirrors;
        }
        known.ca.extend(said.ca);
        known.key_pairs.extend(said.key_pairs);
    }

    /// Leaves certificates unverified, and plain http allowed, for addresses in a network.
    pub(crate) fn add_insecure_network(&mut self, address: IpAddr, prefix: u8) {
        self.insecure_networks.push((address, prefix));
    }

    /// Lists the mirrors of `host`.
    pub fn mirrors(&self, host: &str) -> &[Mirror] {
        self.hosts.get(canonical_host(host)).map_or(&[], |config| &config.mirrors)
    }

    /// Lists the ways to speak to `authority`, the one to try first at the front.
    pub(crate) fn securities(&self, authority: &str, insecure: bool) -> &'static [Security] {
        use Security::{Plain, Unverified, Verified};
        let nothing = HostConfig::default();
        let host = self.hosts.get(canonical_host(authority)).unwrap_or(&nothing);
        let loopback = is_loopback(authority);
        let trusting = insecure || (host.insecure.is_none() && self.in_insecure_network(authority));
        match (host.http, host.insecure) {
            (Some(true), Some(true)) => &[Unverified, Plain],
            (Some(true), _) => &[Plain],
            (None, _) if loopback && host.ca.is_empty() && host.key_pairs.is_empty() => &[Plain, Unverified],
            _ if trusting => &[Unverified, Plain],
            (_, Some(true)) => &[Unverified],
            _ => &[Verified],
        }
    }

    /// Lists the files with authorities and client certificates for `authority`.
    pub(crate) fn certificates(&self, authority: &str) -> Result<(Vec<PathBuf>, Vec<KeyPair>), ConfigError> {
        let host = self.hosts.get(canonical_host(authority)).cloned().unwrap_or_default();
        let (mut ca, mut key_pairs) = (host.ca, host.key_pairs);
        for directory in &self.certs_directories {
            certs::scan(&directory.join(canonical_host(authority)), &mut ca, &mut key_pairs)?;
        }
        Ok((ca, key_pairs))
    }

    fn in_insecure_network(&self, authority: &str) -> bool {
        let Ok(address) = host_of(authority).parse::<IpAddr>() else { return false };
        self.insecure_networks.iter().any(|&(network, prefix)| in_network(address, network, prefix))
    }
}

/// Tells whether `authority` is the machine itself.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the host of `host[:port]`, an IPv6 address without its brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some((host, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Tells whether `authority` names a port.
pub(crate) fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Docker Hub has several names for one thing.
fn canonical_host(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "index.docker.io" => "docker.io",
        other => other,
    }
}

fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let ignored = u32::from(width - prefix.min(width));
    ignored == 128 || (address ^ network) >> ignored == 0
}

fn read_if_there(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if absent(&error) => Ok(None),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// A file of the system's that this user may not read is as good as none.
fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_parsed() {
        let parts = |text| Mirror::parse(text).map(|m| (m.http, m.authority, m.path));
        assert_eq!(parts("a:5000"), Some((None, "a:5000".into(), String::new())));
        assert_eq!(parts("https://a/"), Some((Some(false), "a".into(), String::new())));
        assert_eq!(parts("http://a/v2/"), Some((Some(true), "a".into(), String::new())));
        assert_eq!(
            parts("core.harbor/proxy.docker.io"),
            Some((None, "core.harbor".into(), "proxy.docker.io".into()))
        );
        assert_eq!(parts("ftp://a"), None);
        assert_eq!(parts("user:secret@a"), None);
        assert_eq!(parts(""), None);
    }

    #[test]
    fn schemes_follow_configuration_then_address() {
        use Security::{Plain, Unverified, Verified};
        let mut config = RegistryConfig::default();
        let said = |http, insecure| HostConfig { http, insecure, ..HostConfig::default() };
        config.add("plain.example", said(Some(true), None));
        config.add("self-signed.example", said(None, Some(true)));
        config.add("127.0.0.9:1", said(Some(false), None));
        config.add_insecure_network("10.1.0.0".parse().unwrap(), 16);
        for (authority, insecure, expected) in [
            ("r.example", false, &[Verified][..]),
            ("r.example", true, &[Unverified, Plain]),
            ("plain.example", false, &[Plain]),
            ("self-signed.example", false, &[Unverified]),
            ("localhost:5000", false, &[Plain, Unverified]),
            ("127.3.2.1", true, &[Plain, Unverified]),
            ("[::1]:5000", false, &[Plain, Unverified]),
            ("127.0.0.9:1", false, &[Verified]),
            ("10.1.2.3:5000", false, &[Unverified, Plain]),
            ("10.2.2.3:5000", false, &[Verified]),
        ] {
            assert_eq!(config.securities(authority, insecure), expected, "{authority} {insecure}");
        }
    }

    #[test]
    fn what_is_known_wins() {
        let mut config = RegistryConfig::default();
        let mirror = |name: &str| Mirror::parse(name).unwrap();
        config.add("index.docker.io", HostConfig { mirrors: vec![mirror("a")], ..HostConfig::default() });
        config.add(
            "docker.io",
            HostConfig { mirrors: vec![mirror("b")], http: Some(true), ..HostConfig::default() },
        );
        assert_eq!(config.mirrors("docker.io"), [mirror("a")]);
        assert_eq!(config.securities("registry-1.docker.io", false), [Security::Plain]);
    }
}
