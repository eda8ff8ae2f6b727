//! Where a copy lands.
//!
//! A destination that ends in a slash is a directory, which is made if need be. A file copied to a directory
//! goes into it under its own name, that is, the name it was asked for by, not that of what it links to. A
//! directory is copied as its contents or, where contents are not asked for, into an existing directory under
//! its own name. Symbolic links on the way in the destination are followed within its root.

use std::path::{Component, Path, PathBuf};

use crate::copy::CopyOptions;
use crate::entry::EntryRef;
use crate::error::{FilesError, Result};
use crate::patterns::clean_relative;
use crate::root::{NewDir, Root};
use crate::tree::FileTree;

/// A destination as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The path, relative to the root.
    pub(crate) path: PathBuf,
    /// Whether it was written as a directory.
    pub(crate) is_directory: bool,
}

/// A source and the path its copy gets.
pub(super) struct Placed {
    /// The path of the source, without symbolic links.
    pub(super) source: PathBuf,
    pub(super) entry: EntryRef,
    /// The path in the destination, without symbolic links but for its last name.
    pub(super) target: PathBuf,
    /// The directories that were made for it.
    pub(super) made: Vec<PathBuf>,
}

impl Destination {
    pub(crate) fn parse(text: &str) -> Self {
        let path = clean_relative(Path::new(text));
        let is_directory = text.ends_with('/') || text.ends_with("/.") || path.as_os_str().is_empty();
        Self { path, is_directory }
    }
}

/// Resolves the source and the destination, and makes the directories the copy goes into.
pub(super) fn place(
    source: &dyn FileTree,
    path: &Path,
    dest: &Root,
    destination: &Destination,
    options: &CopyOptions,
) -> Result<Placed> {
    let new = NewDir { mode: parent_mode(options), owner: fixed_owner(options), time: options.time };
    let wanted = match (destination.is_directory, destination.path.parent()) {
        (false, Some(parent)) => parent,
        _ => &destination.path,
    };
    let mut made = dest.create_dir_all(&dest.evaluate(wanted, true)?, new)?;
    let mut target = dest.evaluate(&destination.path, true)?;

    let resolved = source.resolve(path, options.follow_symlink)?;
    let entry = source.find(&resolved)?.ok_or_else(|| FilesError::NotFound { path: clean_relative(path) })?;
    let is_directory = entry.metadata.is_dir();
    let existing = dest.metadata(&target)?;
    let into = match &existing {
        Some(_) if is_directory => !options.dir_copy_contents,
        Some(existing) => existing.is_dir(),
        None => false,
    };
    if into && let Some(Component::Normal(name)) = path.components().next_back() {
        target.push(name);
    }
    let directory = if options.dir_copy_contents && is_directory && existing.is_none() {
        target.as_path()
    } else {
        target.parent().unwrap_or(Path::new(""))
    };
    made.extend(dest.create_dir_all(directory, new)?);
    Ok(Placed { source: resolved, entry, target, made })
}

/// Returns the mode of directories made on the way: a symbolic change has nothing to apply to there.
fn parent_mode(options: &CopyOptions) -> u32 {
    match &options.mode {
        Some(crate::ModeChange::Exact(mode)) => mode & 0o777,
        _ => 0o755,
    }
}

fn fixed_owner(options: &CopyOptions) -> Option<(u32, u32)> {
    match options.ownership {
        crate::Ownership::Fixed { uid, gid } => Some((uid, gid)),
        crate::Ownership::Source | crate::Ownership::Process => None,
    }
}
