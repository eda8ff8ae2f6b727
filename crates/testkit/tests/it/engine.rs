//! Container engines of the test's own: docker's and podman's.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use slipway_testkit::Environment;

/// `runc`, for machines that lack a capability: it would refuse to start a container that is to have all, where
/// there is nothing to give.
const RUNTIME: &str = r#"#!/usr/bin/env python3
import json, os, subprocess, sys
arguments = sys.argv[1:]
after = lambda name: arguments[arguments.index(name) + 1] if name in arguments else None
path = after("--process") or (after("--bundle") if "create" in arguments else None)
if path:
    path = os.path.join(path, "config.json") if os.path.isdir(path) else path
    config = json.load(open(path))
    dump = subprocess.run(["setpriv", "--dump"], capture_output=True, text=True).stdout
    bounding = next(line for line in dump.splitlines() if line.startswith("Capability bounding set"))
    there = {"CAP_" + name.upper() for name in bounding.split(": ")[1].split(",")}
    sets = config.get("process", config).get("capabilities") or {}
    for kind in sets:
        sets[kind] = [name for name in sets[kind] if name in there]
    json.dump(config, open(path, "w"))
os.execvp("runc", ["runc", *arguments])
"#;

/// An engine of the test's own, that ends with it.
pub(crate) struct Engine {
    process: Child,
    socket: std::path::PathBuf,
}

impl Engine {
    /// Starts `dockerd` on directories of the environment, without touching the network's set-up.
    pub(crate) fn docker(environment: &Environment) -> Self {
        use std::io::{BufRead, BufReader};
        let socket = environment.path("docker.sock");
        let runtime = environment.write("docker-runc", RUNTIME);
        std::fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
        let mut process = Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false", "--storage-driver=vfs", "--log-level=info"])
            .arg(format!("--add-runtime=lacking={}", runtime.display()))
            .args(["--default-runtime=lacking", "--host"])
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(environment.path("docker-data"))
            .arg("--exec-root")
            .arg(environment.path("docker-exec"))
            .arg("--pidfile")
            .arg(environment.path("docker.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let up = lines.any(|line| {
            let up = line.contains("API listen on");
            said.push(line);
            up
        });
        assert!(up, "dockerd does not start:\n{}", said.join("\n"));
        // What it says from now on is read, so that it never waits for us, and forgotten.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, socket }
    }

    /// Starts podman's service on directories of the environment; it takes over a socket that listens already.
    pub(crate) fn podman(environment: &Environment) -> Self {
        let socket = environment.path("podman.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        // Socket activation: the service finds its socket as descriptor 3.
        let start =
            "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec podman \"$@\" system service --time=0";
        let process = Command::new("sh")
            .args(["-c", start, "sh", "--storage-driver=vfs", "--root"])
            .arg(environment.path("podman-data"))
            .arg("--runroot")
            .arg(environment.path("podman-run"))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { process, socket }
    }

    /// Returns where it answers.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Asks the engine something.
    pub(crate) fn get(&self, path: &str) -> Value {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (_, body) = reply.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {reply}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.process.wait();
        // Docker leaves the host's network mounted here, where containers have used it.
        let networks = self.socket.with_file_name("docker-exec/netns");
        for network in std::fs::read_dir(networks).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg(network.path()).status();
        }
    }
}

/// Tells whether a program is on the PATH.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
