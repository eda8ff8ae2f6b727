//! Mounts of a process, and the mount points that are made for them.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use slipway_runtime::{FileContent, Mount, MountFailure, MountSource, ProcessError};

use crate::harness::{Root, Run, able};

fn bind(path: &Path) -> MountSource {
    MountSource::host_path(path).unwrap()
}

fn secret(text: &str) -> MountSource {
    MountSource::File(FileContent { content: text.into(), mode: 0o440, uid: 33, gid: 8 })
}

#[test]
fn mount_points_that_were_made_go_away_again() {
    if !able() {
        return;
    }
    let root = Root::new();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("f"), "content").unwrap();
    let before = std::fs::metadata(root.path("etc")).unwrap().mtime_nsec();
    let mut run = Run::shell(
        "cat /mnt/ctx/f /etc/hosts /run/secrets/token; stat -c ' %a %u %g' /run/secrets/token; touch /made",
    )
    .mount("/mnt/ctx", bind(context.path()), true)
    .mount("/scratch/tmp", MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777 }, false)
    .mount("/run/secrets/token", secret("hush"), true);
    run.mounts.push(Mount::public_file("/etc/hosts", "127.0.0.1 localhost\n"));
    assert_eq!(run.output(&root), "content127.0.0.1 localhost\nhush 440 33 8");
    assert_eq!(root.files(), ["dev", "made", "proc", "sys"]);
    assert_eq!(std::fs::metadata(root.path("etc")).unwrap().mtime_nsec(), before);
    assert_eq!(std::fs::metadata(root.path("dev")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn what_the_process_left_beside_a_mount_stays() {
    if !able() {
        return;
    }
    let root = Root::new();
    let cache = tempfile::tempdir().unwrap();
    let run = Run::shell("echo one > /var/cache/x/f; echo mine > /var/mine; touch /var/cache/empty").mount(
        "/var/cache/x",
        bind(cache.path()),
        false,
    );
    run.output(&root);
    assert_eq!(root.files(), ["dev", "proc", "sys", "var", "var/cache", "var/cache/empty", "var/mine"]);
    assert_eq!(std::fs::read_to_string(cache.path().join("f")).unwrap(), "one\n");

    let run = Run::args(&["true"])
        .mount("/a/b", MountSource::Tmpfs { size: None, mode: 0o755 }, false)
        .with(|settings| settings.remove_stub_parents = false);
    let second = Root::new();
    run.output(&second);
    assert_eq!(second.files(), ["a", "dev", "proc", "sys"]);
}

#[test]
fn stubs_of_a_process_that_failed_to_start_go_away_too() {
    if !able() {
        return;
    }
    let root = Root::new();
    Run::args(&["nosuch"]).mount("/a/b", MountSource::Tmpfs { size: None, mode: 0o755 }, false).error(&root);
    assert_eq!(root.files(), ["dev", "proc", "sys"]);
}

#[test]
fn read_only_means_it() {
    if !able() {
        return;
    }
    let root = Root::new();
    let context = tempfile::tempdir().unwrap();
    let refused =
        "touch /ctx/x 2>/dev/null || echo refused; touch /x 2>/dev/null || echo refused; touch /tmp/x";
    let run = Run::shell(refused)
        .mount("/ctx", bind(context.path()), true)
        .mount("/tmp", MountSource::Tmpfs { size: None, mode: 0o1777 }, false)
        .with(|settings| {
            settings.readonly_root = true;
            settings.cwd = "/work".into();
        });
    assert_eq!(run.output(&root), "refused\nrefused");
    assert_eq!(root.files(), ["dev", "proc", "sys", "work"]);
}

#[test]
fn links_in_the_image_cannot_lead_a_mount_outside() {
    if !able() {
        return;
    }
    let root = Root::new();
    let victim = tempfile::tempdir().unwrap();
    symlink(victim.path(), root.path("out")).unwrap();
    symlink("../../../../../../etc", root.path("up")).unwrap();
    let run = Run::shell("cat /out/token /etc/extra").mount("/out/token", secret("one"), true).mount(
        "/up/extra",
        secret("two"),
        true,
    );
    assert_eq!(run.output(&root), "onetwo");
    assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 0);
    assert!(!Path::new("/etc/extra").exists());
    assert_eq!(root.files(), ["dev", "out", "proc", "sys", "up"]);
}

#[test]
fn links_over_the_kernels_directories_are_no_way_out() {
    if !able() {
        return;
    }
    let victim = tempfile::tempdir().unwrap();
    let root = Root::new();
    for name in ["proc", "sys", "dev"] {
        symlink(victim.path(), root.path(name)).unwrap();
    }
    let error = Run::args(&["true"]).error(&root);
    assert_eq!(
        error,
        ProcessError::Mount { destination: "/proc".into(), reason: MountFailure::SymbolicLink }
    );
    assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 0);
}

#[test]
fn mounts_nest_and_later_ones_cover() {
    if !able() {
        return;
    }
    let root = Root::new();
    let outer = tempfile::tempdir().unwrap();
    let run = Run::shell("cat /a/b/f; ls /a").mount("/a/b/f", secret("inner"), true).mount(
        "/a",
        bind(outer.path()),
        false,
    );
    assert_eq!(run.output(&root), "innerb");
    assert_eq!(root.files(), ["dev", "proc", "sys"]);
    let run = Run::shell("cat /f").mount("/f", secret("first"), true).mount("/f", secret("second"), true);
    assert_eq!(run.output(&root), "second");
}

#[test]
fn a_part_of_a_mount_can_be_shown() {
    if !able() {
        return;
    }
    let root = Root::new();
    let stage = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(stage.path().join("a/b")).unwrap();
    std::fs::write(stage.path().join("a/b/f"), "deep").unwrap();
    symlink("/a/b/f", stage.path().join("link")).unwrap();
    symlink("../../../../../../../etc/passwd", stage.path().join("escape")).unwrap();
    let part = |path: &str| {
        let MountSource::Detached(mount) = bind(stage.path()) else { panic!() };
        MountSource::Subtree { mount, path: path.into() }
    };
    let run = Run::shell("cat /d/f /f; touch /d/x 2>/dev/null || echo refused; touch /rw/x")
        .mount("/d", part("a/b"), true)
        .mount("/f", part("/link"), true)
        .mount("/rw", part("a"), false);
    assert_eq!(run.output(&root), "deepdeeprefused");
    assert!(stage.path().join("a/x").exists());
    for path in ["escape", "missing"] {
        let error = Run::args(&["true"]).mount("/p", part(path), true).error(&root);
        assert_eq!(
            error.to_string(),
            format!("cannot mount `/p`: source `{path}`: No such file or directory")
        );
    }
}

#[test]
fn many_mount_points_are_all_taken_away() {
    if !able() {
        return;
    }
    let root = Root::new();
    let run = (0..200).fold(Run::args(&["true"]), |run, number| {
        let name = format!("/{}/{number}", "long".repeat(50));
        run.mount(&name, MountSource::Tmpfs { size: None, mode: 0o755 }, false)
    });
    run.output(&root);
    assert_eq!(root.files(), ["dev", "proc", "sys"]);
}

#[test]
fn wrong_destinations_are_errors_with_the_path() {
    if !able() {
        return;
    }
    let root = Root::new();
    root.write("file", "x");
    let error = Run::args(&["true"])
        .mount("/file", MountSource::Tmpfs { size: None, mode: 0o755 }, false)
        .error(&root);
    let reason = MountFailure::WrongType { source_is_directory: true };
    assert_eq!(error, ProcessError::Mount { destination: "/file".into(), reason });
    let error = Run::args(&["true"]).mount("/file/below", secret("x"), true).error(&root);
    assert!(error.to_string().starts_with("cannot mount `/file/below`"), "{error}");
}

#[test]
fn devices_and_shared_memory_are_fresh_each_time() {
    if !able() {
        return;
    }
    let root = Root::new();
    Run::shell("touch /dev/left /dev/shm/left").output(&root);
    assert_eq!(Run::shell("ls /dev/left /dev/shm/left 2>/dev/null | wc -l").output(&root), "0");
    assert_eq!(std::fs::read_dir(root.path("dev")).unwrap().count(), 0);
}

/// Mounts an overlay as the engine does: detached, never in the host's table.
fn overlay(lower: &Path, work: &Path) -> std::os::fd::OwnedFd {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, value) in
        [("lowerdir", lower), ("upperdir", &work.join("upper")), ("workdir", &work.join("work"))]
    {
        fsconfig_set_string(&context, key, value).unwrap();
    }
    fsconfig_create(&context).unwrap();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

/// Lists a tree with the type of each entry.
fn tree(directory: &Path) -> Vec<String> {
    let output = std::process::Command::new("find")
        .arg(directory)
        .args(["-mindepth", "1", "-printf", "%P:%y\\n"])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn an_overlay_keeps_only_what_the_process_changed() {
    if !able() {
        return;
    }
    let emulated = slipway_runtime::SandboxServer::start(&slipway_runtime::ServerOptions {
        user_namespace: true,
        ..Default::default()
    })
    .unwrap();
    for server in [crate::harness::server(), &*emulated] {
        let lower = Root::new();
        lower.write("etc/old", "old");
        let scratch = tempfile::tempdir().unwrap();
        for name in ["upper", "work"] {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
        }
        let null = || {
            std::os::fd::OwnedFd::from(
                std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap(),
            )
        };
        for script in ["rm /etc/old; echo new > /etc/new; chown 7:8 /etc/new", "echo second >> /etc/new"] {
            let mut run = Run::shell(script).mount("/usr", bind(Path::new("/usr")), true).mount(
                "/var/cache/x",
                MountSource::Tmpfs { size: None, mode: 0o755 },
                false,
            );
            run.mounts.push(Mount::public_file("/etc/resolv.conf", "nameserver 192.0.2.1\n"));
            let process = server
                .spawn(slipway_runtime::ProcessSpec {
                    root: overlay(lower.directory.path(), scratch.path()),
                    mounts: run.mounts,
                    terminals: None,
                    stdio: slipway_runtime::Stdio::Streams { stdin: null(), stdout: null(), stderr: null() },
                    listener: None,
                    settings: run.settings,
                })
                .unwrap();
            assert!(process.wait().unwrap().status.success());
        }
        let upper = scratch.path().join("upper");
        assert_eq!(tree(&upper), ["dev:d", "etc/new:f", "etc/old:c", "etc:d", "proc:d", "sys:d"]);
        let new = std::fs::metadata(upper.join("etc/new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (7, 8));
    }
}
