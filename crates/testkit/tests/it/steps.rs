//! What steps may do, and whose files they make.

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

#[test]
fn files_of_users_that_the_image_does_not_have_are_root_s() {
    let environment = Environment::new();
    environment.write("context/passwd", "root:x:0:0::/:/bin/sh\nme:x:12:34::/:/bin/sh\n");
    let dockerfile = "FROM scratch\nCOPY passwd /etc/\nCOPY --chown=ghost:ghosts passwd /a\n\
                      COPY --chown=me:ghosts passwd /b\nCOPY --chown=me passwd /c\n";
    let context = environment.context("context", dockerfile);
    let out = environment.text("out.tar");
    let output = format!("type=tar,dest={out}");
    let built = environment.build(&["--progress=plain", "--output", &output, &context]).succeeded();
    for told in ["the image has no user `ghost`: root's is taken", "the image has no group `ghosts`"] {
        assert!(built.stderr.contains(told), "no `{told}` in:\n{}", built.stderr);
    }
    let listed = std::process::Command::new("tar").args(["--numeric-owner", "-tvf", &out]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for (name, owner) in [("a", "0/0"), ("b", "12/34"), ("c", "12/34")] {
        let line = listed.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
        assert!(line.contains(&format!(" {owner} ")), "{line}");
    }
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let environment = Environment::new();
    environment.write("context/a", "a\n");
    let context = environment.context("context", "FROM scratch\nCOPY [ /x\n");
    let error = environment.build(&[&context]).failed(1);
    assert!(error.contains("syntax error in pattern") && error.contains("Dockerfile:2"), "{error}");
}
