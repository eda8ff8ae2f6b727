//! `slipway run -it`: a program of any platform at a terminal.

use rustix::process::Signal;
use slipway_testkit::{Console, Environment, registry};

const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];

/// Starts the base image of a platform at a terminal of 33 rows and 101 columns.
fn start(environment: &Environment, platform: &str, command: &[&str]) -> Option<Console> {
    let image = registry()?.reference("library/busybox");
    let arguments = ["run", "-it", "--platform", platform, &image];
    Some(Console::start(&environment.slipway(arguments.iter().chain(command)), 33, 101))
}

#[test]
fn a_shell_has_a_terminal_with_a_name_and_a_size() {
    let environment = Environment::new();
    for platform in PLATFORMS {
        let Some(mut console) = start(&environment, platform, &["sh"]) else { return };
        console.wait_for("/ # ");
        console.type_in("tty; stty size; test -c /dev/console && echo con''sole\n");
        console.wait_for("/dev/pts/0\r\n33 101\r\nconsole\r\n");
        console.resize(40, 90);
        console.type_in("until [ \"$(stty size)\" = '40 90' ]; do :; done; echo resi''zed\n");
        console.wait_for("resized\r\n");
        assert!(console.is_raw());
        console.type_in("exit 7\n");
        let (status, rest) = console.end();
        assert_eq!(status.code(), Some(7), "{platform}: {rest}");
    }
}

#[test]
fn ctrl_c_is_for_the_program_in_front() {
    let environment = Environment::new();
    for platform in PLATFORMS {
        let Some(mut console) = start(&environment, platform, &["sh"]) else { return };
        console.wait_for("/ # ");
        console.type_in("sh -c 'echo rea''dy; exec sleep 1000'\n");
        console.wait_for("ready");
        console.type_in("\x03");
        console.wait_for("/ # ");
        console.type_in("echo co''de $?\n");
        console.wait_for("code 130");
        // Only at the prompt is a key what it is for a shell.
        console.wait_for("/ # ");
        // The end of input ends a shell, which then is as its last command was.
        console.type_in("\x04");
        assert_eq!(console.end().0.code(), Some(0), "{platform}");

        let script = "echo ready; exec sleep 1000";
        let mut console = start(&environment, platform, &["sh", "-c", script]).expect("there is a registry");
        console.wait_for("ready");
        console.type_in("\x03");
        assert_eq!(console.end().0.code(), Some(130), "{platform}");
    }
}

#[test]
fn the_terminal_is_put_back_when_slipway_is_stopped() {
    let environment = Environment::new();
    let script = "echo ready; exec sleep 1000";
    let Some(mut console) = start(&environment, "linux/amd64", &["sh", "-c", script]) else { return };
    console.wait_for("ready");
    assert!(console.is_raw());
    console.signal(Signal::TERM);
    let (status, rest) = console.end();
    assert!(!status.success(), "{rest}");
}

#[test]
fn a_program_that_does_not_exist_leaves_the_terminal_alone() {
    let environment = Environment::new();
    let Some(console) = start(&environment, "linux/amd64", &["absent"]) else { return };
    let (status, said) = console.end();
    assert!(!status.success() && said.contains("\"absent\": executable file not found"), "{said}");
}
