//! The files of the result, without an image around them: to a directory, or as a tar.

use std::io::BufWriter;
use std::path::Path;

use slipway_files::archive::TarWriter;
use slipway_files::{Root, Time};
use slipway_model::solve::{Destination, FilesOutput};
use slipway_model::{Diagnostic, ErrorKind};

use super::ExportContext;
use super::layout::replace_file;
use crate::error::{Context as _, blocking};

/// Copies the files of every platform's result into a directory.
pub(super) async fn local(context: &ExportContext, output: &FilesOutput) -> Result<(), Diagnostic> {
    if let Destination::Client(id) = &output.destination {
        return super::client::files(context, output, id).await;
    }
    let Destination::Path(destination) = output.destination.clone() else {
        return Err(Diagnostic::new(ErrorKind::User, "a local output needs a directory")
            .hint("name one: `--output type=local,dest=DIR`"));
    };
    let step = context.job.progress.step("copying files");
    let split = output.platform_split.unwrap_or(context.results.len() > 1);
    for result in &context.results {
        let snapshot = context.job.materialize(&result.tree, step.digest()).await?;
        let to = if split { destination.join(result.platform.file_name()) } else { destination.clone() };
        let (store, delete) = (context.job.engine.store.clone(), output.delete);
        let copied = blocking(move || {
            let doing = || format!("cannot write the files to `{}`", to.display());
            if delete {
                empty(&to)?;
            }
            std::fs::create_dir_all(&to).context(doing)?;
            let Some(snapshot) = snapshot else { return Ok(()) };
            let view = store.snapshots().mount_view(snapshot).diagnose()?;
            let from = Root::from(view.into_fd());
            slipway_files::export(&from, &Root::open(&to).context(doing)?).context(doing).map(drop)
        })
        .await;
        if let Err(error) = copied {
            step.failed(&error);
            return Err(error);
        }
    }
    step.done();
    Ok(())
}

/// Removes what is in a directory, not the directory.
fn empty(directory: &Path) -> Result<(), Diagnostic> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("cannot empty `{}`", directory.display())),
    };
    for entry in entries {
        let path = entry.diagnose()?.path();
        let removed = match path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.context(|| format!("cannot remove `{}`", path.display()))?;
    }
    Ok(())
}

/// Writes the files of every platform's result as one tar.
pub(super) async fn tar(context: &ExportContext, output: &FilesOutput) -> Result<(), Diagnostic> {
    if let Destination::Client(id) = &output.destination {
        return super::client::tar(context, output, id).await;
    }
    let step = context.job.progress.step("sending tarball");
    let split = output.platform_split.unwrap_or(context.results.len() > 1);
    let mut trees = Vec::with_capacity(context.results.len());
    for result in &context.results {
        let snapshot = context.job.materialize(&result.tree, step.digest()).await?;
        trees.push((snapshot, split.then(|| result.platform.file_name())));
    }
    let (store, destination, epoch) =
        (context.job.engine.store.clone(), output.destination.clone(), context.epoch);
    let written = blocking(move || {
        let mut roots = Vec::with_capacity(trees.len());
        for (snapshot, prefix) in trees {
            if let Some(snapshot) = snapshot {
                let view = store.snapshots().mount_view(snapshot).diagnose()?;
                roots.push((prefix.unwrap_or_default(), Root::from(view.into_fd())));
            }
        }
        match &destination {
            Destination::Stdout => {
                let out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
                write_trees(&roots, out, epoch).context(|| "cannot write the tar".to_owned())
            }
            Destination::Client(_) => Err(crate::error::internal("an output of the client came too far")),
            Destination::Path(path) => replace_file(path, |file| {
                let out = BufWriter::with_capacity(1 << 20, file);
                write_trees(&roots, out, epoch).map_err(std::io::Error::other)
            }),
        }
    })
    .await;
    step.end(written)
}

/// Writes trees one after the other, each below its prefix.
fn write_trees(
    roots: &[(String, Root)],
    out: impl std::io::Write,
    epoch: Option<i64>,
) -> Result<(), slipway_files::FilesError> {
    let time = epoch.map(|seconds| Time { seconds, nanoseconds: 0 });
    let mut writer = TarWriter::new(out, time);
    for (prefix, root) in roots {
        writer.tree(root, Path::new(prefix))?;
    }
    writer.finish().map(drop)
}
