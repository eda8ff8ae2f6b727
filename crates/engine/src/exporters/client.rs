//! Outputs that go to the client through its session: archives as one stream, files as trees.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use slipway_files::Root;
use slipway_files::archive::TarWriter;
use slipway_model::solve::{Destination, FilesOutput, OutputSpec};
use slipway_model::{Diagnostic, Reference};
use tokio_util::io::SyncIoBridge;

use super::files::now;
use super::{Built, ExportContext, Exported, beside, describe, image, layout, total};
use crate::error::{Context as _, blocking};
use crate::session::{ExporterId, OutputStream, OutputTree};

/// The content store of the client that takes an image's blobs one by one.
const EXPORT_STORE: &str = "export";

/// An archive of an image for the client.
pub(super) struct ClientArchive<'a> {
    id: &'a ExporterId,
    names: &'a [Reference],
    docker: bool,
    /// `false` sends the blobs to the client's store instead.
    tar: bool,
}

impl<'a> ClientArchive<'a> {
    /// Takes an output that is one.
    pub(super) fn of(output: &'a OutputSpec) -> Option<Self> {
        match output {
            OutputSpec::Oci(archive) => match &archive.destination {
                Destination::Client(id) => {
                    Some(Self { id, names: &archive.names, docker: false, tar: archive.tar })
                }
                _ => None,
            },
            OutputSpec::Docker(docker) => match &docker.destination {
                Some(Destination::Client(id)) => {
                    Some(Self { id, names: &docker.names, docker: true, tar: docker.tar })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Sends the image; its layers are in the store.
    pub(super) async fn send(&self, context: &ExportContext, built: &Arc<Built>) -> Result<(), Diagnostic> {
        let kind = if self.docker { "docker" } else { "oci" };
        let step = context.job.progress.step(format!("exporting to {kind} image format"));
        let sent = match self.tar {
            true => self.stream(context, built, &step).await,
            false => self.blobs(context, built).await,
        };
        step.end(sent)
    }

    async fn stream(
        &self,
        context: &ExportContext,
        built: &Arc<Built>,
        step: &crate::progress::Step,
    ) -> Result<(), Diagnostic> {
        let job = &context.job;
        let options = layout::LayoutOptions {
            names: self.names.to_vec(),
            listing: if self.docker { layout::Listing::Both } else { layout::Listing::Oci },
            created: image::created(context, built),
        };
        let mut exported = Exported::default();
        describe(&mut exported, built, self.names);
        job.note_sent();
        let stream = job.session.file(self.id, &exported.response()).await?;
        let counter = job.progress.counter(step.digest(), "sending tarball", total(built));
        let (content, built) = (job.engine.store.content(), built.clone());
        write(stream, move |out| {
            layout::archive(&content, &built, &options, out, &|bytes| counter.add(bytes)).map(drop)
        })
        .await
    }

    async fn blobs(&self, context: &ExportContext, built: &Arc<Built>) -> Result<(), Diagnostic> {
        let job = &context.job;
        let content = job.engine.store.content();
        job.note_sent();
        for layer in built.layers() {
            let file = content.open(&layer.digest).diagnose()?;
            let reader = tokio::fs::File::from_std(file);
            job.session.put_content(EXPORT_STORE, layer, Box::new(reader)).await?;
        }
        for document in built.documents() {
            let reader = std::io::Cursor::new(document.bytes.clone());
            job.session.put_content(EXPORT_STORE, &document.descriptor, Box::new(reader)).await?;
        }
        Ok(())
    }
}

/// Writes to the client's end of an output, and waits until the client has it all.
async fn write(
    stream: Box<dyn OutputStream>,
    work: impl FnOnce(&mut BufWriter<SyncIoBridge<Box<dyn OutputStream>>>) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Diagnostic> {
    let doing = || "cannot send the output to the client".to_owned();
    blocking(move || {
        let mut out = BufWriter::with_capacity(1 << 20, SyncIoBridge::new(stream));
        work(&mut out).context(doing)?;
        let mut bridge = out.into_inner().map_err(std::io::IntoInnerError::into_error).context(doing)?;
        bridge.shutdown().context(doing)
    })
    .await
}

/// Sends the files of every platform's result.
pub(super) async fn files(
    context: &ExportContext,
    output: &FilesOutput,
    id: &ExporterId,
) -> Result<(), Diagnostic> {
    let step = context.job.progress.step("copying files");
    let sent = async {
        let trees = trees(context, output, &step).await?;
        context.job.note_sent();
        if trees.len() > 1 && trees.iter().all(|tree| tree.prefix.is_empty()) {
            let roots = trees
                .iter()
                .zip(&context.results)
                .map(|(tree, result)| Ok((result.platform.to_string(), tree.root.try_clone().diagnose()?)));
            let roots = roots.collect::<Result<Vec<_>, Diagnostic>>()?;
            blocking(move || beside::check_overlap(&roots)).await?;
            // One after the other: one transfer is in order of names, and these are not.
            for tree in trees {
                context.job.session.files(id, vec![tree]).await?;
            }
            return Ok(());
        }
        context.job.session.files(id, trees).await
    }
    .await;
    step.end(sent)
}

/// Sends the files of every platform's result as one tar.
pub(super) async fn tar(
    context: &ExportContext,
    output: &FilesOutput,
    id: &ExporterId,
) -> Result<(), Diagnostic> {
    let step = context.job.progress.step("sending tarball");
    let sent = async {
        let trees = trees(context, output, &step).await?;
        context.job.note_sent();
        let stream = context.job.session.file(id, &BTreeMap::new()).await?;
        let time = context.epoch.map(|seconds| slipway_files::Time { seconds, nanoseconds: 0 });
        write(stream, move |out| {
            let mut writer = TarWriter::new(out, time);
            for tree in &trees {
                let prefix = Path::new(&tree.prefix);
                writer.tree(&tree.root, prefix).map_err(std::io::Error::other)?;
                for (name, content) in &tree.extra {
                    let added = writer.add_file(&prefix.join(name), content, now());
                    added.map_err(std::io::Error::other)?;
                }
            }
            writer.finish().map(drop).map_err(std::io::Error::other)
        })
        .await
    }
    .await;
    step.end(sent)
}

async fn trees(
    context: &ExportContext,
    output: &FilesOutput,
    step: &crate::progress::Step,
) -> Result<Vec<OutputTree>, Diagnostic> {
    let job = &context.job;
    let split = output.platform_split.unwrap_or(context.results.len() > 1 || context.force_index);
    let mut trees = Vec::with_capacity(context.results.len());
    for result in &context.results {
        let root = match job.materialize(&result.tree, step.digest()).await? {
            Some(snapshot) => job.engine.store.snapshots().mount_view(snapshot).diagnose()?.into_fd(),
            None => job.empty_directory()?,
        };
        let root = Root::from(root);
        trees.push(OutputTree {
            prefix: if split { result.platform.file_name() } else { String::new() },
            extra: beside::make(context, result, output, &root, split).await?,
            root,
            epoch: context.epoch,
        });
    }
    Ok(trees)
}
