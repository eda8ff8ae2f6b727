//! Decoding a `pb.Definition` into a graph that is safe to walk.
//!
//! A definition comes from frontends and from clients over the network, so nothing in it is trusted:
//! every input must name a vertex that is in the definition, indices must be non-negative, and the last
//! operation must be the terminal one (no operation, one input) that names the result. A cycle cannot be
//! written, since a vertex's name is the digest of bytes that hold its inputs' names.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;

use super::pb;
use crate::{Digest, ParseDigestError, Platform};

/// The most operations one definition may have.
const MAX_OPS: usize = 100_000;

/// An output of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    pub vertex: Digest,
    pub index: usize,
}

/// An operation with its name, its inputs and what was said about it.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// Digest of the operation's bytes.
    pub digest: Digest,
    pub op: pb::Op,
    pub inputs: Vec<Edge>,
    pub metadata: pb::OpMetadata,
    /// Where in which source file the vertex comes from.
    pub locations: Vec<pb::Location>,
}

impl Vertex {
    /// Returns the platform the operation is for.
    pub fn platform(&self) -> Option<Platform> {
        self.op.platform.as_ref().map(Platform::from)
    }

    /// Returns the name given by the frontend (`llb.customname`), if any.
    pub fn custom_name(&self) -> Option<&str> {
        self.metadata.description.get("llb.customname").map(String::as_str)
    }
}

/// A checked graph: vertices by digest, in an order where inputs come first, and the result's edge.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    pub vertices: Vec<Arc<Vertex>>,
    /// `None` is the empty file system, as `FROM scratch` with nothing after it.
    pub result: Option<Edge>,
    /// Source files that locations point into.
    pub sources: Vec<Arc<pb::SourceInfo>>,
}

/// Says what is wrong with a definition.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("invalid LLB: operation {index} cannot be decoded")]
    Decode { index: usize, source: prost::DecodeError },
    #[error("invalid LLB: operation {index} has an unreadable input")]
    InputDigest { index: usize, source: ParseDigestError },
    #[error("invalid LLB: input `{digest}` of operation {index} is not in the definition")]
    MissingInput { index: usize, digest: String },
    #[error("invalid LLB: input index {value} of operation {index} is negative")]
    NegativeIndex { index: usize, value: i64 },
    #[error("invalid LLB: the last operation must name the result and nothing else")]
    NoTerminal,
    #[error("invalid LLB: {0} operations are more than the limit of {MAX_OPS}")]
    TooLarge(usize),
}

impl Definition {
    /// Decodes and checks `wire`.
    pub fn decode(wire: &pb::Definition) -> Result<Self, DefinitionError> {
        if wire.def.len() > MAX_OPS {
            return Err(DefinitionError::TooLarge(wire.def.len()));
        }
        let sources = wire.source.iter().flat_map(|s| s.infos.iter().cloned().map(Arc::new)).collect();
        let Some((terminal, ops)) = wire.def.split_last() else {
            return Ok(Self { sources, ..Self::default() });
        };
        let mut decoded: Vec<Option<Vertex>> = Vec::with_capacity(ops.len());
        let mut by_digest = HashMap::with_capacity(ops.len());
        for (index, bytes) in ops.iter().enumerate() {
            let digest = Digest::of(bytes);
            let (op, inputs) = decode_op(index, bytes)?;
            let key = digest.to_string();
            let metadata = wire.metadata.get(&key).cloned().unwrap_or_default();
            let locations = wire
                .source
                .as_ref()
                .and_then(|source| source.locations.get(&key))
                .map(|l| l.locations.clone())
                .unwrap_or_default();
            by_digest.entry(digest).or_insert(index);
            decoded.push(Some(Vertex { digest, op, inputs, metadata, locations }));
        }
        let (terminal_op, terminal_inputs) = decode_op(ops.len(), terminal)?;
        let result = match (terminal_op.op, terminal_inputs.as_slice()) {
            (None, [edge]) => *edge,
            _ => return Err(DefinitionError::NoTerminal),
        };
        let vertices = sorted(decoded, &by_digest, result)?;
        Ok(Self { vertices, result: Some(result), sources })
    }

    /// Finds a vertex by its digest.
    pub fn vertex(&self, digest: &Digest) -> Option<&Arc<Vertex>> {
        self.vertices.iter().find(|v| v.digest == *digest)
    }
}

impl pb::Definition {
    /// Returns the same operations with another of their outputs as the result.
    pub fn up_to(&self, result: &Edge) -> Self {
        let input = pb::Input { digest: result.vertex.to_string(), index: result.index as i64 };
        let terminal = pb::Op { inputs: vec![input], ..pb::Op::default() };
        let mut wire = self.clone();
        wire.def.pop();
        wire.def.push(terminal.encode_to_vec());
        wire
    }
}

fn decode_op(index: usize, bytes: &[u8]) -> Result<(pb::Op, Vec<Edge>), DefinitionError> {
    let op = pb::Op::decode(bytes).map_err(|source| DefinitionError::Decode { index, source })?;
    let inputs = op
        .inputs
        .iter()
        .map(|input| {
            let vertex =
                input.digest.parse().map_err(|source| DefinitionError::InputDigest { index, source })?;
            let output = usize::try_from(input.index)
                .map_err(|_| DefinitionError::NegativeIndex { index, value: input.index })?;
            Ok(Edge { vertex, index: output })
        })
        .collect::<Result<_, _>>()?;
    Ok((op, inputs))
}

/// Orders the vertices the result needs so that inputs come first; without recursion, since the depth is the sender's.
fn sorted(
    mut decoded: Vec<Option<Vertex>>,
    by_digest: &HashMap<Digest, usize>,
    result: Edge,
) -> Result<Vec<Arc<Vertex>>, DefinitionError> {
    let missing =
        |index: usize, digest: Digest| DefinitionError::MissingInput { index, digest: digest.to_string() };
    let start = *by_digest.get(&result.vertex).ok_or_else(|| missing(decoded.len(), result.vertex))?;
    let mut order = Vec::with_capacity(decoded.len());
    let mut entered = vec![false; decoded.len()];
    let mut stack = vec![(start, 0usize)];
    entered[start] = true;
    while let Some((index, next)) = stack.pop() {
        let inputs = decoded[index].as_ref().map(|v| v.inputs.as_slice()).unwrap_or_default();
        match inputs.get(next) {
            Some(edge) => {
                let input = *by_digest.get(&edge.vertex).ok_or_else(|| missing(index, edge.vertex))?;
                stack.push((index, next + 1));
                if !std::mem::replace(&mut entered[input], true) {
                    stack.push((input, 0));
                }
            }
            None => order.push(index),
        }
    }
    Ok(order.into_iter().filter_map(|index| decoded[index].take().map(Arc::new)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(identifier: &str, inputs: &[(&Digest, i64)]) -> Vec<u8> {
        let op = pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), ..Default::default() });
        encode(inputs, Some(op))
    }

    fn encode(inputs: &[(&Digest, i64)], op: Option<pb::op::Op>) -> Vec<u8> {
        let inputs =
            inputs.iter().map(|(d, index)| pb::Input { digest: d.to_string(), index: *index }).collect();
        pb::Op { inputs, op, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn inputs_come_first() {
        let (a, z) = (op("a", &[]), op("z", &[]));
        let (da, dz) = (Digest::of(&a), Digest::of(&z));
        let both = op("both", &[(&da, 0), (&dz, 0), (&da, 0)]);
        let end = encode(&[(&Digest::of(&both), 0)], None);
        let wire = pb::Definition { def: vec![both.clone(), a, z, end], ..Default::default() };
        let definition = Definition::decode(&wire).unwrap();
        let order: Vec<Digest> = definition.vertices.iter().map(|v| v.digest).collect();
        assert_eq!(order, [da, dz, Digest::of(&both)]);
    }

    #[test]
    fn another_result_leaves_out_what_it_does_not_need() {
        let a = op("a", &[]);
        let b = op("b", &[(&Digest::of(&a), 0)]);
        let end = encode(&[(&Digest::of(&b), 0)], None);
        let wire = pb::Definition { def: vec![a.clone(), b, end], ..Default::default() };
        let earlier = Definition::decode(&wire.up_to(&Edge { vertex: Digest::of(&a), index: 1 })).unwrap();
        assert_eq!(earlier.result, Some(Edge { vertex: Digest::of(&a), index: 1 }));
        assert_eq!(earlier.vertices.len(), 1);
    }

    #[test]
    fn hostile_definitions_are_refused() {
        let absent = Digest::of("absent");
        let a = op("a", &[(&absent, 0)]);
        let negative = op("n", &[(&absent, -1)]);
        let end = encode(&[(&Digest::of(&a), 0)], None);
        let decode = |def: Vec<Vec<u8>>| Definition::decode(&pb::Definition { def, ..Default::default() });
        assert!(matches!(decode(vec![a.clone(), end.clone()]), Err(DefinitionError::MissingInput { .. })));
        assert!(matches!(decode(vec![negative, end]), Err(DefinitionError::NegativeIndex { .. })));
        assert!(matches!(decode(vec![op("b", &[])]), Err(DefinitionError::NoTerminal)));
        assert!(matches!(decode(vec![vec![0xff; 9]]), Err(DefinitionError::Decode { .. })));
        assert!(decode(vec![]).unwrap().result.is_none());
    }
}
