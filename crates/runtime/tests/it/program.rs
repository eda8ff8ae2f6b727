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

/// Runs a script at a terminal; returns its end and what it printed.
fn at_terminal(
    root: &Root,
    script: &str,
    user: User,
) -> (Result<slipway_runtime::Exit, ProcessError>, String) {
    use std::io::Read as _;
    let terminals = slipway_runtime::Terminals::new().unwrap();
    let terminal = terminals.open().unwrap();
    let usr = slipway_runtime::MountSource::host_path(std::path::Path::new("/usr")).unwrap();
    let run = Run::shell(script).mount("/usr", usr, true).with(|settings| settings.user = user);
    let process = crate::harness::server()
        .spawn(slipway_runtime::ProcessSpec {
            root: root.mount(),
            mounts: run.mounts,
            terminals: Some(terminals),
            stdio: slipway_runtime::Stdio::Terminal(terminal.name().to_owned()),
            listener: None,
            settings: run.settings,
        })
        .unwrap();
    let exit = process.wait();
    terminal.hang_up();
    let mut master = std::fs::File::from(terminal.master().try_clone_to_owned().unwrap());
    let mut output = Vec::new();
    // It ends with an error, when everything has been read.
    let _ = master.read_to_end(&mut output);
    (exit, String::from_utf8(output).unwrap())
}

#[test]
fn a_terminal_is_the_controlling_one_and_has_a_name() {
    if !able() {
        return;
    }
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && echo yes > /dev/tty && echo too > /dev/console \
                  && stat -c %u \"$(tty)\" && ps -o tpgid= -p $$ | grep -qw $$ && ps -o tty= -p $$";
    for uid in [0, 1234] {
        let (exit, output) = at_terminal(&Root::new(), script, User { uid, ..User::default() });
        let wanted = format!("/dev/pts/0\r\nyes\r\ntoo\r\n{uid}\r\npts/0\r\n");
        assert!(exit.unwrap().status.success(), "{output}");
        assert_eq!(output, wanted);
    }
}

#[test]
fn a_program_at_a_terminal_is_not_process_one_and_dies_of_signals() {
    if !able() {
        return;
    }
    let (exit, output) = at_terminal(&Root::new(), "echo $$; kill -INT $$; echo alive", User::default());
    assert_eq!(exit.unwrap().status.code(), 130, "{output}");
    assert_eq!(output, "2\r\n");
}

#[test]
fn a_terminal_of_a_program_that_never_started_ends_too() {
    if !able() {
        return;
    }
    let root = Root::new();
    std::os::unix::fs::symlink("usr", root.path("proc")).unwrap();
    let (exit, output) = at_terminal(&root, "true", User::default());
    assert!(exit.is_err() && output.is_empty(), "{exit:?} {output}");
}
