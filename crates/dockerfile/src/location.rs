//! Places in a Dockerfile: whole lines, and the token in them that is meant.

use std::sync::Arc;

use slipway_model::SourceSpan;
use slipway_model::llb::pb;

/// Holds a Dockerfile as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceFile {
    /// The name shown to people, as `Dockerfile`.
    pub name: String,
    pub data: Vec<u8>,
    /// What gave the file, where a client may want to look at it again.
    pub definition: Option<pb::Definition>,
}

impl SourceFile {
    /// Makes a source file from its name and bytes.
    pub fn new(name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), data: data.into(), definition: None }
    }

    /// Returns the form that definitions, diagnostics and warnings refer to.
    pub fn info(&self) -> Arc<pb::SourceInfo> {
        Arc::new(pb::SourceInfo {
            filename: self.name.clone(),
            data: self.data.clone(),
            definition: self.definition.clone(),
            language: "Dockerfile".to_owned(),
        })
    }

    /// Returns the text, with bytes that are not UTF-8 replaced.
    pub(crate) fn text(&self) -> String {
        let data = self.data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.data);
        String::from_utf8_lossy(data).into_owned()
    }
}

/// Names the lines of one instruction, first and last, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lines {
    pub start: u32,
    pub end: u32,
}

impl Lines {
    /// Names one line.
    pub const fn single(line: u32) -> Self {
        Self { start: line, end: line }
    }

    /// Returns one range for each line, the form that BuildKit's protocol uses.
    pub fn ranges(self) -> Vec<pb::Range> {
        let position = |line: u32| Some(pb::Position { line: line as i32, character: 0 });
        (self.start..=self.end.max(self.start))
            .map(|line| pb::Range { start: position(line), end: position(line) })
            .collect()
    }

    /// Returns the location of a vertex that comes from these lines of the first source.
    pub(crate) fn location(self) -> pb::Location {
        pb::Location { source_index: 0, ranges: self.ranges() }
    }

    /// Returns a span over these lines; where `token` stands in one of them, its characters are marked.
    pub fn span(self, source: &Arc<pb::SourceInfo>, token: Option<&str>) -> SourceSpan {
        let mut ranges = self.ranges();
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            mark(&mut ranges, &source.data, token);
        }
        SourceSpan { source: Arc::clone(source), ranges }
    }
}

fn mark(ranges: &mut [pb::Range], data: &[u8], token: &str) {
    let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    for range in ranges {
        let (Some(start), Some(end)) = (range.start.as_mut(), range.end.as_mut()) else { continue };
        let Some(line) = usize::try_from(start.line - 1).ok().and_then(|index| lines.get(index)) else {
            continue;
        };
        let found = line.windows(token.len()).position(|window| window == token.as_bytes());
        if let Some(column) = found {
            start.character = column as i32;
            end.character = (column + token.len()) as i32;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_marked_in_the_line_that_has_it() {
        let source = SourceFile::new("Dockerfile", "FROM a\nCOPY x \\\n  nope \\\n  /y\n").info();
        let span = Lines { start: 2, end: 4 }.span(&source, Some("nope"));
        let marks: Vec<_> = span
            .ranges
            .iter()
            .map(|range| (range.start.as_ref().unwrap(), range.end.as_ref().unwrap()))
            .map(|(start, end)| (start.line, start.character, end.character))
            .collect();
        assert_eq!(marks, [(2, 0, 0), (3, 2, 6), (4, 0, 0)]);
    }
}
