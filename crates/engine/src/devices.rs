//! Devices of the machine that steps may have, as files of the [Container Device Interface] describe them.
//!
//! Owns the files' meaning and who may ask for a device; mounting is the runtime's. The files are read whenever
//! somebody asks, so one that is added, as by the driver's own program, counts from then on. What a description wants
//! and no step can have here (hooks, network devices, Intel RDT) is refused, never left out.
//!
//! [Container Device Interface]: https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;
use serde::Deserialize;
use serde::de::IgnoredAny;
use slipway_model::llb::pb;
use slipway_model::solve::{DeviceGrant, Entitlement};
use slipway_model::{Diagnostic, ErrorKind};
use slipway_runtime::{Mount, MountSource};

/// Where descriptions are, the least important first.
const DIRECTORIES: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

/// The annotation that puts devices of several kinds in one class, by which a step can ask for all of them.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// The annotation of a device that needs no grant.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// The devices of this machine.
#[derive(Clone, Debug)]
pub struct Devices {
    pub(crate) directories: Vec<PathBuf>,
    /// Devices, or kinds of them, that need no grant.
    pub(crate) auto_allowed: BTreeSet<String>,
}

/// One device, known by its whole name, as `vendor.com/gpu=0`.
#[derive(Clone, Debug)]
pub struct Device {
    pub name: String,
    /// Steps get it without a grant.
    pub auto_allowed: bool,
    pub annotations: BTreeMap<String, String>,
    file: Arc<PathBuf>,
    /// Those of the file, that every device in it shares.
    shared: Arc<Edits>,
    own: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, Text>,
    #[serde(default)]
    devices: Vec<Described>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, Text>,
    #[serde(default)]
    container_edits: Edits,
}

/// A text that may be written without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Flag(bool),
    Number(i64),
    Quoted(String),
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Flag(flag) => flag.to_string(),
            Text::Number(number) => number.to_string(),
            Text::Quoted(text) => text,
        }
    }
}

/// What a container with a device is to have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<DeviceMount>,
    additional_gids: Vec<u32>,
    hooks: Vec<Hook>,
    net_devices: Vec<IgnoredAny>,
    intel_rdt: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    host_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Hook {
    #[serde(default)]
    path: String,
}

/// What devices add to a step.
#[derive(Debug, Default)]
pub(crate) struct Additions {
    pub(crate) env: Vec<String>,
    pub(crate) groups: Vec<u32>,
    pub(crate) mounts: Vec<Mount>,
}

impl Default for Devices {
    fn default() -> Self {
        Self { directories: DIRECTORIES.iter().map(PathBuf::from).collect(), auto_allowed: BTreeSet::new() }
    }
}

impl Devices {
    /// Looks for descriptions in other directories, the most important last; in none there are no devices.
    pub fn look_in(&mut self, directories: Vec<PathBuf>) {
        self.directories = directories;
    }

    /// Tells whether no device is ever given.
    pub fn is_disabled(&self) -> bool {
        self.directories.is_empty()
    }

    /// Lists the devices that are described now, by name.
    ///
    /// A directory replaces what those before it say of a device. One that two files of a directory describe is not
    /// there, since nobody knows what it is.
    pub fn list(&self) -> Vec<Device> {
        let mut known: BTreeMap<String, Device> = BTreeMap::new();
        for directory in &self.directories {
            let mut here: BTreeMap<String, Option<Device>> = BTreeMap::new();
            for file in files(directory) {
                match self.read(&file) {
                    Ok(devices) => {
                        for device in devices {
                            let entry = here.entry(device.name.clone());
                            entry.and_modify(|known| *known = None).or_insert(Some(device));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(file = %file.display(), error, "a device description is not used")
                    }
                }
            }
            for (name, device) in here {
                match device {
                    Some(device) => drop(known.insert(name, device)),
                    None => {
                        tracing::warn!(name, directory = %directory.display(), "a device is described twice");
                        known.remove(&name);
                    }
                }
            }
        }
        known.into_values().collect()
    }

    fn read(&self, file: &Path) -> Result<Vec<Device>, String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        // JSON is YAML.
        let description: Description = yaml_serde::from_str(&text).map_err(|error| error.to_string())?;
        let Description { kind, annotations, devices, container_edits } = description;
        if !is_kind(&kind) {
            return Err(format!("`{kind}` is no kind of devices, as `vendor.com/class` is"));
        }
        let common: BTreeMap<String, String> =
            annotations.into_iter().map(|(key, value)| (key, value.into())).collect();
        let (shared, file) = (Arc::new(container_edits), Arc::new(file.to_owned()));
        let device = |described: Described| {
            if described.name.is_empty() || !described.name.chars().all(|c| is_word(c) || c == ':') {
                return Err(format!("`{}` is no name of a device", described.name));
            }
            let mut annotations = common.clone();
            annotations.extend(described.annotations.into_iter().map(|(key, value)| (key, value.into())));
            let name = format!("{kind}={}", described.name);
            let auto_allowed = self.auto_allowed.contains(&name)
                || self.auto_allowed.contains(&kind)
                || annotations.get(AUTO_ALLOW).is_some_and(|value| {
                    matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
                });
            let (file, shared) = (file.clone(), shared.clone());
            Ok(Device { name, auto_allowed, annotations, file, shared, own: described.container_edits })
        };
        devices.into_iter().map(device).collect()
    }

    /// Finds the devices that a step asks for, all of which it may have.
    pub(crate) fn resolve(
        &self,
        wanted: &[pb::CdiDevice],
        granted: &BTreeSet<Entitlement>,
    ) -> Result<Vec<Device>, Diagnostic> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.list();
        let grants = || {
            granted.iter().filter_map(|entitlement| match entitlement {
                Entitlement::Device(grant) => Some(grant),
                Entitlement::NetworkHost | Entitlement::SecurityInsecure => None,
            })
        };
        let mut allowed: BTreeSet<&str> = BTreeSet::new();
        for grant in grants() {
            match grant {
                DeviceGrant::All => allowed.extend(all.iter().map(|device| device.name.as_str())),
                DeviceGrant::Named { name, .. } => {
                    allowed.extend(find(&all, name).into_iter().map(|device| device.name.as_str()));
                }
            }
        }
        let mut found: Vec<Device> = Vec::new();
        let mut forbidden = Vec::new();
        for asked in wanted {
            let alias = grants().find_map(|grant| match grant {
                DeviceGrant::Named { name, alias: Some(alias) } if *alias == asked.name => Some(name),
                _ => None,
            });
            let name = alias.unwrap_or(&asked.name);
            let devices = find(&all, name);
            if devices.is_empty() && !asked.optional {
                return Err(missing(name, &all));
            }
            for device in devices {
                if !device.auto_allowed && !allowed.contains(device.name.as_str()) {
                    forbidden.push(device.name.clone());
                } else if found.iter().all(|known| known.name != device.name) {
                    found.push(device.clone());
                }
            }
        }
        let (subject, verb) = match forbidden.as_slice() {
            [] => return Ok(found),
            [only] => (format!("device {only}"), "is"),
            several => (format!("devices {}", several.join(", ")), "are"),
        };
        let message = format!("{subject} {verb} requested by the build but not allowed");
        Err(Diagnostic::new(ErrorKind::User, message)
            .hint(format!("grant it with `--allow device={}`", forbidden.join("` and `--allow device="))))
    }
}

fn missing(name: &str, all: &[Device]) -> Diagnostic {
    let diagnostic = Diagnostic::new(ErrorKind::User, format!("required device {name:?} is not registered"));
    let names: Vec<String> = all.iter().map(|device| format!("`{}`", device.name)).collect();
    match names.as_slice() {
        [] => diagnostic.hint(format!("devices are described by files in {}", DIRECTORIES.join(", "))),
        names => diagnostic.hint(format!("the devices of this machine are {}", names.join(", "))),
    }
}

/// Finds the devices of a name: one, the first of a kind, all of a kind (`kind=*`), or those of a class.
fn find<'a>(all: &'a [Device], wanted: &str) -> Vec<&'a Device> {
    let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
    let mut of_kind = all.iter().filter(|device| device.name.split('=').next() == Some(kind));
    let found: Vec<&Device> = match name {
        "" => of_kind.next().into_iter().collect(),
        "*" => of_kind.collect(),
        _ => of_kind.filter(|device| device.name == wanted).collect(),
    };
    if !found.is_empty() {
        return found;
    }
    all.iter().filter(|device| device.annotations.get(CLASS).is_some_and(|class| class == wanted)).collect()
}

/// Puts together what a step gets with its devices.
pub(crate) fn additions(devices: &[Device]) -> Result<Additions, Diagnostic> {
    let mut additions = Additions::default();
    let mut files: Vec<&Path> = Vec::new();
    for device in devices {
        if !files.contains(&device.file.as_path()) {
            files.push(&device.file);
            additions.add(device, &device.shared)?;
        }
        additions.add(device, &device.own)?;
    }
    Ok(additions)
}

impl Additions {
    fn add(&mut self, device: &Device, edits: &Edits) -> Result<(), Diagnostic> {
        let hooks: Vec<String> = edits.hooks.iter().map(|hook| format!("`{}`", hook.path)).collect();
        if !hooks.is_empty() {
            return Err(device.refused(format!("it wants programs of the host run as hooks: {}", hooks.join(", "))).hint(
                "describe the device without hooks in a file of `/etc/buildkit/cdi`, which comes before others",
            ));
        }
        if !edits.net_devices.is_empty() || edits.intel_rdt.is_some() {
            return Err(device.refused("it wants network devices or Intel RDT".to_owned()));
        }
        self.env.extend(edits.env.iter().cloned());
        self.groups.extend(edits.additional_gids.iter().filter(|group| **group != 0));
        for node in &edits.device_nodes {
            self.mounts.push(node.mount(device)?);
        }
        for mount in &edits.mounts {
            self.mounts.push(mount.mount(device)?);
        }
        Ok(())
    }
}

impl Device {
    fn refused(&self, why: String) -> Diagnostic {
        Diagnostic::new(ErrorKind::Environment, format!("cannot give the device `{}` to a step", self.name))
            .cause(why)
            .cause(format!("so says `{}`", self.file.display()))
    }
}

impl DeviceNode {
    fn mount(&self, device: &Device) -> Result<Mount, Diagnostic> {
        let host = self.host_path.as_deref().unwrap_or(Path::new(&self.path));
        let failed = |errno: rustix::io::Errno| {
            device.refused(format!("`{}`: {}", host.display(), std::io::Error::from(errno)))
        };
        let kind = FileType::from_raw_mode(rustix::fs::stat(host).map_err(failed)?.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) {
            return Err(device.refused(format!("`{}` is no device", host.display())));
        }
        let source = match MountSource::host_path(host).map_err(failed)? {
            MountSource::Detached(node) => MountSource::Device(node),
            source => source,
        };
        Ok(Mount { destination: self.path.clone(), source, readonly: false })
    }
}

impl DeviceMount {
    fn mount(&self, device: &Device) -> Result<Mount, Diagnostic> {
        if !matches!(self.kind.as_str(), "" | "bind" | "none") {
            return Err(device.refused(format!("it wants a mount of the type `{}`", self.kind)));
        }
        let source = MountSource::host_path(&self.host_path).map_err(|errno| {
            device.refused(format!("`{}`: {}", self.host_path.display(), std::io::Error::from(errno)))
        })?;
        let readonly = self.options.iter().any(|option| option == "ro");
        Ok(Mount { destination: self.container_path.clone(), source, readonly })
    }
}

/// Lists the descriptions in a directory, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_description =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json" || extension == "yaml");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_description).collect();
    files.sort();
    files
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_kind(kind: &str) -> bool {
    let part =
        |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_word);
    kind.split_once('/').is_some_and(|(vendor, class)| part(vendor) && part(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPUS: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/gpu
annotations:
  org.mobyproject.buildkit.device.class: gpus
containerEdits:
  env: [SHARED=1]
devices:
- name: "1"
  containerEdits: { env: [ONE=1], additionalGids: [0, 44] }
- name: "0"
  annotations: { org.mobyproject.buildkit.device.autoallow: true }
  containerEdits:
    env: [ZERO=1]
    deviceNodes: [{ path: /dev/gpu0, hostPath: /dev/null }]
    mounts: [{ hostPath: /proc, containerPath: /opt/lib, options: [ro, bind] }]
"#;

    fn described(files: &[(&str, &str)]) -> (tempfile::TempDir, Devices) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let directories = ["low", "high"].map(|name| directory.path().join(name)).to_vec();
        let auto_allowed = BTreeSet::from(["other.com/net".to_owned()]);
        (directory, Devices { directories, auto_allowed })
    }

    fn names(devices: &[Device]) -> Vec<&str> {
        devices.iter().map(|device| device.name.as_str()).collect()
    }

    fn ask(name: &str) -> pb::CdiDevice {
        pb::CdiDevice { name: name.to_owned(), optional: false }
    }

    fn granted(names: &[&str]) -> BTreeSet<Entitlement> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn devices_are_found_by_name_kind_and_class() {
        let json =
            r#"{"cdiVersion":"0.5.0","kind":"other.com/net","devices":[{"name":"a","containerEdits":{}}]}"#;
        let (_directory, devices) =
            described(&[("low/gpu.yaml", GPUS), ("high/net.json", json), ("low/x.txt", "{")]);
        assert_eq!(names(&devices.list()), ["other.com/net=a", "vendor.com/gpu=0", "vendor.com/gpu=1"]);
        let every = granted(&["device"]);
        let found = |name: &str| devices.resolve(&[ask(name)], &every).map(|found| names(&found).join(" "));
        assert_eq!(found("vendor.com/gpu").unwrap(), "vendor.com/gpu=0");
        assert_eq!(found("vendor.com/gpu=1").unwrap(), "vendor.com/gpu=1");
        assert_eq!(found("vendor.com/gpu=*").unwrap(), "vendor.com/gpu=0 vendor.com/gpu=1");
        assert_eq!(found("gpus").unwrap(), "vendor.com/gpu=0 vendor.com/gpu=1");
        let error = found("vendor.com/gpu=2").unwrap_err();
        assert_eq!(error.message, "required device \"vendor.com/gpu=2\" is not registered");
        let optional = pb::CdiDevice { optional: true, ..ask("nobody.com/thing") };
        assert!(devices.resolve(&[optional], &every).unwrap().is_empty());
    }

    #[test]
    fn a_device_is_given_to_who_may_have_it() {
        let json = r#"{"kind":"other.com/net","devices":[{"name":"a"}]}"#;
        let (_directory, devices) = described(&[("low/gpu.yaml", GPUS), ("low/net.json", json)]);
        let may = |name: &str, grants: &[&str]| devices.resolve(&[ask(name)], &granted(grants)).is_ok();
        assert!(may("vendor.com/gpu=0", &[]), "its annotation says so");
        assert!(may("other.com/net=a", &[]), "the configuration says so");
        assert!(!may("vendor.com/gpu=1", &[]) && !may("vendor.com/gpu=*", &["network.host"]));
        assert!(
            may("vendor.com/gpu=1", &["device"]) && may("vendor.com/gpu=1", &["device=vendor.com/gpu=1"])
        );
        assert!(!may("vendor.com/gpu=1", &["device=vendor.com/gpu=0"]));
        assert!(may("mine", &["device=vendor.com/gpu=1,alias=mine"]));
        let error = devices.resolve(&[ask("gpus")], &granted(&[])).unwrap_err();
        assert_eq!(error.message, "device vendor.com/gpu=1 is requested by the build but not allowed");
    }

    #[test]
    fn later_directories_come_first_and_doubles_are_nobodys() {
        let one = |value: &str| {
            format!(
                "kind: v.com/d\ndevices: [{{ name: a, containerEdits: {{ env: [\"FROM={value}\"] }} }}]\n"
            )
        };
        let (low, high) = (one("low"), one("high"));
        let (directory, devices) = described(&[("low/a.yaml", &low), ("high/b.yaml", &high)]);
        let env = || additions(&devices.list()).unwrap().env;
        assert_eq!(env(), ["FROM=high"]);
        std::fs::write(directory.path().join("high/c.yaml"), &low).unwrap();
        assert!(env().is_empty(), "two files of one directory");
        std::fs::write(directory.path().join("high/c.yaml"), "kind: nonsense").unwrap();
        assert_eq!(env(), ["FROM=high"], "a file that is wrong is left out");
    }

    #[test]
    fn what_a_step_gets_is_put_together_and_hooks_are_refused() {
        let (_directory, devices) = described(&[("low/gpu.yaml", GPUS)]);
        let all = devices.list();
        let got = additions(&all).unwrap();
        assert_eq!(got.env, ["SHARED=1", "ZERO=1", "ONE=1"]);
        assert_eq!(got.groups, [44]);
        let mounts: Vec<(&str, bool)> =
            got.mounts.iter().map(|mount| (mount.destination.as_str(), mount.readonly)).collect();
        assert_eq!(mounts, [("/dev/gpu0", false), ("/opt/lib", true)]);
        assert!(matches!(got.mounts[0].source, MountSource::Device(_)));
        for wanted in [
            "hooks: [{ hookName: createContainer, path: /usr/bin/hook }]",
            "intelRdt: { closID: x }",
            "deviceNodes: [{ path: /etc/passwd }]",
            "deviceNodes: [{ path: /dev/nothing-like-it }]",
            "mounts: [{ hostPath: x, containerPath: /x, type: tmpfs }]",
        ] {
            let text = format!("kind: v.com/d\ndevices: [{{ name: a, containerEdits: {{ {wanted} }} }}]\n");
            let (_directory, devices) = described(&[("low/a.yaml", &text)]);
            let error = additions(&devices.list()).unwrap_err();
            assert!(error.to_string().contains("v.com/d=a"), "{error}");
        }
    }
}
