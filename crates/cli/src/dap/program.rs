//! A definition as a program: its vertices in the order in which a person steps through them.
//!
//! A *branch* is a chain of vertices, each with the root file system of the one before: a stage. Other inputs of a
//! vertex, as the stages it copies from, are branches that are entered from it. The steps of all branches are one
//! list, in which each vertex comes after what it needs:
//!
//! ```text
//!   FROM busybox AS base         0 (FROM scratch)
//!   RUN make                       COPY --from=base   in -> 1 … 3, next -> 5
//!   FROM scratch                 1   FROM busybox
//!   COPY --from=base             2   RUN make
//!                                3   RUN make (after it)         out -> 4
//!                                4 COPY --from=base, base is built
//!                                5 COPY --from=base (after it)
//! ```
//!
//! Before a branch is entered, the input it is for is *deferred*: the step may be stopped at without building it.
//! The last vertex of a branch has a step after it, so that what it made can be looked at.
//!
//! Invariant: a vertex is in one branch, the first that needs it; so there are never more steps than edges of the
//! graph and vertices together, whoever wrote it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use slipway_model::Digest;
use slipway_model::llb::{Definition, Edge, Vertex, pb};

use super::breakpoints::Span;

/// How deep branches are entered; what is deeper is built as a whole.
const MAX_DEPTH: usize = 64;

/// A definition, put in order.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) definition: Definition,
    pub(super) steps: Vec<Step>,
    vertices: HashMap<Digest, Arc<Vertex>>,
}

/// A place to stop at.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) vertex: Arc<Vertex>,
    pub(super) place: Place,
    pub(super) moment: Moment,
    /// A breakpoint of the vertex means this step of it.
    pub(super) is_first: bool,
    branch: usize,
    /// The first step of the same instruction.
    instruction: usize,
    /// Where the branch returns to; `None` is the end of the build.
    pub(super) out: Option<usize>,
}

/// Whether a step's vertex is built where one stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// It is not, and neither are these inputs.
    Before {
        deferred: BTreeSet<usize>,
    },
    After,
}

/// Where a vertex comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: usize,
    pub(super) span: Span,
}

/// How a person goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Continue,
    Next,
    In,
    Out,
}

/// What a step starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// Where it is mounted, or what it is called.
    pub(super) name: String,
    pub(super) edge: Edge,
    /// It is built only if somebody looks into it.
    pub(super) deferred: bool,
}

/// The name of the root file system.
pub(super) const ROOT: &str = "/";

impl Program {
    /// Puts a definition in order; one without places in a file has no steps.
    pub(super) fn new(definition: Definition) -> Self {
        let vertices = definition.vertices.iter().map(|vertex| (vertex.digest, vertex.clone())).collect();
        let mut order = Order {
            vertices: &vertices,
            sources: definition.sources.len(),
            seen: HashSet::new(),
            steps: Vec::new(),
            branches: 0,
        };
        if let Some(result) = definition.result {
            order.branch(&result.vertex, 0);
        }
        let steps = order.steps;
        Self { definition, steps, vertices }
    }

    /// Finds the step to stop at next; `None` is the end. Breakpoints that are passed are stops too.
    pub(super) fn target(
        &self,
        from: Option<usize>,
        action: Action,
        hits: &HashMap<Digest, i64>,
    ) -> Option<usize> {
        let until = match (from, action) {
            (_, Action::Continue) => None,
            // Whatever is done first leads to the first step.
            (None, _) => Some(0),
            (Some(at), Action::In) => Some(at + 1),
            (Some(at), Action::Next) => self.next(at),
            (Some(at), Action::Out) => self.steps.get(at).and_then(|step| step.out),
        };
        let until = until.filter(|until| *until < self.steps.len());
        let first = from.map_or(0, |at| at + 1);
        let hit = (first..until.unwrap_or(self.steps.len())).find(|at| self.hit(*at, hits).is_some());
        hit.or(until)
    }

    /// Finds where to pause on the way to `until`: before the first step after all that have begun.
    pub(super) fn pause(
        &self,
        from: Option<usize>,
        until: Option<usize>,
        has_begun: impl Fn(&Digest) -> bool,
    ) -> Option<usize> {
        let on_the_way = from.map_or(0, |at| at + 1)..until.unwrap_or(self.steps.len());
        let begun = |at: &usize| {
            let step = &self.steps[*at];
            step.moment != Moment::After && has_begun(&step.vertex.digest)
        };
        let last = on_the_way.clone().rev().find(begun);
        let at = last.map_or(on_the_way.start, |last| last + 1);
        (at < on_the_way.end).then_some(at)
    }

    /// Returns the breakpoint that a step is at.
    pub(super) fn hit(&self, at: usize, hits: &HashMap<Digest, i64>) -> Option<i64> {
        let step = self.steps.get(at).filter(|step| step.is_first)?;
        hits.get(&step.vertex.digest).copied()
    }

    /// Finds the next instruction of the same branch, or of the one it returns to.
    fn next(&self, at: usize) -> Option<usize> {
        let step = self.steps.get(at)?;
        let rest = self.steps.iter().enumerate().skip(at + 1);
        let mut later = rest.take_while(|(other, _)| step.out.is_none_or(|out| *other < out));
        let same_branch = |other: &Step| other.branch == step.branch && other.instruction != step.instruction;
        later.find(|(_, other)| same_branch(other)).map(|(other, _)| other).or(step.out)
    }

    /// Finds the step before a vertex.
    pub(super) fn step_of(&self, vertex: &Digest) -> Option<usize> {
        let of_it = |step: &Step| step.vertex.digest == *vertex && step.moment != Moment::After;
        // The last one: all of its inputs are built.
        self.steps.iter().rposition(of_it)
    }

    /// Lists the steps that led to one, from it outwards.
    pub(super) fn stack(&self, at: usize) -> Vec<usize> {
        std::iter::successors(Some(at), |at| self.steps.get(*at).and_then(|step| step.out)).collect()
    }

    /// Lists what a step starts from.
    pub(super) fn inputs(&self, step: &Step) -> Vec<Input> {
        let Moment::Before { deferred } = &step.moment else {
            let edge = Edge { vertex: step.vertex.digest, index: root_output(&step.vertex.op) };
            return vec![Input { name: ROOT.to_owned(), edge, deferred: false }];
        };
        let mut names = HashSet::new();
        let inputs = step.vertex.inputs.iter().enumerate().map(|(index, edge)| Input {
            name: self.name(&step.vertex, index, edge),
            edge: *edge,
            deferred: deferred.contains(&index),
        });
        inputs.filter(|input| names.insert(input.name.clone())).collect()
    }

    fn name(&self, vertex: &Vertex, index: usize, edge: &Edge) -> String {
        if let Some(pb::op::Op::Exec(exec)) = &vertex.op.op {
            let mount = exec.mounts.iter().find(|mount| mount.input == index as i64);
            if let Some(mount) = mount {
                return mount.dest.clone();
            }
        }
        if parent(vertex) == Some(index) {
            return ROOT.to_owned();
        }
        let input = self.vertices.get(&edge.vertex);
        if let Some(pb::op::Op::Source(source)) = input.and_then(|input| input.op.op.as_ref()) {
            return source.identifier.clone();
        }
        let name = input.and_then(|input| input.custom_name().map(str::to_owned));
        name.unwrap_or_else(|| edge.vertex.to_string())
    }

    /// Returns what the vertices of a stage say of the platform.
    pub(super) fn platform(&self, vertex: &Vertex) -> Option<pb::Platform> {
        let mut at = Some(vertex);
        while let Some(vertex) = at {
            if vertex.op.platform.is_some() {
                return vertex.op.platform.clone();
            }
            let input = parent(vertex).and_then(|index| vertex.inputs.get(index));
            at = input.and_then(|edge| self.vertices.get(&edge.vertex)).map(|vertex| &**vertex);
        }
        None
    }
}

/// Finds the input whose files a vertex changes.
pub(super) fn parent(vertex: &Vertex) -> Option<usize> {
    let input = match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => exec.mounts.iter().find(|mount| mount.dest == ROOT)?.input,
        Some(pb::op::Op::File(file)) => {
            let of_inputs = |input: &i64| (0..vertex.inputs.len() as i64).contains(input);
            file.actions.iter().map(|action| action.input).find(of_inputs)?
        }
        _ => 0,
    };
    usize::try_from(input).ok().filter(|index| *index < vertex.inputs.len())
}

/// Finds the output of an operation that has its root file system.
fn root_output(op: &pb::Op) -> usize {
    let Some(pb::op::Op::Exec(exec)) = &op.op else { return 0 };
    let root = exec.mounts.iter().find(|mount| mount.dest == ROOT);
    root.and_then(|mount| usize::try_from(mount.output).ok()).unwrap_or_default()
}

/// Puts vertices in order.
struct Order<'a> {
    vertices: &'a HashMap<Digest, Arc<Vertex>>,
    sources: usize,
    /// Vertices that are in a branch.
    seen: HashSet<Digest>,
    steps: Vec<Step>,
    branches: usize,
}

/// An instruction of a branch whose steps are added.
struct Instruction<'a> {
    vertex: &'a Arc<Vertex>,
    place: Place,
    branch: usize,
    first: usize,
}

impl Order<'_> {
    /// Adds the branch that ends with a vertex.
    fn branch(&mut self, last: &Digest, depth: usize) {
        if !self.can_enter(last, depth) {
            return;
        }
        let chain = self.chain(last);
        let (branch, start) = (self.branches, self.steps.len());
        self.branches += 1;
        for (vertex, place) in &chain {
            self.before(&Instruction { vertex, place: *place, branch, first: self.steps.len() }, depth);
        }
        if let Some((vertex, place)) = chain.last() {
            let made = Instruction { vertex, place: *place, branch, first: self.steps.len() };
            self.push(&made, Moment::After);
        }
        // What follows is the step that the branch was entered from.
        let end = self.steps.len();
        if depth > 0 {
            let own = self.steps[start..].iter_mut().filter(|step| step.branch == branch);
            own.for_each(|step| step.out = Some(end));
        }
    }

    fn can_enter(&self, last: &Digest, depth: usize) -> bool {
        let vertex = self.vertices.get(last).filter(|vertex| !places(vertex, self.sources).is_empty());
        depth < MAX_DEPTH && vertex.is_some() && !self.seen.contains(last)
    }

    /// Adds the steps before an instruction, and the branches that are entered from them.
    fn before(&mut self, instruction: &Instruction<'_>, depth: usize) {
        let vertex = instruction.vertex;
        let parent = parent(vertex);
        let (mut to_enter, mut never) = (Vec::new(), BTreeSet::new());
        for (index, edge) in vertex.inputs.iter().enumerate().filter(|(index, _)| Some(*index) != parent) {
            if self.can_enter(&edge.vertex, depth + 1) {
                to_enter.push(index);
            } else if !self.seen.contains(&edge.vertex) {
                // What has no place in a file, as a build context, is not stepped through: nobody waits for it.
                never.insert(index);
            }
        }
        for (at, index) in to_enter.iter().enumerate() {
            let is_open = |order: &Self, index: usize| !order.seen.contains(&vertex.inputs[index].vertex);
            if is_open(self, *index) {
                let mut deferred = never.clone();
                deferred.extend(to_enter[at..].iter().filter(|index| is_open(self, **index)));
                self.push(instruction, Moment::Before { deferred });
                self.branch(&vertex.inputs[*index].vertex, depth + 1);
            }
        }
        self.push(instruction, Moment::Before { deferred: never });
    }

    fn push(&mut self, instruction: &Instruction<'_>, moment: Moment) {
        let Instruction { vertex, place, branch, first } = *instruction;
        let is_first = first == self.steps.len() && moment != Moment::After;
        let vertex = vertex.clone();
        self.steps.push(Step { vertex, place, moment, is_first, branch, instruction: first, out: None });
    }

    /// Lists the vertices that a branch has and no other, with their places; those without a place are left out.
    fn chain(&mut self, last: &Digest) -> Vec<(Arc<Vertex>, Place)> {
        let mut chain = Vec::new();
        let mut below: Option<Place> = None;
        let mut at = Some(*last);
        while let Some(vertex) = at.and_then(|digest| self.vertices.get(&digest)) {
            if !self.seen.insert(vertex.digest) {
                break;
            }
            if let Some(place) = choose(&places(vertex, self.sources), below) {
                below = Some(place);
                chain.push((vertex.clone(), place));
            }
            at = parent(vertex).map(|index| vertex.inputs[index].vertex);
        }
        chain.reverse();
        chain
    }
}

/// Lists where a vertex comes from.
fn places(vertex: &Vertex, sources: usize) -> Vec<Place> {
    let places = vertex.locations.iter().flat_map(|location| {
        let source = usize::try_from(location.source_index).ok().filter(|source| *source < sources);
        source.into_iter().flat_map(|source| {
            location.ranges.iter().map(move |range| Place { source, span: Span::of(range) })
        })
    });
    places.collect()
}

/// Chooses among the places of equal instructions: the last one that is not after the instruction below.
fn choose(places: &[Place], below: Option<Place>) -> Option<Place> {
    let Some(below) = below else { return places.first().copied() };
    let before = places.iter().filter(|place| place.span.line <= below.span.line);
    let nearest = before.max_by_key(|place| place.span.line);
    nearest.or_else(|| places.iter().min_by_key(|place| place.span.line)).copied()
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
