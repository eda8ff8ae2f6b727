//! What `buildkitd.toml` says: how builds run, what is kept, which frontends there are.
//!
//! [`ConfigFiles`] is the file as it is written, and names what of it changes nothing. What only a daemon needs is
//! read from it by the daemon; how registries are spoken to is read by `slipway_registry`.

mod files;
mod gc;
mod keys;
mod provenance;
mod resolv_conf;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value as Json};
use slipway_model::{Diagnostic, ErrorKind, Platform, Reference};
use slipway_registry::{ConfigPaths, RegistryConfig};

pub use files::{ConfigFiles, Entry, Section};
pub use gc::GcConfig;
pub use keys::Reader;
pub use resolv_conf::DnsConfig;

use crate::devices::Devices;
use crate::error::Context as _;

/// What the files say of builds.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub registries: RegistryConfig,
    /// How many blobs move at once between us and one registry.
    pub registry_concurrency: Option<usize>,
    /// How many steps run at once; 0 is no limit.
    pub max_parallelism: Option<usize>,
    pub gc: GcConfig,
    pub dns: DnsConfig,
    pub history: HistoryLimits,
    pub network: StepNetwork,
    /// Steps of every build reach the network through a proxy only.
    pub proxy_network: bool,
    /// The control group below which every step is that names no other.
    pub cgroup_parent: Option<String>,
    /// What the worker is told apart by.
    pub labels: BTreeMap<String, String>,
    /// The platforms that are said to run here, instead of those that do.
    pub platforms: Vec<Platform>,
    pub frontends: FrontendConfig,
    /// The devices that steps may be given.
    pub devices: Devices,
    /// For how long what was found out about the machine holds; `None` is for ever.
    pub platforms_max_age: Option<Duration>,
    /// What every provenance says of this machine.
    pub provenance_environment: Map<String, Json>,
    /// What is written and not done here, beside keys that change nothing.
    pub notes: Vec<String>,
}

/// The network of steps that ask for none in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    #[default]
    Host,
    None,
}

/// How many records of builds are kept: the newest, and those that are young.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Among the newest of this many a record stays.
    pub max_entries: usize,
    /// One that is younger stays too.
    pub max_age: Duration,
    /// How much they take together, where nobody has said how many to keep.
    pub max_bytes: Option<u64>,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { max_entries: 100, max_age: Duration::ZERO, max_bytes: Some(256 << 20) }
    }
}

/// Which frontends there are.
#[derive(Clone, Debug, Default)]
pub struct FrontendConfig {
    pub without_dockerfile: bool,
    pub without_gateway: bool,
    /// The repositories whose images may be frontends; any, if there are none.
    pub allowed_repositories: Vec<Reference>,
}

/// Returns the files that are read, the most important first; `named` is one that somebody has named.
///
/// # Errors
/// The file that was named is not there.
pub fn usual_paths(named: Option<PathBuf>) -> Result<ConfigPaths, Diagnostic> {
    let mut paths = ConfigPaths::usual(|name| std::env::var_os(name));
    if let Some(named) = named {
        check_named(&named)?;
        paths.buildkit.insert(0, named);
    }
    Ok(paths)
}

/// A configuration that somebody named has to be there.
fn check_named(path: &Path) -> Result<(), Diagnostic> {
    let found = std::fs::metadata(path).and_then(|found| match found.is_file() {
        true => Ok(()),
        false => Err(std::io::Error::other("it is no file")),
    });
    found.map_err(|error| {
        let message = format!("cannot read the configuration `{}`", path.display());
        Diagnostic::new(ErrorKind::User, message)
            .cause(error.to_string())
            .hint("name a file in the form of `buildkitd.toml` with `--config`, or leave it out")
    })
}

impl Config {
    /// Reads the usual files for one build, and before them one that somebody has named.
    ///
    /// # Errors
    /// A file cannot be read, or says what cannot be.
    pub fn load(named: Option<PathBuf>) -> Result<Self, Diagnostic> {
        let paths = usual_paths(named)?;
        let (mut config, files) = Self::read(&paths)?;
        config.notes.extend(files.notes(Reader::Build));
        Ok(config)
    }

    /// Reads files, and returns them for what else is in them.
    ///
    /// # Errors
    /// A file cannot be read, or says what cannot be.
    pub fn read(paths: &ConfigPaths) -> Result<(Self, ConfigFiles), Diagnostic> {
        let registries =
            RegistryConfig::load(paths).context(|| "cannot use the registry configuration".to_owned())?;
        let files = ConfigFiles::load(&paths.buildkit)?;
        let config = Self { registries, ..Self::of(&files)? };
        Ok((config, files))
    }

    fn of(files: &ConfigFiles) -> Result<Self, Diagnostic> {
        let worker = |key: &str| files.get(&["worker", "oci", key]);
        let count =
            |entry: Entry<'_>| entry.number().map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let mut config = Self {
            gc: GcConfig::of(files)?,
            dns: DnsConfig::of(files)?,
            history: history(files)?,
            frontends: frontends(files)?,
            devices: devices(files)?,
            provenance_environment: provenance::environment(files)?,
            max_parallelism: worker("max-parallelism").map(count).transpose()?,
            ..Self::default()
        };
        if let Some(entry) = files.get(&["system", "maxRegistryConcurrency"]) {
            let number = count(entry.clone())?;
            if number == 0 {
                return Err(entry.wrong("a number that is greater than zero"));
            }
            config.registry_concurrency = Some(number);
        }
        if let Some(entry) = files.get(&["system", "platformsCacheMaxAge"]) {
            config.platforms_max_age = Some(entry.duration()?);
        }
        if let Some(entry) = files.get(&["proxyNetwork"]) {
            config.proxy_network = entry.flag()?;
        }
        if let Some(entry) = worker("defaultCgroupParent") {
            config.cgroup_parent = Some(entry.text()?.to_owned()).filter(|parent| !parent.is_empty());
        }
        if let Some(entry) = worker("platforms") {
            let platform =
                |text: &str| text.parse().map_err(|_| entry.wrong("platforms, as in `[\"linux/arm64\"]`"));
            config.platforms = entry.texts()?.into_iter().map(platform).collect::<Result<_, _>>()?;
        }
        if let Some(entry) = worker("labels") {
            let labels = entry.map()?.into_iter();
            config.labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        }
        if let Some(entry) = worker("networkMode") {
            let (network, note) = step_network(entry.text()?)
                .ok_or_else(|| entry.wrong("`host`, `none` or `auto`: there are no other networks"))?;
            config.network = network;
            config.notes.extend(note);
        }
        Ok(config)
    }
}

/// Reads the name of a network, with what a person has to know of it.
///
/// It is that of a flag of the daemon too.
pub fn step_network(name: &str) -> Option<(StepNetwork, Option<String>)> {
    match name {
        "" | "auto" | "host" => Some((StepNetwork::Host, None)),
        "none" => Some((StepNetwork::None, None)),
        "bridge" | "cni" => {
            let note = format!("there is no network `{name}` here: steps have the network of the host");
            Some((StepNetwork::Host, Some(note)))
        }
        _ => None,
    }
}

fn history(files: &ConfigFiles) -> Result<HistoryLimits, Diagnostic> {
    let age = files.get(&["history", "maxAge"]);
    let entries = files.get(&["history", "maxEntries"]);
    if age.is_none() && entries.is_none() {
        return Ok(HistoryLimits::default());
    }
    let max_entries = entries.map_or(Ok(0), |entry| entry.number())?;
    Ok(HistoryLimits {
        max_entries: usize::try_from(max_entries).unwrap_or(usize::MAX),
        max_age: age.map_or(Ok(Duration::ZERO), |entry| entry.duration())?,
        max_bytes: None,
    })
}

fn frontends(files: &ConfigFiles) -> Result<FrontendConfig, Diagnostic> {
    let off = |name: &str| {
        let entry = files.get(&["frontend", name, "enabled"]);
        entry.map_or(Ok(false), |entry| entry.flag().map(|on| !on))
    };
    let mut frontends = FrontendConfig {
        without_dockerfile: off("dockerfile.v0")?,
        without_gateway: off("gateway.v0")?,
        allowed_repositories: Vec::new(),
    };
    if let Some(entry) = files.get(&["frontend", "gateway.v0", "allowedRepositories"]) {
        let repository = |text: &str| {
            let parsed = text.parse::<Reference>();
            parsed
                .map_err(|_| entry.wrong("names of repositories, as in `[\"docker.io/docker/dockerfile\"]`"))
        };
        frontends.allowed_repositories =
            entry.texts()?.into_iter().map(repository).collect::<Result<_, _>>()?;
    }
    Ok(frontends)
}

fn devices(files: &ConfigFiles) -> Result<Devices, Diagnostic> {
    let texts = |key: &str| files.get(&["cdi", key]).map(|entry| entry.texts()).transpose();
    let mut devices = Devices::default();
    if let Some(directories) = texts("specDirs")?.filter(|directories| !directories.is_empty()) {
        devices.look_in(directories.into_iter().map(PathBuf::from).collect());
    }
    if files.get(&["cdi", "disabled"]).map_or(Ok(false), |entry| entry.flag())? {
        devices.look_in(Vec::new());
    }
    devices.auto_allowed.extend(texts("autoAllowed")?.unwrap_or_default().into_iter().map(str::to_owned));
    Ok(devices)
}

impl FrontendConfig {
    /// Tells whether an image may be a frontend; tags and digests do not count.
    pub(crate) fn allows(&self, image: &Reference) -> bool {
        let same = |allowed: &Reference| allowed.repository() == image.repository();
        self.allowed_repositories.is_empty() || self.allowed_repositories.iter().any(same)
    }
}

#[cfg(test)]
mod tests {
    use super::files::tests::files;
    use super::*;

    fn read(text: &str) -> Result<Config, Diagnostic> {
        Config::of(&files(&[text]))
    }

    #[test]
    fn what_builds_need_is_read() {
        let config = read(
            r#"
            [worker.oci]
              max-parallelism = 3
              platforms = ["linux/arm64"]
              defaultCgroupParent = "builds"
              networkMode = "none"
            [history]
              maxAge = "48h"
              maxEntries = 5
            [system]
              maxRegistryConcurrency = 2
              platformsCacheMaxAge = "1h"
            [cdi]
              specDirs = ["/d"]
              autoAllowed = ["vendor.com/gpu"]
            [frontend."dockerfile.v0"]
              enabled = false
            [frontend."gateway.v0"]
              allowedRepositories = ["example.com/front", "docker/dockerfile"]
            "#,
        )
        .unwrap();
        assert_eq!((config.max_parallelism, config.registry_concurrency), (Some(3), Some(2)));
        assert_eq!(config.platforms, ["linux/arm64".parse().unwrap()]);
        assert_eq!(config.cgroup_parent.as_deref(), Some("builds"));
        assert_eq!(config.network, StepNetwork::None);
        let two_days = Duration::from_secs(48 * 3600);
        let limits = HistoryLimits { max_entries: 5, max_age: two_days, max_bytes: None };
        assert_eq!(config.history, limits);
        assert_eq!(config.platforms_max_age, Some(Duration::from_secs(3600)));
        assert_eq!(config.devices.directories, [PathBuf::from("/d")]);
        assert!(config.devices.auto_allowed.contains("vendor.com/gpu"));
        assert!(read("[cdi]\ndisabled = true\nspecDirs = [\"/d\"]").unwrap().devices.is_disabled());
        assert!(config.frontends.without_dockerfile && !config.frontends.without_gateway);
        let allows = |image: &str| config.frontends.allows(&image.parse().unwrap());
        assert!(allows("example.com/front:1") && allows("docker.io/docker/dockerfile:1"));
        assert!(!allows("example.com/other"));
    }

    #[test]
    fn what_cannot_be_is_an_error_that_names_the_key() {
        for (text, key) in [
            ("[worker.oci]\nmax-parallelism = -1", "worker.oci.max-parallelism"),
            ("[worker.oci]\nmax-parallelism = \"4\"", "worker.oci.max-parallelism"),
            ("[worker.oci]\nplatforms = [\"x y\"]", "worker.oci.platforms"),
            ("[worker.oci]\nnetworkMode = \"moon\"", "worker.oci.networkMode"),
            ("[system]\nmaxRegistryConcurrency = 0", "system.maxRegistryConcurrency"),
            ("[frontend.\"gateway.v0\"]\nenabled = 1", "frontend.gateway.v0.enabled"),
            ("[dns]\nnameservers = [\"ns.example\"]", "dns.nameservers"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message.contains(key) && error.hint.is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_network_that_is_not_there_is_told() {
        let config = read("[worker.oci]\nnetworkMode = \"cni\"").unwrap();
        assert_eq!(config.network, StepNetwork::Host);
        assert_eq!(config.notes, ["there is no network `cni` here: steps have the network of the host"]);
    }
}
