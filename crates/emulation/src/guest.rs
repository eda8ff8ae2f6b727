//! The architectures that can be emulated, each with its names and the header of its programs.

use slipway_model::Platform;

use crate::elf::{Class, Endian};

/// One architecture that QEMU's user emulation knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Guest {
    /// The name in platforms, as Go has it.
    pub architecture: &'static str,
    /// The name in `qemu-<name>` and in the binfmt_misc table.
    pub qemu: &'static str,
    pub(crate) class: Class,
    pub(crate) endian: Endian,
    /// `e_machine` of its programs.
    pub(crate) machine: u16,
}

const fn guest(
    architecture: &'static str,
    qemu: &'static str,
    class: Class,
    endian: Endian,
    machine: u16,
) -> Guest {
    Guest { architecture, qemu, class, endian, machine }
}

/// Every architecture that can be registered, the common ones first.
pub const GUESTS: &[Guest] = &[
    guest("amd64", "x86_64", Class::Bits64, Endian::Little, 62),
    guest("arm64", "aarch64", Class::Bits64, Endian::Little, 183),
    guest("arm", "arm", Class::Bits32, Endian::Little, 40),
    guest("386", "i386", Class::Bits32, Endian::Little, 3),
    guest("riscv64", "riscv64", Class::Bits64, Endian::Little, 243),
    guest("ppc64le", "ppc64le", Class::Bits64, Endian::Little, 21),
    guest("s390x", "s390x", Class::Bits64, Endian::Big, 22),
    guest("mips64", "mips64", Class::Bits64, Endian::Big, 8),
    guest("mips64le", "mips64el", Class::Bits64, Endian::Little, 8),
    guest("loong64", "loongarch64", Class::Bits64, Endian::Little, 258),
];

impl Guest {
    /// Finds an architecture by its name in platforms.
    pub fn of(architecture: &str) -> Option<&'static Guest> {
        GUESTS.iter().find(|guest| guest.architecture == architecture)
    }

    /// Finds an architecture by any name that people use: `arm64`, `aarch64`, `linux/arm64`, `qemu-aarch64`.
    pub fn named(name: &str) -> Option<&'static Guest> {
        let plain = name.strip_prefix("qemu-").unwrap_or(name);
        let by_qemu = GUESTS.iter().find(|guest| guest.qemu == plain);
        by_qemu.or_else(|| Self::of(&name.parse::<Platform>().ok()?.architecture))
    }

    /// Returns its name in the binfmt_misc table.
    pub fn entry_name(&self) -> String {
        format!("qemu-{}", self.qemu)
    }

    /// Returns the first 20 bytes of its programs.
    pub fn magic(&self) -> [u8; 20] {
        let mut magic = [0; 20];
        magic[..4].copy_from_slice(b"\x7fELF");
        magic[4] = match self.class {
            Class::Bits32 => 1,
            Class::Bits64 => 2,
        };
        magic[5] = match self.endian {
            Endian::Little => 1,
            Endian::Big => 2,
        };
        magic[6] = 1;
        magic[16..18].copy_from_slice(&self.endian.bytes(2));
        magic[18..20].copy_from_slice(&self.endian.bytes(self.machine));
        magic
    }

    /// Returns which bits of the first 20 bytes count.
    ///
    /// The byte that names the operating system does not, and of the type only what tells programs
    /// (fixed and position-independent) from object files and core dumps.
    pub fn mask(&self) -> [u8; 20] {
        let mut mask = [0xff; 20];
        mask[7] = 0;
        mask[16..18].copy_from_slice(&self.endian.bytes(0xfffe));
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind_are_understood() {
        for (name, architecture) in [
            ("arm64", "arm64"),
            ("aarch64", "arm64"),
            ("qemu-aarch64", "arm64"),
            ("linux/arm64/v8", "arm64"),
            ("linux/arm/v7", "arm"),
            ("x86_64", "amd64"),
            ("i386", "386"),
            ("386", "386"),
            ("mips64el", "mips64le"),
            ("loongarch64", "loong64"),
        ] {
            assert_eq!(Guest::named(name).map(|guest| guest.architecture), Some(architecture), "{name}");
        }
        assert_eq!(Guest::named("vax"), None);
        assert_eq!(Guest::of("sparc"), None);
    }

    #[test]
    fn magic_and_mask_are_those_of_the_tables_in_use() {
        let hex = |bytes: [u8; 20]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let of = |name| Guest::of(name).unwrap();
        assert_eq!(hex(of("arm64").magic()), "7f454c460201010000000000000000000200b700");
        assert_eq!(hex(of("arm64").mask()), "ffffffffffffff00fffffffffffffffffeffffff");
        assert_eq!(hex(of("arm").magic()), "7f454c4601010100000000000000000002002800");
        assert_eq!(hex(of("s390x").magic()), "7f454c4602020100000000000000000000020016");
        assert_eq!(hex(of("s390x").mask()), "ffffffffffffff00fffffffffffffffffffeffff");
        assert_eq!(hex(of("ppc64le").magic()), "7f454c4602010100000000000000000002001500");
        assert_eq!(hex(of("loong64").magic()), "7f454c4602010100000000000000000002000201");
        assert_eq!(hex(of("mips64").magic()), "7f454c4602020100000000000000000000020008");
    }
}
