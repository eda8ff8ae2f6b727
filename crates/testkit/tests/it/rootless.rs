//! The main job as an ordinary user.
//!
//! The user is `nobody`, whose subordinate ids come from files mounted over `/etc/subuid` and `/etc/subgid` in a
//! mount namespace of the test's own, so that the machine is left as it is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use slipway_testkit::{Console, Environment, GitDaemon, GitRepository, Outcome, is_root, need, registry};

use crate::main_job;

/// `nobody`, everywhere.
const NOBODY: u32 = 65534;

/// Wraps a command of slipway so that `nobody` runs it.
fn as_nobody(environment: &Environment, ids: &Path, arguments: &[String]) -> Command {
    let script = r#"mount --bind "$0" /etc/subuid; mount --bind "$0" /etc/subgid
                    exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@""#;
    let mut command = Command::new("unshare");
    environment.settle(&mut command);
    command.args(["--mount", "sh", "-ec", script]).arg(ids).arg(environment.program()).args(arguments);
    command
}

/// Makes an environment that belongs to `nobody`.
fn environment() -> Environment {
    let environment = Environment::with_own_program();
    for name in ["home", "state"] {
        let path = environment.path(name);
        std::fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    environment
}

fn able() -> bool {
    let installed =
        ["/usr/bin/newuidmap", "/etc/subuid", "/etc/subgid"].iter().all(|path| Path::new(path).exists());
    // An ordinary user who runs the tests does all of them as an ordinary user.
    is_root() && need(installed, "`uidmap`, and the files /etc/subuid and /etc/subgid")
}

/// Writes what the user may use.
fn subordinate_ids(environment: &Environment, content: &str) -> std::path::PathBuf {
    let ids = environment.write("ids", content);
    std::fs::set_permissions(&ids, PermissionsExt::from_mode(0o644)).unwrap();
    ids
}

#[test]
fn an_ordinary_user_does_the_main_job() {
    let Some(registry) = registry().filter(|_| able()) else { return };
    let environment = environment();
    let ids = subordinate_ids(&environment, "nobody:500000:65536\n");
    main_job::check(&environment, registry, "rootless/hello:1", |arguments| {
        as_nobody(&environment, &ids, arguments)
    });
    // Nothing that was made is root's: everything is the user's, or one of the user's subordinate ids'.
    let mut find = Command::new("find");
    let found = find.arg(environment.state()).args(["-uid", "0"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn an_ordinary_user_has_a_terminal_in_an_image() {
    let Some(registry) = registry().filter(|_| able()) else { return };
    let environment = environment();
    let ids = subordinate_ids(&environment, "nobody:500000:65536\n");
    let image = registry.reference("library/busybox");
    for platform in ["linux/amd64", "linux/arm64"] {
        let script = "tty; stty size; echo well > /dev/tty; exit 5";
        let arguments = ["run", "-it", "--platform", platform, &image, "sh", "-c", script];
        let arguments = arguments.map(str::to_owned);
        let mut console = Console::start(&as_nobody(&environment, &ids, &arguments), 20, 70);
        console.wait_for("/dev/pts/0\r\n20 70\r\nwell\r\n");
        assert_eq!(console.end().0.code(), Some(5), "{platform}");
    }
}

#[test]
fn a_user_without_subordinate_ids_is_told_what_mends_it() {
    if !able() {
        return;
    }
    let environment = environment();
    let ids = subordinate_ids(&environment, "somebody:1:1\n");
    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let arguments = ["build".to_owned(), context];
    let error = Outcome::of(as_nobody(&environment, &ids, &arguments)).failed(1);
    assert!(error.contains("no subordinate ids"), "{error}");
    assert!(error.contains("hint: run `sudo usermod --add-subuids"), "{error}");
}

#[test]
fn an_ordinary_user_adds_repositories() {
    if !able() || !need(Command::new("git").arg("version").output().is_ok(), "git: run `apt-get install git`")
    {
        return;
    }
    let environment = environment();
    let ids = subordinate_ids(&environment, "nobody:500000:65536\n");
    let repository = GitRepository::new(&environment, "sample");
    repository.write("text", "of a repository\n");
    repository.commit("first");
    repository.publish();
    let daemon = GitDaemon::start(&environment);
    let dockerfile = format!("FROM scratch\nADD --keep-git-dir {} /\n", daemon.address("sample"));
    let context = environment.context("context", &dockerfile);
    let out = environment.text("home/out");
    let arguments = ["build", "--progress=plain", "--output", &out, &context].map(str::to_owned);
    Outcome::of(as_nobody(&environment, &ids, &arguments)).succeeded();
    assert_eq!(std::fs::read_to_string(environment.path("home/out/text")).unwrap(), "of a repository\n");
    assert!(environment.path("home/out/.git/HEAD").exists());
}
