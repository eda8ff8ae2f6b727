//! Expressions: what can stand after `=`, and inside `${}`.

use crate::error::Span;
use crate::value::Value;

/// An expression and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Value),
    Tuple(Vec<Expr>),
    Object(Vec<(Expr, Expr)>),
    /// Several parts that become one string; a template of one interpolation alone is that expression.
    Template(Vec<Expr>),
    Variable(String),
    Traversal(Box<Expr>, Vec<(Step, Span)>),
    Conditional(Box<[Expr; 3]>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<[Expr; 2]>),
    Call(Call),
    For(Box<ForExpr>),
    /// Kept, because only what is not in parentheses is a keyword.
    Parenthesis(Box<Expr>),
}

/// One step of a traversal.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Attribute(String),
    Index(Expr),
    AttributeSplat,
    FullSplat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Negate,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Vec<Expr>,
    /// The last argument is a sequence of arguments.
    pub(crate) expand: bool,
}

/// `[for …]`, `{for …}` and the loops of templates.
#[derive(Clone, Debug)]
pub(crate) struct ForExpr {
    pub(crate) key_name: Option<String>,
    pub(crate) value_name: String,
    pub(crate) collection: Expr,
    /// Makes an object if there is a key.
    pub(crate) key: Option<Expr>,
    pub(crate) value: Expr,
    pub(crate) condition: Option<Expr>,
    pub(crate) group: bool,
    /// A loop of a template: the values become one string.
    pub(crate) join: bool,
}

impl Expr {
    pub(crate) fn new(kind: Kind, span: Span) -> Self {
        Self { kind, span }
    }

    /// Returns the word, if the expression is a single one.
    pub(crate) fn keyword(&self) -> Option<&str> {
        match &self.kind {
            Kind::Variable(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn literal_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Literal(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Calls `visit` with this expression and all below it.
    pub(crate) fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        visit(self);
        match &self.kind {
            Kind::Literal(_) | Kind::Variable(_) => {}
            Kind::Tuple(list) | Kind::Template(list) => list.iter().for_each(|expr| expr.walk(visit)),
            Kind::Object(members) => members.iter().for_each(|(key, value)| {
                key.walk(visit);
                value.walk(visit);
            }),
            Kind::Traversal(base, steps) => {
                base.walk(visit);
                for (step, _) in steps {
                    if let Step::Index(index) = step {
                        index.walk(visit);
                    }
                }
            }
            Kind::Conditional(parts) => parts.iter().for_each(|expr| expr.walk(visit)),
            Kind::Binary(_, parts) => parts.iter().for_each(|expr| expr.walk(visit)),
            Kind::Unary(_, inner) | Kind::Parenthesis(inner) => inner.walk(visit),
            Kind::Call(call) => call.arguments.iter().for_each(|expr| expr.walk(visit)),
            Kind::For(expr) => {
                expr.collection.walk(visit);
                expr.key.iter().for_each(|expr| expr.walk(visit));
                expr.value.walk(visit);
                expr.condition.iter().for_each(|expr| expr.walk(visit));
            }
        }
    }
}
