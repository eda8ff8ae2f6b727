//! The files of the result, without an image around them: to a directory, or as a tar.

use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use slipway_files::archive::TarWriter;
use slipway_files::{Root, Time};
use slipway_model::solve::{Destination, FilesOutput};
use slipway_model::{Diagnostic, ErrorKind};

use super::layout::replace_file;
use super::{ExportContext, beside};
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
        let beside = match snapshot {
            Some(snapshot) => {
                let view = store.snapshots().mount_view(snapshot).diagnose()?;
                beside::make(context, result, output, &Root::from(view.into_fd()), split).await?
            }
            None => beside::Beside::new(),
        };
        let copied = blocking(move || {
            let doing = || format!("cannot write the files to `{}`", to.display());
            if delete {
                empty(&to)?;
            }
            std::fs::create_dir_all(&to).context(doing)?;
            let Some(snapshot) = snapshot else { return Ok(()) };
            let view = store.snapshots().mount_view(snapshot).diagnose()?;
            let from = Root::from(view.into_fd());
            slipway_files::export(&from, &Root::open(&to).context(doing)?).context(doing)?;
            beside.iter().try_for_each(|(name, text)| write_private(&to.join(name), text)).context(doing)
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

/// Writes a file that only its owner can read.
fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(content)
}

/// Returns the time that files have which nobody made before.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or_default(), nanoseconds: 0 }
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
        let Some(snapshot) = context.job.materialize(&result.tree, step.digest()).await? else { continue };
        let view = context.job.engine.store.snapshots().mount_view(snapshot).diagnose()?;
        let root = Root::from(view.into_fd());
        let beside = beside::make(context, result, output, &root, split).await?;
        let prefix = if split { result.platform.file_name() } else { String::new() };
        trees.push(Part { prefix, root, beside });
    }
    let (destination, epoch) = (output.destination.clone(), context.epoch);
    let written = blocking(move || match &destination {
        Destination::Stdout => {
            let out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            write_trees(&trees, out, epoch).context(|| "cannot write the tar".to_owned())
        }
        Destination::Client(_) => Err(crate::error::internal("an output of the client came too far")),
        Destination::Path(path) => replace_file(path, |file| {
            let out = BufWriter::with_capacity(1 << 20, file);
            write_trees(&trees, out, epoch).map_err(std::io::Error::other)
        }),
    })
    .await;
    step.end(written)
}

/// One platform's part of a tar.
struct Part {
    prefix: String,
    root: Root,
    beside: beside::Beside,
}

/// Writes trees one after the other, each below its prefix.
fn write_trees(
    parts: &[Part],
    out: impl std::io::Write,
    epoch: Option<i64>,
) -> Result<(), slipway_files::FilesError> {
    let time = epoch.map(|seconds| Time { seconds, nanoseconds: 0 });
    let mut writer = TarWriter::new(out, time);
    for part in parts {
        let prefix = Path::new(&part.prefix);
        writer.tree(&part.root, prefix)?;
        for (name, content) in &part.beside {
            writer.add_file(&prefix.join(name), content, now())?;
        }
    }
    writer.finish().map(drop)
}
