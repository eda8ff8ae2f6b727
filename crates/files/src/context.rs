//! A build context: a directory of the user's, read in place, without what its ignore file excludes.
//!
//! Directories are read when something first asks for them, and kept, so that the whole build sees one state
//! of the names and attributes. An excluded directory is in the tree only for what an exception (`!`) takes
//! back below it. Sockets are left out: no image can hold them. All files belong to user and group 0.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::FileType;

use crate::entry::{Dir, Entry, EntryRef, FileKind};
use crate::error::{FilesError, Result};
use crate::hash::attributes_digest;
use crate::patterns::{MatchInfo, Pattern, PatternMatcher};
use crate::root::{Root, read_directory, stat_fd};
use crate::tree::{FileTree, resolve_by_steps};
use crate::work;

/// The files of a build context.
#[derive(Debug)]
pub struct ContextTree {
    root: Root,
    excludes: PatternMatcher,
    top: Node,
    /// A directory that is not on disk, whose one entry is the root, so that the root can be looked up.
    outside: Arc<Dir>,
}

/// A directory of the context, read or not.
#[derive(Debug)]
struct Node {
    path: PathBuf,
    matched: MatchInfo,
    loaded: OnceLock<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    dir: Arc<Dir>,
    /// The directories among the entries, in the same order, with their index there.
    directories: Vec<(usize, Arc<Node>)>,
}

impl ContextTree {
    /// Takes a directory as context; nothing but its own attributes is read yet.
    pub fn new(root: Root, excludes: PatternMatcher) -> Result<Self> {
        let fd = root.open_directory(Path::new(""))?;
        let metadata = stat_fd(&fd).map_err(FilesError::os("lstat", Path::new("")))?;
        let entries = vec![Entry { name: OsStr::new("").into(), metadata, target: None }];
        let outside = Arc::new(Dir { path: PathBuf::new(), entries, attributes: [0; 16] });
        let top = Node { path: PathBuf::new(), matched: MatchInfo::default(), loaded: OnceLock::new() };
        Ok(Self { root, excludes, top, outside })
    }

    /// Tells whether the ignore file takes something back (`!pattern`).
    pub fn has_exceptions(&self) -> bool {
        self.excludes.has_exceptions()
    }

    /// Returns the pattern that keeps `path` out of the context, whether or not such a file exists.
    pub fn excluded_by(&self, path: &Path) -> Option<&Pattern> {
        let path = crate::patterns::clean_relative(path);
        self.excludes.decide(&path).filter(|pattern| !pattern.text.trim_start().starts_with('!'))
    }

    /// Returns the directory the context is in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    fn load<'n>(&self, node: &'n Node) -> Result<&'n Loaded> {
        if let Some(loaded) = node.loaded.get() {
            return Ok(loaded);
        }
        // Two threads may read one directory at once; the first to finish decides what is in it.
        let loaded = self.read(node)?;
        Ok(node.loaded.get_or_init(|| loaded))
    }

    fn read(&self, node: &Node) -> Result<Loaded> {
        let fd = self.root.open_directory(&node.path)?;
        let mut path = node.path.clone();
        let mut pruned = |name: &OsStr, kind: FileType| {
            path.push(name);
            let excluded = self.excludes.matches_leaf(&path, &node.matched);
            let entered = matches!(kind, FileType::Directory | FileType::Unknown)
                && self.excludes.has_exceptions()
                && self.excludes.may_take_back_below(&path);
            path.pop();
            excluded && !entered
        };
        let found = if self.excludes.is_empty() {
            read_directory(&fd, &node.path, |_, kind| kind != FileType::Socket)?
        } else {
            read_directory(&fd, &node.path, |name, kind| kind != FileType::Socket && !pruned(name, kind))?
        };
        let attributes = attributes_digest(&fd, &node.path)?;
        drop(fd);
        let mut entries = Vec::with_capacity(found.len());
        let mut directories = Vec::new();
        for entry in found {
            match entry.metadata.kind {
                FileKind::Socket => {}
                FileKind::Directory => {
                    let path = node.path.join(&entry.name);
                    let (excluded, matched) = self.excludes.matches_below(&path, &node.matched);
                    let below = Arc::new(Node { path, matched, loaded: OnceLock::new() });
                    if !excluded || !self.load(&below)?.dir.entries.is_empty() {
                        directories.push((entries.len(), below));
                        entries.push(entry);
                    }
                }
                // A file that is excluded got here only if the file system did not tell its type.
                _ if self.excludes.has_exceptions()
                    && self.excludes.matches_leaf(&node.path.join(&entry.name), &node.matched) => {}
                _ => entries.push(entry),
            }
        }
        Ok(Loaded { dir: Arc::new(Dir { path: node.path.clone(), entries, attributes }), directories })
    }

    /// Finds the node of a directory; `None` when there is no such directory.
    fn node(&self, path: &Path) -> Result<Option<NodeRef<'_>>> {
        let mut at = NodeRef::Top(&self.top);
        for name in path.components() {
            let loaded = self.load(at.get())?;
            let Some(index) = loaded.dir.find(name.as_os_str()) else { return Ok(None) };
            let Ok(position) = loaded.directories.binary_search_by_key(&index, |(index, _)| *index) else {
                return Ok(None);
            };
            at = NodeRef::Below(Arc::clone(&loaded.directories[position].1));
        }
        Ok(Some(at))
    }
}

/// The top of the context, or a directory below it.
enum NodeRef<'t> {
    Top(&'t Node),
    Below(Arc<Node>),
}

impl NodeRef<'_> {
    fn get(&self) -> &Node {
        match self {
            Self::Top(node) => node,
            Self::Below(node) => node,
        }
    }
}

impl FileTree for ContextTree {
    fn find(&self, path: &Path) -> Result<Option<EntryRef>> {
        let Some(name) = path.file_name() else {
            return Ok(Some(EntryRef::new(Arc::clone(&self.outside), 0)));
        };
        let Some(node) = self.node(path.parent().unwrap_or(Path::new("")))? else { return Ok(None) };
        let dir = &self.load(node.get())?.dir;
        Ok(dir.find(name).map(|index| EntryRef::new(Arc::clone(dir), index)))
    }

    fn children(&self, path: &Path) -> Result<Arc<Dir>> {
        match self.node(path)? {
            Some(node) => Ok(Arc::clone(&self.load(node.get())?.dir)),
            None => Err(FilesError::NotFound { path: path.to_owned() }),
        }
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        self.root.open_directory(path)
    }

    fn owner(&self) -> Option<(u32, u32)> {
        Some((0, 0))
    }

    fn preload(&self, path: &Path) -> Result<()> {
        let Some(node) = self.node(path)? else { return Ok(()) };
        let expand = |loaded: &Loaded, queue: &work::Queue<Arc<Node>>| {
            for (_, below) in &loaded.directories {
                queue.push(Arc::clone(below));
            }
        };
        let first = self.load(node.get())?.directories.iter().map(|(_, below)| Arc::clone(below)).collect();
        work::run(work::threads(), first, |node, queue| {
            expand(self.load(&node)?, queue);
            Ok(())
        })
    }

    fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        resolve_by_steps(self, path, follow_last)
    }
}
