//! Values of HCL's expression language, with the types that bake's functions tell apart.
//!
//! Unknown and marked values do not exist here: everything is known when a bake file is read. A null has
//! no type; numbers are decimal and exact.

mod convert;
pub(crate) mod json;
mod types;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bigdecimal::{BigDecimal, ToPrimitive as _};

pub(crate) use convert::convert;
pub(crate) use types::{Attribute, Type, unify};

/// The elements of a map or an object, in the order in which they are iterated.
pub(crate) type Members = BTreeMap<String, Value>;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(BigDecimal),
    String(String),
    /// A sequence whose elements have one type.
    List(Vec<Value>),
    /// A sequence whose elements have types of their own.
    Tuple(Vec<Value>),
    /// Sorted, without duplicates.
    Set(Vec<Value>),
    Map(Members),
    Object(Members),
}

impl Value {
    pub(crate) fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn integer(number: impl Into<i64>) -> Self {
        Self::Number(BigDecimal::from(number.into()))
    }

    pub(crate) fn length_of(count: usize) -> Self {
        Self::Number(BigDecimal::from(count as u64))
    }

    pub(crate) fn strings(list: impl IntoIterator<Item = String>) -> Self {
        Self::List(list.into_iter().map(Self::String).collect())
    }

    /// Makes a set: sorts, and drops duplicates.
    pub(crate) fn set(mut values: Vec<Value>) -> Self {
        values.sort_by(order);
        values.dedup_by(|a, b| a.equals(b));
        Self::Set(values)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the elements of a list, tuple or set.
    pub(crate) fn elements(&self) -> Option<&[Value]> {
        match self {
            Self::List(list) | Self::Tuple(list) | Self::Set(list) => Some(list),
            _ => None,
        }
    }

    /// Returns the members of a map or an object.
    pub(crate) fn members(&self) -> Option<&Members> {
        match self {
            Self::Map(members) | Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Lists keys and values of anything that can be iterated.
    pub(crate) fn pairs(&self) -> Option<Vec<(Value, Value)>> {
        match self {
            Self::Set(list) => Some(list.iter().map(|value| (value.clone(), value.clone())).collect()),
            Self::List(list) | Self::Tuple(list) => {
                Some(list.iter().enumerate().map(|(at, v)| (Value::length_of(at), v.clone())).collect())
            }
            Self::Map(members) | Self::Object(members) => {
                Some(members.iter().map(|(key, v)| (Value::string(key), v.clone())).collect())
            }
            _ => None,
        }
    }

    /// Compares as `==` does: values of different types are not equal, nulls are.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::List(a), Self::List(b))
            | (Self::Tuple(a), Self::Tuple(b))
            | (Self::Set(a), Self::Set(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Self::Map(a), Self::Map(b)) | (Self::Object(a), Self::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && a.equals(b))
            }
            _ => false,
        }
    }

    /// Names the type for people.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Set(_) => "set",
            Self::Map(_) => "map",
            Self::Object(_) => "object",
        }
    }

    /// Converts a primitive to the string that a template shows.
    pub(crate) fn to_text(&self) -> Option<String> {
        match self {
            Self::String(text) => Some(text.clone()),
            Self::Number(number) => Some(number_text(number)),
            Self::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }
}

/// Orders values as sets iterate them.
fn order(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Null => 9,
            Value::Bool(_) => 0,
            Value::Number(_) => 1,
            Value::String(_) => 2,
            Value::List(_) => 3,
            Value::Tuple(_) => 4,
            Value::Set(_) => 5,
            Value::Map(_) => 6,
            Value::Object(_) => 7,
        }
    }
    fn sequence<'a>(
        a: impl Iterator<Item = &'a Value>,
        b: impl Iterator<Item = &'a Value>,
    ) -> Option<Ordering> {
        a.zip(b).map(|(a, b)| order(a, b)).find(|order| order.is_ne())
    }
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::List(a), Value::List(b))
        | (Value::Tuple(a), Value::Tuple(b))
        | (Value::Set(a), Value::Set(b)) => {
            sequence(a.iter(), b.iter()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Map(a), Value::Map(b)) | (Value::Object(a), Value::Object(b)) => {
            a.keys().cmp(b.keys()).then_with(|| sequence(a.values(), b.values()).unwrap_or(Ordering::Equal))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// The largest exponent of a number that is still written out.
const MAX_EXPONENT: i64 = 4096;

/// Parses a number as it stands in a file.
pub(crate) fn parse_number(text: &str) -> Option<BigDecimal> {
    let valid = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number: BigDecimal = valid.then(|| text.parse().ok())??;
    let (_, scale) = number.as_bigint_and_exponent();
    (scale.abs() <= MAX_EXPONENT).then(|| number.normalized())
}

/// Turns a result of floating point into a number.
pub(crate) fn from_float(number: f64) -> Option<BigDecimal> {
    if number == number.trunc() && number.abs() < 1e15 {
        return Some(BigDecimal::from(number as i64));
    }
    // The shortest text that means the float, rather than its binary expansion.
    parse_number(&format!("{number:e}"))
}

/// Writes a number without an exponent and without needless zeros.
pub(crate) fn number_text(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

/// Returns a number as an integer, if it is one.
pub(crate) fn whole(number: &BigDecimal) -> Option<i64> {
    number.is_integer().then(|| number.to_i64())?
}
