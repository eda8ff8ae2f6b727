//! The server with a user namespace and a binfmt_misc table of its own.

use slipway_runtime::{SandboxServer, ServerOptions, StartError, StartStage};

use crate::harness::{Root, Run, able};

/// Returns the line for a program header of the given class, byte order and machine.
fn line(qemu: &str, class: u8, order: u8, machine: u8) -> String {
    let (kind, machine, kind_mask) = match order {
        1 => (r"\x02\x00", format!(r"\x{machine:02x}\x00"), r"\xfe\xff"),
        _ => (r"\x00\x02", format!(r"\x00\x{machine:02x}"), r"\xff\xfe"),
    };
    let zeros = r"\x00".repeat(9);
    let ones = r"\xff".repeat(8);
    format!(
        r":qemu-{qemu}:M:0:\x7fELF\x{class:02x}\x{order:02x}\x01{zeros}{kind}{machine}:\xff\xff\xff\xff\xff\xff\xff\x00{ones}{kind_mask}\xff\xff:/usr/bin/qemu-{qemu}-static:POCF"
    )
}

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
    let lines = [
        line("aarch64", 2, 1, 183),
        line("arm", 1, 1, 40),
        line("ppc64le", 2, 1, 21),
        line("s390x", 2, 2, 22),
        line("riscv64", 2, 1, 243),
    ];
    let server = emulated(&lines);
    let mut ran = 0;
    for (name, machine, cpu) in [
        ("amd64", "x86_64", None),
        ("386", "i686", None),
        ("arm64", "aarch64", Some("max,pauth-impdef=on")),
        ("armv7", "armv7l", None),
        ("armv6", "armv6l", Some("arm1176")),
        ("ppc64le", "ppc64le", None),
        ("s390x", "s390x", None),
        ("riscv64", "riscv64", None),
    ] {
        let busybox = std::path::Path::new(&roots).join(name).join("busybox");
        if !busybox.exists() {
            eprintln!("SKIPPED: no busybox for {name}");
            continue;
        }
        let root = Root::empty();
        std::fs::create_dir(root.path("bin")).unwrap();
        std::fs::copy(busybox, root.path("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", root.path("bin/nested")).unwrap();
        // A second program, a shell in the shell, and the emulator being out of sight.
        let script =
            "/bin/busybox uname -m; /bin/busybox sh -c 'echo $0 $1' nested arg; echo $((6*7)); ls /; false";
        let run = Run::args(&["/bin/busybox", "sh", "-c", script]).with(|settings| {
            settings.linux32 = name == "386";
            settings.env.extend(cpu.map(|cpu| format!("QEMU_CPU={cpu}")));
        });
        let (exit, text) = run.outcome_on(&server, &root);
        assert_eq!(exit.unwrap().status.code(), 1, "{name}: {text}");
        assert_eq!(text, format!("{machine}\nnested arg\n42\nbin\ndev\nproc\nsys\n"), "{name}");
        ran += 1;
    }
    assert!(ran > 0, "nothing in SLIPWAY_TEST_FOREIGN_ROOTS");
}

/// The smallest program of an architecture that few distributions have: exits with 42.
fn tiny_riscv64() -> Vec<u8> {
    let (base, headers) = (0x10000_u64, 64 + 56);
    // li a0, 42; li a7, 93; ecall
    let code: Vec<u8> =
        [0x02a0_0513_u32, 0x05d0_0893, 0x0000_0073].iter().flat_map(|word| word.to_le_bytes()).collect();
    let size = headers + code.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    for word in [base + headers, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, base, base, size, size, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(code);
    bytes
}

#[test]
fn a_tiny_program_runs() {
    if !able() {
        return;
    }
    if !std::path::Path::new("/usr/bin/qemu-riscv64-static").exists() {
        assert!(std::env::var_os("CI").is_none(), "qemu-user-static is not installed");
        eprintln!("SKIPPED: no qemu-riscv64-static");
        return;
    }
    let server = emulated(&[line("riscv64", 2, 1, 243)]);
    let root = Root::empty();
    std::fs::write(root.path("tiny"), tiny_riscv64()).unwrap();
    std::fs::set_permissions(root.path("tiny"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (exit, text) = Run::args(&["/tiny"]).outcome_on(&server, &root);
    assert_eq!(exit.unwrap().status.code(), 42, "{text}");
    // Without the table the kernel does not know the format, and it is told which failure that is.
    let error = Run::args(&["/tiny"]).error(&root);
    assert_eq!(error.to_string(), "exec: \"/tiny\": exec format error");
}
