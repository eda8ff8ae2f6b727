//! The warnings of a build, told again when it is over.

use std::collections::HashSet;
use std::fmt::Write as _;

use slipway_model::progress::Warning;

use super::colors::{Palette, Tone};
use super::sanitize::{self, Keep};
use super::source;

pub(crate) use super::rawjson::warning as to_json;

/// Formats the warnings, each once however many platforms have it; whole ones if `debug`.
pub(crate) fn summary(warnings: &[Warning], palette: &Palette, debug: bool) -> String {
    let mut seen = HashSet::new();
    let place = |w: &Warning| w.ranges.first().and_then(|r| r.start.as_ref().map(|p| p.line));
    let unique: Vec<&Warning> =
        warnings.iter().filter(|w| seen.insert((w.short.as_str(), place(w), &w.detail))).collect();
    if unique.is_empty() {
        return String::new();
    }
    let head = match unique.len() {
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    let more = if debug { "" } else { " (use `--debug` to expand)" };
    let mut out = format!("\n {}\n", palette.paint(Tone::Warning, &format!("{head}{more}:")));
    for warning in unique {
        let _ = writeln!(out, " - {}", clean(&warning.short));
        if debug {
            expand(warning, &mut out);
        } else if let Some(source) = &warning.source
            && let Some((number, line)) = source::first_line(source, &warning.ranges)
        {
            let _ = writeln!(out, "     {} | {}", number, line.trim());
        }
    }
    out
}

fn expand(warning: &Warning, out: &mut String) {
    for detail in &warning.detail {
        let _ = writeln!(out, "{}", clean(detail));
    }
    if let Some(url) = &warning.url {
        let _ = writeln!(out, "More info: {}", clean(url));
    }
    if let Some(snippet) = warning.source.as_ref().and_then(|s| source::snippet(s, &warning.ranges)) {
        out.push_str(&snippet);
    }
    out.push('\n');
}

fn clean(text: &str) -> String {
    sanitize::line(text.as_bytes(), Keep::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_model::Digest;
    use slipway_model::llb::pb;

    fn warning(vertex: &str) -> Warning {
        let position = || Some(pb::Position { line: 1, character: 0 });
        Warning {
            vertex: Digest::of(vertex),
            level: 1,
            short: "FromAsCasing: casing of `as` and `FROM` (line 1)".into(),
            detail: vec!["They should match".into()],
            url: Some("https://docs.docker.com/go/dockerfile/rule/from-as-casing/".into()),
            source: Some(
                pb::SourceInfo {
                    filename: "Dockerfile".into(),
                    data: "FROM busybox as x\n".into(),
                    ..pb::SourceInfo::default()
                }
                .into(),
            ),
            ranges: vec![pb::Range { start: position(), end: position() }],
        }
    }

    #[test]
    fn each_warning_is_told_once() {
        let warnings = [warning("amd64"), warning("arm64")];
        assert_eq!(
            summary(&warnings, &Palette::none(), false),
            "\n 1 warning found (use `--debug` to expand):\n \
             - FromAsCasing: casing of `as` and `FROM` (line 1)\n     1 | FROM busybox as x\n"
        );
        let whole = summary(&warnings, &Palette::none(), true);
        assert!(whole.contains("They should match\nMore info: https://"), "{whole}");
        assert!(whole.contains("Dockerfile:1\n-----"), "{whole}");
        assert_eq!(summary(&[], &Palette::none(), false), "");
    }
}
