//! Trees of files seen by the engine: digests of selections, snapshots of contexts, copies to directories.

use std::path::{Path, PathBuf};

use slipway_files::{DigestCache, FileTree, Root, Selection as FileSelection, Stability};
use slipway_model::{Diagnostic, Digest, Digester, ErrorKind};
use slipway_store::{CommitInfo, Lease, SnapshotId, Store};

use crate::error::{Context as _, Explain as _};
use crate::job::Job;
use crate::ops::keys::Selection;
use crate::sources::local::LocalContext;

/// Marks the first cause of a diagnostic about a path that is missing.
const MISSING: &str = "failed to calculate checksum of ";

impl Selection {
    /// Adds what is selected to a key.
    pub(crate) fn key(&self, digester: &mut Digester) {
        let files = self.files();
        digester.field(&files.path);
        digester.field([u8::from(files.wildcard), u8::from(files.follow_links)]);
        for list in [&files.include, &files.exclude, &files.required_paths] {
            digester.field((list.len() as u64).to_le_bytes());
            list.iter().for_each(|item| digester.field(item));
        }
    }

    fn files(&self) -> FileSelection {
        match self {
            Self::Path(path) => {
                FileSelection { path: path.clone(), follow_links: true, ..FileSelection::default() }
            }
            Self::Copy(copy) => FileSelection {
                path: copy.src.clone(),
                wildcard: copy.allow_wildcard && slipway_files::patterns::has_wildcard(&copy.src),
                follow_links: copy.follow_symlink,
                include: copy.include_patterns.clone(),
                exclude: copy.exclude_patterns.clone(),
                required_paths: copy.required_paths.clone(),
            },
        }
    }
}

/// Computes the digest of what is selected of a tree; a missing path is the error a Dockerfile's author reads.
pub(crate) fn of_tree(
    tree: &dyn FileTree,
    cache: &DigestCache,
    selections: &[Selection],
) -> Result<Digest, Diagnostic> {
    let selections: Vec<FileSelection> = selections.iter().map(Selection::files).collect();
    slipway_files::content_digest(tree, &selections, cache).map_err(explain_missing)
}

pub(crate) fn explain_missing(error: slipway_files::FilesError) -> Diagnostic {
    if !error.is_not_found() {
        return error.explain();
    }
    let path = error.path().map(|p| p.display().to_string()).unwrap_or_default();
    let path = format!("/{}", path.trim_start_matches('/'));
    Diagnostic::new(ErrorKind::User, format!("failed to compute cache key: {MISSING}\"{path}\": not found"))
}

/// Says that what has no files has not this one.
fn explain_nothing(error: slipway_files::FilesError) -> Diagnostic {
    let path = error.path().map(|p| p.display().to_string()).unwrap_or_default();
    let path = format!("/{}", path.trim_start_matches('/'));
    Diagnostic::new(
        ErrorKind::User,
        format!("failed to compute cache key: {path}: no such file or directory"),
    )
    .cause("what it is copied from is empty")
}

/// Finds the path that a diagnostic of [`of_tree`] says is missing.
pub(crate) fn missing_path(diagnostic: &Diagnostic) -> Option<PathBuf> {
    let (_, rest) = diagnostic.message.split_once(MISSING)?;
    let path = rest.strip_prefix('"')?.split('"').next()?;
    Some(PathBuf::from(path.trim_start_matches('/')))
}

/// Computes the digest of what is selected of a snapshot, which must be unpacked.
///
/// Contents are hashed once for each snapshot: the index of its files is kept.
pub(crate) fn of_snapshot(
    job: &Job,
    snapshot: Option<SnapshotId>,
    selections: &[Selection],
) -> Result<Digest, Diagnostic> {
    let Some(id) = snapshot else {
        let files: Vec<FileSelection> = selections.iter().map(Selection::files).collect();
        return slipway_files::digest_of_nothing(&files).map_err(explain_nothing);
    };
    let cache = DigestCache::in_memory(Stability::Frozen);
    of_tree(&*job.view(id)?, &cache, selections)
}

/// Copies a snapshot's files into a directory of the host, owners included.
pub(crate) fn copy_out(store: &Store, snapshot: SnapshotId, directory: &Path) -> Result<(), Diagnostic> {
    let mounted = store.snapshots().mount_view(snapshot).diagnose()?;
    let from = Root::from(mounted.into_fd());
    let to = Root::open(directory).diagnose()?;
    let options = slipway_files::CopyOptions { dir_copy_contents: true, ..Default::default() };
    slipway_files::copy(&from, "/", &to, "/", &options, None).diagnose().map(drop)
}

/// Makes a snapshot of a context, without what is excluded.
pub(crate) fn snapshot_of_context(
    store: &Store,
    lease: &Lease,
    context: &LocalContext,
) -> Result<SnapshotId, Diagnostic> {
    let active = store.snapshots().prepare(None, lease).diagnose()?;
    let root = Root::from(active.mount().diagnose()?.into_fd());
    let options = slipway_files::CopyOptions { dir_copy_contents: true, ..Default::default() };
    slipway_files::copy(context.tree(), "/", &root, "/", &options, Some(context.digests())).diagnose()?;
    drop(root);
    let info =
        CommitInfo { description: format!("[internal] context {}", context.name), ..CommitInfo::default() };
    active.commit(&info).diagnose()
}
