//! HCL texts: the parser's tree becomes ours, which says no more than evaluation needs.

use std::ops::Range;
use std::rc::Rc;

use hcl_edit::expr::{
    BinaryOperator, Expression, ForExpr as HclFor, ObjectKey, TraversalOperator, UnaryOperator,
};
use hcl_edit::structure::{Body as HclBody, Structure};
use hcl_edit::template::{Directive, Element, Strip, Template};
use hcl_edit::{Span as _, parser};

use super::tree::{Binary, Call, Expr, ForExpr, Kind, Step, Unary};
use super::{Attribute, Block, Body};
use crate::error::{Problem, Result, Span};
use crate::value::{Value, parse_number};

/// Parses a file.
pub(crate) fn parse_hcl(file: usize, text: &str) -> Result<Body> {
    // A byte order mark is no part of the text.
    let (offset, stripped) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (3, rest),
        None => (0, text),
    };
    let body = parser::parse_body(stripped).map_err(|error| {
        let at = offset + error.location().offset();
        Problem::new("invalid HCL").because(error.message().trim().replace('\n', ", ")).at(Span {
            file,
            start: at,
            end: at + 1,
        })
    })?;
    Lower { file, offset, text }.body(&body)
}

/// Parses a string of a JSON file, which is a template.
pub(super) fn parse_template(file: usize, text: &str, at: Span) -> Result<Expr> {
    if !text.contains("${") && !text.contains("%{") {
        return Ok(Expr::new(Kind::Literal(Value::string(text)), at));
    }
    let template = parser::parse_template(text).map_err(|error| {
        Problem::new("invalid template").because(error.message().trim().replace('\n', ", ")).at(at)
    })?;
    // Escapes make offsets inside the string differ from those in the file: the whole string is the place.
    let lower = Lower { file, offset: 0, text };
    let mut expr = lower.template(&template, at, Literals::Read { inside: false })?;
    place_all(&mut expr, at);
    Ok(expr)
}

/// Puts an expression, and all below it, to one place.
fn place_all(expr: &mut Expr, at: Span) {
    expr.span = at;
    match &mut expr.kind {
        Kind::Literal(_) | Kind::Variable(_) => {}
        Kind::Tuple(list) | Kind::Template(list) => list.iter_mut().for_each(|expr| place_all(expr, at)),
        Kind::Object(members) => members.iter_mut().for_each(|(key, value)| {
            place_all(key, at);
            place_all(value, at);
        }),
        Kind::Traversal(base, steps) => {
            place_all(base, at);
            for (step, span) in steps {
                *span = at;
                if let Step::Index(index) = step {
                    place_all(index, at);
                }
            }
        }
        Kind::Conditional(parts) => parts.iter_mut().for_each(|expr| place_all(expr, at)),
        Kind::Binary(_, parts) => parts.iter_mut().for_each(|expr| place_all(expr, at)),
        Kind::Unary(_, inner) | Kind::Parenthesis(inner) => place_all(inner, at),
        Kind::Call(call) => call.arguments.iter_mut().for_each(|expr| place_all(expr, at)),
        Kind::For(each) => {
            let ForExpr { collection, key, value, condition, .. } = &mut **each;
            [Some(collection), key.as_mut(), Some(value), condition.as_mut()]
                .into_iter()
                .flatten()
                .for_each(|expr| place_all(expr, at));
        }
    }
}

/// How the parser leaves the literal parts of a template.
#[derive(Clone, Copy)]
enum Literals {
    /// As they are meant; but those inside the directives of a string have their escapes (`inside`).
    Read { inside: bool },
    /// With their escapes.
    Escaped,
}

impl Literals {
    fn inside(self) -> Self {
        match self {
            Self::Read { inside: false } => self,
            Self::Read { inside: true } | Self::Escaped => Self::Escaped,
        }
    }
}

/// Reads the escapes of a string.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = |from: usize, to: usize| {
            let digits = after.get(from..to)?;
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        };
        let (c, length) = match after.chars().next() {
            Some('n') => (Some('\n'), 1),
            Some('r') => (Some('\r'), 1),
            Some('t') => (Some('\t'), 1),
            Some('u') => (code(1, 5), 5),
            Some('U') => (code(1, 9), 9),
            Some(other) => (Some(other), other.len_utf8()),
            None => (None, 0),
        };
        match c {
            Some(c) => {
                out.push(c);
                rest = &after[length..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

struct Lower<'a> {
    file: usize,
    /// What was cut off the start of the text.
    offset: usize,
    text: &'a str,
}

impl Lower<'_> {
    fn span(&self, range: Option<Range<usize>>) -> Span {
        let range = range.unwrap_or_default();
        Span { file: self.file, start: self.offset + range.start, end: self.offset + range.end }
    }

    fn body(&self, body: &HclBody) -> Result<Body> {
        let mut out = Body::default();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => out.attributes.push(Attribute {
                    name: attribute.key.as_str().to_owned(),
                    value: Rc::new(self.expr(&attribute.value)?),
                    name_span: self.span(attribute.key.span()),
                }),
                Structure::Block(block) => {
                    let labels = block.labels.iter().map(|label| label.as_str().to_owned()).collect();
                    let first = self.span(block.ident.span());
                    let last = block.labels.last().map_or(first, |label| self.span(label.span()));
                    out.blocks.push(Rc::new(Block {
                        kind: block.ident.as_str().to_owned(),
                        labels,
                        body: self.body(&block.body)?,
                        span: Span { end: last.end, ..first },
                    }));
                }
            }
        }
        Ok(out)
    }

    fn exprs<'e>(&self, list: impl Iterator<Item = &'e Expression>) -> Result<Vec<Expr>> {
        list.map(|expr| self.expr(expr)).collect()
    }

    fn expr(&self, expr: &Expression) -> Result<Expr> {
        let span = self.span(expr.span());
        let kind = match expr {
            Expression::Null(_) => Kind::Literal(Value::Null),
            Expression::Bool(value) => Kind::Literal(Value::Bool(*value.value())),
            Expression::Number(number) => Kind::Literal(self.number(&number.value().to_string(), span)?),
            Expression::String(text) => Kind::Literal(Value::string(text.as_str())),
            Expression::Array(list) => Kind::Tuple(self.exprs(list.iter())?),
            Expression::Object(object) => {
                let member = |(key, value): (&ObjectKey, &hcl_edit::expr::ObjectValue)| {
                    let key = match key {
                        ObjectKey::Ident(ident) => {
                            let name = Value::string(ident.as_str());
                            Expr::new(Kind::Literal(name), self.span(ident.span()))
                        }
                        ObjectKey::Expression(expr) => match expr {
                            Expression::Variable(name) => {
                                let name = Value::string(name.as_str());
                                Expr::new(Kind::Literal(name), self.span(expr.span()))
                            }
                            expr => self.expr(expr)?,
                        },
                    };
                    Ok((key, self.expr(value.expr())?))
                };
                Kind::Object(object.iter().map(member).collect::<Result<_>>()?)
            }
            Expression::StringTemplate(template) => {
                let elements: Vec<&Element> = template.iter().collect();
                return self.elements(&elements, span, Literals::Read { inside: true });
            }
            Expression::HeredocTemplate(heredoc) => {
                let elements: Vec<&Element> = heredoc.template.iter().collect();
                return self.heredoc(&elements, span);
            }
            Expression::Parenthesis(inner) => Kind::Parenthesis(Box::new(self.expr(inner.inner())?)),
            Expression::Variable(name) => Kind::Variable(name.as_str().to_owned()),
            Expression::Conditional(conditional) => Kind::Conditional(Box::new([
                self.expr(&conditional.cond_expr)?,
                self.expr(&conditional.true_expr)?,
                self.expr(&conditional.false_expr)?,
            ])),
            Expression::FuncCall(call) => {
                let mut name: Vec<&str> = call.name.namespace.iter().map(|part| part.as_str()).collect();
                name.push(call.name.name.as_str());
                Kind::Call(Call {
                    name: name.join("::"),
                    arguments: self.exprs(call.args.iter())?,
                    expand: call.args.expand_final(),
                })
            }
            Expression::Traversal(traversal) => {
                let base = self.expr(&traversal.expr)?;
                let mut steps = Vec::new();
                for operator in &traversal.operators {
                    let at = self.span(operator.span());
                    let step = match operator.value() {
                        TraversalOperator::AttrSplat(_) => Step::AttributeSplat,
                        TraversalOperator::FullSplat(_) => Step::FullSplat,
                        TraversalOperator::GetAttr(name) => Step::Attribute(name.as_str().to_owned()),
                        TraversalOperator::Index(index) => Step::Index(self.expr(index)?),
                        TraversalOperator::LegacyIndex(index) => {
                            let index = self.number(&index.value().to_string(), at)?;
                            Step::Index(Expr::new(Kind::Literal(index), at))
                        }
                    };
                    steps.push((step, at));
                }
                Kind::Traversal(Box::new(base), steps)
            }
            Expression::UnaryOp(operation) => {
                let operator = match operation.operator.value() {
                    UnaryOperator::Neg => Unary::Negate,
                    UnaryOperator::Not => Unary::Not,
                };
                Kind::Unary(operator, Box::new(self.expr(&operation.expr)?))
            }
            Expression::BinaryOp(operation) => {
                let operator = binary(*operation.operator.value());
                let sides = [self.expr(&operation.lhs_expr)?, self.expr(&operation.rhs_expr)?];
                Kind::Binary(operator, Box::new(sides))
            }
            Expression::ForExpr(each) => Kind::For(Box::new(self.for_expr(each)?)),
        };
        Ok(Expr::new(kind, span))
    }

    /// Reads a number from the text, where it stands with all its digits.
    fn number(&self, parsed: &str, span: Span) -> Result<Value> {
        let raw = self.text.get(span.start..span.end).map(str::trim).unwrap_or_default();
        let number = parse_number(raw).or_else(|| parse_number(parsed));
        Ok(number.map(Value::Number).ok_or_else(|| Problem::new("the number is out of range").at(span))?)
    }

    fn for_expr(&self, each: &HclFor) -> Result<ForExpr> {
        Ok(ForExpr {
            key_name: each.intro.key_var.as_ref().map(|name| name.as_str().to_owned()),
            value_name: each.intro.value_var.as_str().to_owned(),
            collection: self.expr(&each.intro.collection_expr)?,
            key: each.key_expr.as_ref().map(|expr| self.expr(expr)).transpose()?,
            value: self.expr(&each.value_expr)?,
            condition: each.cond.as_ref().map(|condition| self.expr(&condition.expr)).transpose()?,
            group: each.grouping,
            join: false,
        })
    }

    fn template(&self, template: &Template, span: Span, literals: Literals) -> Result<Expr> {
        let elements: Vec<&Element> = template.iter().collect();
        self.elements(&elements, span, literals)
    }

    /// Makes a heredoc's template; unlike a string's, a lone interpolation stays a string.
    fn heredoc(&self, elements: &[&Element], span: Span) -> Result<Expr> {
        let expr = self.elements(elements, span, Literals::Read { inside: false })?;
        Ok(match expr.kind {
            Kind::Literal(_) | Kind::Template(_) => expr,
            _ => Expr::new(Kind::Template(vec![expr]), span),
        })
    }

    fn elements(&self, elements: &[&Element], span: Span, literals: Literals) -> Result<Expr> {
        let mut parts: Vec<Expr> = Vec::new();
        let mut strip_next = false;
        for (at, element) in elements.iter().enumerate() {
            match element {
                Element::Literal(text) => {
                    let unescaped;
                    let mut text = text.value().as_str();
                    if matches!(literals, Literals::Escaped) {
                        unescaped = unescape(text);
                        text = &unescaped;
                    }
                    if strip_next {
                        text = text.trim_start();
                    }
                    if elements.get(at + 1).is_some_and(|next| strips_before(next)) {
                        text = text.trim_end();
                    }
                    strip_next = false;
                    let at = self.span(element.span());
                    parts.push(Expr::new(Kind::Literal(Value::string(text)), at));
                }
                Element::Interpolation(interpolation) => {
                    strip_next = after(interpolation.strip);
                    parts.push(self.expr(&interpolation.expr)?);
                }
                Element::Directive(directive) => {
                    let (expr, strip) = self.directive(directive, span, literals)?;
                    strip_next = strip;
                    parts.push(expr);
                }
            }
        }
        let lone = matches!(elements, [Element::Interpolation(_)]);
        match (parts.len(), parts.pop()) {
            (0, _) => Ok(Expr::new(Kind::Literal(Value::string("")), span)),
            (1, Some(only)) if lone || matches!(only.kind, Kind::Literal(_)) => Ok(Expr { span, ..only }),
            (_, last) => {
                parts.extend(last);
                Ok(Expr::new(Kind::Template(parts), span))
            }
        }
    }

    /// Makes an `if` or a `for` of a template; tells whether white space after it goes.
    fn directive(&self, directive: &Directive, span: Span, literals: Literals) -> Result<(Expr, bool)> {
        let literals = literals.inside();
        match directive {
            Directive::If(branches) => {
                let first = &branches.if_expr;
                let end = branches.endif_expr.strip;
                let (middle, otherwise) = match &branches.else_expr {
                    Some(branch) => {
                        let text =
                            self.inner(&branch.template, (after(branch.strip), before(end)), span, literals)?;
                        (branch.strip, text)
                    }
                    None => (end, Expr::new(Kind::Literal(Value::string("")), span)),
                };
                let then =
                    self.inner(&first.template, (after(first.strip), before(middle)), span, literals)?;
                let condition = self.expr(&first.cond_expr)?;
                let expr = Kind::Conditional(Box::new([condition, then, otherwise]));
                Ok((Expr::new(expr, span), after(end)))
            }
            Directive::For(each) => {
                let (first, end) = (&each.for_expr, each.endfor_expr.strip);
                let expr = ForExpr {
                    key_name: first.key_var.as_ref().map(|name| name.as_str().to_owned()),
                    value_name: first.value_var.as_str().to_owned(),
                    collection: self.expr(&first.collection_expr)?,
                    key: None,
                    value: self.inner(&first.template, (after(first.strip), before(end)), span, literals)?,
                    condition: None,
                    group: false,
                    join: true,
                };
                Ok((Expr::new(Kind::For(Box::new(expr)), span), after(end)))
            }
        }
    }

    /// Makes the template inside a directive, which is always a string.
    fn inner(
        &self,
        template: &Template,
        (start, end): (bool, bool),
        span: Span,
        literals: Literals,
    ) -> Result<Expr> {
        let mut expr = self.template(template, span, literals)?;
        let trim = |expr: &mut Expr, start: bool, end: bool| {
            if let Kind::Literal(Value::String(text)) = &mut expr.kind {
                let mut trimmed = text.as_str();
                if start {
                    trimmed = trimmed.trim_start();
                }
                if end {
                    trimmed = trimmed.trim_end();
                }
                *text = trimmed.to_owned();
            }
        };
        match &mut expr.kind {
            Kind::Template(parts) => {
                if let Some(first) = parts.first_mut() {
                    trim(first, start, false);
                }
                if let Some(last) = parts.last_mut() {
                    trim(last, false, end);
                }
                Ok(expr)
            }
            Kind::Literal(_) => {
                trim(&mut expr, start, end);
                Ok(expr)
            }
            _ => Ok(Expr::new(Kind::Template(vec![expr]), span)),
        }
    }
}

fn strips_before(element: &Element) -> bool {
    match element {
        Element::Literal(_) => false,
        Element::Interpolation(interpolation) => before(interpolation.strip),
        Element::Directive(directive) => match &**directive {
            Directive::If(branches) => before(branches.if_expr.strip),
            Directive::For(each) => before(each.for_expr.strip),
        },
    }
}

fn before(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn after(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}

fn binary(operator: BinaryOperator) -> Binary {
    match operator {
        BinaryOperator::Or => Binary::Or,
        BinaryOperator::And => Binary::And,
        BinaryOperator::Eq => Binary::Equal,
        BinaryOperator::NotEq => Binary::NotEqual,
        BinaryOperator::Greater => Binary::Greater,
        BinaryOperator::GreaterEq => Binary::GreaterOrEqual,
        BinaryOperator::Less => Binary::Less,
        BinaryOperator::LessEq => Binary::LessOrEqual,
        BinaryOperator::Plus => Binary::Add,
        BinaryOperator::Minus => Binary::Subtract,
        BinaryOperator::Mul => Binary::Multiply,
        BinaryOperator::Div => Binary::Divide,
        BinaryOperator::Mod => Binary::Modulo,
    }
}
