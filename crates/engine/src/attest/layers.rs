//! Which layers of an image each step of a definition gave.
//!
//! A step that writes adds one layer to what it started from, so the layers of a result are told apart by following
//! the definition down to its base. Where that does not come out even, as below a `DiffOp`, nothing is told.

use std::collections::HashMap;

use slipway_model::Descriptor;
use slipway_model::llb::{Definition, Edge, Vertex, pb};

use super::sources::{Pin, Pins};

/// Finds the chain of layers, lowest first, that each output on the way to the result stands for.
pub(super) fn by_edge<'l>(
    definition: &Definition,
    layers: &'l [Descriptor],
    pins: &Pins,
) -> HashMap<Edge, &'l [Descriptor]> {
    let mut chains = HashMap::new();
    let vertices: HashMap<_, &Vertex> =
        definition.vertices.iter().map(|vertex| (vertex.digest, &**vertex)).collect();
    let mut at = definition.result;
    let mut left = layers.len();
    while let Some(edge) = at {
        let Some(vertex) = vertices.get(&edge.vertex) else { return HashMap::new() };
        match below(vertex, edge.index, left, pins) {
            Below::Base => {
                chains.insert(edge, &layers[..left]);
                return chains;
            }
            Below::Step(input) if left > 0 => {
                chains.insert(edge, &layers[..left]);
                left -= 1;
                at = input;
            }
            Below::Same(input) => at = input,
            Below::Step(_) | Below::Unknown => return HashMap::new(),
        }
    }
    if left == 0 { chains } else { HashMap::new() }
}

/// What is under an output.
enum Below {
    /// All layers that are left come from here.
    Base,
    /// One layer is the step's own, the others its input's.
    Step(Option<Edge>),
    /// The output is the input itself.
    Same(Option<Edge>),
    Unknown,
}

fn below(vertex: &Vertex, output: usize, left: usize, pins: &Pins) -> Below {
    let input = |index: i64| usize::try_from(index).ok().and_then(|index| vertex.inputs.get(index)).copied();
    let output = i64::try_from(output).unwrap_or(i64::MAX);
    match &vertex.op.op {
        Some(pb::op::Op::Source(_)) => match pins.get(&vertex.digest) {
            Some(Pin::Image { layers, .. }) if layers == left => Below::Base,
            Some(_) if left == 1 => Below::Base,
            _ => Below::Unknown,
        },
        Some(pb::op::Op::Exec(exec)) => match exec.mounts.iter().find(|mount| mount.output == output) {
            Some(mount) => Below::Step(input(mount.input)),
            None => Below::Unknown,
        },
        Some(pb::op::Op::File(file)) => base_of(file, vertex.inputs.len(), output, &input),
        // The last input lies on top of the others.
        Some(pb::op::Op::Merge(merge)) => match merge.inputs.as_slice() {
            [lower, _] => Below::Step(input(lower.input)),
            _ => Below::Unknown,
        },
        Some(pb::op::Op::Passthrough(pass)) => {
            let index = usize::try_from(output).ok().and_then(|output| pass.outputs.get(output));
            Below::Same(index.and_then(|index| input(*index)))
        }
        _ => Below::Unknown,
    }
}

/// Follows the actions of a file operation from an output to the input they started from.
fn base_of(file: &pb::FileOp, inputs: usize, output: i64, input: &impl Fn(i64) -> Option<Edge>) -> Below {
    let Some(mut at) = file.actions.iter().position(|action| action.output == output) else {
        return Below::Unknown;
    };
    loop {
        let from = file.actions[at].input;
        match usize::try_from(from) {
            Err(_) => return Below::Step(None),
            Ok(index) if index < inputs => return Below::Step(input(from)),
            Ok(index) if index - inputs < at => at = index - inputs,
            Ok(_) => return Below::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::Digest;
    use slipway_model::llb::{GraphBuilder, VertexMeta};

    use super::*;

    #[test]
    fn each_step_has_the_layers_up_to_its_own() {
        let mut graph = GraphBuilder::new();
        let source = pb::SourceOp { identifier: "docker-image://a".to_owned(), ..Default::default() };
        let base = graph.add(&[], pb::op::Op::Source(source), None, VertexMeta::default());
        let mount = pb::Mount { dest: "/".to_owned(), ..Default::default() };
        let exec = pb::op::Op::Exec(pb::ExecOp { mounts: vec![mount], ..Default::default() });
        let run = graph.add(&[Edge { vertex: base, index: 0 }], exec, None, VertexMeta::default());
        let file = |input, output| {
            let rm = pb::file_action::Action::Rm(pb::FileActionRm::default());
            pb::FileAction { input, secondary_input: -1, output, action: Some(rm) }
        };
        let file = pb::op::Op::File(pb::FileOp { actions: vec![file(0, -1), file(1, 0)] });
        let top = graph.add(&[Edge { vertex: run, index: 0 }], file, None, VertexMeta::default());
        let definition = Definition::decode(&graph.finish(Some(Edge { vertex: top, index: 0 }))).unwrap();
        let pins = Pins::default();
        pins.set(base, Pin::Image { digest: Digest::of("a"), layers: 2 });
        let layers: Vec<Descriptor> =
            (0..4).map(|n: u64| Descriptor::new("layer", Digest::of(n.to_le_bytes()), n)).collect();
        let chains = by_edge(&definition, &layers, &pins);
        let length = |vertex| chains.get(&Edge { vertex, index: 0 }).map(|chain| chain.len());
        assert_eq!([base, run, top].map(length), [Some(2), Some(3), Some(4)]);
    }
}
