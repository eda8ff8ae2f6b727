//! Small trees made from a few words, and trees told in a few words.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use slipway_files::patterns::PatternMatcher;
use slipway_files::{ContextTree, CopyOptions, CopyReport, FilesError, Ownership, Root, copy};
use tempfile::TempDir;

/// A directory that is removed at the end of the test.
pub(crate) struct Tree {
    directory: TempDir,
}

impl Tree {
    /// Makes a tree. Each line is `path` (an empty file), `path=content`, `path/` (a directory) or
    /// `path -> target` (a symbolic link); directories above are made.
    pub(crate) fn new(lines: &[&str]) -> Self {
        let tree = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for line in lines {
            tree.add(line);
        }
        tree
    }

    pub(crate) fn add(&self, line: &str) {
        let make = |path: &str| {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("mkdir");
            path
        };
        if let Some((path, target)) = line.split_once(" -> ") {
            symlink(target, make(path)).expect("symlink");
        } else if line.ends_with('/') {
            fs::create_dir_all(make(line)).expect("mkdir");
        } else {
            let (path, content) = line.split_once('=').unwrap_or((line, ""));
            fs::write(make(path), content).expect("write");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn root(&self) -> Root {
        Root::open(self.path()).expect("the directory opens")
    }

    pub(crate) fn context(&self, excludes: &[&str]) -> ContextTree {
        ContextTree::new(self.root(), PatternMatcher::new(excludes).expect("valid patterns"))
            .expect("a context")
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path().join(path), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.path().join(path)).expect("it exists").mode() & 0o7777
    }

    /// Tells the tree in the form [`Tree::new`] takes, one line for each file, sorted.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut lines = Vec::new();
        walk(self.path(), &PathBuf::new(), &mut lines);
        lines
    }
}

fn walk(base: &Path, relative: &Path, lines: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(base.join(relative))
        .expect("a directory")
        .map(|name| name.expect("an entry").file_name())
        .collect();
    names.sort();
    for name in names {
        let path = relative.join(name);
        let kind = fs::symlink_metadata(base.join(&path)).expect("it exists").file_type();
        let shown = path.display();
        if kind.is_symlink() {
            let target = fs::read_link(base.join(&path)).expect("a link");
            lines.push(format!("{shown} -> {}", target.display()));
        } else if kind.is_dir() {
            lines.push(format!("{shown}/"));
            walk(base, &path, lines);
        } else if kind.is_fifo() {
            lines.push(format!("{shown}|"));
        } else {
            let content = fs::read(base.join(&path)).expect("readable");
            match content.is_empty() {
                true => lines.push(format!("{shown}")),
                false => lines.push(format!("{shown}={}", String::from_utf8_lossy(&content))),
            }
        }
    }
}

/// The options a `COPY` instruction has.
pub(crate) fn options() -> CopyOptions {
    CopyOptions {
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        follow_symlink: true,
        // Tests need not run as root.
        ownership: if is_root() { Ownership::Source } else { Ownership::Process },
        ..CopyOptions::default()
    }
}

/// Copies as `COPY source dest` does.
pub(crate) fn copy_in(from: &Tree, source: &str, to: &Tree, dest: &str) -> Result<CopyReport, FilesError> {
    copy(&from.context(&[]), source, &to.root(), dest, &options(), None)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says whether the test may go on, which needs root; says so if not.
pub(crate) fn needs_root(test: &str) -> bool {
    if !is_root() {
        println!("skipped: {test} needs root");
    }
    is_root()
}
