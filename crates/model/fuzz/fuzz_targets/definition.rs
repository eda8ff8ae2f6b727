//! Any bytes are a definition that a client sends: it is refused, or it is a graph that is safe to walk.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slipway_model::llb::{Definition, pb};

fuzz_target!(|data: &[u8]| {
    let Ok(mut wire) = pb::Definition::decode(data) else { return };
    // Names are digests, which no mutation can guess: each operation's inputs are made to name earlier ones by
    // the number they had, as far as they can.
    let mut names = Vec::new();
    for bytes in &mut wire.def {
        if let Ok(mut op) = pb::Op::decode(bytes.as_slice()) {
            for input in &mut op.inputs {
                let number = input.digest.bytes().next().map(usize::from);
                if let Some(name) = number.and_then(|number| names.get(number)) {
                    input.digest = String::clone(name);
                }
            }
            *bytes = op.encode_to_vec();
        }
        names.push(slipway_model::Digest::of(bytes.as_slice()).to_string());
    }
    let Ok(definition) = Definition::decode(&wire) else { return };
    let mut seen = HashSet::new();
    for vertex in &definition.vertices {
        assert!(vertex.inputs.iter().all(|edge| seen.contains(&edge.vertex)), "inputs come first");
        assert!(seen.insert(vertex.digest), "each vertex comes once");
        let _ = (vertex.platform(), vertex.custom_name());
    }
    if let Some(result) = definition.result {
        assert!(definition.vertex(&result.vertex).is_some(), "the result is in the graph");
        assert!(seen.len() <= wire.def.len() - 1, "only what was sent is in the graph");
    }
});
