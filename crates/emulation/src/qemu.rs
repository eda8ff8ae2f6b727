//! QEMU's user emulators on this machine: where they are, what version, how they are set up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use slipway_model::Platform;

use crate::binfmt::{self, LineError};
use crate::guest::Guest;

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One emulator: a program that runs the programs of one architecture.
#[derive(Debug)]
pub struct Qemu {
    pub path: PathBuf,
    pub guest: &'static Guest,
    /// Asked of the program when it is first needed; the answer costs some milliseconds.
    version: OnceLock<Option<Version>>,
}

impl Clone for Qemu {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), guest: self.guest, version: self.version.clone() }
    }
}

impl PartialEq for Qemu {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.guest == other.guest
    }
}

impl Qemu {
    /// Describes an emulator that is known to be at `path`.
    pub fn new(guest: &'static Guest, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), guest, version: OnceLock::new() }
    }

    /// Describes an emulator whose version is known.
    pub fn with_version(self, version: Option<Version>) -> Self {
        Self { version: OnceLock::from(version), ..self }
    }

    /// Finds the emulator of an architecture: the first directory that has one, static builds first.
    ///
    /// A static build is needed: the private table opens the emulator itself, but not its libraries,
    /// which a foreign image does not have.
    pub fn find(guest: &'static Guest, directories: &[PathBuf]) -> Option<Self> {
        let names = Self::names(guest);
        let candidates = directories.iter().flat_map(|place| {
            let itself = Self::is_named(guest, place).then(|| place.clone());
            itself.into_iter().chain(names.iter().map(|name| place.join(name)))
        });
        let mut found = candidates.filter(|path| Self::is_usable(path));
        found.next().map(|path| Self::new(guest, path))
    }

    /// Returns what an architecture's emulator may be called, the best first.
    fn names(guest: &Guest) -> [String; 2] {
        [format!("qemu-{}-static", guest.qemu), format!("qemu-{}", guest.qemu)]
    }

    /// Tells whether a path ends in a name of an architecture's emulator.
    pub(crate) fn is_named(guest: &Guest, path: &Path) -> bool {
        Self::names(guest).iter().any(|name| path.file_name() == Some(name.as_ref()))
    }

    /// Tells whether a file can be run in any root.
    pub(crate) fn is_usable(path: &Path) -> bool {
        is_executable(path) && is_static(path)
    }

    /// Returns the version; `None` if the program does not tell one.
    pub fn version(&self) -> Option<Version> {
        *self.version.get_or_init(|| {
            let output = Command::new(&self.path).arg("--version").stdin(Stdio::null()).output().ok()?;
            parse_version(&String::from_utf8_lossy(&output.stdout))
        })
    }

    /// Returns the line that registers this emulator in a private table.
    pub fn registration(&self) -> Result<String, LineError> {
        binfmt::registration(self.guest, &self.path, binfmt::FLAGS)
    }

    /// Returns the CPU that the emulator has to pretend for a platform, where its default is wrong.
    ///
    /// * arm64 before QEMU 10: pointer authentication is emulated by a cipher that takes up to half of
    ///   the time; `pauth-impdef` swaps it for a cheap one, as QEMU itself does since.
    /// * arm/v5 and v6: the default has newer instructions, and `uname -m` tells `armv7l`.
    /// * amd64: the default lacks the instructions of x86-64-v2, which distributions require.
    pub fn cpu(&self, platform: &Platform) -> Option<&'static str> {
        match (self.guest.architecture, platform.variant.as_deref()) {
            ("arm64", _) if self.version().is_none_or(|version| version.major < 10) => {
                Some("max,pauth-impdef=on")
            }
            ("arm", Some("v6")) => Some("arm1176"),
            ("arm", Some("v5")) => Some("arm926"),
            ("amd64", _) => Some("max"),
            _ => None,
        }
    }

    /// Returns the variables that the emulator has to find in the environment of a step.
    ///
    /// The kernel starts the emulator with the program's own environment and there is no room for
    /// options in a binfmt_misc entry, so that the program sees these too. That is why they are set only
    /// where the default is wrong.
    pub fn env(&self, platform: &Platform) -> Vec<(&'static str, &'static str)> {
        self.cpu(platform).map(|cpu| ("QEMU_CPU", cpu)).into_iter().collect()
    }

    /// Describes the emulator for people: `qemu-aarch64 7.2 (cpu max,pauth-impdef=on)`.
    pub fn describe(&self, platform: &Platform) -> String {
        let mut text = self.guest.entry_name();
        if let Some(version) = self.version() {
            text.push_str(&format!(" {version}"));
        }
        if let Some(cpu) = self.cpu(platform) {
            text.push_str(&format!(" (cpu {cpu})"));
        }
        text
    }
}

/// Reads the first line of `qemu-… --version`: `qemu-aarch64 version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<Version> {
    let after = text.split_once(" version ")?.1;
    let number = after.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = number.split('.').map(str::parse);
    Some(Version { major: parts.next()?.ok()?, minor: parts.next()?.ok()? })
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

/// Tells whether a program needs no loader.
fn is_static(path: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let read = |at: u64, length: usize| -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length.min(1 << 16)];
        let count = std::fs::File::open(path)?.read_at(&mut bytes, at)?;
        bytes.truncate(count);
        Ok(bytes)
    };
    let Some(header) = read(0, crate::elf::HEAD).ok().and_then(|head| crate::elf::inspect(&head)) else {
        return false;
    };
    crate::elf::interpreter(&header, read).is_ok_and(|interpreter| interpreter.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu(architecture: &str, version: Option<(u32, u32)>) -> Qemu {
        Qemu::new(Guest::of(architecture).unwrap(), "/usr/bin/x")
            .with_version(version.map(|(major, minor)| Version { major, minor }))
    }

    #[test]
    fn versions_are_read() {
        let text = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright\n";
        assert_eq!(parse_version(text), Some(Version { major: 7, minor: 2 }));
        assert_eq!(parse_version("qemu-arm version 10.0-rc1\n"), Some(Version { major: 10, minor: 0 }));
        assert_eq!(parse_version("something else"), None);
        assert_eq!(parse_version("x version y"), None);
    }

    #[test]
    fn the_cpu_is_set_only_where_the_default_is_wrong() {
        let cpu = |architecture: &str, version, platform: &str| {
            qemu(architecture, version).cpu(&platform.parse().unwrap())
        };
        assert_eq!(cpu("arm64", Some((7, 2)), "linux/arm64"), Some("max,pauth-impdef=on"));
        assert_eq!(cpu("arm64", Some((10, 0)), "linux/arm64"), None);
        assert_eq!(cpu("arm", Some((7, 2)), "linux/arm/v7"), None);
        assert_eq!(cpu("arm", Some((7, 2)), "linux/arm/v6"), Some("arm1176"));
        assert_eq!(cpu("s390x", Some((7, 2)), "linux/s390x"), None);
        assert_eq!(
            qemu("arm64", Some((7, 2))).describe(&"linux/arm64".parse().unwrap()),
            "qemu-aarch64 7.2 (cpu max,pauth-impdef=on)"
        );
        assert_eq!(qemu("s390x", None).describe(&"linux/s390x".parse().unwrap()), "qemu-s390x");
    }

    #[test]
    fn only_executable_programs_are_found() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("qemu-aarch64-static"), "not a program").unwrap();
        let guest = Guest::of("arm64").unwrap();
        assert_eq!(Qemu::find(guest, &[directory.path().to_owned(), "/nonexistent".into()]), None);
    }
}
