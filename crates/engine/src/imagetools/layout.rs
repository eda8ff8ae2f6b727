//! Writing into an OCI layout on disk, which may have other images already.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use futures_util::StreamExt as _;
use slipway_model::solve::LayoutSelector;
use slipway_model::{Descriptor, Diagnostic, Digester, ErrorKind, Reference};
use slipway_registry::Client;

use crate::error::{Context as _, blocking};
use crate::exporters::layout::replace;
use crate::layout_index::LayoutIndex;
use crate::sources::layout::{Layout, REF_NAME};

/// A directory that images are added to.
pub(super) struct LayoutTarget<'a> {
    path: &'a Path,
    layout: Layout,
}

impl<'a> LayoutTarget<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, layout: Layout::new(path) }
    }

    /// Writes a document.
    pub(super) fn write(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Diagnostic> {
        self.prepare()
            .and_then(|()| {
                replace(&self.layout.blob_path(&descriptor.digest), |mut file| file.write_all(bytes))
            })
            .map_err(|error| self.failed(&error))
    }

    /// Copies a blob from another layout, checking it.
    pub(super) async fn copy(&self, from: &Layout, blob: &Descriptor) -> Result<(), Diagnostic> {
        if self.has(blob) {
            return Ok(());
        }
        self.prepare().map_err(|error| self.failed(&error))?;
        let (source, target) = (from.blob_path(&blob.digest), self.layout.blob_path(&blob.digest));
        let (blob, path) = (blob.clone(), self.path.to_owned());
        blocking(move || {
            let copy = |file: &File| {
                let mut digester = Digester::new();
                let mut reader = File::open(&source)?;
                let mut buffer = vec![0; 1 << 20];
                let mut file = file;
                loop {
                    match io::Read::read(&mut reader, &mut buffer)? {
                        0 => break,
                        read => {
                            digester.update(&buffer[..read]);
                            file.write_all(&buffer[..read])?;
                        }
                    }
                }
                if digester.finish() == blob.digest { Ok(()) } else { Err(altered()) }
            };
            replace(&target, copy).map_err(|error| {
                let doing = format!("cannot copy the blob {} to `{}`", blob.digest, path.display());
                Diagnostic::new(ErrorKind::Environment, doing).cause(error.to_string())
            })
        })
        .await
    }

    /// Fetches a blob from a registry; what arrives is checked before it has its name.
    pub(super) async fn fetch(
        &self,
        client: &Client,
        from: &Reference,
        blob: &Descriptor,
    ) -> Result<(), Diagnostic> {
        if self.has(blob) {
            return Ok(());
        }
        self.prepare().map_err(|error| self.failed(&error))?;
        let target = self.layout.blob_path(&blob.digest);
        let (pieces, mut queue) = tokio::sync::mpsc::channel::<bytes::Bytes>(16);
        let write = tokio::task::spawn_blocking(move || {
            let mut whole = false;
            replace(&target, |mut file| {
                while let Some(piece) = queue.blocking_recv() {
                    whole = piece.is_empty();
                    file.write_all(&piece)?;
                }
                // The sender says so when the content has been checked.
                if whole { Ok(()) } else { Err(altered()) }
            })
        });
        let mut stream = client.blob(from, blob, 0).verified();
        let doing = || format!("cannot fetch the blob {} of {from}", blob.digest);
        let mut broken = None;
        while let Some(piece) = stream.next().await {
            match piece.context(doing) {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    if pieces.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        if broken.is_none() {
            // If nobody listens, writing has failed, and says why.
            let _ = pieces.send(bytes::Bytes::new()).await;
        }
        drop(pieces);
        let written = write.await.map_err(|error| crate::error::internal(error.to_string()))?;
        match broken {
            Some(error) => Err(error),
            None => written.map_err(|error| self.failed(&error)),
        }
    }

    /// Lists an image in the index, instead of the one that had its name.
    pub(super) fn name(&self, descriptor: &Descriptor, selector: &LayoutSelector) -> Result<(), Diagnostic> {
        let tag = match selector {
            LayoutSelector::Default => Some("latest"),
            LayoutSelector::Tag(tag) => Some(tag.as_str()),
            LayoutSelector::Digest(wanted) if *wanted == descriptor.digest => None,
            LayoutSelector::Digest(wanted) => {
                let message = format!("the image is {}, not {wanted}", descriptor.digest);
                return Err(Diagnostic::new(ErrorKind::User, message)
                    .hint("leave the digest out of the target: `oci-layout://PATH[:TAG]`"));
            }
        };
        let mut entry = Descriptor { platform: None, ..descriptor.clone() };
        entry.annotations.clear();
        entry.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
        let digest = entry.digest;
        let same = |known: &Descriptor| match tag {
            Some(tag) => known.annotations.get(REF_NAME).is_some_and(|name| name == tag),
            None => known.digest == digest && known.annotations.is_empty(),
        };
        let write = || {
            let mut index = LayoutIndex::open(self.path)?;
            index.put(entry, same);
            index.write()
        };
        write().map_err(|error| self.failed(&error))
    }

    fn prepare(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.path.join("blobs/sha256"))
    }

    fn has(&self, blob: &Descriptor) -> bool {
        std::fs::metadata(self.layout.blob_path(&blob.digest)).is_ok_and(|found| found.len() == blob.size)
    }

    fn failed(&self, error: &io::Error) -> Diagnostic {
        let doing = format!("cannot write the OCI layout `{}`", self.path.display());
        Diagnostic::new(ErrorKind::Environment, doing).cause(error.to_string())
    }
}

fn altered() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the content is not what its digest says")
}
