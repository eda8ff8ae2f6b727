//! How long a server and a step take: `cargo bench -p slipway-runtime`, as root, on a quiet machine.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement: a panic is the report"
)]

use std::time::Instant;

use slipway_runtime::{SandboxServer, ServerOptions};

use crate::harness::{Root, Run, server};

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/it/harness.rs"]
mod harness;

fn main() {
    slipway_runtime::dispatch();
    report("server", || drop(SandboxServer::start(&ServerOptions::default()).unwrap()));
    let emulated = ServerOptions { user_namespace: true, ..Default::default() };
    report("server in a user namespace", || drop(SandboxServer::start(&emulated).unwrap()));
    let inside = SandboxServer::start(&emulated).unwrap();
    for (name, server) in [("step", server()), ("step in a user namespace", &*inside)] {
        let root = Root::new();
        report(name, || assert!(Run::args(&["true"]).outcome_on(server, &root).0.unwrap().status.success()));
    }
    report("fork and exec alone", || {
        std::process::Command::new("true").status().unwrap();
    });
}

fn report(what: &str, mut work: impl FnMut()) {
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "{what}: min {:?} median {:?} p90 {:?}",
        times[0],
        times[times.len() / 2],
        times[times.len() * 9 / 10]
    );
}
