//! What steps may do.

use slipway_testkit::{Environment, registry};

#[test]
fn an_insecure_step_may_do_what_root_may() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = format!(
        "FROM {}\nRUN mkdir /m && ! mount -t tmpfs none /m\n\
         RUN --security=insecure mount -t tmpfs none /m && grep -q ' /m tmpfs ' /proc/mounts\n",
        registry.reference("library/busybox")
    );
    let context = environment.context("context", &dockerfile);
    let error = environment.build(&[&context]).failed(1);
    for part in ["security.insecure is not allowed", "--allow security.insecure", "Dockerfile:3"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    environment.build(&["--allow", "security.insecure", &context]).succeeded();
}
