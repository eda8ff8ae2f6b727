//! What a content key depends on, and what it does not.

use std::fs;

use slipway_files::{
    DigestCache, FileTree, FilesError, Selection, Stability, content_digest, digest_of_nothing,
};

use crate::support::{Tree, needs_root};

fn plain(path: &str) -> Selection {
    Selection { path: path.into(), follow_links: true, ..Selection::default() }
}

fn wildcard(path: &str) -> Selection {
    Selection { wildcard: true, ..plain(path) }
}

fn key_of(tree: &dyn FileTree, selection: &Selection) -> Result<String, FilesError> {
    let cache = DigestCache::in_memory(Stability::Live);
    content_digest(tree, std::slice::from_ref(selection), &cache).map(|digest| digest.to_string())
}

fn key(tree: &Tree, selection: &Selection) -> String {
    key_of(&tree.context(&[]), selection).expect("a key")
}

#[test]
fn names_modes_and_contents_count() {
    let base = &["d/a=1", "d/sub/b=2", "d/l -> a"][..];
    let same = key(&Tree::new(base), &plain("/d"));
    assert_eq!(key(&Tree::new(base), &plain("/d")), same, "times and inodes do not count");
    assert_eq!(key(&Tree::new(base), &plain("d/")), same);

    let different: [&[&str]; 6] = [
        &["d/a=2", "d/sub/b=2", "d/l -> a"],
        &["d/a2=1", "d/sub/b=2", "d/l -> a"],
        &["d/a=1", "d/sub/b=2", "d/l -> b"],
        &["d/a=1", "d/b=2", "d/sub/", "d/l -> a"],
        &["d/a=1", "d/sub/b=2", "d/l -> a", "d/empty/"],
        &["d/a=1", "d/sub/b=2", "d/l=a"],
    ];
    for lines in different {
        assert_ne!(key(&Tree::new(lines), &plain("/d")), same, "{lines:?}");
    }
    let tree = Tree::new(base);
    tree.chmod("d/sub", 0o700);
    assert_ne!(key(&tree, &plain("/d")), same);
}

#[test]
fn the_name_of_the_selected_file_does_not_count() {
    let tree = Tree::new(&["x/a=1", "y/b=1", "dir1/f=1", "dir2/f=1"]);
    assert_eq!(key(&tree, &plain("/x/a")), key(&tree, &plain("/y/b")));
    assert_eq!(key(&tree, &plain("/dir1")), key(&tree, &plain("/dir2")));
}

#[test]
fn files_that_are_not_selected_do_not_count() {
    let one = Tree::new(&["d/a=1", "other=1"]);
    let two = Tree::new(&["d/a=1", "other=2", "d/.hidden=x"]);
    assert_ne!(key(&one, &plain("/d")), key(&two, &plain("/d")));
    assert_eq!(key(&one, &plain("/d/a")), key(&two, &plain("/d/a")));
    assert_eq!(key(&one, &wildcard("/d/a*")), key(&two, &wildcard("/d/a*")));
    let ignored = two.context(&["**/.hidden"]);
    assert_eq!(key_of(&ignored, &plain("/d")).expect("a key"), key(&one, &plain("/d")));
}

#[test]
fn wildcards_count_what_matches() {
    let tree = Tree::new(&["src/a.txt=1", "src/b.txt=2", "src/c.md=3", "src/d/e.txt=4"]);
    let renamed = Tree::new(&["lib/a.txt=1", "lib/b.txt=2", "lib/c.md=9", "lib/d/e.txt=5"]);
    assert_eq!(key(&tree, &wildcard("/src/*.txt")), key(&renamed, &wildcard("/lib/*.txt")));
    assert_ne!(key(&tree, &wildcard("/src/*")), key(&renamed, &wildcard("/lib/*")));
    assert_ne!(key(&tree, &wildcard("/src/a*")), key(&tree, &wildcard("/src/b*")));
    assert_eq!(key(&tree, &wildcard("/src/*.zip")), key(&renamed, &wildcard("/*.zip")));
}

#[test]
fn patterns_filter_below_the_path() {
    let select = |include: &[&str], exclude: &[&str]| Selection {
        include: include.iter().map(ToString::to_string).collect(),
        exclude: exclude.iter().map(ToString::to_string).collect(),
        ..plain("/")
    };
    let one = Tree::new(&["a/b/one=1", "a/b/two.md=2", "a/c/three=3", "z/deep/x=1"]);
    let two = Tree::new(&["a/b/one=1", "a/b/two.md=CHANGED", "a/c/three=CHANGED", "z/deep/y=1"]);
    let included = select(&["a/b/one"], &[]);
    assert_eq!(key(&one, &included), key(&two, &included));
    let all = select(&["a/b"], &[]);
    assert_ne!(key(&one, &all), key(&two, &all));
    let excluded = select(&[], &["**/*.md", "a/c", "z/deep"]);
    assert_eq!(key(&one, &excluded), key(&two, &excluded));
    let taken_back = select(&[], &["a", "z", "!a/b/one"]);
    assert_eq!(key(&one, &taken_back), key(&two, &taken_back));
    one.chmod("a", 0o700);
    assert_ne!(key(&one, &included), key(&two, &included), "the directories above are made by the copy");
}

#[test]
fn links_stand_for_what_they_lead_to() {
    let tree = Tree::new(&["real/f=1", "link -> real/f", "dirlink -> real", "w/l -> ../real/f", "w/p=1"]);
    assert_eq!(key(&tree, &plain("/link")), key(&tree, &plain("/real/f")));
    assert_eq!(key(&tree, &plain("/dirlink")), key(&tree, &plain("/real")));
    assert_eq!(key(&tree, &plain("/dirlink/f")), key(&tree, &plain("/real/f")));
    let unfollowed = Selection { follow_links: false, ..plain("/link") };
    assert_ne!(key(&tree, &unfollowed), key(&tree, &plain("/real/f")));
    let before = key(&tree, &wildcard("/w/*"));
    fs::write(tree.path().join("real/f"), "2").expect("written");
    assert_ne!(key(&tree, &wildcard("/w/*")), before);
}

#[test]
fn what_is_missing_is_named() {
    let tree = Tree::new(&["a", "d/ok", "d/dangling -> nowhere"]);
    let error =
        |selection: &Selection| key_of(&tree.context(&[]), selection).expect_err("missing").to_string();
    assert_eq!(error(&plain("/nope.txt")), "\"/nope.txt\": not found");
    assert_eq!(error(&plain("/a/below")), "\"/a/below\": not found");
    assert_eq!(error(&plain("/d/dangling")), "\"/d/dangling\": not found");
    assert_eq!(error(&wildcard("/d/*")), "\"/d/dangling\": not found");
    let required =
        Selection { include: vec!["a/none".into()], required_paths: vec!["/a/none".into()], ..plain("/") };
    assert_eq!(error(&required), "\"/a/none\": not found");
    let excluded = key_of(&tree.context(&["a"]), &plain("/a")).expect_err("excluded");
    assert!(excluded.is_not_found());

    assert!(digest_of_nothing(&[plain("/")]).is_ok());
    assert!(digest_of_nothing(&[plain("/x")]).expect_err("nothing").is_not_found());
}

#[test]
fn digests_are_kept_and_files_not_read_again() {
    let state = Tree::new(&[]);
    let tree = Tree::new(&["d/a=1", "d/b=2"]);
    // Old enough not to be racy: the clock of the test is the file system's.
    for path in ["d/a", "d/b"] {
        let old = fs::File::options().write(true).open(tree.path().join(path)).expect("opened");
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    }
    let run = |stability| {
        let cache = DigestCache::load(state.path(), "test", stability);
        let digest = content_digest(&tree.root(), &[plain("/d")], &cache).expect("a key");
        cache.save().expect("saved");
        digest
    };
    let first = run(Stability::Frozen);
    assert_eq!(state.list().len(), 1);
    assert_eq!(run(Stability::Frozen), first);
    // What is not read need not be readable.
    let cache = DigestCache::load(state.path(), "test", Stability::Frozen);
    let entry = tree.root().find(std::path::Path::new("d/a")).expect("no error").expect("it exists");
    assert_eq!(cache.get(&entry.metadata).map(|found| found.content), Some(slipway_model::Digest::of("1")));
}

#[test]
fn owners_count_but_not_in_a_context() {
    if !needs_root("owners_count_but_not_in_a_context") {
        return;
    }
    let tree = Tree::new(&["f=1"]);
    let (context, snapshot) = (key(&tree, &plain("/f")), key_of(&tree.root(), &plain("/f")).expect("a key"));
    std::os::unix::fs::chown(tree.path().join("f"), Some(8), Some(9)).expect("chown");
    assert_eq!(key(&tree, &plain("/f")), context);
    assert_ne!(key_of(&tree.root(), &plain("/f")).expect("a key"), snapshot);
}

#[test]
fn attributes_count() {
    let tree = Tree::new(&["f=1"]);
    let before = key(&tree, &plain("/f"));
    let file = fs::File::open(tree.path().join("f")).expect("opened");
    let set = rustix::fs::fsetxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty());
    if set.is_err() {
        println!("skipped: attributes_count needs user attributes in the temporary directory");
        return;
    }
    assert_ne!(key(&tree, &plain("/f")), before);
}

#[test]
fn an_unreadable_file_is_named() {
    if crate::support::is_root() {
        println!("skipped: an_unreadable_file_is_named needs a user who may not read everything");
        return;
    }
    let tree = Tree::new(&["d/secret=1"]);
    tree.chmod("d/secret", 0);
    let error = key_of(&tree.context(&[]), &plain("/d")).expect_err("unreadable");
    assert_eq!(error.to_string(), "open /d/secret");
}
