//! Caches in registries, directories and images: what one machine built, another one does not build again.

use std::path::{Path, PathBuf};

use serde_json::Value;
use slipway_testkit::{Environment, Registry, registry};

use crate::hello::Hello;

const PLATFORM: &str = "linux/amd64";

/// Steps whose results differ each time they run, so that a hit is told from a repetition.
fn dockerfile(base: &str) -> String {
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    format!(
        "FROM {base} AS tools\nRUN {random} > /tool\n\
         FROM tools AS build\nCOPY src /src\nRUN --mount=type=bind,target=/context cat /context/src/a > /out && {random} >> /out\n\
         FROM {base}\nRUN {random} > /first\nCOPY --from=build /out /out\nRUN cat /out > /last\n"
    )
}

/// A machine that starts empty, with the sources at a place of its own.
struct Machine {
    environment: Environment,
    context: String,
}

impl Machine {
    fn new(registry: &Registry, directory: &str) -> Self {
        let environment = Environment::new();
        let context = environment.context(directory, &dockerfile(&registry.reference("library/busybox")));
        environment.write(&format!("{directory}/src/a"), "a\n");
        Self { environment, context }
    }

    fn build(&self, arguments: &[&str]) -> String {
        let platform = format!("--platform={PLATFORM}");
        let all: Vec<&str> =
            [platform.as_str(), self.context.as_str()].into_iter().chain(arguments.iter().copied()).collect();
        self.environment.build(&all).succeeded().said()
    }

    /// The sizes of the blobs in the state.
    fn downloaded(&self) -> u64 {
        let blobs = self.environment.state().join("blobs/sha256");
        let files = std::fs::read_dir(blobs).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

/// Tells of each step that a Dockerfile runs whether it came from the cache.
pub(crate) fn steps(said: &str) -> Vec<(String, bool)> {
    let mut steps = Vec::new();
    for line in said.lines() {
        let Some((number, name)) = line.split_once(' ').filter(|(number, _)| number.starts_with('#')) else {
            continue;
        };
        if name.starts_with('[') && (name.contains("] RUN") || name.contains("] COPY")) {
            let says = |what: &str| said.lines().any(|line| line.starts_with(&format!("{number} {what}")));
            let cached = says("CACHED") && !says("DONE");
            if steps.iter().all(|(known, _): &(String, bool)| known != name) {
                steps.push((name.to_owned(), cached));
            }
        }
    }
    steps
}

/// Insists that every step came from a cache.
#[track_caller]
pub(crate) fn all_cached(said: &str) {
    let steps = steps(said);
    assert!(!steps.is_empty() && steps.iter().all(|(_, cached)| *cached), "{steps:?}\n{said}");
}

#[track_caller]
fn something_ran(said: &str) {
    assert!(steps(said).iter().any(|(_, cached)| !cached), "{said}");
}

#[test]
fn a_machine_that_starts_empty_hits_everything() {
    let Some(registry) = registry() else { return };
    let (one, cache) = (registry.reference("cached/app:1"), registry.reference("cached/app:cache"));
    let first = Machine::new(registry, "first");
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    let said = first.build(&["--push", "--tag", &one, &to]);
    for part in [
        "exporting cache to registry",
        "preparing build cache for export",
        "writing cache image manifest sha256:",
    ] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }

    let second = Machine::new(registry, "somewhere/else");
    let two = registry.reference("cached/app:2");
    let said = second.build(&["--push", "--tag", &two, "--cache-from", &cache, &to]);
    assert!(said.contains(&format!("importing cache manifest from {cache}")), "{said}");
    all_cached(&said);
    assert_eq!(registry.raw("cached/app:1"), registry.raw("cached/app:2"));
    // The image went from repository to repository: documents were read, layers were not.
    assert!(second.downloaded() < 64 << 10, "{} bytes are here", second.downloaded());
    assert!(!said.contains("writing layer"), "what is there is written again:\n{said}");

    // What was hit belongs to the state now.
    all_cached(&second.build(&[]));
    // A changed file is built on what is cached: its stage's layers come, the tools are not made again.
    second.environment.write("somewhere/else/src/a", "changed\n");
    let said = second.build(&["--cache-from", &cache, "--output=type=local,dest=files"]);
    let ran: Vec<String> =
        steps(&said).into_iter().filter(|(_, cached)| !cached).map(|(name, _)| name).collect();
    assert!(
        ran.iter()
            .all(|name| name.contains("[build") || name.contains("COPY --from") || name.contains("/last")),
        "{ran:?}"
    );
    assert!(std::fs::read_to_string(second.environment.path("files/last")).unwrap().starts_with("changed\n"));
}

#[test]
fn what_was_built_without_cache_is_a_cache_too() {
    let Some(registry) = registry() else { return };
    let cache = registry.reference("anew/app:cache");
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    Machine::new(registry, "first").build(&["--no-cache", &to]);
    let said = Machine::new(registry, "second").build(&["--cache-from", &cache, &to]);
    all_cached(&said);
    assert!(!said.contains("writing cache"), "what is there is written again:\n{said}");
}

#[test]
fn platforms_share_one_cache() {
    let Some(registry) = registry() else { return };
    let cache = registry.reference("shared/app:cache");
    let hello =
        |more: &[&str]| Hello::of(registry, &["linux/amd64", "linux/arm64", "linux/s390x"]).with(more);
    let first = Environment::new();
    let tag = registry.reference("shared/app:1");
    first
        .run(
            hello(&["--push", "-t", &tag, "--cache-to", &format!("type=registry,ref={cache},mode=max")])
                .arguments(),
        )
        .succeeded();
    let second = Environment::new();
    let tag = registry.reference("shared/app:2");
    let said =
        second.run(hello(&["--push", "-t", &tag, "--cache-from", &cache]).arguments()).succeeded().said();
    all_cached(&said);
    assert_eq!(registry.raw("shared/app:1"), registry.raw("shared/app:2"));
}

#[test]
fn an_image_carries_its_cache() {
    let Some(registry) = registry() else { return };
    for (name, flag) in [("arg", "--build-arg=BUILDKIT_INLINE_CACHE=1"), ("flag", "--cache-to=type=inline")] {
        let image = registry.reference(&format!("inline/{name}:1"));
        Machine::new(registry, "first").build(&["--push", "--tag", &image, flag]);
        let config = registry.skopeo(&["inspect", "--config", "--raw"], &format!("inline/{name}:1"));
        assert!(serde_json::from_str::<Value>(&config).unwrap()["moby.buildkit.cache.v0"].is_string());
        all_cached(&Machine::new(registry, "second").build(&["--cache-from", &image]));
    }
    // Without being asked for it is not there.
    let image = registry.reference("inline/none:1");
    Machine::new(registry, "first").build(&["--push", "--tag", &image]);
    let said = Machine::new(registry, "second").build(&["--cache-from", &image]);
    something_ran(&said);
}

/// Lists the blobs of a cache in a directory: its config, then its layers.
fn listed(cache: &Path) -> (PathBuf, Vec<PathBuf>) {
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        cache.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    };
    let manifest = read(blob(&read(cache.join("index.json"))["manifests"][0]));
    (blob(&manifest["config"]), manifest["layers"].as_array().unwrap().iter().map(blob).collect())
}

/// Finds a layer that no result can do without: the one that `cat` made.
fn top(cache: &Path) -> PathBuf {
    let (config, layers) = listed(cache);
    let config: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    let all = config["layers"].as_array().unwrap();
    let is_parent =
        |position: usize| all.iter().any(|layer| layer["parent"].as_u64().unwrap_or(0) == position as u64);
    let depth = |mut at: usize| {
        let mut depth = 0;
        while let Some(parent) =
            all[at].get("parent").map_or(Some(0), |parent| usize::try_from(parent.as_i64().unwrap()).ok())
        {
            (at, depth) = (parent, depth + 1);
        }
        depth
    };
    let top = (0..all.len())
        .filter(|position| !is_parent(*position))
        .max_by_key(|position| depth(*position))
        .unwrap();
    let digest = all[top]["blob"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    layers.into_iter().find(|layer| layer.ends_with(digest)).unwrap()
}

fn exported(registry: &Registry, options: &str) -> (Environment, PathBuf) {
    let first = Machine::new(registry, "first");
    let cache = first.environment.path("cache");
    first.build(&["--cache-to", &format!("type=local,dest={}{options}", cache.display())]);
    (first.environment, cache)
}

#[test]
fn a_directory_is_a_cache() {
    let Some(registry) = registry() else { return };
    for options in ["", ",mode=max", ",image-manifest=false,tag=v1", ",oci-mediatypes=false,compression=zstd"]
    {
        let (_first, cache) = exported(registry, options);
        let tag = if options.contains("tag=") { ",tag=v1" } else { "" };
        let second = Machine::new(registry, "second");
        all_cached(&second.build(&["--cache-from", &format!("type=local,src={}{tag}", cache.display())]));
    }
    // `reset` drops what no tag needs.
    let (first, cache) = exported(registry, "");
    let before = std::fs::read_dir(cache.join("blobs/sha256")).unwrap().count();
    first.write("first/src/a", "other\n");
    let context = first.text("first");
    let platform = format!("--platform={PLATFORM}");
    let to = |more: &str| format!("--cache-to=type=local,dest={}{more}", cache.display());
    first.build(&[&platform, &context, &to("")]).succeeded();
    assert!(std::fs::read_dir(cache.join("blobs/sha256")).unwrap().count() > before);
    first.build(&[&platform, &context, &to(",reset=true")]).succeeded();
    let (_, layers) = listed(&cache);
    let left = std::fs::read_dir(cache.join("blobs/sha256")).unwrap().count();
    assert_eq!(left, layers.len() + 2, "its layers, its config and the manifest");
}

#[test]
fn a_cache_that_is_damaged_never_fails_a_build() {
    let Some(registry) = registry() else { return };
    let output = "--output=type=local,dest=files";
    let from = |cache: &Path| format!("--cache-from=type=local,src={}", cache.display());
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 6] = [
        ("no index", |cache| std::fs::remove_file(cache.join("index.json")).unwrap()),
        ("no JSON", |cache| std::fs::write(cache.join("index.json"), "{").unwrap()),
        ("altered config", |cache| std::fs::write(listed(cache).0, "{\"records\": []}").unwrap()),
        ("no layers", |cache| listed(cache).1.iter().for_each(|layer| std::fs::remove_file(layer).unwrap())),
        ("one layer less", |cache| std::fs::remove_file(top(cache)).unwrap()),
        // Found out when a layer is needed only, and never used.
        ("altered layers", |cache| {
            for layer in listed(cache).1 {
                let mut bytes = std::fs::read(&layer).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(layer, bytes).unwrap();
            }
        }),
    ];
    let (first, whole) = exported(registry, ",mode=max");
    let copy = |name: &str| {
        let cache = first.path(name);
        let status = std::process::Command::new("cp").arg("-a").args([&whole, &cache]).status().unwrap();
        assert!(status.success());
        cache
    };
    for (name, damage) in damages {
        let cache = copy(name);
        damage(&cache);
        let second = Machine::new(registry, "second");
        let said = second.build(&[&from(&cache), output]);
        assert!(steps(&said).iter().any(|(_, cached)| !cached), "{name}: all is cached\n{said}");
        let last = std::fs::read_to_string(second.environment.path("files/last")).unwrap();
        assert!(last.starts_with("a\n"), "{name}: {last}");
    }
    // A cache that is gone after it was hit is no loss either.
    let cache = copy("gone");
    let second = Machine::new(registry, "second");
    all_cached(&second.build(&[&from(&cache)]));
    std::fs::remove_dir_all(&cache).unwrap();
    something_ran(&second.build(&[output]));
}

#[test]
fn an_export_that_fails_is_an_error_unless_told_otherwise() {
    let Some(registry) = registry() else { return };
    let machine = Machine::new(registry, "first");
    // The port was free a moment ago, and nobody has learned of it.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = |more: &str| format!("--cache-to=type=registry,ref={nobody}/app:cache{more}");
    let error = machine.environment.build(&[&machine.context, &to("")]).failed(1);
    assert!(error.contains("does not answer"), "{error}");
    machine.build(&[&to(",ignore-error=true")]);
    let error = machine.environment.build(&[&machine.context, "--cache-to=type=azblob,name=x"]).failed(1);
    assert!(error.contains("hint: use `type=registry`, `type=local`, `type=inline` or `type=s3`"), "{error}");
    // Nobody to import from is told of, and passed over.
    let said = machine.build(&["--cache-from", &format!("{nobody}/app:cache")]);
    assert!(said.contains(&format!("importing cache manifest from {nobody}/app:cache")), "{said}");
}
