//! Merging the definitions of all platforms into one graph of operations, and naming vertices for people.

use std::collections::BTreeSet;
use std::sync::Arc;

use slipway_model::llb::{Definition, Edge, Vertex, pb};
use slipway_model::solve::Entitlement;
use slipway_model::{Diagnostic, ErrorKind, SourceSpan};
use slipway_solver::{Graph, Input};

use crate::devices::Devices;
use crate::job::Job;
use crate::ops::VertexOperation;

/// The merged graph, and what each definition's result is in it.
pub(crate) struct Merged {
    pub(crate) graph: Graph<VertexOperation>,
    /// One for each definition, in order; `None` is the empty file system.
    pub(crate) results: Vec<Option<Input>>,
}

/// Merges definitions; vertices that are equal become one, named as in the first that has them.
pub(crate) fn merge(definitions: &[&Definition], job: &Arc<Job>) -> Result<Merged, Diagnostic> {
    let mut graph = Graph::new();
    let mut results = Vec::with_capacity(definitions.len());
    for definition in definitions {
        for vertex in &definition.vertices {
            check_indices(vertex)?;
            check_entitlements(vertex, &job.entitlements, &job.engine.config.devices)?;
            let inputs = vertex
                .inputs
                .iter()
                .map(|edge| resolve(&graph, edge))
                .collect::<Result<Vec<Input>, Diagnostic>>()?;
            let spans = spans_of(vertex, definition);
            graph.add(vertex.digest, inputs, || {
                job.notes
                    .vertices
                    .get_or_make(vertex, || VertexOperation::new(vertex.clone(), spans, job.clone()))
            });
        }
        results.push(definition.result.map(|edge| resolve(&graph, &edge)).transpose()?);
    }
    Ok(Merged { graph, results })
}

fn resolve(graph: &Graph<VertexOperation>, edge: &Edge) -> Result<Input, Diagnostic> {
    let vertex = graph
        .find(&edge.vertex)
        .ok_or_else(|| invalid(format!("vertex {} is not in the graph", edge.vertex)))?;
    let outputs = outputs_of(&graph.operation(vertex).vertex);
    if edge.index >= outputs {
        return Err(invalid(format!(
            "vertex {} has {outputs} outputs, and no output {}",
            edge.vertex, edge.index
        )));
    }
    Ok(Input { vertex, index: edge.index })
}

/// Counts what an operation gives.
fn outputs_of(vertex: &Vertex) -> usize {
    let distinct = |outputs: &mut dyn Iterator<Item = i64>| {
        outputs.filter(|output| *output >= 0).collect::<BTreeSet<i64>>().len()
    };
    match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => distinct(&mut exec.mounts.iter().map(|mount| mount.output)),
        Some(pb::op::Op::File(file)) => distinct(&mut file.actions.iter().map(|action| action.output)),
        Some(pb::op::Op::Passthrough(pass)) => pass.outputs.len(),
        _ => 1,
    }
}

/// Checks what an operation says about its inputs, once, so that nothing later needs to.
fn check_indices(vertex: &Vertex) -> Result<(), Diagnostic> {
    let count = vertex.inputs.len() as i64;
    let check = |index: i64, limit: i64| {
        if (-1..limit).contains(&index) {
            return Ok(());
        }
        Err(invalid(format!("input {index} of vertex {} is out of range", vertex.digest)))
    };
    match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => {
            if !exec.mounts.iter().any(|mount| mount.dest == "/") {
                return Err(invalid(format!("the step {} has no root file system", vertex.digest)));
            }
            exec.mounts.iter().try_for_each(|mount| check(mount.input, count))
        }
        Some(pb::op::Op::Passthrough(pass)) => pass.outputs.iter().try_for_each(|output| {
            check(*output, count)?;
            if *output < 0 { check(count, count) } else { Ok(()) }
        }),
        Some(pb::op::Op::Diff(diff)) => {
            let lower = diff.lower.as_ref().map_or(-1, |lower| lower.input);
            check(lower, count)?;
            check(diff.upper.as_ref().map_or(-1, |upper| upper.input), count)
        }
        Some(pb::op::Op::File(file)) => file.actions.iter().enumerate().try_for_each(|(position, action)| {
            let limit = count + position as i64;
            check(action.input, limit)?;
            check(action.secondary_input, limit)
        }),
        Some(pb::op::Op::Merge(merge)) => merge.inputs.iter().try_for_each(|input| check(input.input, count)),
        Some(_) => Ok(()),
        None => Err(invalid(format!("vertex {} has no operation", vertex.digest))),
    }
}

/// Checks that the client may ask for what a step wants of the host.
fn check_entitlements(
    vertex: &Vertex,
    granted: &BTreeSet<Entitlement>,
    devices: &Devices,
) -> Result<(), Diagnostic> {
    let Some(pb::op::Op::Exec(exec)) = &vertex.op.op else { return Ok(()) };
    if pb::SecurityMode::try_from(exec.security).is_err() {
        return Err(invalid(format!("invalid security mode {}", exec.security)));
    }
    if pb::NetMode::try_from(exec.network).is_err() {
        return Err(invalid(format!("invalid network mode {}", exec.network)));
    }
    let refused = |name: &str| {
        Diagnostic::new(ErrorKind::User, format!("{name} is not allowed"))
            .hint(format!("grant it with `--allow {name}`"))
    };
    if exec.network == pb::NetMode::Host as i32 && !granted.contains(&Entitlement::NetworkHost) {
        return Err(refused("network.host"));
    }
    if exec.security == pb::SecurityMode::Insecure as i32 && !granted.contains(&Entitlement::SecurityInsecure)
    {
        return Err(refused("security.insecure"));
    }
    devices.resolve(&exec.cdi_devices, granted).map(drop)
}

fn invalid(cause: String) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, "invalid LLB definition").cause(cause)
}

/// Finds where a vertex comes from; what was said last is nearest.
fn spans_of(vertex: &Vertex, definition: &Definition) -> Vec<SourceSpan> {
    let span = |location: &pb::Location| {
        let source = definition.sources.get(usize::try_from(location.source_index).ok()?)?;
        Some(SourceSpan { source: source.clone(), ranges: location.ranges.clone() })
    };
    vertex.locations.iter().rev().filter_map(span).collect()
}

/// Returns what a vertex is called on a screen.
pub(crate) fn name_of(vertex: &Vertex) -> String {
    if let Some(name) = vertex.custom_name() {
        return name.to_owned();
    }
    match &vertex.op.op {
        Some(pb::op::Op::Source(source)) => source.identifier.clone(),
        Some(pb::op::Op::Exec(exec)) => exec.meta.as_ref().map(|m| m.args.join(" ")).unwrap_or_default(),
        Some(pb::op::Op::File(file)) => file.actions.iter().map(action_name).collect::<Vec<_>>().join(", "),
        Some(pb::op::Op::Merge(_)) => "merge".to_owned(),
        Some(pb::op::Op::Diff(_)) => "diff".to_owned(),
        Some(pb::op::Op::Build(_)) => "build".to_owned(),
        Some(pb::op::Op::Passthrough(_)) => "passthrough".to_owned(),
        None => vertex.digest.to_string(),
    }
}

fn action_name(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(mkfile)) => format!("mkfile {}", mkfile.path),
        Some(Action::Mkdir(mkdir)) => format!("mkdir {}", mkdir.path),
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(symlink)) => format!("symlink {} -> {}", symlink.newpath, symlink.oldpath),
        None => "nothing".to_owned(),
    }
}
