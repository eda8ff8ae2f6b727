//! Mistakes that have nothing to do with each other are told in one run.

use slipway_testkit::Environment;

#[track_caller]
fn errors(environment: &Environment, dockerfile: &str, more: &[&str]) -> String {
    let context = environment.context("context", dockerfile);
    let outcome = environment.build(&[more, &[&context]].concat());
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.said());
    outcome.stderr
}

fn count(errors: &str) -> usize {
    errors.lines().filter(|line| line.starts_with("error:")).count()
}

#[test]
fn missing_files_of_two_stages() {
    let environment = Environment::new();
    let dockerfile = "FROM scratch AS a\nCOPY nope /x\nFROM scratch AS b\nCOPY nada /y\n\
                      FROM scratch\nCOPY --from=a /x /x\nCOPY --from=b /y /y\n";
    for platforms in ["--platform=linux/amd64", "--platform=linux/amd64,linux/arm64"] {
        let said = errors(&environment, dockerfile, &[platforms]);
        let (first, second) = (said.find("Dockerfile:2").unwrap(), said.find("Dockerfile:4").unwrap());
        assert!(first < second && said.contains("\"/nope\"") && said.contains("\"/nada\""), "{said}");
        assert_eq!(count(&said), 2, "{said}");
    }
}

#[test]
fn mistakes_of_the_language() {
    let environment = Environment::new();
    let said = errors(&environment, "FROM scratch\nRUNN x\nCOPY --frm=a b c\nENV\n", &[]);
    for part in ["did you mean RUN?", "unknown flag: --frm", "ENV requires at least one argument"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    assert_eq!(count(&said), 3, "{said}");
    let said = errors(
        &environment,
        "FROM scratch AS a\nENV A=${B:?must}\nFROM a\nCOPY --chmod=xyz a /\nEXPOSE 99999999\n",
        &[],
    );
    for part in ["B: must", "invalid chmod parameter", "invalid containerPort"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    assert_eq!(count(&said), 3, "{said}");
}
