//! The whole way of an image through the programs that people have: docker's command builds and pushes it with
//! slipway, a registry keeps it, docker and podman pull it and run it, on this machine's platform and on another.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use slipway_testkit::{Environment, Outcome, is_root, need, registry};

use crate::docker_plugin;
use crate::engine::{Engine, installed};

/// Runs a script as root of a user namespace with the machine's ids, where handlers of foreign programs are
/// nobody else's; returns what it prints.
fn apart(environment: &Environment, script: &str) -> String {
    let wait = "echo up; read -r go; exec setpriv --reuid=0 --regid=0 --clear-groups sh -ec \"$0\"";
    let mut command = Command::new("unshare");
    environment.settle(&mut command);
    let mut child = command
        .args(["--user", "--mount", "--propagation=private", "sh", "-c", wait, script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 65536\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{said}{}", errors.join().unwrap().unwrap());
    said
}

#[test]
fn an_image_goes_from_docker_to_podman_by_a_registry() {
    let programs = ["dockerd", "docker", "podman", "runc"];
    if !need(is_root() && programs.iter().all(|program| installed(program)), "root, docker, podman and runc")
    {
        return;
    }
    let environment = Environment::with_own_program();
    let (Some(registry), Some(())) = (registry(), docker_plugin::installed(&environment)) else { return };
    let engine = Engine::docker(&environment);
    let docker = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = docker_plugin::docker(&environment, &words);
        command.env("DOCKER_HOST", engine.address());
        Outcome::of(command).succeeded().stdout
    };
    let base = registry.reference("library/busybox");
    environment.context(
        "context",
        &format!("FROM {base}\nRUN uname -m > /built\nCMD [\"sh\", \"-c\", \"cat /built; uname -m\"]\n"),
    );
    let (first, second) = (registry.reference("trip/app:1"), registry.reference("trip/app:2"));
    docker("buildx create --use --name trip");
    docker(&format!("buildx build -t {first} --platform=linux/amd64,linux/arm64 --push context"));
    let shown = docker(&format!("buildx imagetools inspect {first}"));
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(shown.lines().any(|line| line.split_whitespace().eq(["Platform:", platform])), "{shown}");
    }
    docker(&format!("buildx imagetools create -t {second} {first}"));
    assert_eq!(registry.raw("trip/app:1"), registry.raw("trip/app:2"));

    docker(&format!("pull --quiet {second}"));
    assert_eq!(docker(&format!("run --rm --network=none {second}")), "x86_64\nx86_64\n");
    let podman = format!(
        "podman --storage-driver=vfs --cgroup-manager=cgroupfs --runtime=runc --root {} --runroot {}",
        environment.text("podman-data"),
        environment.text("podman-run"),
    );
    // Rights that a user namespace does not have over the machine's limits are not needed with low ones.
    let run = "run --rm --pull=never --network=none --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024";
    let on = |platform: &str| {
        format!(
            "{podman} pull --quiet --tls-verify=false --platform={platform} {second} >&2\n{podman} {run} {second}\n"
        )
    };
    let said = apart(
        &environment,
        &format!(
            "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc\n\
             {} binfmt --install arm64 >&2\n{}{}",
            environment.program().display(),
            on("linux/amd64"),
            on("linux/arm64"),
        ),
    );
    assert_eq!(said, "x86_64\nx86_64\naarch64\naarch64\n");
}
