//! What a process must not see or do.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use slipway_runtime::{
    Listener, MountSource, Network, ResourceLimits, SandboxServer, Security, ServerOptions,
};

use crate::harness::{Root, Run, able, server};

#[test]
fn the_namespaces_are_its_own() {
    if !able() {
        return;
    }
    let root = Root::new();
    let names = ["pid", "mnt", "ipc", "uts"];
    for name in names {
        let inside = Run::shell(&format!("readlink /proc/self/ns/{name}")).output(&root);
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(inside, outside.to_str().unwrap(), "{name}");
    }
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(Run::shell("readlink /proc/self/ns/net").output(&root), host.to_str().unwrap());
    let none = |script: &str| Run::shell(script).with(|settings| settings.network = Network::None);
    assert_ne!(none("readlink /proc/self/ns/net").output(&root), host.to_str().unwrap());
    assert_eq!(none("ls /sys/class/net").output(&root), "lo");
    // The loopback device is up: a refused connection, not an unreachable network.
    let script = "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(\"127.0.0.1:1\") or print $!'";
    assert!(none(script).output(&root).contains("refused"));
    let processes = Run::shell("ls -d /proc/[0-9]* | wc -l").output(&root);
    assert!(processes.trim().parse::<u32>().unwrap() < 5, "{processes}");
}

#[test]
fn a_socket_in_a_network_of_its_own_is_served_from_outside() {
    if !able() {
        return;
    }
    // As emulated processes are, too.
    let options = ServerOptions { user_namespace: true, ..Default::default() };
    let emulating = SandboxServer::start(&options).unwrap();
    for server in [server(), &emulating] {
        let root = Root::new();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 31280);
        let (listener, pending) = Listener::at(address).unwrap();
        let script = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:31280\") or die $!; \
                      print <$s>; IO::Socket::INET->new(\"192.0.2.1:80\") or print $!'";
        let mut run = Run::shell(script).with(|settings| settings.network = Network::None);
        run.listener = Some(listener);
        let (process, mut output) = run.start(server, &root);
        let listener = pending.wait().unwrap().unwrap();
        listener.accept().unwrap().0.write_all(b"hello\n").unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\nNetwork is unreachable");
        assert!(process.wait().unwrap().status.success());
    }
}

#[test]
fn a_socket_of_a_process_that_never_was_is_not_waited_for() {
    if !able() {
        return;
    }
    let root = Root::new();
    // Not an address of the loopback device.
    let (listener, pending) = Listener::at(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 1)).unwrap();
    let mut run = Run::shell("true").with(|settings| settings.network = Network::None);
    run.listener = Some(listener);
    let (process, _output) = run.start(server(), &root);
    assert!(pending.wait().unwrap().is_none());
    assert!(process.wait().unwrap_err().to_string().contains("listener"));
}

#[test]
fn nothing_of_the_host_is_mounted() {
    if !able() {
        return;
    }
    let root = Root::new();
    let mounts = Run::shell("cut -d' ' -f5 /proc/self/mountinfo").output(&root);
    for line in mounts.lines() {
        let known = ["/", "/usr"].contains(&line)
            || ["/proc", "/sys", "/dev"].iter().any(|top| line.starts_with(top));
        assert!(known, "{line} in {mounts}");
    }
}

#[test]
fn the_kernels_files_are_masked() {
    if !able() {
        return;
    }
    let root = Root::new();
    let script = "cat /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug 2>/dev/null | wc -c; \
                  ls -A /sys/firmware /proc/scsi /proc/acpi 2>/dev/null | grep -v : | grep -c . ; \
                  echo x 2>/dev/null > /proc/sysrq-trigger || echo refused; \
                  echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused; \
                  touch /sys/x 2>/dev/null || echo refused; true";
    assert_eq!(Run::shell(script).output(&root), "0\n0\nrefused\nrefused\nrefused");
    let insecure = Run::shell("wc -c < /proc/timer_list; touch /proc/sys/kernel/hostname && echo allowed")
        .with(|settings| settings.security = Security::Insecure)
        .output(&root);
    assert!(insecure.ends_with("allowed"), "{insecure}");
}

#[test]
fn capabilities_and_filter_are_those_of_container_engines() {
    if !able() {
        return;
    }
    let root = Root::new();
    let script = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | tr -s '\\t' ' '";
    let expected = "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n\
                    CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2";
    assert_eq!(Run::shell(script).output(&root), expected);
    let user = Run::shell(script).with(|settings| settings.user.uid = 1000).output(&root);
    assert!(user.contains("CapPrm: 0000000000000000"), "{user}");
    assert!(user.contains("CapBnd: 00000000a80425fb"), "{user}");
    let insecure = Run::shell(script).with(|settings| {
        settings.security = Security::Insecure;
        settings.user.uid = 1000;
    });
    let insecure = insecure.output(&root);
    assert!(insecure.contains("Seccomp: 0"), "{insecure}");
    assert!(!insecure.contains("CapEff: 0000000000000000"), "{insecure}");
}

#[test]
fn system_calls_outside_the_profile_fail() {
    if !able() {
        return;
    }
    let root = Root::new();
    let refused = |script: &str| {
        let (exit, text) = Run::shell(script).outcome(&root);
        assert!(!exit.unwrap().status.success(), "{script}: {text}");
        text
    };
    assert!(refused("unshare -m true").contains("not permitted"));
    assert!(refused("mount -t tmpfs none /tmp").contains("permission denied"));
    refused("nsenter -t 1 -m true");
    refused("dmesg");
}

#[test]
fn devices_can_be_made_but_not_opened() {
    if !able() {
        return;
    }
    let root = Root::new();
    let (exit, text) = Run::shell("mknod /n c 1 3 && mknod /dev/n c 1 3 && echo x > /n").outcome(&root);
    assert!(!exit.unwrap().status.success() && text.contains("ermission denied"), "{text}");
    let (exit, text) = Run::shell("mknod /dev/m c 1 3; echo x > /dev/m").outcome(&root);
    assert!(!exit.unwrap().status.success() && text.contains("ermission denied"), "{text}");
    let usual = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c && \
                 test -c /dev/tty && ls -d /dev/full /dev/random /dev/ptmx /dev/fd /dev/stdin /dev/shm | wc -l";
    assert_eq!(Run::shell(usual).output(&root), "4\n4\n6");
    let pty = "perl -e 'open(F, \"+<\", \"/dev/ptmx\") or die $!; print \"ok\"'";
    assert_eq!(Run::shell(pty).output(&root), "ok");
}

#[test]
fn shared_memory_has_the_size_that_was_asked_for() {
    if !able() {
        return;
    }
    let root = Root::new();
    let script = "df -k --output=size /dev/shm | tail -1";
    assert_eq!(Run::shell(script).output(&root).trim(), "65536");
    let run = Run::shell(script).with(|settings| settings.shm_size = Some(1 << 20));
    assert_eq!(run.output(&root).trim(), "1024");
}

#[test]
fn a_memory_limit_kills_and_is_told() {
    if !able() {
        return;
    }
    let root = Root::new();
    let run = Run::shell("perl -e '$x = \"x\" x (200 << 20); print length $x'").with(|settings| {
        settings.limits = Some(ResourceLimits { memory: Some(50 << 20), ..Default::default() });
    });
    let (outcome, text) = run.outcome_on(server(), &root);
    match outcome {
        Ok(exit) => {
            assert!(!exit.status.success() && exit.usage.out_of_memory, "{exit:?} {text}");
        }
        // No writable cgroup here: then it has to be an error, never a silent "no limit".
        Err(error) => {
            assert!(error.hint().is_some(), "{error}");
            eprintln!("SKIPPED: {error}");
        }
    }
}

#[test]
fn a_parent_cgroup_that_was_made_goes_with_its_last_group() {
    if !able() {
        return;
    }
    let root = Root::new();
    let name = format!("slipway-parent-{}", std::process::id());
    let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::Path::new);
    let Some(unified) = unified.iter().find(|place| place.join("cgroup.controllers").exists()) else {
        eprintln!("SKIPPED: no cgroup v2 here");
        return;
    };
    let place = unified.join(&name);
    let run = |parent: &str| {
        let limits = ResourceLimits { parent: Some(parent.to_owned()), ..Default::default() };
        Run::shell("cat /proc/self/cgroup").with(|settings| settings.limits = Some(limits)).outcome(&root)
    };
    let inner = format!("/{name}/inner");
    let (exit, text) = run(&inner);
    if let Err(slipway_runtime::ProcessError::Cgroup { .. }) = exit {
        eprintln!("SKIPPED: no writable cgroup v2 here");
        return;
    }
    assert!(exit.unwrap().status.success() && text.contains("0::"), "{text}");
    assert!(!place.exists(), "a parent is left");
    // What was there before stays.
    std::fs::create_dir(&place).unwrap();
    run(&inner).0.unwrap();
    let left = std::fs::read_dir(&place).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    let left = left.count();
    std::fs::remove_dir(&place).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_device_that_is_given_can_be_opened_and_another_path_to_it_cannot() {
    if !able() {
        return;
    }
    let root = Root::new();
    let node = || match MountSource::host_path(Path::new("/dev/zero")).unwrap() {
        MountSource::Detached(node) => node,
        other => panic!("{other:?}"),
    };
    let script = "head -c 3 /dev/given/zero | od -An -c; cat /plain 2> /dev/null || echo refused";
    let run = Run::shell(script).mount("/dev/given/zero", MountSource::Device(node()), false).mount(
        "/plain",
        MountSource::Detached(node()),
        false,
    );
    assert_eq!(run.output(&root), "  \\0  \\0  \\0\nrefused");
}
