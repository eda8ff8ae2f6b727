//! A shell in a step: when it fails, and later.

use std::io::Write;
use std::process::{Command, Stdio};

use slipway_testkit::{Console, Environment, registry};

/// Runs a command that reads `input`; returns its exit code, what it printed and what it said besides.
fn typed(mut command: Command, input: &str) -> (Option<i32>, String, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn broken(environment: &Environment, base: &str) -> String {
    environment.write("app/from-context", "context\n");
    environment.write("secret", "hidden\n");
    environment.context(
        "app",
        &format!(
            "FROM {base}\nENV COLOR=blue\nRUN echo early > /early\nWORKDIR /work\nUSER 7:8\n\
             RUN --mount=type=bind,target=/ctx --mount=type=secret,id=key,mode=0444 \\\n\
             cd /tmp && echo partial > /tmp/partial && exit 3\n"
        ),
    )
}

#[test]
fn a_failed_step_is_entered_with_what_it_had_and_wrote() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let context = broken(&environment, &registry.reference("library/busybox"));
    let look = "cat /early /tmp/partial /ctx/from-context /run/secrets/key; echo $COLOR; pwd; id -u; echo new > /tmp/x";
    let secret = format!("id=key,src={}", environment.text("secret"));
    let arguments = [
        "build",
        "--progress=plain",
        "--provenance=false",
        "--on-failure=shell",
        "--secret",
        &secret,
        &context,
    ];
    let (code, said, errors) = typed(environment.slipway(arguments), look);
    // The build has failed, whatever the shell did.
    assert_eq!(code, Some(1), "{errors}");
    assert_eq!(said, "early\npartial\ncontext\nhidden\nblue\n/work\n7\n", "{errors}");
    assert!(errors.contains("exit code: 3") && errors.contains("`/bin/sh` in the step"), "{errors}");

    // Later, without the secret; what the first shell wrote is gone.
    let (code, said, errors) =
        typed(environment.slipway(["debug", "shell"]), "cat /tmp/partial /tmp/x /run/secrets/key; exit 5");
    assert_eq!((code, said.as_str()), (Some(5), "partial\n"), "{errors}");
    // A secret is there if it is given again.
    let arguments = ["debug", "shell", "--secret", &secret, "--", "cat", "/run/secrets/key"];
    let (code, said, errors) = typed(environment.slipway(arguments), "");
    assert_eq!((code, said.as_str()), (Some(0), "hidden\n"), "{errors}");
    let arguments =
        ["debug", "shell", "^0", "RUN echo early", "--", "sh", "-c", "test ! -e /early && echo before"];
    let (code, said, errors) = typed(environment.slipway(arguments), "");
    assert_eq!((code, said.as_str()), (Some(0), "before\n"), "{errors}");

    let error = environment.run(["debug", "shell", "^0", "RUN"]).failed(1);
    assert!(
        error.contains("several steps of the build are `RUN`") && error.contains("RUN echo early"),
        "{error}"
    );
    let error = environment.run(["debug", "shell", "^0", "nothing"]).failed(1);
    assert!(error.contains("no step of the build is `nothing`"), "{error}");
    // What fails before any step runs has no shell.
    let (code, said, errors) = typed(
        environment.slipway(["debug", "build", &environment.context("none", "FROM scratch\nCOPY x /\n")]),
        "echo no",
    );
    assert_eq!((code, said.as_str()), (Some(1), ""), "{errors}");
}

#[test]
fn a_shell_in_a_failed_step_has_a_terminal() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let context = broken(&environment, &registry.reference("library/busybox"));
    let secret = format!("id=key,src={}", environment.text("secret"));
    let arguments = ["debug", "--invoke", "sh", "build", "--progress=plain", "--secret", &secret, &context];
    let mut console = Console::start(&environment.slipway(arguments), 24, 80);
    console.wait_for("in the step");
    console.wait_for("$ ");
    console.type_in("tty; cat /tmp/partial; exit\r");
    console.wait_for("/dev/pts/0");
    console.wait_for("partial");
    assert_eq!(console.end().0.code(), Some(1));
}
