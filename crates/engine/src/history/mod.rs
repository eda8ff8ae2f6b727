//! What was built: a record of each build and everything that it said, kept in the state.
//!
//! Each build has a directory below `history`, named by its start and its id, so that the order of names is that
//! of time. In it are `record.json`, written when the build starts and again when it ends, each time whole, and
//! `events`, which grows while it runs. The build holds a lock on the directory: a record without an end whose
//! lock is free is of a build that was killed.
//!
//! Nothing of a build depends on its history. A record that cannot be written is a warning in the log.

mod bundle;
mod events;
mod explain;
mod record;
mod recording;
mod time_condition;
mod trace;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use slipway_model::progress::Event;
use slipway_model::{Diagnostic, ErrorKind};

pub use bundle::{BundledBuild, write_bundle};
pub use explain::ExplainedStep;
pub(crate) use explain::{Keys, explain};
pub use record::{Outcome, Record, RequestRecord, Steps, repository_of_context};
pub use recording::Recording;
pub use time_condition::TimeCondition;
pub use trace::Trace;

use crate::config::HistoryLimits;
use crate::error::Context as _;

const RECORD: &str = "record.json";
const EVENTS: &str = "events";

/// The records of a state directory.
#[derive(Clone, Debug)]
pub struct History {
    directory: PathBuf,
}

impl History {
    pub(crate) fn of(root: &Path) -> Self {
        Self { directory: root.join("history") }
    }

    /// Starts the record of a build.
    ///
    /// # Errors
    /// The state cannot be written to.
    pub fn begin(&self, id: &str, request: RequestRecord) -> Result<Recording, Diagnostic> {
        let started = SystemTime::now();
        let begin = || -> io::Result<Recording> {
            let millis = since_epoch(started).as_millis();
            let directory = self.directory.join(format!("{millis:013}-{id}"));
            std::fs::create_dir_all(&directory)?;
            Recording::start(directory, Record::new(id, request, started))
        };
        begin().context(|| "cannot keep a record of the build".to_owned())
    }

    /// Lists what was built, the newest first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, Diagnostic> {
        let records = self.directories()?.into_iter().rev().filter_map(|directory| read(&directory));
        Ok(records.collect())
    }

    /// Finds a record: by its id or the beginning of one, by `^N` for the Nth before the newest, or the newest by
    /// nothing at all.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find(&self, reference: &str) -> Result<Record, Diagnostic> {
        self.locate(reference).map(|(_, record)| record)
    }

    /// Reads what a build said, in the order in which it said it; what a killed build did not write is missing.
    ///
    /// # Errors
    /// There is no such record, or it cannot be read.
    pub fn events(&self, reference: &str) -> Result<impl Iterator<Item = Event> + use<>, Diagnostic> {
        let (directory, _) = self.locate(reference)?;
        let file =
            File::open(directory.join(EVENTS)).context(|| "cannot read what the build said".to_owned())?;
        events::read(file).context(|| "cannot read what the build said".to_owned())
    }

    /// Reads how the keys of a build's steps came about.
    pub(crate) fn keys(&self, reference: &str) -> Result<Keys, Diagnostic> {
        let (directory, _) = self.locate(reference)?;
        let read = || events::read_keys(File::open(directory.join(EVENTS))?);
        Ok(read().context(|| "cannot read the keys of the build's steps".to_owned())?.collect())
    }

    /// Removes a record.
    ///
    /// # Errors
    /// There is no such record, or its build is running.
    pub fn remove(&self, reference: &str) -> Result<(), Diagnostic> {
        let (directory, record) = self.locate(reference)?;
        if record.outcome.is_none() {
            return Err(Diagnostic::new(ErrorKind::User, format!("the build `{}` is running", record.id))
                .hint("wait until it ends, or stop it"));
        }
        std::fs::remove_dir_all(&directory).context(|| format!("cannot remove the record `{}`", record.id))
    }

    /// Removes the oldest records beyond what is kept.
    pub(crate) fn trim(&self, limits: &HistoryLimits) {
        let mut bytes = 0;
        for (position, directory) in self.directories().unwrap_or_default().iter().rev().enumerate() {
            let written = directory.join(EVENTS).metadata().ok();
            bytes += written.as_ref().map_or(0, |metadata| metadata.len());
            let age = written.and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
            let is_young = age.is_some_and(|age| age < limits.max_age);
            let fits = limits.max_bytes.is_none_or(|max| bytes <= max);
            let keep = is_young || position < limits.max_entries && fits;
            if !keep && !is_locked(directory) {
                let _ = std::fs::remove_dir_all(directory);
            }
        }
    }

    /// Lists the directories of records, the oldest first.
    fn directories(&self) -> Result<Vec<PathBuf>, Diagnostic> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(|| "cannot list the builds".to_owned()),
        };
        let mut directories: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        directories.sort();
        Ok(directories)
    }

    fn locate(&self, reference: &str) -> Result<(PathBuf, Record), Diagnostic> {
        let nothing = |text: String| {
            Err(Diagnostic::new(ErrorKind::User, text).hint("`slipway history ls` lists the builds"))
        };
        let directories = self.directories()?;
        let mut newest = directories.iter().rev().filter_map(|path| Some((path.clone(), read(path)?)));
        if reference.is_empty() || reference.starts_with('^') {
            let Ok(offset) = reference
                .trim_start_matches('^')
                .parse::<usize>()
                .or_else(|error| if reference.is_empty() { Ok(0) } else { Err(error) })
            else {
                return nothing(format!("invalid offset `{reference}`"));
            };
            return newest.nth(offset).map_or_else(|| nothing("no records found".to_owned()), Ok);
        }
        // The id comes last in what `build --metadata-file` calls `builder/node/id`.
        let id = reference.rsplit('/').next().unwrap_or(reference);
        let mut found: Vec<_> = newest.filter(|(_, record)| record.id.starts_with(id)).collect();
        if let Some(exact) = found.iter().position(|(_, record)| record.id == id) {
            return Ok(found.swap_remove(exact));
        }
        match found.len() {
            1 => Ok(found.swap_remove(0)),
            0 => nothing(format!("no record found for ref `{reference}`")),
            several => nothing(format!("`{reference}` is the beginning of {several} builds' ids")),
        }
    }
}

/// Reads a record; one that is no record is passed over, since another version may have written it.
fn read(directory: &Path) -> Option<Record> {
    let text = std::fs::read(directory.join(RECORD)).ok()?;
    let mut record: Record = serde_json::from_slice(&text).ok()?;
    if record.outcome.is_none() && !is_locked(directory) {
        let written = directory.join(EVENTS).metadata().and_then(|metadata| metadata.modified());
        record.completed = Some(written.unwrap_or(record.started));
        record.outcome = Some(Outcome::Failed("the process ended before the build did".to_owned()));
    }
    Some(record)
}

/// Tells whether a build still writes to its record.
fn is_locked(directory: &Path) -> bool {
    let Ok(file) = File::open(directory) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use slipway_model::Digest;
    use slipway_model::progress::{Log, NoEvents, Stream, Vertex};
    use std::sync::Arc;

    use super::*;

    fn vertex(name: &str, completed: bool, cached: bool) -> Event {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        Event::Vertex(Vertex {
            digest: Digest::of(name),
            name: name.to_owned(),
            inputs: vec![Digest::of("input")],
            started: Some(at),
            completed: completed.then_some(at),
            cached,
            error: None,
            progress_group: None,
        })
    }

    fn build(history: &History, id: &str, events: &[Event]) -> Recording {
        let recording = history.begin(id, RequestRecord::default()).unwrap();
        let sink = recording.sink(Arc::new(NoEvents));
        events.iter().for_each(|event| sink.emit(event.clone()));
        recording
    }

    #[test]
    fn what_was_said_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::of(directory.path());
        let log = Event::Log(Log {
            vertex: Digest::of("b"),
            stream: Stream::Stderr,
            data: b"\xff not text\n"[..].into(),
            timestamp: UNIX_EPOCH,
        });
        let said = [vertex("a", true, true), vertex("b", false, false), log, vertex("b", true, false)];
        build(&history, "one", &said).finish(Outcome::Completed, serde_json::Map::new());
        let record = history.find("one").unwrap();
        assert_eq!(record.outcome, Some(Outcome::Completed));
        assert_eq!(record.steps, Steps { total: 2, completed: 2, cached: 1, warnings: 0 });
        let read: Vec<String> = history.events("").unwrap().map(|event| format!("{event:?}")).collect();
        assert_eq!(read, said.map(|event| format!("{event:?}")));
    }

    #[test]
    fn builds_are_found_by_order_and_by_the_beginning_of_an_id() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::of(directory.path());
        assert!(history.find("").unwrap_err().message.contains("no records"));
        for (position, id) in ["abc1", "abc2", "xyz"].into_iter().enumerate() {
            build(&history, id, &[]).finish(Outcome::Failed("no".to_owned()), serde_json::Map::new());
            // The clock may not have moved between two builds of a test.
            let made =
                history.directories().unwrap().into_iter().find(|path| path.to_str().unwrap().ends_with(id));
            std::fs::rename(made.unwrap(), history.directory.join(format!("{position:013}-{id}"))).unwrap();
        }
        let id =
            |reference: &str| history.find(reference).map(|record| record.id).map_err(|error| error.message);
        assert_eq!(id(""), Ok("xyz".to_owned()));
        assert_eq!(id("^2"), Ok("abc1".to_owned()));
        assert_eq!(id("default/default/abc2"), Ok("abc2".to_owned()));
        assert_eq!(id("x"), Ok("xyz".to_owned()));
        assert!(id("abc").unwrap_err().contains("2 builds"));
        assert!(id("^3").is_err() && id("^x").is_err() && id("nothing").is_err());
        history.remove("abc").unwrap_err();
        history.remove("abc1").unwrap();
        assert_eq!(history.list().unwrap().len(), 2);
    }

    #[test]
    fn a_running_build_is_told_from_a_killed_one() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::of(directory.path());
        let recording = build(&history, "one", &[vertex("a", true, false)]);
        assert_eq!(history.find("one").unwrap().outcome, None);
        assert!(history.remove("one").unwrap_err().message.contains("is running"));
        drop(recording);
        assert!(matches!(history.find("one").unwrap().outcome, Some(Outcome::Failed(_))));
        assert_eq!(history.events("one").unwrap().count(), 1, "what it had said is there");
    }

    #[test]
    fn only_the_newest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::of(directory.path());
        let running = build(&history, "running", &[]);
        let path = history.directories().unwrap().remove(0);
        std::fs::rename(path, history.directory.join("0000000000000-running")).unwrap();
        let limits = HistoryLimits::default();
        for number in 0..limits.max_entries + 5 {
            build(&history, &format!("b{number:03}"), &[]).finish(Outcome::Completed, serde_json::Map::new());
        }
        history.trim(&limits);
        let left = history.list().unwrap();
        assert_eq!(left.len(), limits.max_entries + 1, "the one that runs is left, though it is the oldest");
        assert!(left.iter().any(|record| record.id == "running") && !left.iter().any(|r| r.id == "b004"));
        let young = HistoryLimits { max_entries: 3, max_age: Duration::from_secs(3600), max_bytes: None };
        history.trim(&young);
        assert_eq!(history.list().unwrap().len(), left.len(), "nothing is that old");
        history.trim(&HistoryLimits { max_age: Duration::ZERO, ..young });
        assert_eq!(history.list().unwrap().len(), 3 + 1);
        drop(running);
    }
}
