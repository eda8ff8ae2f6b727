//! Making and removing single files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use slipway_files::{MakeDir, MakeFile, MakeLink, Time, mkdir, mkfile, rm, symlink};

use crate::support::Tree;

const TIME: Option<Time> = Some(Time { seconds: 1_000_000, nanoseconds: 5 });

#[test]
fn mkdir_follows_links_and_accepts_what_is_there() {
    let tree = Tree::new(&["real/", "link -> real", "file"]);
    let action = MakeDir { mode: 0o750, make_parents: true, owner: None, time: TIME };
    mkdir(&tree.root(), "/link/a/b", &action).expect("made");
    mkdir(&tree.root(), "/link/a/b", &action).expect("there already");
    assert_eq!(tree.list(), ["file", "link -> real", "real/", "real/a/", "real/a/b/"]);
    assert_eq!(tree.mode("real/a"), 0o750);
    assert_eq!(fs::metadata(tree.path().join("real/a/b")).expect("it exists").mtime(), 1_000_000);
    assert!(mkdir(&tree.root(), "/file/x", &action).is_err());
    let single = MakeDir { make_parents: false, ..action };
    assert!(mkdir(&tree.root(), "/p/q", &single).expect_err("no parent").is_not_found());
    mkdir(&tree.root(), "/p", &single).expect("made");
    mkdir(&tree.root(), "/p", &single).expect("there already");
}

#[test]
fn mkfile_writes_and_rewrites() {
    let tree = Tree::new(&["l -> f"]);
    let action = MakeFile { mode: 0o604, data: b"one", owner: None, time: TIME };
    mkfile(&tree.root(), "l", &action).expect("made");
    mkfile(&tree.root(), "/f", &MakeFile { data: b"2", mode: 0o777, ..action }).expect("rewritten");
    assert_eq!(tree.list(), ["f=2", "l -> f"]);
    assert_eq!(tree.mode("f"), 0o604);
    assert!(mkfile(&tree.root(), "/none/f", &action).expect_err("no directory").is_not_found());
}

#[test]
fn symlinks_say_what_they_are_told() {
    let tree = Tree::new(&["d/"]);
    let action = MakeLink { target: Path::new("../anything"), owner: None, time: TIME };
    symlink(&tree.root(), "/d/l", &action).expect("made");
    assert_eq!(tree.list(), ["d/", "d/l -> ../anything"]);
}

#[test]
fn rm_takes_names_and_patterns() {
    let tree = Tree::new(&["a/x", "a/y.o", "a/z.o", "b/c/d", "l -> a"]);
    let root = tree.root();
    rm(&root, "/l/*.o", true, false).expect("a pattern does not look through links");
    rm(&root, "/a/*.o", true, false).expect("removed");
    rm(&root, "/b", false, false).expect("removed");
    rm(&root, "/l", false, false).expect("the link, not what it leads to");
    assert_eq!(tree.list(), ["a/", "a/x"]);
    assert!(rm(&root, "/none", false, false).expect_err("there is none").is_not_found());
    rm(&root, "/none", false, true).expect("allowed");
    rm(&root, "/none/*", true, true).expect("allowed");
    assert!(rm(&root, "/", false, true).is_err());
    assert!(rm(&root, "/a/..", false, true).is_err());
}
