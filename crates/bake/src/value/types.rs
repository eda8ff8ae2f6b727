//! Types as type constraints write them, their names, and the type that several can be converted to.

use std::collections::BTreeMap;

use super::Value;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Any type; each value keeps its own.
    Any,
    Bool,
    Number,
    String,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    Object(BTreeMap<String, Attribute>),
}

/// One attribute of an object type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) kind: Type,
    pub(crate) optional: bool,
}

impl Type {
    /// Returns the type of a value.
    pub(crate) fn of(value: &Value) -> Self {
        let element = |list: &[Value]| {
            let types: Vec<Type> = list.iter().map(Type::of).collect();
            Box::new(unify(&types).unwrap_or(Type::Any))
        };
        match value {
            Value::Null => Self::Any,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::List(list) => Self::List(element(list)),
            Value::Set(list) => Self::Set(element(list)),
            Value::Tuple(list) => Self::Tuple(list.iter().map(Type::of).collect()),
            Value::Map(members) => {
                let types: Vec<Type> = members.values().map(Type::of).collect();
                Self::Map(Box::new(unify(&types).unwrap_or(Type::Any)))
            }
            Value::Object(members) => Self::Object(
                members
                    .iter()
                    .map(|(key, value)| (key.clone(), Attribute { kind: Type::of(value), optional: false }))
                    .collect(),
            ),
        }
    }

    pub(crate) fn is_primitive(&self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::String)
    }

    /// Names the type in a sentence.
    pub(crate) fn friendly(&self) -> String {
        match self {
            Self::Any => "dynamic".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Number => "number".to_owned(),
            Self::String => "string".to_owned(),
            Self::List(element) => format!("list of {}", element.friendly()),
            Self::Set(element) => format!("set of {}", element.friendly()),
            Self::Map(element) => format!("map of {}", element.friendly()),
            Self::Tuple(_) => "tuple".to_owned(),
            Self::Object(_) => "object".to_owned(),
        }
    }

    /// Names the type where it is a constraint: any type is one.
    pub(crate) fn friendly_constraint(&self) -> String {
        match self {
            Self::Any => "any type".to_owned(),
            Self::List(element) => format!("list of {}", element.friendly_constraint()),
            Self::Set(element) => format!("set of {}", element.friendly_constraint()),
            Self::Map(element) => format!("map of {}", element.friendly_constraint()),
            other => other.friendly(),
        }
    }
}

/// Finds the type that all of `types` can be converted to.
pub(crate) fn unify(types: &[Type]) -> Option<Type> {
    let mut known = types.iter().filter(|kind| **kind != Type::Any);
    let Some(first) = known.next() else { return Some(Type::Any) };
    known.try_fold(first.clone(), |a, b| unify_two(&a, b))
}

fn unify_two(a: &Type, b: &Type) -> Option<Type> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (Type::Any, other) | (other, Type::Any) => Some(other.clone()),
        (Type::String, other) | (other, Type::String) if other.is_primitive() => Some(Type::String),
        (Type::List(a), Type::List(b)) => Some(Type::List(Box::new(unify_two(a, b)?))),
        (Type::Set(a), Type::Set(b)) => Some(Type::Set(Box::new(unify_two(a, b)?))),
        (Type::Map(a), Type::Map(b)) => Some(Type::Map(Box::new(unify_two(a, b)?))),
        (Type::Set(a) | Type::List(a), Type::Set(b) | Type::List(b)) => {
            Some(Type::List(Box::new(unify_two(a, b)?)))
        }
        (Type::Tuple(a), Type::Tuple(b)) => {
            let pairwise = || -> Option<Vec<Type>> {
                (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| unify_two(a, b)).collect())?
            };
            pairwise().map(Type::Tuple).or_else(|| {
                let all: Vec<Type> = a.iter().chain(b).cloned().collect();
                Some(Type::List(Box::new(unify(&all)?)))
            })
        }
        (Type::Tuple(tuple), Type::List(element)) | (Type::List(element), Type::Tuple(tuple)) => {
            Some(Type::List(Box::new(with_elements(element, tuple)?)))
        }
        (Type::Tuple(tuple), Type::Set(element)) | (Type::Set(element), Type::Tuple(tuple)) => {
            Some(Type::Set(Box::new(with_elements(element, tuple)?)))
        }
        (Type::Object(a), Type::Object(b)) => unify_objects(a, b),
        (Type::Object(object), Type::Map(element)) | (Type::Map(element), Type::Object(object)) => {
            let types: Vec<Type> = object.values().map(|attribute| attribute.kind.clone()).collect();
            Some(Type::Map(Box::new(with_elements(element, &types)?)))
        }
        _ => None,
    }
}

fn with_elements(element: &Type, others: &[Type]) -> Option<Type> {
    others.iter().try_fold(element.clone(), |a, b| unify_two(&a, b))
}

fn unify_objects(a: &BTreeMap<String, Attribute>, b: &BTreeMap<String, Attribute>) -> Option<Type> {
    let attributewise = || -> Option<BTreeMap<String, Attribute>> {
        a.keys().eq(b.keys()).then(|| {
            a.iter()
                .zip(b.values())
                .map(|((key, a), b)| {
                    let kind = unify_two(&a.kind, &b.kind)?;
                    Some((key.clone(), Attribute { kind, optional: false }))
                })
                .collect()
        })?
    };
    attributewise().map(Type::Object).or_else(|| {
        let all: Vec<Type> = a.values().chain(b.values()).map(|attribute| attribute.kind.clone()).collect();
        Some(Type::Map(Box::new(unify(&all)?)))
    })
}
