//! The keys of `buildkitd.toml`, and which of them change nothing.
//!
//! A key is told of if somebody could rely on it: what means what is so anyway is not, nor what only a daemon does
//! when no daemon reads the files.

use toml::{Table, Value};

use Told::{Daemon, Everyone, Nobody, OneBuild};

/// Who reads the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A process that builds and ends.
    Build,
    Daemon,
}

/// A key that changes nothing.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) name: String,
    /// BuildKit has such a key.
    pub(super) is_known: bool,
}

/// Whom a key has to be told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It does what it says, or is for the daemon, which does it.
    Nobody,
    /// The daemon does what it says.
    OneBuild,
    /// It is for a daemon, and this one does not do it.
    Daemon,
    Everyone,
}

/// Tables with their keys; `*` is any name.
const KEYS: &[(&str, Told, &str)] = &[
    ("", Nobody, "debug trace insecure-entitlements provenanceEnvDir proxyNetwork"),
    ("", OneBuild, "root"),
    ("", Everyone, "cache ghacache"),
    ("log", Nobody, "format level"),
    ("grpc", Nobody, "address uid gid"),
    ("grpc", Daemon, "debugAddress securityDescriptor"),
    ("grpc.tls", Nobody, "cert key ca"),
    ("otel", Daemon, "socketPath"),
    ("cdi", Nobody, "disabled specDirs autoAllowed"),
    ("history", Nobody, "maxAge maxEntries"),
    ("dns", Nobody, "nameservers options searchDomains"),
    ("system", Nobody, "platformsCacheMaxAge maxRegistryConcurrency"),
    ("registry.*", Nobody, "mirrors http insecure ca tlsconfigdir"),
    ("registry.*.keypair", Nobody, "key cert"),
    ("frontend.*", Nobody, "enabled allowedRepositories"),
    ("worker", Everyone, "containerd"),
    ("worker.oci", Nobody, "rootless gc gckeepstorage reservedSpace maxUsedSpace minFreeSpace"),
    ("worker.oci", Nobody, "platforms max-parallelism defaultCgroupParent networkMode"),
    ("worker.oci", Everyone, "enabled snapshotter noProcessSandbox userRemapUnsupported binary"),
    ("worker.oci", Everyone, "proxySnapshotterPath stargzSnapshotter apparmor-profile selinux"),
    ("worker.oci", Everyone, "cniConfigPath cniBinaryPath cniPoolSize bridgeName bridgeSubnet"),
    ("worker.oci.labels", Nobody, "*"),
    (
        "worker.oci.gcpolicy",
        Nobody,
        "all filters keepDuration keepBytes reservedSpace maxUsedSpace minFreeSpace",
    ),
];

/// Values that mean what is so anyway; of other keys it is nothing, nought or false.
const SO_ANYWAY: &[(&str, &[&str])] =
    &[("worker.oci.enabled", &["true"]), ("worker.oci.snapshotter", &["", "auto", "overlayfs"])];

/// Lists the keys of a file that change nothing for `reader`.
pub(super) fn without_effect(table: &Table, reader: Reader) -> Vec<Note> {
    let mut notes = Vec::new();
    visit("", "", table, reader, &mut notes);
    notes
}

/// Looks at the table at `path`, which is called `shown` where it is written.
fn visit(path: &str, shown: &str, table: &Table, reader: Reader, notes: &mut Vec<Note>) {
    for (key, value) in table {
        let name = if path.is_empty() { key.clone() } else { format!("{shown}.{}", quoted(key)) };
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (find(path, key), inner(path, &below)) {
            (Some(told), _) => {
                if is_told(told, reader) && !is_so_anyway(&below, value) {
                    notes.push(Note { name, is_known: true });
                }
            }
            (None, Some(inner)) => {
                for table in tables(value) {
                    visit(&inner, &name, table, reader, notes);
                }
            }
            (None, None) => notes.push(Note { name, is_known: false }),
        }
    }
}

fn find(path: &str, key: &str) -> Option<Told> {
    let has = |keys: &str| keys.split(' ').any(|known| known == "*" || known.eq_ignore_ascii_case(key));
    KEYS.iter()
        .find(|(table, _, keys)| table.eq_ignore_ascii_case(path) && has(keys))
        .map(|(_, told, _)| *told)
}

/// Returns what a table is called in [`KEYS`], if it is there.
fn inner(path: &str, below: &str) -> Option<String> {
    let path = match path {
        "registry" | "frontend" => format!("{path}.*"),
        _ => below.to_owned(),
    };
    let begins = |table: &str| {
        let table = table.to_ascii_lowercase();
        table
            .strip_prefix(&path.to_ascii_lowercase())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    KEYS.iter().any(|(table, ..)| begins(table)).then_some(path)
}

fn is_told(told: Told, reader: Reader) -> bool {
    match told {
        Nobody => false,
        OneBuild => reader == Reader::Build,
        Daemon => reader == Reader::Daemon,
        Everyone => true,
    }
}

fn is_so_anyway(path: &str, value: &Value) -> bool {
    if let Some((_, values)) = SO_ANYWAY.iter().find(|(key, _)| key.eq_ignore_ascii_case(path)) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return values.contains(&text.as_str());
    }
    match value {
        Value::Boolean(on) => !on,
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Array(values) => values.is_empty(),
        // A worker that is off.
        Value::Table(table) => {
            table.is_empty() || table.get("enabled").and_then(Value::as_bool) == Some(false)
        }
        _ => false,
    }
}

/// Lists the tables of a value; of an array those in it.
fn tables(value: &Value) -> Vec<&Table> {
    match value {
        Value::Table(table) => vec![table],
        Value::Array(values) => values.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    }
}

fn quoted(key: &str) -> String {
    if key.contains('.') { format!("\"{key}\"") } else { key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::files;
    use super::*;

    #[test]
    fn what_has_no_effect_is_named() {
        let found = files(&[r#"
            debug = true
            root = "/x"
            registeries = 1
            [grpc]
              address = ["unix:///x"]
              debugAddress = "127.0.0.1:6060"
            [dns]
              nameservers = ["1.1.1.1"]
              server = "1.1.1.1"
            [worker.oci]
              enabled = true
              snapshotter = "native"
              selinux = false
              apparmor-profile = "strict"
              max-parallelism = 3
              gc = false
              max-paralelism = 4
              [worker.oci.labels]
                any = "thing"
              [[worker.oci.gcpolicy]]
                keep = "48h"
            [worker.containerd]
              enabled = false
            [registry."docker.io"]
              mirrors = ["m"]
              mirror = "m"
        "#]);
        let everyone = [
            "`dns.server` in `0.toml` is unknown and has no effect",
            "`registeries` in `0.toml` is unknown and has no effect",
            "`registry.\"docker.io\".mirror` in `0.toml` is unknown and has no effect",
            "`worker.oci.apparmor-profile` in `0.toml` has no effect",
            "`worker.oci.gcpolicy.keep` in `0.toml` is unknown and has no effect",
            "`worker.oci.max-paralelism` in `0.toml` is unknown and has no effect",
            "`worker.oci.snapshotter` in `0.toml` has no effect",
        ];
        let with = |one: &'static str, at: usize| {
            let mut all = everyone.to_vec();
            all.insert(at, one);
            all
        };
        assert_eq!(found.notes(Reader::Build), with("`root` in `0.toml` has no effect", 3));
        assert_eq!(found.notes(Reader::Daemon), with("`grpc.debugAddress` in `0.toml` has no effect", 1));
    }

    #[test]
    fn a_worker_that_is_not_there_is_told_unless_it_is_off() {
        let notes = |text| files(&[text]).notes(Reader::Daemon);
        assert_eq!(
            notes("[worker.containerd]\nenabled = true\ngc = true"),
            ["`worker.containerd` in `0.toml` has no effect"]
        );
        assert!(notes("[worker.containerd]\nenabled = false").is_empty());
        assert_eq!(notes("[worker.oci]\nenabled = false").len(), 1, "there is no other");
    }
}
