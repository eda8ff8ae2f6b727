//! A node behind `ssh`: a real OpenSSH server on loopback, with keys that are made for the test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use slipway_testkit::{Daemon, Environment, Outcome, Sshd};

/// Starts a server for a client with files of its own; who logs in finds slipway by the name of `buildctl`.
fn start(environment: &Environment) -> Option<Sshd> {
    let there = environment.path("there");
    fs::create_dir(&there).unwrap();
    let path = format!("SetEnv PATH={}:/usr/bin:/bin", there.display());
    let sshd = Sshd::start(&environment.path(""), &path)?;
    symlink(environment.program(), there.join("buildctl")).unwrap();
    // The client's own files are those of the user, wherever HOME is; so they are named.
    let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", environment.text("config"));
    let ssh = environment.write("here/ssh", ssh);
    fs::set_permissions(ssh, PermissionsExt::from_mode(0o755)).unwrap();
    trust(&sshd, environment, "host", "key");
    Some(sshd)
}

/// Writes what the client knows: the server's key, and its own.
fn trust(sshd: &Sshd, environment: &Environment, host: &str, key: &str) {
    let public = fs::read_to_string(environment.path(&format!("{host}.pub"))).unwrap();
    environment.write("known", format!("[127.0.0.1]:{} {public}", sshd.port()));
    let config = format!(
        "UserKnownHostsFile {}\nGlobalKnownHostsFile none\nIdentityFile {}\nIdentitiesOnly yes\n",
        environment.text("known"),
        environment.text(key)
    );
    environment.write("config", config);
}

/// Runs slipway with the test's `ssh`.
fn run(environment: &Environment, arguments: &[&str]) -> Outcome {
    let mut command = environment.slipway(arguments);
    Outcome::of({
        command.env("PATH", format!("{}:/usr/bin:/bin", environment.text("here")));
        command
    })
}

#[test]
fn a_node_is_reached_by_ssh() {
    let environment = Environment::new();
    let Some(sshd) = start(&environment) else { return };
    let daemon = Daemon::start(&environment, "far");
    let socket = daemon.address().trim_start_matches("unix://");
    let address = format!("ssh://root@127.0.0.1:{}{socket}", sshd.port());
    let create = ["create", "--name", "far", "--driver", "remote", &address];
    run(&environment, &create).succeeded();
    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /made\n");
    let build = |to: &str| {
        let output = format!("type=local,dest={}", environment.text(to));
        run(&environment, &["build", "--builder=far", "-o", &output, &context])
    };
    build("files").succeeded();
    assert_eq!(
        fs::read(environment.path("files/made")).unwrap(),
        fs::read(environment.path("context/Dockerfile")).unwrap()
    );
    let shown = run(&environment, &["inspect", "far"]).succeeded().stdout;
    assert!(shown.contains("running"), "{shown}");

    // Who the other side is, and who we are, has to be known without a question.
    let fails = |cause: &str, hint: &str| {
        let error = build("none").failed(1);
        assert!(error.contains(&format!("cannot connect to the daemon at {address}")), "{error}");
        assert!(error.contains(cause) && error.contains(hint), "no `{cause}` or `{hint}` in:\n{error}");
    };
    trust(&sshd, &environment, "other", "key");
    fails("Host key verification failed", "hint: if the machine is the right one, `ssh 127.0.0.1` tells");
    trust(&sshd, &environment, "host", "other");
    fails("Permission denied", "hint: `ssh 127.0.0.1` must work without a question");
    trust(&sshd, &environment, "host", "key");
    fs::remove_file(environment.path("there/buildctl")).unwrap();
    fails("not found", "hint: install BuildKit's `buildctl` on 127.0.0.1, or make a link of that name");
    symlink(environment.program(), environment.path("there/buildctl")).unwrap();
    daemon.kill();
    fails("cannot connect to the daemon at unix://", "hint: is the daemon of the node `far0` running?");
}
