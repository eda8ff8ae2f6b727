//! Processes as the kernel knows them: who is below whom, and waiting for their ends without polling.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process that was seen; the number cannot come to mean another one.
#[derive(Debug)]
pub struct Seen {
    /// Its number and name, for messages.
    pub name: String,
    handle: OwnedFd,
}

impl Seen {
    /// Looks at a process; `None` if it is gone.
    pub fn new(id: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(id).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        Some(Self { name: format!("{id} {}", name.trim_end()), handle })
    }

    /// Waits until the process has ended, at most for `limit`; tells whether it has.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot wait for process {}: {error}", self.name),
            }
        }
    }
}

/// Finds every process below `id`.
pub fn descendants(id: u32) -> Vec<Seen> {
    let (mut found, mut todo, mut known) = (Vec::new(), vec![id], BTreeSet::new());
    while let Some(id) = todo.pop() {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { continue };
        for thread in threads.filter_map(Result::ok) {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()) {
                if known.insert(child) {
                    found.extend(Seen::new(child));
                    todo.push(child);
                }
            }
        }
    }
    found
}

/// Finds every process that runs the program at `path`.
pub fn with_program(path: &Path) -> Vec<Seen> {
    let entries = std::fs::read_dir("/proc").expect("`/proc` is mounted");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|program| program == path))
        .filter_map(Seen::new)
        .collect()
}

/// Waits until all of `seen`, and every process that runs the program at `path`, have ended.
pub fn wait_until_gone(mut seen: Vec<Seen>, path: &Path) {
    const LIMIT: Duration = Duration::from_secs(20);
    loop {
        for process in &seen {
            assert!(process.wait(LIMIT), "process {} is left over", process.name);
        }
        seen = with_program(path);
        if seen.is_empty() {
            return;
        }
    }
}
