//! The system call filter of a step: the profile compiled by libseccomp, once per server.
//!
//! The filter is a balanced tree, because the kernel walks it for every system call number when it is
//! installed; a list makes that a good part of a step's start.

mod profile;

use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use crate::sys::seccomp::{Instruction, instructions};

/// The architectures whose programs this machine's kernel runs, besides its own.
#[cfg(target_arch = "x86_64")]
const SUB_ARCHITECTURES: &[ScmpArch] = &[ScmpArch::X86, ScmpArch::X32];
#[cfg(target_arch = "aarch64")]
const SUB_ARCHITECTURES: &[ScmpArch] = &[ScmpArch::Arm];
#[cfg(target_arch = "s390x")]
const SUB_ARCHITECTURES: &[ScmpArch] = &[ScmpArch::S390];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "s390x")))]
const SUB_ARCHITECTURES: &[ScmpArch] = &[];

/// A filter that is compiled when it is first needed.
#[derive(Default)]
pub(crate) struct Filter(Option<Result<Vec<Instruction>, Errno>>);

impl Filter {
    /// Compiles the filter now.
    pub(crate) fn prepare(&mut self) {
        let _ = self.get();
    }

    /// Returns the compiled filter.
    pub(crate) fn get(&mut self) -> Result<&[Instruction], Errno> {
        let compiled = self.0.get_or_insert_with(|| compile().map_err(|Failed(errno)| errno));
        compiled.as_deref().map_err(|errno| *errno)
    }
}

/// Why the filter could not be compiled, as an errno.
struct Failed(Errno);

impl From<libseccomp::error::SeccompError> for Failed {
    fn from(error: libseccomp::error::SeccompError) -> Self {
        Self(error.sysrawrc().map_or(Errno::INVAL, Errno::from_raw_os_error))
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

/// Compiles the profile for this machine.
fn compile() -> Result<Vec<Instruction>, Failed> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::EPERM))?;
    filter.set_ctl_nnp(false)?;
    filter.set_ctl_optimize(2)?;
    for architecture in SUB_ARCHITECTURES {
        filter.add_arch(*architecture)?;
    }
    for name in profile::ALLOWED.iter().chain(profile::ALLOWED_HERE) {
        if let Ok(call) = ScmpSyscall::from_name(name) {
            filter.add_rule(ScmpAction::Allow, call)?;
        }
    }
    let mut allow_if = |name: &str, argument: u32, operator: ScmpCompareOp, value: u64| {
        let call = ScmpSyscall::from_name(name)?;
        let condition = ScmpArgCompare::new(argument, operator, value);
        filter.add_rule_conditional(ScmpAction::Allow, call, &[condition]).map(drop)
    };
    for value in profile::PERSONALITIES {
        allow_if("personality", 0, ScmpCompareOp::Equal, *value)?;
    }
    allow_if("socket", 0, ScmpCompareOp::Less, profile::SOCKET_BELOW)?;
    allow_if("socket", 0, ScmpCompareOp::Equal, profile::SOCKET_BETWEEN)?;
    allow_if("socket", 0, ScmpCompareOp::Greater, profile::SOCKET_ABOVE)?;
    // On s390 the flags are the second argument.
    let flags = if cfg!(target_arch = "s390x") { 1 } else { 0 };
    allow_if("clone", flags, ScmpCompareOp::MaskedEqual(profile::CLONE_NAMESPACES), 0)?;
    // The flags of clone3 are behind a pointer that a filter cannot follow: pretend that it is missing,
    // and C libraries use clone.
    filter.add_rule(ScmpAction::Errno(libc::ENOSYS), ScmpSyscall::from_name("clone3")?)?;
    let memory = rustix::fs::memfd_create("slipway-filter", MemfdFlags::CLOEXEC)?;
    filter.export_bpf(&memory)?;
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(memory);
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|_| Errno::IO)?;
    let mut program = newer_calls();
    program.extend(instructions(&bytes));
    Ok(program)
}

/// Decides system calls that are newer than the library; the rest falls through to the filter proper.
fn newer_calls() -> Vec<Instruction> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Tells x32 calls from others; the numbers are the same without it.
    const X32_BIT: u32 = 0x4000_0000;

    let instruction = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let allowed = profile::NEW_ALLOWED;
    // The number is the first field of the data that a filter sees.
    let mut program = vec![instruction(LOAD, 0, 0, 0)];
    if cfg!(target_arch = "x86_64") {
        program.push(instruction(AND, 0, 0, !X32_BIT));
    }
    // The list has a dozen entries: the jumps fit in a byte.
    let count = u8::try_from(allowed.len()).unwrap_or(u8::MAX - 2);
    program.push(instruction(JUMP_IF_AT_LEAST, 0, count + 2, profile::FIRST_NEW));
    for (index, number) in (0..count).zip(allowed) {
        program.push(instruction(JUMP_IF_EQUAL, count - index, 0, *number));
    }
    program.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()));
    program.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

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
        let mut filter = Filter::default();
        let program = filter.get().unwrap();
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

    #[test]
    fn every_name_that_the_library_misses_is_a_known_exception() {
        let unknown: Vec<_> =
            profile::ALLOWED.iter().filter(|name| ScmpSyscall::from_name(name).is_err()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
