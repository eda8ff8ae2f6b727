//! Whole bake files, read as the command line reads them.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod errors;
mod files;
mod goldens;
mod grants;
mod properties;
mod targets;
mod variables;

use std::collections::BTreeMap;

use slipway_bake::{Bake, Definition, Environment, Request, SourceFile, parse, resolve};
use slipway_model::Diagnostic;

/// Surroundings with these variables, and with no files but the given ones.
pub(crate) fn environment(variables: &[(&str, &str)]) -> Environment {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Environment {
        variables: map(variables),
        given: BTreeMap::new(),
        dot_env: None,
        read: Box::new(|_| Err(std::io::Error::from(std::io::ErrorKind::NotFound))),
        builtins: map(&[("BAKE_CMD_CONTEXT", "cwd://"), ("BAKE_LOCAL_PLATFORM", "linux/amd64")]),
    }
}

pub(crate) fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.to_owned(), text: text.to_owned() }
}

pub(crate) fn request(targets: &[&str], overrides: &[&str]) -> Request {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Request { targets: list(targets), overrides: list(overrides), policies_off: false }
}

/// Reads one HCL file.
pub(crate) fn define(text: &str) -> Result<Definition, Vec<Diagnostic>> {
    parse(&[file("docker-bake.hcl", text)], &environment(&[]))
}

/// Reads files and resolves targets of them.
pub(crate) fn bake_files(
    files: &[SourceFile],
    around: &Environment,
    request: &Request,
) -> Result<Bake, Vec<Diagnostic>> {
    resolve(&parse(files, around)?, files, around, request)
}

/// Reads one HCL file and resolves targets of it.
pub(crate) fn bake(text: &str, targets: &[&str], overrides: &[&str]) -> Result<Bake, Vec<Diagnostic>> {
    bake_files(&[file("docker-bake.hcl", text)], &environment(&[]), &request(targets, overrides))
}

/// Returns one build argument of a target.
pub(crate) fn arg<'a>(bake: &'a Bake, target: &str, name: &str) -> Option<&'a str> {
    bake.targets[target].args.as_ref()?.get(name)?.as_deref()
}

/// Returns all that is wrong with a file, as one text.
pub(crate) fn mistakes(text: &str) -> String {
    match define(text) {
        Ok(_) => panic!("there is no mistake in `{text}`"),
        Err(wrong) => describe(&wrong),
    }
}

pub(crate) fn describe(wrong: &[Diagnostic]) -> String {
    let line = |diagnostic: &Diagnostic| {
        let place = diagnostic.span.as_ref().and_then(|span| {
            let start = span.ranges.first()?.start.as_ref()?;
            Some(format!("{}:{}:{}: ", span.source.filename, start.line, start.character))
        });
        let hint = diagnostic.hint.as_ref().map(|hint| format!(" [{hint}]")).unwrap_or_default();
        format!("{}{diagnostic}{hint}", place.unwrap_or_default())
    };
    wrong.iter().map(line).collect::<Vec<_>>().join("\n")
}
