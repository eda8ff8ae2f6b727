//! What `buildkitd.toml` says of builds, and of the daemon.

use std::os::unix::fs::MetadataExt as _;

use slipway_testkit::{Daemon, Environment, Outcome, base_context};

fn run(environment: &Environment, line: &str) -> Outcome {
    environment.run(line.split(' '))
}

/// A context with the base's programs and a step.
fn context(environment: &Environment, step: &str) -> Option<String> {
    let base = base_context()?;
    std::fs::create_dir_all(environment.path("context")).unwrap();
    std::fs::copy(base.join("amd64/busybox"), environment.path("context/busybox")).unwrap();
    let dockerfile =
        format!("FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"{step}\"]\n");
    Some(environment.context("context", &dockerfile))
}

#[test]
fn the_collection_keeps_to_the_limits_of_the_configuration() {
    let environment = Environment::new();
    environment.write("context/data", vec![b'x'; 3 << 20]);
    let context = environment.context("context", "FROM scratch\nCOPY data /data\n");
    let build = |config: &str| {
        // Collections are minutes apart.
        let _ = std::fs::remove_file(environment.state().join("locks/gc.lock"));
        environment.run(["--config", config, "build", "--progress=quiet", &context]).succeeded();
        environment.run(["du", "--verbose"]).succeeded().stdout
    };
    environment.write("off.toml", "[worker.oci]\ngc = false\nmaxUsedSpace = 1\n");
    environment
        .write("rule.toml", "[[worker.oci.gcpolicy]]\nfilters = [\"type==frontend\"]\nmaxUsedSpace = 1\n");
    environment.write("small.toml", "[worker.oci]\nmaxUsedSpace = \"1MB\"\n");
    for config in ["off.toml", "rule.toml"] {
        assert!(build(config).contains("COPY data"), "{config} keeps it");
    }
    assert!(!build("small.toml").contains("COPY data"), "3 MB are more than 1 MB");
}

#[test]
fn steps_have_the_names_and_the_network_that_the_configuration_says() {
    let environment = Environment::new();
    let step = "/bin/busybox cat /etc/resolv.conf; /bin/busybox readlink /proc/self/ns/net";
    let Some(context) = context(&environment, step) else { return };
    environment.write(
        "own.toml",
        "[dns]\nnameservers = [\"192.0.2.7\"]\nsearchDomains = [\"a.example\"]\noptions = [\"ndots:2\"]\n\
         [worker.oci]\nnetworkMode = \"none\"\n",
    );
    let built = environment.run(["--config", "own.toml", "build", "--progress=plain", &context]).succeeded();
    for said in ["nameserver 192.0.2.7", "search a.example", "options ndots:2", " net:["] {
        assert!(built.stderr.contains(said), "no `{said}` in:\n{}", built.stderr);
    }
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!built.stderr.contains(host.to_str().unwrap()), "{}", built.stderr);
}

#[test]
fn a_frontend_that_is_off_and_an_image_that_is_not_listed_are_refused() {
    let environment = Environment::new();
    let context =
        environment.context("context", "# syntax=reg.invalid/front\nFROM scratch\nCOPY Dockerfile /\n");
    environment.write("off.toml", "[frontend.\"gateway.v0\"]\nenabled = false\n");
    environment
        .write("listed.toml", "[frontend.\"gateway.v0\"]\nallowedRepositories = [\"reg.invalid/other\"]\n");
    let refused = |config: &str| environment.run(["--config", config, "build", &context]).failed(1);
    let off = refused("off.toml");
    assert!(off.contains("the frontend `gateway.v0` is off") && off.contains("Dockerfile:1"), "{off}");
    let other = refused("listed.toml");
    assert!(other.contains("'reg.invalid/front' is not an allowed gateway source"), "{other}");
    environment.write("none.toml", "[frontend.\"dockerfile.v0\"]\nenabled = false\n");
    let none = refused("none.toml");
    assert!(none.contains("the frontend `dockerfile.v0` is off"), "{none}");
}

#[test]
fn a_daemon_is_as_its_file_says() {
    let environment = Environment::new();
    environment.write(
        "buildkitd.toml",
        "root = \"/elsewhere\"\n[log]\nformat = \"json\"\n[grpc]\naddress = [\"unix:///elsewhere\"]\ngid = 7\n\
         debugAddress = \"127.0.0.1:1\"\n[worker.oci]\nplatforms = [\"linux/s390x\"]\nmaxUsedSpace = \"10GB\"\n\
         [worker.oci.labels]\nsite = \"here\"\n",
    );
    let config = environment.text("buildkitd.toml");
    let address = format!("unix://{}", environment.path("own.sock").display());
    let command = environment.slipway(["--config", &config]);
    let _daemon = Daemon::serve(command, &environment, "own", &address, &[]);
    assert_eq!(std::fs::metadata(environment.path("own.sock")).unwrap().gid(), 7);
    run(&environment, &format!("create --name own --driver remote {address}")).succeeded();
    let inspected = run(&environment, "inspect own").succeeded().stdout;
    for said in
        ["site: here", "Platforms:        linux/s390x\n", "GC Policy rule#3:", "Max Used Space: 10GiB"]
    {
        let same = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(same(&inspected).contains(&same(said)), "no `{said}` in:\n{inspected}");
    }
}
