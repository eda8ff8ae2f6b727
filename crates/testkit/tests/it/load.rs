//! Loading what was built into a container engine, by its socket.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use slipway_testkit::{Environment, is_root, need, registry};

use crate::hello::Hello;

const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm64"];

/// An engine of the test's own, that ends with it.
struct Engine {
    process: Child,
    socket: std::path::PathBuf,
}

impl Engine {
    /// Starts `dockerd` on directories of the environment, without touching the network's set-up.
    fn docker(environment: &Environment) -> Self {
        use std::io::{BufRead, BufReader};
        let socket = environment.path("docker.sock");
        let mut process = Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false", "--storage-driver=vfs", "--log-level=info", "--host"])
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
    fn podman(environment: &Environment) -> Self {
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

    /// Asks the engine something.
    fn get(&self, path: &str) -> Value {
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
    }
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Loads the example for two platforms, and looks at what the engine has.
fn check_load(start: impl FnOnce(&Environment) -> Engine) {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let engine = start(&environment);
    let mut command =
        environment.slipway(Hello::of(registry, PLATFORMS).with(&["--load", "-t", "hello:1"]).arguments());
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket.display()));
    slipway_testkit::Outcome::of(command).succeeded();
    for (tag, architecture) in [("hello:1", "amd64"), ("hello:1-arm64", "arm64")] {
        let image = engine.get(&format!("/images/{tag}/json"));
        assert_eq!(image["Architecture"], architecture, "{tag}: {image}");
    }
}

#[test]
fn several_platforms_are_loaded_into_a_docker_engine() {
    if need(is_root() && installed("dockerd"), "root and `dockerd`") {
        check_load(Engine::docker);
    }
}

#[test]
fn several_platforms_are_loaded_into_podman() {
    if need(is_root() && installed("podman"), "root and `podman`") {
        check_load(Engine::podman);
    }
}
