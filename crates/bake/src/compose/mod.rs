//! Compose files: the `build` sections of services become targets.
//!
//! Only what building needs is read. Files are interpolated, extended and merged as YAML; then each
//! service's `build` becomes a target of the service's name.

mod dotenv;
mod include;
mod interpolate;
mod merge;
mod service;

use std::collections::BTreeMap;

use yaml_serde::{Mapping, Value};

use crate::error::{Problem, Result, Span};
use crate::files::{Environment, SourceFile};
use crate::target::{Group, Target};

pub(crate) use service::sanitized;

/// What compose files define.
pub(crate) struct Project {
    pub(crate) targets: Vec<Target>,
    pub(crate) groups: Vec<Group>,
    pub(crate) notes: Vec<Problem>,
}

/// Tells whether a text without a telling name is a compose file.
pub(crate) fn is_compose(text: &str) -> bool {
    match yaml_serde::from_str::<Value>(text) {
        Ok(Value::Mapping(mapping)) => mapping.contains_key("services") || mapping.contains_key("secrets"),
        _ => false,
    }
}

/// Reads compose files, of which later ones are laid over earlier ones.
pub(crate) fn load(files: &[SourceFile], which: &[usize], around: &Environment) -> Result<Project> {
    let mut variables = variables(around)?;
    let mut documents = Vec::new();
    for at in which {
        documents.push((*at, parse(*at, &files[*at])?));
    }
    if !variables.contains_key(PROJECT_NAME) {
        let named = documents.iter().rev().find_map(|(_, document)| document.get("name")?.as_str());
        variables.insert(PROJECT_NAME.to_owned(), named.unwrap_or("bake").to_owned());
    }
    let mut merged = Value::Mapping(Mapping::new());
    let mut unset = Vec::new();
    for (at, mut document) in documents {
        let place = file_span(at);
        interpolate::document(&mut document, &variables, &mut unset).map_err(|problem| problem.at(place))?;
        let including = include::Including { variables: &variables, around };
        let included =
            including.take(&mut document, &files[at].name, 0).map_err(|problem| problem.at(place))?;
        let document = merge::canonical(document).map_err(|problem| problem.at(place))?;
        let document = merge::extended(document, &files[at].name, &variables, around)
            .map_err(|problem| problem.at(place))?;
        let mut document = document;
        include::put_beside(&mut document, included).map_err(|problem| problem.at(place))?;
        merge::lay_over(&mut merged, document);
    }
    merge::drop_resets(&mut merged);
    if merged.get("services").is_none() && merged.get("secrets").is_none() {
        let place = which.first().map(|at| file_span(*at)).unwrap_or_default();
        return Err(Problem::new("empty compose file")
            .hint("a compose file has `services:`, and those to build have `build:`")
            .at(place)
            .into());
    }
    let notes: Vec<Problem> = unset
        .into_iter()
        .map(|name| {
            Problem::new(format!("the variable `{name}` is not set, so it is empty"))
                .hint(format!("set it in the environment or in `.env`, or write `${{{name}:-default}}`"))
        })
        .collect();
    let secrets = merged.get("secrets").cloned().unwrap_or_default();
    let (mut targets, mut names) = (Vec::new(), Vec::new());
    let services = merged.get("services").and_then(Value::as_mapping).cloned().unwrap_or_default();
    let mut services: Vec<(String, Value)> = services
        .into_iter()
        .filter_map(|(name, service)| Some((name.as_str()?.to_owned(), service)))
        .collect();
    services.sort_by(|a, b| a.0.cmp(&b.0));
    let any = !services.is_empty();
    for (name, value) in services {
        let place = service_span(&name, files, which);
        let target = service::target(&name, &value, &secrets, &variables, around);
        let at = |problem: Problem| match place {
            Some(place) => problem.at(place),
            None => problem,
        };
        if let Some(target) = target.map_err(at)? {
            names.push(target.name.clone());
            targets.push(target);
        }
    }
    let group = Group { name: "default".to_owned(), description: String::new(), targets: Some(names) };
    Ok(Project { targets, groups: if any { vec![group] } else { Vec::new() }, notes })
}

const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// Collects the variables that compose files may use: `--var`, the environment, `.env`.
fn variables(around: &Environment) -> Result<BTreeMap<String, String>> {
    let mut all = if around.may_look_up() { around.variables.clone() } else { BTreeMap::new() };
    if let Some(text) = &around.dot_env {
        for (name, value) in dotenv::parse(text, &all)
            .map_err(|problem| Problem::new("failed to read `.env`").because(problem.to_string()))?
        {
            all.entry(name).or_insert(value);
        }
    }
    all.extend(around.given.clone());
    Ok(all)
}

fn parse(at: usize, file: &SourceFile) -> Result<Value> {
    let mut value: Value = yaml_serde::from_str(&file.text).map_err(|error| {
        let start = error.location().map_or(0, |location| location.index());
        let message = error.to_string();
        Problem::new("invalid YAML").because(message).at(Span { file: at, start, end: start + 1 })
    })?;
    value
        .apply_merge()
        .map_err(|error| Problem::new("invalid YAML").because(error.to_string()).at(file_span(at)))?;
    match value {
        Value::Mapping(_) => Ok(value),
        Value::Null => Err(Problem::new("empty compose file").at(file_span(at)).into()),
        _ => Err(Problem::new("a compose file must be a mapping").at(file_span(at)).into()),
    }
}

/// The start of a file, where no better place is known.
fn file_span(file: usize) -> Span {
    Span { file, start: 0, end: 0 }
}

/// Finds the line that a service starts at.
fn service_span(name: &str, files: &[SourceFile], which: &[usize]) -> Option<Span> {
    which.iter().rev().find_map(|at| {
        let mut start = 0;
        for line in files.get(*at)?.text.split_inclusive('\n') {
            let trimmed = line.trim();
            let key = trimmed.trim_end_matches(':').trim_matches(['"', '\'']);
            if line.starts_with([' ', '\t']) && trimmed.ends_with(':') && key == name {
                let indent = line.len() - line.trim_start().len();
                return Some(Span { file: *at, start: start + indent, end: start + indent + trimmed.len() });
            }
            start += line.len();
        }
        None
    })
}
