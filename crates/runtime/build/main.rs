//! Compiles the system call filter of build steps, with the library that container engines use.
//!
//! The profile does not depend on the machine, and libseccomp takes some 20 ms to compile it: too long
//! for the start of a build, so that the program carries the finished instructions. libseccomp is needed
//! to build slipway and not to run it. The filter is a balanced tree, because the kernel walks it for
//! every system call number when it is installed; a list makes that a good part of a step's start.

#![allow(clippy::print_stdout, reason = "that is how a build script speaks to cargo")]

mod profile;

use std::error::Error;
use std::fmt::Write;
use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;

/// One instruction of a filter, as in the kernel's `struct sock_filter`.
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build");
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut program = newer_calls(&architecture)?;
    program.extend(compile(&architecture)?);
    let mut text = String::from("[\n");
    for Instruction { code, jump_true, jump_false, value } in program {
        writeln!(
            text,
            "    Instruction {{ code: {code:#x}, jt: {jump_true}, jf: {jump_false}, k: {value:#x} }},"
        )?;
    }
    text.push_str("]\n");
    let file = std::path::Path::new(&std::env::var("OUT_DIR")?).join("filter.rs");
    std::fs::write(file, text)?;
    Ok(())
}

/// Returns the machine's own architecture and those whose programs its kernel runs besides.
fn architectures(target: &str) -> Result<&'static [ScmpArch], String> {
    Ok(match target {
        "x86_64" => &[ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32],
        "aarch64" => &[ScmpArch::Aarch64, ScmpArch::Arm],
        "powerpc64" => &[ScmpArch::Ppc64Le],
        "s390x" => &[ScmpArch::S390X, ScmpArch::S390],
        "riscv64" => &[ScmpArch::Riscv64],
        other => return Err(format!("slipway has no system call filter for `{other}`")),
    })
}

/// Compiles the profile.
fn compile(target: &str) -> Result<Vec<Instruction>, Box<dyn Error>> {
    let architectures = architectures(target)?;
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(EPERM))?;
    filter.set_ctl_nnp(false)?;
    filter.set_ctl_optimize(2)?;
    for architecture in architectures {
        filter.add_arch(*architecture)?;
    }
    if !architectures.contains(&ScmpArch::native()) {
        filter.remove_arch(ScmpArch::native())?;
    }
    for name in profile::ALLOWED.iter().chain(profile::allowed_on(target)) {
        // The library knows the calls of all architectures, but the newest only in its newest version.
        match ScmpSyscall::from_name(name) {
            Ok(call) => drop(filter.add_rule(ScmpAction::Allow, call)?),
            Err(_) => println!("cargo:warning=libseccomp does not know `{name}`: build steps cannot call it"),
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
    let flags = if target == "s390x" { 1 } else { 0 };
    allow_if("clone", flags, ScmpCompareOp::MaskedEqual(profile::CLONE_NAMESPACES), 0)?;
    // The flags of clone3 are behind a pointer that a filter cannot follow: pretend that it is missing,
    // and C libraries use clone.
    filter.add_rule(ScmpAction::Errno(ENOSYS), ScmpSyscall::from_name("clone3")?)?;
    export(&filter)
}

/// Reads the instructions from the library, which writes them to a file in the builder's byte order.
fn export(filter: &ScmpFilterContext) -> Result<Vec<Instruction>, Box<dyn Error>> {
    let path = std::path::Path::new(&std::env::var("OUT_DIR")?).join("filter.bpf");
    let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    filter.export_bpf(&file)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let instruction = |b: &[u8]| Instruction {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jump_true: b[2],
        jump_false: b[3],
        value: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    Ok(bytes.chunks_exact(8).map(instruction).collect())
}

/// Decides system calls that are newer than the library; the rest falls through to the filter proper.
fn newer_calls(target: &str) -> Result<Vec<Instruction>, Box<dyn Error>> {
    const LOAD: u16 = 0x20;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    /// Tells x32 calls from others; the numbers are the same without it.
    const X32_BIT: u32 = 0x4000_0000;

    let instruction = |code, jump_true, jump_false, value| Instruction { code, jump_true, jump_false, value };
    // The number is the first field of the data that a filter sees.
    let mut program = vec![instruction(LOAD, 0, 0, 0)];
    if target == "x86_64" {
        program.push(instruction(AND, 0, 0, !X32_BIT));
    }
    let count = u8::try_from(profile::NEW_ALLOWED.len())?;
    program.push(instruction(JUMP_IF_AT_LEAST, 0, count + 2, profile::FIRST_NEW));
    for (index, number) in (0..count).zip(profile::NEW_ALLOWED) {
        program.push(instruction(JUMP_IF_EQUAL, count - index, 0, *number));
    }
    program.push(instruction(RETURN, 0, 0, RETURN_ERRNO | ENOSYS.unsigned_abs()));
    program.push(instruction(RETURN, 0, 0, RETURN_ALLOW));
    Ok(program)
}
