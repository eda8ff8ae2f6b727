//! `--call=check`: warnings, and the first error if there is one.

use serde::Serialize;
use slipway_model::Diagnostic;

use super::{Location, encoded, json};
use crate::convert::{Converter, Purpose};
use crate::problem::Problem;
use crate::{ConvertOptions, ImageResolver, Lines, LintWarning, SourceFile};

/// Holds what a check found.
#[derive(Clone, Debug)]
pub struct CheckResults {
    pub warnings: Vec<LintWarning>,
    pub error: Option<BuildError>,
    source: SourceFile,
}

/// Why the file cannot be built.
#[derive(Clone, Debug)]
pub struct BuildError {
    pub diagnostic: Diagnostic,
    pub lines: Option<Lines>,
}

/// Checks a file: with a target the stages that it needs, without one all of them.
pub async fn check(
    source: &SourceFile,
    options: &ConvertOptions,
    resolver: &dyn ImageResolver,
) -> CheckResults {
    let (problems, warnings) = match Converter::new(source, options, resolver, Purpose::Check) {
        Err((problems, warnings)) => (problems, warnings),
        Ok(mut converter) => {
            let problems = converter.run().await.err().unwrap_or_default();
            (problems, converter.into_warnings())
        }
    };
    let info = source.info();
    let error = problems.into_iter().next().map(|problem: Problem| BuildError {
        lines: problem.lines,
        diagnostic: problem.into_diagnostic(&info),
    });
    CheckResults { warnings, error, source: source.clone() }
}

#[derive(Serialize)]
struct JsonResults<'a> {
    warnings: Option<Vec<JsonWarning<'a>>>,
    sources: [JsonSource<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<JsonError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonWarning<'a> {
    rule_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct JsonSource<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Serialize)]
struct JsonError {
    message: String,
    location: Location,
}

impl CheckResults {
    /// Tells whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.error.is_none()
    }

    /// Returns the JSON form.
    pub fn to_json(&self) -> String {
        let warnings: Vec<JsonWarning<'_>> = self
            .warnings
            .iter()
            .map(|warning| JsonWarning {
                rule_name: warning.rule.name,
                description: warning.rule.description,
                url: warning.rule.url,
                detail: &warning.detail,
                location: Location::of(warning.lines),
            })
            .collect();
        let error = self.error.as_ref().map(|error| JsonError {
            message: error.diagnostic.to_string(),
            location: error.lines.map(Location::of).unwrap_or_default(),
        });
        let source = JsonSource {
            filename: &self.source.name,
            data: encoded(&self.source.data),
            language: "Dockerfile",
        };
        json(&JsonResults { warnings: Some(warnings).filter(|w| !w.is_empty()), sources: [source], error })
    }

    /// Returns the form for people, the error left out; clients say above it how many warnings there are.
    pub fn to_text(&self) -> String {
        let mut warnings: Vec<&LintWarning> = self.warnings.iter().collect();
        warnings.sort_by_key(|warning| warning.lines.start);
        warnings.into_iter().map(|warning| self.warning_text(warning)).collect()
    }

    /// Returns one warning with the lines it is about.
    pub fn warning_text(&self, warning: &LintWarning) -> String {
        let url = match warning.rule.url {
            "" => String::new(),
            url => format!(" - {url}"),
        };
        let snippet = snippet(&self.source, warning.lines);
        format!("\nWARNING: {}{url}\n{}\n{snippet}", warning.rule.name, warning.detail)
    }
}

/// Returns lines of a file with a few around them, the lines themselves marked.
pub fn snippet(source: &SourceFile, at: Lines) -> String {
    let text = String::from_utf8_lossy(&source.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let (first, last) = (at.start as usize, at.end.max(at.start) as usize);
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let last = last.min(lines.len());
    let around = if first == last { 4 } else { 2 };
    let (mut start, mut end, mut padded) = (first, last, 0);
    while padded < around {
        if start > 1 {
            start -= 1;
            padded += 1;
        }
        if end != lines.len() {
            end += 1;
            padded += 1;
        }
        padded += 1;
    }
    let ruler = "--------------------\n";
    let mut out = format!("{}:{first}\n{ruler}", source.name);
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        out.push_str(&format!(" {number:>3} | {mark} {}\n", lines[number - 1]));
    }
    out + ruler
}
