//! Making a definition: operations in, names out, equal operations once.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;

use super::{Definition, DefinitionError, Edge, pb};
use crate::{Digest, Platform};

/// An output of a node in the graph being built; `None` stands for the empty file system.
pub type NodeOutput = Option<Edge>;

/// What is said about a vertex without being part of its identity.
#[derive(Clone, Debug, Default)]
pub struct VertexMeta {
    /// Shown to people, as `[stage 2/5] RUN make`.
    pub name: Option<String>,
    pub ignore_cache: bool,
    pub progress_group: Option<pb::ProgressGroup>,
    pub linux_resources: Option<pb::LinuxResources>,
    /// Further `description` entries, as `com.docker.dockerfile.v1.command`.
    pub description: BTreeMap<String, String>,
    pub locations: Vec<pb::Location>,
}

/// Collects operations into a `pb.Definition`.
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    order: Vec<Digest>,
    ops: HashMap<Digest, Vec<u8>>,
    metadata: BTreeMap<String, pb::OpMetadata>,
    locations: BTreeMap<String, pb::Locations>,
    sources: Vec<pb::SourceInfo>,
}

impl GraphBuilder {
    /// Starts an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source file that locations may point into, and returns its index; one that is there already is not
    /// added again.
    pub fn add_source(&mut self, source: pb::SourceInfo) -> i32 {
        let known = self.sources.iter().position(|known| is_same(known, &source));
        let index = known.unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        index as i32
    }

    /// Adds an operation and returns its digest; one that is there already is not added again.
    pub fn add(
        &mut self,
        inputs: &[Edge],
        op: pb::op::Op,
        platform: Option<&Platform>,
        meta: VertexMeta,
    ) -> Digest {
        let wire = pb::Op {
            inputs: inputs
                .iter()
                .map(|edge| pb::Input { digest: edge.vertex.to_string(), index: edge.index as i64 })
                .collect(),
            platform: platform.map(Into::into),
            constraints: None,
            op: Some(op),
        };
        let bytes = wire.encode_to_vec();
        let digest = Digest::of(&bytes);
        if self.ops.insert(digest, bytes).is_none() {
            self.order.push(digest);
        }
        self.describe(digest, meta);
        digest
    }

    /// Adds the operations of a definition that somebody else made, and returns its result.
    pub fn add_definition(&mut self, definition: &pb::Definition) -> Result<NodeOutput, DefinitionError> {
        let checked = Definition::decode(definition)?;
        let source = definition.source.clone().unwrap_or_default();
        let indices: Vec<i32> = source.infos.into_iter().map(|info| self.add_source(info)).collect();
        let bytes: HashMap<Digest, &Vec<u8>> =
            definition.def.iter().map(|bytes| (Digest::of(bytes), bytes)).collect();
        for vertex in &checked.vertices {
            let Some(bytes) = bytes.get(&vertex.digest) else { continue };
            if self.ops.insert(vertex.digest, (*bytes).clone()).is_some() {
                continue;
            }
            self.order.push(vertex.digest);
            let key = vertex.digest.to_string();
            let mut locations = vertex.locations.clone();
            locations.retain_mut(|location| {
                let index = usize::try_from(location.source_index).ok().and_then(|index| indices.get(index));
                index.map(|index| location.source_index = *index).is_some()
            });
            self.metadata.insert(key.clone(), vertex.metadata.clone());
            if !locations.is_empty() {
                self.locations.insert(key, pb::Locations { locations });
            }
        }
        Ok(checked.result)
    }

    fn describe(&mut self, digest: Digest, meta: VertexMeta) {
        let key = digest.to_string();
        let entry = self.metadata.entry(key.clone()).or_default();
        entry.ignore_cache |= meta.ignore_cache;
        for (name, value) in meta.description {
            entry.description.entry(name).or_insert(value);
        }
        if let Some(name) = meta.name {
            entry.description.entry("llb.customname".to_owned()).or_insert(name);
        }
        entry.progress_group = entry.progress_group.take().or(meta.progress_group);
        entry.linux_resources = entry.linux_resources.take().or(meta.linux_resources);
        if !meta.locations.is_empty() {
            self.locations.entry(key).or_default().locations.extend(meta.locations);
        }
    }

    /// Returns the definition whose result is `result`, with only the operations it needs.
    pub fn finish(&self, result: NodeOutput) -> pb::Definition {
        let Some(edge) = result else { return pb::Definition::default() };
        let needed = self.needed(edge);
        let mut def: Vec<Vec<u8>> = self
            .order
            .iter()
            .filter(|d| needed.contains(d))
            .filter_map(|d| self.ops.get(d).cloned())
            .collect();
        let terminal = pb::Op {
            inputs: vec![pb::Input { digest: edge.vertex.to_string(), index: edge.index as i64 }],
            ..Default::default()
        };
        def.push(terminal.encode_to_vec());
        let keep = |key: &String| key.parse().is_ok_and(|d: Digest| needed.contains(&d));
        pb::Definition {
            def,
            metadata: self
                .metadata
                .iter()
                .filter(|(k, _)| keep(k))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            source: Some(pb::Source {
                locations: self
                    .locations
                    .iter()
                    .filter(|(k, v)| keep(k) && !v.locations.is_empty())
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
                infos: self.sources.clone(),
            }),
        }
    }

    fn needed(&self, result: Edge) -> std::collections::HashSet<Digest> {
        let mut needed = std::collections::HashSet::new();
        let mut queue = vec![result.vertex];
        while let Some(digest) = queue.pop() {
            if !needed.insert(digest) {
                continue;
            }
            let op = self.ops.get(&digest).and_then(|bytes| pb::Op::decode(bytes.as_slice()).ok());
            let inputs = op.map(|op| op.inputs).unwrap_or_default();
            queue.extend(inputs.iter().filter_map(|input| input.digest.parse::<Digest>().ok()));
        }
        needed
    }
}

/// Tells whether two sources are one file; what is said about the steps that gave it does not matter.
fn is_same(a: &pb::SourceInfo, b: &pb::SourceInfo) -> bool {
    let steps = |source: &pb::SourceInfo| source.definition.as_ref().map(|made| made.def.clone());
    (&a.filename, &a.language, &a.data) == (&b.filename, &b.language, &b.data) && steps(a) == steps(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str) -> pb::op::Op {
        pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), ..Default::default() })
    }

    #[test]
    fn a_foreign_definition_keeps_its_digests_and_places() {
        let mut foreign = GraphBuilder::new();
        foreign.add_source(pb::SourceInfo { filename: "theirs".to_owned(), ..Default::default() });
        let location = pb::Location { source_index: 0, ..Default::default() };
        let meta = VertexMeta { locations: vec![location], ..Default::default() };
        let vertex = foreign.add(&[], source("a"), None, meta);
        let theirs = foreign.finish(Some(Edge { vertex, index: 0 }));
        let mut graph = GraphBuilder::new();
        graph.add_source(pb::SourceInfo { filename: "ours".to_owned(), ..Default::default() });
        let result = graph.add_definition(&theirs).unwrap();
        assert_eq!(result, Some(Edge { vertex, index: 0 }));
        let definition = Definition::decode(&graph.finish(result)).unwrap();
        let place = &definition.vertices[0].locations[0];
        assert_eq!(definition.sources[place.source_index as usize].filename, "theirs");
    }

    #[test]
    fn equal_operations_are_one_vertex_and_unused_ones_are_left_out() {
        let mut graph = GraphBuilder::new();
        let named = |name: &str| VertexMeta { name: Some(name.to_owned()), ..Default::default() };
        let first = graph.add(&[], source("a"), None, named("first"));
        let again = graph.add(&[], source("a"), None, named("again"));
        graph.add(&[], source("unused"), None, VertexMeta::default());
        assert_eq!(first, again);
        let wire = graph.finish(Some(Edge { vertex: first, index: 0 }));
        let definition = Definition::decode(&wire).unwrap();
        assert_eq!(definition.vertices.len(), 1);
        assert_eq!(definition.vertices[0].custom_name(), Some("first"));
        assert!(graph.finish(None).def.is_empty());
    }
}
