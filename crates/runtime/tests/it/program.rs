//! How programs are found and executed, and what they see of themselves.

use slipway_runtime::{ExecFailure, ExitStatus, ProcessError, Rlimit, User};

use crate::harness::{Root, Run, able};

#[test]
fn exit_codes_and_output_come_back() {
    if !able() {
        return;
    }
    let root = Root::new();
    assert_eq!(Run::args(&["echo", "a  b"]).output(&root), "a  b");
    let (exit, text) = Run::shell("echo out; echo err >&2; exit 42").outcome(&root);
    assert_eq!(exit.unwrap().status, ExitStatus::Exited(42));
    assert_eq!(text, "out\nerr\n");
    let (exit, _) = Run::shell("perl -e 'for (1..3000000) { $x .= 1 }'").outcome(&root);
    let usage = exit.unwrap().usage;
    assert!(usage.user.as_micros() > 0 && usage.max_rss > 0 && usage.wall >= usage.user, "{usage:?}");
}

#[test]
fn programs_that_cannot_run_say_why() {
    if !able() {
        return;
    }
    let root = Root::new();
    let error = Run::args(&["nosuch", "x"]).error(&root);
    assert_eq!(error, ProcessError::NotInPath { program: "nosuch".into() });
    let reason = |error| match error {
        ProcessError::CannotExecute { reason, .. } => reason,
        other => panic!("{other}"),
    };
    root.write("plain", "#!/bin/sh\n");
    root.write("etc/garbage", "\x7fELF nothing");
    root.write("etc/script", "#!/nonexistent/interpreter\n");
    for name in ["etc/garbage", "etc/script"] {
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.path(name), executable).unwrap();
    }
    assert_eq!(reason(Run::args(&["/nosuch"]).error(&root)), ExecFailure::NotFound);
    assert_eq!(reason(Run::args(&["/plain"]).error(&root)), ExecFailure::PermissionDenied);
    assert_eq!(reason(Run::args(&["/etc"]).error(&root)), ExecFailure::IsDirectory);
    assert_eq!(reason(Run::args(&["/etc/garbage"]).error(&root)), ExecFailure::WrongFormat);
    assert_eq!(reason(Run::args(&["/etc/script"]).error(&root)), ExecFailure::InterpreterNotFound);
}

#[test]
fn a_process_is_who_and_where_it_should_be() {
    if !able() {
        return;
    }
    let root = Root::new();
    let script = "id -u; id -g; id -G; pwd; umask; echo $HOME; echo $$; hostname; cat /proc/self/cmdline | tr '\\0' ' '";
    let run = Run::shell(script).with(|settings| {
        settings.user =
            User { uid: 1234, gid: 33, additional_gids: vec![5, 6], home: Some("/home/me".into()) };
        settings.cwd = "/made/here".into();
        settings.hostname = "box".into();
    });
    let output = run.output(&root);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..8], ["1234", "33", "33 5 6", "/made/here", "0022", "/home/me", "1", "box"]);
    let stat = std::fs::metadata(root.path("made/here")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&stat), 1234);
    assert_eq!(Run::shell("id -G").output(&root), "0");
}

#[test]
fn a_working_directory_that_is_a_file_is_an_error() {
    if !able() {
        return;
    }
    let root = Root::new();
    root.write("file", "");
    let error = Run::args(&["true"]).with(|settings| settings.cwd = "/file".into()).error(&root);
    assert!(matches!(error, ProcessError::WorkingDirectory { .. }), "{error}");
}

#[test]
fn limits_and_personality_are_set() {
    if !able() {
        return;
    }
    let root = Root::new();
    let limit = |name: &str, soft, hard| Rlimit { name: name.into(), soft, hard };
    let run = Run::shell("ulimit -n; ulimit -Hn").with(|settings| {
        settings.rlimits = vec![limit("nofile", Some(100), Some(200))];
    });
    assert_eq!(run.output(&root), "100\n200");
    let run = Run::args(&["true"]).with(|settings| settings.rlimits = vec![limit("nonsense", None, None)]);
    assert!(matches!(run.error(&root), ProcessError::Rlimit { .. }));
    if cfg!(target_arch = "x86_64") {
        let run = Run::args(&["uname", "-m"]).with(|settings| settings.linux32 = true);
        assert_eq!(run.output(&root), "i686");
    }
    let run = Run::shell("cat /proc/self/oom_score_adj").with(|settings| settings.oom_score_adj = Some(321));
    assert_eq!(run.output(&root), "321");
}

#[test]
fn a_terminal_is_the_controlling_one() {
    if !able() {
        return;
    }
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let root = Root::new();
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let usr = slipway_runtime::MountSource::host_path(std::path::Path::new("/usr")).unwrap();
    let run = Run::shell("test -t 0 && test -t 1 && echo yes > /dev/tty").mount("/usr", usr, true);
    let process = crate::harness::server()
        .spawn(slipway_runtime::ProcessSpec {
            root: root.mount(),
            mounts: run.mounts,
            stdio: slipway_runtime::Stdio::Terminal(terminal),
            settings: run.settings,
        })
        .unwrap();
    assert!(process.wait().unwrap().status.success());
    let mut buffer = [0; 64];
    let length = rustix::io::read(&main, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"yes\r\n");
}
