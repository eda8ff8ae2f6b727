//! A builder named `both` with two daemons as its nodes, each for one platform.

use slipway_testkit::{Daemon, Environment};

/// The daemons; they end with this.
pub(crate) struct Pair {
    pub(crate) one: Daemon,
    pub(crate) two: Daemon,
}

impl Pair {
    /// Starts the daemons, and makes the builder.
    pub(crate) fn start(environment: &Environment, platforms: [&str; 2]) -> Self {
        let pair = Self { one: Daemon::start(environment, "one"), two: Daemon::start(environment, "two") };
        let create = |more: &[&str], platform: &str, daemon: &Daemon| {
            let words = ["create", "--name", "both", "--driver", "remote", "--platform", platform];
            let address = [daemon.address()];
            environment.run(words.iter().chain(more).chain(&address)).succeeded();
        };
        create(&[], platforms[0], &pair.one);
        create(&["--append"], platforms[1], &pair.two);
        pair
    }
}
