//! BuildKit's `buildkitd.toml`, of which only `[registry."host"]` is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, HostConfig, KeyPair, Mirror, RegistryConfig, certs};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

#[derive(Deserialize)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    http: Option<bool>,
    insecure: Option<bool>,
    #[serde(default)]
    ca: Vec<PathBuf>,
    #[serde(default)]
    keypair: Vec<Pair>,
    #[serde(default)]
    tlsconfigdir: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Pair {
    key: PathBuf,
    cert: PathBuf,
}

/// Adds what the file at `path` says.
pub(super) fn load(config: &mut RegistryConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    let file: File = toml::from_str(text)
        .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?;
    // Paths are meant from where the file is; absolute ones stay as they are.
    let beside = |file: &PathBuf| path.parent().unwrap_or(Path::new("/")).join(file);
    for (host, registry) in file.registry {
        let mirrors = registry.mirrors.iter().map(|address| {
            Mirror::parse(address)
                .ok_or_else(|| ConfigError::Address { path: path.to_owned(), address: address.clone() })
        });
        let mut ca = registry.ca.iter().map(beside).collect();
        let mut key_pairs: Vec<KeyPair> = registry
            .keypair
            .iter()
            .map(|pair| KeyPair { certificate: beside(&pair.cert), key: beside(&pair.key) })
            .collect();
        for directory in &registry.tlsconfigdir {
            certs::scan(&beside(directory), &mut ca, &mut key_pairs)?;
        }
        let said = HostConfig {
            mirrors: mirrors.collect::<Result<_, _>>()?,
            http: registry.http,
            insecure: registry.insecure,
            ca,
            key_pairs,
        };
        config.add(&host, said);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    #[test]
    fn the_registry_table_is_read() {
        let text = r#"
            debug = true
            [worker.oci]
              max-parallelism = 4
            [registry."docker.io"]
              mirrors = ["mirror.local:5000", "core.harbor/proxy.docker.io"]
            [registry."mirror.local:5000"]
              http = true
            [registry."own.example"]
              ca = ["/etc/ca.pem", "certs/ca.pem"]
              [[registry."own.example".keypair]]
                key = "/etc/key.pem"
                cert = "/etc/cert.pem"
        "#;
        let mut config = RegistryConfig::default();
        load(&mut config, Path::new("/etc/buildkit/buildkitd.toml"), text).unwrap();
        let mirrors: Vec<&str> = config.mirrors("docker.io").iter().map(|m| m.authority.as_str()).collect();
        assert_eq!(mirrors, ["mirror.local:5000", "core.harbor"]);
        assert_eq!(config.securities("mirror.local:5000", false), [Security::Plain]);
        let (ca, pairs) = config.certificates("own.example").unwrap();
        assert_eq!(ca, [PathBuf::from("/etc/ca.pem"), PathBuf::from("/etc/buildkit/certs/ca.pem")]);
        assert_eq!(pairs[0].key, Path::new("/etc/key.pem"));
    }

    #[test]
    fn mistakes_name_the_file() {
        let mut config = RegistryConfig::default();
        let path = Path::new("/x/buildkitd.toml");
        let error = load(&mut config, path, "registry = 1").unwrap_err();
        assert!(error.to_string().contains("/x/buildkitd.toml"), "{error}");
        let error = load(&mut config, path, "[registry.\"a\"]\nmirrors=[\"a b\"]").unwrap_err();
        assert!(matches!(error, ConfigError::Address { .. }), "{error}");
    }
}
