//! Conversion of values to types, by the rules of HCL: strings, numbers and booleans where it is safe.

use std::collections::BTreeMap;

use super::types::Attribute;
use super::{Members, Type, Value, parse_number, unify};

/// Says why a value cannot become a type, and where inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    path: String,
    reason: String,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "element {path}: {}", self.reason),
        }
    }
}

fn mismatch(reason: impl Into<String>) -> Mismatch {
    Mismatch { path: String::new(), reason: reason.into() }
}

/// Converts a value.
pub(crate) fn convert(value: &Value, target: &Type) -> Result<Value, Mismatch> {
    match (value, target) {
        (Value::Null, _) => Ok(Value::Null),
        (value, Type::Any) => Ok(value.clone()),
        (Value::Bool(_), Type::Bool)
        | (Value::Number(_), Type::Number)
        | (Value::String(_), Type::String) => Ok(value.clone()),
        (Value::Number(_) | Value::Bool(_), Type::String) => {
            Ok(Value::String(value.to_text().unwrap_or_default()))
        }
        (Value::String(text), Type::Number) => {
            parse_number(text).map(Value::Number).ok_or_else(|| mismatch("a number is required"))
        }
        (Value::String(text), Type::Bool) => match text.as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(mismatch("a bool is required; to convert a string, write `true` or `false`")),
        },
        (_, Type::Bool) => Err(mismatch("a bool is required")),
        (_, Type::Number) => Err(mismatch("a number is required")),
        (_, Type::String) => Err(mismatch("a string is required")),
        (_, Type::List(element)) => to_sequence(value, element, "list").map(Value::List),
        (_, Type::Set(element)) => to_sequence(value, element, "set").map(Value::set),
        (Value::Tuple(list), Type::Tuple(types)) => to_tuple(list, types),
        (_, Type::Tuple(_)) => Err(mismatch("a tuple is required")),
        (_, Type::Map(element)) => {
            let members =
                value.members().ok_or_else(|| mismatch(format!("{} is required", map_of(element))))?;
            let element = common(element, members.values())
                .ok_or_else(|| mismatch("all elements of a map must have the same type"))?;
            convert_members(members.iter().map(|(key, value)| (key, value, &element))).map(Value::Map)
        }
        (_, Type::Object(attributes)) => {
            let members = value.members().ok_or_else(|| mismatch("an object is required"))?;
            to_object(members, attributes)
        }
    }
}

fn map_of(element: &Type) -> String {
    match element {
        Type::Any => "a map".to_owned(),
        element => format!("a map of {}", element.friendly()),
    }
}

fn to_sequence(value: &Value, element: &Type, what: &str) -> Result<Vec<Value>, Mismatch> {
    let list = value.elements().ok_or_else(|| match element {
        Type::Any => mismatch(format!("a {what} is required")),
        element => mismatch(format!("a {what} of {} is required", element.friendly())),
    })?;
    let element = common(element, list.iter())
        .ok_or_else(|| mismatch(format!("all elements of a {what} must have the same type")))?;
    list.iter().enumerate().map(|(at, value)| convert(value, &element).map_err(|e| below(e, at))).collect()
}

/// Returns the type of the elements: what is asked for, or what they have in common.
fn common<'a>(element: &Type, values: impl Iterator<Item = &'a Value>) -> Option<Type> {
    match element {
        Type::Any => unify(&values.map(Type::of).collect::<Vec<_>>()),
        element => Some(element.clone()),
    }
}

fn to_tuple(list: &[Value], types: &[Type]) -> Result<Value, Mismatch> {
    if list.len() != types.len() {
        return Err(mismatch(format!("a tuple of {} elements is required, not {}", types.len(), list.len())));
    }
    let values = list.iter().zip(types).enumerate();
    let values = values.map(|(at, (value, kind))| convert(value, kind).map_err(|e| below(e, at)));
    values.collect::<Result<_, _>>().map(Value::Tuple)
}

fn to_object(members: &Members, attributes: &BTreeMap<String, Attribute>) -> Result<Value, Mismatch> {
    let mut object = Members::new();
    for (name, attribute) in attributes {
        let value = match members.get(name) {
            Some(value) => convert(value, &attribute.kind).map_err(|error| below(error, name))?,
            None if attribute.optional => Value::Null,
            None => return Err(mismatch(format!("attribute `{name}` is required"))),
        };
        object.insert(name.clone(), value);
    }
    Ok(Value::Object(object))
}

fn convert_members<'a>(
    members: impl Iterator<Item = (&'a String, &'a Value, &'a Type)>,
) -> Result<Members, Mismatch> {
    members
        .map(|(key, value, kind)| Ok((key.clone(), convert(value, kind).map_err(|error| below(error, key))?)))
        .collect()
}

/// Adds one step to the path of a mismatch.
fn below(mut error: Mismatch, step: impl std::fmt::Display) -> Mismatch {
    error.path = format!("[{step}]{}", error.path);
    error
}
