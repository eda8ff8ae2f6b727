//! `registries.conf` (version 2) of the containers tools, as far as it speaks of whole hosts.
//!
//! A table whose prefix has a path, or whose location is another host than its prefix, would need
//! rewriting of references; such tables are left out.

use std::path::Path;

use serde::Deserialize;

use super::{ConfigError, HostConfig, Mirror, RegistryConfig};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Deserialize)]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
}

/// Adds what the file at `path` says.
pub(super) fn load(config: &mut RegistryConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    // Version 1 has a table where version 2 has a list; it says nothing that is used here.
    let Ok(file) = toml::from_str::<File>(text) else {
        let readable = toml::from_str::<toml::Table>(text);
        return readable
            .map(|_| ())
            .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) });
    };
    let insecure = |yes: bool| HostConfig {
        http: yes.then_some(true),
        insecure: yes.then_some(true),
        ..HostConfig::default()
    };
    for registry in file.registry {
        let prefix = registry.prefix.as_ref().or(registry.location.as_ref());
        let location = registry.location.as_ref().or(registry.prefix.as_ref());
        let Some(host) = prefix.filter(|&prefix| location == Some(prefix) && !prefix.contains(['/', '*']))
        else {
            continue;
        };
        let mut mirrors = Vec::new();
        for entry in registry.mirror {
            let address = entry.location;
            let mirror = Mirror::parse(&address)
                .ok_or_else(|| ConfigError::Address { path: path.to_owned(), address: address.clone() })?;
            if entry.insecure {
                config.add(&mirror.authority, insecure(true));
            }
            mirrors.push(mirror);
        }
        config.add(host, HostConfig { mirrors, ..insecure(registry.insecure) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    #[test]
    fn whole_hosts_are_read() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.example/hub"
            [[registry.mirror]]
            location = "127.0.0.1:5001"
            insecure = true
            [[registry]]
            prefix = "example.com/team"
            location = "other.example"
            [[registry]]
            location = "lab.example"
            insecure = true
        "#;
        let mut config = RegistryConfig::default();
        load(&mut config, Path::new("registries.conf"), text).unwrap();
        assert_eq!(config.mirrors("docker.io").len(), 2);
        assert_eq!(config.mirrors("docker.io")[0].path, "hub");
        assert_eq!(config.securities("lab.example", false), [Security::Unverified, Security::Plain]);
        assert_eq!(config.securities("other.example", false), [Security::Verified]);
        assert!(load(&mut config, Path::new("x"), "[registries.search]\nregistries=['a']").is_ok());
        assert!(load(&mut config, Path::new("x"), "[[").is_err());
    }
}
