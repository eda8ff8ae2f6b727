//! What modules read of the input, by their text.
//!
//! The evaluator cannot be asked which fields an evaluation has looked at, but it tells which lines it has been to. A
//! reference in such a line may have been looked at; so more may be asked for than decides. A field of
//! something that is not called `input` (the argument of a function, a variable) goes by its name alone, and so does a
//! text that is the name of a field. What takes the whole of `input.image` apart names no field, and asks for none.

use std::collections::BTreeSet;

use regorus::coverage::Report;
use regorus::unstable::{Expr, Literal, Module, Query, Ref, Rule, RuleAssign, RuleHead};

/// A reference in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    file: String,
    line: u32,
    /// The names that it is made of, up to the first that is not constant.
    pub(crate) path: Vec<String>,
}

impl Read {
    /// Returns the path below `input`.
    pub(crate) fn of_input(&self) -> Option<&[String]> {
        self.path.split_first().filter(|(root, _)| *root == "input").map(|(_, rest)| rest)
    }

    /// Tells whether it may be of a field of the input, as `image.labels`.
    fn may_be(&self, field: &str) -> bool {
        match self.of_input() {
            Some(path) => {
                field.split('.').zip(path).filter(|(a, b)| a == b).count() == field.split('.').count()
            }
            None => {
                let name = field.rsplit('.').next().unwrap_or(field);
                self.path.first().is_some_and(|root| root != "data")
                    && self.path.iter().skip(1).any(|part| part == name)
            }
        }
    }
}

/// Finds those of some fields that an evaluation may have read.
pub(crate) fn of_evaluation(reads: &[Read], report: &Report, fields: &[String]) -> BTreeSet<String> {
    let visited = |read: &&Read| {
        let file = report.files.iter().find(|file| file.path == read.file);
        file.is_some_and(|file| file.covered.contains(&read.line))
    };
    let visited: Vec<&Read> = reads.iter().filter(visited).collect();
    fields.iter().filter(|field| visited.iter().any(|read| read.may_be(field))).cloned().collect()
}

/// Lists the references of a module.
pub(crate) fn of_module(module: &Module) -> Vec<Read> {
    let mut walk = Walk { file: module.package.span.source.file().clone(), found: Vec::new() };
    module.policy.iter().for_each(|rule| walk.rule(rule));
    walk.found
}

/// Returns the names of a reference all of whose parts are constant.
pub(crate) fn constant_path(expression: &Expr) -> Option<Vec<String>> {
    let (path, whole) = path(expression)?;
    whole.then_some(path)
}

/// Returns the constant names that a reference begins with, and whether these are all.
fn path(expression: &Expr) -> Option<(Vec<String>, bool)> {
    match expression {
        Expr::Var { value, .. } => Some((vec![value.as_string().ok()?.to_string()], true)),
        Expr::RefDot { refr, field, .. } => {
            let (mut names, whole) = path(refr)?;
            if whole {
                names.push(field.1.as_string().ok()?.to_string());
            }
            Some((names, whole))
        }
        Expr::RefBrack { refr, index, .. } => {
            let (mut names, whole) = path(refr)?;
            match index.as_ref() {
                Expr::String { value, .. } | Expr::RawString { value, .. } if whole => {
                    names.push(value.as_string().ok()?.to_string());
                    Some((names, true))
                }
                _ => Some((names, false)),
            }
        }
        _ => None,
    }
}

struct Walk {
    file: String,
    found: Vec<Read>,
}

impl Walk {
    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { value, .. } => self.expression(value),
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        self.expression(refr);
                        self.assignment(assign.as_ref());
                    }
                    RuleHead::Set { key, .. } => key.iter().for_each(|key| self.expression(key)),
                    RuleHead::Func { assign, .. } => self.assignment(assign.as_ref()),
                }
                for body in bodies {
                    self.assignment(body.assign.as_ref());
                    self.query(&body.query);
                }
            }
        }
    }

    fn assignment(&mut self, assignment: Option<&RuleAssign>) {
        if let Some(assignment) = assignment {
            self.expression(&assignment.value);
        }
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().for_each(|key| self.expression(key));
                    self.expression(value);
                    self.expression(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expression(expr),
                Literal::Every { domain, query, .. } => {
                    self.expression(domain);
                    self.query(query);
                }
            }
            statement.with_mods.iter().for_each(|with| self.expression(&with.r#as));
        }
    }

    fn expressions<'a>(&mut self, expressions: impl IntoIterator<Item = &'a Ref<Expr>>) {
        expressions.into_iter().for_each(|expression| self.expression(expression));
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::Var { span, .. } => {
                if let Some((path, _)) = path(expression) {
                    self.found.push(Read { file: self.file.clone(), line: span.line, path });
                }
            }
            Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expression),
            Expr::Array { items, .. } | Expr::Set { items, .. } => self.expressions(items),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expressions([key, value]);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expression(term);
                self.query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expressions([key, value]);
                self.query(query);
            }
            Expr::Call { params, .. } => self.expressions(params),
            Expr::UnaryExpr { expr, .. } => self.expression(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => self.expressions([lhs, rhs]),
            Expr::Membership { key, value, collection, .. } => {
                self.expressions(key);
                self.expressions([value, collection]);
            }
            // It may be the name of a field, for `object.get` and its like.
            Expr::String { span, value, .. } | Expr::RawString { span, value, .. } => {
                let name = value.as_string().map(|name| name.to_string()).unwrap_or_default();
                let path = vec![String::new(), name];
                self.found.push(Read { file: self.file.clone(), line: span.line, path });
            }
            Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {}
        }
    }

    /// Notes a reference, and what is in its brackets.
    fn reference(&mut self, expression: &Expr) {
        let line = expression.span().line;
        match path(expression) {
            Some((path, _)) => self.found.push(Read { file: self.file.clone(), line, path }),
            None => {
                // Of the value of a call: only what follows can be read.
                let mut names = vec![String::new()];
                trailing(expression, &mut names);
                self.found.push(Read { file: self.file.clone(), line, path: names });
            }
        }
        let mut below = expression;
        loop {
            match below {
                Expr::RefDot { refr, .. } => below = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.expression(index);
                    below = refr;
                }
                Expr::Var { .. } => break,
                other => {
                    self.expression(other);
                    break;
                }
            }
        }
    }
}

/// Collects the constant names after the beginning of a reference that is no name.
fn trailing(expression: &Expr, names: &mut Vec<String>) {
    match expression {
        Expr::RefDot { refr, field, .. } => {
            trailing(refr, names);
            names.extend(field.1.as_string().ok().map(|name| name.to_string()));
        }
        Expr::RefBrack { refr, .. } => trailing(refr, names),
        _ => {}
    }
}
