//! Several nodes and one registry: one index of what they push, and one cache of what they export.

use serde_json::Value;
use slipway_testkit::{Environment, Registry, registry};

use crate::pair::Pair;
use crate::remote_cache::{all_cached, steps};

const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/386"];

/// A step whose result differs each time it runs, so that a hit is told from a repetition.
fn context(environment: &Environment, registry: &Registry) -> String {
    let base = registry.reference("library/busybox");
    environment
        .context("context", &format!("FROM {base}\nRUN head -c 16 /dev/urandom | od -An -tx1 > /random\n"))
}

/// Builds on both nodes, and insists that each has a part in it.
fn build(environment: &Environment, arguments: &[&str]) -> String {
    let start = ["build", "--progress=plain", "--builder=both", "--platform", &PLATFORMS.join(",")];
    let said = environment.run(start.iter().chain(arguments)).succeeded().said();
    for node in ["[both0 ", "[both1 "] {
        assert!(said.contains(node), "no {node} in:\n{said}");
    }
    said
}

/// Exports a cache, empties the nodes, and builds again with the cache alone.
fn check_cache(environment: &Environment, registry: &Registry, export: &[&str], import: &str) {
    let context = context(environment, registry);
    let _pair = Pair::start(environment, PLATFORMS);
    let first: Vec<&str> = export.iter().copied().chain([context.as_str()]).collect();
    let said = build(environment, &first);
    assert!(!said.contains("each node exports its own cache"), "{said}");
    environment.run(["prune", "--builder=both", "--all", "--force"]).succeeded();
    all_cached(&build(environment, &["--cache-from", import, &context]));
}

#[test]
fn nodes_share_one_cache_in_a_registry() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let cache = registry.reference("nodes/app:cache");
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    check_cache(&environment, registry, &[&to], &cache);
    // Everybody else hits on it too: here one machine that builds both platforms.
    let other = Environment::new();
    let arguments = ["--platform", &PLATFORMS.join(","), "--cache-from", &cache, &context(&other, registry)];
    let said = other.build(&arguments).succeeded().said();
    all_cached(&said);
    assert_eq!(steps(&said).len(), 2, "{said}");
}

#[test]
fn nodes_share_one_cache_in_a_directory() {
    let Some(registry) = registry() else { return };
    for reset in ["true", "false"] {
        let environment = Environment::new();
        let directory = environment.text("cache");
        let to = format!("--cache-to=type=local,dest={directory},mode=max,reset={reset}");
        check_cache(&environment, registry, &[&to], &format!("type=local,src={directory}"));
        let read = |path: &str| -> Value {
            serde_json::from_slice(&std::fs::read(environment.path(path)).unwrap()).unwrap()
        };
        let index = read("cache/index.json");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "parts are not seen: {index}");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let whole = read(&format!("cache/blobs/{digest}"));
        let layers = whole["layers"].as_array().unwrap().len();
        let blobs = std::fs::read_dir(environment.path("cache/blobs/sha256")).unwrap().count();
        assert_eq!(blobs, layers + 2, "the layers, the config and the manifest of the whole: {whole}");
    }
}

#[test]
fn images_of_nodes_carry_their_cache() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let image = registry.reference("nodes/inline:1");
    check_cache(&environment, registry, &["--cache-to=type=inline", "--push", "-t", &image], &image);
}

#[test]
fn nodes_push_one_index() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let context = context(&environment, registry);
    let pair = Pair::start(&environment, PLATFORMS);
    let push = |name: &str| ["--push".to_owned(), "-t".to_owned(), registry.reference(name), context.clone()];
    let arguments = push("nodes/pushed:1");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let metadata = environment.text("metadata.json");
    build(&environment, &[&arguments[..], &["--metadata-file", &metadata]].concat());
    check_index(&environment, registry, "nodes/pushed:1");
    let written: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let image = registry.reference("nodes/pushed:1");
    let shown = ["imagetools", "inspect", "--format", "{{.Manifest.Digest}}", &image];
    let digest = environment.run(shown).succeeded().stdout;
    assert_eq!(written["containerimage.digest"], digest.trim());
    // The nodes have given no names; tags of digests are how this registry lists attestations.
    let tags = registry.skopeo(&["list-tags"], "nodes/pushed");
    let tags: Value = serde_json::from_str(&tags).unwrap();
    let tags = tags["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
    assert_eq!(tags.filter(|tag| !tag.starts_with("sha256-")).collect::<Vec<_>>(), ["1"]);

    pair.one.kill();
    let image = registry.reference("nodes/pushed:2");
    let arguments =
        ["build", "--builder=both", "--platform", &PLATFORMS.join(","), "--push", "-t", &image, &context];
    let said = environment.run(arguments).succeeded().said();
    assert!(said.contains("node both0 is down, its platforms go to others"), "{said}");
    check_index(&environment, registry, "nodes/pushed:2");
}

/// Looks at an image of both platforms, each with its provenance.
fn check_index(environment: &Environment, registry: &Registry, name: &str) {
    let image = registry.reference(name);
    let shown = environment.run(["imagetools", "inspect", &image]).succeeded().stdout;
    for platform in PLATFORMS {
        let is_shown = |line: &str| line.split_whitespace().eq(["Platform:", platform]);
        assert!(shown.lines().any(is_shown), "{shown}");
        let format = format!("{{{{json (index .Provenance \"{platform}\").SLSA}}}}");
        let provenance = environment.run(["imagetools", "inspect", "--format", &format, &image]).succeeded();
        let provenance: Value = serde_json::from_str(&provenance.stdout).unwrap();
        assert!(provenance["buildDefinition"]["buildType"].is_string(), "{platform}: {provenance}");
    }
    let index: Value = serde_json::from_str(&registry.raw(name)).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 4, "two images, two attestations: {index}");
}

#[test]
fn a_cache_of_a_node_is_reset() {
    let environment = Environment::new();
    let _pair = Pair::start(&environment, PLATFORMS);
    let directory = environment.text("cache");
    let blobs = |text: &str| {
        let context = environment.context("context", &format!("FROM scratch\nCOPY Dockerfile /{text}\n"));
        let to = format!("--cache-to=type=local,dest={directory},mode=max,reset=true");
        environment.build(&["--builder=both", "--platform=linux/amd64", &to, &context]).succeeded();
        std::fs::read_dir(environment.path("cache/blobs/sha256")).unwrap().count()
    };
    assert_eq!(blobs("one"), blobs("two"), "what the first build wrote is still there");
}
