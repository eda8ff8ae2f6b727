//! Changes a real binfmt_misc table: one of a user namespace made for the test, never the host's.
//!
//! Needs Linux 6.7, `unshare` and `mount`; says so and passes where they are missing, except in CI.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests: a panic is the report"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway_emulation::{
    EmulationOptions, Emulator, Guest, HostFacts, PrivateBinfmt, Qemu, decide, host_table,
};

/// Names the table to the inner run of this program.
const TABLE: &str = "SLIPWAY_TEST_BINFMT_TABLE";

fn host_entries() -> Vec<String> {
    let Ok(files) = std::fs::read_dir(host_table::HOST_TABLE) else { return Vec::new() };
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn entries_are_installed_and_removed_in_a_table_of_our_own() {
    if let Some(table) = std::env::var_os(TABLE) {
        return install_and_remove(&PathBuf::from(table));
    }
    let before = host_entries();
    let directory = tempfile::tempdir().unwrap();
    let probe = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "binfmt_misc", "none"])
        .arg(directory.path())
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "a user namespace with binfmt_misc is needed");
        eprintln!("SKIPPED: no user namespace with binfmt_misc here");
        return;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "entries_are_installed_and_removed_in_a_table_of_our_own"])
        .env(TABLE, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(host_entries(), before);
}

/// What the inner run of this program does, in a namespace.
fn install_and_remove(table: &Path) {
    let facts = HostFacts::probe(&EmulationOptions::default());
    assert!(host_table::status(table, &facts).is_err());
    assert!(host_table::mount(table).unwrap());
    assert!(!host_table::mount(table).unwrap(), "it is there now");
    assert!(host_table::status(table, &facts).unwrap().emulators.is_empty());
    // Any file serves as an emulator as long as nothing is run by it.
    let qemu = |architecture: &str| Qemu::new(Guest::of(architecture).unwrap(), "/bin/sh");
    for architecture in ["loong64", "mips64", "mips64le"] {
        host_table::install(table, &qemu(architecture), "CF").unwrap();
    }
    let entry = |name: &str| std::fs::read_to_string(table.join(name)).unwrap();
    assert!(entry("qemu-loongarch64").contains("flags: OCF\n"), "{}", entry("qemu-loongarch64"));
    // Again, over itself.
    host_table::install(table, &qemu("loong64"), "CFP").unwrap();
    assert!(entry("qemu-loongarch64").contains("flags: POCF\n"), "{}", entry("qemu-loongarch64"));
    let status = host_table::status(table, &facts).unwrap();
    assert_eq!(status.emulators, ["qemu-loongarch64", "qemu-mips64", "qemu-mips64el"]);
    assert!(status.supported.contains(&"linux/loong64".to_owned()), "{status:?}");

    let missing = Qemu::new(Guest::of("s390x").unwrap(), "/nonexistent/qemu");
    let error = host_table::install(table, &missing, "CF").unwrap_err();
    assert_eq!(error.to_string(), "cannot register `qemu-s390x`");

    assert_eq!(host_table::uninstall(table, "loong64").unwrap(), ["qemu-loongarch64"]);
    assert_eq!(host_table::uninstall(table, "qemu-mips*").unwrap(), ["qemu-mips64", "qemu-mips64el"]);
    assert!(host_table::uninstall(table, "qemu-mips64").is_err());
    assert!(host_table::status(table, &facts).unwrap().emulators.is_empty());
    check_argv0(table, &facts);
}

/// Runs a program that ends with the first letter of its argv[0], registered as `binfmt --install` does.
fn check_argv0(table: &Path, facts: &HostFacts) {
    let Some(qemu) = facts.emulator(Guest::of("arm64").unwrap()).filter(|_| cfg!(target_arch = "x86_64"))
    else {
        eprintln!("SKIPPED: no qemu-aarch64-static");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::write(&program, first_letter_of_argv0()).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    host_table::install(table, qemu, host_table::flags(qemu)).unwrap();
    let status = Command::new(&program).arg0("name").status();
    host_table::uninstall(table, "arm64").unwrap();
    assert_eq!(status.unwrap().code(), Some(i32::from(b'n')), "{qemu:?}");
}

/// Makes a program for arm64: one page with a header, a segment and four instructions.
fn first_letter_of_argv0() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const CODE_AT: u64 = 64 + 56;
    // ldr x1, [sp, #8]; ldrb w0, [x1]; mov x8, #93 (exit); svc #0
    let code = [0xf940_07e1_u32, 0x3940_0020, 0xd280_0ba8, 0xd400_0001];
    let size = CODE_AT + 4 * code.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |value: u64, width: usize| bytes.extend_from_slice(&value.to_le_bytes()[..width]);
    // Type, machine, version, entry, where segments and sections are, flags, sizes and numbers.
    for (value, width) in [
        (2, 2),
        (183, 2),
        (1, 4),
        (BASE + CODE_AT, 8),
        (64, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (1, 2),
        (64, 2),
        (0, 4),
    ] {
        put(value, width);
    }
    // One segment to load, readable and executable: offset, addresses, sizes, alignment.
    for (value, width) in [(1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (size, 8), (size, 8), (0x1000, 8)] {
        put(value, width);
    }
    code.iter().for_each(|word| put((*word).into(), 4));
    bytes
}

#[test]
fn this_machine_is_understood() {
    let facts = HostFacts::probe(&EmulationOptions::default());
    assert!(facts.platform.os == "linux" && facts.native_platforms().contains(&facts.platform), "{facts:?}");
    eprintln!("native: {:?}", facts.native_platforms().iter().map(ToString::to_string).collect::<Vec<_>>());
    let installed = std::path::Path::new("/usr/bin/qemu-s390x-static").exists();
    if !installed
        || facts.private_binfmt != PrivateBinfmt::Available
        || facts.platform.architecture == "s390x"
    {
        eprintln!("SKIPPED: no qemu-s390x-static, or an old kernel");
        return;
    }
    let platform = "linux/s390x".parse().unwrap();
    match decide(&facts, &platform) {
        Emulator::PrivateBinfmt(qemu) => {
            assert!(qemu.version().is_some_and(|version| version.major >= 5), "{qemu:?}");
            assert!(qemu.describe(&platform).starts_with("qemu-s390x "));
            assert!(qemu.registration().unwrap().ends_with(":/usr/bin/qemu-s390x-static:POCF"));
        }
        other => panic!("{other:?}"),
    }
}
