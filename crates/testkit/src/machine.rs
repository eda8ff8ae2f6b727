//! The machine that the tests run on: where the project and the program under test are, and what is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Returns the root of the project.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate is two directories below the root").to_owned()
}

/// Finds the program under test: `SLIPWAY_BIN`, or the newer of the project's builds.
pub fn slipway() -> PathBuf {
    if let Some(path) = std::env::var_os("SLIPWAY_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "SLIPWAY_BIN names `{}`, which is no file", path.display());
        return path;
    }
    let built = |profile: &str| {
        let path = project().join("target").join(profile).join("slipway");
        let changed = path.metadata().and_then(|metadata| metadata.modified()).ok()?;
        Some((changed, path))
    };
    let newest = built("release").into_iter().chain(built("debug")).max();
    let Some((_, path)) = newest else {
        panic!("there is no slipway to test: run `cargo build --release`, or set SLIPWAY_BIN to a program");
    };
    path
}

/// Tells whether the tests run where nothing may be skipped.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Tells whether the tests run as root of the machine.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"))
}

/// Tells whether a test can run; if not, says why, and fails where nothing may be skipped.
pub fn need(available: bool, what: &str) -> bool {
    if !available {
        assert!(!in_ci(), "this test needs {what}");
        eprintln!("SKIPPED: this test needs {what}");
    }
    available
}

/// Reads the host's binfmt_misc registrations, by name.
pub fn binfmt_table() -> BTreeMap<String, String> {
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return BTreeMap::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(entry.path()).unwrap_or_default())
        })
        .collect()
}

/// Reads where what is mounted below `path` in this mount namespace.
pub fn mount_table(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("test paths are text");
    let table = std::fs::read_to_string("/proc/self/mounts").expect("`/proc` is mounted");
    table.lines().filter(|line| line.contains(path)).map(str::to_owned).collect()
}
