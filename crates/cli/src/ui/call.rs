//! The answers of `--call` for people: what `check`, `outline` and `targets` found, from their JSON.

use std::fmt::Write as _;

use serde_json::Value;
use slipway_model::llb::pb;

use super::format::table;
use super::source;
use crate::settings::build::{CallFunction, CallSettings};

/// An answer, ready to be shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Goes to standard output.
    pub(crate) text: String,
    /// The error the frontend met, as BuildKit prints it.
    pub(crate) error: Option<String>,
    /// Something was found that should be mended.
    pub(crate) failed: bool,
}

/// The functions of the built-in frontend.
const FUNCTIONS: &[[&str; 3]] = &[
    ["outline", "1.0.0", "List all parameters current build target supports"],
    ["targets", "1.0.0", "List all targets current build supports"],
    ["lint", "1.0.0", "Lint a Dockerfile"],
    ["subrequests.describe", "1.0.0", "List available subrequest types"],
];

/// Formats the JSON of an answer.
pub(crate) fn answer(settings: CallSettings, json: &str) -> Result<Answer, serde_json::Error> {
    let result: Value = serde_json::from_str(json)?;
    let failed = settings.function == CallFunction::Check
        && !settings.ignore_status
        && (list(&result, "warnings").next().is_some()
            || result.get("buildError").is_some_and(|e| !e.is_null()));
    if settings.json {
        return Ok(Answer { text: with_newline(json), error: None, failed });
    }
    let (text, error) = match settings.function {
        CallFunction::Check => check(&result),
        CallFunction::Outline => (outline(&result), None),
        CallFunction::Targets => (targets(&result), None),
        CallFunction::Describe => (with_newline(json), None),
    };
    Ok(Answer { text, error, failed })
}

/// Lists the functions there are.
pub(crate) fn describe(json: bool) -> String {
    if json {
        let list: Vec<Value> = FUNCTIONS
            .iter()
            .map(|[name, version, text]| {
                serde_json::json!({"name": format!("frontend.{name}"), "version": version, "type": "rpc", "description": text})
            })
            .collect();
        return with_newline(&format!("{:#}", Value::Array(list)));
    }
    let head = ["NAME", "VERSION", "DESCRIPTION"];
    let rows: Vec<Vec<String>> = [head]
        .iter()
        .chain(FUNCTIONS)
        .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
        .collect();
    table(&rows, 1)
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn check(result: &Value) -> (String, Option<String>) {
    let mut warnings: Vec<&Value> = list(result, "warnings").collect();
    let line = |warning: &&Value| {
        let (_, ranges) = location(result, warning.get("location"));
        ranges.first().and_then(|range| range.start.as_ref().map(|start| start.line))
    };
    warnings.sort_by_key(line);
    let mut out = String::new();
    match warnings.len() {
        0 => {}
        1 => out.push_str("Check complete, 1 warning has been found!\n"),
        count => drop(writeln!(out, "Check complete, {count} warnings have been found!")),
    }
    for warning in &warnings {
        let url = match text(warning, "url") {
            "" => String::new(),
            url => format!(" - {url}"),
        };
        let _ = writeln!(out, "\nWARNING: {}{url}\n{}", text(warning, "ruleName"), text(warning, "detail"));
        out.push_str(&snippet(result, warning.get("location")));
    }
    let error = result
        .get("buildError")
        .filter(|error| !error.is_null())
        .map(|error| format!("{}\n{}", text(error, "message"), snippet(result, error.get("location"))));
    if warnings.is_empty() && error.is_none() {
        out.push_str("Check complete, no warnings found.\n");
    }
    (out, error)
}

fn snippet(result: &Value, location: Option<&Value>) -> String {
    let (source, ranges) = self::location(result, location);
    source.and_then(|source| source::snippet(&source, &ranges)).unwrap_or_default()
}

/// Finds the source file and the ranges that a location names.
fn location(result: &Value, location: Option<&Value>) -> (Option<pb::SourceInfo>, Vec<pb::Range>) {
    use base64::Engine as _;
    let Some(location) = location else { return (None, Vec::new()) };
    let index = location.get("sourceIndex").and_then(Value::as_u64).unwrap_or(0);
    let source = list(result, "sources").nth(usize::try_from(index).unwrap_or(usize::MAX)).map(|source| {
        let data = base64::engine::general_purpose::STANDARD.decode(text(source, "data"));
        pb::SourceInfo {
            filename: text(source, "filename").to_owned(),
            data: data.unwrap_or_default(),
            ..pb::SourceInfo::default()
        }
    });
    let position = |range: &Value, end: &str| {
        let number = |key: &str| {
            range
                .get(end)
                .and_then(|p| p.get(key))
                .and_then(Value::as_i64)
                .and_then(|n| i32::try_from(n).ok())
        };
        Some(pb::Position { line: number("line").unwrap_or(0), character: number("character").unwrap_or(0) })
    };
    let ranges = list(location, "ranges")
        .map(|range| pb::Range { start: position(range, "start"), end: position(range, "end") })
        .collect();
    (source, ranges)
}

fn outline(result: &Value) -> String {
    let mut out = String::new();
    let (name, description) = (text(result, "name"), text(result, "description"));
    if !name.is_empty() || !description.is_empty() {
        let shown = if name.is_empty() { "(default)" } else { name };
        let mut rows = vec![vec!["TARGET:".to_owned(), shown.to_owned()]];
        if !description.is_empty() {
            rows.push(vec!["DESCRIPTION:".to_owned(), description.to_owned()]);
        }
        out += &(table(&rows, 1) + "\n");
    }
    let mut section = |key: &str, head: &[&str], row: &dyn Fn(&Value) -> Vec<String>| {
        let rows: Vec<Vec<String>> = list(result, key).map(row).collect();
        if !rows.is_empty() {
            let head = head.iter().map(|cell| (*cell).to_owned()).collect();
            let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
            out += &(table(&all, 3) + "\n");
        }
    };
    let words = |value: &Value, keys: &[&str]| keys.iter().map(|key| text(value, key).to_owned()).collect();
    section("args", &["BUILD ARG", "VALUE", "DESCRIPTION"], &|arg| {
        words(arg, &["name", "value", "description"])
    });
    let required = |value: &Value| {
        let needed = value.get("required").and_then(Value::as_bool) == Some(true);
        vec![text(value, "name").to_owned(), if needed { "true" } else { "" }.to_owned()]
    };
    section("secrets", &["SECRET", "REQUIRED"], &required);
    section("ssh", &["SSH", "REQUIRED"], &required);
    out
}

fn targets(result: &Value) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in list(result, "targets") {
        let default = target.get("default").and_then(Value::as_bool) == Some(true);
        let name = match (text(target, "name"), default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(vec![name, text(target, "description").to_owned()]);
    }
    table(&rows, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: CallFunction, json: &str) -> Answer {
        answer(CallSettings { function, json: false, ignore_status: false }, json).unwrap()
    }

    #[test]
    fn a_check_shows_where() {
        // `FROM busybox as x\n`
        let json = r#"{"warnings":[{"ruleName":"FromAsCasing","url":"https://x","detail":"'as' and 'FROM'","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}}],"sources":[{"filename":"Dockerfile","data":"RlJPTSBidXN5Ym94IGFzIHgK"}]}"#;
        let got = of(CallFunction::Check, json);
        assert_eq!(
            got.text,
            "Check complete, 1 warning has been found!\n\nWARNING: FromAsCasing - https://x\n'as' and 'FROM'\n\
             Dockerfile:1\n--------------------\n   1 | >>> FROM busybox as x\n   2 |\n--------------------\n"
        );
        assert!(got.failed);
        let clean = of(CallFunction::Check, r#"{"warnings":null,"sources":null}"#);
        assert_eq!((clean.text.as_str(), clean.failed), ("Check complete, no warnings found.\n", false));
        let broken =
            of(CallFunction::Check, r#"{"buildError":{"message":"unknown instruction: FRO","location":{}}}"#);
        assert_eq!((broken.text.as_str(), broken.failed), ("", true));
        assert!(broken.error.unwrap().starts_with("unknown instruction: FRO"));
    }

    #[test]
    fn targets_and_outline_are_tables() {
        let json = r#"{"targets":[{"name":"base","description":"all of it"},{"name":"app","default":true}]}"#;
        assert_eq!(
            of(CallFunction::Targets, json).text,
            "TARGET        DESCRIPTION\nbase          all of it\napp (default) \n"
        );
        let json =
            r#"{"name":"one","args":[{"name":"A","value":"1"}],"secrets":[{"name":"s","required":true}]}"#;
        assert_eq!(
            of(CallFunction::Outline, json).text,
            "TARGET: one\n\nBUILD ARG   VALUE   DESCRIPTION\nA           1       \n\nSECRET   REQUIRED\ns        true\n\n"
        );
    }
}
