//! The part of Go's `text/template` that people use in `--format`.
//!
//! Text, `{{- … -}}`, comments, field chains, variables, pipelines, `if`/`else if`/`else`, `range`, `with`,
//! and the functions of Go and of Docker's formatter. Values are JSON; a field is found by its JSON name
//! or, as Go's names differ only in case, without regard to case. There are no sub-templates.

mod eval;
mod functions;
mod lexer;
mod parser;

use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parser::Node>,
    json: JsonStyle,
}

/// How `json` writes: the reference's commands differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonStyle {
    Compact,
    Indented,
}

/// Says what is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("template: unclosed action: `{{{{` without `}}}}`")]
    Unclosed,
    #[error("template: unexpected `{found}` in `{action}`")]
    Unexpected { found: String, action: String },
    #[error("template: `{0}` without `{{{{end}}}}`")]
    NoEnd(String),
    #[error("template: unknown function `{0}`")]
    UnknownFunction(String),
    #[error("template: undefined variable `{0}`")]
    UnknownVariable(String),
    #[error("template: cannot look for field `{field}` in {kind}")]
    NoField { field: String, kind: &'static str },
    #[error("template: `{function}`: {reason}")]
    Function { function: String, reason: String },
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str, json: JsonStyle) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parser::parse(lexer::split(text)?)?, json })
    }

    /// Fills the template in.
    pub(crate) fn execute(&self, data: &Value) -> Result<String, TemplateError> {
        eval::execute(&self.nodes, data, self.json)
    }
}

#[cfg(test)]
mod tests;
