//! Work that several builds wait for: what one of them executes, the others do not execute again.
//!
//! Two builds that reach the same canonical key at the same time want the same result. The first runs the
//! operation, the others wait. When the first is dropped or fails, one of those who wait runs it for itself:
//! a failure belongs to the build that saw it, with its log, and a cancelled build takes nobody with it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_model::{Diagnostic, Digest};
use slipway_store::{Lease, SnapshotId};
use tokio::sync::OnceCell;

use crate::tree::Tree;

/// What executes now, by canonical key.
#[derive(Default)]
pub(crate) struct InFlight {
    slots: Mutex<HashMap<Digest, Slot>>,
}

#[derive(Default)]
struct Slot {
    joined: usize,
    cell: Arc<OnceCell<Vec<Tree>>>,
}

impl InFlight {
    /// Runs `work`, or waits for another build that does.
    pub(crate) async fn run<F>(
        &self,
        key: &Digest,
        lease: &Lease,
        work: impl FnOnce() -> F,
    ) -> Result<Vec<Tree>, Diagnostic>
    where
        F: Future<Output = Result<Vec<Tree>, Diagnostic>>,
    {
        let slot = Joined::new(self, *key);
        let mut work = Some(work);
        let mut ours = false;
        let outputs = slot
            .cell
            .get_or_try_init(|| async {
                ours = true;
                match work.take() {
                    Some(work) => work().await,
                    None => Err(crate::error::internal("an operation was started twice")),
                }
            })
            .await?
            .clone();
        // What another build made is held by its lease; from now on it is by ours too.
        let snapshots: Vec<SnapshotId> = outputs.iter().filter_map(Tree::snapshot).collect();
        if ours || lease.hold_snapshots(&snapshots).unwrap_or(false) {
            return Ok(outputs);
        }
        match work.take() {
            Some(work) => work().await,
            None => Ok(outputs),
        }
    }
}

/// One who waits or works; the last to leave removes the entry.
struct Joined<'a> {
    in_flight: &'a InFlight,
    key: Digest,
    cell: Arc<OnceCell<Vec<Tree>>>,
}

impl<'a> Joined<'a> {
    fn new(in_flight: &'a InFlight, key: Digest) -> Self {
        let mut slots = in_flight.slots.lock();
        let slot = slots.entry(key).or_default();
        slot.joined += 1;
        Self { in_flight, key, cell: slot.cell.clone() }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut slots = self.in_flight.slots.lock();
        let Some(slot) = slots.get_mut(&self.key) else { return };
        slot.joined -= 1;
        if slot.joined == 0 {
            slots.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use slipway_model::ErrorKind;
    use slipway_store::Store;

    use super::*;

    struct Fixture {
        directory: std::path::PathBuf,
        store: Store,
    }

    impl Fixture {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("slipway-{name}-{}", std::process::id()));
            let store = Store::open(&directory).unwrap();
            Self { directory, store }
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[tokio::test]
    async fn equal_work_runs_once_and_leaves_no_entry() {
        let fixture = Fixture::new("in-flight-once");
        let lease = fixture.store.lease().unwrap();
        let (in_flight, runs, key) = (InFlight::default(), AtomicUsize::new(0), Digest::of("key"));
        let work = || async {
            runs.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(vec![Tree::Empty])
        };
        let all = (0..10).map(|_| in_flight.run(&key, &lease, work));
        for outputs in futures_util::future::join_all(all).await {
            assert_eq!(outputs.unwrap().len(), 1);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(in_flight.slots.lock().is_empty());
    }

    #[tokio::test]
    async fn a_waiter_takes_over_from_one_that_is_dropped_or_fails() {
        let fixture = Fixture::new("in-flight-over");
        let lease = fixture.store.lease().unwrap();
        let (in_flight, key) = (InFlight::default(), Digest::of("key"));
        let mut dropped = Box::pin(in_flight.run(&key, &lease, std::future::pending));
        assert!(futures_util::poll!(&mut dropped).is_pending());
        let failing = || async { Err(Diagnostic::new(ErrorKind::User, "broken")) };
        let mut second = Box::pin(in_flight.run(&key, &lease, failing));
        assert!(futures_util::poll!(&mut second).is_pending());
        let mut third = Box::pin(in_flight.run(&key, &lease, || async { Ok(vec![Tree::Empty]) }));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(dropped);
        assert_eq!(second.await.unwrap_err().message, "broken");
        assert_eq!(third.await.unwrap().len(), 1);
        assert!(in_flight.slots.lock().is_empty());
    }
}
