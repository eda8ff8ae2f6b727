//! `--call=outline`.

use serde::Serialize;

use super::table::{row, table};
use super::{Location, encoded, json};
use crate::convert::{Converter, Failure, Purpose};
use crate::{ConvertOptions, ImageResolver, Lines, SourceFile};

/// Tells what a target can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outline {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineSecret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineSsh>,
    /// The files, in base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// A build argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    pub location: Location,
}

/// A secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutlineSecret {
    pub name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    pub location: Location,
}

/// An ssh agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutlineSsh {
    pub name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    pub location: Location,
}

/// Tells what the target, or the last stage, can be given.
pub async fn outline(
    source: &SourceFile,
    options: &ConvertOptions,
    resolver: &dyn ImageResolver,
) -> Result<Outline, Failure> {
    let info = source.info();
    let fail = |problems: Vec<crate::problem::Problem>, warnings| Failure {
        diagnostics: problems.into_iter().map(|problem| problem.into_diagnostic(&info)).collect(),
        warnings,
    };
    let mut converter = Converter::new(source, options, resolver, Purpose::Outline)
        .map_err(|(problems, warnings)| fail(problems, warnings))?;
    let target = match converter.run().await {
        Ok(target) => target,
        Err(problems) => return Err(fail(problems, converter.into_warnings())),
    };
    let stage = &converter.stages[target];
    let notes = converter.outline_notes(target);
    let mut args: Vec<(Lines, OutlineArg)> = notes
        .arguments
        .into_values()
        .map(|note| {
            let arg = OutlineArg {
                name: note.definition.name,
                description: note.definition.description.unwrap_or_default(),
                value: note.value,
                location: Location::of(note.lines),
            };
            (note.lines, arg)
        })
        .collect();
    args.sort_by_key(|(lines, _)| lines.start);
    let mut secrets: Vec<_> = notes.secrets.into_iter().collect();
    secrets.sort_by_key(|(_, note)| note.lines.start);
    let mut ssh: Vec<_> = notes.ssh.into_iter().collect();
    ssh.sort_by_key(|(_, note)| note.lines.start);
    Ok(Outline {
        name: stage.name.clone().unwrap_or_default(),
        description: stage.description.clone().unwrap_or_default(),
        args: args.into_iter().map(|(_, arg)| arg).collect(),
        secrets: secrets
            .into_iter()
            .map(|(name, note)| OutlineSecret {
                name,
                required: note.required,
                location: Location::of(note.lines),
            })
            .collect(),
        ssh: ssh
            .into_iter()
            .map(|(name, note)| OutlineSsh {
                name,
                required: note.required,
                location: Location::of(note.lines),
            })
            .collect(),
        sources: vec![encoded(&source.data)],
    })
}

impl Outline {
    /// Returns the JSON form.
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// Returns the form for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut section = |rows: Vec<Vec<String>>, padding| {
            text.push_str(&table(&rows, padding));
            text.push('\n');
        };
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![row(["TARGET:", name])];
            if !self.description.is_empty() {
                rows.push(row(["DESCRIPTION:", &self.description]));
            }
            section(rows, 1);
        }
        if !self.args.is_empty() {
            let mut rows = vec![row(["BUILD ARG", "VALUE", "DESCRIPTION"])];
            rows.extend(self.args.iter().map(|arg| row([&arg.name, &arg.value, &arg.description])));
            section(rows, 3);
        }
        let truth = |required| if required { "true" } else { "" };
        if !self.secrets.is_empty() {
            let mut rows = vec![row(["SECRET", "REQUIRED"])];
            rows.extend(self.secrets.iter().map(|secret| row([&secret.name, truth(secret.required)])));
            section(rows, 3);
        }
        if !self.ssh.is_empty() {
            let mut rows = vec![row(["SSH", "REQUIRED"])];
            rows.extend(self.ssh.iter().map(|agent| row([&agent.name, truth(agent.required)])));
            section(rows, 3);
        }
        text
    }
}
