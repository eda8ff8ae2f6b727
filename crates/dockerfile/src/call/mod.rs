//! The answers to `--call`: check, outline, targets, and what calls there are.
//!
//! The JSON is the reference's to the letter, because scripts read it; so is the text, as buildx prints it.

mod check;
mod describe;
mod outline;
mod table;
mod targets;

use serde::Serialize;

pub use check::{BuildError, CheckResults, check, snippet};
pub use describe::{Request, describe, describe_text};
pub use outline::{Outline, OutlineArg, OutlineSecret, OutlineSsh, outline};
pub use targets::{Target, TargetList, targets};

use crate::Lines;

/// A place, as the protocol's JSON has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<LineRange>,
}

/// One line of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LineRange {
    pub start: LinePosition,
    pub end: LinePosition,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinePosition {
    pub line: u32,
}

impl Location {
    fn of(lines: Lines) -> Self {
        let at = |line| LinePosition { line };
        let lines = lines.start..=lines.end.max(lines.start);
        Self { ranges: lines.map(|line| LineRange { start: at(line), end: at(line) }).collect() }
    }
}

/// Encodes a source for JSON.
fn encoded(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}

/// Writes a value as the reference does: indented by two.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
