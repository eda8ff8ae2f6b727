//! Docker's `daemon.json`: `insecure-registries` and `registry-mirrors` (which are Docker Hub's).

use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;

use super::{ConfigError, HostConfig, Mirror, RegistryConfig};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    insecure_registries: Vec<String>,
    #[serde(default)]
    registry_mirrors: Vec<String>,
}

/// Adds what the file at `path` says.
pub(super) fn load(config: &mut RegistryConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let file: File =
        serde_json::from_str(text).map_err(|source| ConfigError::Json { path: path.to_owned(), source })?;
    let invalid = |address: &String| ConfigError::Address { path: path.to_owned(), address: address.clone() };
    for address in &file.insecure_registries {
        if let Some((network, prefix)) = parse_network(address) {
            config.add_insecure_network(network, prefix);
            continue;
        }
        let host = Mirror::parse(address).ok_or_else(|| invalid(address))?.authority;
        // Docker tries https with any certificate, then plain http.
        let said = HostConfig { http: Some(true), insecure: Some(true), ..HostConfig::default() };
        config.add(&host, said);
    }
    if !file.registry_mirrors.is_empty() {
        let mirrors = file.registry_mirrors.iter().map(|url| Mirror::parse(url).ok_or_else(|| invalid(url)));
        let said = HostConfig { mirrors: mirrors.collect::<Result<_, _>>()?, ..HostConfig::default() };
        config.add("docker.io", said);
    }
    Ok(())
}

fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    #[test]
    fn both_lists_are_read() {
        let text = r#"{
            "log-level": "info",
            "insecure-registries": ["10.0.0.0/8", "lab.example:5000", "fd00::/8"],
            "registry-mirrors": ["https://mirror.example/"]
        }"#;
        let mut config = RegistryConfig::default();
        load(&mut config, Path::new("daemon.json"), text).unwrap();
        let fallback = [Security::Unverified, Security::Plain];
        assert_eq!(config.securities("lab.example:5000", false), fallback);
        assert_eq!(config.securities("10.20.30.40:5000", false), fallback);
        assert_eq!(config.securities("[fd00::1]:5000", false), fallback);
        assert_eq!(config.securities("11.0.0.1", false), [Security::Verified]);
        assert_eq!(config.mirrors("docker.io")[0].authority, "mirror.example");
        assert_eq!(config.mirrors("docker.io")[0].http, Some(false));
    }

    #[test]
    fn mistakes_name_the_file() {
        let mut config = RegistryConfig::default();
        let error = load(&mut config, Path::new("/etc/docker/daemon.json"), "{").unwrap_err();
        assert!(error.to_string().contains("/etc/docker/daemon.json"), "{error}");
        load(&mut config, Path::new("x"), " \n").unwrap();
    }
}
