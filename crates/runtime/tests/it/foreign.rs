//! The server with a user namespace and a binfmt_misc table of its own.

use slipway_runtime::{SandboxServer, ServerOptions, StartError, StartStage};

use crate::harness::{Root, Run, able};

const MAGIC_ARM64: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

fn emulated(binfmt: &[String]) -> std::sync::Arc<SandboxServer> {
    SandboxServer::start(&ServerOptions {
        user_namespace: true,
        binfmt: binfmt.to_vec(),
        ..Default::default()
    })
    .unwrap()
}

fn host_table() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_table_of_its_own_applies_to_its_processes_only() {
    if !able() {
        return;
    }
    let before = host_table();
    // An "emulator" that every machine has: the files of this format are run by `cat`.
    let server = emulated(&[":slipway-test:E::slipwaytest::/usr/bin/cat:OCF".to_owned()]);
    let root = Root::new();
    root.write("file.slipwaytest", "run by cat\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.path("file.slipwaytest"), executable).unwrap();
    let run = || Run::args(&["/file.slipwaytest"]);
    let (exit, text) = run().outcome_on(&server, &root);
    assert!(exit.unwrap().status.success(), "{text}");
    assert_eq!(text, "run by cat\n");
    // Neither the host nor another server knows of it.
    assert_eq!(host_table(), before);
    assert!(run().outcome(&root).0.is_err());
}

#[test]
fn ids_mean_the_same_inside() {
    if !able() {
        return;
    }
    let server = emulated(&[]);
    let root = Root::new();
    let script = "touch /mine && chown 1234:5678 /mine && cat /proc/self/uid_map | tr -s ' '; \
                  echo x > /dev/null; head -c1 /dev/zero | wc -c; id -u";
    let (exit, text) = Run::shell(script).outcome_on(&server, &root);
    assert!(exit.unwrap().status.success(), "{text}");
    let stat = std::fs::metadata(root.path("mine")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&stat), 1234);
    assert!(text.ends_with("1\n0\n"), "{text}");
    let none = Run::args(&["ls", "/sys/class/net"])
        .with(|settings| settings.network = slipway_runtime::Network::None)
        .outcome_on(&server, &root);
    assert_eq!(none.1, "lo\n");
}

#[test]
fn a_registration_that_is_refused_is_named() {
    if !able() {
        return;
    }
    let options = ServerOptions {
        user_namespace: true,
        binfmt: vec![":broken:M::nothing::/nonexistent/emulator:F".into()],
        ..Default::default()
    };
    match SandboxServer::start(&options).err() {
        Some(StartError::Setup { what: StartStage::BinfmtRegister(name), .. }) => assert_eq!(name, "broken"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn foreign_programs_run() {
    if !able() {
        return;
    }
    let Some(roots) = std::env::var_os("SLIPWAY_TEST_FOREIGN_ROOTS") else {
        assert!(std::env::var_os("CI").is_none(), "SLIPWAY_TEST_FOREIGN_ROOTS is not set");
        eprintln!("SKIPPED: SLIPWAY_TEST_FOREIGN_ROOTS is not set");
        return;
    };
    let line = format!(":qemu-aarch64:M:0:{MAGIC_ARM64}:{MASK}:/usr/bin/qemu-aarch64-static:POCF");
    let server = emulated(&[line]);
    let root = Root::empty();
    std::fs::create_dir(root.path("bin")).unwrap();
    let busybox = std::path::Path::new(&roots).join("arm64/busybox");
    std::fs::copy(busybox, root.path("bin/busybox")).unwrap();
    let script = "/bin/busybox uname -m; /bin/busybox sh -c 'echo $0 $1' nested arg; ls /proc/self/exe >/dev/null && echo $((6*7))";
    let (exit, text) = Run::args(&["/bin/busybox", "sh", "-c", script]).outcome_on(&server, &root);
    assert!(exit.unwrap().status.success(), "{text}");
    assert_eq!(text, "aarch64\nnested arg\n42\n");
}
