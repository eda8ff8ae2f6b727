//! Evaluates expressions. Names are looked up when they are met, so what is not needed cannot fail.

use std::rc::Rc;

use bigdecimal::{BigDecimal, Zero as _};

use crate::error::{Problem, Result, Span, all, fail};
use crate::functions;
use crate::syntax::{Binary, Call, Expr, ForExpr, Kind, Step, Unary};
use crate::value::{Members, Type, Value, convert, unify};

/// What names mean outside an expression.
pub(crate) trait Scope {
    /// Returns a variable; fails if it cannot be computed, `None` if there is none.
    fn variable(&self, name: &str) -> Result<Option<Value>>;

    /// Tells whether `name` is a kind of block, as `target` is.
    fn is_block(&self, name: &str) -> bool;

    /// Returns one attribute of a block, or all of them; `None` if there is no such block.
    fn block(&self, kind: &str, name: &str, attribute: Option<&str>) -> Result<Option<Value>>;

    /// Returns a function of the file.
    fn function(&self, name: &str) -> Result<Option<Rc<UserFunction>>>;

    /// Returns the home directory of who builds.
    fn home(&self) -> String;

    /// Lists the variables there are.
    fn variable_names(&self) -> Vec<String>;

    /// Lists the file's functions.
    fn function_names(&self) -> Vec<String>;

    /// Lists the names of a kind of block.
    fn block_names(&self, kind: &str) -> Vec<String>;
}

/// A `function` block.
#[derive(Debug)]
pub(crate) struct UserFunction {
    pub(crate) parameters: Vec<String>,
    pub(crate) variadic: Option<String>,
    pub(crate) result: Rc<Expr>,
}

/// Where an expression is evaluated.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    scope: &'a dyn Scope,
    locals: Option<&'a Locals<'a>>,
}

/// Names of a loop, a function or a matrix.
pub(crate) struct Locals<'a> {
    outer: Option<&'a Locals<'a>>,
    values: &'a [(String, Value)],
}

impl<'a> Env<'a> {
    /// Starts where nothing but the file is known.
    pub(crate) fn global(scope: &'a dyn Scope) -> Self {
        Self { scope, locals: None }
    }

    /// Adds names around everything that is evaluated in `locals`.
    pub(crate) fn inside(self, locals: &'a Locals<'a>) -> Self {
        Self { locals: Some(locals), ..self }
    }

    pub(crate) fn with(self, values: &'a [(String, Value)]) -> Locals<'a> {
        Locals { outer: self.locals, values }
    }

    fn local(&self, name: &str) -> Option<&'a Value> {
        let mut next = self.locals;
        while let Some(locals) = next {
            if let Some((_, value)) = locals.values.iter().find(|(known, _)| known == name) {
                return Some(value);
            }
            next = locals.outer;
        }
        None
    }

    /// Evaluates.
    pub(crate) fn eval(&self, expr: &Expr) -> Result<Value> {
        let value = match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Tuple(list) => all(list.iter().map(|expr| self.eval(expr))).map(Value::Tuple),
            Kind::Object(members) => self.object(members),
            Kind::Template(parts) => self.template(parts),
            Kind::Variable(name) => self.variable(name),
            Kind::Traversal(base, steps) => self.traversal(base, steps),
            Kind::Conditional(parts) => self.conditional(parts),
            Kind::Unary(operator, inner) => self.unary(*operator, inner),
            Kind::Binary(operator, sides) => self.binary(*operator, sides),
            Kind::Call(call) => self.call(call),
            Kind::For(each) => self.each(each),
            Kind::Parenthesis(inner) => self.eval(inner),
        };
        value.map_err(|problems| problems.at(expr.span))
    }

    /// Evaluates, and converts.
    pub(crate) fn eval_as(&self, expr: &Expr, kind: &Type) -> Result<Value> {
        let value = self.eval(expr)?;
        convert(&value, kind)
            .map_err(|error| Problem::new("unsuitable value").because(error.to_string()).at(expr.span).into())
    }

    fn variable(&self, name: &str) -> Result<Value> {
        if let Some(value) = self.local(name) {
            return Ok(value.clone());
        }
        if self.scope.is_block(name) {
            return Err(Problem::new(format!("cannot access `{name}` as a variable"))
                .hint(format!("name one of them and an attribute: `{name}.NAME.tags`"))
                .into());
        }
        if let Some(value) = self.scope.variable(name)? {
            return Ok(value);
        }
        let mut names = self.scope.variable_names();
        let mut next = self.locals;
        while let Some(locals) = next {
            names.extend(locals.values.iter().map(|(name, _)| name.clone()));
            next = locals.outer;
        }
        let problem = Problem::new(format!("there is no variable named `{name}`"));
        let problem = problem.meant(name, names.iter().map(String::as_str));
        Err(match problem.hint {
            Some(_) => problem,
            None => problem.hint(format!("define it: `variable \"{name}\" {{ default = \"…\" }}`")),
        }
        .into())
    }

    fn object(&self, members: &[(Expr, Expr)]) -> Result<Value> {
        let pairs = all(members.iter().map(|(key, value)| {
            let name = self.key(key)?;
            Ok((name, self.eval(value)?))
        }))?;
        Ok(Value::Object(pairs.into_iter().collect()))
    }

    fn key(&self, expr: &Expr) -> Result<String> {
        let value = self.eval(expr)?;
        value.to_text().ok_or_else(|| {
            Problem::new("unsuitable value")
                .because(format!("a key of an object must be a string, not {}", with_article(&value)))
                .at(expr.span)
                .into()
        })
    }

    fn template(&self, parts: &[Expr]) -> Result<Value> {
        let texts = all(parts.iter().map(|part| {
            let value = self.eval(part)?;
            value.to_text().ok_or_else(|| {
                let problem = match value {
                    Value::Null => Problem::new("the expression result is null").hint(
                        "a string cannot include null: give the variable a default, or write `X == null ? \"\" : X`",
                    ),
                    other => Problem::new("cannot include this value in a string template")
                        .because(format!("a string is required, this is {}", with_article(&other)))
                        .hint("use `join(\",\", …)` or `jsonencode(…)`"),
                };
                problem.at(part.span).into()
            })
        }))?;
        Ok(Value::String(texts.concat()))
    }

    fn conditional(&self, parts: &[Expr; 3]) -> Result<Value> {
        let [condition, yes, no] = parts;
        let chosen = self.eval(condition)?;
        if chosen.is_null() {
            return Err(Problem::new("the condition is null").at(condition.span).into());
        }
        let is_true = matches!(
            convert(&chosen, &Type::Bool).map_err(|error| {
                Problem::new("unsuitable condition").because(error.to_string()).at(condition.span)
            })?,
            Value::Bool(true)
        );
        let (branch, other) = if is_true { (yes, no) } else { (no, yes) };
        let value = self.eval(branch)?;
        // The other branch decides the type too, if it has a value at all.
        let Ok(other) = self.eval(other) else { return Ok(value) };
        match unify(&[Type::of(&value), Type::of(&other)]) {
            Some(kind) => Ok(convert(&value, &kind).unwrap_or(value)),
            None => fail(format!(
                "the two results of the condition have inconsistent types: {} and {}",
                Type::of(&value).friendly(),
                Type::of(&other).friendly()
            )),
        }
    }

    fn number(&self, expr: &Expr) -> Result<BigDecimal> {
        match self.eval_as(expr, &Type::Number)? {
            Value::Number(number) => Ok(number),
            _ => Err(Problem::new("the operand is null, a number is required").at(expr.span).into()),
        }
    }

    fn boolean(&self, expr: &Expr) -> Result<bool> {
        match self.eval_as(expr, &Type::Bool)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Problem::new("the operand is null, a bool is required").at(expr.span).into()),
        }
    }

    fn unary(&self, operator: Unary, inner: &Expr) -> Result<Value> {
        Ok(match operator {
            Unary::Negate => Value::Number(-self.number(inner)?),
            Unary::Not => Value::Bool(!self.boolean(inner)?),
        })
    }

    fn binary(&self, operator: Binary, sides: &[Expr; 2]) -> Result<Value> {
        let [left, right] = sides;
        match operator {
            Binary::Equal => return Ok(Value::Bool(self.eval(left)?.equals(&self.eval(right)?))),
            Binary::NotEqual => return Ok(Value::Bool(!self.eval(left)?.equals(&self.eval(right)?))),
            Binary::Or => {
                let (a, b) = (self.boolean(left)?, self.boolean(right)?);
                return Ok(Value::Bool(a || b));
            }
            Binary::And => {
                let (a, b) = (self.boolean(left)?, self.boolean(right)?);
                return Ok(Value::Bool(a && b));
            }
            _ => {}
        }
        let (a, b) = (self.number(left)?, self.number(right)?);
        Ok(match operator {
            Binary::Greater => Value::Bool(a > b),
            Binary::GreaterOrEqual => Value::Bool(a >= b),
            Binary::Less => Value::Bool(a < b),
            Binary::LessOrEqual => Value::Bool(a <= b),
            Binary::Add => Value::Number(a + b),
            Binary::Subtract => Value::Number(a - b),
            Binary::Multiply => Value::Number((a * b).normalized()),
            _ if b.is_zero() => {
                return Err(Problem::new("division by zero").at(right.span).into());
            }
            Binary::Divide => Value::Number((a / b).normalized()),
            _ => Value::Number(a % b),
        })
    }

    fn call(&self, call: &Call) -> Result<Value> {
        match call.name.as_str() {
            "try" => {
                let mut failed = None;
                for expr in &call.arguments {
                    match self.eval(expr) {
                        Ok(value) => return Ok(value),
                        Err(problems) => failed = Some(problems),
                    }
                }
                let why = failed.map_or_else(|| "it has no arguments".to_owned(), |last| last.to_string());
                return Err(Problem::new("no argument of `try` can be evaluated").because(why).into());
            }
            "can" => {
                let [expr] = call.arguments.as_slice() else { return fail("`can` takes one argument") };
                return Ok(Value::Bool(self.eval(expr).is_ok()));
            }
            "homedir" if call.arguments.is_empty() => return Ok(Value::String(self.scope.home())),
            "homedir" => return fail("`homedir` takes no arguments"),
            "convert" => {
                let [expr, kind] = call.arguments.as_slice() else {
                    return fail("`convert` takes a value and a type");
                };
                return self.eval_as(expr, &crate::definition::type_constraint(kind)?);
            }
            _ => {}
        }
        let mut values = all(call.arguments.iter().map(|expr| self.eval(expr)))?;
        if call.expand
            && let Some(last) = values.pop()
        {
            let list = last.elements().ok_or_else(|| {
                Problem::new(format!("cannot expand {} into arguments", with_article(&last)))
                    .hint("`...` takes a list, a tuple or a set")
            })?;
            values.extend_from_slice(list);
        }
        if let Some(function) = functions::find(&call.name) {
            let spans: Vec<Span> = call.arguments.iter().map(|expr| expr.span).collect();
            return functions::call(function, values, &spans);
        }
        match self.scope.function(&call.name)? {
            Some(function) => self.user_function(&call.name, &function, values),
            None => {
                let own = self.scope.function_names();
                let known = functions::names().chain(own.iter().map(String::as_str));
                Err(Problem::new(format!("there is no function named `{}`", call.name))
                    .meant(&call.name, known)
                    .into())
            }
        }
    }

    fn user_function(&self, name: &str, function: &UserFunction, mut values: Vec<Value>) -> Result<Value> {
        let count = function.parameters.len();
        if values.len() < count || (values.len() > count && function.variadic.is_none()) {
            let least = if function.variadic.is_some() { "at least " } else { "" };
            return fail(format!("`{name}` takes {least}{count} arguments, not {}", values.len()));
        }
        let rest = values.split_off(count);
        let mut named: Vec<(String, Value)> = function.parameters.iter().cloned().zip(values).collect();
        if let Some(variadic) = &function.variadic {
            named.push((variadic.clone(), Value::Tuple(rest)));
        }
        // A function sees its parameters and the file, not what surrounds the call.
        let outside = Env::global(self.scope);
        let locals = outside.with(&named);
        outside.inside(&locals).eval(&function.result)
    }

    fn each(&self, each: &ForExpr) -> Result<Value> {
        let collection = self.eval(&each.collection)?;
        let pairs = collection.pairs().ok_or_else(|| {
            Problem::new(match collection {
                Value::Null => "a null value cannot be the collection of a `for`".to_owned(),
                ref other => format!("cannot iterate over {}", with_article(other)),
            })
            .at(each.collection.span)
        })?;
        let (mut list, mut members) = (Vec::new(), Members::new());
        let mut groups: std::collections::BTreeMap<String, Vec<Value>> = Default::default();
        for (key, value) in pairs {
            let mut named = vec![(each.value_name.clone(), value)];
            if let Some(name) = &each.key_name {
                named.push((name.clone(), key));
            }
            let locals = self.with(&named);
            let inner = self.inside(&locals);
            if let Some(condition) = &each.condition
                && !inner.boolean(condition)?
            {
                continue;
            }
            let Some(key) = &each.key else {
                list.push(inner.eval(&each.value)?);
                continue;
            };
            let (name, value) = (inner.key(key)?, inner.eval(&each.value)?);
            if each.group {
                groups.entry(name).or_default().push(value);
            } else if members.insert(name.clone(), value).is_some() {
                return Err(Problem::new(format!("two different items produce the key `{name}`"))
                    .hint("write `...` after the value to group the values of equal keys")
                    .at(key.span)
                    .into());
            }
        }
        Ok(if each.join {
            Value::String(list.iter().map(|value| value.to_text().unwrap_or_default()).collect())
        } else if each.key.is_none() {
            Value::Tuple(list)
        } else if each.group {
            Value::Object(groups.into_iter().map(|(key, list)| (key, Value::Tuple(list))).collect())
        } else {
            Value::Object(members)
        })
    }

    fn traversal(&self, base: &Expr, steps: &[(Step, Span)]) -> Result<Value> {
        if let Kind::Variable(kind) = &base.kind
            && self.local(kind).is_none()
            && self.scope.is_block(kind)
        {
            return self.block(kind, base.span, steps);
        }
        self.steps(self.eval(base)?, steps)
    }

    /// Follows `target.NAME.ATTRIBUTE…`, computing no more of the target than the attribute.
    fn block(&self, kind: &str, span: Span, steps: &[(Step, Span)]) -> Result<Value> {
        let Some((Step::Attribute(name), at)) = steps.first() else {
            return Err(Problem::new(format!("cannot traverse `{kind}` without an attribute"))
                .hint(format!("write `{kind}.NAME`"))
                .at(span)
                .into());
        };
        let attribute = match steps.get(1) {
            Some((Step::Attribute(attribute), at)) => Some((attribute, at)),
            _ => None,
        };
        let found = self.scope.block(kind, name, attribute.map(|(name, _)| name.as_str()));
        let place = attribute.map_or(*at, |(_, at)| *at);
        let Some(value) = found.map_err(|problems| problems.at(place))? else {
            let names = self.scope.block_names(kind);
            return Err(Problem::new(format!("there is no {kind} named `{name}`"))
                .meant(name, names.iter().map(String::as_str))
                .at(*at)
                .into());
        };
        let done = if attribute.is_some() { 2 } else { 1 };
        self.steps(value, &steps[done..])
    }

    fn steps(&self, mut value: Value, steps: &[(Step, Span)]) -> Result<Value> {
        for (at, (step, span)) in steps.iter().enumerate() {
            value = match step {
                Step::Attribute(name) => attribute(&value, name).map_err(|p| p.at(*span))?,
                Step::Index(index) => {
                    let key = self.eval(index)?;
                    element(&value, &key).map_err(|problem| problem.at(*span))?
                }
                Step::AttributeSplat | Step::FullSplat => {
                    let rest = &steps[at + 1..];
                    // `.*` ends at the first index: `a.*.b[0]` is one element.
                    let inside = match step {
                        Step::AttributeSplat => {
                            let attribute = |(step, _): &(Step, Span)| matches!(step, Step::Attribute(_));
                            rest.iter().take_while(|step| attribute(step)).count()
                        }
                        _ => rest.len(),
                    };
                    let list = match value {
                        Value::Null => Vec::new(),
                        other => match other.elements() {
                            Some(list) => list.to_vec(),
                            None => vec![other],
                        },
                    };
                    let list = list.into_iter().map(|item| self.steps(item, &rest[..inside]));
                    return self.steps(Value::Tuple(all(list)?), &rest[inside..]);
                }
            };
        }
        Ok(value)
    }
}

fn attribute(value: &Value, name: &str) -> Result<Value> {
    if value.is_null() {
        return fail(format!("cannot read the attribute `{name}` of a null value"));
    }
    let members = value.members().ok_or_else(|| {
        Problem::new(format!("cannot read the attribute `{name}` of {}", with_article(value)))
    })?;
    match members.get(name) {
        Some(value) => Ok(value.clone()),
        None => Err(Problem::new(format!("there is no attribute named `{name}`"))
            .meant(name, members.keys().map(String::as_str))
            .into()),
    }
}

/// Returns one element of a collection.
pub(crate) fn element(value: &Value, key: &Value) -> Result<Value> {
    if let Some(members) = value.members() {
        let name = key.to_text().ok_or_else(|| Problem::new("the key must be a string"))?;
        return members.get(&name).cloned().ok_or_else(|| {
            Problem::new(format!("there is no element with the key `{name}`"))
                .meant(&name, members.keys().map(String::as_str))
                .into()
        });
    }
    let list = match value {
        Value::List(list) | Value::Tuple(list) => list,
        Value::Null => return fail("cannot take an element of a null value"),
        other => return fail(format!("cannot take an element of {}", with_article(other))),
    };
    let Ok(Value::Number(number)) = convert(key, &Type::Number) else {
        return fail("the index must be a number");
    };
    let index = crate::value::whole(&number).and_then(|index| usize::try_from(index).ok());
    index.and_then(|index| list.get(index)).cloned().ok_or_else(|| {
        let number = crate::value::number_text(&number);
        Problem::new(format!("there is no element {number}: the sequence has {}", list.len())).into()
    })
}

/// Names a value's type with its article.
pub(crate) fn with_article(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}
