//! `policy test`: tests of a policy, and what came of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_model::{Diagnostic, ErrorKind, Platform};
use slipway_policy::{PolicyFile, TestOptions, TestResult, run_tests};

use super::AtBuilder;
use crate::app::Context;
use crate::args::policy::TestArgs;
use crate::builder::Builder;
use crate::error::Failure;
use crate::policy::Files;
use crate::{interrupt, output};

/// What files of tests end in.
const SUFFIX: &str = "_test.rego";

/// Runs `policy test`.
pub(super) fn run(args: &TestArgs, context: &Context) -> Result<(), Failure> {
    let directory = context.around.absolute("");
    let builder = Arc::new(Builder::open_unprivileged(&context.global)?);
    let options = TestOptions {
        policy: read(&directory, format!("{}.rego", args.filename))?,
        tests: tests(&directory, &args.path)?,
        run: args.run.clone(),
        more: Arc::new(Files::of_directory(directory)),
        lookup: Arc::new(AtBuilder(builder)),
        platform: Platform::host(),
    };
    let runtime = interrupt::runtime()?;
    let results = runtime.block_on(run_tests(options));
    runtime.shutdown_background();
    let results = results?;
    output::text(&results.iter().map(shown).collect::<String>())?;
    if results.iter().all(|result| result.passed) { Ok(()) } else { Err(Failure::Status(1)) }
}

fn read(directory: &Path, name: String) -> Result<PolicyFile, Failure> {
    let text = std::fs::read_to_string(directory.join(&name));
    let text = text.map_err(|error| Failure::io(format!("failed to read policy file {name}"), &error))?;
    Ok(PolicyFile { name, text })
}

/// Finds the files of tests: the one that is named, or those of a directory.
fn tests(directory: &Path, path: &str) -> Result<Vec<PolicyFile>, Failure> {
    let wrong = |message: String| Failure::from(Diagnostic::new(ErrorKind::User, message));
    let full = directory.join(path);
    if !full.is_dir() {
        return match path.ends_with(SUFFIX) {
            true => Ok(vec![read(directory, path.to_owned())?]),
            false => Err(wrong(format!("test file must have {SUFFIX} suffix: {path}"))),
        };
    }
    let entries = std::fs::read_dir(&full);
    let entries =
        entries.map_err(|error| Failure::io(format!("failed to read the directory {path}"), &error))?;
    let is_test = |name: &PathBuf| name.to_string_lossy().ends_with(SUFFIX);
    let names =
        entries.flatten().filter(|entry| !entry.path().is_dir()).map(|entry| entry.file_name().into());
    let mut names: Vec<PathBuf> = names.filter(is_test).collect();
    names.sort();
    if names.is_empty() {
        return Err(wrong("no policy tests found".to_owned()));
    }
    let below = |name: PathBuf| match path {
        "." | "./" => name.display().to_string(),
        path => Path::new(path).join(name).display().to_string(),
    };
    names.into_iter().map(|name| read(directory, below(name))).collect()
}

/// Shows what came of a test; of one that failed, why.
fn shown(result: &TestResult) -> String {
    let decision = result.decision.as_ref();
    let allow = decision.and_then(|decision| decision.allow);
    let mut text = format!(
        "{}: {} (allow={}",
        result.name,
        if result.passed { "PASS" } else { "FAIL" },
        allow.map_or_else(|| "n/a".to_owned(), |allow| allow.to_string())
    );
    let messages = decision.map(|decision| decision.deny_messages.as_slice()).unwrap_or_default();
    if !messages.is_empty() {
        text += &format!(", deny_msg={}", messages.join("; "));
    }
    text += ")\n";
    if result.passed {
        return text;
    }
    match &result.input {
        Some(input) => text += &format!("input:\n{input:#}\n"),
        None => text += "input: <nil>\n",
    }
    match decision {
        Some(decision) => text += &format!("decision:\n{:#}\n", decision.document()),
        None => text += "decision: <nil>\n",
    }
    if !result.missing.is_empty() {
        let missing: Vec<String> = result.missing.iter().map(|field| format!("input.{field}")).collect();
        text += &format!("missing_input: {}\n", missing.join(", "));
    }
    if !result.metadata.is_empty() {
        text += &format!("metadata_resolve: {}\n", result.metadata.join(", "));
    }
    text
}
