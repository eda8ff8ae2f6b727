//! One evaluation: a query, a document, and what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use regorus::Engine;
use serde_json::Value;
use slipway_model::Diagnostic;

use crate::functions::{Call, Left};
use crate::modules::Modules;
use crate::{reads, wrong};

/// What came of an evaluation.
pub(crate) struct Evaluated {
    /// `None` if the query has no value.
    pub(crate) value: Option<Value>,
    /// What the modules have printed.
    pub(crate) printed: Vec<String>,
    /// Fields that were looked at and are not known.
    pub(crate) missing: BTreeSet<String>,
    pub(crate) left: Left,
}

impl Modules {
    /// Evaluates an expression that depends on nothing.
    pub(crate) fn constant(&self, text: &str) -> Result<Value, Diagnostic> {
        let results =
            Engine::new().eval_query(text.to_owned(), false).map_err(|error| self.explain(&error))?;
        let value =
            results.result.into_iter().next().and_then(|result| result.expressions.into_iter().next());
        let value = value.ok_or_else(|| wrong(format!("`{text}` has no value")))?;
        json(value.value)
    }

    /// Evaluates a query; `unknown` are the fields that the document lacks because nobody has asked.
    pub(crate) fn evaluate(
        &self,
        query: &str,
        document: &Value,
        unknown: &[String],
        call: &Arc<Call>,
    ) -> Result<Evaluated, Diagnostic> {
        let mut engine = self.engine.clone();
        call.register(&mut engine).map_err(|error| wrong("cannot evaluate the policy").cause(error))?;
        engine.set_input(document.clone().into());
        engine.clear_coverage_data();
        let results = engine.eval_query(query.to_owned(), false).map_err(|error| self.explain(&error))?;
        let value =
            results.result.into_iter().next().and_then(|result| result.expressions.into_iter().next());
        let value =
            value.map(|expression| expression.value).filter(|value| *value != regorus::Value::Undefined);
        let value = value.map(json).transpose()?;
        let report = engine.get_coverage_report().map_err(|error| self.explain(&error))?;
        let mut left = call.take_left();
        let mut missing = reads::of_evaluation(&self.reads, &report, unknown);
        missing.append(&mut left.fields);
        let printed = engine.take_prints().unwrap_or_default();
        Ok(Evaluated { value, printed, missing, left })
    }
}

fn json(value: regorus::Value) -> Result<Value, Diagnostic> {
    serde_json::to_value(value)
        .map_err(|error| wrong("the policy's value is no JSON").cause(error.to_string()))
}
