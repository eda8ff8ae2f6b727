//! Asks the kernel whether it runs 32-bit programs, by running the smallest one there is.
//!
//! Kernels can be built, booted or virtualised without; no file tells reliably.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use rustix::fs::MemfdFlags;

/// A program that does nothing but exit with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    I386,
    Arm,
}

/// Tells whether the kernel runs the program.
pub(crate) fn runs(probe: Probe) -> bool {
    let Ok(memory) = rustix::fs::memfd_create("slipway-probe", MemfdFlags::CLOEXEC) else { return false };
    let mut file = std::fs::File::from(memory);
    if file.write_all(&program(probe)).is_err() {
        return false;
    }
    // A file that is open for writing cannot be executed: open it anew, for reading.
    let Ok(program) = std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
        return false;
    };
    drop(file);
    let mut command = Command::new(format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd()));
    let status =
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Puts headers before the code of a program: one segment with everything in it.
fn program(probe: Probe) -> Vec<u8> {
    const BASE: u32 = 0x10000;
    const HEADERS: u32 = 52 + 32;
    let (machine, flags, code): (u16, u32, &[u8]) = match probe {
        // mov eax, 1; xor ebx, ebx; int 0x80
        Probe::I386 => (3, 0, &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80]),
        // mov r0, #0; mov r7, #1; svc 0
        Probe::Arm => (40, 0x0500_0000, &[0, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef]),
    };
    let size = HEADERS + u32::try_from(code.len()).unwrap_or_default();
    let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2, machine] {
        bytes.extend(half.to_le_bytes());
    }
    for word in [1, BASE + HEADERS, 52, 0, flags] {
        bytes.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(code);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf;

    #[test]
    fn the_programs_are_what_they_claim() {
        for (probe, architecture) in [(Probe::I386, "386"), (Probe::Arm, "arm")] {
            let header = elf::inspect(&program(probe)).unwrap();
            assert_eq!(header.platform().unwrap().architecture, architecture);
        }
    }

    #[test]
    fn the_answer_agrees_with_the_kernels_settings() {
        // The file is there if 32-bit programs were compiled into the kernel; they can still be off.
        if cfg!(target_arch = "x86_64") && runs(Probe::I386) {
            assert!(std::path::Path::new("/proc/sys/abi/vsyscall32").exists());
        }
    }

    #[test]
    fn a_program_of_another_family_does_not_run() {
        // With an emulator in the host's table it would.
        if cfg!(target_arch = "x86_64") && !std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-arm").exists()
        {
            assert!(!runs(Probe::Arm));
        }
    }
}
