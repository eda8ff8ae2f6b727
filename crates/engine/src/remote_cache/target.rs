//! Putting a cache where it goes: blobs first, then the config, then the manifest, then the name.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use slipway_model::oci::{Annotations, Extra};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex, Manifest, MediaType};
use slipway_store::ContentStore;

use super::options::{ExportTarget, ExportTo};
use super::{Bucket, BucketSpec};
use crate::error::{Context as _, blocking};
use crate::exporters::assemble::Document;
use crate::exporters::layout::{REF_NAME, replace};
use crate::exporters::push::Pusher;
use crate::job::Job;
use crate::layout_index::LayoutIndex;
use crate::progress::{Counter, Step};

/// How many blobs go to a bucket at once.
const UPLOADS: usize = 4;

/// What a cache is made of.
#[derive(Clone)]
pub(super) struct Parts {
    blobs: Vec<Descriptor>,
    config: Document,
    /// The manifest or index over the others.
    manifest: Document,
}

/// Shows that a part is being written, until it is dropped.
type Show<'a> = &'a (dyn Fn(String) -> Counter + Send + Sync);

impl Parts {
    pub(super) fn new(to: &ExportTo, blobs: Vec<Descriptor>, config: Document) -> Result<Self, Diagnostic> {
        let manifest = manifest(to, &blobs, &config)?;
        Ok(Self { blobs, config, manifest })
    }

    /// Writes what is missing; returns what describes the manifest, where there is one.
    pub(super) async fn write(
        self,
        job: &Arc<Job>,
        to: &ExportTo,
        step: &Step,
    ) -> Result<Option<Descriptor>, Diagnostic> {
        let descriptor = self.manifest.descriptor.clone();
        let (progress, shown) = (step.progress().clone(), step.digest());
        let show = move |name: String| progress.counter(shown, name, 0);
        match &to.target {
            ExportTarget::Bucket(spec) => {
                self.upload(job, spec, step, &show).await?;
                return Ok(None);
            }
            ExportTarget::Registry { reference, insecure } => {
                let client = job.blobs.client().insecure(*insecure);
                let pusher = Pusher::of_cache(job, client, reference.with_default_tag(), step);
                self.push(&pusher, &show).await?;
            }
            ExportTarget::Local { directory, tag, reset } => {
                std::fs::create_dir_all(directory.join("blobs/sha256"))
                    .context(|| format!("cannot make the directory `{}`", directory.display()))?;
                let missing: Vec<Descriptor> =
                    self.blobs.iter().filter(|blob| !is_there(directory, blob)).cloned().collect();
                job.blobs.ensure(&missing, step.digest()).await?;
                let local = Local { directory: directory.clone(), tag: tag.clone(), reset: *reset };
                let content = job.engine.store.content();
                blocking(move || {
                    let written = local.write(&content, &missing, &self, &show);
                    written.map_err(|error| failed(&local.directory, &error))
                })
                .await?;
            }
        }
        Ok(Some(descriptor))
    }

    /// Writes to a bucket: its caches have no manifest, and the names stand for configs.
    async fn upload(
        &self,
        job: &Arc<Job>,
        spec: &BucketSpec,
        step: &Step,
        show: Show<'_>,
    ) -> Result<(), Diagnostic> {
        let bucket = Arc::new(Bucket::open(job.blobs.client(), spec).await?);
        job.blobs.add_bucket(spec.id(), bucket.clone());
        let write = |blob: Descriptor| {
            let (bucket, shown) = (bucket.clone(), show(format!("writing layer {}", blob.digest)));
            async move {
                if !bucket.is_fresh(&blob.digest).await? {
                    job.blobs.ensure(std::slice::from_ref(&blob), step.digest()).await?;
                    bucket.write(&blob.digest, &job.engine.store.content().path(&blob.digest)).await?;
                }
                drop(shown);
                Ok::<(), Diagnostic>(())
            }
        };
        let mut writes =
            futures_util::stream::iter(self.blobs.iter().cloned()).map(write).buffer_unordered(UPLOADS);
        while let Some(written) = writes.next().await {
            written?;
        }
        let _shown = show(self.config_name());
        for name in &spec.names {
            bucket.write_config(name, &self.config.bytes).await?;
        }
        Ok(())
    }

    async fn push(&self, pusher: &Pusher<'_>, show: Show<'_>) -> Result<(), Diagnostic> {
        if pusher.has(&self.manifest).await {
            return Ok(());
        }
        let push = |blob: &Descriptor| {
            let (blob, shown) = (blob.clone(), show(format!("writing layer {}", blob.digest)));
            async move {
                let pushed = pusher.layer(&blob).await;
                drop(shown);
                pushed
            }
        };
        let mut layers: FuturesUnordered<_> = self.blobs.iter().map(push).collect();
        while let Some(done) = layers.next().await {
            done?;
        }
        let shown = show(self.config_name());
        pusher.config(&self.config).await?;
        drop(shown);
        let _shown = show(self.manifest_name());
        pusher.named_manifest(&self.manifest).await
    }

    fn config_name(&self) -> String {
        format!("writing config {}", self.config.descriptor.digest)
    }

    fn manifest_name(&self) -> String {
        let Descriptor { media_type, digest, .. } = &self.manifest.descriptor;
        let kind = if MediaType::is_index(media_type) { "" } else { "image " };
        format!("writing cache {kind}manifest {digest}")
    }
}

fn manifest(to: &ExportTo, blobs: &[Descriptor], config: &Document) -> Result<Document, Diagnostic> {
    let (media_type, text) = if to.image_manifest {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: config.descriptor.clone(),
            layers: blobs.to_vec(),
            subject: None,
            annotations: Annotations::new(),
            extra: Extra::new(),
        };
        (MediaType::OCI_MANIFEST, serde_json::to_vec(&manifest))
    } else {
        let media_type = if to.oci { MediaType::OCI_INDEX } else { MediaType::DOCKER_INDEX };
        let listed = blobs.iter().chain([&config.descriptor]).cloned().collect();
        (media_type, serde_json::to_vec(&ImageIndex::new(media_type, listed)))
    };
    let bytes = text.map_err(|error| crate::error::internal(error.to_string()))?;
    Ok(Document { descriptor: Descriptor::of(media_type, &bytes), bytes })
}

/// Enters a cache, whose blobs are in a directory, under its tag there; `reset` removes what no tag needs.
///
/// # Errors
/// The directory's index cannot be read or written.
pub fn list_cache(directory: &Path, tag: &str, reset: bool, manifest: &Descriptor) -> Result<(), Diagnostic> {
    let local = Local { directory: directory.to_owned(), tag: tag.to_owned(), reset };
    local.list(manifest).map_err(|error| failed(directory, &error))
}

/// A directory in OCI layout with caches in it, by tag.
struct Local {
    directory: PathBuf,
    tag: String,
    reset: bool,
}

impl Local {
    fn write(
        &self,
        content: &ContentStore,
        missing: &[Descriptor],
        parts: &Parts,
        show: Show<'_>,
    ) -> io::Result<()> {
        for blob in missing {
            let _shown = show(format!("writing layer {}", blob.digest));
            let mut from = content.open(&blob.digest).map_err(io::Error::other)?;
            replace(&self.blob(&blob.digest), |mut file| io::copy(&mut from, &mut file).map(drop))?;
        }
        let documents = [(&parts.config, parts.config_name()), (&parts.manifest, parts.manifest_name())];
        for (document, name) in documents {
            let _shown = show(name);
            let to = self.blob(&document.descriptor.digest);
            replace(&to, |mut file| file.write_all(&document.bytes))?;
        }
        self.list(&parts.manifest.descriptor)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.directory, digest)
    }

    /// Gives a manifest that is there its tag; those of other tags stay.
    fn list(&self, manifest: &Descriptor) -> io::Result<()> {
        let mut index = LayoutIndex::open(&self.directory)?;
        let mut descriptor = manifest.clone();
        descriptor.annotations.insert(REF_NAME.to_owned(), self.tag.clone());
        index.put(descriptor, |known| known.annotations.get(REF_NAME) == Some(&self.tag));
        index.write()?;
        if self.reset { self.remove_unused(index.manifests()) } else { Ok(()) }
    }

    /// Removes blobs that no listed manifest needs.
    fn remove_unused(&self, listed: &[Descriptor]) -> io::Result<()> {
        let needed = needed(&self.directory, listed)?;
        for entry in std::fs::read_dir(self.directory.join("blobs/sha256"))? {
            let entry = entry?;
            if !needed.contains(&*entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Names the blobs that manifests of a directory need, themselves too.
fn needed(directory: &Path, listed: &[Descriptor]) -> io::Result<HashSet<String>> {
    let mut needed = HashSet::new();
    let mut queue = listed.to_vec();
    while let Some(descriptor) = queue.pop() {
        if !needed.insert(descriptor.digest.hex()) {
            continue;
        }
        let read = || std::fs::read(blob_path(directory, &descriptor.digest));
        if MediaType::is_index(&descriptor.media_type) {
            queue.extend(serde_json::from_slice::<ImageIndex>(&read()?)?.manifests);
        } else if MediaType::is_manifest(&descriptor.media_type) {
            let manifest: Manifest = serde_json::from_slice(&read()?)?;
            queue.push(manifest.config);
            queue.extend(manifest.layers);
        }
    }
    Ok(needed)
}

/// Removes from a directory what was there for parts of a cache alone: each is a layout with the same blobs. Somebody
/// else may remove the same.
pub(super) fn remove_parts(directory: &Path, parts: &[PathBuf]) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let whole = LayoutIndex::open(directory)?;
    let kept = needed(directory, whole.manifests())?;
    let mut of_parts = HashSet::new();
    for part in parts {
        match needed(part, LayoutIndex::open(part)?.manifests()) {
            Ok(blobs) => of_parts.extend(blobs),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for blob in of_parts.difference(&kept) {
        match std::fs::remove_file(directory.join("blobs/sha256").join(blob)) {
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

fn is_there(directory: &Path, blob: &Descriptor) -> bool {
    std::fs::metadata(blob_path(directory, &blob.digest)).is_ok_and(|found| found.len() == blob.size)
}

fn failed(directory: &Path, error: &io::Error) -> Diagnostic {
    let message = format!("cannot write the cache to `{}`", directory.display());
    let diagnostic = Diagnostic::new(ErrorKind::Environment, message).cause(error.to_string());
    match error.kind() {
        io::ErrorKind::StorageFull => {
            diagnostic.hint("free some space; `reset=true` drops what no tag needs")
        }
        _ => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a blob into a directory and describes it.
    fn blob(directory: &Path, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        let path = blob_path(directory, &descriptor.digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        descriptor
    }

    /// Writes a cache of one layer into `blobs` and lists it in `directory`.
    fn cache(blobs: &Path, directory: &Path, config: &str, layer: &Descriptor) -> Vec<Descriptor> {
        let config = blob(blobs, "application/vnd.buildkit.cacheconfig.v0", config.as_bytes());
        let listed = ImageIndex::new(MediaType::OCI_INDEX, vec![layer.clone(), config.clone()]);
        let manifest = blob(blobs, MediaType::OCI_INDEX, &serde_json::to_vec(&listed).unwrap());
        list_cache(directory, config.digest.hex().as_str(), false, &manifest).unwrap();
        vec![config, manifest]
    }

    #[test]
    fn parts_leave_nothing_beside_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("whole");
        let layer = blob(&whole, MediaType::OCI_LAYER_GZIP, b"layer");
        let mut parts = Vec::new();
        let mut gone = Vec::new();
        // Two of the parts are equal, and one is what another cache is too.
        for (name, config) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "kept")] {
            let part = directory.path().join(name);
            std::fs::create_dir(&part).unwrap();
            std::os::unix::fs::symlink(whole.join("blobs"), part.join("blobs")).unwrap();
            let documents = cache(&whole, &part, config, &layer);
            gone.extend(documents.into_iter().filter(|_| config != "kept"));
            parts.push(part);
        }
        let mut stays = cache(&whole, &whole, "kept", &layer);
        stays.extend(cache(&whole, &whole, "whole", &layer));
        stays.push(layer);
        remove_parts(&whole, &parts).unwrap();
        remove_parts(&whole, &parts).unwrap();
        assert!(stays.iter().all(|blob| is_there(&whole, blob)));
        assert!(gone.iter().all(|blob| !is_there(&whole, blob)));
    }
}
