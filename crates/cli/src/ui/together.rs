//! Events of several builds that are shown together: each step once, whichever of them it is a step of.
//!
//! Builds that have steps in common, as a target has with what it is made of, all tell of them. A step of such a part
//! is shown under the part, any other under the build that has told of it first. What others tell of it is news only
//! if the first has not come so far.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use slipway_model::Digest;
use slipway_model::progress::{Event, EventSink, Vertex};

/// Builds that are shown together.
pub(crate) struct Together {
    inner: Arc<dyn EventSink>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    steps: HashMap<Digest, Step>,
    /// Which build a step is one of, where builds are made of each other.
    parts: HashMap<Digest, String>,
}

/// One of the builds.
struct Member {
    name: String,
    together: Arc<Together>,
}

/// What was told of a step.
#[derive(Default)]
struct Step {
    /// Whose it is.
    owner: String,
    /// How far it has come, and who told that.
    phase: Phase,
    teller: String,
    /// When the last line of output was written, and who told that.
    last_line: Option<(SystemTime, String)>,
    /// Who counts, by counter.
    counters: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Known,
    /// In the cache; should the result turn out to be gone, it starts after all.
    Cached,
    Started,
    Ended,
}

impl Phase {
    fn of(vertex: &Vertex) -> Self {
        match (vertex.started, vertex.completed) {
            (_, Some(_)) if vertex.cached => Self::Cached,
            (_, Some(_)) => Self::Ended,
            (Some(_), None) => Self::Started,
            (None, None) => Self::Known,
        }
    }
}

impl Together {
    /// Shows builds by `inner`.
    pub(crate) fn new(inner: Arc<dyn EventSink>) -> Arc<Self> {
        Arc::new(Self { inner, told: Mutex::default() })
    }

    /// Returns where the build of that name sends its events.
    pub(crate) fn build(self: &Arc<Self>, name: String) -> Arc<dyn EventSink> {
        Arc::new(Member { name, together: Arc::clone(self) })
    }
}

impl Step {
    fn is_news(&mut self, event: &Event, from: &str) -> bool {
        match event {
            Event::Vertex(vertex) => {
                let phase = Phase::of(vertex);
                let is_news = self.teller == from || phase > self.phase;
                if is_news {
                    (self.phase, self.teller) = (phase, from.to_owned());
                }
                is_news
            }
            Event::Status(status) => {
                self.counters.entry(status.id.clone()).or_insert_with(|| from.to_owned()) == from
            }
            Event::Log(log) => {
                let last = self.last_line.as_ref();
                let is_news = last.is_none_or(|(at, who)| who == from || log.timestamp > *at);
                if is_news {
                    self.last_line = Some((log.timestamp, from.to_owned()));
                }
                is_news
            }
            Event::Warning(_) | Event::Key(_) => true,
        }
    }
}

impl EventSink for Member {
    fn part(&self, name: &str, steps: &[Digest]) {
        let mut told = self.together.told.lock();
        for step in steps {
            // A part of a part was told of before.
            told.parts.entry(*step).or_insert_with(|| name.to_owned());
        }
    }

    fn emit(&self, mut event: Event) {
        let digest = match &event {
            Event::Vertex(vertex) => vertex.digest,
            Event::Status(status) => status.vertex,
            Event::Log(log) => log.vertex,
            Event::Warning(_) | Event::Key(_) => return self.together.inner.emit(event),
        };
        let mut told = self.together.told.lock();
        let Told { steps, parts } = &mut *told;
        let owner = || parts.get(&digest).unwrap_or(&self.name).clone();
        let new = || Step { owner: owner(), teller: self.name.clone(), ..Step::default() };
        let step = steps.entry(digest).or_insert_with(new);
        if !step.is_news(&event, &self.name) {
            return;
        }
        if let Event::Vertex(vertex) = &mut event {
            vertex.name = super::prefixed::name(&step.owner, &vertex.name);
        }
        // In the order of what was told.
        self.together.inner.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slipway_model::progress::{Log, Stream};

    use super::*;

    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl EventSink for Said {
        fn emit(&self, event: Event) {
            self.0.lock().push(match event {
                Event::Vertex(vertex) => format!("{} {:?}", vertex.name, Phase::of(&vertex)),
                Event::Log(log) => String::from_utf8_lossy(&log.data).into_owned(),
                _ => "-".to_owned(),
            });
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn vertex(started: Option<u64>, completed: Option<u64>, cached: bool) -> Event {
        Event::Vertex(Vertex {
            digest: Digest::of("a step"),
            name: "[1/2] RUN make".to_owned(),
            inputs: Vec::new(),
            started: started.map(at),
            completed: completed.map(at),
            cached,
            error: None,
            progress_group: None,
        })
    }

    fn line(text: &str, seconds: u64) -> Event {
        let data = text.as_bytes().to_vec().into();
        Event::Log(Log { vertex: Digest::of("a step"), stream: Stream::Stdout, data, timestamp: at(seconds) })
    }

    #[test]
    fn a_step_of_a_part_is_shown_once_under_the_part() {
        let said = Arc::new(Said::default());
        let together = Together::new(said.clone());
        let (lib, app) = (together.build("lib".to_owned()), together.build("app".to_owned()));
        // The one that is made of the other is faster.
        app.part("lib", &[Digest::of("a step")]);
        app.emit(vertex(None, None, false));
        app.emit(vertex(Some(1), None, false));
        lib.emit(vertex(Some(1), None, false));
        app.emit(line("begun", 2));
        app.emit(line("done", 2));
        app.emit(vertex(Some(1), Some(3), false));
        lib.emit(vertex(Some(1), Some(3), false));
        together.build("late".to_owned()).emit(vertex(Some(4), Some(4), true));
        let expected = [
            "[lib 1/2] RUN make Known",
            "[lib 1/2] RUN make Started",
            "begun",
            "done",
            "[lib 1/2] RUN make Ended",
        ];
        assert_eq!(*said.0.lock(), expected);
    }

    #[test]
    fn output_that_a_daemon_tells_to_every_build_is_shown_once() {
        let said = Arc::new(Said::default());
        let together = Together::new(said.clone());
        let (lib, app) = (together.build("lib".to_owned()), together.build("app".to_owned()));
        for (text, seconds) in [("one", 1), ("two", 1), ("three", 2)] {
            app.emit(line(text, seconds));
            lib.emit(line(text, seconds));
        }
        lib.emit(line("four", 3));
        app.emit(line("four", 3));
        assert_eq!(*said.0.lock(), ["one", "two", "three", "four"]);
    }
}
