//! What was built is remembered, with all that it said.

use std::process::Command;

use serde_json::Value;
use slipway_testkit::{Daemon, Environment, GitRepository, Outcome, need, registry};

/// Reads the records, the newest first.
fn records(environment: &Environment, more: &[&str]) -> Vec<Value> {
    let arguments = ["history", "ls", "--format", "json"].iter().chain(more);
    let listed = environment.run(arguments).succeeded();
    listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn builds_are_listed_and_their_logs_are_whole() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let lines = 5000;
    let dockerfile = format!("FROM {base}\nARG VERSION\nRUN seq 1 {lines}\n");
    let context = environment.context("app", &dockerfile);
    environment.build(&["--build-arg", "VERSION=7", &context]).succeeded();
    environment.build(&["--build-arg", "VERSION=7", &context]).succeeded();
    let broken = environment.context("broken", &format!("FROM {base}\nRUN echo before && exit 3\n"));
    assert_eq!(environment.build(&[&broken]).status.code(), Some(1));
    // Looking is not building.
    environment.build(&["--call=outline", &context]).succeeded();

    let all = records(&environment, &[]);
    let column = |name: &str| all.iter().map(|record| record[name].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(column("name"), ["broken", "app", "app"]);
    assert_eq!(column("status"), ["Error", "Completed", "Completed"]);
    assert!(all[1]["cached_steps"].as_u64() > all[2]["cached_steps"].as_u64(), "{all:?}");
    assert_eq!(records(&environment, &["--filter", "status=error"]).len(), 1);

    let first = all[2]["ref"].as_str().unwrap();
    let logs = environment.run(["history", "logs", first]).succeeded().stdout;
    let numbers = logs.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    let numbers: Vec<u32> = numbers.collect();
    assert!((1..=lines).all(|number| numbers.contains(&number)), "lines are missing");
    let inspected = environment.run(["history", "inspect", "--format", "json", first]).succeeded().stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["BuildArgs"][0]["Value"], "7");
    assert_eq!(inspected["Context"], context);
    let failed = environment.run(["history", "inspect"]).succeeded().stdout;
    assert!(failed.contains("Error:") && failed.contains("exit code: 3"), "{failed}");
    assert!(environment.run(["history", "logs"]).succeeded().stdout.contains("before"));

    environment.run(["history", "rm", first]).succeeded();
    assert_eq!(records(&environment, &[]).len(), 2);
    let gone = environment.run(["history", "logs", first]);
    assert!(gone.status.code() == Some(1) && gone.stderr.contains("no record found"), "{}", gone.stderr);
    environment.run(["history", "rm", "--all"]).succeeded();
    assert_eq!(records(&environment, &[]).len(), 0);
}

#[test]
fn a_killed_build_leaves_its_record() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = format!(
        "FROM {}\nRUN echo first\nRUN echo second && sleep 600\n",
        registry.reference("library/busybox")
    );
    let context = environment.context("app", &dockerfile);
    let mut command = environment.slipway(["build", "--progress=plain", "--provenance=false", &context]);
    command.stderr(std::process::Stdio::piped());
    let mut running = command.spawn().unwrap();
    let stderr = std::io::BufReader::new(running.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" second")), "the second step does not start");
    assert_eq!(records(&environment, &[])[0]["status"], "Running");
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(records(&environment, &[])[0]["status"], "Error");
    let logs = environment.run(["history", "logs"]).succeeded();
    assert!(logs.stdout.contains("first"), "{}", logs.stdout);
}

#[test]
fn hits_and_misses_are_explained() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = |command: &str| {
        format!(
            "FROM {} AS tools\nCOPY tool /tool\nFROM tools\nARG LEVEL\nCOPY src /src\nRUN {command}\n\
             COPY --from=tools /tool /copy\n",
            registry.reference("library/busybox")
        )
    };
    let context = environment.context("app", &dockerfile("cat /src/a"));
    environment.write("app/src/a", "1");
    environment.write("app/src/b", "1");
    environment.write("app/tool", "1");
    let explained = |more: &[&str]| {
        let outcome = environment.build(&[&["--explain"], more, &[&context]].concat()).succeeded();
        let at = outcome.stderr.find("\nCACHE ").expect("there is a table");
        outcome.stderr[at..].to_owned()
    };
    let line = |table: &str, step: &str| {
        let line = table.lines().find(|line| line.contains(step));
        line.unwrap_or_else(|| panic!("no `{step}` in:{table}")).to_owned()
    };
    let first = explained(&["--build-arg=LEVEL=1"]);
    for step in ["COPY src /src", "RUN cat /src/a"] {
        let line = line(&first, step);
        assert!(line.starts_with("miss") && line.ends_with("no earlier build of it is on record"), "{line}");
    }
    let again = explained(&["--build-arg=LEVEL=1"]);
    assert!(!again.contains("\nmiss"), "{again}");
    let unchanged = line(&again, "COPY src /src");
    assert!(unchanged.ends_with("what it reads of the build context has not changed"), "{unchanged}");

    environment.write("app/src/b", "2");
    let changed = explained(&["--build-arg=LEVEL=1"]);
    let copy = line(&changed, "COPY src /src");
    assert!(copy.ends_with("what it reads of the build context changed: `/src/b`"), "{copy}");
    let run = line(&changed, "RUN cat");
    assert!(run.starts_with("miss") && run.contains("COPY src /src` changed"), "{run}");

    let argument = explained(&["--build-arg=LEVEL=2"]);
    let run = line(&argument, "RUN cat");
    assert!(run.ends_with("the environment variable `LEVEL` changed"), "{run}");
    environment.write("app/Dockerfile", dockerfile("cat /src/b"));
    let command = explained(&["--build-arg=LEVEL=2"]);
    assert!(line(&command, "RUN cat").ends_with("the command changed"), "{command}");
    let ignored = explained(&["--build-arg=LEVEL=2", "--no-cache"]);
    assert!(line(&ignored, "RUN cat").ends_with("the cache was not to be used"), "{ignored}");

    // The history tells it later, of each build.
    let later = environment.run(["history", "inspect", "--explain", "^1"]).succeeded().stdout;
    assert!(line(&later, "RUN cat").ends_with("the command changed"), "{later}");
    let data = environment.run(["history", "inspect", "--explain", "--format=json", "^2"]).succeeded().stdout;
    let data: Value = serde_json::from_str(&data).unwrap();
    let run = data.as_array().unwrap().iter().find(|step| step["Name"].as_str().unwrap().contains("RUN cat"));
    assert_eq!(run.unwrap()["Cached"], false);
    // Unasked, nothing is said.
    assert!(!environment.build(&[&context]).succeeded().stderr.contains("\nCACHE "));
}

#[test]
fn records_are_for_other_programs_too() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = format!("FROM {}\nARG VERSION\nRUN echo built\n", registry.reference("library/busybox"));
    let context = environment.context("app", &dockerfile);
    environment.build(&["--build-arg=VERSION=7", &context]).succeeded();
    environment.build(&["--no-cache", &context]).succeeded();

    let trace = environment.run(["history", "trace", "--compare", "^1"]).succeeded().stdout;
    let trace: Value = serde_json::from_str(&trace).unwrap();
    assert_eq!(trace["data"].as_array().unwrap().len(), 2);
    let spans = trace["data"][0]["spans"].as_array().unwrap();
    let run =
        spans.iter().find(|span| span["operationName"].as_str().unwrap().contains("RUN echo built")).unwrap();
    assert_eq!(run["references"][0]["spanID"], spans[0]["spanID"]);
    assert!(run["duration"].as_u64().unwrap() <= spans[0]["duration"].as_u64().unwrap());

    // One build is a manifest, several are an index of them.
    let unpacked = |arguments: &[&str]| -> (std::path::PathBuf, Value) {
        let bundle = environment.text("builds.dockerbuild");
        environment.run([&["history", "export", "--output", &bundle][..], arguments].concat()).succeeded();
        let directory = environment.path(&format!("bundle-{}", arguments.len()));
        std::fs::create_dir(&directory).unwrap();
        let status =
            std::process::Command::new("tar").arg("-xzf").arg(&bundle).arg("-C").arg(&directory).status();
        assert!(status.unwrap().success());
        let index = std::fs::read(directory.join("index.json")).unwrap();
        (directory, serde_json::from_slice::<Value>(&index).unwrap()["manifests"][0].clone())
    };
    let read = |directory: &std::path::Path, descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = std::fs::read(directory.join("blobs/sha256").join(digest)).unwrap();
        assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
        bytes
    };
    let (directory, root) = unpacked(&["^1"]);
    assert_eq!(root["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let manifest: Value = serde_json::from_slice(&read(&directory, &root)).unwrap();
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.historyrecord.v0");
    let record: Value = serde_json::from_slice(&read(&directory, &manifest["config"])).unwrap();
    assert_eq!(record["FrontendAttrs"]["build-arg:VERSION"], "7");
    assert_eq!(record["localState"]["LocalPath"], context);
    let kinds: Vec<&str> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["application/vnd.buildkit.otlp.json.v0", "application/vnd.buildkit.status.v0"]);
    let logs = read(&directory, &manifest["layers"][1]);
    assert!(logs.windows(5).any(|window| window == b"built"));
    assert_eq!(record["logs"]["digest"], manifest["layers"][1]["digest"]);
    let (directory, root) = unpacked(&["^0", "^1"]);
    let index: Value = serde_json::from_slice(&read(&directory, &root)).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);

    let error = environment.run(["history", "open"]).failed(1);
    assert!(
        error.contains("Docker Desktop is not here") && error.contains("slipway history inspect"),
        "{error}"
    );
}

#[test]
fn documents_of_a_result_are_listed_and_printed() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let context = environment.context("app", &format!("FROM {}\n", registry.reference("library/busybox")));
    environment.build(&["--platform=linux/amd64,linux/arm64", "--provenance=true", &context]).succeeded();
    let listed = environment.run(["history", "inspect", "--format", "json"]).succeeded().stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let attachments = listed["Attachments"].as_array().unwrap();
    let kinds: Vec<&str> = attachments.iter().map(|one| one["Type"].as_str().unwrap()).collect();
    let (index, manifest, config) = (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.config.v1+json",
    );
    let provenance = "https://slsa.dev/provenance/v1";
    assert_eq!(
        kinds,
        [index, manifest, config, manifest, config, manifest, provenance, manifest, provenance],
        "{listed:#}"
    );
    assert_eq!(attachments[8]["Platform"], "linux/arm64");
    let print = |arguments: &[&str]| -> Value {
        let arguments = [&["history", "inspect", "attachment"][..], arguments].concat();
        serde_json::from_str(&environment.run(arguments).succeeded().stdout).unwrap()
    };
    let image = print(&["--type=image", "--platform=linux/arm64"]);
    assert_eq!(image["architecture"], "arm64");
    assert_eq!(print(&["--type=provenance"])["predicateType"], provenance);
    assert_eq!(print(&["^0", attachments[0]["Digest"].as_str().unwrap()])["mediaType"], index);
    let error = environment.run(["history", "inspect", "attachment", "--type=sbom"]).failed(1);
    assert!(error.contains("no matching attachment found"), "{error}");
    environment.run(["history", "inspect", "attachment"]).failed(2);
}

#[test]
fn a_builder_elsewhere_has_the_documents_of_its_builds() {
    let environment = Environment::new();
    let daemon = Daemon::start(&environment, "one");
    environment.run(["create", "--name", "away", "--driver", "remote", daemon.address()]).succeeded();
    let context = environment.context("app", "FROM scratch\nCOPY Dockerfile /\n");
    let output = format!("type=local,dest={}", environment.text("out"));
    environment.build(&["--builder", "away", "--output", &output, &context]).succeeded();
    let attachment = ["history", "inspect", "attachment", "--type=provenance"];
    let error = environment.run(attachment).failed(1);
    assert!(error.contains("was built by the builder `away`") && error.contains("--builder away"), "{error}");
    let printed = environment.run([&["--builder", "away"][..], &attachment].concat()).succeeded().stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["buildDefinition"]["externalParameters"]["request"]["frontend"], "dockerfile.v0");
    let shown = environment.run(["history", "inspect", "--builder", "away"]).succeeded().stdout;
    assert!(
        shown.contains("Attachments:\nDIGEST") && shown.contains("https://slsa.dev/provenance/v1"),
        "{shown}"
    );
}

#[test]
fn builds_of_a_repository_are_listed() {
    let environment = Environment::new();
    if !need(Command::new("git").arg("version").output().is_ok(), "git: run `apt-get install git`") {
        return;
    }
    let repository = GitRepository::new(&environment, "app");
    let file = repository.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let commit = repository.commit("one");
    repository.git(&["remote", "set-url", "origin", "https://me:secret@git.example/app.git"]);
    let directory = file.parent().unwrap();
    let other = environment.context("other", "FROM scratch\nCOPY Dockerfile /\n");
    let metadata = environment.text("metadata.json");
    environment.build(&[&other]).succeeded();
    let built = ["--metadata-file", metadata.as_str(), directory.to_str().unwrap()];
    let mut command = environment.slipway([&["build"][..], &built].concat());
    command.env("BUILDX_METADATA_PROVENANCE", "max");
    Outcome::of(command).succeeded();
    let told: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let vcs =
        &told["buildx.build.provenance"]["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["vcs"];
    assert_eq!(vcs["revision"], commit.trim(), "{told:#}");
    assert_eq!(
        (&vcs["source"], &vcs["localdir:context"]),
        (&"https://git.example/app.git".into(), &".".into())
    );
    let names = |arguments: &[&str]| {
        let arguments = [&["history", "ls", "--format={{.Name}}"][..], arguments].concat();
        environment.run(arguments).succeeded().stdout
    };
    assert_eq!(names(&["--filter=repository=git.example/app"]), "app\n");
    assert_eq!(names(&["--filter=repository!=https://git.example/app.git"]), "other\n");
    let mut local = environment.slipway(["history", "ls", "--local", "--format={{.Name}}"]);
    local.current_dir(directory);
    assert_eq!(Outcome::of(local).succeeded().stdout, "app\n");
    let error = environment.run(["history", "ls", "--local"]).failed(1);
    assert!(error.contains("`--local` needs a repository"), "{error}");
}
