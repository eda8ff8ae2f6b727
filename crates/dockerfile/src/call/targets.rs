//! `--call=targets`.

use serde::Serialize;
use slipway_model::Diagnostic;

use super::table::{row, table};
use super::{Location, encoded, json};
use crate::{SourceFile, parse};

/// Lists the stages of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TargetList {
    pub targets: Vec<Target>,
    /// The files, in base64.
    pub sources: Vec<String>,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    pub location: Location,
}

/// Lists the stages that can be built.
pub fn targets(source: &SourceFile) -> Result<TargetList, Vec<Diagnostic>> {
    let document = parse(source)?;
    let last = document.stages.len().saturating_sub(1);
    let targets = document.stages.iter().enumerate().map(|(index, stage)| {
        let from = stage.from.as_from().cloned().unwrap_or_default();
        Target {
            name: from.name.unwrap_or_default(),
            default: index == last,
            description: from.description.unwrap_or_default(),
            base: from.base,
            platform: from.platform.unwrap_or_default(),
            location: Location::of(stage.from.lines),
        }
    });
    Ok(TargetList { targets: targets.collect(), sources: vec![encoded(&source.data)] })
}

impl TargetList {
    /// Returns the JSON form.
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// Returns the form for people.
    pub fn to_text(&self) -> String {
        let mut rows = vec![row(["TARGET", "DESCRIPTION"])];
        rows.extend(self.targets.iter().map(|target| {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            vec![name, target.description.clone()]
        }));
        table(&rows, 1)
    }
}
