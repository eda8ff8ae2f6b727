//! Writing a cache: what the build looked at, with the results that the mode asks for.
//!
//! What is written depends on keys and layers only: a build that finds everything in the cache that it exports
//! to writes the same bytes again, and sends nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use slipway_model::{Descriptor, Diagnostic, Digest};
use slipway_store::{SnapshotId, chain_id};

use super::config::{
    self, CONFIG_TYPE, CacheConfig, CacheInput, CacheRecord, CacheResult, Layer, MAX_KEYS, OwnRecord, Top,
};
use super::layers::{Format, LayerTable, of_snapshots, time};
use super::options::{ExportTo, Mode};
use super::{RemoteCache, Used, target};
use crate::cache::stored_trees;
use crate::error::Context as _;
use crate::exporters::assemble::Document;
use crate::job::Job;
use crate::progress::Step;
use crate::tree::Tree;

/// A record on its way out.
pub(super) struct Entry {
    pub(super) canonical: Digest,
    /// Other keys that lead here.
    pub(super) keys: BTreeSet<Digest>,
    /// Canonical keys of the inputs; `None` is a directory of the client.
    pub(super) inputs: Vec<Option<Digest>>,
    /// Of the result, by index; `None` is one that is not there.
    pub(super) outputs: Vec<Option<Output>>,
}

/// An output of a step.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Empty,
    Snapshot(SnapshotId),
    /// A chain that was imported and never used here, lowest first.
    Imported(Vec<Layer>),
}

/// Exports the cache of a build to all places that were asked for; `results` are what was built.
///
/// Returns the descriptor of the last manifest that was written.
pub(crate) async fn export(job: &Arc<Job>, results: &[Tree]) -> Result<Option<Descriptor>, Diagnostic> {
    let mut written = None;
    for to in job.remote.requested().map(|requested| requested.exports.as_slice()).unwrap_or_default() {
        let step = job.progress.step(to.name());
        match export_one(job, results, to, &step).await {
            Ok(descriptor) => {
                step.done();
                written = descriptor.or(written);
            }
            Err(error) => {
                step.failed(&error);
                if !to.ignore_error {
                    return Err(error);
                }
            }
        }
    }
    Ok(written)
}

async fn export_one(
    job: &Arc<Job>,
    results: &[Tree],
    to: &ExportTo,
    step: &Step,
) -> Result<Option<Descriptor>, Diagnostic> {
    let preparing = job.progress.counter(step.digest(), "preparing build cache for export", 0);
    let mut entries = entries(job)?;
    keep_available(job, &mut entries).await;
    let tops = entries.iter().flat_map(|entry| entry.outputs.iter().flatten());
    let results: Vec<SnapshotId> = results.iter().filter_map(Tree::snapshot).collect();
    let mut wanted: Vec<SnapshotId> = results.clone();
    let in_results = Kept::new(job, &results)?;
    wanted.extend(tops.filter_map(|output| match output {
        Output::Snapshot(id) if to.mode == Mode::Max || in_results.snapshots.contains(id) => Some(*id),
        _ => None,
    }));
    let format =
        Format { compression: to.compression, level: to.level, oci: to.oci, force: to.force_compression };
    let chains = of_snapshots(job, wanted, format, step.digest()).await?;
    let result_chains: HashSet<Digest> =
        results.iter().filter_map(|id| chains.get(id)).flat_map(|chain| chain_ids(chain)).collect();
    let keep = |output: &&Output| match output {
        _ if to.mode == Mode::Max => true,
        Output::Empty => true,
        Output::Snapshot(id) => in_results.snapshots.contains(id),
        Output::Imported(chain) => chain_ids(chain).last().is_some_and(|id| result_chains.contains(id)),
    };
    let mut layers = LayerTable::default();
    let mut config = CacheConfig::default();
    let positions: HashMap<Digest, usize> =
        entries.iter().enumerate().map(|(position, entry)| (entry.canonical, position)).collect();
    for entry in &entries {
        let top = |output: &Option<Output>| match output.as_ref().filter(keep) {
            None => Top::Absent,
            Some(Output::Empty) => Top::Empty,
            Some(Output::Snapshot(id)) => top(chains.get(id).and_then(|chain| layers.add(chain))),
            Some(Output::Imported(chain)) => top(layers.add(chain)),
        };
        let tops = entry.outputs.iter().map(top).collect();
        config.records.push(record(entry, tops, &positions, &|top| layers.get(top).created));
    }
    drop(preparing);
    if layers.is_empty() {
        job.progress.step("skipping cache export for empty result").done();
        return Ok(None);
    }
    config.layers = layers.config();
    for blob in layers.blobs() {
        if let Some(source) = job.remote.source_of(&blob.digest) {
            job.blobs.remember(&blob.digest, &source);
        }
    }
    let text = serde_json::to_vec(&config).map_err(|error| crate::error::internal(error.to_string()))?;
    let config = Document { descriptor: Descriptor::of(CONFIG_TYPE, &text), bytes: text };
    target::Parts::new(to, layers.blobs(), config)?.write(job, to, step).await
}

/// What a chain of layers is in the config; one without layers is empty.
fn top(position: Option<usize>) -> Top {
    position.map_or(Top::Empty, Top::Layer)
}

/// Makes a record of the config.
pub(super) fn record(
    entry: &Entry,
    tops: Vec<Top>,
    positions: &HashMap<Digest, usize>,
    created: &dyn Fn(usize) -> Option<std::time::SystemTime>,
) -> CacheRecord {
    let inputs: Option<Vec<Vec<CacheInput>>> = entry
        .inputs
        .iter()
        .map(|input| {
            let link = *positions.get(input.as_ref()?)? as i64;
            Some(vec![CacheInput { selector: String::new(), link }])
        })
        .collect();
    // BuildKit knows one result of a record; that of a step is its first output.
    let first = tops.iter().find_map(|top| top.layer());
    let outputs = Some(tops).filter(|tops| tops.iter().any(|top| *top != Top::Absent));
    let result = first.map(|top| CacheResult { layer: top as i64, created_at: time(created(top)) });
    CacheRecord {
        layers: result.into_iter().collect(),
        chains: Vec::new(),
        digest: entry.canonical.to_string(),
        inputs: inputs.unwrap_or_default(),
        slipway: Some(OwnRecord { keys: entry.keys.iter().copied().collect(), outputs }),
    }
}

/// Lists what the build looked at, in the order of canonical keys.
pub(super) fn entries(job: &Job) -> Result<Vec<Entry>, Diagnostic> {
    let used = job.remote.used.lock().clone();
    let mut entries: BTreeMap<Digest, Entry> = BTreeMap::new();
    for vertex in used.values() {
        let Some(mut entry) = vertex.entry(&used) else { continue };
        if let Some(known) = entries.get_mut(&entry.canonical) {
            known.keys.append(&mut entry.keys);
            continue;
        }
        if !vertex.omitted {
            entry.outputs = outputs(job, &entry.canonical)?;
        }
        entries.insert(entry.canonical, entry);
    }
    let imports = job.remote.imports();
    for entry in entries.values_mut() {
        // Content that nobody had to look at in this build had a key in the one that was imported.
        let imported = imports.iter().flat_map(|import| import.keys(&entry.canonical));
        let room = MAX_KEYS.saturating_sub(entry.keys.len());
        entry.keys.extend(imported.take(room).copied());
        entry.keys.remove(&entry.canonical);
    }
    Ok(entries.into_values().collect())
}

impl Used {
    /// Makes a record of a vertex; none if its keys mean nothing in another build.
    fn entry(&self, used: &BTreeMap<Digest, Self>) -> Option<Entry> {
        if self.local {
            return None;
        }
        let inputs: Vec<&Self> = self.inputs.iter().filter_map(|input| used.get(input)).collect();
        let portable = inputs.len() == self.inputs.len() && inputs.iter().all(|input| !input.local);
        let keys = &self.keys;
        if !portable && keys.content.is_none() {
            return None;
        }
        Some(Entry {
            canonical: keys.canonical,
            keys: keys.content.into_iter().chain(Some(keys.definition).filter(|_| portable)).collect(),
            inputs: inputs.iter().map(|input| Some(input.keys.canonical).filter(|_| !input.local)).collect(),
            outputs: Vec::new(),
        })
    }
}

/// Finds a result in the local state, or in an import.
fn outputs(job: &Job, canonical: &Digest) -> Result<Vec<Option<Output>>, Diagnostic> {
    let record = job.engine.store.cache().acquire(canonical, &job.lease).diagnose()?;
    if let Some(trees) = record.and_then(|record| stored_trees(&record)) {
        let output = |tree: Option<Tree>| match tree? {
            Tree::Empty => Some(Output::Empty),
            Tree::Snapshot(id) => Some(Output::Snapshot(id)),
            Tree::Local(_) => None,
        };
        return Ok(trees.into_iter().map(output).collect());
    }
    let imports = job.remote.imports();
    let mut imported = imports.iter().map(|import| (import, import.outputs(canonical)));
    let Some((import, found)) = imported.find(|(_, outputs)| !outputs.is_empty()) else {
        return Ok(Vec::new());
    };
    let output = |output: config::Output| match output {
        config::Output::Empty => Output::Empty,
        config::Output::Layer(top) => Output::Imported(import.chain(top).into_iter().cloned().collect()),
    };
    Ok(found.iter().map(|found| found.map(output)).collect())
}

/// Leaves out outputs whose layers are gone from where they were.
async fn keep_available(job: &Job, entries: &mut [Entry]) {
    for output in entries.iter_mut().flat_map(|entry| &mut entry.outputs) {
        let blobs: Vec<Digest> = match output {
            None | Some(Output::Empty) => continue,
            Some(Output::Snapshot(id)) => job.remote.doubtful(job, &[*id]),
            Some(Output::Imported(chain)) => chain.iter().map(|layer| layer.descriptor.digest).collect(),
        };
        for blob in &blobs {
            if let Some(source) = job.remote.source_of(blob) {
                job.blobs.remember(blob, &source);
            }
        }
        if !job.remote.all_available(job, blobs).await {
            *output = None;
        }
    }
}

impl RemoteCache {
    /// Returns the place of an imported blob.
    fn source_of(&self, blob: &Digest) -> Option<super::Source> {
        self.imports().iter().find(|import| import.has_blob(blob)).map(|import| import.source().clone())
    }
}

/// The snapshots that results are made of.
struct Kept {
    snapshots: HashSet<SnapshotId>,
}

impl Kept {
    fn new(job: &Job, results: &[SnapshotId]) -> Result<Self, Diagnostic> {
        let mut snapshots = HashSet::new();
        for result in results {
            snapshots.extend(job.engine.store.snapshots().chain(*result).diagnose()?);
        }
        Ok(Self { snapshots })
    }
}

/// The chain ids of a chain, lowest first.
pub(super) fn chain_ids(chain: &[Layer]) -> Vec<Digest> {
    let mut ids: Vec<Digest> = Vec::with_capacity(chain.len());
    for layer in chain {
        ids.push(chain_id(ids.last(), &layer.diff_id));
    }
    ids
}
