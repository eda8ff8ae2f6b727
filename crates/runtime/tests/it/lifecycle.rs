//! How processes and servers end.

use std::io::Read;

use slipway_runtime::{ExitStatus, ProcessError, SandboxServer, ServerOptions};

use crate::harness::{Root, Run, able, server};

/// Reads until the process says that it is ready.
fn wait_for_line(output: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn a_kill_takes_the_children_along() {
    if !able() {
        return;
    }
    let root = Root::new();
    let (process, mut output) =
        Run::shell("sleep 1000 & sleep 1000 & echo ready; wait").start(server(), &root);
    assert_eq!(wait_for_line(&mut output), "ready");
    let killer = process.killer();
    std::thread::spawn(move || killer.kill()).join().unwrap();
    assert_eq!(process.wait().unwrap().status, ExitStatus::Signaled(9));
    // Every holder of the pipe is gone.
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    assert_eq!(process.wait().unwrap().status.code(), 137);
}

#[test]
fn the_end_of_the_process_is_the_end_of_its_children() {
    if !able() {
        return;
    }
    let root = Root::new();
    let (exit, text) = Run::shell("sleep 1000 & echo started").outcome(&root);
    assert!(exit.unwrap().status.success());
    assert_eq!(text, "started\n");
}

#[test]
fn signals_reach_a_process_that_handles_them() {
    if !able() {
        return;
    }
    let root = Root::new();
    let script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let (process, mut output) = Run::shell(script).start(server(), &root);
    assert_eq!(wait_for_line(&mut output), "ready");
    process.signal(15);
    assert_eq!(wait_for_line(&mut output), "got");
    assert_eq!(process.wait().unwrap().status, ExitStatus::Exited(7));
}

#[test]
fn dropping_a_process_kills_it() {
    if !able() {
        return;
    }
    let root = Root::new();
    let (process, mut output) = Run::shell("echo ready; sleep 1000").start(server(), &root);
    assert_eq!(wait_for_line(&mut output), "ready");
    let _still_there = process.killer();
    drop(process);
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_end_of_the_server_is_the_end_of_everything() {
    if !able() {
        return;
    }
    let root = Root::new();
    for hard in [false, true] {
        let server = SandboxServer::start(&ServerOptions::default()).unwrap();
        let (process, mut output) = Run::shell("echo ready; sleep 1000").start(&server, &root);
        assert_eq!(wait_for_line(&mut output), "ready");
        if hard {
            let pid = rustix::process::Pid::from_raw(server.id() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            assert_eq!(process.wait(), Err(ProcessError::ServerGone));
        }
        drop(server);
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_dead_server_is_told_at_once() {
    if !able() {
        return;
    }
    let root = Root::new();
    let server = SandboxServer::start(&ServerOptions::default()).unwrap();
    let pid = rustix::process::Pid::from_raw(server.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // The first request may still find room in the socket; the answer is the same.
    let (stdin, stdout, stderr) = (null(), null(), null());
    let spec = slipway_runtime::ProcessSpec {
        root: root.mount(),
        mounts: Vec::new(),
        terminals: None,
        stdio: slipway_runtime::Stdio::Streams { stdin, stdout, stderr },
        listener: None,
        settings: Run::args(&["true"]).settings,
    };
    let outcome = server.spawn(spec).and_then(|process| process.wait());
    assert_eq!(outcome.unwrap_err(), ProcessError::ServerGone);
}

fn null() -> std::os::fd::OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn many_at_once_do_not_mix() {
    if !able() {
        return;
    }
    let threads: Vec<_> = (0..16)
        .map(|number| {
            std::thread::spawn(move || {
                let root = Root::new();
                let big = "x".repeat(100_000);
                let run = Run::shell("echo $NAME; echo $BIG | wc -c; exit $NAME").with(|settings| {
                    settings.env.extend([format!("NAME={number}"), format!("BIG={big}")]);
                });
                let (exit, text) = run.outcome(&root);
                assert_eq!(exit.unwrap().status, ExitStatus::Exited(number));
                assert_eq!(text, format!("{number}\n100001\n"));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
