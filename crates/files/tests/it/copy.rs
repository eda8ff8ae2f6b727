//! Where copies land and what they look like.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use slipway_files::{
    CopyOptions, DigestCache, Ownership, Selection, Stability, Time, content_digest, copy, export,
};

use crate::support::{Tree, copy_in, needs_root, options};

#[track_caller]
fn check(from: &[&str], to: &[&str], copies: &[(&str, &str)], expected: &[&str]) {
    let (from, to) = (Tree::new(from), Tree::new(to));
    for (source, dest) in copies {
        copy_in(&from, source, &to, dest).unwrap_or_else(|error| panic!("{source} to {dest}: {error}"));
    }
    assert_eq!(to.list(), expected);
}

#[test]
fn files_go_where_they_are_told() {
    check(
        &["a.txt=a"],
        &["tmp/"],
        &[
            ("/a.txt", "/plain"),
            ("/a.txt", "/tmp"),
            ("/a.txt", "/new/dir/"),
            ("/a.txt", "/new2/name.txt"),
            ("a.txt", "/json form/"),
        ],
        &[
            "json form/",
            "json form/a.txt=a",
            "new/",
            "new/dir/",
            "new/dir/a.txt=a",
            "new2/",
            "new2/name.txt=a",
            "plain=a",
            "tmp/",
            "tmp/a.txt=a",
        ],
    );
}

#[test]
fn directories_give_their_contents() {
    let d = ["d/x=1", "d/sub/y=2"];
    let both =
        |at: &str| [format!("{at}/"), format!("{at}/sub/"), format!("{at}/sub/y=2"), format!("{at}/x=1")];
    for (source, dest, at) in [
        ("/d", "/one", "one"),
        ("/d/", "/two", "two"),
        ("/d/", "/three/", "three"),
        ("/d", "/four/", "four"),
        ("/d/.", "/five", "five"),
    ] {
        let (from, to) = (Tree::new(&d), Tree::new(&[]));
        copy_in(&from, source, &to, dest).expect("copied");
        assert_eq!(to.list(), both(at), "{source} to {dest}");
    }
}

#[test]
fn directories_merge_and_files_replace() {
    check(
        &["m/l=now a file", "m/sub/x=new", "passwd=p"],
        &["m/keep=keep", "m/sub/x=old", "m/sub/z=z", "m/l -> keep", "etc/passwd=long before"],
        &[("/m", "/m"), ("/passwd", "/etc/passwd")],
        &[
            "etc/",
            "etc/passwd=p",
            "m/",
            "m/keep=keep",
            "m/l=now a file",
            "m/sub/",
            "m/sub/x=new",
            "m/sub/z=z",
        ],
    );
}

#[test]
fn links_of_the_source() {
    check(
        &[
            "d/rel -> file",
            "d/file=f",
            "d/up -> ../target",
            "target=t",
            "link -> target",
            "real/inner=i",
            "dirlink -> real",
        ],
        &[],
        &[
            ("/d", "/d"),
            ("/link", "/via-link"),
            ("/dirlink", "/via-dirlink"),
            ("/dirlink/", "/via-slash/"),
            ("/d/rel", "/named/"),
            ("/dirlink/inner", "/through"),
            ("/dir*", "/wild/"),
        ],
        &[
            "d/",
            "d/file=f",
            "d/rel -> file",
            "d/up -> ../target",
            "named/",
            "named/rel=f",
            "through=i",
            "via-dirlink/",
            "via-dirlink/inner=i",
            "via-link=t",
            "via-slash/",
            "via-slash/inner=i",
            "wild/",
            "wild/inner=i",
        ],
    );
}

#[test]
fn links_of_the_destination() {
    check(
        &["f=new", "d/in=in"],
        &[
            "real/inner/",
            "dirlink -> real",
            "file=old",
            "filelink -> file",
            "abs -> /real/inner",
            "away -> ../../x",
        ],
        &[
            ("/f", "/dirlink/"),
            ("/f", "/dirlink/renamed"),
            ("/d", "/abs"),
            ("/f", "/filelink"),
            ("/f", "/away/"),
        ],
        &[
            "abs -> /real/inner",
            "away -> ../../x",
            "dirlink -> real",
            "file=new",
            "filelink -> file",
            "real/",
            "real/f=new",
            "real/inner/",
            "real/inner/in=in",
            "real/renamed=new",
            "x/",
            "x/f=new",
        ],
    );
}

#[test]
fn what_is_in_the_way_is_named() {
    let from = Tree::new(&["f=1", "d/x/y=1", "e/x=1"]);
    let error = |to: &[&str], source: &str, dest: &str| {
        copy_in(&from, source, &Tree::new(to), dest).expect_err("in the way").to_string()
    };
    assert_eq!(error(&["etc/passwd=p"], "/f", "/etc/passwd/sub"), "mkdir /etc/passwd: not a directory");
    assert_eq!(error(&["t/x=file"], "/d", "/t"), "copy to /t/x: not a directory");
    assert_eq!(error(&["t/x -> y", "t/y/"], "/d", "/t"), "copy to /t/x: not a directory");
    assert_eq!(error(&["t/x/y/"], "/e", "/t"), "cannot replace directory /t/x with a file");
    assert_eq!(error(&[], "/none", "/t"), "\"/none\": not found");
    assert_eq!(error(&["t/f/"], "/f", "/t/"), "cannot replace directory /t/f with a file");

    let replacing = CopyOptions { always_replace: true, ..options() };
    let to = Tree::new(&["t/x=file", "u/x/y/z"]);
    copy(&from.context(&[]), "/d", &to.root(), "/t", &replacing, None).expect("replaced");
    copy(&from.context(&[]), "/e", &to.root(), "/u", &replacing, None).expect("replaced");
    assert_eq!(to.list(), ["t/", "t/x/", "t/x/y=1", "u/", "u/x=1"]);
}

#[test]
fn wildcards() {
    check(
        &["a.txt=a", "b.txt=b", "src/a=a", "src/d1/b=b", "src/d1/n/c=c", "src/d2/e=e"],
        &[],
        &[("/*.txt", "/txt/"), ("/*.zip", "/none/"), ("/src/*", "/flat/")],
        &[
            "flat/",
            "flat/a=a",
            "flat/b=b",
            "flat/e=e",
            "flat/n/",
            "flat/n/c=c",
            "txt/",
            "txt/a.txt=a",
            "txt/b.txt=b",
        ],
    );
    let from = Tree::new(&["x"]);
    let strict = CopyOptions { allow_empty_wildcard: false, ..options() };
    let outcome = copy(&from.context(&[]), "/*.zip", &Tree::new(&[]).root(), "/", &strict, None);
    assert_eq!(outcome.expect_err("no match").to_string(), "\"/*.zip\": not found");
}

#[test]
fn patterns_below_the_source() {
    let from = Tree::new(&[
        "src/a/m.txt=1",
        "src/a/b/m.txt=2",
        "src/q/r/deep.md=3",
        "src/a/x.md=4",
        "other/m.txt=5",
        "empty/e/",
    ]);
    from.chmod("src/q", 0o711);
    let run = |include: &[&str], exclude: &[&str]| {
        let to = Tree::new(&[]);
        let options = CopyOptions {
            include: include.iter().map(ToString::to_string).collect(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
            ..options()
        };
        copy(&from.context(&[]), "/", &to.root(), "/p/", &options, None).expect("copied");
        to
    };
    let parents = run(&["src/**/*.md"], &[]);
    assert_eq!(
        parents.list(),
        ["p/", "p/src/", "p/src/a/", "p/src/a/x.md=4", "p/src/q/", "p/src/q/r/", "p/src/q/r/deep.md=3"]
    );
    assert_eq!(parents.mode("p/src/q"), 0o711);
    assert_eq!(
        run(&["src/a/b"], &[]).list(),
        ["p/", "p/src/", "p/src/a/", "p/src/a/b/", "p/src/a/b/m.txt=2"]
    );
    assert_eq!(
        run(&[], &["**/*.md", "other", "empty", "src/a/b", "!src/a/b/m.txt"]).list(),
        [
            "p/",
            "p/src/",
            "p/src/a/",
            "p/src/a/b/",
            "p/src/a/b/m.txt=2",
            "p/src/a/m.txt=1",
            "p/src/q/",
            "p/src/q/r/"
        ]
    );
    assert_eq!(run(&["empty"], &["none"]).list(), ["p/", "p/empty/", "p/empty/e/"]);
}

#[test]
fn modes_and_times() {
    let from = Tree::new(&["d/run=x", "d/sub/f=y", "d/l -> run"]);
    from.chmod("d/run", 0o4755);
    from.chmod("d/sub", 0o700);
    for path in ["d/sub", "d/run"] {
        let file = fs::File::open(from.path().join(path)).expect("opened");
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(77, 123_456_789)).expect("set");
    }
    let to = Tree::new(&[]);
    copy_in(&from, "/d", &to, "/d").expect("copied");
    assert_eq!((to.mode("d/run"), to.mode("d/sub"), to.mode("d")), (0o4755, 0o700, 0o755));
    for path in ["d/sub", "d/run"] {
        let metadata = fs::metadata(to.path().join(path)).expect("it exists");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (77, 123_456_789), "{path}");
    }

    let changed = CopyOptions {
        mode: Some("u=rwX,go=rX".parse().expect("a mode")),
        time: Some(Time::from_nanoseconds(5_000_000_001)),
        ..options()
    };
    let to = Tree::new(&[]);
    copy(&from.context(&[]), "/d", &to.root(), "/n/d", &changed, None).expect("copied");
    assert_eq!((to.mode("n/d/run"), to.mode("n/d/sub"), to.mode("n/d/sub/f")), (0o755, 0o755, 0o644));
    for path in ["n", "n/d", "n/d/run", "n/d/sub", "n/d/l"] {
        let metadata = fs::symlink_metadata(to.path().join(path)).expect("it exists");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (5, 1), "{path}");
    }
    let exact = CopyOptions { mode: Some("750".parse().expect("a mode")), ..options() };
    let to = Tree::new(&[]);
    copy(&from.context(&[]), "/d/run", &to.root(), "/new/run", &exact, None).expect("copied");
    assert_eq!((to.mode("new"), to.mode("new/run")), (0o750, 0o750));
}

#[test]
fn hard_links_stay_links() {
    let from = Tree::new(&["d/a=data", "d/sub/", "alone=x"]);
    for name in ["d/b", "d/sub/c"] {
        fs::hard_link(from.path().join("d/a"), from.path().join(name)).expect("linked");
    }
    fs::hard_link(from.path().join("alone"), from.path().join("outside")).expect("linked");
    let to = Tree::new(&["d/b=in the way"]);
    copy_in(&from, "/d", &to, "/d").expect("copied");
    copy_in(&from, "/alone", &to, "/").expect("copied");
    let inode = |path: &str| fs::metadata(to.path().join(path)).expect("it exists").ino();
    assert_eq!(to.list(), ["alone=x", "d/", "d/a=data", "d/b=data", "d/sub/", "d/sub/c=data"]);
    assert!(inode("d/a") == inode("d/b") && inode("d/a") == inode("d/sub/c"));
}

#[test]
fn large_and_sparse_files() {
    let from = Tree::new(&[]);
    let mut large: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    fs::write(from.path().join("large"), &large).expect("written");
    let sparse = fs::File::create(from.path().join("sparse")).expect("made");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &large[..5000], 10_000_000).expect("written");
    sparse.set_len(20_000_000).expect("grown");
    let to = Tree::new(&[]);
    let report = copy_in(&from, "/", &to, "/").expect("copied");
    assert_eq!((report.files, report.bytes), (2, 23_000_000));
    assert_eq!(fs::read(to.path().join("large")).expect("read"), large);
    let copied = fs::read(to.path().join("sparse")).expect("read");
    large.truncate(5000);
    assert_eq!(copied.len(), 20_000_000);
    assert_eq!(copied[10_000_000..10_005_000], large);
    assert!(copied[..10_000_000].iter().chain(&copied[10_005_000..]).all(|byte| *byte == 0));
    assert!(fs::metadata(to.path().join("sparse")).expect("it exists").blocks() * 512 < 5_000_000);
}

#[test]
fn many_files_on_many_threads() {
    let lines: Vec<String> =
        (0..2000).map(|number| format!("d{}/e{}/f{number}={number}", number % 3, number % 11)).collect();
    let from = Tree::new(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let to = Tree::new(&[]);
    assert_eq!(copy_in(&from, "/", &to, "/").expect("copied").files, 2000);
    assert_eq!(to.list(), from.list());
}

#[test]
fn a_file_that_changes_after_its_digest_was_taken_fails_the_copy() {
    let from = Tree::new(&["d/a=first", "d/b=same"]);
    let context = from.context(&[]);
    let digests = DigestCache::in_memory(Stability::Live);
    let selection = Selection { path: "/d".into(), ..Selection::default() };
    content_digest(&context, &[selection], &digests).expect("a key");
    // The same content again is no change that matters.
    fs::remove_file(from.path().join("d/b")).expect("removed");
    from.add("d/b=same");
    let to = Tree::new(&[]);
    copy(&context, "/d", &to.root(), "/d", &options(), Some(&digests)).expect("nothing changed");

    from.add("d/a=other");
    let to = Tree::new(&[]);
    let error = copy(&context, "/d", &to.root(), "/d", &options(), Some(&digests)).expect_err("changed");
    assert_eq!(error.to_string(), "/d/a changed during the build");
    assert!(!to.path().join("d/a").exists());

    fs::remove_file(from.path().join("d/a")).expect("removed");
    let error = copy(&context, "/d", &Tree::new(&[]).root(), "/d", &options(), Some(&digests));
    assert_eq!(error.expect_err("gone").to_string(), "/d/a changed during the build");
}

#[test]
fn a_fifo_put_in_place_of_a_file_does_not_block() {
    let from = Tree::new(&["d/a=first"]);
    let context = from.context(&[]);
    let digests = DigestCache::in_memory(Stability::Live);
    let selection = Selection { path: "/d".into(), ..Selection::default() };
    content_digest(&context, std::slice::from_ref(&selection), &digests).expect("a key");
    fs::remove_file(from.path().join("d/a")).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.path().join("d/a"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a fifo");
    assert!(copy(&context, "/d", &Tree::new(&[]).root(), "/d", &options(), Some(&digests)).is_err());
    let fresh = DigestCache::in_memory(Stability::Live);
    assert!(content_digest(&context, &[selection], &fresh).is_err());
    let to = Tree::new(&[]);
    copy_in(&from, "/d", &to, "/d").expect("a fifo is copied as one");
    assert_eq!(to.list(), ["d/", "d/a|"]);
}

#[test]
fn owners() {
    if !needs_root("owners") {
        return;
    }
    let from = Tree::new(&["d/f=1", "d/l -> f", "d/s/g=2"]);
    for path in ["d/f", "d/l", "d/s"] {
        std::os::unix::fs::lchown(from.path().join(path), Some(1000), Some(1001)).expect("chown");
    }
    let owner = |to: &Tree, path: &str| {
        let metadata = fs::symlink_metadata(to.path().join(path)).expect("it exists");
        (metadata.uid(), metadata.gid())
    };
    let run = |tree: &dyn slipway_files::FileTree, ownership| {
        let to = Tree::new(&[]);
        copy(tree, "/d", &to.root(), "/n/d", &CopyOptions { ownership, ..options() }, None).expect("copied");
        to
    };
    let context = run(&from.context(&[]), Ownership::Source);
    let snapshot = run(&from.root(), Ownership::Source);
    let fixed = run(&from.context(&[]), Ownership::Fixed { uid: 33, gid: 8 });
    for path in ["n/d/f", "n/d/l", "n/d/s"] {
        assert_eq!(owner(&context, path), (0, 0));
        assert_eq!(owner(&snapshot, path), (1000, 1001));
        assert_eq!(owner(&fixed, path), (33, 8));
    }
    assert_eq!(owner(&fixed, "n"), (33, 8));
    assert_eq!(owner(&fixed, "n/d/s/g"), (33, 8));
}

#[test]
fn exporting_replaces_and_keeps_the_rest() {
    let from = Tree::new(&["app/bin=b", "app/etc/conf=c", "link -> app"]);
    let to = Tree::new(&["app/bin/old/x", "other=o", "link/y"]);
    export(&from.root(), &to.root()).expect("exported");
    assert_eq!(to.list(), ["app/", "app/bin=b", "app/etc/", "app/etc/conf=c", "link -> app", "other=o"]);
}

#[test]
fn names_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let from = Tree::new(&["d/"]);
    let name = std::ffi::OsStr::from_bytes(b"d/\xff\xfe\n");
    fs::write(from.path().join(name), "odd").expect("written");
    let to = Tree::new(&[]);
    let context = from.context(&["**/*.log"]);
    copy(&context, "/", &to.root(), "/", &options(), None).expect("copied");
    assert_eq!(fs::read(to.path().join(Path::new(name))).expect("read"), b"odd");
}
