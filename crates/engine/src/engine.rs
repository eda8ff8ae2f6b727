//! The engine: what all solves of a process share.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use slipway_emulation::{EmulationOptions, HostFacts, Qemu, Version};
use slipway_model::{Diagnostic, ErrorKind};
use slipway_registry::{Client, ClientOptions, ConfigPaths, DockerCredentials, RegistryConfig};
use slipway_store::Store;
use tokio::sync::Semaphore;

use crate::attest::Producers;
use crate::config::WorkerConfig;
use crate::devices::Devices;
use crate::error::Context as _;
use crate::frontend::FrontendHost;
use crate::history::History;
use crate::in_flight::InFlight;

/// The key-value namespace of the versions of emulators.
const VERSIONS: &str = "emulator-version";

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
    /// A `buildkitd.toml`, for registries and workers.
    pub config: Option<PathBuf>,
    /// Emulators, or directories to look for emulators in, before the usual places.
    pub emulators: Vec<PathBuf>,
    /// Where devices are described, instead of what the configuration says; nowhere is no devices.
    pub device_directories: Option<Vec<PathBuf>>,
    /// How many steps run at once; by default what the configuration says, or what suits the machine.
    pub parallelism: Option<usize>,
    /// Speaks to frontends in images; without it there are only the built-in ones.
    pub frontends: Option<Arc<dyn FrontendHost>>,
}

/// Builds images. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) devices: Devices,
    /// Bounds how many steps run at once, of all builds together.
    pub(crate) permits: Semaphore,
    /// What is executing now, of all builds together.
    pub(crate) in_flight: InFlight,
    pub(crate) frontends: Option<Arc<dyn FrontendHost>>,
    /// Which requests made what is an input of others, of all builds together.
    pub(crate) producers: Producers,
    /// What the owner of the machine has every provenance say.
    pub(crate) provenance_environment: serde_json::Map<String, serde_json::Value>,
    notes: Vec<String>,
    emulation: EmulationOptions,
    facts: OnceLock<HostFacts>,
    resolv_conf: OnceLock<String>,
}

impl Engine {
    /// Opens the state directory. Nothing else is read or started until it is needed.
    pub fn open(options: EngineOptions) -> Result<Self, Diagnostic> {
        let root = options.root.unwrap_or_else(default_root);
        let store =
            Store::open(&root).context(|| format!("cannot open the state directory `{}`", root.display()))?;
        let mut paths = ConfigPaths::usual(|name| std::env::var_os(name));
        if let Some(config) = options.config {
            check_config(&config)?;
            paths.buildkit.insert(0, config);
        }
        let config =
            RegistryConfig::load(&paths).context(|| "cannot use the registry configuration".to_owned())?;
        let worker = WorkerConfig::load(&paths.buildkit)?;
        let mut devices = worker.devices;
        if let Some(directories) = options.device_directories {
            devices.directories = directories;
        }
        let credentials = Arc::new(DockerCredentials::usual(|name| std::env::var_os(name)));
        let client = Client::new(ClientOptions { config, credentials, ..ClientOptions::default() });
        let configured = worker.max_parallelism.map(|steps| if steps == 0 { UNLIMITED } else { steps });
        let parallelism = options
            .parallelism
            .or(configured)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(16, |n| (n.get() * 4).max(16)));
        let mut emulation = EmulationOptions::from_env(|name| std::env::var_os(name));
        emulation.directories.splice(0..0, options.emulators);
        emulation
            .check()
            .map_err(|error| Diagnostic::new(ErrorKind::User, error.to_string()).hint(error.hint()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                client,
                devices,
                permits: Semaphore::new(parallelism),
                in_flight: InFlight::default(),
                frontends: options.frontends,
                producers: Producers::default(),
                provenance_environment: worker.provenance_environment,
                notes: worker.notes,
                emulation,
                facts: OnceLock::new(),
                resolv_conf: OnceLock::new(),
            }),
        })
    }

    /// Cleans up after builds that died and frees what has not been used for long, if that is due.
    ///
    /// It can take a while: call it when everything the user waits for is done.
    pub fn collect_garbage(&self) {
        self.inner.collect_garbage();
    }

    /// Lists what the configuration says and slipway does not do.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// Returns the devices of this machine that steps may be given.
    pub fn devices(&self) -> &Devices {
        &self.inner.devices
    }

    /// Returns what speaks to registries, with the logins of who runs this process.
    pub fn registries(&self) -> &Client {
        &self.inner.client
    }

    /// Returns the records of what was built.
    pub fn history(&self) -> History {
        History::of(self.root())
    }

    /// Lists the platforms whose programs run here, the host's own first.
    pub fn platforms(&self) -> Vec<slipway_model::Platform> {
        let facts = self.inner.facts();
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

/// A configuration that somebody named has to be there.
fn check_config(path: &Path) -> Result<(), Diagnostic> {
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

impl Inner {
    /// Looks at the machine, once.
    pub(crate) fn facts(&self) -> &HostFacts {
        self.facts.get_or_init(|| {
            let mut facts = HostFacts::probe(&self.emulation);
            facts.emulators = facts.emulators.into_iter().map(|qemu| self.with_version(qemu)).collect();
            facts
        })
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
        History::of(self.store.root()).trim();
        if let Err(error) = self.store.collect_garbage(None) {
            tracing::warn!(%error, "could not collect garbage");
        }
    }

    /// Returns what steps see as `/etc/resolv.conf`: the host's, since they are in the host's network.
    pub(crate) fn resolv_conf(&self) -> &str {
        self.resolv_conf.get_or_init(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
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
