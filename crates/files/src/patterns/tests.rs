use std::path::Path;

use proptest::prelude::*;

use super::*;

fn matcher(patterns: &[&str]) -> PatternMatcher {
    PatternMatcher::new(patterns).expect("the patterns are well formed")
}

/// Judges a path as a walk does: directory by directory.
fn walk(matcher: &PatternMatcher, path: &str) -> bool {
    let mut info = MatchInfo::default();
    let mut matched = false;
    for part in top_down(Path::new(path)) {
        (matched, info) = matcher.matches_below(part, &info);
    }
    matched
}

#[test]
fn single_patterns() {
    // (pattern, path, whether it matches)
    let table: &[(&str, &str, bool)] = &[
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("*/", "a", true),
        ("./foo/../bar", "bar/x", true),
        ("/foo", "foo", false),
        ("foo", "foo2", false),
        ("caf?", "café", true),
        ("caf??", "café", false),
        ("[[:digit:]]*", "7up", true),
        ("[*]x", "[/x", false),
    ];
    for (pattern, path, expected) in table {
        let matcher = matcher(&[pattern]);
        assert_eq!(matcher.matches_or_parent(Path::new(path)), *expected, "{pattern} on {path}");
        assert_eq!(walk(&matcher, path), *expected, "{pattern} on a walk to {path}");
    }
}

#[test]
fn lists_are_read_in_order() {
    let table: &[(&[&str], &str, bool)] = &[
        (&["**", "!util/docker/web"], "util/docker/web/foo", false),
        (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
        (
            &["**", "!dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"],
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            false,
        ),
        (&["**", "!dist/*.whl"], "dist/proxy.whl", false),
        (&["!a", "a"], "a", true),
        (&["a", "!a"], "a", false),
        (&["!docs", "docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/other.md", true),
        (&["docs/*", "!docs/README.md"], "docs", false),
        (&["*", "!*.go", "vendor"], "vendor/x.go", true),
        (&["node_modules", "!node_modules/keep"], "node_modules/keep/x", false),
        (&["*.log", "!keep.log"], "keep.log", false),
        (&["*.log", "!keep.log"], "dir/keep.log", false),
        (&["**/*.log", "!keep.log"], "dir/keep.log", true),
        (&[], "x", false),
    ];
    for (patterns, path, expected) in table {
        let matcher = matcher(patterns);
        assert_eq!(matcher.matches_or_parent(Path::new(path)), *expected, "{patterns:?} on {path}");
        assert_eq!(walk(&matcher, path), *expected, "{patterns:?} on a walk to {path}");
    }
}

#[test]
fn malformed_patterns_are_refused() {
    for pattern in [
        "[", "[^", "[^]", "[^bc", "\\", "[\\", "[a-", "[]a]", "[-]", "[x-]", "[-x]", "a[", "!", "\\q", "\\é",
        "[b-a]",
    ] {
        assert!(PatternMatcher::new(&[pattern]).is_err(), "{pattern}");
    }
}

#[test]
fn ignore_files() {
    let text = b"\xef\xbb\xbftest1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n!\n! \r\n  spaced  \n./a/../b/\n/\n #odd\n";
    let found: Vec<(String, u32)> = parse_ignore_file(text).into_iter().map(|p| (p.text, p.line)).collect();
    let expected = [
        ("test1", 1),
        ("test2", 2),
        ("a/file/here", 3),
        ("lastfile", 5),
        ("!inverted/abs/path", 7),
        ("!", 8),
        ("!", 9),
        ("spaced", 10),
        ("b", 11),
        ("/", 12),
        ("#odd", 13),
    ];
    assert_eq!(found, expected.map(|(text, line)| (text.to_owned(), line)));
}

#[test]
fn the_deciding_line_is_known() {
    let matcher = PatternMatcher::from_patterns(parse_ignore_file(b"# all\n*.md\n!README.md\nsecrets\n"))
        .expect("valid");
    let line = |path: &str| matcher.decide(Path::new(path)).map(|pattern| pattern.line);
    assert_eq!(line("notes.md"), Some(2));
    assert_eq!(line("README.md"), Some(3));
    assert_eq!(line("secrets/deep/key"), Some(4));
    assert_eq!(line("main.rs"), None);
}

#[test]
fn excluded_directories_are_entered_only_for_exceptions() {
    let below =
        |patterns: &[&str], directory: &str| matcher(patterns).may_take_back_below(Path::new(directory));
    assert!(!below(&["*"], "a"));
    assert!(below(&["*", "!a/b"], "a"));
    assert!(!below(&["*", "!a/b"], "ab"));
    assert!(!below(&["*", "!a/b"], "c"));
    assert!(below(&["*", "!a/*/x"], "a/q"));
    assert!(below(&["*", "!**/x"], "anything"));
    assert!(below(&["*", "!a/**"], "a/b/c"));
    assert!(below(&["*", "!src*"], "src2"));
}

#[test]
fn wildcards() {
    let table: &[(&str, &str, bool)] = &[
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-x]", "-", true),
        ("[x\\-]", "z", false),
        ("*x", "xxx", true),
        ("[]a]", "]", false),
        ("a[", "a", false),
        ("", "", true),
        ("*", "", true),
        ("p*s*t", "present", true),
    ];
    for (pattern, name, expected) in table {
        assert_eq!(wildcard_match(pattern, name), *expected, "{pattern} on {name}");
    }
    assert!(has_wildcard("a*") && has_wildcard("[") && !has_wildcard("a\\*") && !has_wildcard("a]"));
    assert_eq!(split_wildcards("/a/b*/c"), ("a".into(), Some("b*/c".to_owned())));
    assert_eq!(split_wildcards("/a//b/"), ("a/b".into(), None));
    assert_eq!(split_wildcards("*"), ("".into(), Some("*".to_owned())));
}

/// The plain meaning of a pattern list, to check the fast one against: every path above is compared.
fn slow_matches(patterns: &[String], path: &str) -> Option<bool> {
    let mut matched = false;
    for pattern in patterns {
        let (exception, text) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let compiled = Compiled::new(text)?;
        if ancestors(Path::new(path)).any(|part| compiled.matches(part)) {
            matched = !exception;
        }
    }
    Some(matched)
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_refused(pattern in "\\PC*", path in "\\PC*") {
        if let Ok(matcher) = PatternMatcher::new(&[&pattern]) {
            matcher.matches_or_parent(Path::new(&path));
        }
        wildcard_match(&pattern, &path);
        parse_ignore_file(pattern.as_bytes());
    }

    #[test]
    fn brackets_are_a_pattern_or_refused(pattern in "[\\[\\]^:a-c*?\\\\!-]{0,12}", path in "[a-c\\[\\]/-]{0,8}") {
        if let Ok(matcher) = PatternMatcher::new(&[&pattern]) {
            matcher.matches_or_parent(Path::new(&path));
        }
        wildcard_match(&pattern, &path);
    }

    #[test]
    fn plain_matching_and_walking_agree(
        patterns in prop::collection::vec("!?[ab*]{1,2}(/[ab*?]{1,2}){0,2}", 0..4),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let Ok(matcher) = PatternMatcher::new(&patterns) else { return Ok(()) };
        let slow = slow_matches(&patterns, &path).expect("accepted above");
        prop_assert_eq!(matcher.matches_or_parent(Path::new(&path)), slow);
        // What cannot be taken back below an excluded directory is not, so pruning loses nothing.
        for directory in top_down(Path::new(&path)) {
            let strictly_above = directory != Path::new(&path);
            if strictly_above && matcher.matches_or_parent(directory) && !matcher.may_take_back_below(directory) {
                prop_assert!(walk(&matcher, &path), "{:?} pruned at {}", patterns, directory.display());
                prop_assert!(slow);
            }
        }
        prop_assert_eq!(matcher.decide(Path::new(&path)).is_some_and(|p| !p.text.starts_with('!')), walk(&matcher, &path));
    }
}
