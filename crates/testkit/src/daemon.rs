//! `slipway daemon` as a process of its own, and what it holds of the machine.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::Running;
use crate::environment::Environment;
use crate::process::{Seen, descendants};

/// How long what a client left may take to go.
const LIMIT: Duration = Duration::from_secs(20);

/// A daemon; it is killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    address: String,
}

impl Daemon {
    /// Starts a daemon at a socket of the environment, with a state of its own.
    pub fn start(environment: &Environment, name: &str) -> Self {
        let address = format!("unix://{}", environment.path(&format!("{name}.sock")).display());
        Self::serve(environment.slipway::<&str>([]), environment, name, &address, &[])
    }

    /// Starts a daemon by a command that runs slipway, at an address, with further arguments.
    pub fn serve(
        mut command: Command,
        environment: &Environment,
        name: &str,
        address: &str,
        more: &[&str],
    ) -> Self {
        command.args(["daemon", "--addr", address, "--root"]).arg(environment.path(&format!("{name}-state")));
        let mut running = Running::start({
            command.args(more);
            command
        });
        running.wait_for("running server on");
        running.read_on();
        Self { running, address: address.to_owned() }
    }

    /// Returns where it answers.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills it.
    pub fn kill(&self) {
        self.running.signal(rustix::process::Signal::KILL);
    }

    /// Looks at what it holds.
    pub fn held(&self) -> Held {
        Held::of(self.running.id())
    }

    /// Waits until it holds no more than `before`, while `look` is asked again and again; returns what it holds.
    pub fn settled(&self, before: &Held, mut look: impl FnMut() -> bool) -> Held {
        let deadline = Instant::now() + LIMIT;
        loop {
            let idle = look();
            let held = self.held();
            if (idle && held.is_within(before)) || Instant::now() > deadline {
                return held;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process holds.
#[derive(Debug)]
pub struct Held {
    /// Open files, by what they are; connections to the state's database are kept for later and do not count.
    pub files: Vec<String>,
    /// Processes below it.
    pub below: Vec<Seen>,
    /// Mounts that it sees.
    pub mounts: usize,
    /// Memory that is its own, in KiB.
    pub memory: u64,
}

impl Held {
    fn of(id: u32) -> Self {
        let process = Path::new("/proc").join(id.to_string());
        let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let names = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let memory = read("smaps_rollup");
        let memory =
            memory.lines().find_map(|line| line.strip_prefix("Private_Dirty:")?.split_whitespace().next());
        Self {
            files: names
                .map(|name| name.display().to_string())
                .filter(|name| !name.contains("/metadata.db"))
                .collect(),
            below: descendants(id),
            mounts: read("mountinfo").lines().count(),
            memory: memory.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX),
        }
    }

    /// Tells whether nothing was added since `before`, but for memory.
    pub fn is_within(&self, before: &Self) -> bool {
        self.files.len() <= before.files.len()
            && self.below.len() <= before.below.len()
            && self.mounts <= before.mounts
    }
}
