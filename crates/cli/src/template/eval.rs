//! Runs a template over data.

use serde_json::Value;

use super::functions::{Function, is_true, kind_of, shown};
use super::parser::{Command, Expression, Node, Pipeline};
use super::{JsonStyle, TemplateError};

/// Fills the nodes in.
pub(super) fn execute(nodes: &[Node], data: &Value, json: JsonStyle) -> Result<String, TemplateError> {
    let mut run = Run { out: String::new(), variables: vec![(String::new(), data.clone())], json };
    run.nodes(nodes, data)?;
    Ok(run.out)
}

struct Run {
    out: String,
    /// Variables in scope, the innermost last; the one without a name is `$`.
    variables: Vec<(String, Value)>,
    json: JsonStyle,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        nodes.iter().try_for_each(|node| self.node(node, dot))
    }

    /// Runs nodes whose variables end with them.
    fn scope(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let depth = self.variables.len();
        let done = self.nodes(nodes, dot);
        self.variables.truncate(depth);
        done
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Output(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variable.is_none() {
                    self.out.push_str(&shown(&value));
                }
            }
            Node::If { arms, otherwise } => {
                let depth = self.variables.len();
                let mut taken = otherwise;
                for (test, body) in arms {
                    if is_true(&self.pipeline(test, dot)?) {
                        taken = body;
                        break;
                    }
                }
                self.nodes(taken, dot)?;
                self.variables.truncate(depth);
            }
            Node::With { value, body, otherwise } => {
                let depth = self.variables.len();
                let value = self.pipeline(value, dot)?;
                if is_true(&value) {
                    self.nodes(body, &value)?;
                } else {
                    self.nodes(otherwise, dot)?;
                }
                self.variables.truncate(depth);
            }
            Node::Range { key, item, over, body, otherwise } => {
                let depth = self.variables.len();
                let over = self.pipeline(over, dot)?;
                let items = items(over)?;
                if items.is_empty() {
                    self.scope(otherwise, dot)?;
                }
                for (name, value) in items {
                    self.variables.extend(key.iter().map(|key| (key.clone(), name.clone())));
                    self.variables.extend(item.iter().map(|item| (item.clone(), value.clone())));
                    self.nodes(body, &value)?;
                    self.variables.truncate(depth);
                }
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.unwrap_or_default();
        if let Some(name) = &pipeline.variable {
            self.variables.push((name.clone(), value.clone()));
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        match command {
            Command::Value(expression) => self.expression(expression, dot),
            Command::Call(function, arguments) => {
                let mut values = arguments
                    .iter()
                    .map(|argument| self.expression(argument, dot))
                    .collect::<Result<Vec<_>, _>>()?;
                values.extend(piped);
                function.call(values, self.json)
            }
        }
    }

    fn expression(&mut self, expression: &Expression, dot: &Value) -> Result<Value, TemplateError> {
        match expression {
            Expression::Literal(value) => Ok(value.clone()),
            Expression::Dot => Ok(dot.clone()),
            Expression::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found
                    .map(|(_, value)| value.clone())
                    .ok_or_else(|| TemplateError::UnknownVariable(format!("${name}")))
            }
            Expression::Pipeline(pipeline) => self.pipeline(pipeline, dot),
            Expression::Call(function) => Function::call(*function, Vec::new(), self.json),
            Expression::Field(of, name) => {
                let of = self.expression(of, dot)?;
                field(&of, name)
            }
        }
    }
}

/// Looks a field up; what is missing is null, as in a map of Go.
fn field(of: &Value, name: &str) -> Result<Value, TemplateError> {
    match of {
        Value::Object(map) => {
            let exact = map.get(name);
            let found = exact.or_else(|| {
                map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            });
            Ok(found.cloned().unwrap_or_default())
        }
        Value::Null => Ok(Value::Null),
        other => Err(TemplateError::NoField { field: name.to_owned(), kind: kind_of(other) }),
    }
}

fn items(over: Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    match over {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list.into_iter().enumerate().map(|(at, v)| (at.into(), v)).collect()),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
        }
        other => {
            let reason = format!("cannot go over {}", kind_of(&other));
            Err(TemplateError::Function { function: "range".into(), reason })
        }
    }
}
