//! The base image of the tests: busybox for many platforms, built by the slipway under test.
//!
//! It is built once for each program: what the registry then holds is kept as a seed below `target/tmp`, under a
//! lock, and every test process starts its registry on a copy.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::environment::Environment;
use crate::machine::{in_ci, project, slipway};
use crate::registry::Registry;

/// The platforms of the base image, and what `uname -m` says on each.
pub const BASE_PLATFORMS: &[(&str, &str)] = &[
    ("linux/amd64", "x86_64"),
    ("linux/arm64", "aarch64"),
    ("linux/arm/v7", "armv7l"),
    ("linux/arm/v6", "armv6l"),
    ("linux/386", "i686"),
    ("linux/ppc64le", "ppc64le"),
    ("linux/s390x", "s390x"),
    ("linux/riscv64", "riscv64"),
];

/// Returns the context of the base image, if `scripts/fixtures` has made it.
pub fn base_context() -> Option<PathBuf> {
    cached("busybox", "amd64/busybox", "scripts/fixtures")
}

/// Returns the context of a Debian base image for amd64 and arm64, if `scripts/debian` has made it.
pub fn debian_context() -> Option<PathBuf> {
    cached("debian", "rootfs-arm64.tar", "scripts/debian")
}

/// Finds a directory of the cache by a file that is in it once a script has run.
fn cached(directory: &str, file: &str, script: &str) -> Option<PathBuf> {
    let cache =
        std::env::var_os("SLIPWAY_TEST_CACHE").map_or_else(|| project().join(".cache"), PathBuf::from);
    let context = cache.join(directory);
    if context.join(file).is_file() {
        return Some(context);
    }
    let text = format!("there is no `{file}` in `{}`: run {script}", context.display());
    assert!(!in_ci(), "{text}");
    eprintln!("SKIPPED: {text}");
    None
}

/// Returns this process's registry, with the base image as `library/busybox`; `None` if it cannot be made.
pub fn registry() -> Option<&'static Registry> {
    static REGISTRY: OnceLock<Option<Registry>> = OnceLock::new();
    let made = REGISTRY.get_or_init(|| {
        let context = base_context()?;
        let storage = tempfile::Builder::new().prefix("slipway-registry-").tempdir().unwrap().keep();
        copy_seed(&context, &storage);
        Some(Registry::start(&storage))
    });
    made.as_ref()
}

/// Copies the seed's storage, after making it if this program has none yet.
fn copy_seed(context: &Path, storage: &Path) {
    let seeds = project().join("target/tmp/testkit");
    std::fs::create_dir_all(&seeds).unwrap();
    let lock = File::create(seeds.join("lock")).unwrap();
    lock.lock().unwrap();
    let seed = seeds.join(key(context));
    if !seed.is_dir() {
        for old in std::fs::read_dir(&seeds).unwrap().filter_map(Result::ok) {
            if old.path().is_dir() {
                std::fs::remove_dir_all(old.path()).unwrap();
            }
        }
        let unfinished = tempfile::tempdir_in(&seeds).unwrap();
        make_seed(context, unfinished.path());
        std::fs::rename(unfinished.keep(), &seed).unwrap();
    }
    copy(&seed, storage);
}

/// Copies what is in a directory into another.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success(), "cannot copy `{}`", from.display());
}

/// Names the program and the context it builds.
fn key(context: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    let files = BASE_PLATFORMS.iter().map(|(platform, _)| directory(platform).join("busybox"));
    for path in files.map(|file| context.join(file)).chain([context.join("Dockerfile"), slipway()]) {
        let metadata = path.metadata().unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        (path, metadata.len(), metadata.modified().unwrap()).hash(&mut hasher);
    }
    format!("seed-{:016x}", hasher.finish())
}

/// Returns where the context has a platform's program: `TARGETARCH` and `TARGETVARIANT`.
fn directory(platform: &str) -> PathBuf {
    platform.trim_start_matches("linux/").replace('/', "").into()
}

/// Builds the base image from scratch into a layout and pushes it; copies what the registry then has.
fn make_seed(context: &Path, seed: &Path) {
    let environment = Environment::new();
    let storage = environment.path("storage");
    std::fs::create_dir(&storage).unwrap();
    let registry = Registry::start(&storage);
    let context = context.to_str().expect("test paths are text");
    let platforms: Vec<_> = BASE_PLATFORMS.iter().map(|(platform, _)| *platform).collect();
    let reference = registry.reference("library/busybox");
    let layout = format!("type=oci,tar=false,dest={}", environment.text("layout"));
    environment
        .build(&["--platform", &platforms.join(","), "-t", &reference, "--push", "-o", &layout, context])
        .succeeded();
    assert!(environment.path("layout/index.json").is_file(), "the layout has no index");
    copy(&storage, seed);
}
