//! Changes a real binfmt_misc table: one of a user namespace made for the test, never the host's.
//!
//! Needs Linux 6.7, `unshare` and `mount`; says so and passes where they are missing, except in CI.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests: a panic is the report"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use slipway_emulation::{
    EmulationOptions, Emulator, Guest, HostFacts, PrivateBinfmt, Qemu, binfmt, decide, host_table,
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
        host_table::install(table, &qemu(architecture), binfmt::HOST_FLAGS).unwrap();
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
