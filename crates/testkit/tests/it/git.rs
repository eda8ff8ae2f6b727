//! Repositories as sources: what is taken of them, how they are reached, and what is said where that fails.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use slipway_testkit::{
    Environment, FakeRegistry, GitDaemon, GitRepository, Outcome, Reply, git_over_http, need,
};

fn git_is_here() -> bool {
    let found = std::process::Command::new("git").arg("version").output().is_ok();
    need(found, "git: run `apt-get install git`")
}

/// Builds a Dockerfile into the directory `out`, which is made anew.
fn build(environment: &Environment, dockerfile: &str, more: &[&str]) -> Outcome {
    let context = environment.context("context", dockerfile);
    let out = environment.text("out");
    let _ = std::fs::remove_dir_all(&out);
    environment.build(&[more, &["--output", &out, &context]].concat())
}

fn read(environment: &Environment, name: &str) -> String {
    let path = environment.path("out").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An environment with a repository of two commits, branches and tags.
struct Sample {
    environment: Environment,
    repository: GitRepository,
    first: String,
    second: String,
}

impl Sample {
    /// `None` where there is no git, which is told.
    fn new() -> Option<Self> {
        if !git_is_here() {
            return None;
        }
        let environment = Environment::new();
        let repository = GitRepository::new(&environment, "sample");
        let program = repository.write("bin/run", "#!/bin/sh\n");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let link = repository.write("text", "one\n").with_file_name("link");
        std::os::unix::fs::symlink("bin/run", link).unwrap();
        repository.write("deep/er/file", "deep\n");
        let first = repository.commit("first");
        repository.git(&["tag", "light"]);
        repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
        repository.git(&["branch", "feature/x"]);
        repository.write("text", "two\n");
        let second = repository.commit("second");
        repository.publish();
        Some(Self { environment, repository, first, second })
    }
}

#[test]
fn every_form_of_reference_is_taken() {
    let Some(Sample { environment, first, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let address = daemon.address("sample");
    let dockerfile = format!(
        "FROM scratch\n\
         ADD {address} /default/\n\
         ADD {address}#v1 /tag/\n\
         ADD {address}#light /light/\n\
         ADD {address}#feature/x:deep /branch/\n\
         ADD {address}#refs/heads/main /whole/\n\
         ADD {address}#{first} /commit/\n\
         ADD {address}?tag=v1&subdir=deep/er /query/\n\
         ADD --checksum={first} {address}#v1 /checked/\n"
    );
    build(&environment, &dockerfile, &[]).succeeded();
    for (directory, text) in [
        ("default", "two\n"),
        ("tag", "one\n"),
        ("light", "one\n"),
        ("whole", "two\n"),
        ("commit", "one\n"),
        ("checked", "one\n"),
    ] {
        assert_eq!(read(&environment, &format!("{directory}/text")), text, "{directory}");
        assert!(!environment.path("out").join(directory).join(".git").exists(), "{directory}");
    }
    assert_eq!(read(&environment, "branch/er/file"), "deep\n");
    assert_eq!(read(&environment, "query/file"), "deep\n");
    let mode = |name: &str| environment.path("out").join(name).symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("tag/bin/run"), mode("tag/text"), mode("tag/bin")), (0o755, 0o644, 0o755));
    let link = environment.path("out/tag/link");
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new("bin/run"));
}

#[test]
fn only_a_new_commit_is_fetched() {
    let Some(Sample { environment, repository, .. }) = Sample::new() else { return };
    let server = git_over_http(&environment, |_| true);
    let dockerfile = format!("FROM scratch\nADD {} /\n", server.address("sample.git"));
    let fetched = || server.requests().iter().filter(|request| request.method == "POST").count();
    build(&environment, &dockerfile, &[]).succeeded();
    let first = fetched();
    // Asking which commit it is costs one; the commit is known.
    build(&environment, &dockerfile, &[]).succeeded();
    assert_eq!(fetched() - first, 1);
    repository.write("text", "three\n");
    repository.commit("third");
    repository.publish();
    build(&environment, &dockerfile, &[]).succeeded();
    assert_eq!(read(&environment, "text"), "three\n");
    let usage = environment.run(["du", "--verbose"]).succeeded();
    let shared = format!("shared git repo for {}\n", server.address("sample.git"));
    assert_eq!(usage.stdout.matches(&shared).count(), 1, "one repository:\n{}", usage.stdout);
    assert_eq!(usage.stdout.matches("source.git.checkout").count(), 2, "two commits:\n{}", usage.stdout);
}

#[test]
fn what_a_killed_git_left_is_not_in_the_way() {
    let Some(Sample { environment, repository, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let dockerfile = format!("FROM scratch\nADD {} /\n", daemon.address("sample"));
    build(&environment, &dockerfile, &[]).succeeded();
    let mut mounts = std::fs::read_dir(environment.state().join("cache-mounts")).unwrap();
    let shared = mounts.next().unwrap().unwrap().path();
    let mut references = std::fs::read_dir(shared.join("refs/slipway")).unwrap();
    let reference = references.next().unwrap().unwrap().path();
    for lock in [shared.join("shallow.lock"), reference.with_extension("lock")] {
        std::fs::write(lock, "").unwrap();
    }
    repository.write("text", "three\n");
    repository.commit("third");
    repository.publish();
    build(&environment, &dockerfile, &[]).succeeded();
    assert_eq!(read(&environment, "text"), "three\n");
    // One that is damaged is fetched anew.
    repository.write("text", "four\n");
    repository.commit("fourth");
    repository.publish();
    let packs = std::fs::read_dir(shared.join("objects")).unwrap().flatten().map(|entry| entry.path());
    packs.for_each(|path| std::fs::remove_dir_all(path).unwrap());
    build(&environment, &dockerfile, &[]).succeeded();
    assert_eq!(read(&environment, "text"), "four\n");
}

#[test]
fn a_branch_that_was_rewritten_or_became_a_directory_is_fetched_anew() {
    let Some(Sample { environment, repository, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let from = |reference: &str| format!("FROM scratch\nADD {}#{reference} /\n", daemon.address("sample"));
    repository.git(&["branch", "topic"]);
    repository.publish();
    build(&environment, &from("topic"), &[]).succeeded();
    repository.git(&["branch", "-D", "topic"]);
    repository.git(&["push", "--quiet", "origin", ":topic"]);
    repository.git(&["checkout", "--quiet", "--orphan", "topic/a"]);
    repository.write("text", "of another history\n");
    repository.commit("other");
    repository.git(&["tag", "-f", "light"]);
    repository.publish();
    for reference in ["topic/a", "light"] {
        build(&environment, &from(reference), &[]).succeeded();
        assert_eq!(read(&environment, "text"), "of another history\n", "{reference}");
    }
}

#[test]
fn the_git_directory_is_kept_on_demand() {
    let Some(Sample { environment, first, second, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let address = daemon.address("sample");
    let dockerfile = format!(
        "FROM scratch\nADD --keep-git-dir=true {address} /branch/\nADD --keep-git-dir {address}#v1 /tag/\n\
         ADD --keep-git-dir {address}#{first} /commit/\n"
    );
    build(&environment, &dockerfile, &[]).succeeded();
    let git = |directory: &str, arguments: &[&str]| {
        let directory = environment.path("out").join(directory);
        let safe = format!("safe.directory={}", directory.display());
        let mut command = std::process::Command::new("git");
        environment.settle(&mut command);
        command.current_dir(&directory).args(["-c", &safe]).args(arguments);
        let output = Outcome::of(command).succeeded();
        output.stdout.trim().to_owned()
    };
    assert_eq!(git("branch", &["rev-parse", "HEAD"]), second);
    assert_eq!(git("branch", &["rev-parse", "refs/heads/main"]), second);
    assert_eq!(git("branch", &["status", "--porcelain"]), "");
    assert_eq!(git("branch", &["config", "remote.origin.url"]), address);
    assert_eq!(git("tag", &["describe"]), "v1");
    assert_eq!(git("commit", &["rev-parse", "HEAD"]), first);
}

#[test]
fn submodules_come_along_unless_told_otherwise() {
    if !git_is_here() {
        return;
    }
    let environment = Environment::new();
    let inner = GitRepository::new(&environment, "inner");
    inner.write("inside", "inner\n");
    inner.commit("inner");
    inner.publish();
    let outer = GitRepository::new(&environment, "outer");
    outer.write("text", "outer\n");
    let url = inner.bare().to_str().unwrap();
    outer.git(&["submodule", "--quiet", "add", url, "lib"]);
    // Beside the outer one, wherever that is.
    outer.git(&["config", "--file", ".gitmodules", "submodule.lib.url", "../inner.git"]);
    outer.commit("outer");
    outer.publish();
    let daemon = GitDaemon::start(&environment);
    let address = daemon.address("outer");
    let dockerfile = format!(
        "FROM scratch\nADD {address} /with/\nADD {address}?submodules=false /without/\n\
         ADD {address}#:lib /part/\nADD --keep-git-dir {address} /kept/\n"
    );
    build(&environment, &dockerfile, &[]).succeeded();
    for name in ["with/lib/inside", "part/inside", "kept/lib/inside"] {
        assert_eq!(read(&environment, name), "inner\n");
    }
    assert!(!environment.path("out/without/lib/inside").exists());
    assert!(!environment.path("out/with/lib/.git").exists(), "it would name a place in the state");
    assert!(read(&environment, "kept/lib/.git").starts_with("gitdir: ../.git/"));
}

#[test]
fn a_submodule_cannot_be_a_directory_of_this_machine() {
    let Some(Sample { environment, repository: inner, .. }) = Sample::new() else { return };
    let outer = GitRepository::new(&environment, "outer");
    outer.git(&["submodule", "--quiet", "add", inner.bare().to_str().unwrap(), "lib"]);
    outer.commit("outer");
    outer.publish();
    let daemon = GitDaemon::start(&environment);
    let error =
        build(&environment, &format!("FROM scratch\nADD {} /\n", daemon.address("outer")), &[]).failed(1);
    for part in ["transport 'file' not allowed", "hint: ", "Dockerfile:2"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn times_are_the_commits_with_an_epoch() {
    let Some(Sample { environment, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let dockerfile = format!("FROM scratch\nADD {}?mtime=commit /\n", daemon.address("sample"));
    build(&environment, &dockerfile, &[]).succeeded();
    for name in ["text", "deep/er"] {
        let metadata = environment.path("out").join(name).symlink_metadata().unwrap();
        assert_eq!(metadata.mtime(), 1_704_164_645, "{name}");
    }
}

#[test]
fn a_named_context_is_a_repository() {
    let Some(Sample { environment, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let context = format!("code={}#main:deep", daemon.address("sample"));
    build(&environment, "FROM scratch\nCOPY --from=code er/file /\n", &["--build-context", &context])
        .succeeded();
    assert_eq!(read(&environment, "file"), "deep\n");
}

#[test]
fn tokens_open_private_repositories_and_are_not_told() {
    let Some(Sample { environment, .. }) = Sample::new() else { return };
    // "x-access-token:hunter2hunter2", and "me:hunter2hunter2".
    let token = "basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMmh1bnRlcjI=";
    let password = "basic bWU6aHVudGVyMmh1bnRlcjI=";
    let server = git_over_http(
        &environment,
        move |request| matches!(request.header("authorization"), Some(value) if value == token || value == password),
    );
    let address = server.address("sample.git");
    let dockerfile = format!("FROM scratch\nADD {address} /\n");
    let error = build(&environment, &dockerfile, &[]).failed(1);
    for part in ["the server asks for a password", "--secret id=GIT_AUTH_TOKEN", "Dockerfile:2"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let wrong = environment.write("wrong", "swordfish-swordfish\n");
    let secret = format!("id=GIT_AUTH_TOKEN,src={}", wrong.display());
    let outcome = build(&environment, &dockerfile, &["--secret", &secret]);
    assert!(!outcome.said().contains("swordfish"), "{}", outcome.said());
    assert!(outcome.failed(1).contains("does not accept the token"));
    let right = environment.write("right", "hunter2hunter2\n");
    let host = server.reference("").trim_end_matches('/').to_owned();
    let by_host = format!("id=GIT_AUTH_TOKEN.{host},src={}", right.display());
    let outcome = build(&environment, &dockerfile, &["--secret", &secret, "--secret", &by_host]).succeeded();
    assert!(!outcome.said().contains("hunter2"), "{}", outcome.said());
    assert_eq!(read(&environment, "text"), "two\n");
    // The same in the address.
    let other = Environment::new();
    let with_password = address.replace("http://", "http://me:hunter2hunter2@");
    build(&other, &format!("FROM scratch\nADD --keep-git-dir {with_password} /\n"), &[]).succeeded();
    assert!(!read(&other, ".git/config").contains("hunter2"), "a password in the image");
}

#[test]
fn servers_without_a_program_behind_them_are_enough() {
    let Some(Sample { environment, first, .. }) = Sample::new() else { return };
    let outer = GitRepository::new(&environment, "outer");
    outer.git(&[
        "submodule",
        "--quiet",
        "add",
        environment.path("served/sample.git").to_str().unwrap(),
        "lib",
    ]);
    outer.git(&["config", "--file", ".gitmodules", "submodule.lib.url", "../sample.git"]);
    outer.commit("outer");
    outer.publish();
    let directory = environment.path("served");
    let server = FakeRegistry::start(move |request| {
        let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        std::fs::read(directory.join(path))
            .map_or_else(|_| Reply::status(404), |body| Reply::body("text/plain", &body))
    });
    let address = server.address("sample.git");
    build(&environment, &format!("FROM scratch\nADD {address}#v1 /a/\nADD {address}#{first} /b/\n"), &[])
        .succeeded();
    assert_eq!(read(&environment, "a/text") + &read(&environment, "b/text"), "one\none\n");
    build(&environment, &format!("FROM scratch\nADD {} /\n", server.address("outer.git")), &[]).succeeded();
    assert_eq!(read(&environment, "lib/text"), "two\n");
}

#[test]
fn ssh_uses_the_agent_that_is_forwarded() {
    let Some(Sample { environment, repository, .. }) = Sample::new() else { return };
    // Stands for ssh: does what the server would do, if there is an agent with a key.
    let ssh = environment.write(
        "bin/ssh",
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\nssh-add -l >/dev/null || { echo 'git@host: Permission denied (publickey).' >&2; exit 255; }\nexec sh -c \"$1\"\n",
    );
    std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let key = environment.text("home/key");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    if !need(
        keygen.status().is_ok_and(|status| status.success()),
        "ssh: run `apt-get install openssh-client`",
    ) {
        return;
    }
    let dockerfile = format!("FROM scratch\nADD ssh://git@host.invalid{} /\n", repository.bare().display());
    let context = environment.context("context", &dockerfile);
    let out = environment.text("out");
    let run = |more: &[&str]| {
        let arguments = [&["build", "--progress=plain", "--output", &out][..], more, &[&context]].concat();
        let mut command = environment.slipway(arguments);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", environment.text("bin"));
        Outcome::of({
            command.env("PATH", path);
            command
        })
    };
    let error = run(&[]).failed(1);
    assert!(error.contains("unset ssh forward key default") && error.contains("`--ssh default`"), "{error}");
    run(&["--ssh", &format!("default={key}")]).succeeded();
    assert_eq!(read(&environment, "text"), "two\n");
    // One with a passphrase cannot be read, and that is told before anything runs.
    let protected = environment.text("home/protected");
    let mut keygen = std::process::Command::new("ssh-keygen");
    assert!(
        keygen.args(["-q", "-t", "ed25519", "-N", "secret", "-f", &protected]).status().unwrap().success()
    );
    let error = run(&["--no-cache", "--ssh", &format!("default={protected}")]).failed(1);
    for part in ["protected by a passphrase", "ssh-add"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn failures_are_told_with_what_mends_them() {
    let Some(Sample { environment, first, second, .. }) = Sample::new() else { return };
    let daemon = GitDaemon::start(&environment);
    let address = daemon.address("sample");
    let nothing = daemon.address("nothing");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unknown = "1".repeat(40);
    let cases: &[(String, &[&str])] = &[
        (format!("{address}#mian"), &["repository does not contain ref mian", "did you mean `main`?"]),
        (format!("{address}#{}", &first[..10]), &["does not contain ref", "all of its 40 digits"]),
        (format!("{address}#{unknown}"), &[&unknown, "hint: "]),
        (format!("{address}#main:deap"), &["invalid subdir deap", "did you mean `deep`?"]),
        (format!("{address}#main:link"), &["invalid subdir link", "no directory"]),
        (nothing.clone(), &["no repository", &nothing, "check the address"]),
        (format!("git://{closed}/x.git"), &["Connection refused", "check the network"]),
        (
            format!("{address}?checksum={first}"),
            &[&format!("expected checksum to match {first}, got {second}")],
        ),
    ];
    for (source, parts) in cases {
        let error = build(&environment, &format!("FROM scratch\nADD {source} /\n"), &[]).failed(1);
        for part in parts.iter().chain(&["Dockerfile:2"]) {
            assert!(error.contains(part), "{source}: no `{part}` in:\n{error}");
        }
    }
}

#[test]
fn without_git_the_package_is_named() {
    let environment = Environment::new();
    let context = environment.context("context", "FROM scratch\nADD https://example.invalid/a.git /\n");
    let mut command = environment.slipway(["build", "--progress=plain", &context]);
    command.env("PATH", environment.path("home"));
    let error = Outcome::of(command).failed(1);
    for part in ["`git` is not installed", "install git`"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn a_canceled_build_leaves_no_git_behind() {
    if !git_is_here() {
        return;
    }
    let environment = Environment::with_own_program();
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dockerfile = format!("FROM scratch\nADD git://{}/x.git /\n", silent.local_addr().unwrap());
    let context = environment.context("context", &dockerfile);
    let running =
        slipway_testkit::Running::start(environment.slipway(["build", "--progress=plain", &context]));
    let (_connection, _) = silent.accept().unwrap();
    let below = slipway_testkit::descendants(running.id());
    assert!(below.iter().any(|process| process.name.ends_with("git")), "{below:?}");
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
    slipway_testkit::wait_until_gone(below, environment.program());
}

#[test]
fn the_build_context_is_a_repository() {
    let Some(Sample { environment, repository, .. }) = Sample::new() else { return };
    repository.write("Dockerfile", "FROM scratch\nCOPY text deep/er/file /\n");
    repository.write("deep/other.Dockerfile", "FROM scratch\nCOPY er/file /other\n");
    repository.write(".dockerignore", "text\n");
    repository.commit("with Dockerfiles");
    repository.publish();
    let server = git_over_http(&environment, |_| true);
    let address = server.address("sample.git");
    let out = environment.text("out");
    let build = |context: &str, more: &[&str]| {
        let _ = std::fs::remove_dir_all(&out);
        environment.build(&[more, &["--output", &out, context]].concat())
    };
    // As in the reference, an ignore file of a repository does not count.
    build(&address, &[]).succeeded();
    assert_eq!(read(&environment, "text") + &read(&environment, "file"), "two\ndeep\n");
    build(&format!("{address}#main:deep"), &["-f", "other.Dockerfile"]).succeeded();
    assert_eq!(read(&environment, "other"), "deep\n");
    let own = environment.write("own", "FROM scratch\nCOPY bin /\n");
    build(&format!("{address}?tag=v1"), &["-f", own.to_str().unwrap()]).succeeded();
    assert_eq!(read(&environment, "run"), "#!/bin/sh\n");
    let kept = environment.write("kept", "FROM scratch\nCOPY .git/HEAD /\n");
    build(&address, &["-f", kept.to_str().unwrap(), "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"])
        .succeeded();
    assert_eq!(read(&environment, "HEAD").trim(), repository.git(&["rev-parse", "HEAD"]));
    // Asked for once, fetched once; the policy beside the Dockerfile is of the same commit.
    let posts = || server.requests().iter().filter(|request| request.method == "POST").count();
    let before = posts();
    build(&address, &[]).succeeded();
    assert_eq!(posts() - before, 1);

    let error = build(&format!("{address}#main:deep"), &[]).failed(1);
    for part in ["open Dockerfile: no such file or directory", "there is `other.Dockerfile`"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let error = build(&format!("{address}#mian"), &[]).failed(1);
    assert!(error.contains("repository does not contain ref mian"), "{error}");
    // The time of the image is the commit's.
    let image = format!("type=oci,tar=false,dest={}", environment.text("image"));
    let epoch = ["--build-arg=SOURCE_DATE_EPOCH=context", "--output", &image, &address];
    environment.build(&epoch).succeeded();
    let blobs = std::fs::read_dir(environment.path("image/blobs/sha256")).unwrap();
    let texts = blobs.map(|blob| std::fs::read(blob.unwrap().path()).unwrap());
    let dated =
        texts.filter(|text| String::from_utf8_lossy(text).contains("\"created\": \"2024-01-02T03:04:05Z\""));
    assert!(dated.count() > 0, "no config with the commit's time");
}
