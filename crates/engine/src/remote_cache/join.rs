//! One cache of what several nodes have built.
//!
//! Each node exports a part, under a name of its own beside the asked one and to the same repository, directory or
//! bucket: so layers stay where they are, and only documents are read and written here. In a directory the parts are
//! gone when the whole is written. In a registry and a bucket they stay, for the next build of the same platforms to
//! write over: many registries cannot delete, and those that can would take a layer of the whole for unused.

use std::path::Path;
use std::sync::Arc;

use slipway_model::progress::EventSink;
use slipway_model::solve::{CacheSpec, LayoutSelector};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::config::CONFIG_TYPE;
use super::import::{self, unusable};
use super::options::{ExportTarget, ExportTo, ImportFrom};
use super::target;
use super::union::Union;
use crate::build::BuildOptions;
use crate::engine::Engine;
use crate::error::{Context as _, blocking};
use crate::exporters::assemble::Document;
use crate::job::Job;
use crate::progress::Step;

/// The longest tag that registries know.
const MAX_TAG: usize = 128;

/// A cache that several nodes export to.
#[derive(Clone, Debug)]
pub struct JointCache {
    spec: CacheSpec,
    to: ExportTo,
}

impl JointCache {
    /// Reads what a flag says. `None` is a cache that cannot be joined: it is in the images, or at a place that
    /// only the nodes know.
    ///
    /// # Errors
    /// An attribute is missing, or not valid.
    pub fn new(spec: &CacheSpec) -> Result<Option<Self>, Diagnostic> {
        if !matches!(spec.kind.as_str(), "registry" | "local" | "s3") {
            return Ok(None);
        }
        let to = ExportTo::parse_spec(spec)?;
        Ok(to.map(|to| Self { spec: spec.clone(), to }))
    }

    /// Says where a node exports its part, `name`, to; what is for the time of the build only is in `workspace`.
    ///
    /// # Errors
    /// The directory of a local cache cannot be made.
    pub fn part(&self, name: &str, workspace: &Path) -> Result<CacheSpec, Diagnostic> {
        let mut part = self.spec.clone();
        let mut set = |key: &str, value: String| part.attributes.insert(key.to_owned(), value);
        match &self.to.target {
            ExportTarget::Registry { reference, .. } => {
                let tag = part_name(reference.tag().unwrap_or("latest"), name);
                let reference = reference.with_tag(&tag).map_err(|error| {
                    crate::error::internal(format!("a name for a part of a cache: {error}"))
                })?;
                set("ref", reference.to_string());
            }
            ExportTarget::Local { directory, .. } => {
                let staging =
                    workspace.join(part_name(&Digest::of(directory.display().to_string()).hex()[..12], name));
                shared_blobs(&staging, directory)
                    .context(|| format!("cannot make the directory `{}`", directory.display()))?;
                set("dest", staging.display().to_string());
                part.attributes.remove("reset");
            }
            ExportTarget::Bucket(bucket) => {
                let whole = bucket.names.first().map(String::as_str).unwrap_or_default();
                set("name", part_name(whole, name));
            }
        }
        Ok(part)
    }
}

/// Names a part of what is called `whole`.
fn part_name(whole: &str, part: &str) -> String {
    let name = format!("{whole}.part-{part}");
    match name.len() > MAX_TAG {
        true => format!("part-{}", &Digest::of(&name).hex()[..32]),
        false => name,
    }
}

/// Makes a layout whose blobs are those of another one: what is there is not sent again, and what comes is where it
/// belongs, but nobody sees a part in the other's index.
fn shared_blobs(staging: &Path, directory: &Path) -> std::io::Result<()> {
    let blobs = directory.join("blobs");
    std::fs::create_dir_all(blobs.join("sha256"))?;
    std::fs::create_dir_all(staging)?;
    match std::os::unix::fs::symlink(blobs, staging.join("blobs")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Engine {
    /// Makes one cache of the parts that nodes have exported, in the order they are given.
    ///
    /// Returns the descriptor of the manifest that was written, if one was.
    ///
    /// # Errors
    /// A part cannot be read, or the whole not be written, and the flag does not say that this may be.
    pub async fn join_cache(
        &self,
        cache: &JointCache,
        parts: &[CacheSpec],
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<Option<Descriptor>, Diagnostic> {
        let job = Arc::new(Job::start(&self.inner, BuildOptions::local("cache"), events, cancel.clone())?);
        let step = job.progress.step(cache.to.name());
        let joined = tokio::select! {
            joined = join(&job, &cache.to, parts, &step) => joined,
            () = cancel.cancelled() => Err(Diagnostic::new(ErrorKind::User, "canceled")),
        };
        match step.end(joined) {
            Err(_) if cache.to.ignore_error && !cancel.is_cancelled() => Ok(None),
            joined => joined,
        }
    }
}

async fn join(
    job: &Arc<Job>,
    to: &ExportTo,
    parts: &[CacheSpec],
    step: &Step,
) -> Result<Option<Descriptor>, Diagnostic> {
    let mut union = Union::default();
    for part in parts {
        let Some(place) = ExportTo::parse_spec(part)?.map(place) else { continue };
        // A node that had nothing to export has written no part.
        for found in import::configs(job, &place).await? {
            found.blobs.keys().for_each(|blob| job.blobs.remember(blob, &found.source));
            union.add(found.config, found.blobs).map_err(unusable)?;
        }
    }
    let (config, blobs) = union.finish();
    if blobs.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_vec(&config).map_err(|error| crate::error::internal(error.to_string()))?;
    let config = Document { descriptor: Descriptor::of(CONFIG_TYPE, &text), bytes: text };
    let written = target::Parts::new(to, blobs, config)?.write(job, to, step).await?;
    remove_parts(to, parts).await?;
    Ok(written)
}

async fn remove_parts(to: &ExportTo, parts: &[CacheSpec]) -> Result<(), Diagnostic> {
    // With `reset` they are gone already, with all that no tag needs.
    let ExportTarget::Local { directory: whole, reset: false, .. } = &to.target else { return Ok(()) };
    let mut directories = Vec::new();
    for part in parts {
        if let Some(ExportTo { target: ExportTarget::Local { directory, .. }, .. }) =
            ExportTo::parse_spec(part)?
        {
            directories.push(directory);
        }
    }
    let whole = whole.clone();
    let remove = move || target::remove_parts(&whole, &directories);
    blocking(move || remove().context(|| "cannot remove the parts of the cache".to_owned())).await
}

/// Says where what was exported is read.
fn place(to: ExportTo) -> ImportFrom {
    match to.target {
        ExportTarget::Registry { reference, insecure } => ImportFrom::Registry { reference, insecure },
        ExportTarget::Local { directory, tag, .. } => {
            ImportFrom::Local { directory, selector: LayoutSelector::Tag(tag) }
        }
        ExportTarget::Bucket(spec) => ImportFrom::Bucket(spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint(kind: &str, attributes: &[(&str, &str)]) -> JointCache {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        JointCache::new(&CacheSpec { kind: kind.to_owned(), attributes }).unwrap().unwrap()
    }

    #[test]
    fn a_part_has_a_name_of_its_own_beside_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let part = |kind: &str, attributes: &[(&str, &str)], name: &str| {
            joint(kind, attributes).part(name, directory.path()).unwrap().attributes
        };
        let cache = part("registry", &[("ref", "r.example/app:cache"), ("mode", "max")], "linux-arm64");
        assert_eq!(cache["ref"], "r.example/app:cache.part-linux-arm64");
        assert_eq!(cache["mode"], "max");
        let cache = part("registry", &[("ref", "r.example/app")], &"linux-arm64_".repeat(20));
        assert!(
            cache["ref"].starts_with("r.example/app:part-") && cache["ref"].len() < 60,
            "{}",
            cache["ref"]
        );
        let cache = part("s3", &[("bucket", "b"), ("region", "r"), ("name", "one;two")], "linux-386");
        assert_eq!(cache["name"], "one.part-linux-386");

        let destination = directory.path().join("cache");
        let attributes = [("dest", destination.to_str().unwrap()), ("reset", "true")];
        let (one, two) = (part("local", &attributes, "linux-386"), part("local", &attributes, "linux-arm64"));
        assert!(one["dest"] != two["dest"] && !one.contains_key("reset"));
        for part in [one, two] {
            std::fs::write(Path::new(&part["dest"]).join("blobs/sha256/blob"), "x").unwrap();
        }
        assert!(destination.join("blobs/sha256/blob").is_file());
    }

    #[test]
    fn some_caches_cannot_be_joined() {
        for kind in ["inline", "gha", "azblob"] {
            let spec = CacheSpec { kind: kind.to_owned(), attributes: Default::default() };
            assert!(JointCache::new(&spec).unwrap().is_none(), "{kind}");
        }
        let spec = CacheSpec { kind: "registry".to_owned(), attributes: Default::default() };
        JointCache::new(&spec).unwrap_err();
    }
}
