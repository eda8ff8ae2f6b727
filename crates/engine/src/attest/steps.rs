//! The steps of a definition as provenance tells them: in an order where inputs come first, named `step0`, `step1`.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::Serialize;
use serde_json::{Map, Value, json};
use slipway_model::llb::{json as llb_json, pb};
use slipway_model::{Diagnostic, Digest, ErrorKind};

use crate::sources::local::is_of_one_run;

/// The steps of a definition.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct BuildConfig {
    #[serde(rename = "llbDefinition", skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Value>,
    #[serde(rename = "digestMapping", skip_serializing_if = "BTreeMap::is_empty")]
    names: BTreeMap<String, String>,
}

/// The files that steps come from, and where in them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepSources {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    locations: BTreeMap<String, Value>,
    infos: Vec<Value>,
}

/// The numbers of steps, by vertex.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers(HashMap<String, usize>);

impl Numbers {
    /// Names a step.
    pub(crate) fn name(&self, vertex: &Digest) -> Option<String> {
        self.0.get(&vertex.to_string()).map(|number| format!("step{number}"))
    }
}

/// Lists the steps of a definition.
pub(crate) fn of(
    definition: &pb::Definition,
) -> Result<(BuildConfig, Option<StepSources>, Numbers), Diagnostic> {
    let (config, numbers) = steps(definition)?;
    let sources = match definition.source.as_ref().filter(|source| !source.infos.is_empty()) {
        Some(source) => Some(step_sources(source, &numbers)?),
        None => None,
    };
    Ok((config, sources, numbers))
}

fn steps(definition: &pb::Definition) -> Result<(BuildConfig, Numbers), Diagnostic> {
    let invalid = |error: String| {
        Diagnostic::new(ErrorKind::User, "cannot tell the steps of a definition").cause(error)
    };
    let mut ops: HashMap<String, pb::Op> = HashMap::with_capacity(definition.def.len());
    let mut last = None;
    for bytes in &definition.def {
        let mut op = pb::Op::decode(bytes.as_slice()).map_err(|error| invalid(error.to_string()))?;
        if let Some(pb::op::Op::Source(source)) = &mut op.op {
            source.attrs.retain(|name, _| !is_of_one_run(name));
        }
        let digest = Digest::of(bytes).to_string();
        ops.insert(digest.clone(), op);
        last = Some(digest);
    }
    let Some(last) = last else { return Ok(Default::default()) };
    let order = order(&ops, last).map_err(invalid)?;
    let numbers: HashMap<String, usize> =
        order.iter().enumerate().map(|(number, digest)| (digest.clone(), number)).collect();
    let steps = order.iter().enumerate().map(|(number, digest)| {
        let op = &ops[digest];
        let inputs: Vec<String> =
            op.inputs.iter().map(|i| format!("step{}:{}", numbers[&i.digest], i.index)).collect();
        let mut step = Map::new();
        step.insert("id".to_owned(), json!(format!("step{number}")));
        step.insert("op".to_owned(), llb_json::op(op));
        if !inputs.is_empty() {
            step.insert("inputs".to_owned(), json!(inputs));
        }
        Value::Object(step)
    });
    let names = numbers.iter().map(|(digest, number)| (digest.clone(), format!("step{number}"))).collect();
    Ok((BuildConfig { steps: steps.collect(), names }, Numbers(numbers)))
}

/// Orders the vertices depth first, each input before what it is for; without recursion, since the depth is the
/// sender's.
fn order(ops: &HashMap<String, pb::Op>, last: String) -> Result<Vec<String>, String> {
    let mut order = Vec::with_capacity(ops.len());
    let mut entered: std::collections::HashSet<&str> = [last.as_str()].into();
    let mut stack = vec![(last.as_str(), 0usize)];
    while let Some((digest, next)) = stack.pop() {
        let op = ops.get(digest).ok_or_else(|| format!("the input {digest} is missing"))?;
        match op.inputs.get(next) {
            Some(input) => {
                stack.push((digest, next + 1));
                if entered.insert(&input.digest) {
                    stack.push((&input.digest, 0));
                }
            }
            None => order.push(digest.to_owned()),
        }
    }
    Ok(order)
}

fn step_sources(source: &pb::Source, numbers: &Numbers) -> Result<StepSources, Diagnostic> {
    let mut infos = Vec::with_capacity(source.infos.len());
    for info in &source.infos {
        let (config, _) = steps(info.definition.as_ref().unwrap_or(&pb::Definition::default()))?;
        let mut told = Map::new();
        let mut tell = |name: &str, text: &str| {
            if !text.is_empty() {
                told.insert(name.to_owned(), json!(text));
            }
        };
        tell("filename", &info.filename);
        tell("language", &info.language);
        tell("data", &STANDARD.encode(&info.data));
        if let Value::Object(config) = json!(config) {
            told.extend(config);
        }
        infos.push(Value::Object(told));
    }
    let locations = source.locations.iter().filter_map(|(digest, locations)| {
        let number = numbers.0.get(digest)?;
        Some((format!("step{number}"), llb_json::locations(locations)))
    });
    Ok(StepSources { locations: locations.collect(), infos })
}
