//! Builds elsewhere: several daemons as the nodes of one builder, in network namespaces of their own where one is
//! to be cut off.

use std::fs;
use std::process::Command;

use serde_json::Value;
use slipway_testkit::{Daemon, Environment, Outcome, Running, base_context, is_root, need};

use crate::pair::Pair;

/// Prints on which node a step runs, and waits on the one whose network has a `slowlink`.
const STEP: &str = "FROM scratch
ARG TARGETARCH
COPY $TARGETARCH/busybox /bin/busybox
RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo begun; if /bin/busybox grep -q slowlink /proc/net/dev; then /bin/busybox sleep 600; fi; echo built >/made\"]
";

/// Runs a line of words.
fn run(environment: &Environment, line: &str) -> Outcome {
    environment.run(line.split(' '))
}

/// Lists the platforms of an index in a layout, and its digest.
fn platforms(layout: &std::path::Path) -> Vec<String> {
    let read =
        |path: &std::path::Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let top = read(&layout.join("index.json"));
    let digest = top["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let index = read(&layout.join(digest));
    let manifests = index["manifests"].as_array().unwrap().iter();
    let mut names: Vec<String> = manifests
        .map(|entry| &entry["platform"])
        .filter(|platform| platform["os"] != "unknown")
        .map(|platform| {
            format!("{}/{}", platform["os"].as_str().unwrap(), platform["architecture"].as_str().unwrap())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn nodes_build_their_platforms_and_what_they_made_is_one() {
    let environment = Environment::new();
    let _pair = Pair::start(&environment, ["linux/amd64", "linux/arm64"]);
    let context = environment.context(
        "context",
        "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n",
    );
    let place = |name: &str| environment.text(name);
    let outputs = [
        format!("type=oci,tar=false,dest={}", place("layout")),
        format!("type=docker,dest={}", place("docker.tar")),
        format!("type=local,dest={}", place("files")),
        format!("type=tar,dest={}", place("files.tar")),
    ];
    let mut arguments =
        vec!["--builder", "both", "--platform", "linux/amd64,linux/arm64", "-t", "r.example/a:1"];
    arguments.extend(outputs.iter().flat_map(|output| ["-o", output.as_str()]));
    let metadata = place("metadata.json");
    arguments.extend(["--metadata-file", &metadata, &context]);
    let built = environment.build(&arguments).succeeded();
    let told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    for platform in ["linux/amd64", "linux/arm64"] {
        let provenance = &told[format!("buildx.build.provenance/{platform}")];
        assert_eq!(provenance["buildType"], "https://mobyproject.org/buildkit@v1", "{told:#}");
    }
    for node in ["both0", "both1"] {
        assert!(built.stderr.contains(&format!("[{node} ")), "no {node} in:\n{}", built.stderr);
    }
    assert_eq!(platforms(&environment.path("layout")), ["linux/amd64", "linux/arm64"]);
    assert!(environment.path("files/linux_amd64/amd64").is_file());
    assert!(environment.path("files/linux_arm64/arm64").is_file());
    let listed = |archive: &str| {
        let listed = Command::new("tar").arg("tf").arg(environment.path(archive)).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    let files = listed("files.tar");
    assert!(files.contains("linux_amd64/amd64") && files.contains("linux_arm64/arm64"), "{files}");
    assert!(listed("docker.tar").contains("manifest.json"));
}

#[test]
fn a_metadata_file_tells_how_a_build_elsewhere_was_made() {
    let environment = Environment::new();
    let daemon = Daemon::start(&environment, "one");
    run(&environment, &format!("create --name away --driver remote {}", daemon.address())).succeeded();
    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let metadata = environment.text("metadata.json");
    let told = |builder: &str, much: &str| -> Value {
        let arguments = ["build", "--builder", builder, "--metadata-file", &metadata, &context];
        let mut command = environment.slipway(arguments);
        command.env("BUILDX_METADATA_PROVENANCE", much);
        Outcome::of(command).succeeded();
        let mut told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
        told["buildx.build.provenance"].take()
    };
    let (min, max) = (told("away", "min"), told("away", "max"));
    assert_eq!(min["invocation"]["parameters"]["frontend"], "dockerfile.v0");
    assert!(min.get("metadata").is_none() && min.get("buildConfig").is_none(), "{min:#}");
    assert_eq!(max["metadata"]["completeness"]["environment"], true);
    assert!(max["buildConfig"]["llbDefinition"].is_array(), "{max:#}");
    assert_eq!(told("away", "disabled"), Value::Null);
    // Members are the same, wherever the build was.
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&told("default", "max")), names(&max));
}

#[test]
fn a_node_that_is_down_is_told_and_replaced() {
    let environment = Environment::new();
    let pair = Pair::start(&environment, ["linux/amd64", "linux/arm64"]);
    pair.two.kill();
    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let output = format!("type=oci,tar=false,dest={}", environment.text("layout"));
    let arguments = ["--builder", "both", "--platform", "linux/amd64,linux/arm64", "-o", &output, &context];
    let built = environment.build(&arguments).succeeded();
    assert!(
        built.stderr.contains("[internal] node both1 is down, its platforms go to others"),
        "{}",
        built.stderr
    );
    assert_eq!(platforms(&environment.path("layout")), ["linux/amd64", "linux/arm64"]);
}

/// A network that can be cut: a namespace at the other end of a cable.
struct Away {
    namespace: String,
    cable: String,
    address: String,
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|output| output.status.success())
}

impl Away {
    fn new() -> Self {
        let id = std::process::id();
        let away = Self {
            namespace: format!("slipway-test-{id}"),
            cable: format!("sw{id}"),
            address: format!("198.18.{}.2", id % 250),
        };
        let Self { namespace, cable, address } = &away;
        let here = address.trim_end_matches('2').to_owned() + "1";
        for line in [
            format!("netns add {namespace}"),
            format!("link add {cable} type veth peer name slowlink netns {namespace}"),
            format!("addr add {here}/30 dev {cable}"),
            format!("link set {cable} up"),
            format!("-n {namespace} addr add {address}/30 dev slowlink"),
            format!("-n {namespace} link set slowlink up"),
            format!("-n {namespace} link set lo up"),
        ] {
            assert!(ip(&line), "ip {line}");
        }
        away
    }

    fn cut(&self) {
        assert!(ip(&format!("link set {} down", self.cable)));
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.cable));
        ip(&format!("netns del {}", self.namespace));
    }
}

#[test]
fn a_node_that_is_cut_off_during_a_build_is_replaced() {
    let Some(base) = base_context() else { return };
    if !need(is_root() && ip("netns list"), "root and network namespaces") {
        return;
    }
    let environment = Environment::new();
    let away = Away::new();
    let near = Daemon::start(&environment, "near");
    let first = near.address();
    let mut command = Command::new("ip");
    environment.settle(&mut command);
    command.args(["netns", "exec", &away.namespace]).arg(environment.program());
    let second = format!("tcp://{}:7777", away.address);
    let _far = Daemon::serve(command, &environment, "far", &second, &[]);
    run(&environment, &format!("create --name both --driver remote {first}")).succeeded();
    run(&environment, &format!("create --name both --append --node far --platform linux/386 {second}"))
        .succeeded();
    let dockerfile = environment.write("Dockerfile", STEP);
    let output = format!("type=oci,tar=false,dest={}", environment.text("layout"));
    let mut build = environment.slipway(["build", "--progress=plain", "--provenance=false"]);
    build.env("SLIPWAY_NODE_TIMEOUT", "2s");
    build.args(["--builder", "both", "--platform", "linux/amd64,linux/386", "-o", &output, "-f"]);
    let mut building = Running::start({
        build.arg(dockerfile).arg(base);
        build
    });
    building.wait_for("[far 2/2] RUN");
    away.cut();
    let built = building.end().succeeded();
    assert!(
        built.stderr.contains("[internal] node far was lost, its platforms go to others"),
        "{}",
        built.stderr
    );
    assert_eq!(platforms(&environment.path("layout")), ["linux/386", "linux/amd64"]);
}
