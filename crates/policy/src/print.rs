//! What policies see of a source, for people who write them.

use std::collections::BTreeSet;

use serde_json::Value;
use slipway_engine::policy::{KnownSource, Wanted};
use slipway_model::{Diagnostic, Platform};

use crate::input::Document;
use crate::{Log, unknown};

/// What policies see of a source.
pub struct Printed {
    pub document: Value,
    /// Fields that nobody has asked for yet: of those that were wanted, or all.
    pub unresolved: Vec<String>,
    /// Fields that were wanted and are none that could be asked for.
    pub invalid: Vec<String>,
    /// How to ask for those that were wanted.
    pub question: Option<Wanted>,
}

/// Shows what policies see of a source, of which some fields are wanted.
///
/// # Errors
/// Policies know no such sources.
pub fn print(source: &KnownSource, platform: &Platform, fields: &[String]) -> Result<Printed, Diagnostic> {
    let document = Document::of(source, Some(platform), &Log::silent())?;
    let mut asked = BTreeSet::new();
    let mut invalid = Vec::new();
    for field in fields {
        let below = |known: &&String| {
            let rest = field.strip_prefix(known.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        match document.unknown.iter().find(below) {
            Some(known) => drop(asked.insert(known.clone())),
            None => invalid.push(field.clone()),
        }
    }
    let question = unknown::wanted(asked.iter().map(String::as_str));
    let unresolved = if fields.is_empty() { document.unknown.clone() } else { asked.into_iter().collect() };
    Ok(Printed { document: document.shown(), unresolved, invalid, question })
}
