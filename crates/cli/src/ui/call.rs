//! The answers of `--call`: what `check`, `outline` and `targets` found, and which functions there are.

use serde_json::{Value, json};
use slipway_model::llb::pb;

use super::format::table;
use super::source;

/// The functions of the built-in frontend, which the reference calls subrequests.
const FUNCTIONS: &[[&str; 3]] = &[
    ["outline", "1.0.0", "List all parameters current build target supports"],
    ["targets", "1.0.0", "List all targets current build supports"],
    ["lint", "1.0.0", "Lint a Dockerfile"],
    ["subrequests.describe", "1.0.0", "List available subrequest types"],
];

/// Lists the functions there are.
pub(crate) fn describe(as_json: bool) -> String {
    if as_json {
        let entry = |[name, version, text]: &[&str; 3]| json!({"name": format!("frontend.{name}"), "version": version, "type": "rpc", "description": text});
        return format!("{:#}\n", Value::Array(FUNCTIONS.iter().map(entry).collect()));
    }
    let head = ["NAME", "VERSION", "DESCRIPTION"];
    let row = |row: &[&str; 3]| row.iter().map(|cell| (*cell).to_owned()).collect();
    table(&std::iter::once(&head).chain(FUNCTIONS).map(row).collect::<Vec<_>>(), 1)
}

/// Formats what a check found, its error left out: the warnings as a frontend tells them, below their number. The
/// Dockerfile is called `name`, if there is one.
pub(crate) fn warnings(text: &str, json: &str, name: Option<&str>) -> String {
    let result: Value = serde_json::from_str(json).unwrap_or_default();
    let has_error = result.get("buildError").is_some_and(|error| !error.is_null());
    let head = match list(&result, "warnings").count() {
        0 if has_error => return String::new(),
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!".to_owned(),
        count => format!("Check complete, {count} warnings have been found!"),
    };
    let files: Vec<&str> = list(&result, "sources").map(|source| self::text(source, "filename")).collect();
    let mut out = format!("{head}\n");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // A place stands alone above its lines.
        let is_place = lines.peek().is_some_and(|next| *next == source::RULER);
        let number = line.rsplit_once(':').filter(|(file, _)| is_place && files.contains(file));
        match (number, name) {
            (Some((_, number)), Some(name)) => out.push_str(&format!("{name}:{number}\n")),
            _ => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

/// Formats the error that a check met, with its place, from the check's JSON. The Dockerfile is called `name`, if
/// there is one.
pub(crate) fn build_error(json: &str, name: Option<&str>) -> Option<String> {
    let result: &Value = &serde_json::from_str(json).ok()?;
    let error = result.get("buildError").filter(|error| !error.is_null())?;
    let (mut source, ranges) = location(result, error.get("location")?);
    if let (Some(source), Some(name)) = (&mut source, name) {
        name.clone_into(&mut source.filename);
    }
    let snippet = source.and_then(|source| source::snippet(&source, &ranges)).unwrap_or_default();
    Some(format!("{}\n{snippet}", text(error, "message")))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Finds the source file and the ranges that a location names.
fn location(result: &Value, location: &Value) -> (Option<pb::SourceInfo>, Vec<pb::Range>) {
    use base64::Engine as _;
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
        let line = range.get(end)?.get("line")?.as_i64()?;
        Some(pb::Position { line: i32::try_from(line).ok()?, character: 0 })
    };
    let ranges = list(location, "ranges")
        .map(|range| pb::Range { start: position(range, "start"), end: position(range, "end") })
        .collect();
    (source, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_check_shows_where() {
        // `FRO busybox\n`
        let result = json!({
            "warnings": [],
            "sources": [{"filename": "Dockerfile", "data": "RlJPIGJ1c3lib3gK"}],
            "buildError": {
                "message": "unknown instruction: FRO",
                "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]},
            },
        });
        assert_eq!(
            build_error(&result.to_string(), Some("sub/Dockerfile")).unwrap(),
            "unknown instruction: FRO\nsub/Dockerfile:1\n--------------------\n   1 | >>> FRO busybox\n   2 |\n\
             --------------------\n"
        );
        assert_eq!(build_error(r#"{"warnings": [], "buildError": null}"#, None), None);
    }

    #[test]
    fn warnings_are_counted_and_have_the_place_that_was_typed() {
        let result = |count: usize, error: Value| {
            json!({"warnings": vec![json!({}); count], "sources": [{"filename": "Dockerfile"}], "buildError": error})
                .to_string()
        };
        let text = "\nWARNING: Rule - https://docs\nDockerfile:2\nDockerfile:2\n--------------------\n   2 | >>> x\n\
                    --------------------\n";
        assert_eq!(warnings("", &result(0, Value::Null), None), "Check complete, no warnings found.\n");
        assert_eq!(warnings("", &result(0, json!({"message": "no"})), None), "");
        assert_eq!(
            warnings(text, &result(1, Value::Null), None),
            format!("Check complete, 1 warning has been found!\n{text}")
        );
        assert_eq!(
            warnings(text, &result(2, Value::Null), Some("a/b")),
            "Check complete, 2 warnings have been found!\n\nWARNING: Rule - https://docs\nDockerfile:2\na/b:2\n\
             --------------------\n   2 | >>> x\n--------------------\n"
        );
    }

    #[test]
    fn functions_are_listed() {
        assert!(describe(false).contains("\nlint                 1.0.0   Lint a Dockerfile\n"));
        assert!(describe(true).contains("\"name\": \"frontend.lint\""));
    }
}
