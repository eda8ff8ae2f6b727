//! Builds that are stopped from outside: Ctrl-C, and a disk that is full.

use std::collections::BTreeMap;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use slipway_testkit::{
    Environment, Outcome, Running, descendants, is_root, mount_table, need, registry, wait_until_gone,
};

#[test]
fn ctrl_c_ends_a_build_and_all_its_processes() {
    let Some(registry) = registry() else { return };
    let environment = Environment::with_own_program();
    let base = registry.reference("library/busybox");
    let context =
        environment.context("context", &format!("FROM {base}\nRUN echo $((40 + 2)); tail -f /dev/null\n"));
    for platform in ["linux/amd64", "linux/arm64"] {
        for signal in [Signal::INT, Signal::TERM] {
            let arguments = ["build", "--progress=plain", "--platform", platform, &context];
            let mut running = Running::start(environment.slipway(arguments));
            running.wait_for(" 42");
            let below = descendants(running.id());
            assert!(!below.is_empty(), "the step is below slipway");
            running.signal(signal);
            let error = running.end().failed(130);
            assert!(error.contains("cancel") || error.contains("interrupted"), "{error}");
            wait_until_gone(below, environment.program());
            assert_eq!(mount_table(&environment.path("")), [""; 0]);
        }
    }
    let usable = environment.context("usable", &format!("FROM {base}\nRUN echo well\n"));
    environment.build(&[&usable]).succeeded();
}

#[test]
fn every_step_that_started_is_told_to_have_ended() {
    let Some(registry) = registry() else { return };
    let environment = Environment::with_own_program();
    let base = registry.reference("library/busybox");
    let context = environment.context("context", &format!("FROM {base}\nRUN tail -f /dev/null\n"));
    let mut running = Running::start(environment.slipway(["build", "--progress=rawjson", &context]));
    running.wait_for("RUN tail -f /dev/null");
    running.signal(Signal::INT);
    let said = running.end().stderr;
    let mut steps: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for line in said.lines().filter(|line| line.starts_with('{')) {
        let status: Value = serde_json::from_str(line).unwrap();
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let text = |name: &str| vertex[name].as_str().unwrap_or_default().to_owned();
            steps.insert(text("digest"), (text("name"), vertex.clone()));
        }
    }
    let step = steps.values().find(|(name, _)| name.contains("RUN tail")).expect("it was waited for");
    assert!(step.1["error"].as_str().is_some_and(|error| error.ends_with("canceled")), "{said}");
    for (name, last) in steps.values() {
        assert!(last.get("completed").is_some(), "`{name}` has no end:\n{said}");
    }
}

#[test]
fn another_platforms_failure_ends_a_step() {
    let Some(registry) = registry() else { return };
    let environment = Environment::with_own_program();
    let dockerfile = "ARG BASE\nFROM $BASE\nRUN if [ $(uname -m) = aarch64 ]; then echo oh dear; exit 3; else tail -f /dev/null; fi\n";
    let context = environment.context("context", dockerfile);
    let base = format!("BASE={}", registry.reference("library/busybox"));
    let outcome = environment.build(&["--platform=linux/amd64,linux/arm64", "--build-arg", &base, &context]);
    let error = outcome.failed(1);
    for part in ["exit code: 3", "| oh dear", "platform: linux/arm64", ">>> RUN if"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    wait_until_gone(Vec::new(), environment.program());
}

/// Runs a build on a state that is a file system of 6 MB, then a small one on the same state.
const ON_SMALL_DISK: &str = r#"mount -t tmpfs -o size=6m,mode=755 tmpfs "$SLIPWAY_ROOT"
    first=0; "$0" build --progress=plain "$1" || first=$?
    echo "--- $first" >&2
    "$0" prune --force >&2
    "$0" build --progress=plain -o "type=local,dest=$3" "$2""#;

/// Fills the disk with a build of `dockerfile`, and checks that it is told and that a small build then works.
fn fill_disk(dockerfile: &str) {
    let environment = Environment::new();
    std::fs::create_dir(environment.state()).unwrap();
    environment.write("large/large", vec![b'x'; 20_000_000]);
    let large = environment.context("large", dockerfile);
    let small = environment.context("small", "FROM scratch\nCOPY Dockerfile /\n");
    let mut command = Command::new("unshare");
    environment.settle(&mut command);
    command.args(["--mount", "sh", "-ec", ON_SMALL_DISK]).arg(environment.program());
    command.args([&large, &small, &environment.text("out")]);
    let outcome = Outcome::of(command).succeeded();
    let (first, _) = outcome.stderr.split_once("--- 1\n").unwrap_or_else(|| panic!("{}", outcome.stderr));
    assert_eq!(first.matches("\nerror:").count(), 1, "{first}");
    let error = &first[first.find("\nerror:").expect("there is one")..];
    assert!(error.contains("no space left") && error.contains("hint: run `slipway prune`"), "{error}");
    assert!(environment.path("out/Dockerfile").is_file());
}

#[test]
fn a_disk_filled_by_a_copy_is_told_and_stays_usable() {
    let Some(registry) = registry().filter(|_| need(is_root(), "root, to mount a small disk")) else {
        return;
    };
    fill_disk("FROM scratch\nCOPY large /\n");
    fill_disk(&format!("FROM {}\nCOPY large /\nRUN true\n", registry.reference("library/busybox")));
}

#[test]
fn a_disk_filled_by_a_step_is_told_and_stays_usable() {
    let Some(registry) = registry().filter(|_| need(is_root(), "root, to mount a small disk")) else {
        return;
    };
    let base = registry.reference("library/busybox");
    fill_disk(&format!("FROM {base}\nRUN head -c 20000000 /dev/zero > /large\n"));
}
