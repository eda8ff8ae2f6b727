//! The engine: what all solves of a process share.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slipway_emulation::{EmulationOptions, HostFacts, Qemu, Version};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};
use slipway_registry::{Client, ClientOptions, DockerCredentials};
use slipway_runtime::Network;
use slipway_store::{GcPolicy, Store};
use tokio::sync::Semaphore;

use crate::attest::Producers;
use crate::config::{Config, StepNetwork};
use crate::devices::Devices;
use crate::error::Context as _;
use crate::frontend::FrontendHost;
use crate::history::History;
use crate::in_flight::InFlight;
use crate::session::SharedDirectories;
use crate::sources::KnownReferences;

/// The key-value namespace of the versions of emulators.
const VERSIONS: &str = "emulator-version";

/// What was found out about the machine holds for this long, unless the configuration says otherwise.
const FACTS_AGE: Duration = Duration::from_secs(20);

/// More steps than this never wait for each other.
const UNLIMITED: usize = 1 << 16;

/// The platforms that emulators are looked for.
const PLATFORMS: &[&str] = &[
    "linux/amd64",
    "linux/arm64",
    "linux/riscv64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/386",
    "linux/loong64",
    "linux/mips64le",
    "linux/mips64",
    "linux/arm/v7",
    "linux/arm/v6",
];

/// How to open an [`Engine`].
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The state directory; [`default_root`] if not given.
    pub root: Option<PathBuf>,
    /// What `buildkitd.toml` and the files of other tools say.
    pub config: Config,
    /// Emulators, or directories to look for emulators in, before the usual places.
    pub emulators: Vec<PathBuf>,
    /// Speaks to frontends in images; without it there are only the built-in ones.
    pub frontends: Option<Arc<dyn FrontendHost>>,
    /// The engine serves one command: what a git reference means when it is first asked for, it means to the end.
    pub one_command: bool,
}

/// Builds images. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) client: Client,
    /// Bounds how many steps run at once, of all builds together.
    pub(crate) permits: Semaphore,
    /// What is executing now, of all builds together.
    pub(crate) in_flight: InFlight,
    pub(crate) frontends: Option<Arc<dyn FrontendHost>>,
    /// Which requests made what is an input of others, of all builds together.
    pub(crate) producers: Producers,
    pub(crate) config: Config,
    /// What is known of directories of this machine, where builds have that in common.
    pub(crate) directories: OnceLock<Arc<SharedDirectories>>,
    /// What git references mean, in an engine for one command.
    pub(crate) references: Option<KnownReferences>,
    emulation: EmulationOptions,
    /// What was found out about the machine, and when.
    facts: Mutex<Option<(Instant, Arc<HostFacts>)>>,
}

impl Engine {
    /// Opens the state directory. Nothing else is read or started until it is needed.
    pub fn open(options: EngineOptions) -> Result<Self, Diagnostic> {
        let root = options.root.unwrap_or_else(default_root);
        let store =
            Store::open(&root).context(|| format!("cannot open the state directory `{}`", root.display()))?;
        let mut config = options.config;
        let credentials = Arc::new(DockerCredentials::usual(|name| std::env::var_os(name)));
        let mut client = ClientOptions {
            config: std::mem::take(&mut config.registries),
            credentials,
            ..ClientOptions::default()
        };
        client.max_concurrency = config.registry_concurrency.unwrap_or(client.max_concurrency);
        let parallelism = match config.max_parallelism {
            Some(0) => UNLIMITED,
            Some(steps) => steps,
            None => std::thread::available_parallelism().map_or(16, |n| (n.get() * 4).max(16)),
        };
        let mut emulation = EmulationOptions::from_env(|name| std::env::var_os(name));
        emulation.directories.splice(0..0, options.emulators);
        emulation
            .check()
            .map_err(|error| Diagnostic::new(ErrorKind::User, error.to_string()).hint(error.hint()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                client: Client::new(client),
                permits: Semaphore::new(parallelism),
                in_flight: InFlight::default(),
                frontends: options.frontends,
                producers: Producers::default(),
                config,
                directories: OnceLock::new(),
                references: options.one_command.then(KnownReferences::default),
                emulation,
                facts: Mutex::default(),
            }),
        })
    }

    /// Lets the requests of this process, from now on, have in common what they find out about directories: those are
    /// what they are when they are first looked at.
    pub fn share_directories(&self) {
        self.inner.directories.get_or_init(Arc::default);
    }

    /// Cleans up after builds that died and frees what has not been used for long, if that is due.
    ///
    /// It can take a while: call it when everything the user waits for is done.
    pub fn collect_garbage(&self) {
        self.inner.collect_garbage();
    }

    /// Lists what the configuration says and slipway does not do.
    pub fn notes(&self) -> &[String] {
        &self.inner.config.notes
    }

    /// Returns what the configuration says.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Returns the rules of the automatic collection.
    pub fn gc_policy(&self) -> GcPolicy {
        self.inner.gc_policy()
    }

    /// Returns the devices of this machine that steps may be given.
    pub fn devices(&self) -> &Devices {
        &self.inner.config.devices
    }

    /// Returns what speaks to registries, with the logins of who runs this process.
    pub fn registries(&self) -> &Client {
        &self.inner.client
    }

    /// Returns the records of what was built.
    pub fn history(&self) -> History {
        History::of(self.root())
    }

    /// Lists the platforms that are configured, or whose programs run here, the host's own first.
    pub fn platforms(&self) -> Vec<slipway_model::Platform> {
        let configured = &self.inner.config.platforms;
        if !configured.is_empty() {
            return configured.clone();
        }
        let facts = &*self.inner.facts();
        let mut platforms = facts.native_platforms();
        for name in PLATFORMS {
            let Ok(platform) = name.parse() else { continue };
            let runs = !matches!(
                slipway_emulation::decide(facts, &platform),
                slipway_emulation::Emulator::Unsupported(_)
            );
            if runs && !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        platforms
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        self.inner.store.root()
    }
}

impl Inner {
    /// Looks at the machine, unless that was done lately.
    pub(crate) fn facts(&self) -> Arc<HostFacts> {
        let mut known = self.facts.lock();
        let max_age = self.config.platforms_max_age.unwrap_or(FACTS_AGE);
        if let Some((when, facts)) = &*known
            && when.elapsed() < max_age
        {
            return facts.clone();
        }
        let mut facts = HostFacts::probe(&self.emulation);
        facts.emulators = facts.emulators.into_iter().map(|qemu| self.with_version(qemu)).collect();
        let facts = Arc::new(facts);
        *known = Some((Instant::now(), facts.clone()));
        facts
    }

    /// Fills in an emulator's version from what an earlier run found: asking costs a process each.
    fn with_version(&self, qemu: Qemu) -> Qemu {
        let Ok(metadata) = std::fs::metadata(&qemu.path) else { return qemu };
        let key = format!(
            "{}\0{}\0{}.{}",
            qemu.path.display(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        let values = self.store.key_values();
        let known = values.get(VERSIONS, key.as_bytes()).ok().flatten();
        let known = known.and_then(|stored| <[u8; 8]>::try_from(stored.value).ok());
        if let Some([a, b, c, d, e, f, g, h]) = known {
            let version =
                Version { major: u32::from_le_bytes([a, b, c, d]), minor: u32::from_le_bytes([e, f, g, h]) };
            return qemu.with_version(Some(version));
        }
        if let Some(version) = qemu.version() {
            let value = [version.major.to_le_bytes(), version.minor.to_le_bytes()].concat();
            let _ = values.put(VERSIONS, key.as_bytes(), &value);
        }
        qemu
    }

    /// Cleans up after builds that died and frees what has not been used for long, if that is due.
    ///
    /// Off the path of a build: call it when the results are out.
    pub(crate) fn collect_garbage(&self) {
        if !self.store.collection_due() {
            return;
        }
        crate::session::collect_mirrors(self.store.root());
        History::of(self.store.root()).trim(&self.config.history);
        if let Err(error) = crate::proxied::forget_fetched(&self.store) {
            tracing::warn!(%error, "could not forget what steps fetched");
        }
        if let Err(error) = self.store.collect_garbage(&self.gc_policy()) {
            tracing::warn!(%error, "could not collect garbage");
        }
    }

    fn gc_policy(&self) -> GcPolicy {
        self.config.gc.policy_at(self.store.root())
    }

    /// Returns what steps see as `/etc/resolv.conf`: the host's, unless the configuration says otherwise.
    pub(crate) fn resolv_conf(&self) -> String {
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        self.config.dns.apply(&host)
    }

    /// Returns the network that a step asks for, or has if it asks for none.
    pub(crate) fn network(&self, asked: i32) -> Network {
        match (pb::NetMode::try_from(asked), self.config.network) {
            (Ok(pb::NetMode::None), _) | (Ok(pb::NetMode::Unset), StepNetwork::None) => Network::None,
            _ => Network::Host,
        }
    }

    /// Returns the control group below which a step is that asks for `asked`.
    pub(crate) fn cgroup_parent<'p>(&'p self, asked: &'p str) -> &'p str {
        match asked {
            "" => self.config.cgroup_parent.as_deref().unwrap_or_default(),
            asked => asked,
        }
    }
}

/// Returns the state directory that is used when none is given: the system's for root, the user's otherwise.
///
/// Root in a user namespace is an ordinary user outside of it, whose directory it is.
pub fn default_root() -> PathBuf {
    let system = rustix::process::geteuid().is_root() && slipway_runtime::rootless::is_initial_namespace();
    if system {
        return PathBuf::from("/var/lib/slipway");
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    data.unwrap_or_else(|| home().join(".local/share")).join("slipway")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(config: Config, look: impl FnOnce(&Inner) -> T) -> T {
        let directory = tempfile::tempdir().unwrap();
        let root = Some(directory.path().to_owned());
        let engine = Engine::open(EngineOptions { root, config, ..EngineOptions::default() }).unwrap();
        look(&engine.inner)
    }

    #[test]
    fn a_default_parent_is_for_steps_that_name_none() {
        let config = Config { cgroup_parent: Some("builds".to_owned()), ..Config::default() };
        with(config, |inner| {
            assert_eq!([inner.cgroup_parent(""), inner.cgroup_parent("own")], ["builds", "own"]);
        });
        with(Config::default(), |inner| assert_eq!(inner.cgroup_parent(""), ""));
    }

    #[test]
    fn a_default_network_is_for_steps_that_ask_for_none_in_particular() {
        let modes = [pb::NetMode::Unset, pb::NetMode::Host, pb::NetMode::None].map(|mode| mode as i32);
        let networks = |network| {
            let config = Config { network, ..Config::default() };
            with(config, |inner| modes.map(|mode| matches!(inner.network(mode), Network::Host)))
        };
        assert_eq!(networks(StepNetwork::Host), [true, true, false]);
        assert_eq!(networks(StepNetwork::None), [false, true, false]);
    }

    #[test]
    fn what_was_found_out_about_the_machine_holds_for_a_while() {
        let same = |max_age: u64| {
            let platforms_max_age = Some(Duration::from_secs(max_age));
            let config = Config { platforms_max_age, ..Config::default() };
            with(config, |inner| Arc::ptr_eq(&inner.facts(), &inner.facts()))
        };
        assert_eq!([same(3600), same(0)], [true, false]);
    }
}
