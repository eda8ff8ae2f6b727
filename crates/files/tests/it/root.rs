//! Nothing leads out of a root.

use std::path::Path;

use slipway_files::{FileTree, NewDir, Root};

use crate::support::Tree;

#[test]
fn paths_stay_inside() {
    let outside = Tree::new(&["secret=s"]);
    let tree = Tree::new(&["d/f=1", "in -> d/f"]);
    tree.add(&format!("out -> {}/secret", outside.path().display()));
    tree.add("up -> ../../../../../../etc");
    let root = tree.root();
    let of = |path: &str| root.evaluate(Path::new(path), true).expect("resolved");
    assert_eq!(of("in"), Path::new("d/f"));
    assert_eq!(of("/up/passwd"), Path::new("etc/passwd"));
    assert!(root.find(&of("out")).expect("no error").is_none());
    assert_eq!(of("d/../../../in"), Path::new("d/f"));
    // A path that was not resolved is refused, not followed.
    assert!(root.children(Path::new("up")).is_err());
    assert!(root.find(Path::new("up/passwd")).is_err());
}

#[test]
fn directories_are_made_with_their_mode() {
    let tree = Tree::new(&["file=x", "have/"]);
    tree.chmod("have", 0o700);
    let root = tree.root();
    let made = root.create_dir_all(Path::new("have/a/b"), NewDir { mode: 0o777, ..NewDir::default() });
    assert_eq!(made.expect("made"), [Path::new("have/a"), Path::new("have/a/b")]);
    assert_eq!((tree.mode("have"), tree.mode("have/a"), tree.mode("have/a/b")), (0o700, 0o777, 0o777));
    let error =
        root.create_dir_all(Path::new("file/below/x"), NewDir::default()).expect_err("a file is in the way");
    assert_eq!(error.to_string(), "mkdir /file: not a directory");
}

#[test]
fn removing_goes_deep_and_follows_nothing() {
    let outside = Tree::new(&["keep=k"]);
    let tree = Tree::new(&["stay"]);
    let mut deep = String::from("top");
    for _ in 0..300 {
        deep.push_str("/dddddddddddddddddddd");
    }
    // Longer than any path the kernel takes at once.
    let mut at = std::path::PathBuf::new();
    for part in Path::new(&deep).components() {
        at.push(part);
        tree.root().create_dir_all(&at, NewDir::default()).expect("made");
    }
    tree.add(&format!("top/link -> {}", outside.path().display()));
    tree.root().remove_all(Path::new("top")).expect("removed");
    tree.root().remove_all(Path::new("never/was")).expect("nothing to remove");
    assert_eq!(tree.list(), ["stay"]);
    assert_eq!(outside.list(), ["keep=k"]);
}

#[test]
fn a_missing_directory_is_named() {
    let error = Root::open(Path::new("/definitely/not/here")).expect_err("there is none");
    assert_eq!(error.to_string(), "open directory `/definitely/not/here`");
}

#[test]
fn endless_directories_are_an_error() {
    let tree = Tree::new(&[]);
    let deep = ["d"; 1100].join("/");
    tree.root().create_dir_all(Path::new(&deep), NewDir::default()).expect("made");
    let cache = slipway_files::DigestCache::in_memory(slipway_files::Stability::Live);
    for tree in [&tree.root() as &dyn FileTree, &tree.context(&["x", "!y/*"])] {
        let error = slipway_files::content_digest(tree, &[], &cache).expect_err("too deep");
        assert!(error.to_string().starts_with("too many directories within one another at /d/d"), "{error}");
    }
}
