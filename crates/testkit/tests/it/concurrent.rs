//! Many builds at once on one state directory.

use slipway_testkit::{Environment, Outcome, registry};

const DOCKERFILE: &str = r#"ARG BASE
FROM --platform=$BUILDPLATFORM $BASE AS shared
RUN echo shared > /shared
FROM $BASE
ARG WHO
COPY --from=shared /shared /shared
RUN --mount=type=cache,target=/cache,sharing=locked \
    n=$(cat /cache/count 2>/dev/null || echo 0); echo $((n + 1)) > /cache/count; echo "$WHO" >> /cache/who
RUN --mount=type=cache,target=/cache echo "$WHO on $(uname -m)" > /who
CMD ["cat", "/shared", "/who"]
"#;

#[test]
fn six_builds_at_once_share_one_state() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let context = environment.context("context", DOCKERFILE);
    let base = format!("BASE={}", registry.reference("library/busybox"));
    // Two builds are equal to two others.
    let builds: Vec<_> =
        [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"), ("three", "a"), ("four", "a")]
            .iter()
            .map(|(who, copy)| {
                let reference = registry.reference(&format!("concurrent/{who}:{copy}"));
                let mut command =
                    environment.slipway(["build", "--progress=plain", "--push", "--tag", &reference]);
                command.args(["--platform=linux/amd64,linux/arm64,linux/s390x", "--build-arg", &base]);
                command.args(["--build-arg", &format!("WHO={who}"), &context]);
                (*who, reference, command)
            })
            .collect();
    // Each waits in a thread of its own; all start before any ends.
    std::thread::scope(|scope| {
        let runs: Vec<_> = builds
            .into_iter()
            .map(|(who, reference, command)| (who, reference, scope.spawn(|| Outcome::of(command))))
            .collect();
        for (who, reference, run) in runs {
            run.join().unwrap().succeeded();
            for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
                let said = environment.run(["run", "--platform", platform, &reference]).succeeded().stdout;
                assert_eq!(said, format!("shared\n{who} on {machine}\n"));
            }
        }
    });
    let count = environment.context(
        "count",
        &format!(
            "FROM {}\nRUN --mount=type=cache,target=/cache test $(cat /cache/count) = $(wc -l < /cache/who)\n",
            registry.reference("library/busybox")
        ),
    );
    environment.build(&["--no-cache", &count]).succeeded();
}

#[test]
fn equal_builds_at_once_give_equal_images() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = "ARG BASE\nFROM $BASE\nRUN head -c 1000 /dev/urandom | md5sum > /random\n";
    let context = environment.context("context", dockerfile);
    let base = format!("BASE={}", registry.reference("library/busybox"));
    let digests: Vec<_> = std::thread::scope(|scope| {
        let command = || environment.slipway(["build", "-q", "--build-arg", &base, &context]);
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(move || Outcome::of(command()))).collect();
        runs.into_iter().map(|run| run.join().unwrap().succeeded().stdout).collect()
    });
    let again = environment.run(["build", "-q", "--build-arg", &base, &context]).succeeded().stdout;
    // Each started when no other had ended, so each may have made its own; from then on there is one.
    assert!(digests.contains(&again), "{again} is none of {digests:?}");
}
