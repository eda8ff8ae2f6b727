//! Lines of a source file around the place something is said about.

use std::fmt::Write as _;

use slipway_model::llb::pb;

use super::sanitize::{self, Keep};

/// What stands above and below lines of a file.
pub(super) const RULER: &str = "--------------------";

/// Formats the lines around `ranges` below the file's name and line, as BuildKit does; nothing if the
/// place is not in the file.
///
/// ```text
/// Dockerfile:2
/// --------------------
///    1 |     FROM busybox
///    2 | >>> RUN false
/// --------------------
/// ```
///
/// Below a range that has columns, those are marked.
pub(crate) fn snippet(source: &pb::SourceInfo, ranges: &[pb::Range]) -> Option<String> {
    let text = String::from_utf8_lossy(&source.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let (first, last) = extent(ranges)?;
    if first > lines.len() {
        return None;
    }
    let last = last.clamp(first, lines.len());
    let (from, to) = with_context(first, last, lines.len());
    let mut out = format!("{}:{first}\n{RULER}\n", file_name(source));
    for (at, line) in lines.iter().enumerate().take(to).skip(from - 1) {
        let number = at + 1;
        let mark = if holds(ranges, number) { ">>>" } else { "   " };
        let line = sanitize::line(line.as_bytes(), Keep::Text);
        let _ = writeln!(out, "{}", format!(" {number:>3} | {mark} {line}").trim_end());
        if let [range] = ranges
            && let Some(marker) = underline(range, number, lines[at])
        {
            let _ = writeln!(out, "     |     {marker}");
        }
    }
    out.push_str(RULER);
    out.push('\n');
    Some(out)
}

/// Marks the columns of a range that is within one line; sources without columns have none.
fn underline(range: &pb::Range, number: usize, line: &str) -> Option<String> {
    let (start, end) = (range.start.as_ref()?, range.end.as_ref()?);
    if bounds(range)? != (number, number) || end.character <= start.character {
        return None;
    }
    let column = |at: i32| {
        let at = usize::try_from(at).unwrap_or(0).min(line.len());
        (0..=at).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0)
    };
    let (start, end) = (column(start.character), column(end.character));
    let before = sanitize::line(&line.as_bytes()[..start], Keep::Text).chars().count();
    let marked = line[start..end].chars().count().max(1);
    Some(format!("{}{}", " ".repeat(before), "^".repeat(marked)))
}

/// Returns the file's name, as it may be shown.
pub(crate) fn file_name(source: &pb::SourceInfo) -> String {
    sanitize::line(source.filename.as_bytes(), Keep::Text)
}

/// Returns the first line of `ranges`, and its text.
pub(crate) fn first_line(source: &pb::SourceInfo, ranges: &[pb::Range]) -> Option<(usize, String)> {
    let (first, _) = extent(ranges)?;
    let line = source.data.split(|b| *b == b'\n').nth(first - 1)?;
    Some((first, sanitize::line(line, Keep::Text)))
}

/// Adds two lines on each side of one line, one on each side of several, as far as there are some.
fn with_context(first: usize, last: usize, count: usize) -> (usize, usize) {
    let pad = if first == last { 4 } else { 2 };
    let (mut from, mut to, mut added) = (first, last, 0);
    while added < pad {
        if from > 1 {
            from -= 1;
            added += 1;
        }
        if to < count {
            to += 1;
            added += 1;
        }
        added += 1;
    }
    (from, to)
}

fn bounds(range: &pb::Range) -> Option<(usize, usize)> {
    let start = usize::try_from(range.start.as_ref()?.line).ok().filter(|line| *line > 0)?;
    let end = range.end.as_ref().and_then(|end| usize::try_from(end.line).ok()).unwrap_or(start);
    Some((start, end.max(start)))
}

fn extent(ranges: &[pb::Range]) -> Option<(usize, usize)> {
    ranges.iter().filter_map(bounds).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn holds(ranges: &[pb::Range], line: usize) -> bool {
    ranges.iter().filter_map(bounds).any(|(start, end)| (start..=end).contains(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i32, end: i32) -> pb::Range {
        let position = |line| Some(pb::Position { line, character: 0 });
        pb::Range { start: position(start), end: position(end) }
    }

    fn source(text: &str) -> pb::SourceInfo {
        pb::SourceInfo { filename: "Dockerfile".into(), data: text.into(), ..pb::SourceInfo::default() }
    }

    #[test]
    fn one_line_has_its_neighbours() {
        assert_eq!(
            snippet(&source("FROM a\n\nRUN b\nRUN c\nRUN d\nRUN e"), &[range(4, 4)]).unwrap(),
            "Dockerfile:4\n--------------------\n\
             \x20  2 |\n   3 |     RUN b\n   4 | >>> RUN c\n   5 |     RUN d\n   6 |     RUN e\n\
             --------------------\n"
        );
    }

    #[test]
    fn several_lines_are_marked() {
        assert_eq!(
            snippet(&source("FROM a\nRUN b \\\n c\nRUN d"), &[range(2, 3)]).unwrap(),
            "Dockerfile:2\n--------------------\n\
             \x20  1 |     FROM a\n   2 | >>> RUN b \\\n   3 | >>>  c\n   4 |     RUN d\n\
             --------------------\n"
        );
    }

    #[test]
    fn columns_are_underlined() {
        let position = |character| Some(pb::Position { line: 1, character });
        let marked = |start, end| pb::Range { start: position(start), end: position(end) };
        let text = source("a = TÄG");
        assert_eq!(
            snippet(&text, &[marked(4, 8)]).unwrap(),
            "Dockerfile:1\n--------------------\n   1 | >>> a = TÄG\n     |         ^^^\n--------------------\n"
        );
        // Columns that are not in the line mark its end, and no columns mark nothing.
        assert!(snippet(&text, &[marked(50, 60)]).unwrap().contains("|            ^\n"));
        assert!(!snippet(&text, &[marked(0, 0)]).unwrap().contains('^'));
    }

    #[test]
    fn places_that_are_not_there_give_nothing() {
        assert_eq!(snippet(&source("a"), &[]), None);
        assert_eq!(snippet(&source("a"), &[range(5, 5)]), None);
        assert_eq!(snippet(&source("a"), &[range(0, 0)]), None);
        assert_eq!(snippet(&source("a"), &[range(-3, 1)]), None);
        assert!(snippet(&source("a"), &[range(1, 900)]).is_some());
    }
}
