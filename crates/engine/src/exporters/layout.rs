//! Writing a built image as an OCI image layout, in a tar or a directory, and as a `docker load` archive.
//!
//! A tar is written in one pass, to a file beside the destination that takes its name at the end; so a
//! destination is never half an archive. A directory gets its blobs first and `index.json` last.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use slipway_model::solve::Destination;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex, MediaType, Reference};
use slipway_store::ContentStore;

use super::Built;
use super::tarball::Tarball;

const IMAGE_NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";
pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Which files list the images of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listing {
    /// `index.json`, as the image layout specification has it.
    #[default]
    Oci,
    /// `manifest.json` too, which `docker load` reads.
    Both,
    /// `manifest.json` alone: podman, where it sees an `index.json`, loads one platform of it and no other.
    Docker,
}

/// What is written besides the image.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayoutOptions {
    pub(crate) names: Vec<Reference>,
    pub(crate) listing: Listing,
    /// RFC 3339.
    pub(crate) created: String,
}

/// Writes a tar to a file or standard output.
pub(crate) fn write_tar(
    content: &ContentStore,
    built: &Built,
    options: &LayoutOptions,
    destination: &Destination,
    progress: &dyn Fn(u64),
) -> Result<(), Diagnostic> {
    match destination {
        Destination::Stdout => {
            let out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            archive(content, built, options, out, progress)
                .map(drop)
                .map_err(|e| failed("standard output", &e))
        }
        Destination::Client(_) => Err(crate::error::internal("an output of the client came too far")),
        Destination::Path(path) => replace_file(path, |file| {
            let out = BufWriter::with_capacity(1 << 20, file);
            archive(content, built, options, out, progress).map(drop)
        }),
    }
}

/// Writes a tar to any writer.
pub(crate) fn archive<W: Write>(
    content: &ContentStore,
    built: &Built,
    options: &LayoutOptions,
    out: W,
    progress: &dyn Fn(u64),
) -> io::Result<W> {
    let mut tarball = Tarball::new(out);
    tarball.directory("blobs")?;
    tarball.directory("blobs/sha256")?;
    for document in built.documents() {
        tarball.file(&blob_name(&document.descriptor.digest), &document.bytes)?;
    }
    for layer in built.layers() {
        let file = content.open(&layer.digest).map_err(io::Error::other)?;
        tarball.stream(&blob_name(&layer.digest), layer.size, Counted { inner: file, progress })?;
    }
    if options.listing != Listing::Docker {
        tarball.file("oci-layout", LAYOUT.as_bytes())?;
        tarball.file("index.json", &index(built, options))?;
    }
    if options.listing != Listing::Oci {
        tarball.file("manifest.json", &docker_manifest(built, options))?;
    }
    tarball.finish()
}

/// Writes a directory; blobs that are there already are left alone, an `index.json` is replaced.
pub(crate) fn write_directory(
    content: &ContentStore,
    built: &Built,
    options: &LayoutOptions,
    path: &Path,
    progress: &dyn Fn(u64),
) -> Result<(), Diagnostic> {
    let write = || -> io::Result<()> {
        let blobs = path.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        for layer in built.layers() {
            let to = blobs.join(layer.digest.hex());
            if std::fs::metadata(&to).is_ok_and(|m| m.len() == layer.size) {
                continue;
            }
            let mut from =
                Counted { inner: content.open(&layer.digest).map_err(io::Error::other)?, progress };
            replace(&to, |mut file| io::copy(&mut from, &mut file).map(drop))?;
        }
        for document in built.documents() {
            let to = blobs.join(document.descriptor.digest.hex());
            replace(&to, |mut file| file.write_all(&document.bytes))?;
        }
        replace(&path.join("oci-layout"), |mut file| file.write_all(LAYOUT.as_bytes()))?;
        replace(&path.join("index.json"), |mut file| file.write_all(&index(built, options)))
    };
    write().map_err(|error| failed(&path.display().to_string(), &error))
}

struct Counted<'a> {
    inner: File,
    progress: &'a dyn Fn(u64),
}

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn index(built: &Built, options: &LayoutOptions) -> Vec<u8> {
    let root = |name: Option<&Reference>| {
        let mut descriptor = Descriptor { platform: None, ..built.root.descriptor.clone() };
        descriptor.annotations.entry(CREATED.to_owned()).or_insert_with(|| options.created.clone());
        if let Some(name) = name.map(Reference::with_default_tag) {
            descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
            let tag = name.tag().map(str::to_owned).unwrap_or_else(|| name.to_string());
            descriptor.annotations.insert(REF_NAME.to_owned(), tag);
        }
        descriptor
    };
    let manifests = match options.names.as_slice() {
        [] => vec![root(None)],
        names => names.iter().map(|name| root(Some(name))).collect(),
    };
    let index = ImageIndex::new(MediaType::OCI_INDEX, manifests);
    serde_json::to_vec(&index).expect("an index of strings and numbers can be written")
}

fn docker_manifest(built: &Built, options: &LayoutOptions) -> Vec<u8> {
    let entries: Vec<_> = built
        .images
        .iter()
        .enumerate()
        .map(|(position, image)| {
            let tags = |name: &Reference| {
                let name = name.with_default_tag().familiar();
                if position == 0 { name } else { format!("{name}-{}", platform_suffix(&image.platform)) }
            };
            json!({
                "Config": blob_name(&image.config.descriptor.digest),
                "RepoTags": options.names.iter().map(tags).collect::<Vec<_>>(),
                "Layers": image.layers.iter().map(|l| blob_name(&l.descriptor.digest)).collect::<Vec<_>>(),
            })
        })
        .collect();
    serde_json::to_vec(&entries).expect("names and digests can be written")
}

/// Returns what is appended to a tag for a platform that is not the engine's own: `arm64`, `armv7`.
pub(crate) fn platform_suffix(platform: &slipway_model::Platform) -> String {
    format!("{}{}", platform.architecture, platform.variant.as_deref().unwrap_or_default())
}

/// Replaces a file as a whole, in a directory that is made if it is not there; a pipe or a device is written to.
pub fn replace_file(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Diagnostic> {
    // A pipe or a device cannot be replaced; it is written to as it is.
    let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
    let result = match special {
        true => File::options().write(true).open(path).and_then(|file| write(&file)),
        false => make_parent(path).and_then(|()| replace(path, write)),
    };
    result.map_err(|error| failed(&path.display().to_string(), &error))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

/// Writes a file under another name and renames it, so that the destination is whole or as it was.
///
/// Two images that are written at once may share a blob: the other name is this call's alone.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}-{}.tmp", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed)));
    let temporary = PathBuf::from(temporary);
    let result = File::create(&temporary)
        .and_then(|file| write(&file))
        .and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// Tells why a destination was not written, with what is below an error of others' that went through a writer.
fn failed(destination: &str, error: &io::Error) -> Diagnostic {
    let message = format!("cannot write the image to `{destination}`");
    let mut diagnostic = Diagnostic::new(ErrorKind::Environment, message);
    let mut is_full = false;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let own = error.downcast_ref::<io::Error>();
        is_full |= own.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
        diagnostic = diagnostic.cause(error.to_string());
        next = error.source();
    }
    match is_full {
        true => diagnostic.hint("free some space, for instance with `slipway prune`"),
        false => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_whoever_found_it() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let source = full();
        let through =
            slipway_files::FilesError::Host { operation: "write archive", path: "-".into(), source };
        for error in [full(), io::Error::other(through)] {
            let diagnostic = failed("x.tar", &error);
            assert!(diagnostic.hint.is_some_and(|hint| hint.contains("prune")));
            assert_eq!(diagnostic.causes.last().map(String::as_str), Some(&*full().to_string()));
        }
    }

    #[test]
    fn writers_of_one_file_do_not_disturb_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        // The second begins while the first has not ended, as two images with a layer in common do.
        let both = replace(&path, |mut first| {
            first.write_all(b"con")?;
            replace(&path, |mut second| second.write_all(b"content"))?;
            first.write_all(b"tent")
        });
        both.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
