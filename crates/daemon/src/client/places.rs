//! Outputs on the wire, and their places here: what has to be done once the daemon has written them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use slipway_engine::{Engine, LayoutIndex};
use slipway_model::solve::{
    AnnotationTarget, CacheSpec, Compression, Destination, FilesOutput, ImageOptions, OutputSpec,
};
use slipway_model::{Descriptor, Diagnostic, ErrorKind, Reference, parse_bool};
use tokio::sync::mpsc;

use super::{Offer, OutputPlace};

type Attributes = BTreeMap<String, String>;

/// The name of the store that images in a directory are written to; the protocol has one only.
const EXPORT: &str = "export";

/// Work at the client's end of outputs.
#[derive(Default)]
pub(super) struct Places {
    /// Goes on while the daemon writes.
    pub(super) work: Vec<BoxFuture<'static, Result<(), Diagnostic>>>,
    /// Directories that get the image, with its names.
    layouts: Vec<PathBuf>,
    /// Directories that get a cache.
    caches: Vec<CachePlace>,
}

/// A directory that gets a cache, which the daemon sends without saying what it is called.
struct CachePlace {
    directory: PathBuf,
    tag: String,
    /// What no tag needs is removed.
    reset: bool,
}

impl Places {
    /// Makes an output's place; `None` is an output that the daemon need not know of.
    pub(super) fn add(
        &mut self,
        engine: &Engine,
        index: usize,
        output: &OutputSpec,
        offer: &mut Offer,
    ) -> Result<Option<(String, Attributes)>, Diagnostic> {
        let mut attributes = Attributes::new();
        let kind = match output {
            OutputSpec::CacheOnly => return Ok(None),
            OutputSpec::Image(image) if image.by_default => return Ok(None),
            OutputSpec::Image(image) => {
                names(&image.names, &mut attributes);
                flag("push", image.push, &mut attributes);
                flag("push-by-digest", image.push_by_digest, &mut attributes);
                flag("registry.insecure", image.insecure, &mut attributes);
                options(&image.image, &mut attributes);
                "image"
            }
            OutputSpec::Oci(archive) => {
                names(&archive.names, &mut attributes);
                options(&archive.image, &mut attributes);
                self.archive(index, &archive.destination, archive.tar, &mut attributes, offer)?;
                "oci"
            }
            OutputSpec::Docker(docker) => {
                names(&docker.names, &mut attributes);
                options(&docker.image, &mut attributes);
                match &docker.destination {
                    Some(destination) => {
                        self.archive(index, destination, docker.tar, &mut attributes, offer)?
                    }
                    None => {
                        let (sender, receiver) = mpsc::channel(8);
                        let place = OutputPlace::Pipe(Arc::new(Mutex::new(Some(sender))));
                        offer.outputs.insert(index, place);
                        let (engine, docker) = (engine.clone(), docker.engine.clone());
                        self.work.push(Box::pin(async move {
                            engine.load_archive(docker.as_deref(), receiver).await
                        }));
                    }
                }
                "docker"
            }
            OutputSpec::Local(files) => {
                of_files(files, &mut attributes);
                if files.delete {
                    attributes.insert("mode".to_owned(), "delete".to_owned());
                }
                let path = path(&files.destination)?.to_owned();
                offer.outputs.insert(index, OutputPlace::Directory { path, delete: files.delete });
                "local"
            }
            OutputSpec::Tar(files) => {
                of_files(files, &mut attributes);
                offer.outputs.insert(index, file(&files.destination)?);
                "tar"
            }
        };
        Ok(Some((kind.to_owned(), attributes)))
    }

    fn archive(
        &mut self,
        index: usize,
        destination: &Destination,
        tar: bool,
        attributes: &mut Attributes,
        offer: &mut Offer,
    ) -> Result<(), Diagnostic> {
        if tar {
            offer.outputs.insert(index, file(destination)?);
            return Ok(());
        }
        attributes.insert("tar".to_owned(), "false".to_owned());
        let path = path(destination)?.to_owned();
        if offer.stores.insert(EXPORT.to_owned(), path.clone()).is_some() {
            return Err(Diagnostic::new(ErrorKind::User, "two outputs are image layouts in directories")
                .hint("the protocol of builders elsewhere has one only; leave `tar=false` out of one"));
        }
        self.layouts.push(path);
        Ok(())
    }

    /// Makes the place of a cache, if it is one in a directory.
    pub(super) fn add_cache(&mut self, cache: &CacheSpec, offer: &mut Offer) -> Result<(), Diagnostic> {
        if cache.kind != "local" {
            return Ok(());
        }
        let path = cache.attributes.get("dest").filter(|path| !path.is_empty()).ok_or_else(|| {
            Diagnostic::new(ErrorKind::User, "local cache exporter requires dest")
                .hint("write `--cache-to type=local,dest=DIRECTORY`")
        })?;
        let tag = cache.attributes.get("tag").cloned().unwrap_or_else(|| "latest".to_owned());
        let reset = cache.attributes.get("reset").is_some_and(|text| parse_bool(text) == Some(true));
        offer.stores.insert(format!("local:{path}"), path.into());
        self.caches.push(CachePlace { directory: path.into(), tag, reset });
        Ok(())
    }

    /// Names what was written, now that the daemon has said what it is.
    pub(super) fn finish(&self, response: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
        if let Some(text) = response.get("cache.manifest") {
            let manifest: Descriptor = serde_json::from_str(text).map_err(|error| {
                Diagnostic::new(ErrorKind::Environment, "the daemon did not say what cache it has written")
                    .cause(error.to_string())
            })?;
            for CachePlace { directory, tag, reset } in &self.caches {
                slipway_engine::list_cache(directory, tag, *reset, &manifest)?;
            }
        }
        if self.layouts.is_empty() {
            return Ok(());
        }
        let descriptor = response.get("containerimage.descriptor").map(String::as_str).unwrap_or_default();
        let descriptor = base64::engine::general_purpose::STANDARD.decode(descriptor).unwrap_or_default();
        let names: Vec<Name> = match response.get("image.name").filter(|names| !names.is_empty()) {
            Some(names) => names.split(',').map(name_of_image).collect(),
            None => vec![name_of_tag("latest")],
        };
        self.layouts.iter().try_for_each(|path| index(path, &descriptor, &names))
    }
}

/// The annotations that name an image in an index.
type Name = Vec<(&'static str, String)>;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn name_of_tag(tag: &str) -> Name {
    vec![(REF_NAME, tag.to_owned())]
}

fn name_of_image(name: &str) -> Name {
    let tag = name.parse::<Reference>().ok().and_then(|name| name.tag().map(str::to_owned));
    let tag = tag.map(|tag| (REF_NAME, tag));
    std::iter::once((IMAGE_NAME, name.to_owned())).chain(tag).collect()
}

/// Enters a descriptor in the index of a layout under names; what had the same names before loses them.
fn index(directory: &Path, descriptor: &[u8], names: &[Name]) -> Result<(), Diagnostic> {
    let failed = |cause: String| {
        Diagnostic::new(
            ErrorKind::Environment,
            format!("cannot write the index of `{}`", directory.display()),
        )
        .cause(cause)
    };
    let descriptor: Descriptor = serde_json::from_slice(descriptor)
        .map_err(|error| failed(format!("the daemon did not say what it has written: {error}")))?;
    let write = || {
        let mut index = LayoutIndex::open(directory)?;
        for name in names {
            let mut entry = descriptor.clone();
            entry.annotations.extend(name.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            let first = name.first();
            index.put(entry, |known| {
                first.is_some_and(|(key, value)| known.annotations.get(*key) == Some(value))
            });
        }
        index.write()
    };
    write().map_err(|error| failed(error.to_string()))
}

fn path(destination: &Destination) -> Result<&Path, Diagnostic> {
    match destination {
        Destination::Path(path) => Ok(path),
        Destination::Stdout | Destination::Client(_) => {
            Err(Diagnostic::new(ErrorKind::User, "a directory is needed for this output"))
        }
    }
}

fn file(destination: &Destination) -> Result<OutputPlace, Diagnostic> {
    match destination {
        Destination::Path(path) => Ok(OutputPlace::File(path.clone())),
        Destination::Stdout => Ok(OutputPlace::Stdout),
        Destination::Client(_) => Err(Diagnostic::new(ErrorKind::User, "an output of another client")),
    }
}

fn flag(key: &str, on: bool, attributes: &mut Attributes) {
    if on {
        attributes.insert(key.to_owned(), "true".to_owned());
    }
}

fn names(names: &[Reference], attributes: &mut Attributes) {
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        attributes.insert("name".to_owned(), names.join(","));
    }
}

fn of_files(files: &FilesOutput, attributes: &mut Attributes) {
    if let Some(split) = files.platform_split {
        attributes.insert("platform-split".to_owned(), split.to_string());
    }
    if !files.attestation_prefix.is_empty() {
        attributes.insert("attestation-prefix".to_owned(), files.attestation_prefix.clone());
    }
}

fn options(image: &ImageOptions, attributes: &mut Attributes) {
    match image.compression {
        Compression::Gzip => {}
        Compression::Zstd => drop(attributes.insert("compression".to_owned(), "zstd".to_owned())),
        Compression::Uncompressed => {
            attributes.insert("compression".to_owned(), "uncompressed".to_owned());
        }
    }
    if let Some(level) = image.compression_level {
        attributes.insert("compression-level".to_owned(), level.to_string());
    }
    flag("force-compression", image.force_compression, attributes);
    flag("rewrite-timestamp", image.rewrite_timestamp, attributes);
    let choices = [
        ("oci-mediatypes", image.oci_media_types),
        ("oci-artifact", image.oci_artifact),
        ("attestation-inline", image.attestation_inline),
    ];
    for (key, choice) in choices {
        if let Some(choice) = choice {
            attributes.insert(key.to_owned(), choice.to_string());
        }
    }
    for annotation in &image.annotations {
        let target = match annotation.target {
            AnnotationTarget::Manifest => "annotation-manifest",
            AnnotationTarget::ManifestDescriptor => "annotation-manifest-descriptor",
            AnnotationTarget::Index => "annotation-index",
            AnnotationTarget::IndexDescriptor => "annotation-index-descriptor",
        };
        let platform =
            annotation.platform.as_ref().map(|platform| format!("[{platform}]")).unwrap_or_default();
        attributes.insert(format!("{target}{platform}.{}", annotation.key), annotation.value.clone());
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::{Digest, MediaType};

    use super::*;

    #[test]
    fn an_index_has_each_name_once() {
        let directory = tempfile::tempdir().unwrap();
        let names = |list: &[&str]| -> Vec<Name> { list.iter().map(|name| name_of_image(name)).collect() };
        let written = || -> Vec<(Digest, String)> {
            let index = LayoutIndex::open(directory.path()).unwrap();
            let entries = index.manifests().iter();
            entries.map(|entry| (entry.digest, entry.annotations[IMAGE_NAME].clone())).collect()
        };
        let image = |text: &str| Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes());
        let add = |text: &str, list: &[&str]| {
            index(directory.path(), &serde_json::to_vec(&image(text)).unwrap(), &names(list)).unwrap();
        };
        add("one", &["r/a:1", "r/b:1"]);
        add("two", &["r/a:1"]);
        let pair = |text: &str, name: &str| (image(text).digest, name.to_owned());
        assert_eq!(written(), [pair("one", "r/b:1"), pair("two", "r/a:1")]);
        assert!(index(directory.path(), b"", &names(&["r/a:1"])).is_err());
    }
}
