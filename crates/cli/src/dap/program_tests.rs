use std::collections::BTreeMap;

use super::*;

/// A Dockerfile's vertices, by line.
#[derive(Default)]
struct Written {
    vertices: Vec<Arc<Vertex>>,
}

impl Written {
    /// Adds a vertex on a line (0 is none) with the files of `inputs`, the first of which is its parent if `parent`.
    fn add(&mut self, line: i32, parent: bool, inputs: &[Digest]) -> Digest {
        let digest = Digest::of(format!("{line} {} {inputs:?}", self.vertices.len()));
        let action = pb::FileAction { input: if parent { 0 } else { -1 }, ..pb::FileAction::default() };
        let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        let at = Some(pb::Position { line, character: 0 });
        let range = pb::Range { start: at.clone(), end: at };
        let location = pb::Location { source_index: 0, ranges: vec![range] };
        let name = BTreeMap::from([("llb.customname".to_owned(), format!("line {line}"))]);
        self.vertices.push(Arc::new(Vertex {
            digest,
            op: pb::Op { op: Some(op), ..pb::Op::default() },
            inputs: inputs.iter().map(|vertex| Edge { vertex: *vertex, index: 0 }).collect(),
            metadata: pb::OpMetadata { description: name, ..pb::OpMetadata::default() },
            locations: if line == 0 { Vec::new() } else { vec![location] },
        }));
        digest
    }

    fn program(self, result: Digest) -> Program {
        Program::new(Definition {
            vertices: self.vertices,
            result: Some(Edge { vertex: result, index: 0 }),
            sources: vec![Arc::default()],
        })
    }
}

/// The lines that are stopped at, with all that is around each.
fn walk(program: &Program, action: Action, lines: &[i64]) -> Vec<Vec<i64>> {
    let line = |at: usize| program.steps[at].place.span.line;
    let wanted = program.steps.iter().filter(|step| lines.contains(&step.place.span.line));
    let hits: HashMap<Digest, i64> = wanted.map(|step| (step.vertex.digest, 1)).collect();
    let mut at = None;
    let mut stops = Vec::new();
    while let Some(next) = program.target(at, action, &hits) {
        stops.push(program.stack(next).into_iter().map(line).collect());
        at = Some(next);
    }
    stops
}

/// `base` of lines 2 to 4 with a context, copied to an empty stage by line 7.
fn two_stages() -> Program {
    let mut written = Written::default();
    let context = written.add(0, false, &[]);
    let from = written.add(2, false, &[]);
    let copy = written.add(3, true, &[from, context]);
    let run = written.add(4, true, &[copy]);
    let last = written.add(7, false, &[run]);
    written.program(last)
}

#[test]
fn stages_are_stepped_into_passed_and_left() {
    let program = two_stages();
    let (base, last) = (|line| vec![line, 7], || vec![7]);
    assert_eq!(walk(&program, Action::In, &[]), [last(), base(2), base(3), base(4), base(4), last(), last()]);
    assert_eq!(walk(&program, Action::Next, &[]), [last(), last()]);
    assert_eq!(walk(&program, Action::Next, &[3]), [last(), base(3), base(4), base(4), last(), last()]);
    assert_eq!(walk(&program, Action::Out, &[3]), [last(), base(3), last()]);
    assert_eq!(walk(&program, Action::Continue, &[2, 7]), [last(), base(2)]);
    assert!(walk(&program, Action::Continue, &[]).is_empty());
}

#[test]
fn who_pauses_stops_after_what_has_begun() {
    let program = two_stages();
    let pause = |from, until, begun: &[usize]| {
        let begun: Vec<Digest> = begun.iter().map(|at| program.steps[*at].vertex.digest).collect();
        program.pause(from, until, |vertex| begun.contains(vertex))
    };
    assert_eq!(pause(None, None, &[]), Some(0));
    assert_eq!(pause(None, None, &[1, 2]), Some(3));
    assert_eq!(pause(None, None, &[1, 2, 3]), Some(4));
    assert_eq!(pause(None, None, &[1, 2, 3, 5]), Some(6));
    assert_eq!(pause(Some(3), None, &[1, 2]), Some(4));
    // It stops there anyway.
    assert_eq!(pause(None, Some(3), &[1, 2]), None);
}

#[test]
fn what_is_not_entered_yet_is_not_built() {
    let program = two_stages();
    let inputs = |at: usize| {
        let inputs = program.inputs(&program.steps[at]).into_iter();
        inputs.map(|input| (input.name, input.deferred)).collect::<Vec<_>>()
    };
    let named = |name: &str, deferred| (name.to_owned(), deferred);
    assert_eq!(inputs(0), [named("line 4", true)]);
    assert_eq!(inputs(1), []);
    // The context is for whoever looks, and does not hold the step up.
    assert_eq!(inputs(2), [named("/", false), named("line 0", true)]);
    // What is left behind by the last of the stage.
    assert_eq!(program.inputs(&program.steps[4])[0].edge.vertex, program.steps[3].vertex.digest);
    assert_eq!(inputs(5), [named("line 4", false)]);
    assert_eq!(program.step_of(&program.steps[0].vertex.digest), Some(5));
}

#[test]
fn a_stage_that_several_need_is_stepped_through_once() {
    let mut written = Written::default();
    let base = written.add(1, false, &[]);
    let one = written.add(3, true, &[base]);
    let two = written.add(5, true, &[base]);
    let last = written.add(8, false, &[one, two, one]);
    let program = written.program(last);
    let stops: Vec<i64> = walk(&program, Action::In, &[]).iter().map(|stack| stack[0]).collect();
    assert_eq!(stops, [8, 1, 3, 3, 8, 5, 5, 8, 8]);
    assert_eq!(walk(&program, Action::Next, &[]), [[8], [8]]);
}

#[test]
fn a_graph_that_doubles_at_every_level_stays_small() {
    let mut written = Written::default();
    let mut last = written.add(1, false, &[]);
    for line in 2..2000 {
        last = written.add(line, false, &[last, last]);
    }
    let program = written.program(last);
    assert!(program.steps.len() < 4000);
    assert!(!walk(&program, Action::Continue, &[1990]).is_empty());
}

#[test]
fn what_has_no_place_in_a_file_has_no_steps() {
    let mut written = Written::default();
    let last = written.add(0, false, &[]);
    let program = written.program(last);
    assert!(program.steps.is_empty());
    assert_eq!(program.target(None, Action::In, &HashMap::new()), None);
    assert!(Program::new(Definition::default()).steps.is_empty());
}

#[test]
fn equal_instructions_are_told_apart_by_what_is_below() {
    let place = |line| Place { source: 0, span: Span { line, end_line: line, ..Span::default() } };
    let places = [place(2), place(9), place(5)];
    let line = |below: Option<i64>| choose(&places, below.map(place)).map(|place| place.span.line);
    assert_eq!(line(None), Some(2));
    assert_eq!(line(Some(7)), Some(5));
    assert_eq!(line(Some(10)), Some(9));
    assert_eq!(line(Some(1)), Some(2));
}
