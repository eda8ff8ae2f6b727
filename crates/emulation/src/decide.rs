//! The decision how a platform's programs run on a machine: pure, from facts.

use slipway_model::{Hint, Platform};

use crate::binfmt::Entry;
use crate::guest::{GUESTS, Guest};
use crate::host::{HostFacts, PrivateBinfmt};
use crate::qemu::Qemu;

/// How the programs of a platform run here.
#[derive(Clone, Debug, PartialEq)]
pub enum Emulator {
    /// By the CPU itself.
    Native,
    /// By QEMU, through a binfmt_misc table of slipway's own.
    PrivateBinfmt(Qemu),
    /// By whatever the host's binfmt_misc table names.
    HostBinfmt(Handler),
    /// Not at all.
    Unsupported(Reason),
}

/// An entry of the host's table that will be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    pub entry: Entry,
    /// The entry lacks this flag, without which some programs fail.
    pub missing_flags: Vec<char>,
}

/// Says why a platform cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("programs for `{platform}` do not run on Linux")]
    NotLinux { platform: Platform },
    #[error("no emulator is known for `{platform}`")]
    UnknownArchitecture { platform: Platform },
    #[error("no emulator for `{platform}`: `qemu-{qemu}-static` was not found")]
    NoEmulator { platform: Platform, qemu: &'static str },
    #[error("no emulator for `{platform}`: {private}, and the host's binfmt_misc table has no entry for it")]
    NoTable { platform: Platform, architecture: &'static str, private: String, emulator_found: bool },
}

impl Reason {
    /// Names what mends it.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NotLinux { .. } | Self::UnknownArchitecture { .. } => None,
            Self::NoEmulator { .. } => Some(
                "install the emulators: `apt install qemu-user-static` (or `dnf install qemu-user-static`), or name \
                 their directory in SLIPWAY_QEMU_DIR"
                    .to_owned(),
            ),
            Self::NoTable { architecture, emulator_found: true, .. } => {
                Some(format!("run `sudo slipway binfmt --install {architecture}`"))
            }
            Self::NoTable { architecture, .. } => Some(format!(
                "run `apt install qemu-user-static` and `sudo slipway binfmt --install {architecture}`"
            )),
        }
    }
}

/// Decides how the programs of `platform` run.
///
/// A private table with an emulator of ours comes before the host's table: then the same build runs
/// under the same emulator on every machine.
pub fn decide(facts: &HostFacts, platform: &Platform) -> Emulator {
    if platform.os != "linux" {
        return Emulator::Unsupported(Reason::NotLinux { platform: platform.clone() });
    }
    if is_native(facts, platform) {
        return Emulator::Native;
    }
    let Some(guest) = Guest::of(&platform.architecture) else {
        return Emulator::Unsupported(Reason::UnknownArchitecture { platform: platform.clone() });
    };
    let emulator = facts.emulator(guest);
    let private = match (&facts.private_binfmt, emulator) {
        (PrivateBinfmt::Available, Some(qemu)) => return Emulator::PrivateBinfmt(qemu.clone()),
        (PrivateBinfmt::Available, None) => None,
        (PrivateBinfmt::OldKernel { release }, _) => {
            Some(format!("Linux {release} is too old for a private binfmt_misc table (6.7 has it)"))
        }
        (PrivateBinfmt::Refused(reason), _) => {
            Some(format!("a private binfmt_misc table is not possible ({reason})"))
        }
    };
    if let Some(entry) = facts.handler(guest) {
        let missing_flags = "POCF".chars().filter(|flag| !entry.flags.contains(*flag)).collect();
        return Emulator::HostBinfmt(Handler { entry: entry.clone(), missing_flags });
    }
    Emulator::Unsupported(match private {
        None => Reason::NoEmulator { platform: platform.clone(), qemu: guest.qemu },
        Some(private) => Reason::NoTable {
            platform: platform.clone(),
            architecture: guest.architecture,
            private,
            emulator_found: emulator.is_some(),
        },
    })
}

/// Lists the platforms whose programs run here, the host's own first; old variants that nobody uses are left out.
pub fn runnable(facts: &HostFacts) -> Vec<Platform> {
    let mut own = facts.native_platforms();
    own.sort_by_key(|platform| {
        (platform.architecture != facts.platform.architecture, platform.variant.clone())
    });
    let foreign = GUESTS.iter().flat_map(|guest| {
        let platforms = Platform::linux(guest.architecture, None).compatible();
        platforms.into_iter().filter(|platform| platform.architecture == guest.architecture)
    });
    for platform in foreign.filter(|platform| platform.variant.as_deref() != Some("v5")) {
        let runs = !matches!(decide(facts, &platform), Emulator::Unsupported(_));
        if runs && !own.contains(&platform) {
            own.push(platform);
        }
    }
    own
}

/// Tells whether the CPU runs the programs; levels of one architecture all count as native.
fn is_native(facts: &HostFacts, platform: &Platform) -> bool {
    match (facts.platform.architecture.as_str(), platform.architecture.as_str()) {
        // A newer arm variant than the CPU's has to be emulated, an older one runs.
        ("arm", "arm") => facts.platform.accepts(platform),
        (host, wanted) if host == wanted => true,
        ("amd64", "386") | ("arm64", "arm") => facts.runs_32bit(),
        _ => false,
    }
}

/// Warns of a platform that asks for a newer CPU than this one: programs built for it may crash.
pub fn cpu_level_warning(facts: &HostFacts, platform: &Platform) -> Option<String> {
    let host = &facts.platform;
    if platform.architecture != "amd64" || host.architecture != "amd64" || host.accepts(platform) {
        return None;
    }
    Some(format!(
        "`{platform}` needs a newer CPU than this one (`{host}`): its programs may stop with SIGILL"
    ))
}

/// Tells whether a step has to be shown a 32-bit machine by `uname -m` (`PER_LINUX32`).
pub fn needs_linux32(facts: &HostFacts, platform: &Platform) -> bool {
    let pair = (facts.platform.architecture.as_str(), platform.architecture.as_str());
    matches!(pair, ("amd64", "386") | ("arm64", "arm")) && is_native(facts, platform)
}

impl Emulator {
    /// Tells whether the programs are emulated.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Self::PrivateBinfmt(_) | Self::HostBinfmt(_))
    }

    /// Returns the variables that have to be in the environment of a step.
    ///
    /// The host's emulator gets none: it is unknown which CPUs it has.
    pub fn env(&self, platform: &Platform) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::PrivateBinfmt(qemu) => qemu.env(platform),
            _ => Vec::new(),
        }
    }

    /// Describes the emulator for the name of a step; `None` if there is none.
    pub fn describe(&self, platform: &Platform) -> Option<String> {
        match self {
            Self::PrivateBinfmt(qemu) => Some(qemu.describe(platform)),
            Self::HostBinfmt(handler) => Some(format!("host's {}", handler.entry.name)),
            Self::Native | Self::Unsupported(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Version;

    fn facts(host: &str, private: PrivateBinfmt) -> HostFacts {
        HostFacts::new(host.parse().unwrap(), private, true)
    }

    fn qemu(architecture: &str) -> Qemu {
        let version = Version { major: 7, minor: 2 };
        Qemu::new(Guest::of(architecture).unwrap(), "/usr/bin/qemu").with_version(Some(version))
    }

    fn of(facts: &HostFacts, platform: &str) -> Emulator {
        decide(facts, &platform.parse().unwrap())
    }

    fn entry(architecture: &str, flags: &str) -> Entry {
        let guest = Guest::of(architecture).unwrap();
        Entry {
            name: guest.entry_name(),
            enabled: true,
            flags: flags.to_owned(),
            magic: guest.magic().to_vec(),
            mask: guest.mask().to_vec(),
            ..Entry::default()
        }
    }

    #[test]
    fn what_the_cpu_runs_is_native() {
        let host = facts("linux/amd64/v3", PrivateBinfmt::Available);
        for platform in ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4", "linux/386"] {
            assert_eq!(of(&host, platform), Emulator::Native, "{platform}");
        }
        let arm64 = facts("linux/arm64", PrivateBinfmt::Available);
        assert_eq!(of(&arm64, "linux/arm/v7"), Emulator::Native);
        assert!(needs_linux32(&arm64, &"linux/arm/v6".parse().unwrap()));
        assert!(needs_linux32(&host, &"linux/386".parse().unwrap()));
        assert!(!needs_linux32(&host, &"linux/amd64".parse().unwrap()));
        let only64 = HostFacts::new("linux/arm64".parse().unwrap(), PrivateBinfmt::Available, false);
        assert!(matches!(of(&only64, "linux/arm/v7"), Emulator::Unsupported(Reason::NoEmulator { .. })));
        assert!(!needs_linux32(&only64, &"linux/arm/v7".parse().unwrap()));
        assert!(cpu_level_warning(&host, &"linux/amd64/v4".parse().unwrap()).is_some());
        assert!(cpu_level_warning(&host, &"linux/amd64/v3".parse().unwrap()).is_none());
    }

    #[test]
    fn a_private_table_comes_before_the_hosts() {
        let mut host = facts("linux/amd64", PrivateBinfmt::Available);
        host.handlers.push(entry("arm64", "F"));
        assert!(matches!(of(&host, "linux/arm64"), Emulator::HostBinfmt(_)));
        host.emulators.push(qemu("arm64"));
        let Emulator::PrivateBinfmt(chosen) = of(&host, "linux/arm64") else { panic!() };
        assert_eq!(chosen, qemu("arm64"));
        host.refuse_private_binfmt("AppArmor");
        let Emulator::HostBinfmt(handler) = of(&host, "linux/arm64") else { panic!() };
        assert_eq!(handler.missing_flags, ['P', 'O', 'C']);
    }

    #[test]
    fn refusals_name_the_remedy() {
        let refusal = |facts: &HostFacts, platform: &str| match of(facts, platform) {
            Emulator::Unsupported(reason) => (reason.to_string(), reason.hint().unwrap_or_default()),
            other => panic!("{other:?}"),
        };
        let (text, hint) = refusal(&facts("linux/amd64", PrivateBinfmt::Available), "linux/s390x");
        assert_eq!(text, "no emulator for `linux/s390x`: `qemu-s390x-static` was not found");
        assert!(hint.contains("apt install qemu-user-static"), "{hint}");

        let old = PrivateBinfmt::OldKernel { release: "6.1.0".into() };
        let mut host = facts("linux/amd64", old);
        let (text, hint) = refusal(&host, "linux/arm/v7");
        assert!(text.contains("Linux 6.1.0 is too old"), "{text}");
        assert!(hint.contains("binfmt --install arm") && hint.contains("apt install"), "{hint}");
        host.emulators.push(qemu("arm"));
        assert_eq!(refusal(&host, "linux/arm/v7").1, "run `sudo slipway binfmt --install arm`");

        assert!(refusal(&host, "windows/amd64").0.contains("do not run on Linux"));
        assert!(refusal(&host, "linux/wasm").0.contains("no emulator is known"));
    }

    #[test]
    fn descriptions_and_variables_are_for_our_own_emulators() {
        let platform: Platform = "linux/arm64".parse().unwrap();
        let ours = Emulator::PrivateBinfmt(qemu("arm64"));
        assert_eq!(ours.describe(&platform).unwrap(), "qemu-aarch64 7.2 (cpu max,pauth-impdef=on)");
        assert_eq!(ours.env(&platform), [("QEMU_CPU", "max,pauth-impdef=on")]);
        let theirs = Emulator::HostBinfmt(Handler { entry: entry("arm64", "F"), missing_flags: vec![] });
        assert_eq!(theirs.describe(&platform).unwrap(), "host's qemu-aarch64");
        assert_eq!(theirs.env(&platform), []);
        assert!(theirs.is_emulated() && !Emulator::Native.is_emulated());
        assert_eq!(Emulator::Native.describe(&platform), None);
    }

    #[test]
    fn what_runs_is_listed_with_the_host_first() {
        let mut facts = HostFacts::new(Platform::linux("amd64", Some("v2")), PrivateBinfmt::Available, true);
        facts.emulators = ["arm64", "arm"].map(|a| Qemu::new(Guest::of(a).unwrap(), "/q")).to_vec();
        let names: Vec<String> = runnable(&facts).iter().map(ToString::to_string).collect();
        let wanted =
            ["linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64", "linux/arm/v7", "linux/arm/v6"];
        assert_eq!(names, wanted);
    }
}
