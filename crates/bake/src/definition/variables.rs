//! `variable` blocks and top-level attributes: defaults, types, overrides, validation.

use bigdecimal::BigDecimal;
use slipway_model::{csv, parse_bool};

use super::{Evaluator, State, VariableInfo, type_constraint};
use crate::error::{Problem, Result, all, fail};
use crate::syntax::Block;
use crate::value::{Members, Type, Value, convert, from_float, json};

/// A value from outside the files.
struct Override {
    text: String,
    json: bool,
}

impl Evaluator<'_> {
    /// Returns a variable or an attribute; `None` if there is neither.
    pub(super) fn resolve_variable(&self, name: &str) -> Result<Option<Value>> {
        if let Some(value) = self.builtins.get(name) {
            return Ok(Some(Value::string(value)));
        }
        let attribute = self.attributes.get(name);
        let block = self.variables.get(name);
        let span = attribute.map(|attribute| attribute.name_span).or(block.map(|block| block.span));
        let Some(span) = span else { return Ok(None) };
        match self.values.borrow().get(name) {
            Some(State::Done(value)) => return Ok(Some(value.clone())),
            Some(State::InProgress) => {
                return Err(Problem::new(format!("variable cycle not allowed for `{name}`")).at(span).into());
            }
            None => {}
        }
        self.values.borrow_mut().insert(name.to_owned(), State::InProgress);
        let value = self.deeper(Some(span), || self.compute(name)).map_err(|problems| {
            // Whoever asks again shall hear the same.
            self.values.borrow_mut().remove(name);
            problems.at(span)
        })?;
        self.values.borrow_mut().insert(name.to_owned(), State::Done(value.clone()));
        Ok(Some(value))
    }

    fn compute(&self, name: &str) -> Result<Value> {
        let block = self.variables.get(name);
        let (default, kind) = match (self.attributes.get(name), block) {
            (Some(attribute), _) => (Some(attribute.value.clone()), None),
            (None, Some(block)) => {
                self.note_unknown(block, &["type", "default", "description"]);
                let default = block.body.attribute("default").map(|attribute| attribute.value.clone());
                (default, constraint(block)?)
            }
            (None, None) => return fail(format!("variable `{name}` does not exist")),
        };
        let given = block.and_then(|_| self.given(name, kind.is_some()));
        let value = match &default {
            None => None,
            Some(expr) => {
                let value = self.eval(expr)?;
                let kind = kind.as_ref().unwrap_or(&Type::Any);
                Some(convert(&value, kind).map_err(|error| {
                    Problem::new(format!("invalid type for the default value of the variable `{name}`"))
                        .because(error.to_string())
                        .hint(format!("its type is {}", kind.friendly_constraint()))
                        .at(expr.span)
                })?)
            }
        };
        match (given, value, kind) {
            (None, Some(value), _) => Ok(value),
            (None, None, Some(_)) => Ok(Value::Null),
            (None, None, None) => Ok(Value::string("")),
            (Some(given), value, kind) => given_value(name, &given, value.as_ref(), kind.as_ref()),
        }
    }

    /// Looks for a value in `--var` and the environment, for typed variables as JSON first.
    fn given(&self, name: &str, typed: bool) -> Option<Override> {
        let plain = self.around.lookup(name);
        if plain.is_none() || typed {
            let json_name = format!("{name}_JSON");
            let taken = self.variables.contains_key(&json_name) || self.builtins.contains_key(&json_name);
            if !taken && let Some(text) = self.around.lookup(&json_name) {
                return Some(Override { text: text.to_owned(), json: true });
            }
        }
        plain.map(|text| Override { text: text.to_owned(), json: false })
    }

    /// Describes a variable for `--list`.
    pub(super) fn variable_info(&self, name: &str) -> Result<VariableInfo> {
        let value = self.resolve_variable(name)?.unwrap_or(Value::Null);
        let Some(block) = self.variables.get(name) else { return fail("the variable is gone") };
        let description = match block.body.attribute("description") {
            Some(attribute) => self.eval(&attribute.value)?.to_text().unwrap_or_default(),
            None => String::new(),
        };
        let kind = constraint(block)?;
        let text = match (&value, &kind) {
            (Value::Null, _) => None,
            (value, Some(Type::String)) => Some(json::encode(value).trim_matches('"').to_owned()),
            (value, Some(_)) => Some(json::encode(value)),
            (value, None) => Some(value.to_text().unwrap_or_else(|| json::encode(value))),
        };
        Ok(VariableInfo {
            name: name.to_owned(),
            description,
            kind: kind.map(|kind| kind.friendly_constraint()).unwrap_or_default(),
            value: text,
        })
    }

    /// Checks the conditions of a variable.
    pub(super) fn validate(&self, block: &Block) -> Result<()> {
        let rules = block.body.blocks.iter().filter(|inner| inner.kind == "validation");
        all(rules.map(|rule| self.check(rule))).map(drop)
    }

    fn check(&self, rule: &Block) -> Result<()> {
        let attribute = |name: &str| {
            rule.body
                .attribute(name)
                .ok_or_else(|| Problem::new(format!("a `validation` block needs `{name}`")).at(rule.span))
        };
        let (condition, message) = (attribute("condition")?, attribute("error_message")?);
        let place = condition.value.span;
        let result = self.eval(&condition.value)?;
        let invalid = |reason: String| Problem::new("invalid condition result").because(reason).at(place);
        if result.is_null() {
            return Err(invalid("it must be either true or false, not null".to_owned()).into());
        }
        let result = convert(&result, &Type::Bool).map_err(|error| invalid(error.to_string()))?;
        if matches!(result, Value::Bool(true)) {
            return Ok(());
        }
        let text = self.eval(&message.value)?.to_text();
        let text = text.unwrap_or_else(|| "this check failed, but has an invalid error message".to_owned());
        Err(Problem::new("validation failed").because(text).at(place).into())
    }
}

/// Returns the type that a variable's block asks for.
fn constraint(block: &Block) -> Result<Option<Type>> {
    match block.body.attribute("type") {
        Some(attribute) => type_constraint(&attribute.value).map(Some),
        None => Ok(None),
    }
}

/// Reads a value from outside as the type of the variable, or of its default.
fn given_value(name: &str, given: &Override, default: Option<&Value>, kind: Option<&Type>) -> Result<Value> {
    let text = given.text.as_str();
    let unsupported = |kind: &str| {
        Problem::new(format!("unsupported type {kind} for the variable `{name}` from outside"))
            .hint(format!("give the value as JSON: `{name}_JSON='…'`, and the variable a `type`"))
    };
    match kind {
        Some(kind) if given.json => json::decode_as(text, kind).map_err(|error| {
            Problem::new(format!("failed to convert variable `{name}` from JSON")).because(error).into()
        }),
        Some(Type::Any) => Ok(match default {
            Some(value) if value.to_text().is_some() => primitive(name, text, &Type::of(value))?,
            _ => Value::string(text),
        }),
        Some(Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_)) => {
            from_csv(name, text, kind.unwrap_or(&Type::Any))
        }
        Some(kind) if kind.is_primitive() => primitive(name, text, kind),
        Some(kind) => Err(unsupported(&kind.friendly()).into()),
        None => match default {
            None | Some(Value::Null) => Ok(Value::string(text)),
            Some(value) if value.to_text().is_some() => primitive(name, text, &Type::of(value)),
            Some(value) => Err(unsupported(value.type_name()).into()),
        },
    }
}

/// Reads one primitive.
fn primitive(name: &str, text: &str, kind: &Type) -> Result<Value> {
    match kind {
        Type::Bool => match parse_bool(text) {
            Some(value) => Ok(Value::Bool(value)),
            None => Err(Problem::new(format!("failed to parse `{name}` as bool"))
                .because(format!("the value is `{text}`"))
                .hint("write `true` or `false`")
                .into()),
        },
        Type::Number => number(text).map(Value::Number).ok_or_else(|| {
            Problem::new(format!("failed to parse `{name}` as number"))
                .because(format!("the value is `{text}`"))
                .into()
        }),
        _ => Ok(Value::string(text)),
    }
}

/// Reads a number as the reference does: through a float.
fn number(text: &str) -> Option<BigDecimal> {
    let float: f64 = text.trim().parse().ok()?;
    float.is_finite().then(|| from_float(float))?
}

fn from_csv(name: &str, text: &str, kind: &Type) -> Result<Value> {
    let invalid = |reason: String| {
        Problem::new(format!("failed to read the variable `{name}` from `{text}`")).because(reason)
    };
    let fields = if text.is_empty() {
        Vec::new()
    } else {
        csv::fields(text).map_err(|reason| invalid(reason.to_string()))?
    };
    let simple = |kind: &Type| {
        if kind.is_primitive() {
            return Ok(());
        }
        Err(invalid(format!("elements of type {} cannot be given as CSV", kind.friendly()))
            .hint(format!("give the value as JSON: `{name}_JSON='…'`")))
    };
    let element = |field: &str, kind: &Type| {
        primitive(name, field, kind)
            .map_err(|problems| invalid(format!("failed to parse element: {problems}")))
    };
    match kind {
        Type::List(inner) | Type::Set(inner) => {
            simple(inner)?;
            let values = fields.iter().map(|field| element(field, inner)).collect::<Result<Vec<_>, _>>()?;
            Ok(if matches!(kind, Type::Set(_)) { Value::set(values) } else { Value::List(values) })
        }
        Type::Tuple(kinds) => {
            if kinds.len() != fields.len() {
                let (want, have) = (kinds.len(), fields.len());
                return Err(invalid(format!("tuple expects {want} elements but only {have} provided")).into());
            }
            kinds.iter().try_for_each(simple)?;
            let values = fields.iter().zip(kinds).map(|(field, kind)| element(field, kind));
            Ok(Value::Tuple(values.collect::<Result<Vec<_>, _>>()?))
        }
        Type::Map(inner) => {
            simple(inner)?;
            let mut members = Members::new();
            for field in &fields {
                let (key, value) = field
                    .split_once(':')
                    .ok_or_else(|| invalid(format!("expected one key:value pair, not `{field}`")))?;
                members.insert(key.to_owned(), element(value, inner)?);
            }
            Ok(Value::Map(members))
        }
        other => fail(format!("unsupported type {} for the variable `{name}`", other.friendly())),
    }
}
