//! What a context shows of a directory.

use std::path::Path;

use slipway_files::patterns::{PatternMatcher, parse_ignore_file};
use slipway_files::{ContextTree, FileTree, nearest_path, resolve, wildcard_paths};

use crate::support::Tree;

/// Lists all paths of a context.
fn paths(context: &ContextTree) -> Vec<String> {
    fn walk(context: &ContextTree, path: &Path, found: &mut Vec<String>) {
        let dir = context.children(path).expect("readable");
        for entry in &dir.entries {
            let path = path.join(&entry.name);
            found.push(path.display().to_string());
            if entry.metadata.is_dir() {
                walk(context, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(context, Path::new(""), &mut found);
    found
}

#[test]
fn excluded_files_are_not_there() {
    let tree = Tree::new(&["a.log", "b.txt", "keep.log", "sub/c.log", "sub/d.txt", "node_modules/x/y"]);
    let context = tree.context(&["**/*.log", "!keep.log", "node_modules"]);
    assert_eq!(paths(&context), ["b.txt", "keep.log", "sub", "sub/d.txt"]);
    assert!(context.find(Path::new("a.log")).expect("no error").is_none());
    assert!(context.find(Path::new("node_modules/x")).expect("no error").is_none());
    assert!(context.find(Path::new("sub/d.txt")).expect("no error").is_some());
}

#[test]
fn an_excluded_directory_is_there_for_its_exceptions_only() {
    let tree = Tree::new(&["a/b/keep", "a/b/drop", "a/c/drop", "d/x"]);
    assert_eq!(paths(&tree.context(&["*", "!a/b/keep"])), ["a", "a/b", "a/b/keep"]);
    assert_eq!(paths(&tree.context(&["*", "!a/b/absent"])), Vec::<String>::new());
    assert_eq!(paths(&tree.context(&["*", "!**/keep"])), ["a", "a/b", "a/b/keep"]);
    assert_eq!(paths(&tree.context(&["a", "!a/c"])), ["a", "a/c", "a/c/drop", "d", "d/x"]);
}

#[test]
fn loading_all_at_once_shows_the_same() {
    let lines: Vec<String> =
        (0..300).map(|number| format!("d{}/e{}/f{number}", number % 7, number % 5)).collect();
    let tree = Tree::new(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let loaded = tree.context(&["**/f1*", "!d1/e1/f1*"]);
    loaded.preload(Path::new("")).expect("readable");
    assert_eq!(paths(&loaded), paths(&tree.context(&["**/f1*", "!d1/e1/f1*"])));
    assert_eq!(paths(&loaded).len(), paths(&tree.context(&[])).len() - 111 + 4);
}

#[test]
fn links_are_resolved_inside_the_context() {
    let tree = Tree::new(&[
        "real/f=x",
        "up -> ../../../real",
        "abs -> /real",
        "loop -> loop",
        "real/back -> ../abs/f",
        "gone -> nowhere/x",
    ]);
    let context = tree.context(&[]);
    let of = |path: &str| resolve(&context, Path::new(path), true).map(|path| path.display().to_string());
    assert_eq!(of("up/f").expect("resolved"), "real/f");
    assert_eq!(of("abs/back").expect("resolved"), "real/f");
    assert_eq!(of("gone").expect("resolved"), "nowhere/x");
    assert_eq!(of("../..//up/../real/./f").expect("resolved"), "real/f");
    assert!(of("loop").expect_err("a loop").to_string().contains("too many symbolic links"));
    assert_eq!(resolve(&context, Path::new("abs"), false).expect("resolved"), Path::new("abs"));
}

#[test]
fn wildcards_find_names_in_order() {
    let tree =
        Tree::new(&["a1.md", "b1.md", "c1.md", "sub/x/deep.txt", "sub/y/deep.txt", "sub/z", "l -> sub"]);
    let context = tree.context(&["b1.md"]);
    let of = |source: &str| -> Vec<String> {
        let found = wildcard_paths(&context, source, true).expect("no error");
        found.into_iter().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(of("/[ab]*.md"), ["a1.md"]);
    assert_eq!(of("/sub/*/deep.txt"), ["sub/x/deep.txt", "sub/y/deep.txt"]);
    assert_eq!(of("/l/*/deep.txt"), ["sub/x/deep.txt", "sub/y/deep.txt"]);
    assert_eq!(of("/*.zip"), Vec::<String>::new());
    assert_eq!(of("/plain/"), ["plain"]);
}

#[test]
fn the_excluding_line_is_told() {
    let tree = Tree::new(&["secret.key"]);
    let patterns = parse_ignore_file(b"# no keys\n*.key\n!public.key\n");
    let context =
        ContextTree::new(tree.root(), PatternMatcher::from_patterns(patterns).expect("valid")).expect("ok");
    assert_eq!(context.excluded_by(Path::new("/secret.key")).map(|pattern| pattern.line), Some(2));
    assert_eq!(context.excluded_by(Path::new("public.key")), None);
    assert_eq!(context.excluded_by(Path::new("other")), None);
}

#[test]
fn the_nearest_name_is_found() {
    let tree = Tree::new(&["package.json", "src/main.rs", "src/lib.rs", "docs/x"]);
    let context = tree.context(&["docs"]);
    let of = |path: &str| nearest_path(&context, Path::new(path)).map(|path| path.display().to_string());
    assert_eq!(of("/packge.json").as_deref(), Some("package.json"));
    assert_eq!(of("Package.JSON").as_deref(), Some("package.json"));
    assert_eq!(of("/src/mian.rs").as_deref(), Some("src/main.rs"));
    assert_eq!(of("/scr/main.rs").as_deref(), Some("src"));
    assert_eq!(of("/entirely-different"), None);
    assert_eq!(of("/doc"), None);
}
