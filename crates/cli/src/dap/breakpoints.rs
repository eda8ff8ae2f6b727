//! Breakpoints: where the editor wants a stop, and what of the build is there.
//!
//! Editors set them before anything is known of the file. They are verified when a definition is there to hold them
//! against. Paths are compared without case, as some editors' file systems do.

use std::collections::HashMap;

use slipway_model::Digest;
use slipway_model::llb::{Definition, pb};

use super::messages::{Breakpoint, Source, SourceBreakpoint};

/// The editor had no answer yet.
const PENDING: &str = "pending";
/// Nothing of the build is there.
const FAILED: &str = "failed";

/// All breakpoints, by the path of their file.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    by_path: HashMap<String, Vec<Breakpoint>>,
    last: i64,
}

impl Breakpoints {
    /// Replaces the breakpoints of a file; one that was there keeps its number.
    pub(super) fn set(&mut self, path: &str, wanted: &[SourceBreakpoint]) -> Vec<Breakpoint> {
        let before = self.by_path.remove(&path.to_lowercase()).unwrap_or_default();
        let mut list = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let same = |known: &&Breakpoint| {
                (known.line..=known.end_line).contains(&wanted.line)
                    && (known.column..=known.end_column).contains(&wanted.column)
            };
            list.push(before.iter().find(same).cloned().unwrap_or_else(|| {
                self.last += 1;
                Breakpoint {
                    id: self.last,
                    verified: false,
                    source: Source::of(path),
                    line: wanted.line,
                    column: wanted.column,
                    end_line: wanted.line,
                    end_column: wanted.column,
                    reason: Some(PENDING),
                }
            }));
        }
        self.by_path.insert(path.to_lowercase(), list.clone());
        list
    }

    /// Finds the vertices that a stop is wanted at; returns also the breakpoints of which more is known now.
    ///
    /// `paths` has the editor's path of each source file of the definition.
    pub(super) fn find(
        &mut self,
        definition: &Definition,
        paths: &[String],
    ) -> (HashMap<Digest, i64>, Vec<Breakpoint>) {
        let (mut hits, mut changed) = (HashMap::new(), Vec::new());
        for vertex in &definition.vertices {
            if let Some(id) =
                vertex.locations.iter().find_map(|location| self.at(location, paths, &mut changed))
            {
                hits.insert(vertex.digest, id);
            }
        }
        for path in paths {
            let list = self.by_path.get_mut(&path.to_lowercase()).into_iter().flatten();
            for missed in list.filter(|known| !known.verified && known.reason != Some(FAILED)) {
                missed.reason = Some(FAILED);
                changed.push(missed.clone());
            }
        }
        (hits, changed)
    }

    /// Finds the breakpoint at a place.
    fn at(
        &mut self,
        location: &pb::Location,
        paths: &[String],
        changed: &mut Vec<Breakpoint>,
    ) -> Option<i64> {
        let path = paths.get(usize::try_from(location.source_index).ok()?)?;
        let range = Span::of(location.ranges.first()?);
        let list = self.by_path.get_mut(&path.to_lowercase())?;
        let known = list.iter_mut().find(|known| range.covers(known))?;
        if !known.verified {
            *known = Breakpoint {
                id: known.id,
                verified: true,
                // Their case may be another one: ours is the file's.
                source: Source::of(path),
                line: range.line,
                column: range.column,
                end_line: range.end_line,
                end_column: range.end_column,
                reason: None,
            };
            changed.push(known.clone());
        }
        Some(known.id)
    }
}

/// A range of a file, as the protocol counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) line: i64,
    pub(super) column: i64,
    pub(super) end_line: i64,
    pub(super) end_column: i64,
}

impl Span {
    pub(super) fn of(range: &pb::Range) -> Self {
        let start = range.start.clone().unwrap_or_default();
        let end = range.end.as_ref().unwrap_or(&start);
        Self {
            line: start.line.into(),
            column: start.character.into(),
            end_line: end.line.into(),
            end_column: end.character.into(),
        }
    }

    fn covers(&self, known: &Breakpoint) -> bool {
        let place = (known.line, known.column);
        // A range of whole lines has no last column.
        let end = if self.end_column == 0 { i64::MAX } else { self.end_column };
        (self.line, self.column) <= place && place <= (self.end_line, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slipway_model::llb::Vertex;

    use super::*;

    /// A definition with a vertex for each range of lines.
    fn definition(lines: &[(i32, i32)]) -> Definition {
        let position = |line| Some(pb::Position { line, character: 0 });
        let vertex = |(start, end): &(i32, i32)| {
            let range = pb::Range { start: position(*start), end: position(*end) };
            Arc::new(Vertex {
                digest: Digest::of(start.to_string()),
                op: pb::Op::default(),
                inputs: Vec::new(),
                metadata: pb::OpMetadata::default(),
                locations: vec![pb::Location { source_index: 0, ranges: vec![range] }],
            })
        };
        Definition { vertices: lines.iter().map(vertex).collect(), ..Definition::default() }
    }

    fn at(line: i64) -> SourceBreakpoint {
        SourceBreakpoint { line, column: 0 }
    }

    #[test]
    fn breakpoints_are_verified_by_what_is_built() {
        let mut breakpoints = Breakpoints::default();
        let set = breakpoints.set("/App/Dockerfile", &[at(3), at(9)]);
        assert_eq!(
            set.iter().map(|one| (one.id, one.reason)).collect::<Vec<_>>(),
            [(1, Some("pending")), (2, Some("pending"))]
        );
        let (definition, paths) = (definition(&[(1, 1), (2, 4)]), ["/app/Dockerfile".to_owned()]);
        let (hits, changed) = breakpoints.find(&definition, &paths);
        assert_eq!(hits, HashMap::from([(Digest::of("2"), 1)]));
        // It moves to where the instruction begins, in the file as it is written.
        assert_eq!((changed[0].verified, changed[0].line, changed[0].end_line), (true, 2, 4));
        assert_eq!((changed[0].source.path.as_str(), changed[0].reason), ("/app/Dockerfile", None));
        assert_eq!((changed[1].verified, changed[1].id, changed[1].reason), (false, 2, Some("failed")));
        // Nothing of that is told again.
        let (again, changed) = breakpoints.find(&definition, &paths);
        assert_eq!((again, changed), (hits, Vec::new()));
    }

    #[test]
    fn breakpoints_are_replaced_and_keep_their_numbers() {
        let mut breakpoints = Breakpoints::default();
        breakpoints.set("/f", &[at(3), at(9)]);
        let numbers = |set: Vec<Breakpoint>| set.iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(numbers(breakpoints.set("/f", &[at(9), at(4)])), [2, 3]);
        assert!(breakpoints.set("/f", &[]).is_empty());
        let (hits, _) = breakpoints.find(&definition(&[(9, 9)]), &["/f".to_owned()]);
        assert!(hits.is_empty());
    }

    #[test]
    fn places_that_are_not_there_are_no_breakpoints() {
        let mut breakpoints = Breakpoints::default();
        breakpoints.set("/f", &[at(1)]);
        let mut hostile = definition(&[(1, 1)]);
        let vertex = Arc::make_mut(&mut hostile.vertices[0]);
        vertex.locations[0].source_index = -1;
        vertex.locations.push(pb::Location { source_index: 7, ranges: Vec::new() });
        vertex.locations.push(pb::Location { source_index: 0, ranges: vec![pb::Range::default()] });
        assert!(breakpoints.find(&hostile, &["/f".to_owned()]).0.is_empty());
    }
}
