//! `function` blocks.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{BlockKind, Evaluator};
use crate::error::{Problem, Result};
use crate::eval::UserFunction;
use crate::functions as library;
use crate::syntax::{Block, Expr, Kind};

/// A function, or a mark that it is being read.
pub(super) enum FunctionState {
    InProgress,
    Done(Rc<UserFunction>),
}

impl Evaluator<'_> {
    /// Returns a function of the files; what its result needs exists, and is not the function itself.
    pub(super) fn user_function(&self, name: &str) -> Result<Rc<UserFunction>> {
        match self.resolved_functions.borrow().get(name) {
            Some(FunctionState::Done(function)) => return Ok(function.clone()),
            Some(FunctionState::InProgress) => {
                let span = self.functions.get(name).map(|block| block.span).unwrap_or_default();
                return Err(Problem::new(format!("function cycle not allowed for `{name}`")).at(span).into());
            }
            None => {}
        }
        let Some(block) = self.functions.get(name) else {
            return Err(Problem::new(format!("function `{name}` does not exist")).into());
        };
        self.resolved_functions.borrow_mut().insert(name.to_owned(), FunctionState::InProgress);
        let function = self.read_function(name, block);
        let mut resolved = self.resolved_functions.borrow_mut();
        match &function {
            Ok(function) => resolved.insert(name.to_owned(), FunctionState::Done(function.clone())),
            // Whoever asks again shall hear the same.
            Err(_) => resolved.remove(name),
        };
        function
    }

    fn read_function(&self, name: &str, block: &Block) -> Result<Rc<UserFunction>> {
        self.note_unknown(block, &["params", "variadic_params", "result"]);
        let missing = |what: &str, example: &str| {
            Problem::new(format!("the function `{name}` has no `{what}`"))
                .hint(format!("add `{what} = {example}`"))
                .at(block.span)
        };
        let result = block.body.attribute("result").ok_or_else(|| missing("result", "\"…\""))?;
        let params = block.body.attribute("params").ok_or_else(|| missing("params", "[a, b]"))?;
        let Kind::Tuple(list) = &params.value.kind else {
            return Err(Problem::new("`params` must be a list of names").at(params.value.span).into());
        };
        let parameters: Vec<String> = list.iter().map(parameter).collect::<Result<_>>()?;
        let variadic = match block.body.attribute("variadic_params") {
            Some(attribute) => Some(parameter(&attribute.value)?),
            None => None,
        };
        let function = UserFunction { parameters, variadic, result: result.value.clone() };
        self.check_names(&function)?;
        Ok(Rc::new(function))
    }

    /// Checks that everything a function's result names is there.
    fn check_names(&self, function: &UserFunction) -> Result<()> {
        let mut locals: BTreeSet<&str> =
            function.parameters.iter().chain(&function.variadic).map(String::as_str).collect();
        let (mut variables, mut calls) = (Vec::new(), Vec::new());
        function.result.walk(&mut |expr| match &expr.kind {
            Kind::Variable(name) => variables.push((name.as_str(), expr.span)),
            Kind::Call(call) => calls.push((call.name.as_str(), expr.span)),
            Kind::For(each) => {
                locals.insert(&each.value_name);
                locals.extend(each.key_name.as_deref());
            }
            _ => {}
        });
        for (name, span) in calls {
            if library::exists(name) {
                continue;
            }
            if !self.functions.contains_key(name) {
                let own = self.functions.keys().map(String::as_str);
                return Err(Problem::new(format!("there is no function named `{name}`"))
                    .meant(name, library::names().chain(own))
                    .at(span)
                    .into());
            }
            self.user_function(name).map_err(|problems| problems.at(span))?;
        }
        for (name, span) in variables {
            if locals.contains(name) || BlockKind::of(name).is_some() {
                continue;
            }
            if self.resolve_variable(name).map_err(|problems| problems.at(span))?.is_none() {
                let known = locals.iter().copied().chain(self.variables.keys().map(String::as_str));
                return Err(Problem::new(format!("there is no variable named `{name}`"))
                    .meant(name, known)
                    .at(span)
                    .into());
            }
        }
        Ok(())
    }
}

/// Reads the name of a parameter: a word, or in JSON a string.
fn parameter(expr: &Expr) -> Result<String> {
    match expr.keyword().or(expr.literal_text()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(Problem::new("each parameter must be a name").at(expr.span).into()),
    }
}
