//! Frontends in images, for builds without a daemon.
//!
//! The frontend here says what it was asked and fails; that one can also give a result is shown where its protocol is.

use slipway_testkit::{Environment, base_context};

/// Makes the image of a frontend that only tells its options, as a layout `front`; `None` without a base.
fn frontend(environment: &Environment) -> Option<()> {
    let base = base_context()?;
    std::fs::create_dir(environment.path("image")).unwrap();
    std::fs::copy(base.join("amd64/busybox"), environment.path("image/busybox")).unwrap();
    let script = "/bin/busybox env | /bin/busybox grep ^BUILDKIT_FRONTEND_OPT_ | /bin/busybox cut -d= -f2- >&2; exit 3";
    let dockerfile = format!(
        "FROM scratch\nCOPY busybox /bin/\n\
         LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.contexts,moby.buildkit.frontend.subrequests\n\
         ENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n"
    );
    let image = environment.context("image", &dockerfile);
    environment.build(&["--output", "type=oci,dest=front,tar=false", &image]).succeeded();
    Some(())
}

#[test]
fn a_frontend_in_an_image_is_asked_what_the_command_line_asks() {
    let environment = Environment::new();
    if frontend(&environment).is_none() {
        return;
    }
    environment.write("more/file", "x");
    let context = environment.context("context", "# syntax=front.invalid/own with words\nanything\n");
    let ask = |more: &[&str]| {
        let named = ["--build-context", "front.invalid/own=oci-layout://front"];
        environment.build(&[&named, more, &[&context]].concat()).failed(1)
    };
    let said = ask(&[
        "--build-context",
        "more=more",
        "--platform",
        "linux/amd64,linux/arm64",
        "--target",
        "stage",
        "--build-arg",
        "NAME=value",
        "--label",
        "kind=test",
        "--no-cache",
        "--network",
        "none",
        "--add-host",
        "here:192.0.2.1",
    ]);
    for option in [
        "source=front.invalid/own",
        "cmdline=front.invalid/own with words",
        "context:more=local:more",
        "platform=linux/amd64,linux/arm64",
        "target=stage",
        "build-arg:NAME=value",
        "label:kind=test",
        "no-cache=",
        "force-network-mode=none",
        "add-hosts=here=192.0.2.1",
        "filename=Dockerfile",
        "exit code: 3",
        "Dockerfile:1",
    ] {
        assert!(said.contains(option), "no `{option}` in:\n{said}");
    }
    assert!(ask(&["--call", "outline"]).contains("requestid=frontend.outline"));
    environment.write("context/Dockerfile", "FROM scratch\n");
    let said = ask(&["--build-arg", "BUILDKIT_SYNTAX=front.invalid/own"]);
    assert!(said.contains("cmdline=front.invalid/own") && said.contains("exit code: 3"), "{said}");
}
