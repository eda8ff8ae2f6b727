//! What can be read like a tree of files, and how names in it are found.
//!
//! A path given to a [`FileTree`] is relative to its root and leads through no symbolic link; [`resolve`] makes
//! one of any path, as if the root were `/`. The tree of a build context and that of a root file system differ
//! only in which names they show and whose the files are.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::entry::{Dir, EntryRef, FileKind};
use crate::error::{FilesError, Result};
use crate::patterns::{is_well_formed, split_wildcards, wildcard_match};
use crate::root::MAX_LINKS;

/// A tree of files that can be looked at and read.
pub trait FileTree: Sync {
    /// Looks up one path; `None` when the tree has no such file. The empty path is the root.
    fn find(&self, path: &Path) -> Result<Option<EntryRef>>;

    /// Reads a directory.
    fn children(&self, path: &Path) -> Result<Arc<Dir>>;

    /// Opens a directory, to open files in it.
    fn open_dir(&self, path: &Path) -> Result<OwnedFd>;

    /// Whose the files are, if not who owns them on disk.
    fn owner(&self) -> Option<(u32, u32)> {
        None
    }

    /// Reads all directories from `path` down at once, if that is faster than one by one.
    fn preload(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    /// Resolves symbolic links inside the tree.
    fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf>;
}

/// Resolves the symbolic links of `path` inside the tree; names that do not exist stay as they are.
pub fn resolve(tree: &dyn FileTree, path: &Path, follow_last: bool) -> Result<PathBuf> {
    tree.resolve(path, follow_last)
}

/// Resolves name by name, which is right for every tree.
pub(crate) fn resolve_by_steps(
    tree: &(impl FileTree + ?Sized),
    path: &Path,
    follow_last: bool,
) -> Result<PathBuf> {
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(&name);
        let Some(target) = tree.find(&at)?.and_then(|entry| entry.target.clone()) else { continue };
        if left.is_empty() && !follow_last {
            break;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(FilesError::TooManyLinks { path: path.to_owned() });
        }
        at.pop();
        let target = Path::new(&*target);
        if target.has_root() {
            at.clear();
        }
        for name in names(target).rev() {
            left.push_front(name);
        }
    }
    Ok(at)
}

/// Lists the names of a path; `.` and slashes say nothing.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Finds the paths a `COPY` source with wildcards means, in the order of a walk.
///
/// The part before the first wildcard is resolved; what matches is not: the paths found may lead to symbolic
/// links. A source without wildcard is returned as it is, existing or not. An existing directory that matches
/// stands for all below it.
pub fn wildcard_paths(tree: &dyn FileTree, source: &str, follow_links: bool) -> Result<Vec<PathBuf>> {
    let (plain, pattern) = split_wildcards(source);
    let Some(pattern) = pattern else { return Ok(vec![plain]) };
    if !is_well_formed(pattern.as_bytes()) {
        return Err(FilesError::BadPattern { pattern: source.to_owned() });
    }
    let base = tree.resolve(&plain, follow_links)?;
    let mut found = Vec::new();
    match tree.find(&base)? {
        Some(entry) if entry.metadata.kind == FileKind::Directory => {
            let names: Vec<&str> = pattern.split('/').collect();
            expand(tree, &base, &names, &mut found)?;
            Ok(found)
        }
        Some(_) => Ok(found),
        None => Err(FilesError::NotFound { path: base }),
    }
}

/// Walks down one name of the pattern at a time: a wildcard never stands for a slash.
fn expand(tree: &dyn FileTree, directory: &Path, pattern: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    let Some((name_pattern, rest)) = pattern.split_first() else { return Ok(()) };
    for entry in &tree.children(directory)?.entries {
        if !wildcard_match(name_pattern, OsStr::as_bytes(&entry.name)) {
            continue;
        }
        let path = directory.join(&entry.name);
        if rest.is_empty() {
            found.push(path);
        } else if entry.metadata.is_dir() {
            expand(tree, &path, rest, found)?;
        }
    }
    Ok(())
}

/// Finds the path most like one that does not exist, for a hint.
///
/// The directories that exist are taken as they are; the first name that does not is compared with those there.
pub fn nearest_path(tree: &dyn FileTree, path: &Path) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    for name in names(path) {
        let next = tree.resolve(&at.join(&name), true).ok()?;
        if tree.find(&next).ok()?.is_some() {
            at = next;
            continue;
        }
        let wanted = name.to_string_lossy().to_lowercase();
        let children = tree.children(&at).ok()?;
        let likeness = |entry: &crate::Entry| {
            let have = entry.name.to_string_lossy().to_lowercase();
            strsim::damerau_levenshtein(&wanted, &have)
        };
        let best = children.entries.iter().min_by_key(|entry| likeness(entry))?;
        let close = likeness(best) <= 1 + wanted.chars().count() / 4;
        return close.then(|| at.join(&best.name));
    }
    None
}
