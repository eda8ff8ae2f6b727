//! The builds that are under way, found by the id their client gave them, and what has happened in each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slipway_model::progress::{Event, EventSink};
use tokio::sync::Notify;
use tonic::Status;

use crate::gateway::Bridge;

/// How long a call waits for the build it names: calls overtake the one that starts it.
const WAIT: Duration = Duration::from_secs(6);
/// How many builds that have ended can still be asked what happened.
const KEPT: usize = 64;
/// Bytes of logs that are kept of one build for who asks late, and of all that have ended together.
const MAX_LOGS: usize = 64 << 20;

/// The builds of a daemon.
#[derive(Clone, Default)]
pub(crate) struct Builds {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    running: HashMap<String, Entry>,
    ended: VecDeque<(String, Arc<Happened>)>,
}

impl State {
    /// Keeps what happened in a build, and lets go of the oldest that are too many or too much.
    fn keep_ended(&mut self, id: String, happened: Arc<Happened>, max_logs: usize) {
        self.ended.push_back((id, happened));
        let mut bytes: usize = self.ended.iter().map(|(_, happened)| happened.log_bytes()).sum();
        while self.ended.len() > KEPT || (bytes > max_logs && self.ended.len() > 1) {
            let Some((_, oldest)) = self.ended.pop_front() else { break };
            bytes -= oldest.log_bytes();
        }
    }
}

struct Entry {
    happened: Arc<Happened>,
    bridge: Option<Arc<Bridge>>,
}

/// A build is under way until this is dropped.
pub(crate) struct Running {
    builds: Builds,
    id: String,
    pub(crate) happened: Arc<Happened>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.happened.end();
        let mut state = self.builds.inner.state.lock();
        state.running.remove(&self.id);
        state.keep_ended(self.id.clone(), self.happened.clone(), MAX_LOGS);
    }
}

impl Running {
    /// Lets clients reach the build through the gateway.
    pub(crate) fn set_bridge(&self, bridge: Arc<Bridge>) {
        if let Some(entry) = self.builds.inner.state.lock().running.get_mut(&self.id) {
            entry.bridge = Some(bridge);
        }
        self.builds.inner.changed.notify_waiters();
    }
}

impl Builds {
    /// Enters a build.
    pub(crate) fn start(&self, id: &str) -> Result<Running, Status> {
        let happened = Arc::new(Happened::default());
        let mut state = self.inner.state.lock();
        if state.running.contains_key(id) {
            return Err(Status::unknown(format!("job ID {id} exists")));
        }
        state.ended.retain(|(ended, _)| ended != id);
        state.running.insert(id.to_owned(), Entry { happened: happened.clone(), bridge: None });
        drop(state);
        self.inner.changed.notify_waiters();
        Ok(Running { builds: self.clone(), id: id.to_owned(), happened })
    }

    /// Finds what happens in a build, or happened in one that has just ended.
    pub(crate) async fn happened(&self, id: &str) -> Result<Arc<Happened>, Status> {
        let look = |state: &State| {
            let running = state.running.get(id).map(|entry| entry.happened.clone());
            let ended = || state.ended.iter().find(|(ended, _)| ended == id).map(|(_, h)| h.clone());
            running.or_else(ended)
        };
        self.wait_for(id, look).await
    }

    /// Tells whether a build is under way or has just ended.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let state = self.inner.state.lock();
        state.running.contains_key(id) || state.ended.iter().any(|(ended, _)| ended == id)
    }

    /// Finds the gateway of a build.
    pub(crate) async fn bridge(&self, id: &str) -> Result<Arc<Bridge>, Status> {
        let look = |state: &State| state.running.get(id).and_then(|entry| entry.bridge.clone());
        self.wait_for(id, look).await
    }

    /// Counts the builds under way.
    pub(crate) fn count(&self) -> usize {
        self.inner.state.lock().running.len()
    }

    async fn wait_for<T>(&self, id: &str, look: impl Fn(&State) -> Option<T>) -> Result<T, Status> {
        let found = async {
            loop {
                let changed = self.inner.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = look(&self.inner.state.lock());
                if let Some(found) = found {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(WAIT, found).await.map_err(|_| Status::not_found(format!("no such job {id}")))
    }
}

/// What has happened in a build so far; who asks late hears it from the beginning.
#[derive(Default)]
pub(crate) struct Happened {
    state: Mutex<Log>,
    changed: Notify,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    log_bytes: usize,
    ended: bool,
}

impl EventSink for Happened {
    fn emit(&self, event: Event) {
        if let Event::Key(_) = &event {
            return;
        }
        let mut state = self.state.lock();
        if let Event::Log(log) = &event {
            if state.log_bytes + log.data.len() > MAX_LOGS {
                return;
            }
            state.log_bytes += log.data.len();
        }
        state.events.push(event);
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Happened {
    fn log_bytes(&self) -> usize {
        self.state.lock().log_bytes
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_waiters();
    }

    /// Returns the events since `from`; `None` when all were told and no more come.
    pub(crate) async fn since(&self, from: usize) -> Option<Vec<Event>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                if state.events.len() > from {
                    return Some(state.events[from..].to_vec());
                }
                if state.ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Returns all that has happened.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.state.lock().events.clone()
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::Digest;
    use slipway_model::progress::{Log as LogEvent, Stream};

    use super::*;

    fn log(text: &str) -> Event {
        Event::Log(LogEvent {
            vertex: Digest::of("v"),
            stream: Stream::Stdout,
            data: text.as_bytes().into(),
            timestamp: std::time::SystemTime::UNIX_EPOCH,
        })
    }

    #[tokio::test]
    async fn who_asks_late_hears_everything() {
        let builds = Builds::default();
        let running = builds.start("one").unwrap();
        assert!(builds.start("one").is_err());
        running.happened.emit(log("a"));
        running.happened.emit(log("b"));
        drop(running);
        let happened = builds.happened("one").await.unwrap();
        assert_eq!(happened.since(0).await.map(|events| events.len()), Some(2));
        assert!(happened.since(2).await.is_none());
        assert_eq!(builds.count(), 0);
    }

    #[test]
    fn what_has_ended_takes_bounded_memory() {
        let mut state = State::default();
        let ended = |text: &str| {
            let happened = Happened::default();
            happened.emit(log(text));
            Arc::new(happened)
        };
        for id in ["one", "two", "three"] {
            state.keep_ended(id.to_owned(), ended("four"), 8);
        }
        let kept = |state: &State| state.ended.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(kept(&state), ["two", "three"]);
        state.keep_ended("large".to_owned(), ended("more than all together"), 8);
        assert_eq!(kept(&state), ["large"], "the last one is always kept");
    }
}
