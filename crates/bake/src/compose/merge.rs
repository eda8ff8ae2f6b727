//! Compose files as YAML: short forms, `extends`, one file over another.

use std::collections::BTreeMap;

use slipway_model::clean_path;
use yaml_serde::{Mapping, Value};

use super::interpolate;
use crate::error::Problem;
use crate::files::{Environment, below};

/// Longer chains of `extends` are refused.
const MAX_DEPTH: usize = 32;

/// Brings the short forms of what building needs into the long ones.
pub(super) fn canonical(mut document: Value) -> Result<Value, Problem> {
    let Some(services) = document.get_mut("services").and_then(Value::as_mapping_mut) else {
        return Ok(document);
    };
    for (name, service) in services.iter_mut() {
        let name = name.as_str().unwrap_or_default().to_owned();
        let Some(service) = service.as_mapping_mut() else { continue };
        if let Some(build) = service.get_mut("build") {
            if let Some(context) = build.as_str() {
                *build = Value::Mapping([("context".into(), context.into())].into_iter().collect());
            }
            match untagged(build) {
                Value::Mapping(build) => canonical_build(build)?,
                Value::Null => {}
                _ => {
                    return Err(Problem::new(format!(
                        "the `build` of the service `{name}` must be a path or a mapping"
                    )));
                }
            }
        }
        if let Some(environment) = service.get_mut("environment") {
            to_mapping(environment, '=')?;
        }
    }
    Ok(document)
}

fn canonical_build(build: &mut Mapping) -> Result<(), Problem> {
    for key in ["args", "labels", "additional_contexts"] {
        if let Some(value) = build.get_mut(key) {
            to_mapping(value, '=')?;
        }
    }
    for key in ["cache_from", "cache_to", "tags", "platforms", "no_cache_filter"] {
        if let Some(value) = build.get_mut(key)
            && value.is_string()
        {
            *value = Value::Sequence(vec![value.clone()]);
        }
    }
    Ok(())
}

/// Turns a list of `key=value` into a mapping.
fn to_mapping(value: &mut Value, separator: char) -> Result<(), Problem> {
    let value = untagged(value);
    let Value::Sequence(list) = value else { return Ok(()) };
    let mut mapping = Mapping::new();
    for item in list {
        let text = item.as_str().ok_or_else(|| Problem::new("a list of `key=value` strings is required"))?;
        let (key, value) = match text.split_once(separator) {
            Some((key, value)) => (key, Value::from(value)),
            None => (text, Value::Null),
        };
        mapping.insert(key.into(), value);
    }
    *value = Value::Mapping(mapping);
    Ok(())
}

/// Looks through a tag.
fn untagged(value: &mut Value) -> &mut Value {
    match value {
        Value::Tagged(tagged) => &mut tagged.value,
        value => value,
    }
}

/// Lays one document over another: mappings are merged, lists joined, `!reset` and `!override` heeded.
pub(super) fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (base, Value::Tagged(tagged)) => match tagged.tag.to_string().as_str() {
            "!override" => *base = tagged.value,
            "!reset" => *base = Value::Tagged(tagged),
            _ => lay_over(base, tagged.value),
        },
        (Value::Mapping(base), Value::Mapping(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(old) => lay_over(old, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (Value::Sequence(base), Value::Sequence(over)) => {
            for value in over {
                if !base.contains(&value) {
                    base.push(value);
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Removes what `!reset` marks.
pub(super) fn drop_resets(value: &mut Value) {
    let reset = |value: &Value| matches!(value, Value::Tagged(tagged) if tagged.tag == "!reset");
    match value {
        Value::Mapping(mapping) => {
            mapping.retain(|_, value| !reset(value));
            mapping.iter_mut().for_each(|(_, value)| drop_resets(value));
        }
        Value::Sequence(list) => {
            list.retain(|value| !reset(value));
            list.iter_mut().for_each(drop_resets);
        }
        Value::Tagged(tagged) => {
            let mut inner = std::mem::take(&mut tagged.value);
            drop_resets(&mut inner);
            *value = inner;
        }
        _ => {}
    }
}

/// Puts what services extend below them.
pub(super) fn extended(
    mut document: Value,
    file: &str,
    variables: &BTreeMap<String, String>,
    around: &Environment,
) -> Result<Value, Problem> {
    let whole = document.clone();
    let Some(services) = document.get_mut("services").and_then(Value::as_mapping_mut) else {
        return Ok(document);
    };
    for (name, service) in services.iter_mut() {
        if service.get("extends").is_some() {
            let name = name.as_str().unwrap_or_default().to_owned();
            let from = Extending { document: &whole, file, variables, around };
            *service = from.service(&name, 0)?;
        }
    }
    Ok(document)
}

struct Extending<'a> {
    document: &'a Value,
    file: &'a str,
    variables: &'a BTreeMap<String, String>,
    around: &'a Environment,
}

impl Extending<'_> {
    fn service(&self, name: &str, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::new(format!("the service `{name}` extends itself")));
        }
        let services = self.document.get("services");
        let mut service = services.and_then(|services| services.get(name)).cloned().ok_or_else(|| {
            Problem::new(format!("cannot extend the service `{name}`: `{}` has no such service", self.file))
        })?;
        let Some(extends) = service.as_mapping_mut().and_then(|mapping| mapping.remove("extends")) else {
            return Ok(service);
        };
        let text = |key: &str| extends.get(key).and_then(Value::as_str).map(str::to_owned);
        let parent = extends.as_str().map(str::to_owned).or_else(|| text("service"));
        let parent =
            parent.ok_or_else(|| Problem::new(format!("the service `{name}` extends no named service")))?;
        let mut base = match text("file") {
            None => self.service(&parent, depth + 1)?,
            Some(file) => self.other_file(&file, &parent, depth)?,
        };
        lay_over(&mut base, service);
        Ok(base)
    }

    fn other_file(&self, file: &str, service: &str, depth: usize) -> Result<Value, Problem> {
        let own = self.file.rfind('/').map_or("", |at| &self.file[..at]);
        let path = below(own, file);
        let failed = |reason: String| Problem::new(format!("failed to read `{path}`")).because(reason);
        let text = (self.around.read)(&path).map_err(|error| failed(error.to_string()))?;
        let mut document: Value = yaml_serde::from_str(&text).map_err(|error| failed(error.to_string()))?;
        document.apply_merge().map_err(|error| failed(error.to_string()))?;
        interpolate::document(&mut document, self.variables, &mut Vec::new())?;
        let document = canonical(document)?;
        let there =
            Extending { document: &document, file: &path, variables: self.variables, around: self.around };
        let mut found = there.service(service, depth + 1)?;
        // Its paths start at its own file.
        let directory = clean_path(path.rfind('/').map_or("", |at| &path[..at]));
        if directory != "."
            && let Some(build) = found.get_mut("build").and_then(Value::as_mapping_mut)
        {
            let context = build.get("context").and_then(Value::as_str).unwrap_or(".").to_owned();
            build.insert("context".into(), below(&directory, &context).into());
        }
        Ok(found)
    }
}
