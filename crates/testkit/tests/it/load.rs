//! Loading what was built into a container engine, by its socket.

use slipway_testkit::{Environment, is_root, need, registry};

use crate::engine::{Engine, installed};
use crate::hello::Hello;

const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm64"];

/// Loads the example for two platforms, and looks at what the engine has.
fn check_load(start: impl FnOnce(&Environment) -> Engine) {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let engine = start(&environment);
    let mut command =
        environment.slipway(Hello::of(registry, PLATFORMS).with(&["--load", "-t", "hello:1"]).arguments());
    command.env("DOCKER_HOST", engine.address());
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
