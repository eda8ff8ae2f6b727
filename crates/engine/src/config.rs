//! What `buildkitd.toml` says beside registries: how much runs at once, and what of it has no effect here.
//!
//! A key that changes nothing is named once, when the engine is opened, so that nobody relies on it. The
//! registries' part is read by `slipway_registry`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use slipway_model::{Diagnostic, ErrorKind};
use toml::{Table, Value};

use crate::devices::Devices;

/// Members of the file that a daemon needs and one process does not, or that mean what is so anyway.
const NEEDLESS: &[&str] = &["debug", "trace", "log", "grpc", "otel", "history", "insecure-entitlements"];

/// Members of the file that BuildKit knows and slipway does not honour.
const WITHOUT_EFFECT: &[&str] = &["root", "proxyNetwork", "dns", "frontend", "system", "cache"];

/// Members of `[worker.oci]` that BuildKit knows and slipway does not honour.
const WORKER_WITHOUT_EFFECT: &[&str] = &[
    "labels",
    "platforms",
    "snapshotter",
    "noProcessSandbox",
    "gc",
    "gckeepstorage",
    "reservedSpace",
    "maxUsedSpace",
    "minFreeSpace",
    "gcpolicy",
    "networkMode",
    "cniConfigPath",
    "cniBinaryPath",
    "cniPoolSize",
    "bridgeName",
    "bridgeSubnet",
    "userRemapUnsupported",
    "binary",
    "proxySnapshotterPath",
    "defaultCgroupParent",
    "stargzSnapshotter",
    "apparmor-profile",
    "selinux",
];

/// Members of `[worker.oci]` that are as slipway is.
const WORKER_NEEDLESS: &[&str] = &["enabled", "rootless"];

/// Members of `[registry."host"]`, which are all honoured.
const REGISTRY: &[&str] = &["mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir"];

/// Where the owner of a machine puts what every provenance is to say of it.
const PROVENANCE_ENVIRONMENT: &str = "/etc/buildkit/provenance.d";

/// What the files say.
#[derive(Debug, Default)]
pub(crate) struct WorkerConfig {
    /// How many steps run at once; 0 is no limit.
    pub(crate) max_parallelism: Option<usize>,
    /// What every provenance says of this machine.
    pub(crate) provenance_environment: Map<String, Json>,
    /// `[cdi]`.
    pub(crate) devices: Devices,
    /// What is written and changes nothing.
    pub(crate) notes: Vec<String>,
}

impl WorkerConfig {
    /// Reads the files that are there, the most important first.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, Diagnostic> {
        let mut config = Self::default();
        let mut environment = None;
        for path in paths {
            // The registries' part has been read from the same files: what cannot be read was told, or is not ours.
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let Ok(table) = text.parse::<Table>() else { continue };
            if let Some(directory) = table.get("provenanceEnvDir").and_then(Value::as_str) {
                environment.get_or_insert_with(|| PathBuf::from(directory));
            }
            config.add(path, &table)?;
        }
        let environment = environment.unwrap_or_else(|| PathBuf::from(PROVENANCE_ENVIRONMENT));
        config.provenance_environment = provenance_environment(&environment)?;
        Ok(config)
    }

    fn add(&mut self, path: &Path, table: &Table) -> Result<(), Diagnostic> {
        for (key, value) in table {
            match (key.as_str(), value) {
                ("registry", Value::Table(hosts)) => {
                    for (host, value) in hosts {
                        let members = value.as_table().into_iter().flat_map(Table::keys);
                        for member in members.filter(|member| !REGISTRY.contains(&member.as_str())) {
                            self.note(path, &format!("registry.\"{host}\".{member}"), false);
                        }
                    }
                }
                ("worker", Value::Table(workers)) => self.add_workers(path, workers)?,
                ("cdi", Value::Table(members)) => self.add_devices(path, members),
                ("provenanceEnvDir", Value::String(_)) => {}
                (key, _) if NEEDLESS.contains(&key) => {}
                (key, value) => self.note_member(path, key, value, WITHOUT_EFFECT),
            }
        }
        Ok(())
    }

    fn add_devices(&mut self, path: &Path, members: &Table) {
        let texts = |value: &Value| {
            let values = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        for (key, value) in members {
            match key.as_str() {
                "disabled" if value.as_bool() == Some(true) => self.devices.directories.clear(),
                "disabled" => {}
                "specDirs" if self.devices.is_disabled() => {}
                "specDirs" => {
                    self.devices.directories = texts(value).into_iter().map(PathBuf::from).collect()
                }
                "autoAllowed" => self.devices.auto_allowed.extend(texts(value)),
                key => self.note(path, &format!("cdi.{key}"), false),
            }
        }
    }

    fn add_workers(&mut self, path: &Path, workers: &Table) -> Result<(), Diagnostic> {
        for (kind, worker) in workers {
            let Some(members) = worker.as_table().filter(|_| kind == "oci") else {
                let off = worker.get("enabled").and_then(Value::as_bool) == Some(false);
                if kind != "containerd" || !off {
                    self.note(path, &format!("[worker.{kind}]"), kind == "containerd");
                }
                continue;
            };
            for (key, value) in members {
                match key.as_str() {
                    "max-parallelism" => {
                        let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
                        let number = number.ok_or_else(|| {
                            let message =
                                format!("invalid `worker.oci.max-parallelism` in `{}`", path.display());
                            Diagnostic::new(ErrorKind::User, message).hint(
                                "write a number of steps, as in `max-parallelism = 4`, or 0 for no limit",
                            )
                        })?;
                        self.max_parallelism.get_or_insert(number);
                    }
                    key if WORKER_NEEDLESS.contains(&key) => {}
                    key => {
                        let known = WORKER_WITHOUT_EFFECT.contains(&key);
                        self.note(path, &format!("worker.oci.{key}"), known);
                    }
                }
            }
        }
        Ok(())
    }

    fn note_member(&mut self, path: &Path, key: &str, value: &Value, known: &[&str]) {
        let shown = if value.is_table() { format!("[{key}]") } else { key.to_owned() };
        self.note(path, &shown, known.contains(&key));
    }

    fn note(&mut self, path: &Path, name: &str, known: bool) {
        let path = path.display();
        self.notes.push(match known {
            true => format!("`{name}` in `{path}` has no effect"),
            false => format!("`{name}` in `{path}` is unknown and has no effect"),
        });
    }
}

/// Reads the JSON files of a directory, in order of their names, as one object.
fn provenance_environment(directory: &Path) -> Result<Map<String, Json>, Diagnostic> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(Map::new()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut all = Map::new();
    for path in files {
        let failed = |cause: String| {
            let message = format!("cannot read the provenance environment `{}`", path.display());
            Diagnostic::new(ErrorKind::User, message)
                .cause(cause)
                .hint("each file holds one JSON object, as `{\"site\": \"eu-1\"}`")
        };
        let text = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
        all.extend(serde_json::from_slice::<Map<String, Json>>(&text).map_err(|e| failed(e.to_string()))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<WorkerConfig, Diagnostic> {
        let mut config = WorkerConfig::default();
        config.add(Path::new("b.toml"), &text.parse().unwrap()).map(|()| config)
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let config = read(
            r#"
            debug = true
            root = "/x"
            registeries = 1
            [grpc]
              address = ["unix:///x"]
            [dns]
              nameservers = ["1.1.1.1"]
            [worker.oci]
              enabled = true
              max-parallelism = 3
              gc = false
              max-paralelism = 4
            [worker.containerd]
              enabled = false
            [registry."docker.io"]
              mirrors = ["m"]
              mirror = "m"
            "#,
        )
        .unwrap();
        assert_eq!(config.max_parallelism, Some(3));
        assert_eq!(
            config.notes,
            [
                "`[dns]` in `b.toml` has no effect",
                "`registeries` in `b.toml` is unknown and has no effect",
                "`registry.\"docker.io\".mirror` in `b.toml` is unknown and has no effect",
                "`root` in `b.toml` has no effect",
                "`worker.oci.gc` in `b.toml` has no effect",
                "`worker.oci.max-paralelism` in `b.toml` is unknown and has no effect",
            ]
        );
        assert_eq!(
            read("[worker.containerd]\nenabled = true").unwrap().notes,
            ["`[worker.containerd]` in `b.toml` has no effect"]
        );
    }

    #[test]
    fn a_limit_that_is_none_is_an_error() {
        for text in ["-1", "\"4\"", "1.5"] {
            let error = read(&format!("[worker.oci]\nmax-parallelism = {text}")).unwrap_err();
            assert!(error.message.contains("max-parallelism") && error.hint.is_some(), "{error:?}");
        }
    }
}
