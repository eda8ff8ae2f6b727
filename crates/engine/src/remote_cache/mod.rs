//! The cache in other places than the local state: `--cache-from`, `--cache-to`, and the cache in an image.
//!
//! An import is a set of keys and of layers that results are made of; it is asked after the local state, in the
//! order of the flags. A hit makes the layers known as those of a base image are: their blobs are fetched when
//! somebody needs their bytes, or never. So that a hit can be relied on, it is checked first that the blobs
//! are still there. What was hit becomes part of the local state.
//!
//! An import that cannot be used is told of and passed over: a cache never fails a build. Its blobs are
//! checked against their digests when they come. Whoever can write to a cache decides what steps result in, as
//! in any other builder; import only what you trust.
//!
//! An export holds the keys of all steps that were looked at, and the results that the mode asks for.

mod bucket;
mod config;
mod export;
mod import;
mod inline;
mod join;
mod layers;
mod options;
mod target;
mod union;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use slipway_model::llb::pb;
use slipway_model::solve::{CacheOptions, CacheSpec};
use slipway_model::{Diagnostic, Digest};
use slipway_solver::{Stored, VertexKeys};
use slipway_store::{CacheTable, SnapshotId};
use tokio::sync::OnceCell;

use crate::blobs::BlobSource;
use crate::cache::has_all as has;
use crate::error::Context as _;
use crate::job::Job;
use crate::ops::VertexOperation;
use crate::tree::{Tree, TreeRecord};

pub(crate) use bucket::{Bucket, BucketSpec};
use config::Output;
pub(crate) use export::export;
pub(crate) use import::Import;
pub(crate) use inline::embed;
pub use join::JointCache;
pub use options::IN_SESSION;
use options::ImportFrom;
pub(crate) use options::Requested;
pub use target::list_cache;

/// The remote caches of one build.
#[derive(Default)]
pub(crate) struct RemoteCache {
    requested: OnceLock<Requested>,
    /// What is not here is as good as gone.
    distrust: OnceLock<()>,
    /// Where caches come from.
    wanted: Mutex<Vec<ImportFrom>>,
    /// Those of them that are read. Held while others are: nobody looks anything up meanwhile.
    read: tokio::sync::Mutex<Vec<ImportFrom>>,
    imports: RwLock<Arc<[Import]>>,
    /// By vertex.
    used: Mutex<BTreeMap<Digest, Used>>,
    /// Keys that were found in an import, and what they stand for.
    links: Mutex<Vec<(Digest, Digest)>>,
    /// Whether blobs can be had.
    available: Mutex<HashMap<Digest, Arc<OnceCell<bool>>>>,
}

/// A vertex that the build looked at.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    keys: VertexKeys,
    /// Vertices.
    inputs: Vec<Digest>,
    /// A directory of the client: its key is another in every build.
    local: bool,
    /// The definition wants no result of it in caches.
    omitted: bool,
}

impl RemoteCache {
    /// Says where caches come from, in addition to what was said before, and go to: there the first call counts.
    pub(crate) fn request(&self, options: &CacheOptions, inline: bool) -> Result<(), Diagnostic> {
        let (requested, imports) = Requested::parse(options, inline)?;
        let _ = self.requested.set(requested);
        self.want(imports);
        Ok(())
    }

    /// Says of further places that caches come from them.
    pub(crate) fn request_imports(&self, imports: &[CacheSpec]) -> Result<(), Diagnostic> {
        let options = CacheOptions { imports: imports.to_vec(), exports: Vec::new() };
        let (_, imports) = Requested::parse(&options, false)?;
        self.want(imports);
        Ok(())
    }

    fn want(&self, imports: Vec<ImportFrom>) {
        let mut wanted = self.wanted.lock();
        for import in imports {
            if !wanted.contains(&import) {
                wanted.push(import);
            }
        }
    }

    /// Uses no layer that is known from a cache and not here: one of them could not be had when it was needed.
    pub(crate) fn distrust(&self) {
        let _ = self.distrust.set(());
    }

    pub(crate) fn requested(&self) -> Option<&Requested> {
        self.requested.get()
    }

    /// Tells whether the build's keys are to be remembered for an export.
    fn exports(&self) -> bool {
        self.requested().is_some_and(|requested| requested.inline || !requested.exports.is_empty())
    }

    /// Tells whether a cache is exported besides the image.
    pub(crate) fn exports_apart(&self) -> bool {
        self.requested().is_some_and(|requested| !requested.exports.is_empty())
    }

    /// Imports what is to be imported, each once.
    pub(crate) async fn ready(&self, job: &Job) {
        let mut known = self.read.lock().await;
        let unread = |place: &&ImportFrom| !known.contains(place);
        let places: Vec<ImportFrom> = self.wanted.lock().iter().filter(unread).cloned().collect();
        if places.is_empty() {
            return;
        }
        // Boxed to keep the types of the futures around it small.
        let all: BoxFuture<'_, Vec<Import>> = Box::pin(import::all(job, &places));
        let read = all.await;
        let mut imports = self.imports.write();
        *imports = imports.iter().cloned().chain(read).collect();
        known.extend(places);
    }

    fn imports(&self) -> Arc<[Import]> {
        self.imports.read().clone()
    }

    /// Finds what a key stands for in an import.
    pub(crate) fn lookup(&self, key: &Digest) -> Option<Digest> {
        let canonical = self.imports().iter().find_map(|import| import.canonical(key))?;
        self.links.lock().push((*key, canonical));
        Some(canonical)
    }

    /// Tells whether an import has those outputs of the result of a canonical key that are `used`.
    pub(crate) fn has(&self, canonical: &Digest, used: &[usize]) -> bool {
        self.imports().iter().any(|import| has(import.outputs(canonical), used))
    }

    /// Brings a result of an import into the local state, its layers not fetched; `None` if it is gone.
    pub(crate) async fn fetch(
        &self,
        job: &Job,
        canonical: &Digest,
        used: &[usize],
    ) -> Option<Stored<VertexOperation>> {
        for import in self.imports().iter() {
            if !has(import.outputs(canonical), used) {
                continue;
            }
            let outputs = self.available_outputs(job, import, import.outputs(canonical)).await;
            if !has(&outputs, used) {
                tracing::warn!(%canonical, "layers of a cached result are gone");
                continue;
            }
            match self.keep(job, import, canonical, &outputs) {
                Ok(trees) => return Some(trees),
                Err(error) => tracing::warn!(%error, "could not use a result of an imported cache"),
            }
        }
        None
    }

    /// Leaves out the outputs of which a layer is gone.
    async fn available_outputs(
        &self,
        job: &Job,
        import: &Import,
        outputs: &[Option<Output>],
    ) -> Vec<Option<Output>> {
        let mut there = outputs.to_vec();
        for output in &mut there {
            let Some(Output::Layer(top)) = *output else { continue };
            let layers: Vec<Digest> =
                import.chain(top).into_iter().map(|layer| layer.descriptor.digest).collect();
            layers.iter().for_each(|layer| job.blobs.remember(layer, import.source()));
            if !self.all_available(job, layers).await {
                *output = None;
            }
        }
        there
    }

    fn keep(
        &self,
        job: &Job,
        import: &Import,
        canonical: &Digest,
        outputs: &[Option<Output>],
    ) -> Result<Stored<VertexOperation>, Diagnostic> {
        let store = &job.engine.store;
        let mut trees = Vec::with_capacity(outputs.len());
        let mut blobs: Vec<Digest> = Vec::new();
        for output in outputs {
            let Some(Output::Layer(top)) = output else {
                trees.push(output.map(|_| Tree::Empty));
                continue;
            };
            let layers: Vec<_> = import.chain(*top).into_iter().map(layers::to_store).collect();
            blobs.extend(layers.iter().map(|(blob, _)| blob.descriptor.digest));
            let snapshots = store.snapshots().add_image(&layers, &job.lease).diagnose()?;
            trees.push(Some(snapshots.last().copied().map_or(Tree::Empty, Tree::Snapshot)));
        }
        job.blobs.note_of_cache(&blobs)?;
        let record = |tree: &Option<Tree>| match tree {
            Some(tree) => tree.record(),
            None => Some(TreeRecord::Absent),
        };
        let records: Vec<TreeRecord> = trees.iter().filter_map(record).collect();
        let payload = serde_json::to_vec(&records).unwrap_or_default();
        let snapshots: Vec<SnapshotId> = trees.iter().flatten().filter_map(Tree::snapshot).collect();
        store.cache().put(canonical, import.keys(canonical), &payload, &snapshots, &job.lease).diagnose()?;
        Ok(trees)
    }

    /// Lists the layers of snapshots that only a cache has, and that may be gone by now.
    pub(crate) fn doubtful(&self, job: &Job, snapshots: &[SnapshotId]) -> Vec<Digest> {
        let known = job.engine.store.snapshots();
        let needed = |id: &SnapshotId| known.needed_blobs(*id).unwrap_or_default();
        let blobs = snapshots.iter().flat_map(needed).map(|(_, blob)| blob.descriptor.digest);
        blobs.filter(|blob| !job.blobs.is_here(blob) && job.blobs.is_of_cache(blob)).collect()
    }

    /// Tells whether all blobs are here or can be had.
    pub(crate) async fn all_available(&self, job: &Job, blobs: Vec<Digest>) -> bool {
        if self.distrust.get().is_some() {
            return blobs.iter().all(|blob| job.blobs.is_here(blob));
        }
        let asked = blobs.iter().map(|blob| async move {
            let slot = self.available.lock().entry(*blob).or_default().clone();
            *slot.get_or_init(|| job.blobs.available(blob)).await
        });
        futures_util::future::join_all(asked).await.into_iter().all(|available| available)
    }

    /// Remembers the keys of a vertex, if they are going to be exported.
    pub(crate) fn keyed(&self, operation: &VertexOperation, keys: &VertexKeys) {
        if !self.exports() {
            return;
        }
        let vertex = &operation.vertex;
        let local = matches!(&vertex.op.op, Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://"));
        let inputs = vertex.inputs.iter().map(|edge| edge.vertex).collect();
        let omitted = vertex.metadata.export_cache.as_ref().is_some_and(|export| !export.value);
        self.used.lock().insert(vertex.digest, Used { keys: keys.clone(), inputs, local, omitted });
    }

    /// Makes the keys that were found in imports known to the local state.
    pub(crate) fn flush(&self, table: &CacheTable) {
        let links = std::mem::take(&mut *self.links.lock());
        if let Err(error) = table.link_all(&links) {
            tracing::warn!(%error, "could not keep the keys of an imported cache");
        }
    }
}

/// A place that blobs of a cache are in.
type Source = BlobSource;
