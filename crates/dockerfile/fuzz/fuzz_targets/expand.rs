//! Any text is expanded or refused, in every mode, in bounded time and memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slipway_dockerfile::{EnvList, Expander, GitReference};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut variables = EnvList::default();
    variables.set("A", "a/b.c d");
    variables.set("B", "");
    variables.set("P", "*?\\");
    for expander in [
        Expander::new('\\'),
        Expander::new('`').raw_quotes().keep_unset(),
        Expander::new('\\').raw_quotes().raw_escapes().keep_unset(),
        Expander::new('\\').quotes_are_text(),
    ] {
        let _ = expander.expand(text, &variables);
        let _ = expander.words(text, &variables);
    }
    let _ = GitReference::parse(text);
});
