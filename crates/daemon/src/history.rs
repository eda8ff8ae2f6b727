//! What was built: a record for each build, kept in a directory of the state, told to who listens.

mod filter;
mod trace;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use prost::Message as _;
use slipway_engine::RecordedProvenance;
use slipway_engine::config::HistoryLimits;
use slipway_model::Digest;
use slipway_model::progress::Event;
use tokio::sync::broadcast;
use tonic::{Code, Status};

use crate::control::solve::Given;
use crate::history::filter::RecordFilter;
use crate::wire::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, Descriptor,
    StatusResponse, UpdateBuildHistoryRequest,
};
use crate::wire::extra::ControlSolveRequest;
use crate::wire::{RpcStatus, status, timestamp};

/// How many events a slow listener may be behind.
const BEHIND: usize = 256;

/// What happened in a build: messages, each with its length before it.
const LOGS: &str = "application/vnd.buildkit.status.v0";
/// The whole of an error; the reference spells it so.
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";

pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The annotation of an attestation.
pub(crate) const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// The records of a daemon.
#[derive(Clone)]
pub(crate) struct History {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    /// How many records are kept that nobody pinned.
    limits: HistoryLimits,
    state: Mutex<State>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

#[derive(Default)]
struct State {
    active: HashMap<String, BuildHistoryRecord>,
    done: BTreeMap<String, BuildHistoryRecord>,
}

/// A build that is under way; one that is dropped unfinished was cancelled.
pub(crate) struct Recording {
    history: History,
    record: Option<BuildHistoryRecord>,
    began: SystemTime,
}

impl History {
    /// Reads the records of a state directory; what cannot be read is left out.
    pub(crate) fn open(root: &Path, limits: HistoryLimits) -> Self {
        let directory = root.join("daemon-history");
        let mut done = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            if let Ok(record) = BuildHistoryRecord::decode(bytes.as_slice())
                && !record.r#ref.is_empty()
            {
                done.insert(record.r#ref.clone(), record);
            }
        }
        let (events, _) = broadcast::channel(BEHIND);
        let state = Mutex::new(State { done, ..State::default() });
        Self { inner: Arc::new(Inner { directory, limits, state, events }) }
    }

    /// Begins the record of a build.
    pub(crate) fn start(&self, request: &ControlSolveRequest) -> Recording {
        let began = SystemTime::now();
        let record = BuildHistoryRecord {
            r#ref: request.reference.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: request.frontend_attrs.clone().into_iter().collect(),
            exporters: request.exporters.clone(),
            created_at: Some(timestamp(began)),
            ..BuildHistoryRecord::default()
        };
        self.inner.state.lock().active.insert(record.r#ref.clone(), record.clone());
        self.tell(BuildHistoryEventType::Started, record.clone());
        Recording { history: self.clone(), record: Some(record), began }
    }

    fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // Nobody may be listening.
        let _ = self.inner.events.send(BuildHistoryEvent { r#type: kind as i32, record: Some(record) });
    }

    fn complete(&self, record: BuildHistoryRecord) {
        {
            let mut state = self.inner.state.lock();
            state.active.remove(&record.r#ref);
            state.done.insert(record.r#ref.clone(), record.clone());
        }
        self.keep(&record);
        self.trim();
        self.tell(BuildHistoryEventType::Complete, record);
    }

    /// Removes what is over the limits.
    fn trim(&self) {
        let dropped = oldest(&mut self.inner.state.lock().done, &self.inner.limits);
        for old in dropped {
            self.forget(&old);
            self.tell(BuildHistoryEventType::Deleted, old);
        }
    }

    /// Returns where a blob of a record is.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.inner.directory.join("blobs").join(digest.hex())
    }

    /// Lists the blobs that records name.
    pub(crate) fn blobs(&self) -> Vec<(Digest, u64)> {
        let state = self.inner.state.lock();
        let named = state.done.values().flat_map(named);
        let blobs = named.filter_map(|blob| Some((blob.digest.parse().ok()?, blob.size as u64)));
        blobs.collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// Keeps a blob of a record; `None` if that is not possible.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Option<Descriptor> {
        let digest = Digest::of(bytes);
        let path = self.blob(&digest);
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            let new = path.with_extension("new");
            std::fs::write(&new, bytes)?;
            std::fs::rename(new, &path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "could not keep a part of a build record");
            return None;
        }
        Some(Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size: bytes.len() as i64,
            ..Descriptor::default()
        })
    }

    /// Adds to a record how a result was made.
    fn attach(&self, record: &mut BuildHistoryRecord, provenance: &RecordedProvenance) {
        let Some(mut blob) = self.put(IN_TOTO, &provenance.predicate) else { return };
        blob.annotations.insert(PREDICATE_TYPE.to_owned(), provenance.predicate_type.to_owned());
        let info = match provenance.id.as_str() {
            "" => record.result.get_or_insert_default(),
            id => record.results.entry(id.to_owned()).or_default(),
        };
        info.attestations.push(blob);
    }

    /// Removes a record's file and the blobs that no other record names.
    fn forget(&self, record: &BuildHistoryRecord) {
        let _ = std::fs::remove_file(self.file(&record.r#ref));
        let kept: HashSet<Digest> = self.blobs().into_iter().map(|(digest, _)| digest).collect();
        for blob in named(record) {
            if let Ok(digest) = blob.digest.parse::<Digest>()
                && !kept.contains(&digest)
            {
                let _ = std::fs::remove_file(self.blob(&digest));
            }
        }
    }

    /// Reads what happened in a build that has ended; `None` if it is not known.
    pub(crate) fn happened(&self, id: &str) -> Option<Vec<StatusResponse>> {
        let logs = self.inner.state.lock().done.get(id)?.logs.clone()?;
        let bytes = std::fs::read(self.blob(&logs.digest.parse().ok()?)).ok()?;
        let mut rest = bytes.as_slice();
        let mut responses = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            responses.push(StatusResponse::decode(tail.get(..length)?).ok()?);
            rest = &tail[length..];
        }
        Some(responses)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.inner.directory.join(Digest::of(id.as_bytes()).hex())
    }

    /// Writes a record; one that cannot be kept is only missed after the daemon's next start.
    fn keep(&self, record: &BuildHistoryRecord) {
        let write = || {
            std::fs::create_dir_all(&self.inner.directory)?;
            let file = self.file(&record.r#ref);
            let new = file.with_extension("new");
            std::fs::write(&new, record.encode_to_vec())?;
            std::fs::rename(new, file)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "could not keep a build record");
        }
    }

    /// Tells of the builds under way, those that have ended, and unless told not to, of what comes.
    pub(crate) fn listen(
        &self,
        request: BuildHistoryRequest,
    ) -> Result<impl Stream<Item = Result<BuildHistoryEvent, Status>> + Send + 'static, Status> {
        let filter = RecordFilter::parse(&request.filter, SystemTime::now())?;
        self.trim();
        let receiver = self.inner.events.subscribe();
        let id = request.r#ref.clone();
        let wanted = |record: &BuildHistoryRecord| id.is_empty() || id == record.r#ref;
        let mut now = Vec::new();
        {
            let state = self.inner.state.lock();
            let event = |kind: BuildHistoryEventType, record: &BuildHistoryRecord| BuildHistoryEvent {
                r#type: kind as i32,
                record: Some(record.clone()),
            };
            let active = state.active.values().filter(|record| wanted(record));
            now.extend(active.map(|record| event(BuildHistoryEventType::Started, record)));
            if !request.active_only {
                let mut done: Vec<&BuildHistoryRecord> =
                    state.done.values().filter(|record| wanted(record)).collect();
                done.retain(|record| filter.matches(record));
                let created = |record: &BuildHistoryRecord| {
                    record.created_at.as_ref().map(|time| (time.seconds, time.nanos))
                };
                if request.limit > 0 {
                    done.sort_by_key(|record| std::cmp::Reverse(created(record)));
                    done.truncate(request.limit as usize);
                }
                now.extend(done.into_iter().map(|record| event(BuildHistoryEventType::Complete, record)));
            }
        }
        let later = stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((event, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let exit = request.early_exit;
        let later = later.filter(move |event| {
            let known = event.record.as_ref().is_some_and(|record| id.is_empty() || record.r#ref == id);
            std::future::ready(known)
        });
        Ok(stream::iter(now).chain(later.take(if exit { 0 } else { usize::MAX })).map(Ok))
    }

    /// Pins or removes a record.
    pub(crate) fn update(&self, request: &UpdateBuildHistoryRequest) -> Result<(), Status> {
        let id = &request.r#ref;
        let missing = || Status::not_found(format!("failed to retrieve bucket for record: {id}"));
        if request.delete {
            let record = self.inner.state.lock().done.remove(id).ok_or_else(missing)?;
            self.forget(&record);
            self.tell(BuildHistoryEventType::Deleted, record);
            return Ok(());
        }
        if request.finalize {
            return Ok(());
        }
        let record = {
            let mut state = self.inner.state.lock();
            let record = state.done.get_mut(id).ok_or_else(missing)?;
            record.pinned = request.pinned;
            record.generation += 1;
            record.clone()
        };
        self.keep(&record);
        self.tell(BuildHistoryEventType::Complete, record);
        Ok(())
    }
}

/// Lists the blobs that a record names.
fn named(record: &BuildHistoryRecord) -> impl Iterator<Item = &Descriptor> {
    let results = record.result.iter().chain(record.results.values());
    let attestations = results.flat_map(|result| &result.attestations);
    [&record.logs, &record.trace, &record.external_error].into_iter().flatten().chain(attestations)
}

/// Takes out what is over the limits: neither among the newest nor young, and nobody pinned it.
fn oldest(
    done: &mut BTreeMap<String, BuildHistoryRecord>,
    limits: &HistoryLimits,
) -> Vec<BuildHistoryRecord> {
    let ended = |record: &BuildHistoryRecord| record.completed_at.as_ref().map(|at| (at.seconds, at.nanos));
    let mut loose: Vec<&BuildHistoryRecord> = done.values().filter(|record| !record.pinned).collect();
    if loose.len() <= limits.max_entries {
        return Vec::new();
    }
    loose.sort_by_key(|record| std::cmp::Reverse(ended(record)));
    let young = SystemTime::now().checked_sub(limits.max_age).map(timestamp).map(|at| (at.seconds, at.nanos));
    let old = loose.into_iter().skip(limits.max_entries).filter(|record| ended(record) <= young);
    let old: Vec<String> = old.map(|record| record.r#ref.clone()).collect();
    old.iter().filter_map(|id| done.remove(id)).collect()
}

impl Recording {
    /// Ends the record with what the build gave.
    pub(crate) fn finish(mut self, events: &[Event], result: Result<&Given, &Status>) {
        let Some(mut record) = self.record.take() else { return };
        count(&mut record, events);
        record.logs = self.history.put(LOGS, &encode_events(events));
        let ended = SystemTime::now();
        record.completed_at = Some(timestamp(ended));
        let spans = trace::spans(&record.r#ref, self.began, ended, events);
        record.trace = self.history.put(trace::TRACE, &spans);
        match result {
            Ok(given) => {
                record.exporter_response = given.response.clone().into_iter().collect();
                name_images(&mut record, &given.images);
                for provenance in &given.provenance {
                    self.history.attach(&mut record, provenance);
                }
            }
            Err(status) => {
                let whole = rpc(status);
                record.external_error = self.history.put(ERROR, &whole.encode_to_vec());
                record.error = Some(RpcStatus { details: Vec::new(), ..whole });
            }
        }
        self.history.complete(record);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.completed_at = Some(timestamp(SystemTime::now()));
            record.error = Some(rpc(&Status::cancelled("context canceled")));
            self.history.complete(record);
        }
    }
}

fn rpc(status: &Status) -> RpcStatus {
    match RpcStatus::decode(status.details()) {
        Ok(decoded) if decoded.code != Code::Ok as i32 => decoded,
        _ => RpcStatus {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    }
}

/// Encodes what happened as BuildKit keeps it: messages of a good size, each with its length before it.
pub fn encode_events(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut response = StatusResponse::default();
    let mut flush = |response: &mut StatusResponse| {
        let message = std::mem::take(response).encode_to_vec();
        if !message.is_empty() {
            bytes.extend_from_slice(&(message.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&message);
        }
    };
    for event in events {
        status::add(&mut response, event);
        if status::is_full(&response) {
            flush(&mut response);
        }
    }
    flush(&mut response);
    bytes
}

/// Adds the images that the exporters made.
fn name_images(record: &mut BuildHistoryRecord, images: &BTreeMap<usize, slipway_model::Descriptor>) {
    let descriptor = |image: &slipway_model::Descriptor| Descriptor {
        media_type: image.media_type.clone(),
        digest: image.digest.to_string(),
        size: image.size as i64,
        annotations: image.annotations.clone().into_iter().collect(),
    };
    let Some(first) = images.values().next() else { return };
    let info = record.result.get_or_insert_default();
    info.result_deprecated = Some(descriptor(first));
    info.results = images.iter().map(|(index, image)| (*index as i64, descriptor(image))).collect();
}

/// Counts steps by what was last said of each.
fn count(record: &mut BuildHistoryRecord, events: &[Event]) {
    let mut vertices: HashMap<Digest, (bool, bool)> = HashMap::new();
    let mut warnings = HashSet::new();
    for event in events {
        match event {
            Event::Vertex(vertex) => {
                let entry = vertices.entry(vertex.digest).or_default();
                entry.0 |= vertex.completed.is_some() && vertex.error.is_none();
                entry.1 |= vertex.cached;
            }
            Event::Warning(warning) => drop(warnings.insert(warning.short.clone())),
            _ => {}
        }
    }
    record.num_total_steps = vertices.len() as i32;
    record.num_completed_steps = vertices.values().filter(|(completed, _)| *completed).count() as i32;
    record.num_cached_steps = vertices.values().filter(|(_, cached)| *cached).count() as i32;
    record.num_warnings = warnings.len() as i32;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> ControlSolveRequest {
        ControlSolveRequest { reference: id.to_owned(), ..ControlSolveRequest::default() }
    }

    #[tokio::test]
    async fn records_are_kept_and_pinned() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::open(directory.path(), HistoryLimits::default());
        let image = slipway_model::Descriptor::new("type", Digest::of("image"), 5);
        let images = BTreeMap::from([(2, image)]);
        let given = Given { response: BTreeMap::new(), images, provenance: Vec::new() };
        history.start(&request("one")).finish(&[], Ok(&given));
        drop(history.start(&request("two")));
        let update = UpdateBuildHistoryRequest { r#ref: "one".into(), pinned: true, ..Default::default() };
        history.update(&update).unwrap();
        let again = History::open(directory.path(), HistoryLimits::default());
        let all = BuildHistoryRequest { early_exit: true, ..BuildHistoryRequest::default() };
        let events: Vec<_> = again.listen(all).unwrap().map(|event| event.unwrap()).collect().await;
        let records: Vec<_> = events.into_iter().filter_map(|event| event.record).collect();
        assert_eq!(records.len(), 2);
        assert!(records[0].pinned && records[0].error.is_none());
        let made = records[0].result.clone().unwrap();
        assert_eq!(made.results[&2].digest, Digest::of("image").to_string());
        assert_eq!(made.result_deprecated.as_ref(), made.results.get(&2));
        assert_eq!(records[1].error.as_ref().map(|error| error.code), Some(Code::Cancelled as i32));
        let gone = UpdateBuildHistoryRequest { r#ref: "x".into(), delete: true, ..Default::default() };
        assert_eq!(again.update(&gone).unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn records_stay_that_are_new_or_young_or_pinned() {
        let now = SystemTime::now();
        let record = |id: &str, hours: u64, pinned: bool| BuildHistoryRecord {
            r#ref: id.to_owned(),
            completed_at: Some(timestamp(now - std::time::Duration::from_secs(hours * 3600))),
            pinned,
            ..BuildHistoryRecord::default()
        };
        let records =
            [record("a", 9, true), record("b", 8, false), record("c", 3, false), record("d", 1, false)];
        let dropped = |max_entries: usize, hours: u64| {
            let mut done = records.iter().map(|record| (record.r#ref.clone(), record.clone())).collect();
            let max_age = std::time::Duration::from_secs(hours * 3600);
            let gone = oldest(&mut done, &HistoryLimits { max_entries, max_age, max_bytes: None });
            assert_eq!(done.len() + gone.len(), records.len());
            gone.into_iter().map(|record| record.r#ref).collect::<Vec<_>>()
        };
        assert_eq!(dropped(1, 0), ["c", "b"]);
        assert_eq!(dropped(1, 5), ["b"], "what is young stays, though there are many");
        assert_eq!(dropped(3, 0), Vec::<String>::new(), "the pinned one does not count");
        assert_eq!(dropped(0, 2), ["c", "b"]);
    }
}
