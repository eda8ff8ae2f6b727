//! A node behind `ssh`: a real OpenSSH server on loopback, with keys that are made for the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use slipway_testkit::{Daemon, Environment, Outcome, is_root, need};

const SSHD: &str = "/usr/sbin/sshd";

/// A server, the files of its client, and the PATH of those who log in; the server ends with it.
struct Sshd {
    process: Child,
    port: u16,
}

impl Sshd {
    fn start(environment: &Environment) -> Option<Self> {
        if !need(is_root() && Path::new(SSHD).is_file(), "root and `openssh-server`") {
            return None;
        }
        // It insists on an empty directory of this name.
        fs::create_dir_all("/run/sshd").unwrap();
        for name in ["host", "other", "key"] {
            let path = environment.text(name);
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).status();
            assert!(made.unwrap().success());
        }
        let there = environment.path("there");
        fs::create_dir(&there).unwrap();
        symlink(environment.program(), there.join("buildctl")).unwrap();
        // Between choosing a port and listening on it somebody else may take it.
        let sshd = (0..10).find_map(|_| Self::try_start(environment)).expect("sshd listens on some port");
        // The client's own files are those of the user, wherever HOME is; so they are named.
        let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", environment.text("config"));
        let ssh = environment.write("here/ssh", ssh);
        fs::set_permissions(ssh, PermissionsExt::from_mode(0o755)).unwrap();
        sshd.trust(environment, "host", "key");
        Some(sshd)
    }

    fn try_start(environment: &Environment) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {key}.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nSetEnv PATH={there}:/usr/bin:/bin\n",
            host = environment.text("host"),
            key = environment.text("key"),
            there = environment.text("there"),
        );
        let config = environment.write("sshd_config", config);
        let mut process = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listens = lines.any(|line| line.contains("Server listening on"));
        std::thread::spawn(move || lines.for_each(drop));
        listens.then_some(Self { process, port })
    }

    /// Writes what the client knows: the server's key, and its own.
    fn trust(&self, environment: &Environment, host: &str, key: &str) {
        let public = fs::read_to_string(environment.path(&format!("{host}.pub"))).unwrap();
        environment.write("known", format!("[127.0.0.1]:{} {public}", self.port));
        let config = format!(
            "UserKnownHostsFile {}\nGlobalKnownHostsFile none\nIdentityFile {}\nIdentitiesOnly yes\n",
            environment.text("known"),
            environment.text(key)
        );
        environment.write("config", config);
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    let Some(sshd) = Sshd::start(&environment) else { return };
    let daemon = Daemon::start(&environment, "far");
    let socket = daemon.address().trim_start_matches("unix://");
    let address = format!("ssh://root@127.0.0.1:{}{socket}", sshd.port);
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
    sshd.trust(&environment, "other", "key");
    fails("Host key verification failed", "hint: if the machine is the right one, `ssh 127.0.0.1` tells");
    sshd.trust(&environment, "host", "other");
    fails("Permission denied", "hint: `ssh 127.0.0.1` must work without a question");
    sshd.trust(&environment, "host", "key");
    fs::remove_file(environment.path("there/buildctl")).unwrap();
    fails("not found", "hint: install BuildKit's `buildctl` on 127.0.0.1, or make a link of that name");
    symlink(environment.program(), environment.path("there/buildctl")).unwrap();
    daemon.kill();
    fails("cannot connect to the daemon at unix://", "hint: is the daemon of the node `far0` running?");
}
