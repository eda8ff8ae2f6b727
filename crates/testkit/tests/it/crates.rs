//! Which crate may use which.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use slipway_testkit::project;

/// The crates of the middle: the engine uses them, they use the model, and never each other.
const MIDDLE: &[&str] =
    &["dockerfile", "solver", "store", "files", "registry", "emulation", "runtime", "proxy"];

/// Returns what a crate may use of the others.
fn allowed(name: &str) -> BTreeSet<&str> {
    match name {
        "model" | "fsutil" | "testkit" => BTreeSet::new(),
        "engine" => MIDDLE.iter().copied().chain(["model"]).collect(),
        "daemon" => ["engine", "fsutil", "model"].into(),
        "bake" => ["model"].into(),
        "policy" => ["engine", "model"].into(),
        "cli" => ["bake", "daemon", "engine", "model", "policy"].into(),
        middle if MIDDLE.contains(&middle) => ["model"].into(),
        other => panic!("`{other}` has no place in the order of the crates: see docs/architecture.md"),
    }
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(project())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap().strip_prefix("slipway-").expect("all are slipway's");
        let allowed = allowed(name);
        for dependency in package["dependencies"].as_array().unwrap() {
            let uses = dependency["name"].as_str().unwrap();
            let Some(uses) = uses.strip_prefix("slipway-") else { continue };
            // Tests of any crate may stand on the testkit.
            if uses == "testkit" {
                assert_eq!(dependency["kind"], "dev", "only tests use the testkit: {name}");
            } else {
                assert!(allowed.contains(uses), "{name} must not use {uses}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, MIDDLE.len() + 8, "a crate is missing, or new");
}
