//! The system call filter of a step: the default profile of container engines.
//!
//! The build script compiles it (`build/main.rs`, from `build/profile.rs`).

use crate::sys::seccomp::Instruction;

/// The instructions, ready to install.
pub(crate) static FILTER: &[Instruction] = &include!(concat!(env!("OUT_DIR"), "/filter.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does, for one call.
    fn decide(program: &[Instruction], number: u32, architecture: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend([0; 8]);
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        let (mut a, mut at) = (0_u32, 0_usize);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match code {
                0x20 => {
                    let k = k as usize;
                    a = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                }
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_profile_allows_and_refuses_what_it_should() {
        const AMD64: u32 = 0xc000_003e;
        const I386: u32 = 0x4000_0003;
        let program = FILTER;
        assert!(program.len() < 4096, "{}", program.len());
        let with = |number: i64, arg: u64| decide(program, number as u32, AMD64, [arg, 0, 0, 0, 0, 0]);
        let plain = |number: i64| with(number, 0);
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_chroot, libc::SYS_ptrace, 452, 462, 466] {
            assert_eq!(plain(number), ALLOW, "{number}");
        }
        for number in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_bpf, libc::SYS_keyctl, libc::SYS_setns] {
            assert_eq!(plain(number), EPERM, "{number}");
        }
        for number in [libc::SYS_clone3, 459, 467, 600, 0x4000_0000 + 600] {
            assert_eq!(plain(number), ENOSYS, "{number}");
        }
        assert_eq!(with(libc::SYS_clone, 0x11), ALLOW);
        assert_eq!(with(libc::SYS_clone, 0x1000_0000), EPERM);
        assert_eq!(with(libc::SYS_socket, 2), ALLOW);
        assert_eq!(with(libc::SYS_socket, 38), EPERM);
        assert_eq!(with(libc::SYS_socket, 40), EPERM);
        assert_eq!(with(libc::SYS_personality, 8), ALLOW);
        assert_eq!(with(libc::SYS_personality, 0x4_0000), EPERM);
        // 32-bit: 3 is read, 21 is mount; x32: read with its bit.
        assert_eq!(decide(program, 3, I386, [0; 6]), ALLOW);
        assert_eq!(decide(program, 21, I386, [0; 6]), EPERM);
        assert_eq!(decide(program, 452, I386, [0; 6]), ALLOW);
        assert_eq!(decide(program, 0x4000_0000, AMD64, [0; 6]), ALLOW);
        // A call of an architecture that this kernel does not have.
        assert_eq!(decide(program, 0, 0xc000_00b7, [0; 6]) & 0xffff_0000, libc::SECCOMP_RET_KILL_THREAD);
    }
}
