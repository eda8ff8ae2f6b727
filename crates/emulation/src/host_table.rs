//! Changes the host's own binfmt_misc table, for those who want that: `slipway binfmt`.
//!
//! All functions take the directory where the table is mounted, so that they work on any table. The
//! meaning of installing, uninstalling and of the status is that of the `tonistiigi/binfmt` image.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;
use serde::Serialize;
use slipway_model::{ErrorKind, Hint, Platform};

use crate::binfmt::{self, Entry, LineError};
use crate::guest::{GUESTS, Guest};
use crate::host::{HostFacts, kernel_version, read_table};
use crate::qemu::{Qemu, Version};

/// Where the host's table is.
pub const HOST_TABLE: &str = "/proc/sys/fs/binfmt_misc";

/// Says why the table could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("no binfmt_misc table at `{0}`")]
    NotMounted(PathBuf),
    #[error("cannot mount binfmt_misc at `{path}`")]
    Mount {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("unknown architecture `{0}`")]
    UnknownArchitecture(String),
    #[error("no emulator for `{0}` was found")]
    NoEmulator(&'static str),
    #[error("no entry matches `{0}`")]
    NoSuchEntry(String),
    #[error("cannot register `{name}`")]
    Register {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot remove `{name}`")]
    Remove {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Line(#[from] LineError),
}

impl TableError {
    /// Says whose mistake it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownArchitecture(_) | Self::NoSuchEntry(_) => ErrorKind::User,
            _ => ErrorKind::Environment,
        }
    }

    /// Names what mends it.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NotMounted(path) => Some(format!(
                "run `mount -t binfmt_misc binfmt_misc {}` as root; `slipway binfmt --install` does so too",
                path.display()
            )),
            Self::Mount { source, .. } => Some(match source.kind() {
                std::io::ErrorKind::PermissionDenied => "run it as root".to_owned(),
                std::io::ErrorKind::NotFound => "the directory has to be there: see `--mount`".to_owned(),
                _ => "run `modprobe binfmt_misc` as root".to_owned(),
            }),
            Self::UnknownArchitecture(_) => {
                let names: Vec<&str> = GUESTS.iter().map(|guest| guest.architecture).collect();
                Some(format!("known are `all`, {}", names.join(", ")))
            }
            Self::NoEmulator(_) => {
                Some("run `apt install qemu-user-static`, or name a directory in SLIPWAY_QEMU_DIR".to_owned())
            }
            Self::Register { source, .. } | Self::Remove { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Some("run it as root".to_owned())
            }
            _ => None,
        }
    }
}

/// What a table looks like: the JSON that `tonistiigi/binfmt` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Platforms whose programs run.
    pub supported: Vec<String>,
    /// Names of the entries that are enabled.
    pub emulators: Vec<String>,
}

/// Tells which platforms run on a machine with this table.
pub fn status(directory: &Path, facts: &HostFacts) -> Result<Status, TableError> {
    check(directory)?;
    let entries = read_table(directory);
    let mut native = facts.native_platforms();
    native.sort_by_key(|platform| {
        (platform.architecture != facts.platform.architecture, platform.variant.clone())
    });
    let mut supported: Vec<String> = native.iter().map(Platform::to_string).collect();
    for guest in GUESTS {
        if entries.iter().any(|entry| entry.serves(guest)) {
            let platform = Platform::linux(guest.architecture, None);
            let compatible = platform.compatible();
            // No image in use is for arm/v5, and the list is for people.
            let shown = compatible.iter().filter(|platform| {
                platform.architecture == guest.architecture && platform.variant.as_deref() != Some("v5")
            });
            for name in shown.map(Platform::to_string) {
                if !supported.contains(&name) {
                    supported.push(name);
                }
            }
        }
    }
    let emulators = entries.into_iter().filter(|entry| entry.enabled).map(|entry| entry.name).collect();
    Ok(Status { supported, emulators })
}

/// Reads the names after `--install`: architectures or platforms, separated by commas, or `all`.
///
/// `all` is every architecture that this machine does not run itself and has an emulator for.
pub fn parse_list(list: &str, facts: &HostFacts) -> Result<Vec<&'static Guest>, TableError> {
    if list == "all" {
        let native = facts.native_platforms();
        let foreign =
            GUESTS.iter().filter(|guest| !native.iter().any(|p| p.architecture == guest.architecture));
        return Ok(foreign.filter(|guest| facts.emulator(guest).is_some()).collect());
    }
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| Guest::named(name).ok_or_else(|| TableError::UnknownArchitecture(name.to_owned())))
        .collect()
}

/// Mounts the table, if nothing is mounted there; tells whether it did.
pub fn mount(directory: &Path) -> Result<bool, TableError> {
    if check(directory).is_ok() {
        return Ok(false);
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("binfmt_misc", directory, "binfmt_misc", flags, None)
        .map(|()| true)
        .map_err(|errno| TableError::Mount { path: directory.to_owned(), source: errno.into() })
}

/// Returns the flags that an emulator is registered with: those that distributions give their QEMU, if argv\[0\] can
/// be kept here, and else those of tonistiigi/binfmt.
pub fn flags(qemu: &Qemu) -> &'static str {
    let kernel = kernel_version(&rustix::system::uname().release().to_string_lossy());
    flags_for(qemu.version(), kernel)
}

/// The kernel says since 5.12 that it kept argv\[0\], and QEMU asks since 6.0. If one says it and the other does not
/// ask, a program's first argument is its path once more.
fn flags_for(qemu: Option<Version>, kernel: (u32, u32)) -> &'static str {
    let is_told = kernel >= (5, 12) && qemu.is_some_and(|version| version.major >= 6);
    if is_told { binfmt::FLAGS } else { "CF" }
}

/// Registers the emulator of an architecture, replacing an entry of the same name.
///
/// An emulator in a directory that may go away is no problem if the flags have an `F`: the table holds the
/// open file.
pub fn install(directory: &Path, qemu: &Qemu, flags: &str) -> Result<(), TableError> {
    check(directory)?;
    let line = binfmt::registration(qemu.guest, &qemu.path, flags)?;
    let name = qemu.guest.entry_name();
    let entry = directory.join(&name);
    if entry.exists() {
        remove(&entry, &name)?;
    }
    write(&directory.join("register"), &line).map_err(|source| TableError::Register { name, source })
}

/// Removes entries by name, architecture or pattern with `*`, separated by commas; returns their names.
pub fn uninstall(directory: &Path, list: &str) -> Result<Vec<String>, TableError> {
    check(directory)?;
    let entries = read_table(directory);
    let mut removed = Vec::new();
    for wanted in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let by_architecture = Guest::named(wanted).map(Guest::entry_name);
        let matches = |entry: &&Entry| {
            matches_pattern(wanted, &entry.name) || by_architecture.as_ref() == Some(&entry.name)
        };
        let found: Vec<&Entry> = entries.iter().filter(matches).collect();
        if found.is_empty() {
            return Err(TableError::NoSuchEntry(wanted.to_owned()));
        }
        for entry in found {
            if !removed.contains(&entry.name) {
                remove(&directory.join(&entry.name), &entry.name)?;
                removed.push(entry.name.clone());
            }
        }
    }
    Ok(removed)
}

fn check(directory: &Path) -> Result<(), TableError> {
    if directory.join("register").exists() {
        Ok(())
    } else {
        Err(TableError::NotMounted(directory.to_owned()))
    }
}

fn remove(entry: &Path, name: &str) -> Result<(), TableError> {
    write(entry, "-1").map_err(|source| TableError::Remove { name: name.to_owned(), source })
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Matches a name with a pattern in which `*` stands for anything.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::PrivateBinfmt;

    #[test]
    fn argv0_is_kept_where_the_emulator_is_told() {
        let qemu = |major| Some(Version { major, minor: 2 });
        assert_eq!(flags_for(qemu(7), (6, 1)), "POCF");
        assert_eq!(flags_for(qemu(6), (5, 12)), "POCF");
        assert_eq!(flags_for(qemu(7), (5, 11)), "CF");
        assert_eq!(flags_for(qemu(5), (6, 1)), "CF");
        assert_eq!(flags_for(None, (6, 1)), "CF");
    }

    fn facts() -> HostFacts {
        let mut facts = HostFacts::new(Platform::linux("amd64", None), PrivateBinfmt::Available, true);
        facts.emulators = ["arm64", "s390x", "386"].map(|a| Qemu::new(Guest::of(a).unwrap(), "/q")).to_vec();
        facts
    }

    #[test]
    fn lists_name_architectures_or_all() {
        let names = |list: &str| -> Vec<&str> {
            parse_list(list, &facts()).unwrap().iter().map(|guest| guest.architecture).collect()
        };
        assert_eq!(names("all"), ["arm64", "s390x"]);
        assert_eq!(names("arm64, linux/arm/v7,riscv64"), ["arm64", "arm", "riscv64"]);
        let error = parse_list("arm64,vax", &facts()).unwrap_err();
        assert_eq!(error.to_string(), "unknown architecture `vax`");
        assert!(error.hint().is_some_and(|hint| hint.contains("s390x")));
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, matches) in [
            ("qemu-*", "qemu-arm", true),
            ("qemu-arm", "qemu-arm", true),
            ("qemu-arm", "qemu-armeb", false),
            ("*", "anything", true),
            ("q*-a*m", "qemu-arm", true),
            ("q*-a*x", "qemu-arm", false),
            ("*arm", "qemu-armeb", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_directory_that_is_no_table_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let error = status(directory.path(), &facts()).unwrap_err();
        assert!(matches!(error, TableError::NotMounted(_)));
        assert!(error.hint().is_some_and(|hint| hint.contains("mount -t binfmt_misc")));
        assert!(uninstall(directory.path(), "qemu-*").is_err());
    }

    #[test]
    fn status_lists_platforms_and_entries() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("register"), "").unwrap();
        std::fs::write(directory.path().join("status"), "enabled").unwrap();
        let guest = Guest::of("arm").unwrap();
        let hex = |bytes: [u8; 20]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let text = format!(
            "enabled\ninterpreter /usr/bin/qemu-arm\nflags: OCF\noffset 0\nmagic {}\nmask {}\n",
            hex(guest.magic()),
            hex(guest.mask())
        );
        std::fs::write(directory.path().join("qemu-arm"), text).unwrap();
        let status = status(directory.path(), &facts()).unwrap();
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"supported":["linux/amd64","linux/386","linux/arm/v7","linux/arm/v6"],"emulators":["qemu-arm"]}"#
        );
    }
}
