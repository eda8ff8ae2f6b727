//! A definition in which sources are replaced: what is made of them gets other names too.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use slipway_model::Digest;
use slipway_model::llb::{Definition, pb};

/// Replaces sources by vertex; what does not depend on them keeps its bytes.
pub(super) fn with_sources(
    wire: pb::Definition,
    decoded: &Definition,
    replaced: &HashMap<Digest, pb::SourceOp>,
) -> pb::Definition {
    if replaced.is_empty() {
        return wire;
    }
    let mut bytes: HashMap<Digest, &Vec<u8>> = wire.def.iter().map(|op| (Digest::of(op), op)).collect();
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut def = Vec::with_capacity(wire.def.len());
    // Inputs come first, so their new names are known.
    for vertex in &decoded.vertices {
        let mut op = vertex.op.clone();
        let mut changed = false;
        if let Some(source) = replaced.get(&vertex.digest) {
            op.op = Some(pb::op::Op::Source(source.clone()));
            changed = true;
        }
        for input in &mut op.inputs {
            if let Some(name) = renamed.get(&input.digest) {
                input.digest.clone_from(name);
                changed = true;
            }
        }
        let original = bytes.remove(&vertex.digest);
        match original.filter(|_| !changed) {
            Some(original) => def.push(original.clone()),
            None => {
                let encoded = op.encode_to_vec();
                renamed.insert(vertex.digest.to_string(), Digest::of(&encoded).to_string());
                def.push(encoded);
            }
        }
    }
    let terminal = decoded.result.map(|edge| {
        let digest = edge.vertex.to_string();
        let digest = renamed.get(&digest).cloned().unwrap_or(digest);
        pb::Op { inputs: vec![pb::Input { digest, index: edge.index as i64 }], ..pb::Op::default() }
    });
    def.extend(terminal.map(|op| op.encode_to_vec()));
    let rename = |name: String| renamed.get(&name).cloned().unwrap_or(name);
    let source = wire
        .source
        .map(|source| pb::Source { locations: renamed_keys(source.locations, rename), infos: source.infos });
    pb::Definition { def, metadata: renamed_keys(wire.metadata, rename), source }
}

fn renamed_keys<T>(map: BTreeMap<String, T>, rename: impl Fn(String) -> String) -> BTreeMap<String, T> {
    map.into_iter().map(|(name, value)| (rename(name), value)).collect()
}

#[cfg(test)]
mod tests {
    use slipway_model::llb::{Edge, GraphBuilder, VertexMeta};

    use super::*;

    #[test]
    fn what_is_made_of_a_replaced_source_is_renamed_and_the_rest_is_not() {
        let source = |name: &str| {
            pb::op::Op::Source(pb::SourceOp { identifier: name.to_owned(), ..pb::SourceOp::default() })
        };
        let merge = |inputs: usize| {
            let inputs = (0..inputs).map(|input| pb::MergeInput { input: input as i64 }).collect();
            pb::op::Op::Merge(pb::MergeOp { inputs })
        };
        let mut graph = GraphBuilder::new();
        let name = Some("named".to_owned());
        let old = graph.add(&[], source("old"), None, VertexMeta { name, ..VertexMeta::default() });
        let other = graph.add(&[], source("other"), None, VertexMeta::default());
        let edges = [old, other].map(|vertex| Edge { vertex, index: 0 });
        let merged = graph.add(&edges, merge(2), None, VertexMeta::default());
        let wire = graph.finish(Some(Edge { vertex: merged, index: 0 }));
        let decoded = Definition::decode(&wire).unwrap();
        let new = pb::SourceOp { identifier: "new".to_owned(), ..pb::SourceOp::default() };
        let rewritten = with_sources(wire, &decoded, &[(old, new)].into());
        let decoded = Definition::decode(&rewritten).unwrap();
        assert!(decoded.vertex(&other).is_some());
        assert!(decoded.vertex(&old).is_none() && decoded.vertex(&merged).is_none());
        let result = decoded.vertex(&decoded.result.unwrap().vertex).unwrap();
        let made = decoded.vertex(&result.inputs[0].vertex).unwrap();
        assert_eq!(made.custom_name(), Some("named"));
        assert!(matches!(&made.op.op, Some(pb::op::Op::Source(source)) if source.identifier == "new"));
    }
}
