//! What the events of a build have said so far.
//!
//! The displays share it: vertices in order of their start, with the time they ran, their counters and
//! warnings. Vertices of one progress group are one line, that of the group. The output of steps passes
//! through in lines; what of it is kept is for each display to say.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use slipway_model::Digest;
use slipway_model::progress;

/// Everything known of a build.
#[derive(Debug, Default)]
pub(super) struct Trace {
    vertices: Vec<Vertex>,
    by_digest: HashMap<Digest, usize>,
    groups: HashMap<String, usize>,
    pub(super) started: Option<SystemTime>,
}

/// One line of the build: a vertex, or a group of them.
#[derive(Debug)]
pub(super) struct Vertex {
    pub(super) name: String,
    /// The members; just one, except in a group.
    members: HashMap<Digest, Member>,
    pub(super) statuses: Vec<progress::Status>,
    pub(super) warnings: Vec<progress::Warning>,
    pub(super) completed: Option<SystemTime>,
}

#[derive(Debug)]
struct Member {
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
    /// Time of earlier runs: a vertex may start again after it was complete.
    spent: Duration,
    cached: bool,
    error: Option<String>,
}

/// How a vertex stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase<'a> {
    Waiting,
    Running,
    Done,
    Cached,
    Canceled,
    Failed(&'a str),
}

impl Vertex {
    fn new(name: String) -> Self {
        Self { name, members: HashMap::new(), statuses: Vec::new(), warnings: Vec::new(), completed: None }
    }

    /// Tells how the vertex stands.
    pub(super) fn phase(&self) -> Phase<'_> {
        let mut error = None;
        for member in self.members.values() {
            match (&member.error, member.started, member.completed) {
                (Some(text), _, Some(_)) => error = Some(text.as_str()),
                (_, None, None) => {}
                (_, _, None) => return Phase::Running,
                _ => {}
            }
        }
        match error {
            Some(text) if is_cancellation(text) => Phase::Canceled,
            Some(text) => Phase::Failed(text),
            None if !self.members.values().any(|m| m.completed.is_some()) => Phase::Waiting,
            None if self.members.values().all(|m| m.cached || m.completed.is_none()) => Phase::Cached,
            None => Phase::Done,
        }
    }

    /// Tells whether the vertex has come to its end.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.phase(), Phase::Waiting | Phase::Running)
    }

    /// Tells whether the vertex has begun, if only to be found in the cache.
    pub(super) fn is_started(&self) -> bool {
        self.members.values().any(|member| member.started.is_some())
    }

    /// Tells when the vertex began, the last time.
    pub(super) fn started(&self) -> Option<SystemTime> {
        self.members.values().filter_map(|member| member.started).min()
    }

    /// Adds up the time the vertex has run.
    pub(super) fn elapsed(&self, now: SystemTime) -> Duration {
        self.members.values().map(|member| member.elapsed(now)).max().unwrap_or_default()
    }
}

impl Member {
    fn elapsed(&self, now: SystemTime) -> Duration {
        let Some(started) = self.started else { return self.spent };
        let end = self.completed.unwrap_or(now);
        self.spent + end.duration_since(started).unwrap_or_default()
    }

    fn update(&mut self, event: &progress::Vertex) {
        if let (Some(started), Some(completed)) = (self.started, self.completed)
            && event.started.is_some_and(|again| again > completed)
        {
            self.spent += completed.duration_since(started).unwrap_or_default();
        }
        // A vertex may be announced once more before it starts: that takes nothing back.
        if event.started.is_some() || self.started.is_none() {
            self.started = event.started;
            self.completed = event.completed;
            self.cached = event.cached;
            self.error.clone_from(&event.error);
        }
    }
}

/// Tells whether a vertex was stopped because of something else.
fn is_cancellation(error: &str) -> bool {
    error.ends_with("context canceled") || error.ends_with("canceled") || error.ends_with("cancelled")
}

impl Trace {
    /// Takes the state of a vertex; returns which line it belongs to.
    pub(super) fn vertex(&mut self, event: &progress::Vertex) -> usize {
        if self.started.is_none() {
            self.started = event.started;
        }
        let at = match (&event.progress_group, self.by_digest.get(&event.digest)) {
            (_, Some(&at)) => at,
            (Some(group), None) => match self.groups.get(&group.id) {
                Some(&at) => at,
                None => {
                    let at = self.push(Vertex::new(group.name.clone()));
                    self.groups.insert(group.id.clone(), at);
                    at
                }
            },
            (None, None) => self.push(Vertex::new(event.name.clone())),
        };
        self.by_digest.insert(event.digest, at);
        let vertex = &mut self.vertices[at];
        if event.progress_group.is_none() && !event.name.is_empty() {
            vertex.name.clone_from(&event.name);
        }
        vertex
            .members
            .entry(event.digest)
            .or_insert(Member {
                started: None,
                completed: None,
                spent: Duration::ZERO,
                cached: false,
                error: None,
            })
            .update(event);
        vertex.completed = if vertex.is_complete() {
            vertex.members.values().filter_map(|m| m.completed).max()
        } else {
            None
        };
        at
    }

    fn push(&mut self, vertex: Vertex) -> usize {
        self.vertices.push(vertex);
        self.vertices.len() - 1
    }

    /// Takes the state of a counter; `None` if its vertex was never announced.
    pub(super) fn status(&mut self, event: progress::Status) -> Option<usize> {
        let at = *self.by_digest.get(&event.vertex)?;
        let statuses = &mut self.vertices[at].statuses;
        match statuses.iter_mut().find(|status| status.id == event.id) {
            Some(status) => *status = event,
            None => statuses.push(event),
        }
        Some(at)
    }

    /// Takes a warning.
    pub(super) fn warning(&mut self, event: progress::Warning) -> Option<usize> {
        let at = *self.by_digest.get(&event.vertex)?;
        self.vertices[at].warnings.push(event);
        Some(at)
    }

    /// Finds the line of a vertex.
    pub(super) fn find(&self, digest: &Digest) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }

    /// Returns a line.
    pub(super) fn get(&self, at: usize) -> &Vertex {
        &self.vertices[at]
    }

    /// Tells whether a vertex has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.vertices.iter().any(|vertex| matches!(vertex.phase(), Phase::Failed(_)))
    }

    /// Counts lines: those that are complete, and all.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.vertices.iter().filter(|v| v.is_complete()).count(), self.vertices.len())
    }
}

/// Splits the output of a vertex into lines.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    partial: Vec<u8>,
}

/// A line that never ends is broken here, so that it takes no more memory.
const MAX_LINE: usize = 64 << 10;

impl LineBuffer {
    /// Adds output; calls `each` with every line that is whole, without its end.
    pub(super) fn push(&mut self, data: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = data;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end);
            if self.partial.is_empty() {
                each(line);
            } else {
                self.partial.extend_from_slice(line);
                each(&self.partial);
                self.partial.clear();
            }
            rest = &after[1..];
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > MAX_LINE {
            each(&self.partial);
            self.partial.clear();
        }
    }

    /// Takes the line that has no end yet.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }

    /// Shows the line that has no end yet.
    pub(super) fn partial(&self) -> &[u8] {
        &self.partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for data in [&b"a\nb"[..], b"c", b"\n\nd"] {
            buffer.push(data, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        }
        assert_eq!(lines, ["a", "bc", ""]);
        assert_eq!(buffer.take().as_deref(), Some(&b"d"[..]));
        assert_eq!(buffer.take(), None);
    }
}
