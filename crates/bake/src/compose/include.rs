//! `include`: other compose files, whose paths start at their own directories.
//!
//! An included project is read whole, with its own `.env`, and put beside the one that includes it. A service that
//! is in both is a mistake, as in the reference: which one is meant cannot be told.

use std::collections::BTreeMap;

use slipway_model::clean_path;
use yaml_serde::{Mapping, Value};

use super::{dotenv, interpolate, merge};
use crate::error::Problem;
use crate::files::{Environment, below};

/// Longer chains are refused.
const MAX_DEPTH: usize = 32;

/// What files are read with.
pub(super) struct Including<'a> {
    pub(super) variables: &'a BTreeMap<String, String>,
    pub(super) around: &'a Environment,
}

/// One entry of `include`.
struct Entry {
    paths: Vec<String>,
    directory: Option<String>,
    env_files: Vec<String>,
}

impl Including<'_> {
    /// Takes `include` out of a document; returns what the files have that it names.
    pub(super) fn take(&self, document: &mut Value, file: &str, depth: usize) -> Result<Value, Problem> {
        let mut all = Value::Mapping(Mapping::new());
        let Some(list) = document.as_mapping_mut().and_then(|mapping| mapping.remove("include")) else {
            return Ok(all);
        };
        if depth > MAX_DEPTH {
            return Err(Problem::new(format!("`{file}` includes itself")));
        }
        let list = list.as_sequence().ok_or_else(|| Problem::new("`include` must be a list"))?;
        let own = clean_path(file.rfind('/').map_or("", |at| &file[..at]));
        for entry in list {
            let entry = Entry::parse(entry)?;
            let mut project = Value::Mapping(Mapping::new());
            let first = entry.paths.first().map(|path| from(&own, path)).unwrap_or_default();
            let directory = match &entry.directory {
                Some(directory) => from(&own, directory),
                None => clean_path(first.rfind('/').map_or("", |at| &first[..at])),
            };
            let variables = self.variables_of(&entry, &own, &directory)?;
            let including = Including { variables: &variables, around: self.around };
            for path in &entry.paths {
                merge::lay_over(&mut project, including.read(&from(&own, path), &directory, depth)?);
            }
            put_beside(&mut all, project)?;
        }
        Ok(all)
    }

    /// Reads one file, with what it includes itself.
    fn read(&self, path: &str, directory: &str, depth: usize) -> Result<Value, Problem> {
        let failed = |reason: String| Problem::new(format!("failed to include `{path}`")).because(reason);
        let text = (self.around.read)(path).map_err(|error| failed(error.to_string()))?;
        let mut document: Value = yaml_serde::from_str(&text).map_err(|error| failed(error.to_string()))?;
        document.apply_merge().map_err(|error| failed(error.to_string()))?;
        interpolate::document(&mut document, self.variables, &mut Vec::new())?;
        let mut document = merge::canonical(document)?;
        let inner = self.take(&mut document, path, depth + 1)?;
        let mut document = merge::extended(document, path, self.variables, self.around)?;
        rebase(&mut document, directory);
        put_beside(&mut document, inner)?;
        Ok(document)
    }

    /// Adds the variables of an included project, which do not replace those that are there.
    fn variables_of(
        &self,
        entry: &Entry,
        own: &str,
        directory: &str,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let mut variables = self.variables.clone();
        let usual = [below(directory, ".env")];
        let (files, required) = match entry.env_files.as_slice() {
            [] => (&usual[..], false),
            files => (files, true),
        };
        for file in files {
            let path = if required { from(own, file) } else { file.clone() };
            let failed = |reason: String| Problem::new(format!("failed to read `{path}`")).because(reason);
            let text = match (self.around.read)(&path) {
                Ok(text) => text,
                Err(_) if !required => continue,
                Err(error) => return Err(failed(error.to_string())),
            };
            let known = variables.clone();
            for (name, value) in
                dotenv::parse(&text, &known).map_err(|problem| failed(problem.to_string()))?
            {
                variables.entry(name).or_insert(value);
            }
        }
        Ok(variables)
    }
}

impl Entry {
    fn parse(value: &Value) -> Result<Self, Problem> {
        if let Some(path) = value.as_str() {
            return Ok(Self { paths: vec![path.to_owned()], directory: None, env_files: Vec::new() });
        }
        let texts = |key: &str| match value.get(key) {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Sequence(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let paths = texts("path");
        if paths.is_empty() {
            return Err(
                Problem::new("an entry of `include` names no file").hint("write a path, or `path:` with one")
            );
        }
        Ok(Self { paths, directory: texts("project_directory").pop(), env_files: texts("env_file") })
    }
}

/// Puts a project beside another; what both have is refused.
pub(super) fn put_beside(base: &mut Value, other: Value) -> Result<(), Problem> {
    if let (Some(services), Some(added)) =
        (base.get("services"), other.get("services").and_then(Value::as_mapping))
    {
        for (name, service) in added {
            if services.get(name).is_some_and(|known| known != service) {
                let name = name.as_str().unwrap_or_default();
                return Err(Problem::new(format!(
                    "the service `{name}` is defined here and in an included file"
                ))
                .hint("give one of them another name, or use `extends`"));
            }
        }
    }
    merge::lay_over(base, other);
    Ok(())
}

/// A path as it is from the directory that `own` is, unless it is absolute.
fn from(own: &str, path: &str) -> String {
    if own == "." { clean_path(path) } else { below(own, path) }
}

/// Makes the paths of a document start where the project is that includes it.
fn rebase(document: &mut Value, directory: &str) {
    if directory == "." {
        return;
    }
    let services = document.get_mut("services").and_then(Value::as_mapping_mut);
    for (_, service) in services.into_iter().flatten() {
        let Some(build) = service.get_mut("build").and_then(Value::as_mapping_mut) else { continue };
        let context = build.get("context").and_then(Value::as_str).unwrap_or(".").to_owned();
        build.insert("context".into(), below(directory, &context).into());
        let contexts = build.get_mut("additional_contexts").and_then(Value::as_mapping_mut);
        for (_, value) in contexts.into_iter().flatten() {
            if let Some(path) = value.as_str().filter(|path| !path.contains(':')) {
                *value = below(directory, path).into();
            }
        }
    }
    let secrets = document.get_mut("secrets").and_then(Value::as_mapping_mut);
    for (_, secret) in secrets.into_iter().flatten() {
        if let Some(file) = secret.get_mut("file")
            && let Some(path) = file.as_str()
        {
            *file = below(directory, path).into();
        }
    }
}
