//! Copying from one tree into another, with the meaning `COPY` has.
//!
//! Where a copy lands depends on the source and on what is there already, in ways the reference fixed: see
//! [`placement`]. The copying itself walks the source directory by directory; every directory, and every bunch
//! of files of a large one, is work for any thread. Files go through directory descriptors, so no path is
//! resolved for each of them. The attributes of directories are set when nothing is made in them any more, and
//! hard links are made at the end, since their first name has to be there.
//!
//! What is copied from a build context is compared with what its digest was taken of: a file that changed in
//! between fails the copy, so that no image holds what its cache key does not stand for.

pub(crate) mod data;
mod file;
mod placement;
mod walk;

use std::path::{Path, PathBuf};

use crate::digest_cache::DigestCache;
use crate::entry::Time;
use crate::error::{FilesError, Result};
use crate::mode::ModeChange;
use crate::patterns::{PatternMatcher, clean_relative};
use crate::root::Root;
use crate::tree::{FileTree, wildcard_paths};

pub(crate) use placement::Destination;

/// How a copy is made; the fields are those of the build graph's copy action.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Copies what is in a source directory instead of the directory.
    pub dir_copy_contents: bool,
    /// Makes the directory the destination is in.
    pub create_dest_path: bool,
    /// Takes the source as a pattern.
    pub allow_wildcard: bool,
    /// Accepts a pattern that matches nothing.
    pub allow_empty_wildcard: bool,
    /// Copies what a source that is a symbolic link leads to.
    pub follow_symlink: bool,
    /// Unpacks sources that are archives.
    pub attempt_unpack: bool,
    /// Patterns below a source directory of which one has to match.
    pub include: Vec<String>,
    /// Patterns below a source directory of which none may match.
    pub exclude: Vec<String>,
    /// Removes what is in the way, of whatever type.
    pub always_replace: bool,
    pub ownership: Ownership,
    pub mode: Option<ModeChange>,
    /// The modification time of all that is made; that of the source when absent.
    pub time: Option<Time>,
}

/// Whom copies belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// To the owner of the source, as its tree tells it.
    Source,
    /// To a given user and group.
    Fixed { uid: u32, gid: u32 },
    /// To whom this process makes files for; nothing is changed.
    Process,
}

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// How many files that are no directories were made.
    pub files: u64,
    /// How many bytes they hold.
    pub bytes: u64,
    /// Device files that this process is not allowed to make, in the destination.
    pub skipped_devices: Vec<PathBuf>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            dir_copy_contents: false,
            create_dest_path: false,
            allow_wildcard: false,
            allow_empty_wildcard: false,
            follow_symlink: false,
            attempt_unpack: false,
            include: Vec::new(),
            exclude: Vec::new(),
            always_replace: false,
            ownership: Ownership::Source,
            mode: None,
            time: None,
        }
    }
}

impl CopyReport {
    pub(crate) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.skipped_devices.extend(other.skipped_devices);
    }
}

/// Copies `source_path` of a tree to `dest_path` of another.
///
/// `digests` is what the key of the source was computed with; files it knows are checked against it.
pub fn copy(
    source: &dyn FileTree,
    source_path: &str,
    dest: &Root,
    dest_path: &str,
    options: &CopyOptions,
    digests: Option<&DigestCache>,
) -> Result<CopyReport> {
    let destination = Destination::parse(dest_path);
    if !options.create_dest_path {
        let resolved = dest.evaluate(&destination.path, true)?;
        let parent = resolved.parent().unwrap_or(Path::new(""));
        if dest.metadata(parent)?.is_none() {
            return Err(FilesError::NotFound { path: destination.path });
        }
    }
    let matches = if options.allow_wildcard {
        wildcard_paths(source, source_path, options.follow_symlink)?
    } else {
        vec![PathBuf::from(source_path)]
    };
    if matches.is_empty() && !options.allow_empty_wildcard {
        return Err(FilesError::NotFound { path: clean_relative(Path::new(source_path)) });
    }
    let mut report = CopyReport::default();
    for path in matches {
        if options.attempt_unpack
            && let Some(unpacked) =
                crate::archive::add(source, &path, dest, &destination.path, options, digests)?
        {
            report.add(unpacked);
            continue;
        }
        report.add(copy_one(source, &path, dest, &destination, options, digests)?);
    }
    Ok(report)
}

/// Copies a whole tree to a directory of the user's, as the `local` output does: the files belong to the user,
/// and replace what is in the way.
pub fn export(source: &dyn FileTree, dest: &Root) -> Result<CopyReport> {
    let options = CopyOptions {
        dir_copy_contents: true,
        create_dest_path: true,
        always_replace: true,
        ownership: Ownership::Process,
        ..CopyOptions::default()
    };
    copy_one(source, Path::new(""), dest, &Destination::parse("/"), &options, None)
}

/// Copies one path, which may still lead to a symbolic link.
fn copy_one(
    source: &dyn FileTree,
    path: &Path,
    dest: &Root,
    destination: &Destination,
    options: &CopyOptions,
    digests: Option<&DigestCache>,
) -> Result<CopyReport> {
    let compile = |patterns: &[String]| match patterns {
        [] => Ok(None),
        patterns => PatternMatcher::new(patterns).map(Some),
    };
    let job = walk::Job {
        source,
        dest,
        options,
        digests,
        include: compile(&options.include)?,
        exclude: compile(&options.exclude)?,
        data: data::Mover::default(),
        identity: file::Identity::of_process(),
    };
    let placed = placement::place(source, path, dest, destination, options)?;
    job.run(placed)
}
