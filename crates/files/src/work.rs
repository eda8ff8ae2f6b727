//! A small pool for work that makes more work: walking, hashing, copying.
//!
//! The calling thread works too, and helpers start only when there is something for them, so that a tree of
//! three files costs no thread. The stack is last in, first out, which keeps it (and the number of open
//! directories) small. The first error stops everything and is returned.

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::thread;

use crate::error::{FilesError, Result};

/// Says how many threads are worth using for what is in memory.
pub(crate) fn threads() -> usize {
    // The answer is in many files of the control groups, and is asked for at each small tree.
    static THREADS: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(2, usize::from).min(8));
    *THREADS
}

/// Says how many threads are worth using where some wait for the disk.
pub(crate) fn disk_threads() -> usize {
    (2 * threads()).min(8)
}

/// The stack of what is left to do.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

struct State<T> {
    items: Vec<T>,
    /// How many items are being worked on, which may yet push more.
    active: usize,
    /// How many threads wait for an item.
    idle: usize,
    failure: Option<FilesError>,
}

impl<T> Queue<T> {
    /// Adds an item.
    pub(crate) fn push(&self, item: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.items.push(item);
        if state.idle > 0 {
            self.wake.notify_one();
        }
    }

    /// Takes an item, waiting while others may still push one; `None` when all is done or failed.
    fn take(&self) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(item) = state.items.pop() {
                state.active += 1;
                return Some(item);
            }
            if state.active == 0 {
                return None;
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn finish(&self, outcome: Result<()>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.active -= 1;
        if let Err(error) = outcome {
            state.failure.get_or_insert(error);
            state.items.clear();
        }
        if state.active == 0 || state.failure.is_some() {
            self.wake.notify_all();
        }
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).items.len()
    }
}

/// Calls `step` on every item, those it pushes included, on up to `threads` threads.
pub(crate) fn run<T: Send>(
    threads: usize,
    items: Vec<T>,
    step: impl Fn(T, &Queue<T>) -> Result<()> + Sync,
) -> Result<()> {
    let queue =
        Queue { state: Mutex::new(State { items, active: 0, idle: 0, failure: None }), wake: Condvar::new() };
    let work = |item| {
        // A panic in `step` must not leave the other threads waiting for this one.
        let guard = Abandon(&queue);
        let outcome = step(item, &queue);
        std::mem::forget(guard);
        queue.finish(outcome);
    };
    thread::scope(|scope| {
        let mut helpers = 0;
        while let Some(item) = queue.take() {
            if helpers + 1 < threads && queue.waiting() > 0 {
                helpers += 1;
                scope.spawn(|| {
                    while let Some(item) = queue.take() {
                        work(item);
                    }
                });
            }
            work(item);
        }
    });
    match queue.state.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Counts an item as done when its step unwinds.
struct Abandon<'a, T>(&'a Queue<T>);

impl<T> Drop for Abandon<'_, T> {
    fn drop(&mut self) {
        self.0.finish(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn items_that_make_items_are_all_done() {
        let done = AtomicUsize::new(0);
        run(4, vec![10_u32], |depth, queue| {
            done.fetch_add(1, Ordering::Relaxed);
            if depth > 0 {
                queue.push(depth - 1);
                queue.push(depth - 1);
            }
            Ok(())
        })
        .expect("nothing fails");
        assert_eq!(done.into_inner(), (1 << 11) - 1);
    }

    #[test]
    fn the_first_error_stops_the_rest() {
        let items = (0..1000).collect();
        let outcome = run(4, items, |item: u32, _| match item {
            500 => Err(FilesError::NotFound { path: "x".into() }),
            _ => Ok(()),
        });
        assert!(outcome.expect_err("item 500 fails").is_not_found());
    }
}
