//! `--list`: targets and variables as a table or as JSON.

use serde_json::{Map, Value, json};
use slipway_model::{Diagnostic, csv};

use crate::definition::{Definition, VariableInfo};
use crate::error::{Problem, Result};
use crate::value::json::escape_html;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    Targets,
    Variables,
}

/// The value of `--list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRequest {
    pub kind: ListKind,
    pub json: bool,
}

impl ListRequest {
    /// Parses `targets`, `type=variables,format=json` and the like.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::read(text).map_err(|problem| vec![problem.into_diagnostic(&[])])
    }

    fn read(text: &str) -> Result<Self, Problem> {
        const HINT: &str = "write `--list targets`, `--list variables` or `--list type=targets,format=json`";
        let fields = csv::fields(text).map_err(|reason| {
            Problem::new(format!("invalid value `{text}` for `--list`")).because(reason.to_string())
        })?;
        let (mut kind, mut format) = (String::new(), "table".to_owned());
        if fields.len() == 1 && !text.contains('=') {
            kind = text.to_owned();
        } else {
            for field in &fields {
                match field.split_once('=').map(|(key, value)| (key.trim().to_lowercase(), value)) {
                    Some((key, value)) if key == "type" => kind = value.to_owned(),
                    Some((key, value)) if key == "format" => format = value.to_owned(),
                    // `targets,format=json` is meant often enough.
                    None if kind.is_empty() => kind = field.clone(),
                    _ => {
                        return Err(
                            Problem::new(format!("unexpected `{field}` in `--list {text}`")).hint(HINT)
                        );
                    }
                }
            }
        }
        let kind = match kind.as_str() {
            "targets" => ListKind::Targets,
            "variables" => ListKind::Variables,
            other => return Err(Problem::new(format!("invalid list type `{other}`")).hint(HINT)),
        };
        match format.as_str() {
            "table" => Ok(Self { kind, json: false }),
            "json" => Ok(Self { kind, json: true }),
            other => {
                Err(Problem::new(format!("invalid list format `{other}`")).hint("use `table` or `json`"))
            }
        }
    }
}

/// One row of the list of targets.
struct Row {
    name: String,
    description: String,
    group: bool,
}

/// Lists targets and groups by name; names that start with `_` are private.
fn rows(definition: &Definition) -> Vec<Row> {
    let targets = definition.targets.iter().map(|target| Row {
        name: target.name.clone(),
        description: target.description.clone(),
        group: false,
    });
    let groups = definition.groups.iter().map(|group| {
        let mut members = group.targets.clone().unwrap_or_default();
        members.sort();
        let members = members.join(", ");
        let description = match (group.description.as_str(), members.as_str()) {
            (description, "") => description.to_owned(),
            ("", members) => members.to_owned(),
            (description, members) => format!("{description} ({members})"),
        };
        Row { name: group.name.clone(), description, group: true }
    });
    let mut rows: Vec<Row> = targets.chain(groups).filter(|row| !row.name.starts_with('_')).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Writes the targets as a table.
pub fn targets_as_table(definition: &Definition) -> String {
    let rows = rows(definition).into_iter().map(|row| vec![row.name, row.description]);
    table(["TARGET", "DESCRIPTION"].map(str::to_owned).to_vec(), rows)
}

/// Writes the targets as JSON.
pub fn targets_as_json(definition: &Definition) -> String {
    let rows = rows(definition).into_iter().map(|row| {
        let mut members = Map::new();
        members.insert("name".to_owned(), row.name.into());
        // The list of a group's members is for the table alone.
        let description = if row.group { group_description(definition, &members) } else { row.description };
        if !description.is_empty() {
            members.insert("description".to_owned(), description.into());
        }
        if row.group {
            members.insert("group".to_owned(), true.into());
        }
        Value::Object(members)
    });
    json_text(&rows.collect::<Vec<_>>())
}

fn group_description(definition: &Definition, members: &Map<String, Value>) -> String {
    let name = members.get("name").and_then(Value::as_str).unwrap_or_default();
    rows(definition)
        .into_iter()
        .find(|row| row.group && row.name == name)
        .map_or_else(String::new, |row| row.description)
}

/// Writes the variables as a table.
pub fn variables_as_table(variables: &[VariableInfo]) -> String {
    let rows = variables.iter().map(|variable| {
        let value = variable.value.clone().unwrap_or_else(|| "<null>".to_owned());
        vec![variable.name.clone(), variable.kind.clone(), value, variable.description.clone()]
    });
    table(["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec(), rows)
}

/// Writes the variables as JSON.
pub fn variables_as_json(variables: &[VariableInfo]) -> String {
    let rows = variables.iter().map(|variable| {
        let mut members = Map::new();
        members.insert("name".to_owned(), json!(variable.name));
        for (key, value) in [("description", &variable.description), ("type", &variable.kind)] {
            if !value.is_empty() {
                members.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(value) = &variable.value {
            members.insert("value".to_owned(), json!(value));
        }
        Value::Object(members)
    });
    json_text(&rows.collect::<Vec<_>>())
}

fn json_text(rows: &[Value]) -> String {
    let rows = if rows.is_empty() { Value::Array(Vec::new()) } else { rows.to_vec().into() };
    format!("{}\n", escape_html(&format!("{rows:#}")))
}

/// Aligns columns with tabs, as Go's tabwriter does with cells of eight.
fn table(head: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    const TAB: usize = 8;
    let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = String::new();
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let widest = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
            (widest.unwrap_or(0) + 1).next_multiple_of(TAB)
        })
        .collect();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                let missing = widths[at] - cell.chars().count();
                out.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
        }
        out.push('\n');
    }
    out
}
