//! Which platform a file is for, by its first bytes; and which loader it asks for.
//!
//! Reads untrusted bytes: every offset is checked, nothing is believed about a size.

use slipway_model::Platform;

/// How many first bytes [`inspect`] looks at.
pub const HEAD: usize = 64;

/// Longest path of a program interpreter that is believed.
const MAX_INTERPRETER: u64 = 4096;

/// Most program headers that are looked at.
const MAX_HEADERS: u16 = 256;

const PT_INTERP: u32 = 3;

/// Word size of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Bits32,
    Bits64,
}

/// Byte order of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    Little,
    Big,
}

impl Endian {
    pub(crate) const fn bytes(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn unsigned(self, bytes: &[u8]) -> u64 {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        match self {
            Self::Little => bytes.iter().rev().fold(0, fold),
            Self::Big => bytes.iter().fold(0, fold),
        }
    }
}

/// What a file is, as far as running it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    Elf(ElfHeader),
    /// A script with the interpreter of its first line.
    Script {
        interpreter: String,
    },
    /// A program of Windows (or of UEFI).
    PortableExecutable,
    /// A program of macOS.
    MachO,
    /// Nothing that a kernel runs, as far as the first bytes tell.
    Other,
}

/// What the header of an ELF file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfHeader {
    pub class: Class,
    pub endian: Endian,
    pub kind: ElfKind,
    pub machine: u16,
    pub flags: u32,
    headers_at: u64,
    header_size: u16,
    header_count: u16,
}

/// Type of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfKind {
    Object,
    /// A program at a fixed address.
    Executable,
    /// A library, or a position-independent program.
    Shared,
    Other,
}

/// Tells what a file is by its first bytes ([`HEAD`] of them, or all it has).
pub fn kind(head: &[u8]) -> FileKind {
    match head {
        [0x7f, b'E', b'L', b'F', ..] => inspect(head).map_or(FileKind::Other, FileKind::Elf),
        [b'#', b'!', rest @ ..] => script(rest),
        [b'M', b'Z', ..] => FileKind::PortableExecutable,
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => FileKind::MachO,
        // Universal binaries share their mark with Java classes, which have a version above 40 there.
        [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, count, ..] if *count < 40 => FileKind::MachO,
        _ => FileKind::Other,
    }
}

fn script(rest: &[u8]) -> FileKind {
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    match text.split_ascii_whitespace().next() {
        Some(interpreter) => FileKind::Script { interpreter: interpreter.to_owned() },
        None => FileKind::Other,
    }
}

/// Reads an ELF header; `None` if these bytes are none.
pub fn inspect(head: &[u8]) -> Option<ElfHeader> {
    if head.len() < 52 || &head[..4] != b"\x7fELF" {
        return None;
    }
    let class = match head[4] {
        1 => Class::Bits32,
        2 => Class::Bits64,
        _ => return None,
    };
    let endian = match head[5] {
        1 => Endian::Little,
        2 => Endian::Big,
        _ => return None,
    };
    let field = |at: usize, size: usize| head.get(at..at + size).map(|bytes| endian.unsigned(bytes));
    let short = |at: usize| field(at, 2).and_then(|value| u16::try_from(value).ok());
    let (headers_at, flags_at, size_at) = match class {
        Class::Bits32 => (field(28, 4)?, 36, 42),
        Class::Bits64 => (field(32, 8)?, 48, 54),
    };
    Some(ElfHeader {
        class,
        endian,
        kind: match short(16)? {
            1 => ElfKind::Object,
            2 => ElfKind::Executable,
            3 => ElfKind::Shared,
            _ => ElfKind::Other,
        },
        machine: short(18)?,
        flags: u32::try_from(field(flags_at, 4)?).ok()?,
        headers_at,
        header_size: short(size_at)?,
        header_count: short(size_at + 2)?,
    })
}

impl ElfHeader {
    /// Returns the platform that the file is for; `None` if no platform has such programs.
    ///
    /// The header does not tell one arm variant from another: hard-float ones are `arm/v7` here.
    pub fn platform(&self) -> Option<Platform> {
        use {
            Class::{Bits32, Bits64},
            Endian::{Big, Little},
        };
        let (architecture, variant) = match (self.machine, self.class, self.endian) {
            // x32 programs (32-bit class) run on amd64 too.
            (62, _, Little) => ("amd64", None),
            (3, Bits32, Little) => ("386", None),
            (183, Bits64, Little) => ("arm64", None),
            (40, Bits32, Little) => ("arm", Some(self.arm_variant())),
            (21, Bits64, Little) => ("ppc64le", None),
            (21, Bits64, Big) => ("ppc64", None),
            (22, Bits64, Big) => ("s390x", None),
            (243, Bits64, Little) => ("riscv64", None),
            (8, Bits64, Big) => ("mips64", None),
            (8, Bits64, Little) => ("mips64le", None),
            (8, Bits32, Big) => ("mips", None),
            (8, Bits32, Little) => ("mipsle", None),
            (258, Bits64, Little) => ("loong64", None),
            _ => return None,
        };
        Some(Platform::linux(architecture, variant))
    }

    fn arm_variant(&self) -> &'static str {
        const EF_ARM_SOFT_FLOAT: u32 = 0x200;
        if self.flags & EF_ARM_SOFT_FLOAT != 0 { "v5" } else { "v7" }
    }

    /// Tells whether the file is something that is run or loaded, not an object file or a core dump.
    pub fn is_runnable(&self) -> bool {
        matches!(self.kind, ElfKind::Executable | ElfKind::Shared)
    }
}

/// Tells whether a machine of `platform` can run the file, as far as its header tells.
///
/// 386 programs run on amd64, 32-bit arm ones on arm64, and all arm variants count as one.
pub fn runs_on(header: &ElfHeader, platform: &Platform) -> bool {
    let Some(own) = header.platform() else { return false };
    match (own.architecture.as_str(), platform.architecture.as_str()) {
        (file, target) if file == target => true,
        ("386", "amd64") | ("arm", "arm64") => true,
        _ => false,
    }
}

/// Returns the path of the loader that a program asks for (`PT_INTERP`), if it asks for one.
///
/// `read` returns up to as many bytes as it is asked for, from an offset of the file.
pub fn interpreter<E>(
    header: &ElfHeader,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<String>, E> {
    let (offset_at, size_at, word) = match header.class {
        Class::Bits32 => (4, 16, 4),
        Class::Bits64 => (8, 32, 8),
    };
    let size = usize::from(header.header_size);
    if size < size_at + word || header.header_count == 0 {
        return Ok(None);
    }
    let count = usize::from(header.header_count.min(MAX_HEADERS));
    let headers = read(header.headers_at, size * count)?;
    for entry in headers.chunks_exact(size) {
        if header.endian.unsigned(&entry[..4]) != u64::from(PT_INTERP) {
            continue;
        }
        let offset = header.endian.unsigned(&entry[offset_at..offset_at + word]);
        let length = header.endian.unsigned(&entry[size_at..size_at + word]).min(MAX_INTERPRETER);
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let bytes = read(offset, length)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(std::str::from_utf8(text).ok().filter(|path| !path.is_empty()).map(str::to_owned));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GUESTS;

    /// Makes a header of 64 bytes.
    fn header(class: u8, data: u8, machine: u16, flags: u32) -> Vec<u8> {
        let endian = if data == 2 { Endian::Big } else { Endian::Little };
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, data, 1]);
        bytes[16..18].copy_from_slice(&endian.bytes(2));
        bytes[18..20].copy_from_slice(&endian.bytes(machine));
        let at = if class == 1 { 36 } else { 48 };
        let flags = if data == 2 { flags.to_be_bytes() } else { flags.to_le_bytes() };
        bytes[at..at + 4].copy_from_slice(&flags);
        bytes
    }

    #[test]
    fn headers_name_their_platforms() {
        for (class, data, machine, flags, platform) in [
            (2, 1, 62, 0, "linux/amd64"),
            (1, 1, 3, 0, "linux/386"),
            (2, 1, 183, 0, "linux/arm64"),
            (1, 1, 40, 0x0500_0400, "linux/arm/v7"),
            (1, 1, 40, 0x0500_0200, "linux/arm/v5"),
            (2, 1, 21, 2, "linux/ppc64le"),
            (2, 2, 22, 0, "linux/s390x"),
            (2, 1, 243, 5, "linux/riscv64"),
            (2, 2, 8, 0, "linux/mips64"),
            (2, 1, 8, 0, "linux/mips64le"),
            (2, 1, 258, 0, "linux/loong64"),
        ] {
            let found = inspect(&header(class, data, machine, flags)).unwrap();
            assert_eq!(found.platform().unwrap().to_string(), platform);
            assert!(found.is_runnable());
        }
        assert_eq!(inspect(&header(2, 1, 9999, 0)).unwrap().platform(), None);
        for guest in GUESTS {
            let mut head = guest.magic().to_vec();
            head.resize(HEAD, 0);
            assert_eq!(inspect(&head).unwrap().platform().unwrap().architecture, guest.architecture);
        }
    }

    #[test]
    fn compatible_programs_run() {
        let runs =
            |bytes: Vec<u8>, platform: &str| runs_on(&inspect(&bytes).unwrap(), &platform.parse().unwrap());
        let (amd64, x86, arm64) = (header(2, 1, 62, 0), header(1, 1, 3, 0), header(2, 1, 183, 0));
        let arm = header(1, 1, 40, 0x0500_0400);
        assert!(runs(amd64.clone(), "linux/amd64/v3"));
        assert!(runs(x86.clone(), "linux/amd64"));
        assert!(!runs(amd64.clone(), "linux/386"));
        assert!(!runs(amd64, "linux/arm64"));
        assert!(runs(arm.clone(), "linux/arm/v6"));
        assert!(runs(arm, "linux/arm64"));
        assert!(!runs(arm64, "linux/arm/v7"));
        assert!(!runs(x86, "linux/arm64"));
    }

    #[test]
    fn other_files_are_told_apart() {
        assert_eq!(kind(b""), FileKind::Other);
        assert_eq!(kind(b"\x7fELF"), FileKind::Other);
        assert_eq!(kind(b"MZ\x90\0"), FileKind::PortableExecutable);
        assert_eq!(kind(b"\xcf\xfa\xed\xfe"), FileKind::MachO);
        assert_eq!(kind(b"\xca\xfe\xba\xbe\0\0\0\x02"), FileKind::MachO);
        assert_eq!(kind(b"\xca\xfe\xba\xbe\0\0\0\x34"), FileKind::Other);
        assert_eq!(kind(b"#! /bin/sh -e\nx"), FileKind::Script { interpreter: "/bin/sh".into() });
        assert_eq!(kind(b"#!\n"), FileKind::Other);
        assert!(matches!(kind(&header(2, 1, 62, 0)), FileKind::Elf(_)));
    }

    #[test]
    fn the_loader_is_found_and_hostile_headers_are_survived() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let read = |at: u64, length: usize| -> Result<Vec<u8>, ()> {
            let start = usize::try_from(at).unwrap_or(usize::MAX).min(own.len());
            Ok(own[start..start.saturating_add(length).min(own.len())].to_vec())
        };
        let found = interpreter(&inspect(&own).unwrap(), read).unwrap();
        assert!(found.is_none_or(|path| path.starts_with('/')));

        let mut hostile = header(2, 1, 62, 0);
        hostile[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        for (size, count) in [(56_u16, 0xffff_u16), (0, 1), (1, 1), (0xffff, 0xffff)] {
            hostile[54..56].copy_from_slice(&size.to_le_bytes());
            hostile[56..58].copy_from_slice(&count.to_le_bytes());
            assert_eq!(interpreter(&inspect(&hostile).unwrap(), read).unwrap(), None);
        }
        // A program header that asks for a loader far behind the end of the file.
        let entry =
            [3_u32.to_le_bytes().as_slice(), &[0; 4], &[0xff; 8], &[0; 16], &[0xff; 8], &[0; 16]].concat();
        hostile[54..58].copy_from_slice(&[56, 0, 1, 0]);
        let lying = |at: u64, _: usize| -> Result<Vec<u8>, ()> {
            Ok(if at == u64::MAX { Vec::new() } else { entry.clone() })
        };
        hostile[32..40].copy_from_slice(&64_u64.to_le_bytes());
        assert_eq!(interpreter(&inspect(&hostile).unwrap(), lying).unwrap(), None);
    }
}
