//! Slipway as `docker buildx`, by the real docker command.

use std::process::Command;

use rustix::process::Signal;
use slipway_testkit::{Environment, Outcome, Running, descendants, is_root, need, registry, wait_until_gone};

use crate::engine::{self, Engine};

/// Makes a command of docker, which finds its plugins below the environment's home.
pub(crate) fn docker(environment: &Environment, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    environment.settle(&mut command);
    command.args(arguments);
    command
}

/// Installs slipway as docker's plugin; `None` if there is no docker here.
pub(crate) fn installed(environment: &Environment) -> Option<()> {
    let there = Command::new("docker").arg("--version").output().is_ok_and(|output| output.status.success());
    need(there, "the docker command").then_some(())?;
    environment.run(["install"]).succeeded();
    Some(())
}

#[test]
fn the_commands_of_the_guides_work() {
    let environment = Environment::with_own_program();
    let (Some(registry), Some(())) = (registry(), installed(&environment)) else { return };
    let engine = need(is_root() && engine::installed("dockerd"), "root and `dockerd`")
        .then(|| Engine::docker(&environment));
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = docker(&environment, &words);
        command.envs(engine.iter().map(|engine| ("DOCKER_HOST", engine.address())));
        Outcome::of(command).succeeded()
    };
    assert!(run("buildx version").stdout.starts_with("slipway/buildx v"));
    run("buildx create --use --name mybuilder");
    run("buildx create --platform linux/arm64,linux/arm/v7,linux/arm/v6 --name multiarch-builder");
    environment.write("buildkitd.toml", "debug = true\n");
    run("buildx create --name third --driver-opt network=host --config buildkitd.toml --use");
    run("buildx use mybuilder");
    assert!(run("buildx ls").stdout.contains("mybuilder*"));
    assert!(run("buildx inspect mybuilder --bootstrap").stdout.contains("linux/arm64"));

    let base = registry.reference("library/busybox");
    environment.context(".", &format!("FROM {base}\nRUN uname -m > /machine\nCMD [\"cat\", \"/machine\"]\n"));
    let name = registry.reference("plugin/guide:1");
    run(&format!("buildx build -t {name} --platform=linux/arm,linux/arm64,linux/amd64 . --push"));
    let shown = run(&format!("buildx imagetools inspect {name}")).stdout;
    for platform in ["linux/arm/v7", "linux/arm64", "linux/amd64"] {
        let is_shown = |line: &str| line.split_whitespace().eq(["Platform:", platform]);
        assert!(shown.lines().any(is_shown), "{shown}");
    }
    for (platform, machine) in [("linux/arm/v7", "armv7l"), ("linux/arm64", "aarch64")] {
        let outcome = environment.run(["run", "--platform", platform, &name]).succeeded();
        assert_eq!(outcome.stdout, format!("{machine}\n"));
    }
    if let Some(engine) = &engine {
        run(&format!("buildx build -t {name} --platform=linux/arm -o type=docker ."));
        assert_eq!(engine.get(&format!("/images/{name}/json"))["Architecture"], "arm");
    }
    run(&format!("buildx imagetools create -t {} {name}", registry.reference("plugin/guide:2")));
    assert_eq!(registry.raw("plugin/guide:1"), registry.raw("plugin/guide:2"));
    run("buildx rm mybuilder");
}

#[test]
fn flags_of_docker_and_exit_codes_pass_through() {
    let environment = Environment::with_own_program();
    let Some(()) = installed(&environment) else { return };
    let context = environment.context("context", "FROM scratch\nCOPY nothing /\n");
    let outcome = Outcome::of(docker(&environment, &["--context", "default", "buildx", "build", &context]));
    assert!(outcome.failed(1).contains("/nothing"));
    let outcome = Outcome::of(docker(&environment, &["buildx", "build", "--no-such-flag", &context]));
    assert!(outcome.failed(2).contains("unknown flag: --no-such-flag"));
    let error = environment.run(["uninstall"]).succeeded().stderr;
    assert!(error.starts_with("removed "), "{error}");
    environment.run(["uninstall"]).failed(1);
}

#[test]
fn a_docker_that_is_stopped_stops_the_build() {
    let environment = Environment::with_own_program();
    let (Some(registry), Some(())) = (registry(), installed(&environment)) else { return };
    let base = registry.reference("library/busybox");
    let context =
        environment.context("context", &format!("FROM {base}\nRUN echo $((40 + 2)); tail -f /dev/null\n"));
    let command = docker(&environment, &["buildx", "build", "--progress=plain", &context]);
    let mut running = Running::start(command);
    running.wait_for(" 42");
    let below = descendants(running.id());
    assert!(!below.is_empty(), "the step is below docker");
    running.signal(Signal::TERM);
    let outcome = running.end();
    assert!(!outcome.status.success(), "{}", outcome.stderr);
    wait_until_gone(below, environment.program());
}
