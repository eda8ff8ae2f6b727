//! Layers of a cache: from what a config says to what the store keeps, and back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use slipway_model::solve::Compression;
use slipway_model::{Descriptor, Diagnostic, Digest};
use slipway_store::{CommitInfo, DiffOptions, LayerBlob, LayerFormat, SnapshotId, SnapshotInfo};

use super::config::{self, CacheLayer, Layer, LayerAnnotations};
use crate::error::{Context as _, blocking};
use crate::exporters::image::media_type;
use crate::job::Job;

/// What a layer of a cache is to the store.
pub(super) fn to_store(layer: &Layer) -> (LayerBlob, CommitInfo) {
    let blob = LayerBlob { descriptor: layer.descriptor.clone(), diff_id: layer.diff_id };
    let info = CommitInfo {
        description: layer.description.clone(),
        created_at: Some(layer.created.unwrap_or(SystemTime::UNIX_EPOCH)),
        ..CommitInfo::default()
    };
    (blob, info)
}

/// How the layers of an export are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) compression: Compression,
    pub(super) level: Option<i32>,
    pub(super) oci: bool,
    pub(super) force: bool,
}

/// The layers of an export, each once; a layer is a blob over another one.
#[derive(Debug, Default)]
pub(super) struct LayerTable {
    layers: Vec<Layer>,
    known: HashMap<(Option<usize>, Digest), usize>,
}

impl LayerTable {
    /// Adds a chain, lowest first; returns the position of its top.
    pub(super) fn add<'a>(&mut self, chain: impl IntoIterator<Item = &'a Layer>) -> Option<usize> {
        let mut parent = None;
        for layer in chain {
            let key = (parent, layer.descriptor.digest);
            let position = *self.known.entry(key).or_insert_with(|| {
                self.layers.push(Layer { parent, ..layer.clone() });
                self.layers.len() - 1
            });
            parent = Some(position);
        }
        parent
    }

    pub(super) fn get(&self, position: usize) -> &Layer {
        &self.layers[position]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Lists the blobs, each once, as a manifest has them.
    pub(super) fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = std::collections::HashSet::new();
        let layers = self.layers.iter().filter(|layer| seen.insert(layer.descriptor.digest));
        layers
            .map(|layer| {
                let mut descriptor = layer.descriptor.clone();
                let annotations = [
                    (config::DIFF_ID, layer.diff_id.to_string()),
                    (config::CREATED, time(layer.created)),
                    (config::DESCRIPTION, layer.description.clone()),
                ];
                descriptor.annotations.extend(annotations.map(|(key, value)| (key.to_owned(), value)));
                descriptor
            })
            .collect()
    }

    /// Lists the layers as a config has them.
    pub(super) fn config(&self) -> Vec<CacheLayer> {
        let layer = |layer: &Layer| CacheLayer {
            blob: layer.descriptor.digest.to_string(),
            parent: layer.parent.map_or(-1, |parent| parent as i64),
            annotations: Some(LayerAnnotations {
                media_type: layer.descriptor.media_type.clone(),
                diff_id: layer.diff_id.to_string(),
                size: layer.descriptor.size as i64,
                created_at: time(layer.created),
            }),
        };
        self.layers.iter().map(layer).collect()
    }
}

/// Writes a time as the config has it; none is that of Go.
pub(super) fn time(time: Option<SystemTime>) -> String {
    time.and_then(|time| jiff::Timestamp::try_from(time).ok())
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

/// Makes blobs of the layers of snapshots, where there are none yet; chains by their top snapshot.
pub(super) async fn of_snapshots(
    job: &Arc<Job>,
    tops: Vec<SnapshotId>,
    format: Format,
    step: Digest,
) -> Result<HashMap<SnapshotId, Vec<Layer>>, Diagnostic> {
    let snapshots = job.engine.store.snapshots();
    let mut chains: HashMap<SnapshotId, Vec<SnapshotInfo>> = HashMap::new();
    for top in tops {
        chains.insert(top, snapshots.chain_info(top).diagnose()?);
    }
    if format.force {
        let imported = chains.values().flatten().filter(|info| info.imported);
        let blobs =
            imported.map(|info| snapshots.blobs(info.id)).collect::<Result<Vec<_>, _>>().diagnose()?;
        let blobs: Vec<Descriptor> =
            blobs.into_iter().filter_map(|blobs| Some(blobs.first()?.descriptor.clone())).collect();
        job.blobs.ensure(&blobs, step).await?;
    }
    let job = job.clone();
    blocking(move || {
        let format = LayerFormat {
            compression: format.compression,
            level: format.level,
            oci: format.oci,
            force: format.force,
            threads: None,
        };
        let mut made: HashMap<SnapshotId, Layer> = HashMap::new();
        for info in chains.values().flatten() {
            if made.contains_key(&info.id) {
                continue;
            }
            let blob = snapshots
                .export_layer(info.id, &format, &DiffOptions::default(), &job.lease)
                .context(|| "cannot make a layer of the cache".to_owned())?;
            let mut descriptor = blob.descriptor;
            descriptor.media_type = media_type(&descriptor.media_type, format.oci);
            descriptor.annotations.clear();
            let layer = Layer {
                descriptor,
                diff_id: blob.diff_id,
                created: Some(info.created_at),
                description: info.description.clone(),
                parent: None,
            };
            made.insert(info.id, layer);
        }
        let chain = |infos: Vec<SnapshotInfo>| infos.iter().map(|info| made[&info.id].clone()).collect();
        Ok(chains.into_iter().map(|(top, infos)| (top, chain(infos))).collect())
    })
    .await
}
