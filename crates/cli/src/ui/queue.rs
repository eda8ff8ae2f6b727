//! The bounded queue between a build and its display.
//!
//! A build must not wait for a terminal. Counters and vertex states that nobody has read are replaced
//! by newer ones; output of steps waits for room a short while, and then loses its oldest part, which
//! is counted and told.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipway_model::Digest;
use slipway_model::progress::{Event, EventSink};

/// Bytes of output that may wait to be shown.
const MAX_WAITING: usize = 16 << 20;

/// How long a step's output waits for room.
const PATIENCE: Duration = Duration::from_millis(250);

/// Carries events from any thread to one.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// Where in `events` the newest state of a counter is.
    statuses: HashMap<(Digest, String), usize>,
    waiting: usize,
    lost: usize,
    closed: bool,
}

/// What the reader found.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// Bytes of output that were dropped since the last batch.
    pub(super) lost: usize,
    /// No more will come.
    pub(super) closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left a consistent list: every change is one push.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events, at most `timeout`, and takes them all.
    pub(super) fn take(&self, timeout: Duration) -> Batch {
        let state = self.lock();
        let empty = |state: &mut State| state.events.is_empty() && !state.closed;
        let (mut state, _) = match self.arrived.wait_timeout_while(state, timeout, empty) {
            Ok(result) => result,
            Err(poisoned) => poisoned.into_inner(),
        };
        state.statuses.clear();
        state.waiting = 0;
        let batch = Batch {
            events: std::mem::take(&mut state.events),
            lost: std::mem::take(&mut state.lost),
            closed: state.closed,
        };
        drop(state);
        self.drained.notify_all();
        batch
    }

    /// Says that no more events come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.drained.notify_all();
    }
}

impl EventSink for Queue {
    fn emit(&self, event: Event) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match &event {
            Event::Status(status) => {
                let key = (status.vertex, status.id.clone());
                if let Some(&at) = state.statuses.get(&key) {
                    state.events[at] = event;
                    return;
                }
                let at = state.events.len();
                state.statuses.insert(key, at);
            }
            Event::Log(log) => {
                let size = log.data.len();
                if state.waiting + size > MAX_WAITING {
                    let full = |state: &mut State| !state.closed && state.waiting + size > MAX_WAITING;
                    state = match self.drained.wait_timeout_while(state, PATIENCE, full) {
                        Ok((state, _)) => state,
                        Err(poisoned) => poisoned.into_inner().0,
                    };
                    if state.waiting + size > MAX_WAITING {
                        state.lost += size;
                        return;
                    }
                }
                state.waiting += size;
            }
            Event::Vertex(_) | Event::Warning(_) => {}
            Event::Key(_) => return,
        }
        state.events.push(event);
        drop(state);
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_model::progress::{Log, Status, Stream};
    use std::time::UNIX_EPOCH;

    fn status(id: &str, current: u64) -> Event {
        Event::Status(Status {
            vertex: Digest::of("v"),
            id: id.to_owned(),
            current,
            total: 10,
            timestamp: UNIX_EPOCH,
            started: Some(UNIX_EPOCH),
            completed: None,
        })
    }

    fn log(size: usize) -> Event {
        Event::Log(Log {
            vertex: Digest::of("v"),
            stream: Stream::Stdout,
            data: vec![b'x'; size].into(),
            timestamp: UNIX_EPOCH,
        })
    }

    #[test]
    fn counters_are_replaced_by_newer_ones() {
        let queue = Queue::default();
        for current in 0..1000 {
            queue.emit(status("a", current));
            queue.emit(status("b", current));
        }
        let batch = queue.take(Duration::ZERO);
        assert_eq!(batch.events.len(), 2);
        assert!(matches!(&batch.events[0], Event::Status(s) if s.current == 999 && s.id == "a"));
        queue.emit(status("a", 1000));
        assert_eq!(queue.take(Duration::ZERO).events.len(), 1);
    }

    #[test]
    fn output_that_nobody_reads_is_bounded_and_counted() {
        let queue = Queue::default();
        queue.emit(log(MAX_WAITING));
        queue.emit(log(5));
        let batch = queue.take(Duration::ZERO);
        assert_eq!((batch.events.len(), batch.lost, batch.closed), (1, 5, false));
        queue.close();
        queue.emit(log(1));
        let batch = queue.take(Duration::ZERO);
        assert!(batch.events.is_empty() && batch.closed);
    }
}
