//! `--print`, beside what `docker buildx bake --print` (v0.36) printed for the same files.
//!
//! To record one anew, run it in the directory of the files, with the variables and arguments of the case
//! and `HOME=/root`, and keep its standard output.

use std::path::Path;

use crate::{bake_files, environment, file, request};

#[derive(Default)]
struct Case<'a> {
    golden: &'a str,
    files: &'a [&'a str],
    targets: &'a [&'a str],
    set: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    given: &'a [(&'a str, &'a str)],
}

fn check(case: &Case<'_>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let files: Vec<_> = case.files.iter().map(|name| file(name, &read(name))).collect();
    let mut around = environment(case.variables);
    around.variables.insert("HOME".to_owned(), "/root".to_owned());
    around.given.extend(case.given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let bake = match bake_files(&files, &around, &request(case.targets, case.set)) {
        Ok(bake) => bake,
        Err(wrong) => panic!("{}: {}", case.golden, crate::describe(&wrong)),
    };
    let (printed, golden) = (slipway_bake::to_json(&bake), read(case.golden));
    for (at, (got, want)) in printed.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, want, "{}:{}", case.golden, at + 1);
    }
    assert_eq!(printed.lines().count(), golden.lines().count(), "{}", case.golden);
}

#[test]
fn everything_that_hcl_has() {
    check(&Case { golden: "everything.json", files: &["everything.hcl"], ..Case::default() });
}

#[test]
fn overrides_of_every_kind() {
    check(&Case {
        golden: "everything-set.json",
        files: &["everything.hcl"],
        targets: &["all", "app"],
        set: &[
            "*.platform=linux/s390x",
            "app.tags+=more",
            "app.args.GO=2",
            "app.cache-to=type=local,dest=c",
            "app.contexts.img=",
            "web*.no-cache=true",
            "app.secret.t=env=OTHER",
            "app.attest=type=sbom,generator=g",
            "*.push=true",
        ],
        ..Case::default()
    });
}

#[test]
fn variables_from_the_environment() {
    check(&Case {
        golden: "everything-env.json",
        files: &["everything.hcl"],
        variables: &[
            ("VERSION", "9"),
            ("REG", "env.reg"),
            ("FLAGS", "a,b"),
            ("NUMS", "5,6"),
            ("ON", "0"),
            ("NIL", "x"),
            ("N", "7"),
            ("OBJ_JSON", r#"{"a":"q","b":9}"#),
        ],
        ..Case::default()
    });
}

#[test]
fn load_leaves_other_outputs_alone() {
    check(&Case {
        golden: "everything-load.json",
        files: &["everything.hcl"],
        targets: &["web*", "tool"],
        set: &["*.load=true"],
        ..Case::default()
    });
}

#[test]
fn compose_files() {
    check(&Case { golden: "services.json", files: &["services.yaml"], ..Case::default() });
    check(&Case {
        golden: "services-merged.json",
        files: &["services.yaml", "services.override.yaml", "services.hcl"],
        variables: &[("TAG", "9"), ("AVAR", "")],
        ..Case::default()
    });
}

#[test]
fn json_files() {
    check(&Case {
        golden: "plain.golden.json",
        files: &["plain.json"],
        targets: &["nested"],
        ..Case::default()
    });
}

#[test]
fn later_files_are_laid_over_earlier_ones() {
    let files: &[&str] = &["merged-1.hcl", "merged-2.hcl"];
    check(&Case { golden: "merged.json", files, targets: &["pair"], ..Case::default() });
    check(&Case {
        golden: "merged-env.json",
        files,
        targets: &["pair"],
        variables: &[("A", "env")],
        given: &[("A", "given")],
        ..Case::default()
    });
}
