//! What is known about this machine that decides how foreign programs run.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use slipway_model::{Hint, Platform};

use crate::binfmt::Entry;
use crate::guest::{GUESTS, Guest};
use crate::probe;
use crate::qemu::Qemu;

/// The host's table.
const HOST_TABLE: &str = "/proc/sys/fs/binfmt_misc";

/// Where emulators are looked for if nothing else is said.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/usr/libexec/qemu-binfmt", "/opt/qemu/bin"];

/// The first kernel whose binfmt_misc belongs to a user namespace.
const PRIVATE_BINFMT_KERNEL: (u32, u32) = (6, 7);

/// Says why an emulator that the user named cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedEmulatorError {
    #[error("there is no `{0}` to look for emulators in")]
    Missing(PathBuf),
    #[error("`{0}` is not named after an emulator")]
    Name(PathBuf),
    #[error("`{0}` is not an executable that needs no shared libraries")]
    NotStatic(PathBuf),
}

impl NamedEmulatorError {
    /// Names what mends it.
    pub fn hint(&self) -> Hint {
        match self {
            Self::Missing(_) => {
                "name a directory that exists with SLIPWAY_QEMU_DIR or `--emulator`, or unset it".to_owned()
            }
            Self::Name(_) => "call it as `qemu-aarch64` or `qemu-aarch64-static`".to_owned(),
            Self::NotStatic(_) => "take a static build, as `apt install qemu-user-static` gives".to_owned(),
        }
    }
}

/// What the user says about emulation.
#[derive(Clone, Debug, Default)]
pub struct EmulationOptions {
    /// Directories with emulators, or emulators themselves, looked at before the usual directories.
    pub directories: Vec<PathBuf>,
    /// Uses the host's binfmt_misc table even where a private one would do.
    pub host_table_only: bool,
}

impl EmulationOptions {
    /// Reads `SLIPWAY_QEMU_DIR`, a list separated by colons.
    pub fn from_env(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let directories = variable("SLIPWAY_QEMU_DIR")
            .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        Self { directories, host_table_only: false }
    }

    /// Checks that what the user named is there: others instead of it would be a surprise.
    pub fn check(&self) -> Result<(), NamedEmulatorError> {
        for path in &self.directories {
            let kind = std::fs::metadata(path).map_err(|_| NamedEmulatorError::Missing(path.clone()))?;
            if kind.is_dir() {
                continue;
            }
            if !GUESTS.iter().any(|guest| Qemu::is_named(guest, path)) {
                return Err(NamedEmulatorError::Name(path.clone()));
            }
            if !Qemu::is_usable(path) {
                return Err(NamedEmulatorError::NotStatic(path.clone()));
            }
        }
        Ok(())
    }
}

/// Whether a private binfmt_misc table can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateBinfmt {
    /// The kernel has it, and nothing is known to forbid it.
    Available,
    /// The kernel is older.
    OldKernel { release: String },
    /// It was tried and refused, for this reason; or the user does not want it.
    Refused(String),
}

/// What is known about this machine.
#[derive(Debug)]
pub struct HostFacts {
    /// The platform of the kernel, with the level of the CPU (`linux/amd64/v3`).
    pub platform: Platform,
    pub private_binfmt: PrivateBinfmt,
    /// The entries of the host's binfmt_misc table.
    pub handlers: Vec<Entry>,
    /// The emulators found, at most one per architecture.
    pub emulators: Vec<Qemu>,
    /// Directories that were looked at for emulators.
    pub directories: Vec<PathBuf>,
    /// Whether 32-bit programs run; asked when it is first needed.
    runs_32bit: OnceLock<bool>,
}

impl HostFacts {
    /// Looks at this machine: some file system reads, no program is run.
    pub fn probe(options: &EmulationOptions) -> Self {
        let mut directories = options.directories.clone();
        directories.extend(DIRECTORIES.iter().map(PathBuf::from));
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let private_binfmt = if options.host_table_only {
            PrivateBinfmt::Refused("the host's table was asked for".to_owned())
        } else {
            private_binfmt(&release)
        };
        Self {
            platform: host_platform(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            private_binfmt,
            handlers: read_table(Path::new(HOST_TABLE)),
            emulators: GUESTS.iter().filter_map(|guest| Qemu::find(guest, &directories)).collect(),
            directories,
            runs_32bit: OnceLock::new(),
        }
    }

    /// Makes up a machine, for tests and for decisions about other machines.
    pub fn new(platform: Platform, private_binfmt: PrivateBinfmt, runs_32bit: bool) -> Self {
        Self {
            platform,
            private_binfmt,
            handlers: Vec::new(),
            emulators: Vec::new(),
            directories: Vec::new(),
            runs_32bit: OnceLock::from(runs_32bit),
        }
    }

    /// Notes that a private table was refused, so that the next decision does without.
    pub fn refuse_private_binfmt(&mut self, reason: impl Into<String>) {
        self.private_binfmt = PrivateBinfmt::Refused(reason.into());
    }

    /// Returns the emulator of an architecture.
    pub fn emulator(&self, guest: &Guest) -> Option<&Qemu> {
        self.emulators.iter().find(|qemu| qemu.guest == guest)
    }

    /// Returns the entry of the host's table that runs programs of an architecture.
    pub fn handler(&self, guest: &Guest) -> Option<&Entry> {
        self.handlers.iter().find(|entry| entry.serves(guest))
    }

    /// Tells whether this CPU and kernel run 32-bit programs of their family.
    pub fn runs_32bit(&self) -> bool {
        *self.runs_32bit.get_or_init(|| match self.platform.architecture.as_str() {
            "amd64" => probe::runs(probe::Probe::I386),
            "arm64" => probe::runs(probe::Probe::Arm),
            _ => false,
        })
    }

    /// Lists the platforms that run here without emulation, the host's own first.
    pub fn native_platforms(&self) -> Vec<Platform> {
        let small = |platform: &Platform| matches!(platform.architecture.as_str(), "386" | "arm");
        let own_is_small = small(&self.platform);
        let compatible = self.platform.compatible();
        compatible
            .into_iter()
            .filter(|platform| own_is_small || !small(platform) || self.runs_32bit())
            .collect()
    }
}

/// Reads all entries of a table; one that is gone meanwhile or cannot be read is left out.
pub(crate) fn read_table(directory: &Path) -> Vec<Entry> {
    let Ok(files) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut entries: Vec<Entry> = files
        .flatten()
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            if name == "register" || name == "status" {
                return None;
            }
            Entry::parse(&name, &std::fs::read_to_string(file.path()).ok()?)
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// Reads the first two numbers of a kernel's release.
pub(crate) fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn private_binfmt(release: &str) -> PrivateBinfmt {
    if kernel_version(release) >= PRIVATE_BINFMT_KERNEL {
        PrivateBinfmt::Available
    } else {
        PrivateBinfmt::OldKernel { release: release.to_owned() }
    }
}

/// Returns the platform of this kernel with the level of its CPU, by `/proc/cpuinfo`.
fn host_platform(cpuinfo: &str) -> Platform {
    let host = Platform::host();
    if host.architecture != "amd64" {
        return host;
    }
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    Platform::linux("amd64", amd64_level(flags))
}

/// Returns the micro-architecture level, as the x86-64 psABI defines it by CPU features.
fn amd64_level(flags: &str) -> Option<&'static str> {
    let flags: Vec<&str> = flags.split_ascii_whitespace().collect();
    let has = |wanted: &[&str]| wanted.iter().all(|flag| flags.contains(flag));
    // The kernel calls lzcnt `abm` and, like everybody, sse3 `pni`.
    let v2 = has(&["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]);
    let v3 = v2 && has(&["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]);
    let v4 = v3 && has(&["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]);
    match (v2, v3, v4) {
        (_, _, true) => Some("v4"),
        (_, true, _) => Some("v3"),
        (true, ..) => Some("v2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_decides_about_private_tables() {
        assert_eq!(private_binfmt("6.7.0"), PrivateBinfmt::Available);
        assert_eq!(private_binfmt("6.18.44-fc-v657"), PrivateBinfmt::Available);
        assert_eq!(private_binfmt("10.0"), PrivateBinfmt::Available);
        assert!(matches!(private_binfmt("6.6.99-lts"), PrivateBinfmt::OldKernel { .. }));
        assert!(matches!(private_binfmt("strange"), PrivateBinfmt::OldKernel { .. }));
    }

    #[test]
    fn cpu_levels_follow_the_features() {
        let v2 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3";
        let v3 = format!("{v2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave");
        assert_eq!(amd64_level("sse sse2"), None);
        assert_eq!(amd64_level(v2), Some("v2"));
        assert_eq!(amd64_level(&v3), Some("v3"));
        assert_eq!(amd64_level(&format!("{v3} avx512f avx512bw avx512cd avx512dq avx512vl")), Some("v4"));
    }

    #[test]
    fn native_platforms_leave_out_32_bit_where_the_kernel_does() {
        let names = |architecture, runs| {
            let facts = HostFacts::new(Platform::linux(architecture, None), PrivateBinfmt::Available, runs);
            facts.native_platforms().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("amd64", true), ["linux/amd64", "linux/386"]);
        assert_eq!(names("amd64", false), ["linux/amd64"]);
        assert_eq!(names("arm64", false), ["linux/arm64"]);
        assert_eq!(names("386", false), ["linux/386"]);
    }

    #[test]
    fn what_the_user_named_has_to_be_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let check =
            |path: PathBuf| EmulationOptions { directories: vec![path], ..Default::default() }.check();
        assert_eq!(check(directory.path().to_owned()), Ok(()));
        let absent = directory.path().join("absent");
        assert_eq!(check(absent.clone()), Err(NamedEmulatorError::Missing(absent)));
        let other = directory.path().join("emulator");
        std::fs::write(&other, "").unwrap();
        assert_eq!(check(other.clone()), Err(NamedEmulatorError::Name(other)));
        let script = directory.path().join("qemu-aarch64");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check(script.clone()), Err(NamedEmulatorError::NotStatic(script.clone())));
        assert!(NamedEmulatorError::NotStatic(script).hint().contains("static"));
    }

    #[test]
    fn directories_come_from_the_environment() {
        let options = EmulationOptions::from_env(|_| Some("/a::/b".into()));
        assert_eq!(options.directories, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(EmulationOptions::from_env(|_| None).directories.is_empty());
    }
}
