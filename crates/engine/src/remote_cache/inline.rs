//! The cache in an image: records in its config whose layers are the image's own.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use slipway_model::{Diagnostic, Digest, ImageConfig};
use slipway_store::{SnapshotId, chain_id};

use super::config::{CacheRecord, INLINE, Top};
use super::export::{Entry, Output, chain_ids, entries, record};
use crate::exporters::assemble::Layer;
use crate::job::Job;

/// Writes the cache into the config of an image, if that was asked for; `chain` are the snapshots of its layers.
pub(crate) fn embed(
    job: &Job,
    config: &mut ImageConfig,
    chain: &[SnapshotId],
    layers: &[Layer],
) -> Result<(), Diagnostic> {
    if !job.remote.requested().is_some_and(|requested| requested.inline) {
        return Ok(());
    }
    let step = job.progress.step("preparing layers for inline cache");
    let records = records(job, chain, layers);
    let records = step.end(records)?;
    if records.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(&records).map_err(|error| crate::error::internal(error.to_string()))?;
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    config.extra.insert(INLINE.to_owned(), text.into());
    Ok(())
}

fn records(job: &Job, chain: &[SnapshotId], layers: &[Layer]) -> Result<Vec<CacheRecord>, Diagnostic> {
    let mut ids: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        ids.push(chain_id(ids.last(), &layer.diff_id));
    }
    // Where an output is in the image's layers.
    let layer = |position: Option<usize>| position.map_or(Top::Absent, Top::Layer);
    let top = |output: &Option<Output>| match output {
        None => Top::Absent,
        Some(Output::Empty) => Top::Empty,
        Some(Output::Snapshot(id)) => layer(chain.iter().position(|known| known == id)),
        Some(Output::Imported(chain)) => {
            let top = chain_ids(chain).last().copied();
            layer(ids.iter().position(|known| Some(*known) == top))
        }
    };
    let entries = entries(job)?;
    let tops: HashMap<Digest, Vec<Top>> =
        entries.iter().map(|entry| (entry.canonical, entry.outputs.iter().map(top).collect())).collect();
    // Of the steps of other platforms and stages, those that results here depend on.
    let by_key: HashMap<Digest, &Entry> = entries.iter().map(|entry| (entry.canonical, entry)).collect();
    let has_layers = |tops: &Vec<Top>| tops.iter().any(|top| top.layer().is_some());
    let mut queue: Vec<Digest> =
        tops.iter().filter(|(_, tops)| has_layers(tops)).map(|(canonical, _)| *canonical).collect();
    let mut needed = BTreeSet::new();
    while let Some(canonical) = queue.pop() {
        if needed.insert(canonical)
            && let Some(entry) = by_key.get(&canonical)
        {
            queue.extend(entry.inputs.iter().flatten());
        }
    }
    let kept: Vec<&Entry> = entries.iter().filter(|entry| needed.contains(&entry.canonical)).collect();
    let positions = kept.iter().enumerate().map(|(position, entry)| (entry.canonical, position)).collect();
    let created = |top: usize| layers.get(top).map(|layer| layer.created);
    let tops = |entry: &Entry| tops.get(&entry.canonical).cloned().unwrap_or_default();
    Ok(kept.iter().map(|entry| record(entry, tops(entry), &positions, &created)).collect())
}
