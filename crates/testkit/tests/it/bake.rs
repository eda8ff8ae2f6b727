//! `bake`: several targets at once, made of each other.

use std::collections::BTreeSet;

use serde_json::Value;
use slipway_testkit::{
    Archive, Daemon, Environment, FakeRegistry, GitDaemon, GitRepository, Registry, Reply, git_over_http,
    need, registry,
};

use crate::pair::Pair;

const DEFINITION: &str = r#"
variable "BASE" {}
variable "WORDS" {
  type    = list(string)
  default = ["one", "two"]
}
function "greeting" {
  params = [word]
  result = "${title(word)}!"
}
group "default" {
  targets = ["app"]
}
target "_platforms" {
  platforms = ["linux/amd64", "linux/arm64"]
}
target "common" {
  args              = { BASE = BASE }
  dockerfile-inline = <<-EOT
    ARG BASE
    FROM $BASE
    RUN echo "common on $(uname -m)" > /common
  EOT
}
target "app" {
  name     = "app-${word}"
  matrix   = { word = WORDS }
  inherits = ["_platforms"]
  context  = "app"
  contexts = { common = "target:common" }
  args     = { GREETING = greeting(word) }
  output   = ["type=oci,tar=false,dest=out/${word}"]
}
"#;

const DOCKERFILE: &str = "FROM common\nARG GREETING\nCOPY file /\nRUN echo \"$GREETING $(cat /file) $(cat /common)\" > /said\nCMD [\"cat\", \"/said\"]\n";

/// Writes the definition, and what it builds.
fn prepared() -> Environment {
    let environment = Environment::new();
    environment.write("docker-bake.hcl", DEFINITION);
    environment.write("app/Dockerfile", DOCKERFILE);
    environment.write("app/file", "from a file");
    environment
}

fn bake(registry: &Registry, arguments: &[&str]) -> Vec<String> {
    let base = format!("BASE={}", registry.reference("library/busybox"));
    let start = ["bake", "--progress=plain", "--var", &base];
    start.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect()
}

#[test]
fn targets_of_a_matrix_are_made_of_another_for_every_platform() {
    let Some(registry) = registry() else { return };
    let environment = prepared();
    let metadata = environment.text("metadata.json");
    let outcome = environment.run(bake(registry, &["--metadata-file", &metadata])).succeeded();
    for (word, greeting) in [("one", "One!"), ("two", "Two!")] {
        for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
            // Another state: all there is comes from the layout.
            let layout = format!("oci-layout://{}", environment.text(&format!("out/{word}")));
            let said = Environment::new().run(["run", "--platform", platform, &layout]).succeeded();
            assert_eq!(said.stdout, format!("{greeting} from a file common on {machine}\n"));
        }
        assert!(outcome.stderr.contains(&format!("[app-{word} linux/arm64 ")), "{}", outcome.stderr);
    }
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    let names: Vec<&String> = metadata.as_object().unwrap().keys().collect();
    assert_eq!(names, ["app-one", "app-two", "common"]);
    assert!(metadata["app-one"]["containerimage.digest"].as_str().unwrap().starts_with("sha256:"));
    assert_ne!(metadata["app-one"]["containerimage.digest"], metadata["app-two"]["containerimage.digest"]);
}

#[test]
fn the_second_bake_runs_nothing() {
    let Some(registry) = registry() else { return };
    let environment = prepared();
    let arguments = bake(registry, &["--set", "*.platform=linux/amd64"]);
    environment.run(&arguments).succeeded();
    let again = environment.run(&arguments).succeeded();
    let steps: Vec<&str> = again.stderr.lines().filter(|line| line.contains("] RUN echo")).collect();
    // Two targets, and what they are made of.
    assert_eq!(steps.len(), 3, "{}", again.stderr);
    for step in steps {
        let number = step.split(' ').next().unwrap();
        assert!(again.stderr.contains(&format!("{number} CACHED")), "{step}: {}", again.stderr);
    }
}

/// Starts a daemon, and makes a builder of it that is called `away`.
fn away(environment: &Environment) -> Daemon {
    let daemon = Daemon::start(environment, "away");
    environment.run(["create", "--name", "away", "--driver", "remote", daemon.address()]).succeeded();
    daemon
}

#[test]
fn targets_that_are_made_of_each_other_overlap() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let _daemon = away(&environment);
    environment.write(
        "docker-bake.hcl",
        r#"
variable "BASE" {}
target "default" {
  context  = "app"
  contexts = { lib = "target:lib" }
  args     = { BASE = BASE }
  output   = ["out"]
}
target "lib" {
  context = "lib"
  args    = { BASE = BASE }
}
"#,
    );
    // Each waits for what the other has done.
    let wait = |name: &str| {
        format!(
            "RUN --mount=type=cache,id=overlap,target=/both touch /both/{name}; \
             for i in $(seq 300); do [ -e /both/lib ] && [ -e /both/app ] && exit 0; sleep 0.1; done; exit 1\n"
        )
    };
    environment.write("lib/Dockerfile", format!("ARG BASE\nFROM $BASE\nCOPY word /of-lib\n{}", wait("lib")));
    environment.write("lib/word", "lib\n");
    environment.write(
        "app/Dockerfile",
        format!(
            "ARG BASE\nFROM $BASE AS own\n{}COPY word /of-app\nFROM scratch\nCOPY --from=lib /of-lib /\nCOPY --from=own /of-app /\n",
            wait("app")
        ),
    );
    environment.write("app/word", "app\n");
    for builder in ["default", "away"] {
        let built = environment.run(bake(registry, &["--builder", builder])).succeeded();
        let read = |name: &str| std::fs::read_to_string(environment.path("out").join(name)).unwrap();
        assert_eq!((read("of-lib").as_str(), read("of-app").as_str()), ("lib\n", "app\n"));
        assert!(!built.stderr.contains("exporting to oci image format"), "{}", built.stderr);
        // What they have in common is shown once.
        for step in ["] COPY word /of-lib", "touch /both/lib"] {
            let lines: Vec<&str> = built.stderr.lines().filter(|line| line.contains(step)).collect();
            assert!(lines.iter().all(|line| line.contains(" [lib ")), "{step}: {}", built.stderr);
            let numbers: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(numbers.len(), 1, "{step}: {}", built.stderr);
        }
        std::fs::remove_dir_all(environment.path("out")).unwrap();
    }
}

/// Counts the files of each directory that a daemon keeps of what its clients sent; what was sent twice at once is in
/// two.
fn sent(environment: &Environment) -> Vec<usize> {
    let mirrors = std::fs::read_dir(environment.path("away-state/mirrors")).unwrap();
    let directories = mirrors.flatten().filter(|entry| entry.path().is_dir());
    let mut counts: Vec<usize> = directories
        .map(|entry| std::fs::read_dir(entry.path()).unwrap().count())
        .filter(|count| *count > 0)
        .collect();
    counts.sort_unstable();
    counts
}

#[test]
fn a_context_of_several_targets_is_sent_once() {
    let environment = Environment::new();
    let _daemon = away(&environment);
    environment.write(
        "docker-bake.hcl",
        r#"
group "default" { targets = ["one", "two", "three", "other"] }
target "_all" {
  context  = "app"
  contexts = { more = "more" }
}
target "one" {
  inherits = ["_all"]
  output   = ["out/one"]
}
target "two" {
  inherits = ["_all"]
  args     = { EXTRA = "2" }
  output   = ["out/two"]
}
target "three" {
  inherits = ["_all"]
  contexts = { two = "target:two" }
  target   = "last"
  output   = ["out/three"]
}
target "other" {
  context = "other"
  output  = ["out/other"]
}
"#,
    );
    let both = "COPY . /\nCOPY --from=more / /more\n";
    environment.write(
        "app/Dockerfile",
        format!(
            "FROM scratch AS last\n{both}COPY --from=two /of2 /\nFROM scratch\nARG EXTRA\n{both}COPY Dockerfile /of${{EXTRA}}\n"
        ),
    );
    for number in 0..7 {
        environment.write(&format!("app/{number}"), "app");
        environment.write(&format!("more/{number}"), "more");
    }
    environment.write("other/Dockerfile", "FROM scratch\nCOPY own /\n");
    environment.write("other/own", "own");
    environment.run(["bake", "--builder", "away"]).succeeded();
    assert!(environment.path("out/three/of2").is_file());
    assert!(environment.path("out/other/own").is_file());
    // The Dockerfiles, what the other target has, the other files, the context.
    assert_eq!(sent(&environment), [1, 1, 1, 7, 8]);
}

#[test]
fn what_a_target_is_made_of_is_built_at_its_nodes() {
    let environment = Environment::new();
    let _pair = Pair::start(&environment, ["linux/amd64", "linux/arm64"]);
    environment.write(
        "docker-bake.hcl",
        r#"
target "default" {
  context   = "app"
  contexts  = { lib = "target:lib" }
  platforms = ["linux/amd64", "linux/arm64"]
  output    = ["out"]
}
target "lib" {
  context = "lib"
}
"#,
    );
    environment.write("app/Dockerfile", "FROM lib\nCOPY word /of-app\n");
    environment.write("app/word", "app\n");
    environment.write("lib/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY word /of-$TARGETARCH\n");
    environment.write("lib/word", "lib\n");
    let built = environment.run(["bake", "--builder", "both"]).succeeded();
    let is_there = |name: &str| assert!(environment.path("out").join(name).is_file(), "no {name}");
    for name in ["linux_amd64/of-amd64", "linux_amd64/of-app", "linux_arm64/of-arm64"] {
        is_there(name);
    }
    assert!(!built.stderr.contains("exporting to oci image format"), "{}", built.stderr);

    // What only one of the nodes builds gets to the other as an image.
    std::fs::remove_dir_all(environment.path("out")).unwrap();
    let only = ["bake", "--builder", "both", "--set", "lib.platform=linux/amd64"];
    let built = environment.run(only).succeeded();
    is_there("linux_arm64/of-amd64");
    assert!(built.stderr.contains("exporting to oci image format"), "{}", built.stderr);
}

#[test]
fn what_a_target_is_made_of_keeps_its_config() {
    let environment = Environment::new();
    environment.write(
        "docker-bake.hcl",
        r#"
target "default" {
  contexts          = { bare = "target:bare" }
  dockerfile-inline = "FROM bare\nCOPY docker-bake.hcl /$WORD\n"
  output            = ["out"]
}
target "bare" {
  dockerfile-inline = "FROM scratch\nENV WORD=bare\n"
}
"#,
    );
    environment.run(["bake"]).succeeded();
    assert!(environment.path("out/bare").is_file());
}

#[test]
fn what_each_target_found_in_the_cache_is_explained() {
    let Some(registry) = registry() else { return };
    let environment = prepared();
    let arguments = ["--set", "*.platform=linux/amd64", "--explain"];
    environment.run(bake(registry, &arguments)).succeeded();
    environment.write("app/file", "another");
    let said = environment.run(bake(registry, &arguments)).succeeded().stderr;
    let of_target =
        |name: &str| said.split_once(&format!("\n{name}\nCACHE")).unwrap_or_else(|| panic!("{said}")).1;
    let (one, common) = (of_target("app-one"), of_target("common"));
    assert!(one.contains("miss") && one.contains("file"), "{said}");
    assert!(!common.contains("miss"), "{said}");
}

#[test]
fn a_failure_names_its_target_and_stops_the_rest() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    environment.write(
        "docker-bake.json",
        r#"{
          "variable": {"BASE": {}},
          "group": {"default": {"targets": ["broken", "slow", "above"]}},
          "target": {
            "broken": {"dockerfile-inline": "FROM ${BASE}\nRUN exit 7\n"},
            "slow": {"dockerfile-inline": "FROM ${BASE}\nRUN sleep 1000\n"},
            "above": {"contexts": {"b": "target:broken"}, "dockerfile-inline": "FROM b\nRUN true\n"}
          }
        }"#,
    );
    let error = environment.run(bake(registry, &[])).failed(1);
    assert!(error.starts_with("error: target `broken`: failed to build: "), "{error}");
    assert!(error.contains("exit code: 7") && error.contains("RUN exit 7"), "{error}");
}

#[test]
fn services_of_a_compose_file_are_built() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    environment
        .write("web/Containerfile", "ARG BASE\nFROM $BASE\nARG NAME\nRUN echo \"hello $NAME\" > /said\n");
    environment.write(".env", "NAME=compose\n");
    environment.write(
        "compose.yaml",
        "services:\n  web:\n    build:\n      context: ./web\n      dockerfile: Containerfile\n      \
         args: { BASE: '', NAME: \"${NAME:-nobody}\" }\n      x-bake: { output: out }\n  db:\n    image: postgres\n",
    );
    let base = format!("web.args.BASE={}", registry.reference("library/busybox"));
    environment.run(["bake", "--progress=plain", "--set", &base]).succeeded();
    assert_eq!(std::fs::read_to_string(environment.path("out/said")).unwrap(), "hello compose\n");
}

#[test]
fn a_check_looks_at_every_target_and_builds_none() {
    let environment = prepared();
    environment.write("app/Dockerfile", format!("{DOCKERFILE}MAINTAINER me\n"));
    // Whoever may not build may look.
    let outcome =
        environment.run(["bake", "--check", "--set", "common.dockerfile=x", "--var", "BASE=scratch"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.said());
    for part in ["app-one\n", "app-two\n", "common\n", "MaintainerDeprecated", "\napp/Dockerfile:6\n"] {
        assert!(outcome.stdout.contains(part), "no `{part}` in {}", outcome.said());
    }
    assert!(!environment.path("out").exists());
}

#[test]
fn what_is_outside_needs_leave() {
    let environment = Environment::new();
    environment.write(
        "docker-bake.hcl",
        "target \"default\" {\n  context = \"/etc\"\n  dockerfile-inline = \"FROM scratch\\nCOPY hostname /\"\n  output = [\"out\"]\n}\n",
    );
    let refused = environment.run(["bake", "--set", "default.labels.a=b c", "default"]);
    let asked = "Your build is requesting privileges for following possibly insecure capabilities:\n\n - Read access to \
                 path /etc\n";
    assert!(refused.stderr.starts_with(asked), "{}", refused.stderr);
    let error = refused.failed(1);
    // All of what was typed, and what it lacks.
    let again = "slipway bake --allow=fs.read=/etc --set 'default.labels.a=b c' default";
    assert!(error.contains(&format!("hint: allow it: `{again}`")), "{error}");
    environment.run(["bake", "--allow=fs.read=/etc"]).succeeded();
    assert!(environment.path("out/hostname").is_file());
}

/// A repository with a definition, and directories that it names.
fn published(environment: &Environment) -> Option<GitRepository> {
    let found = std::process::Command::new("git").arg("version").output().is_ok();
    if !need(found, "git: run `apt-get install git`") {
        return None;
    }
    let repository = GitRepository::new(environment, "sample");
    repository.write(
        "docker-bake.hcl",
        r#"
target "default" {
  context  = "app"
  contexts = { more = "more", here = "cwd://here" }
  args     = { SEEN = BAKE_CMD_CONTEXT }
  output   = ["out"]
}
target "top" {
  dockerfile = "app/Whole.Dockerfile"
  output     = ["out"]
}
"#,
    );
    repository.write(
        "app/Dockerfile",
        "FROM scratch\nCOPY own /\nCOPY --from=more file /\nCOPY --from=here note /\n",
    );
    repository.write("app/Whole.Dockerfile", "FROM scratch\nCOPY more/file /\n");
    repository.write("app/own", "own\n");
    repository.write("more/file", "more\n");
    repository.commit("all");
    repository.publish();
    environment.write("here/note", "here\n");
    environment.write("local.hcl", "target \"default\" { args = { EXTRA = \"1\" } }\n");
    Some(repository)
}

#[test]
fn a_definition_in_a_repository_names_directories_there_and_here() {
    let environment = Environment::new();
    let Some(_repository) = published(&environment) else { return };
    let daemon = GitDaemon::start(&environment);
    let address = daemon.address("sample");
    let read = |name: &str| std::fs::read_to_string(environment.path("out").join(name)).unwrap();
    let away = Daemon::start(&environment, "away");
    environment.run(["create", "--name", "away", "--driver", "remote", away.address()]).succeeded();
    for builder in ["default", "away"] {
        environment.run(["bake", "--builder", builder, &address]).succeeded();
        assert_eq!(
            (read("own"), read("file"), read("note")),
            ("own\n".into(), "more\n".into(), "here\n".into())
        );
        std::fs::remove_dir_all(environment.path("out")).unwrap();
    }
    environment.run(["bake", &format!("{address}#main"), "top"]).succeeded();
    assert_eq!(read("file"), "more\n");

    let printed = environment.run([
        "bake",
        &address,
        "https://h.example/x.git",
        "--print",
        "-f",
        "docker-bake.hcl",
        "-f",
        "cwd://local.hcl",
    ]);
    let printed: Value = serde_json::from_str(&printed.succeeded().stdout).unwrap();
    assert_eq!(printed["target"]["default"]["context"], format!("{address}#:app"));
    let args = &printed["target"]["default"]["args"];
    assert_eq!((args["EXTRA"].as_str(), args["SEEN"].as_str()), (Some("1"), Some("https://h.example/x.git")));
    let error = environment.run(["bake", &address, "-f", "absent.hcl"]).failed(1);
    assert!(error.contains("failed to read `absent.hcl`"), "{error}");
}

#[test]
fn a_definition_in_an_archive_names_directories_there_and_here() {
    let environment = Environment::new();
    let definition = "target \"default\" {\n  context = \"app\"\n  contexts = { more = \"more\" }\n  output = [\"out\"]\n}\n\
                      target \"outside\" { context = \"cwd://..\" }\n\
                      target \"neither\" { context = \"cwd://here\" }\n";
    let archive = Archive::new()
        .file("docker-bake.hcl", definition.as_bytes())
        .directory("app/")
        .file("app/Dockerfile", b"FROM scratch\nCOPY own /\nCOPY --from=more file /\n")
        .file("app/own", b"own\n")
        .directory("more/")
        .file("more/file", b"more\n")
        .finish();
    let server = FakeRegistry::start(move |_| Reply::body("application/x-tar", &archive));
    let address = server.address("definition.tar");
    let away = Daemon::start(&environment, "away");
    environment.run(["create", "--name", "away", "--driver", "remote", away.address()]).succeeded();
    for builder in ["default", "away"] {
        environment.run(["bake", "--builder", builder, &address]).succeeded();
        let read = |name: &str| std::fs::read_to_string(environment.path("out").join(name)).unwrap();
        assert_eq!((read("own"), read("file")), ("own\n".into(), "more\n".into()));
        std::fs::remove_dir_all(environment.path("out")).unwrap();
    }
    let error = environment.run(["bake", &address, "outside"]).failed(1);
    assert!(error.contains("`slipway bake --allow=fs.read=.. http://"), "{error}");
    environment.write("here/Dockerfile", "FROM scratch\n");
    let error = environment.run(["bake", &address, "neither"]).failed(1);
    assert!(error.contains("write `dockerfile = \"cwd://here/Dockerfile\"`"), "{error}");
}

#[test]
fn a_token_opens_the_repository_of_a_definition() {
    let environment = Environment::new();
    let Some(_repository) = published(&environment) else { return };
    // "x-access-token:hunter2hunter2".
    let token = "basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMmh1bnRlcjI=";
    let server = git_over_http(&environment, move |request| request.header("authorization") == Some(token));
    let address = server.address("sample.git");
    environment.run(["bake", &address]).failed(1);
    let mut command = environment.slipway(["bake", &address]);
    command.env("BUILDX_BAKE_GIT_AUTH_TOKEN", "hunter2hunter2");
    let outcome = slipway_testkit::Outcome::of(command).succeeded();
    assert!(!outcome.said().contains("hunter2"), "{}", outcome.said());
    assert!(environment.path("out/own").exists());
}
