//! `buildkitd.toml`: what of it has a meaning here, and what is not known.
//!
//! Registries are the engine's to read from the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use slipway_model::solve::Entitlement;
use slipway_model::{Diagnostic, ErrorKind};
use toml::{Table, Value};

use super::TlsFiles;

/// What the file says.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    pub root: Option<PathBuf>,
    pub debug: bool,
    pub addresses: Vec<String>,
    pub tls: Option<TlsFiles>,
    pub gid: Option<u32>,
    pub entitlements: BTreeSet<Entitlement>,
    pub labels: BTreeMap<String, String>,
    pub max_parallelism: Option<usize>,
    pub gc: bool,
    /// Keys that nobody knows, as paths.
    pub unknown: Vec<String>,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            root: None,
            debug: false,
            addresses: Vec::new(),
            tls: None,
            gid: None,
            entitlements: BTreeSet::new(),
            labels: BTreeMap::new(),
            max_parallelism: None,
            gc: true,
            unknown: Vec::new(),
        }
    }
}

/// The keys of a worker.
const WORKER: &str = "enabled labels platforms snapshotter rootless noProcessSandbox gc gckeepstorage \
    reservedSpace maxUsedSpace minFreeSpace gcpolicy binary proxySnapshotterPath stargzSnapshotter \
    userRemapUnsupported apparmor-profile selinux max-parallelism defaultCgroupParent networkMode \
    cniConfigPath cniBinaryPath cniPoolSize bridgeName bridgeSubnet address namespace runtime";

/// The keys of each table; `*` is any name.
const KNOWN: &[(&str, &str)] = &[
    (
        "",
        "root debug trace insecure-entitlements proxyNetwork provenanceEnvDir log grpc otel cdi history dns \
         worker registry frontend system cache ghacache",
    ),
    ("log", "format level"),
    ("grpc", "address debugAddress uid gid securityDescriptor tls"),
    ("grpc.tls", "cert key ca"),
    ("otel", "socketPath"),
    ("cdi", "disabled specDirs autoAllowed"),
    ("history", "maxAge maxEntries"),
    ("dns", "nameservers options searchDomains"),
    ("worker", "oci containerd"),
    ("worker.oci", WORKER),
    ("worker.containerd", WORKER),
    ("registry", "*"),
    ("registry.*", "mirrors http insecure ca keypair tlsconfigdir"),
    ("frontend", "*"),
    ("frontend.*", "enabled allowedRepositories"),
    ("system", "platformsCacheMaxAge maxRegistryConcurrency"),
];

impl DaemonConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        let doing = || format!("cannot use the configuration `{}`", path.display());
        let text = std::fs::read_to_string(path)
            .map_err(|error| Diagnostic::new(ErrorKind::Environment, doing()).cause(error.to_string()))?;
        Self::parse(&text).map_err(|reason| Diagnostic::new(ErrorKind::User, doing()).cause(reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let mut config = Self::default();
        find_unknown("", &table, &mut config.unknown);
        let at = |path: &[&str]| {
            let mut value: Option<&Value> = None;
            for (depth, key) in path.iter().enumerate() {
                value = match depth {
                    0 => table.get(*key),
                    _ => value.and_then(|value| value.get(*key)),
                };
            }
            value
        };
        let text = |path: &[&str]| at(path).and_then(Value::as_str).map(str::to_owned);
        let flag = |path: &[&str]| at(path).and_then(Value::as_bool);
        let list = |path: &[&str]| -> Vec<String> {
            let values = at(path).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        config.root = text(&["root"]).map(PathBuf::from);
        config.debug = flag(&["debug"]).unwrap_or_default();
        config.addresses = list(&["grpc", "address"]);
        config.gid = at(&["grpc", "gid"]).and_then(Value::as_integer).and_then(|gid| gid.try_into().ok());
        if let (Some(certificate), Some(key)) =
            (text(&["grpc", "tls", "cert"]), text(&["grpc", "tls", "key"]))
        {
            config.tls = Some(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
                client_authority: text(&["grpc", "tls", "ca"]).map(PathBuf::from),
            });
        }
        for name in list(&["insecure-entitlements"]) {
            config.allow(&name)?;
        }
        if let Some(labels) = at(&["worker", "oci", "labels"]).and_then(Value::as_table) {
            let labels =
                labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            config.labels.extend(labels);
        }
        let parallelism = at(&["worker", "oci", "max-parallelism"]).and_then(Value::as_integer);
        config.max_parallelism = parallelism.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        config.gc = flag(&["worker", "oci", "gc"]).unwrap_or(true);
        Ok(config)
    }

    /// Lets builds have an entitlement.
    pub fn allow(&mut self, name: &str) -> Result<(), String> {
        self.entitlements.insert(name.parse()?);
        Ok(())
    }
}

fn find_unknown(path: &str, table: &Table, unknown: &mut Vec<String>) {
    let Some(known) = known_keys(path) else { return };
    for (key, value) in table {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if known != "*" && !known.split_whitespace().any(|known| known == key) {
            unknown.push(inner);
        } else if let Value::Table(table) = value {
            find_unknown(&inner, table, unknown);
        }
    }
}

/// Returns the keys of a table; `None` if anything goes.
fn known_keys(path: &str) -> Option<&'static str> {
    let of = |path: &str| KNOWN.iter().find(|(known, _)| *known == path).map(|(_, keys)| *keys);
    of(path).or_else(|| match path.split_once('.') {
        Some((first @ ("registry" | "frontend"), _)) => of(&format!("{first}.*")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_reference_and_others_are_told() {
        let config = DaemonConfig::parse(
            r#"
            root = "/r"
            insecure-entitlements = ["network.host"]
            colour = "red"
            [grpc]
            address = ["unix:///a", "tcp://b:1"]
            [grpc.tls]
            cert = "c"
            key = "k"
            [worker.oci]
            gc = false
            max-parallelism = 3
            shape = 1
            [worker.oci.labels]
            any = "thing"
            [registry."docker.io"]
            mirrors = ["m"]
            "#,
        )
        .unwrap();
        assert_eq!(config.root, Some(PathBuf::from("/r")));
        assert_eq!(config.addresses, ["unix:///a", "tcp://b:1"]);
        assert_eq!(config.unknown, ["colour", "worker.oci.shape"]);
        assert_eq!((config.gc, config.max_parallelism), (false, Some(3)));
        assert!(config.entitlements.contains(&Entitlement::NetworkHost) && config.tls.is_some());
        assert!(DaemonConfig::parse("insecure-entitlements = [\"x\"]").is_err());
        assert!(DaemonConfig::parse("= 1").is_err());
    }
}
