//! Mistakes in the Dockerfile, the context and the command line: one clear error each, and a state that stays usable.

use slipway_testkit::{Environment, registry};

/// A mistake and what its error must say.
struct Mistake<'a> {
    dockerfile: &'a str,
    arguments: &'a [&'a str],
    code: i32,
    parts: &'a [&'a str],
}

impl Default for Mistake<'_> {
    fn default() -> Self {
        Self { dockerfile: "FROM scratch\nCOPY Dockerfile /\n", arguments: &[], code: 1, parts: &[] }
    }
}

impl Mistake<'_> {
    /// Makes the mistake in a context called `context`, which may have files already.
    #[track_caller]
    fn check(&self, environment: &Environment) {
        let context = environment.context("context", self.dockerfile);
        let arguments: Vec<_> = self.arguments.iter().copied().chain([context.as_str()]).collect();
        let error = environment.build(&arguments).failed(self.code);
        for part in self.parts.iter().chain(&["hint: "]) {
            assert!(
                error.contains(part),
                "no `{part}` for {:?} {:?} in:\n{error}",
                self.dockerfile,
                self.arguments
            );
        }
        let usable = environment.context("usable", "FROM scratch\nCOPY Dockerfile /\n");
        environment.build(&[&usable]).succeeded();
    }
}

#[test]
fn there_is_no_dockerfile_or_nothing_in_it() {
    let environment = Environment::new();
    std::fs::create_dir(environment.path("empty")).unwrap();
    let error = environment.build(&[&environment.text("empty")]).failed(1);
    assert!(error.contains("Dockerfile") && error.contains("--file"), "{error}");
    let error = environment.build(&[&environment.text("absent")]).failed(1);
    assert!(error.contains("not found") && error.contains("hint: "), "{error}");
    Mistake { dockerfile: "", parts: &["empty"], ..Default::default() }.check(&environment);
    Mistake {
        dockerfile: "# only this\n",
        parts: &["no instructions", "Dockerfile:1"],
        ..Default::default()
    }
    .check(&environment);
}

#[test]
fn what_the_language_does_not_have_is_named_with_its_line() {
    let environment = Environment::new();
    let mistakes: &[(&str, &[&str])] = &[
        (
            "FROM scratch\nRUM x\n",
            &["unknown instruction: RUM", "did you mean RUN", "Dockerfile:2", ">>> RUM x"],
        ),
        ("FROM scratch\nCOPY --frm=x a b\n", &["unknown flag: --frm", "did you mean from", "Dockerfile:2"]),
        ("FROM scratch\nRUN --mount=type=bnd true\n", &["bnd", "Dockerfile:2"]),
        ("FROM scratch\nCOPY one\n", &["COPY requires at least two arguments", "Dockerfile:2"]),
        ("RUN true\n", &["Dockerfile:1"]),
        ("FROM scratch\nRUN <<EOF\ntrue\n", &["EOF", "Dockerfile:2"]),
        (
            "FROM scratch AS a\nCOPY --from=b / /\nFROM a AS b\nCOPY --from=a / /\nFROM b\nCOPY --from=c / /\nFROM b AS c\n",
            &["Dockerfile:"],
        ),
        (
            "FROM scratch AS a\nCOPY --from=b / /\nFROM a AS b\nCOPY --from=a / /\n",
            &["circular", "Dockerfile:"],
        ),
        ("FROM scratch AS a\nCOPY --from=a / /\n", &["circular", "Dockerfile:2"]),
    ];
    for (dockerfile, parts) in mistakes {
        Mistake { dockerfile, parts, ..Default::default() }.check(&environment);
    }
}

#[test]
fn an_unknown_stage_is_named() {
    let environment = Environment::new();
    let dockerfile = "FROM scratch AS build\nCOPY Dockerfile /\n";
    let arguments: &[&str] = &["--target", "biuld"];
    Mistake { dockerfile, arguments, parts: &["biuld", "build"], ..Default::default() }.check(&environment);
    let dockerfile = "FROM scratch AS build\nCOPY Dockerfile /\nFROM scratch\nCOPY --from=7 / /\n";
    Mistake { dockerfile, parts: &["7", "Dockerfile:4"], ..Default::default() }.check(&environment);
}

#[test]
fn the_command_line_is_wrong() {
    let environment = Environment::new();
    let mistakes: &[(&[&str], &[&str])] = &[
        (&["--platfrom", "x"], &["unknown flag: --platfrom", "did you mean `--platform`?"]),
        (&["--platform", "linux/amd64/v1/extra"], &["invalid platform `linux/amd64/v1/extra`"]),
        (&["--platform", ""], &["invalid platform"]),
        (&["--output", "type=nothing"], &["nothing"]),
        (&["--tag", "upper/CASE"], &["upper/CASE"]),
        (&["--secret", "id=x,src"], &["field `src` must be a key=value pair", "write `src=VALUE`"]),
        (&["--cache-to", "type=foo"], &["unknown cache type `foo`", "registry, inline, local, gha"]),
        (&["--progress", "loud"], &["loud"]),
        (&["--ulimit", "nofile=many"], &["many"]),
    ];
    for (arguments, parts) in mistakes {
        Mistake { arguments, parts, code: 2, ..Default::default() }.check(&environment);
    }
}

#[test]
fn a_missing_source_is_told_with_what_may_have_been_meant() {
    let environment = Environment::new();
    environment.write("context/sources/main.c", "int main;\n");
    environment.write("context/ignored.txt", "no\n");
    environment.write("context/.dockerignore", "ign*.txt\n");
    let mistakes: &[(&str, &[&str])] = &[
        (
            "FROM scratch\nCOPY sources/man.c /\n",
            &["/sources/man.c", "not found", "did you mean `sources/main.c`?"],
        ),
        ("FROM scratch\nCOPY ignored.txt /\n", &["excluded by .dockerignore:1 `ign*.txt`", "!ignored.txt"]),
    ];
    for (dockerfile, parts) in mistakes {
        let parts: Vec<_> = parts.iter().copied().chain(["Dockerfile:2"]).collect();
        Mistake { dockerfile, parts: &parts, ..Default::default() }.check(&environment);
    }
}

#[test]
fn a_copy_cannot_leave_the_context() {
    let environment = Environment::new();
    environment.write("secret", "do not copy\n");
    environment.write("context/Dockerfile", "");
    for (name, target) in [("up", ".."), ("link", "../secret"), ("absolute", "/etc/hostname")] {
        std::os::unix::fs::symlink(target, environment.path("context").join(name)).unwrap();
    }
    for source in ["../secret", "up/secret", "link", "absolute", "/../secret", "a/../../secret"] {
        let dockerfile = format!("FROM scratch\nCOPY {source} /copy\n");
        Mistake { dockerfile: &dockerfile, parts: &["Dockerfile:2", "outside"], ..Default::default() }
            .check(&environment);
    }
}

#[test]
fn a_base_without_the_platform_says_what_it_has() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = format!("FROM {}\nRUN true\n", registry.reference("library/busybox"));
    for platform in ["linux/mips64le", "linux/amd46", "windows/amd64"] {
        let arguments: &[&str] = &["--platform", platform];
        let parts: &[&str] = &["Dockerfile:1", "linux/arm/v7, ", "linux/s390x", platform];
        Mistake { dockerfile: &dockerfile, arguments, parts, ..Default::default() }.check(&environment);
    }
    let dockerfile = format!("FROM {}\nRUN true\n", registry.reference("library/busybox:absent"));
    let parts: &[&str] = &["Dockerfile:1", "busybox:absent", "does not exist"];
    Mistake { dockerfile: &dockerfile, parts, ..Default::default() }.check(&environment);
}

#[test]
fn a_failing_step_is_told_with_its_last_lines_and_platform() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    for platform in ["linux/amd64", "linux/arm64", "linux/386"] {
        let arguments: &[&str] = &["--platform", platform];
        let dockerfile = format!("FROM {base}\nRUN seq 100 && exit 7\n");
        let platform = format!("platform: {platform}");
        let parts: &[&str] = &["exit code: 7", "Dockerfile:2", "| 99\n  | 100\n", &platform];
        Mistake { dockerfile: &dockerfile, arguments, parts, ..Default::default() }.check(&environment);
        let dockerfile = format!("FROM {base}\nRUN [\"/bin/absent\"]\n");
        let parts: &[&str] = &["/bin/absent", "Dockerfile:2", &platform];
        Mistake { dockerfile: &dockerfile, arguments, parts, ..Default::default() }.check(&environment);
    }
}

#[test]
fn a_frontend_of_another_language_is_told_with_who_named_it() {
    let environment = Environment::new();
    for (head, arguments, said) in [
        ("# syntax=front.invalid/other\n", &[][..], "1 | >>> # syntax=front.invalid/other"),
        ("", &["--build-arg=BUILDKIT_SYNTAX=front.invalid/other"][..], "metadata for front.invalid/other"),
    ] {
        let context = environment.context("context", &format!("{head}FROM scratch\nCOPY Dockerfile /\n"));
        let error = environment.build(&[arguments, &[&context]].concat()).failed(1);
        assert!(
            error.contains(said) && error.contains("hint: check the spelling of `front.invalid`"),
            "{error}"
        );
    }
}
