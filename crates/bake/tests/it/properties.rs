//! No text makes the crate panic, whatever it is.

use proptest::prelude::*;
use slipway_bake::parse;

use crate::{bake_files, environment, file, request};

/// Pieces that bake files are made of, and some that they are not.
const PIECES: &[&str] = &[
    "target",
    "group",
    "variable",
    "function",
    "\"a\"",
    "\"b\"",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "=",
    ":",
    ",",
    "\n",
    " ",
    "\"",
    "${",
    "%{",
    "}",
    "~",
    "if",
    "for",
    "in",
    "x",
    "tags",
    "args",
    "matrix",
    "name",
    "inherits",
    "targets",
    "default",
    "params",
    "result",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!",
    "&&",
    "...",
    "1",
    "-0.5",
    "1e3",
    "null",
    "true",
    "<<EOT\n",
    "EOT\n",
    "target.a.tags",
    "[*]",
    ".*",
    "upper(",
    "format(\"%",
    "substr(",
    "range(",
    "cidrsubnet(",
    "regex(",
    "é",
    "\\u0041",
    "$$",
    "//",
    "#",
    "/*",
    "services:",
    "build:",
    "- ",
    "&a",
    "*a",
    "<<: ",
    "!reset",
    "$X",
    "${X:-",
    "\t",
];

fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..60);
    prop_oneof![pieces.prop_map(|pieces| pieces.join(" ")), any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn texts_are_read_or_refused(text in texts(), name in prop::sample::select(&["a.hcl", "a.json", "a.yaml", "-"][..])) {
        let files = [file(name, &text)];
        let _ = parse(&files, &environment(&[("X", "x")]));
    }

    #[test]
    fn values_are_read_or_refused(expression in texts()) {
        let text = format!("target \"default\" {{\n  args = {{ x = {expression}\n }}\n}}\n");
        let _ = parse(&[file("a.hcl", &text)], &environment(&[]));
    }

    #[test]
    fn overrides_are_taken_or_refused(key in texts(), value in any::<String>()) {
        let files = [file("a.hcl", "target \"default\" {}")];
        for text in [format!("*.{key}={value}"), format!("{key}={value}"), format!("*.output={value}")] {
            let _ = bake_files(&files, &environment(&[]), &request(&[&key], &[&text]));
        }
    }
}
