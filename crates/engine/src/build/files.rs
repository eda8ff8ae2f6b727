//! Looking into a result: reading a file, listing a directory, asking for attributes.
//!
//! Paths are the client's: links are resolved inside the tree and `..` ends at its top, so no path leads out.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use slipway_files::FileKind;
use slipway_files::patterns::wildcard_match;
use slipway_files::{Entry, FileTree, Metadata, Root, Time};
use slipway_model::{Diagnostic, ErrorKind};

use super::{Build, Ref};
use crate::error::{Context as _, blocking};
use crate::tree::Tree;

/// The most that is read of a file at once.
const MAX_READ: u64 = 16 << 20;

/// What is known of a file.
#[derive(Clone, Debug)]
pub struct FileInfo {
    /// The name in its directory, or the path that was asked for.
    pub path: String,
    pub kind: FileKind,
    /// The permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub modified: Time,
    /// The target of a symbolic link, or empty.
    pub link: String,
    /// The device a device file stands for, as (major, minor).
    pub device: (u32, u32),
}

impl FileInfo {
    fn new(
        path: String,
        metadata: &Metadata,
        target: Option<&std::ffi::OsStr>,
        owner: Option<(u32, u32)>,
    ) -> Self {
        let (uid, gid) = owner.unwrap_or((metadata.uid, metadata.gid));
        Self {
            path,
            kind: metadata.kind,
            mode: metadata.mode,
            uid,
            gid,
            size: metadata.size,
            modified: metadata.modified,
            link: target.map(|t| t.to_string_lossy().into_owned()).unwrap_or_default(),
            device: metadata.special,
        }
    }

    fn of_entry(entry: &Entry, owner: Option<(u32, u32)>) -> Self {
        let name = entry.name.to_string_lossy().into_owned();
        Self::new(name, &entry.metadata, entry.target.as_deref(), owner)
    }
}

impl Build {
    /// Reads a file, or the part of it that `range` names.
    pub async fn read_file(
        &self,
        reference: Option<&Ref>,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<Vec<u8>, Diagnostic> {
        let path = path.to_owned();
        self.look(reference, move |tree| read_file(tree, &path, range.clone())).await
    }

    /// Lists a directory, with `pattern` only the names that match it.
    pub async fn read_dir(
        &self,
        reference: Option<&Ref>,
        path: &str,
        pattern: Option<&str>,
    ) -> Result<Vec<FileInfo>, Diagnostic> {
        let (path, pattern) = (path.to_owned(), pattern.map(str::to_owned));
        self.look(reference, move |tree| read_dir(tree, &path, pattern.as_deref())).await
    }

    /// Returns the attributes of a file; a symbolic link's are its own.
    pub async fn stat_file(&self, reference: Option<&Ref>, path: &str) -> Result<FileInfo, Diagnostic> {
        let path = path.to_owned();
        self.look(reference, move |tree| stat_file(tree, &path)).await
    }

    /// Opens a file, to be read however large it is.
    pub(crate) async fn open_file(&self, reference: &Ref, path: &str) -> Result<std::fs::File, Diagnostic> {
        let path = path.to_owned();
        self.look(Some(reference), move |tree| open_file(tree, &path)).await
    }

    /// Does something with the files of a reference.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        reference: Option<&Ref>,
        work: impl Fn(&dyn FileTree) -> Result<T, Diagnostic> + Send + Sync + 'static,
    ) -> Result<T, Diagnostic> {
        let (job, work) = (&self.job, Arc::new(work));
        self.run(|| async {
            let work = work.clone();
            let tree = match reference {
                Some(reference) => reference.tree(job).await?,
                None => Tree::Empty,
            };
            if let Tree::Local(context) = tree {
                return blocking(move || work(context.tree())).await;
            }
            let vertex = slipway_model::Digest::of("read");
            let root = match job.materialize(&tree, vertex).await? {
                Some(snapshot) => job.engine.store.snapshots().mount_view(snapshot).diagnose()?.into_fd(),
                None => job.empty_directory()?,
            };
            blocking(move || work(&Root::from(root))).await
        })
        .await
    }
}

fn not_found(path: &str) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("{path}: no such file or directory"))
}

/// Resolves the links of a path, and finds what is there.
fn resolve(tree: &dyn FileTree, path: &str, follow_last: bool) -> Result<PathBuf, Diagnostic> {
    let relative = Path::new(path.trim_start_matches('/'));
    tree.resolve(relative, follow_last).diagnose()
}

pub(crate) fn read_file(
    tree: &dyn FileTree,
    path: &str,
    range: Option<Range<u64>>,
) -> Result<Vec<u8>, Diagnostic> {
    read_up_to(tree, path, range, MAX_READ)
}

/// Reads a file, or a part of it, of at most `limit` bytes.
pub(crate) fn read_up_to(
    tree: &dyn FileTree,
    path: &str,
    range: Option<Range<u64>>,
    limit: u64,
) -> Result<Vec<u8>, Diagnostic> {
    use std::os::unix::fs::FileExt as _;
    let doing = || format!("cannot read `{path}`");
    let file = open_file(tree, path)?;
    let size = file.metadata().context(doing)?.len();
    let Range { start, end } = range.unwrap_or(0..size);
    let length = end.min(size).saturating_sub(start);
    if length > limit {
        return Err(Diagnostic::new(ErrorKind::User, doing())
            .cause(format!("{length} bytes are more than the limit of {limit}")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, start).context(doing)?;
    Ok(bytes)
}

fn open_file(tree: &dyn FileTree, path: &str) -> Result<std::fs::File, Diagnostic> {
    let doing = || format!("cannot read `{path}`");
    let resolved = resolve(tree, path, true)?;
    let entry = tree.find(&resolved).diagnose()?.ok_or_else(|| not_found(path))?;
    if entry.metadata.kind != FileKind::File {
        return Err(Diagnostic::new(ErrorKind::User, doing()).cause("it is not a regular file"));
    }
    let name = resolved.file_name().ok_or_else(|| not_found(path))?;
    let directory = tree.open_dir(resolved.parent().unwrap_or(Path::new(""))).context(doing)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, name, flags, rustix::fs::Mode::empty())
        .map_err(std::io::Error::from)
        .context(doing)?;
    Ok(std::fs::File::from(file))
}

pub(super) fn read_dir(
    tree: &dyn FileTree,
    path: &str,
    pattern: Option<&str>,
) -> Result<Vec<FileInfo>, Diagnostic> {
    use std::os::unix::ffi::OsStrExt as _;
    let resolved = resolve(tree, path, true)?;
    let entry = tree.find(&resolved).diagnose()?.ok_or_else(|| not_found(path))?;
    if !entry.metadata.is_dir() {
        return Err(Diagnostic::new(ErrorKind::User, format!("{path}: not a directory")));
    }
    let directory = tree.children(&resolved).context(|| format!("cannot read `{path}`"))?;
    let wanted = |entry: &&Entry| pattern.is_none_or(|p| wildcard_match(p, entry.name.as_bytes()));
    Ok(directory.entries.iter().filter(wanted).map(|e| FileInfo::of_entry(e, tree.owner())).collect())
}

pub(super) fn stat_file(tree: &dyn FileTree, path: &str) -> Result<FileInfo, Diagnostic> {
    let resolved = resolve(tree, path, false)?;
    let entry = tree.find(&resolved).diagnose()?.ok_or_else(|| not_found(path))?;
    let name = resolved.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileInfo::new(name, &entry.metadata, entry.target.as_deref(), tree.owner()))
}
