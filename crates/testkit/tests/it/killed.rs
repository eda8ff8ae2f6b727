//! SIGKILL at any moment loses nothing, and leaves nothing behind.

use std::time::Instant;

use slipway_testkit::{Environment, Random, Registry, kill_after, mount_table, registry, wait_until_gone};

use crate::hello::{self, Hello};

/// How often the build is killed.
const TIMES: u32 = 20;

fn build(registry: &Registry, name: &str) -> Hello {
    Hello::new(registry).with(&["--tag", &registry.reference(name), "--push"])
}

#[test]
fn a_build_killed_at_twenty_moments_completes_as_if_undisturbed() {
    let Some(registry) = registry() else { return };
    let undisturbed = Environment::new();
    undisturbed.run(build(registry, "undisturbed/hello:1").arguments()).succeeded();
    let again = build(registry, "undisturbed/again:1").with(&["--no-cache"]);
    let start = Instant::now();
    undisturbed.run(again.arguments()).succeeded();
    let mut duration = start.elapsed();

    let environment = Environment::with_own_program();
    let mut random = Random::new(2);
    let (mut killed, mut attempts) = (0, 0);
    while killed < TIMES {
        // One moment in each twentieth of a build that finds nothing in the cache.
        let moment = duration.mul_f64((f64::from(killed) + random.fraction()) / f64::from(TIMES));
        let attempt = build(registry, "killed/hello:1").with(&["--no-cache"]);
        let (in_time, below) = kill_after(environment.slipway(attempt.arguments()), moment);
        wait_until_gone(below, environment.program());
        assert_eq!(mount_table(&environment.path("")), [""; 0], "after {moment:?}");
        // A build that was done before takes less time than was thought.
        if in_time {
            killed += 1
        } else {
            duration = duration.mul_f64(0.9)
        }
        attempts += 1;
        assert!(attempts < 4 * TIMES, "the builds end too soon to be killed");
    }

    environment.run(build(registry, "killed/hello:1").arguments()).succeeded();
    hello::check_runs(&environment, &registry.reference("killed/hello:1"));
    assert_eq!(contents(registry, "killed/hello"), contents(registry, "undisturbed/hello"));
    // Collection is not on the path of a build that follows at once; nothing is young enough to be removed.
    environment.run(["prune", "--force", "--filter", "until=1000h"]).succeeded();
    for name in ["leases", "ingest", "trash"] {
        let directory = environment.state().join(name);
        let left: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?} is left in `{}`", directory.display());
    }
    let cached = environment.run(build(registry, "killed/hello:1").arguments()).succeeded();
    assert!(!cached.stderr.contains("pushing layer"), "{}", cached.stderr);
}

/// Returns the configuration and the files of every platform's image, without what tells when it was built.
fn contents(registry: &Registry, name: &str) -> Vec<String> {
    slipway_testkit::BASE_PLATFORMS
        .iter()
        .map(|(platform, _)| {
            let environment = Environment::new();
            let reference = registry.reference(&format!("{name}:1"));
            let list = "find / -xdev ! -path '/proc*' ! -path '/dev*' ! -path '/sys*' ! -path '/etc/hosts' \
                        ! -path '/etc/resolv.conf' -exec ls -dln {} + | awk '{ print $1, $3, $4, $5, $9, $10, $11 }'; \
                        cat /usr/share/hello/*";
            let arguments = ["run", "--platform", platform, "--entrypoint", "/bin/sh", &reference, "-c", list];
            environment.run(arguments).succeeded().stdout
        })
        .collect()
}
