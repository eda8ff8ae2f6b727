//! A node that is a container: docker's engine runs slipway's own daemon in it, with the rights it needs.

use std::process::Command;

use slipway_testkit::{Environment, Outcome, is_root, need, registry};

use crate::engine::{Engine, installed};
use crate::remote_cache::{all_cached, steps};

const IMAGE: &str = "slipway.example/buildkitd:test";

/// Makes an image of the program under the names of BuildKit's, with the libraries it is linked with.
fn make_image(environment: &Environment, engine: &Engine) {
    let context = environment.context("image", "FROM scratch\nCOPY files /\nENTRYPOINT [\"buildkitd\"]\n");
    let put = |from: &str, to: &str| {
        let to = environment.path(&format!("image/files{to}"));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    put(environment.program().to_str().unwrap(), "/usr/bin/buildkitd");
    std::os::unix::fs::symlink("buildkitd", environment.path("image/files/usr/bin/buildctl")).unwrap();
    let linked = Command::new("ldd").arg(environment.program()).output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        put(library, library);
    }
    let mut build = environment.slipway(["build", "--load", "-t", IMAGE, &context]);
    build.env("DOCKER_HOST", engine.address());
    Outcome::of(build).succeeded();
}

#[test]
fn a_node_is_a_container() {
    let available = is_root() && installed("dockerd") && installed("docker");
    if !need(available, "root, `dockerd` and the docker command") {
        return;
    }
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let engine = Engine::docker(&environment);
    let run = |program: &str, line: &str| {
        let mut command = Command::new(program);
        environment.settle(&mut command);
        command.env("DOCKER_HOST", engine.address()).args(line.split(' '));
        Outcome::of(command).succeeded()
    };
    let slipway = |line: &str| run(environment.program().to_str().unwrap(), line);
    make_image(&environment, &engine);

    let base = registry.reference("library/busybox");
    let domain = base.split('/').next().unwrap();
    environment.write("buildkitd.toml", format!("[registry.\"{domain}\"]\nhttp = true\n"));
    let options = format!("image={IMAGE},network=host,env.SAID=so");
    slipway(&format!(
        "create --name box --driver docker-container --driver-opt {options} --config buildkitd.toml"
    ));
    assert!(slipway("ls").stdout.contains("inactive"));
    let shown = slipway("inspect box --bootstrap");
    assert!(shown.stdout.contains("Status:                running"), "{}{}", shown.stdout, shown.stderr);
    // Others ask so whether the daemon is up.
    let workers = run("docker", "exec buildx_buildkit_box0 buildctl debug workers").stdout;
    assert!(workers.starts_with("ID\tPLATFORMS\n") && workers.contains("linux/"), "{workers}");
    let settings =
        run("docker", "inspect --format {{.Config.Env}}{{.HostConfig.NetworkMode}} buildx_buildkit_box0");
    assert!(settings.stdout.contains("SAID=so") && settings.stdout.contains("]host"), "{}", settings.stdout);

    environment.context("context", &format!("FROM {base}\nRUN head -c 16 /dev/urandom >/made\n"));
    let build = "build --progress=plain --builder box -o type=local,dest=files context";
    let said = slipway(build).stderr;
    assert_eq!(steps(&said).len(), 1, "{said}");
    assert_eq!(std::fs::read(environment.path("files/made")).unwrap().len(), 16);
    slipway("stop box");
    assert!(slipway("ls").stdout.contains("stopped"));
    // The container's state outlives its end.
    all_cached(&slipway(build).stderr);
    slipway("rm box");
    assert_eq!(run("docker", "ps --all --quiet").stdout, "");
    assert_eq!(run("docker", "volume ls --quiet").stdout, "");
}
