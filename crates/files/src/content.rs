//! The content key of a selection: what a `COPY` or a bind mount would see, as one digest.
//!
//! A key is made of names relative to what is selected, types, permission bits, owners, link targets, device
//! numbers, extended attributes and contents. It is not made of times, inode numbers, sizes of directories,
//! or the name of the selected file itself, so that a rebuilt or renamed source with the same content hits the
//! cache. Which files take part follows the reference: a selection with a wildcard or patterns lists the files
//! that match together with the directories they are in; a plain one takes a file, or a directory with all
//! below it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_model::{Digest, Digester};

use crate::digest_cache::{DigestCache, FileDigest};
use crate::entry::{Dir, EntryRef, FileKind};
use crate::error::{FilesError, Result};
use crate::hash;
use crate::patterns::{MatchInfo, PatternMatcher, clean_relative, has_wildcard, split_wildcards};
use crate::tree::{FileTree, wildcard_paths};

/// Part of a tree that a step depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A path, from the root of the tree.
    pub path: String,
    /// Whether the path may be a pattern.
    pub wildcard: bool,
    /// Whether a symbolic link that is selected stands for what it leads to.
    pub follow_links: bool,
    /// Patterns of which one has to match, relative to the path.
    pub include: Vec<String>,
    /// Patterns of which none may match, relative to the path.
    pub exclude: Vec<String>,
    /// Paths that have to be among the selected ones.
    pub required_paths: Vec<String>,
}

/// Computes the key of some selections of a tree, or of the whole tree when there are none.
///
/// Contents that `cache` does not know are read and added to it.
pub fn content_digest(tree: &dyn FileTree, selections: &[Selection], cache: &DigestCache) -> Result<Digest> {
    let whole = [Selection::default()];
    let selections = if selections.is_empty() { &whole } else { selections };
    let mut digester = Digester::new();
    for selection in selections {
        digester.field(Keyer { tree, cache }.select(selection)?.as_bytes());
    }
    Ok(digester.finish())
}

/// Computes the key of some selections of a tree that has no files at all.
pub fn digest_of_nothing(selections: &[Selection]) -> Result<Digest> {
    match selections
        .iter()
        .find(|selection| !clean_relative(Path::new(&selection.path)).as_os_str().is_empty())
    {
        Some(selection) => Err(FilesError::NotFound { path: selection.path.clone().into() }),
        None => Ok(Digest::of(b"")),
    }
}

struct Keyer<'t> {
    tree: &'t dyn FileTree,
    cache: &'t DigestCache,
}

/// One part of a key, in order.
enum Line {
    /// A file below a plain selection; its depth says which directory it is in.
    Below { depth: u32, file: Found },
    /// A file of a list, by its path.
    Listed { path: PathBuf, file: Found },
    /// What a selected symbolic link leads to.
    Followed { path: PathBuf, digest: Digest },
}

#[derive(Clone)]
struct Found {
    entry: EntryRef,
    /// The extended attributes of a directory.
    attributes: [u8; 16],
}

/// The patterns of a selection.
struct Filter {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
}

impl Keyer<'_> {
    fn select(&self, selection: &Selection) -> Result<Digest> {
        let wildcard = selection.wildcard && has_wildcard(&selection.path);
        if !wildcard && selection.include.is_empty() && selection.exclude.is_empty() {
            return self.plain(Path::new(&selection.path), selection.follow_links);
        }
        let lines = self.list(selection, wildcard)?;
        match &lines[..] {
            [] => Ok(Digest::of(b"")),
            // A single file keeps its key when the directory it is selected from is renamed.
            [Line::Listed { path, file }] if Path::new(&selection.path).file_name() == path.file_name() => {
                self.digest(&[Line::Below { depth: 0, file: file.clone() }])
            }
            [Line::Followed { path, digest }]
                if Path::new(&selection.path).file_name() == path.file_name() =>
            {
                Ok(*digest)
            }
            lines => self.digest(lines),
        }
    }

    /// Computes the key of one file, or of a directory with all below it.
    fn plain(&self, path: &Path, follow_links: bool) -> Result<Digest> {
        let not_found = || FilesError::NotFound { path: clean_relative(path) };
        let resolved = self.tree.resolve(path, follow_links)?;
        let entry = self.tree.find(&resolved)?.ok_or_else(not_found)?;
        let mut lines = Vec::new();
        if entry.metadata.is_dir() {
            self.tree.preload(&resolved)?;
            self.below(entry, &resolved, 0, &mut lines)?;
        } else {
            lines.push(Line::Below { depth: 0, file: Found { entry, attributes: [0; 16] } });
        }
        self.digest(&lines)
    }

    fn below(&self, entry: EntryRef, path: &Path, depth: u32, lines: &mut Vec<Line>) -> Result<()> {
        let dir = self.tree.children(path)?;
        lines.push(Line::Below { depth, file: Found { entry, attributes: dir.attributes } });
        for index in 0..dir.entries.len() {
            let entry = EntryRef::new(Arc::clone(&dir), index);
            if entry.metadata.is_dir() {
                self.below(entry, &dir.path.join(&dir.entries[index].name), depth + 1, lines)?;
            } else {
                lines.push(Line::Below { depth: depth + 1, file: Found { entry, attributes: [0; 16] } });
            }
        }
        Ok(())
    }

    /// Lists what a selection with a wildcard or patterns takes.
    fn list(&self, selection: &Selection, wildcard: bool) -> Result<Vec<Line>> {
        let compile = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => PatternMatcher::new(patterns).map(Some),
        };
        let filter = Filter { include: compile(&selection.include)?, exclude: compile(&selection.exclude)? };
        let (shown_base, tops) = if wildcard {
            let (plain, _) = split_wildcards(&selection.path);
            (plain, wildcard_paths(self.tree, &selection.path, true)?)
        } else {
            let path = clean_relative(Path::new(&selection.path));
            let resolved = self.tree.resolve(&path, false)?;
            (path, vec![resolved])
        };
        let base = self.tree.resolve(&shown_base, wildcard)?;
        let mut walk = Listing { keyer: self, filter, selection, base: &base, lines: Vec::new() };
        for top in tops {
            walk.top(&top)?;
        }
        let lines = walk.lines;
        for required in &selection.required_paths {
            let required = clean_relative(Path::new(required));
            let taken = |line: &Line| {
                let (Line::Listed { path, .. } | Line::Followed { path, .. }) = line else { return false };
                shown_base.join(path).as_os_str().as_bytes().starts_with(required.as_os_str().as_bytes())
            };
            if !lines.iter().any(taken) {
                return Err(FilesError::NotFound { path: required });
            }
        }
        Ok(lines)
    }

    /// Hashes the lines, after the contents that are not known.
    fn digest(&self, lines: &[Line]) -> Result<Digest> {
        // Looking up a digest is a search in the index: it is done once for each file.
        let mut known: Vec<Option<FileDigest>> = lines.iter().map(|line| self.known(line)).collect();
        let missing = lines.iter().zip(&known).filter(|(_, known)| known.is_none());
        let missing: Vec<EntryRef> = missing.filter_map(|(line, _)| regular(line)).cloned().collect();
        if !missing.is_empty() {
            hash::fill(self.tree, self.cache, missing)?;
            for (line, known) in lines.iter().zip(&mut known).filter(|(_, known)| known.is_none()) {
                *known = self.known(line);
            }
        }
        let mut digester = Digester::new();
        for (line, known) in lines.iter().zip(known) {
            match line {
                Line::Below { depth, file } => {
                    digester.update(depth.to_le_bytes());
                    digester.field(if *depth == 0 { b"" } else { file.entry.name.as_bytes() });
                    self.add(file, known, &mut digester)?;
                }
                Line::Listed { path, file } => {
                    digester.field(path.as_os_str().as_bytes());
                    self.add(file, known, &mut digester)?;
                }
                Line::Followed { path, digest } => {
                    digester.field(path.as_os_str().as_bytes());
                    digester.field(digest.as_bytes());
                }
            }
        }
        Ok(digester.finish())
    }

    fn known(&self, line: &Line) -> Option<FileDigest> {
        regular(line).and_then(|entry| self.cache.get(&entry.metadata))
    }

    /// Hashes the attributes and the content of one file.
    fn add(&self, file: &Found, known: Option<FileDigest>, digester: &mut Digester) -> Result<()> {
        let metadata = &file.entry.metadata;
        let owner = self.tree.owner();
        let is_root = file.entry.name.is_empty();
        // The attributes of a context's own directory are nobody's concern.
        if is_root && owner.is_some() {
            digester.field("root");
            return Ok(());
        }
        let (uid, gid) = owner.unwrap_or((metadata.uid, metadata.gid));
        let mut fixed = [0_u8; 40];
        fixed[0] = kind_byte(metadata.kind);
        let mode = if metadata.kind == FileKind::Symlink { 0o777 } else { metadata.mode };
        fixed[4..8].copy_from_slice(&mode.to_le_bytes());
        fixed[8..12].copy_from_slice(&uid.to_le_bytes());
        fixed[12..16].copy_from_slice(&gid.to_le_bytes());
        fixed[16..20].copy_from_slice(&metadata.special.0.to_le_bytes());
        fixed[20..24].copy_from_slice(&metadata.special.1.to_le_bytes());
        let mut attributes = file.attributes;
        let mut content = None;
        if metadata.kind == FileKind::File {
            let digest = known.ok_or_else(|| FilesError::ChangedDuringBuild { path: file.entry.path() })?;
            attributes = digest.attributes;
            content = Some(digest.content);
        }
        fixed[24..40].copy_from_slice(&attributes);
        digester.update(fixed);
        match (&content, &file.entry.target) {
            (Some(content), _) => digester.update(content.as_bytes()),
            (None, Some(target)) => digester.field(target.as_bytes()),
            (None, None) => {}
        }
        Ok(())
    }
}

/// The walk that lists what patterns select.
struct Listing<'k, 't> {
    keyer: &'k Keyer<'t>,
    filter: Filter,
    selection: &'k Selection,
    base: &'k Path,
    lines: Vec<Line>,
}

/// The directories from the top to where the walk is, which are listed once something below them is.
struct Trail<'a> {
    above: Option<&'a Trail<'a>>,
    path: PathBuf,
    file: Found,
    listed: std::cell::Cell<bool>,
}

impl Listing<'_, '_> {
    /// Lists one path that is selected by itself, and what is below it.
    fn top(&mut self, path: &Path) -> Result<()> {
        let tree = self.keyer.tree;
        let Some(entry) = tree.find(path)? else {
            let absent = self.selection.include.is_empty();
            return if absent { Err(FilesError::NotFound { path: path.to_owned() }) } else { Ok(()) };
        };
        let (taken, include, exclude) =
            self.judge(Path::new(""), &MatchInfo::default(), &MatchInfo::default());
        let label = path.strip_prefix(self.base).unwrap_or(path).to_owned();
        if entry.metadata.is_dir() {
            let dir = tree.children(path)?;
            let file = Found { entry, attributes: dir.attributes };
            let trail = Trail { above: None, path: label, file, listed: false.into() };
            // The directory a whole tree is selected from is not part of the selection.
            trail.listed.set(path.as_os_str().is_empty());
            if taken {
                self.announce(&trail);
            }
            return self.directory(&dir, Path::new(""), &trail, (&include, &exclude));
        }
        if !taken {
            return Ok(());
        }
        if entry.metadata.kind == FileKind::Symlink && self.selection.follow_links {
            let digest = self.keyer.plain(path, true)?;
            self.lines.push(Line::Followed { path: label, digest });
        } else {
            self.lines.push(Line::Listed { path: label, file: Found { entry, attributes: [0; 16] } });
        }
        Ok(())
    }

    fn directory(
        &mut self,
        dir: &Arc<Dir>,
        relative: &Path,
        trail: &Trail<'_>,
        (include, exclude): (&MatchInfo, &MatchInfo),
    ) -> Result<()> {
        for (index, child) in dir.entries.iter().enumerate() {
            let below = relative.join(&child.name);
            let (taken, include, exclude) = self.judge(&below, include, exclude);
            let entry = EntryRef::new(Arc::clone(dir), index);
            let label = trail.path.join(&child.name);
            if child.metadata.is_dir() {
                if !taken && !self.may_take_below(&below) {
                    continue;
                }
                let dir = self.keyer.tree.children(&dir.path.join(&child.name))?;
                let file = Found { entry, attributes: dir.attributes };
                let trail = Trail { above: Some(trail), path: label, file, listed: false.into() };
                if taken {
                    self.announce(&trail);
                }
                self.directory(&dir, &below, &trail, (&include, &exclude))?;
            } else if taken {
                self.announce(trail);
                self.lines.push(Line::Listed { path: label, file: Found { entry, attributes: [0; 16] } });
            }
        }
        Ok(())
    }

    /// Lists a directory and those above it, outermost first, where not done yet.
    fn announce(&mut self, trail: &Trail<'_>) {
        if trail.listed.replace(true) {
            return;
        }
        if let Some(above) = trail.above {
            self.announce(above);
        }
        self.lines.push(Line::Listed { path: trail.path.clone(), file: trail.file.clone() });
    }

    fn judge(&self, path: &Path, include: &MatchInfo, exclude: &MatchInfo) -> (bool, MatchInfo, MatchInfo) {
        let (included, include) = match &self.filter.include {
            Some(matcher) => matcher.matches_below(path, include),
            None => (true, MatchInfo::default()),
        };
        let (excluded, exclude) = match &self.filter.exclude {
            Some(matcher) => matcher.matches_below(path, exclude),
            None => (false, MatchInfo::default()),
        };
        (included && !excluded, include, exclude)
    }

    /// Says whether something below a directory that is not taken could be.
    fn may_take_below(&self, path: &Path) -> bool {
        let included = self
            .filter
            .include
            .as_ref()
            .is_none_or(|matcher| matcher.may_match_below(path) || matcher.matches_or_parent(path));
        let back = self
            .filter
            .exclude
            .as_ref()
            .is_none_or(|matcher| !matcher.matches_or_parent(path) || matcher.may_take_back_below(path));
        included && back
    }
}

/// Returns the file of a line if it is one with content.
fn regular(line: &Line) -> Option<&EntryRef> {
    match line {
        Line::Below { file, .. } | Line::Listed { file, .. } => {
            (file.entry.metadata.kind == FileKind::File).then_some(&file.entry)
        }
        Line::Followed { .. } => None,
    }
}

fn kind_byte(kind: FileKind) -> u8 {
    match kind {
        FileKind::File => b'f',
        FileKind::Directory => b'd',
        FileKind::Symlink => b'l',
        FileKind::Fifo => b'p',
        FileKind::Socket => b's',
        FileKind::CharacterDevice => b'c',
        FileKind::BlockDevice => b'b',
    }
}
