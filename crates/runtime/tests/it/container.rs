//! Several processes in one container.

use std::fs::File;
use std::io::Read as _;

use slipway_runtime::{
    ExitStatus, MountSource, Network, Process, ProcessError, ProcessSettings, SandboxServer, ServerOptions,
    Stdio, Terminals, User,
};

use crate::harness::{Root, Run, able, server};

/// Starts a first process that says when it runs, and ends when it is killed.
fn first(server: &SandboxServer, root: &Root, run: Run) -> Process {
    let (process, mut output) = run.start(server, root);
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    process
}

fn sleeper() -> Run {
    Run::shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
}

/// Starts a script beside another process; the file is what it prints.
fn beside(server: &SandboxServer, first: &Process, settings: ProcessSettings) -> (Process, File) {
    let (output, stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = File::open("/dev/null").unwrap().into();
    let stdio = Stdio::Streams { stdin, stderr: stdout.try_clone().unwrap(), stdout };
    (server.join(first, &stdio, settings).unwrap(), output.into())
}

fn output_beside(first: &Process, run: Run) -> (Result<i32, ProcessError>, String) {
    output_on(server(), first, run)
}

fn output_on(server: &SandboxServer, first: &Process, run: Run) -> (Result<i32, ProcessError>, String) {
    let (process, mut output) = beside(server, first, run.settings);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (process.wait().map(|exit| exit.status.code()), text)
}

#[test]
fn processes_of_a_container_see_the_same() {
    if !able() {
        return;
    }
    see_the_same(server());
    // As emulated processes are.
    let options = ServerOptions { user_namespace: true, ..Default::default() };
    see_the_same(&SandboxServer::start(&options).unwrap());
}

pub(crate) fn see_the_same(server: &SandboxServer) {
    let root = Root::new();
    let script = "echo here > /scratch/file; ipcmk -Q > /dev/null; echo ready; exec sleep 1000";
    let tmpfs = MountSource::Tmpfs { size: None, mode: 0o755 };
    let run = Run::shell(script).mount("/scratch", tmpfs, false).with(|settings| {
        settings.hostname = "box".into();
        settings.network = Network::None;
    });
    let first = first(server, &root, run);
    let script = "cat /scratch/file; ls -d /proc/1; hostname; ls /sys/class/net; ipcs -q | grep -c 0x; \
                  id -u; pwd; grep -c . /proc/net/dev; for kind in pid mnt net ipc uts; do \
                  test \"$(readlink /proc/self/ns/$kind)\" = \"$(readlink /proc/1/ns/$kind)\" || echo $kind; done";
    let run = Run::shell(script).with(|settings| settings.cwd = "/scratch/made".into());
    let (code, text) = output_on(server, &first, run);
    assert_eq!((text.as_str(), code), ("here\n/proc/1\nbox\nlo\n1\n0\n/scratch/made\n3\n", Ok(0)));
    // The user and the environment are each process's own.
    let run = Run::shell("id -u; echo $NAME; exit 4").with(|settings| {
        settings.user = User { uid: 1234, gid: 1234, ..User::default() };
        settings.env.push("NAME=value".into());
    });
    assert_eq!(output_on(server, &first, run), (Ok(4), "1234\nvalue\n".to_owned()));
}

#[test]
fn a_signal_is_for_one_process_and_the_end_of_the_first_for_all() {
    if !able() {
        return;
    }
    let root = Root::new();
    let first = first(server(), &root, sleeper());
    let (process, mut output) = beside(server(), &first, sleeper().settings);
    output.read_exact(&mut [0; 6]).unwrap();
    process.signal(15);
    assert_eq!(process.wait().unwrap().status, ExitStatus::Exited(5));
    let (killed, mut output) = beside(server(), &first, sleeper().settings);
    output.read_exact(&mut [0; 6]).unwrap();
    first.signal(15);
    assert_eq!(first.wait().unwrap().status, ExitStatus::Exited(5));
    assert_eq!(killed.wait().unwrap().status, ExitStatus::Signaled(9));
    let (late, _output) = beside(server(), &first, sleeper().settings);
    assert_eq!(late.wait(), Err(ProcessError::ContainerEnded));
}

#[test]
fn a_process_waits_for_the_container_and_fails_with_it() {
    if !able() {
        return;
    }
    // Nothing waits here for the first process: the second has to see its mounts nevertheless.
    for _ in 0..5 {
        let root = Root::new();
        let (first, _output) = sleeper().start(server(), &root);
        assert_eq!(output_beside(&first, Run::shell("ls -d /proc/1")), (Ok(0), "/proc/1\n".to_owned()));
    }
    let root = Root::new();
    let (first, _output) = Run::args(&["nosuch"]).start(server(), &root);
    let (code, _) = output_beside(&first, Run::shell("true"));
    assert_eq!(code, Err(ProcessError::ContainerEnded));
    assert!(matches!(first.wait(), Err(ProcessError::NotInPath { .. })));
}

#[test]
fn errors_of_a_process_beside_are_its_own() {
    if !able() {
        return;
    }
    let root = Root::new();
    let first = first(server(), &root, sleeper());
    let (code, _) = output_beside(&first, Run::args(&["nosuch"]));
    assert_eq!(code, Err(ProcessError::NotInPath { program: "nosuch".into() }));
    assert_eq!(output_beside(&first, Run::shell("echo on")), (Ok(0), "on\n".to_owned()));
}

#[test]
fn each_terminal_of_a_container_has_a_name() {
    if !able() {
        return;
    }
    let root = Root::new();
    let terminals = Terminals::new().unwrap();
    let usr = MountSource::host_path(std::path::Path::new("/usr")).unwrap();
    let run = sleeper().mount("/usr", usr, true);
    let (own, shared) = (terminals.open().unwrap(), terminals.open().unwrap());
    let spec = slipway_runtime::ProcessSpec {
        root: root.mount(),
        mounts: run.mounts,
        terminals: Some(terminals.clone()),
        stdio: Stdio::Terminal(own.name().to_owned()),
        listener: None,
        settings: run.settings,
    };
    let first = server().spawn(spec).unwrap();
    let script = "tty; echo yes > /dev/tty; ps -o tpgid= -p $$ | grep -qw $$; echo $?";
    let stdio = Stdio::Terminal(shared.name().to_owned());
    let process = server().join(&first, &stdio, Run::shell(script).settings).unwrap();
    assert!(process.wait().unwrap().status.success());
    shared.hang_up();
    let mut text = Vec::new();
    // It ends with an error, when everything has been read.
    let _ = File::from(shared.master().try_clone_to_owned().unwrap()).read_to_end(&mut text);
    assert_eq!(String::from_utf8(text).unwrap(), "/dev/pts/1\r\nyes\r\n0\r\n");
}

#[test]
fn a_server_ends_with_containers_of_several_processes() {
    if !able() {
        return;
    }
    let root = Root::new();
    let server = SandboxServer::start(&ServerOptions::default()).unwrap();
    let first = first(&server, &root, sleeper());
    let (process, mut output) = beside(&server, &first, sleeper().settings);
    output.read_exact(&mut [0; 6]).unwrap();
    drop(server);
    assert!(process.wait().is_err() && first.wait().is_err());
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
}
