//! The whole path as an ordinary user: this program runs itself as `nobody` with subordinate ids.
//!
//! The ids are given to `nobody` by files mounted over `/etc/subuid` and `/etc/subgid` in a mount namespace
//! of the test's own, so that the machine is left as it is.

use std::process::Command;

use slipway_runtime::rootless::{Privilege, enter_if_needed};
use slipway_runtime::{SandboxServer, ServerOptions};

use crate::harness::{Root, Run};

/// Tells an inner run of this program to enter a user namespace, and which error to expect.
const INNER: &str = "SLIPWAY_TEST_ROOTLESS";

/// The test that an inner run of this program is.
const OUTER: &str = "rootless::an_ordinary_user_with_subordinate_ids_can_run_steps";

/// Enters the user namespace before the test harness makes threads.
pub(crate) fn enter() {
    let Ok(wanted) = std::env::var(INNER) else { return };
    match (enter_if_needed(), wanted.as_str()) {
        (Ok(Privilege::Rootless { uid: 65534, gid: 65534 }), "ok") => {}
        (Err(error), "refused") => {
            println!("{error}; {}", error.hint().unwrap());
            std::process::exit(0);
        }
        (other, _) => {
            println!("unexpected: {other:?}");
            std::process::exit(1);
        }
    }
}

/// Runs this program as `nobody` with the given subordinate ids.
fn as_nobody(ids: &str, wanted: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ids).unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), readable).unwrap();
    let script = r#"mount --bind "$0" /etc/subuid; mount --bind "$0" /etc/subgid; exec setpriv --reuid 65534 \
                    --regid 65534 --clear-groups "$@""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script])
        .arg(file.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", OUTER, "--nocapture"])
        .env(INNER, wanted)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

/// Tells whether this machine has what the tests here need.
fn able() -> bool {
    let machine_root = std::fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
    let able = crate::harness::able()
        && machine_root
        && ["/usr/bin/newuidmap", "/etc/subuid", "/etc/subgid"]
            .iter()
            .all(|path| std::path::Path::new(path).exists());
    assert!(able || std::env::var_os("CI").is_none() || !machine_root, "these tests need root and `uidmap`");
    if !able {
        eprintln!("SKIPPED: needs root and `uidmap`");
    }
    able
}

#[test]
fn an_ordinary_user_with_subordinate_ids_can_run_steps() {
    if std::env::var_os(INNER).is_some() {
        return as_the_user();
    }
    if !able() {
        return;
    }
    let (success, text) = as_nobody("nobody:500000:65536\n", "ok");
    assert!(success && text.contains("1 passed"), "{text}");
}

#[test]
fn a_user_without_subordinate_ids_is_told_the_command() {
    if !able() {
        return;
    }
    let (success, text) = as_nobody("somebody:1:1\n", "refused");
    assert!(success, "{text}");
    assert!(text.contains("user nobody has no subordinate ids in `/etc/subuid`"), "{text}");
    assert!(text.contains("usermod --add-subuids"), "{text}");
}

/// What the inner run does, as root of its user namespace.
fn as_the_user() {
    let root = Root::new();
    let script = "id -u; touch /mine; chown 33:8 /mine; stat -c '%u %g' /mine; echo x > /dev/null; ls /sys >/dev/null; \
                  cat /proc/self/uid_map | tr -s ' '";
    let expected = "0\n33 8\n 0 65534 1\n 1 500000 65536\n";
    let (exit, text) = Run::shell(script).outcome(&root);
    assert!(exit.unwrap().status.success(), "{text}");
    // Seen from inside, the map's middle column tells the ids outside.
    assert_eq!(text.split("33 8\n").next(), expected.split("33 8\n").next());

    // A nested user namespace with a table of its own, as for emulated steps.
    let server = SandboxServer::start(&ServerOptions {
        user_namespace: true,
        binfmt: vec![":slipway-test:E::slipwaytest::/usr/bin/cat:OCF".into()],
        ..Default::default()
    })
    .unwrap();
    root.write("file.slipwaytest", "run by cat\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.path("file.slipwaytest"), executable).unwrap();
    let (exit, text) =
        Run::shell("/file.slipwaytest; chown 5:6 /mine; stat -c '%u %g' /mine").outcome_on(&server, &root);
    assert!(exit.unwrap().status.success(), "{text}");
    assert_eq!(text, "run by cat\n5 6\n");
    let none = Run::args(&["ls", "/sys/class/net"])
        .with(|settings| settings.network = slipway_runtime::Network::None)
        .outcome_on(&server, &root);
    assert_eq!(none.1, "lo\n");
    crate::container::see_the_same(crate::harness::server());
    crate::container::see_the_same(&server);
}
