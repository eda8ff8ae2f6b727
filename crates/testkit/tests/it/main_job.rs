//! The main job: one Dockerfile, many platforms, one image index in a registry.

use std::process::Command;

use serde_json::Value;
use slipway_testkit::{BASE_PLATFORMS, Environment, Outcome, Registry, binfmt_table, registry};

use crate::hello::{self, Hello};

/// Builds and pushes the example, checks what was pushed, runs it, and builds it again.
///
/// `runs` makes a command of slipway run as the user in question.
pub(crate) fn check(
    environment: &Environment,
    registry: &Registry,
    name: &str,
    runs: impl Fn(&[String]) -> Command,
) {
    let before = binfmt_table();
    let reference = registry.reference(name);
    let build = Hello::new(registry).with(&["--tag", &reference, "--push"]);
    let first = Outcome::of(runs(build.arguments())).succeeded();
    // What differs between platforms ran on each, what does not ran once.
    assert_eq!(first.stderr.matches("] RUN sort").count(), 1, "{}", first.stderr);
    assert!(first.stderr.contains("[qemu-aarch64"), "the emulator is not named:\n{}", first.stderr);

    let pushed = registry.raw(name);
    check_index(registry, name, &pushed);
    for (platform, machine) in BASE_PLATFORMS {
        let arguments = ["run", "--platform", platform, &reference].map(str::to_owned);
        let outcome = Outcome::of(runs(&arguments)).succeeded();
        assert_eq!(outcome.stdout, hello::says(platform, machine), "{}", outcome.stderr);
    }

    let second = Outcome::of(runs(build.arguments())).succeeded();
    for step in second.stderr.lines().filter(|line| line.contains("] RUN ") || line.contains("] COPY ")) {
        let number = step.split_whitespace().next().expect("lines start with the step's number");
        assert!(
            second.stderr.contains(&format!("{number} CACHED\n")),
            "not cached: {step}\n{}",
            second.stderr
        );
    }
    assert!(!second.stderr.contains("pushing layer"), "{}", second.stderr);
    assert_eq!(registry.raw(name), pushed, "the same build gave another index");
    assert_eq!(binfmt_table(), before, "the host's emulators changed");
    assert_eq!(slipway_testkit::mount_table(&environment.state()), [""; 0]);
}

/// Checks the index and the manifest of every platform.
fn check_index(registry: &Registry, name: &str, raw: &str) {
    let index: Value = serde_json::from_str(raw).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let repository = name.split(':').next().unwrap();
    let mut platforms = Vec::new();
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        let platform =
            ["os", "architecture", "variant"].iter().filter_map(|key| entry["platform"][key].as_str());
        platforms.push(platform.collect::<Vec<_>>().join("/"));
        let manifest = registry.raw(&format!("{repository}@{}", entry["digest"].as_str().unwrap()));
        assert_eq!(entry["size"], manifest.len());
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
        let layers = manifest["layers"].as_array().unwrap();
        assert!(
            layers.iter().all(|layer| layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip")
        );
    }
    let wanted: Vec<_> = BASE_PLATFORMS.iter().map(|(platform, _)| *platform).collect();
    assert_eq!(platforms, wanted);
}

#[test]
fn one_dockerfile_becomes_one_index_of_eight_platforms() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    check(&environment, registry, "main-job/hello:1", |arguments| environment.slipway(arguments));
}

#[test]
fn two_tags_and_a_copy_in_the_store_come_from_one_build() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let [first, second] = ["tags/hello:1", "tags/hello:latest"].map(|name| registry.reference(name));
    let build = Hello::of(registry, &["linux/amd64", "linux/arm64"]);
    environment.run(build.with(&["-t", &first, "-t", &second, "--push"]).arguments()).succeeded();
    assert_eq!(registry.raw("tags/hello:1"), registry.raw("tags/hello:latest"));
    let kept = Hello::of(registry, &["linux/amd64", "linux/arm64"]).with(&["-t", "kept:1"]);
    environment.run(kept.arguments()).succeeded();
    let kept = environment.run(["run", "--platform=linux/arm64", "kept:1"]).succeeded();
    assert_eq!(kept.stdout, hello::says("linux/arm64", "aarch64"));
}
