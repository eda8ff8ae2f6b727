//! The standard library: the functions that every bake file can call.
//!
//! A signature is a word with a letter for each parameter, so that the table is read at a glance:
//! `s` string, `n` number, `b` bool, `v` any value, `V` any value or null, `l` list, `L` list of
//! strings, `t` set; a last `*` repeats the letter before it any number of times.

mod collections;
mod encoding;
mod format;
mod logic;
mod network;
mod numbers;
mod strings;
mod time;

use crate::error::{Problem, Result, Span, fail};
use crate::value::{Type, Value, convert};

/// A function of the standard library.
pub(crate) struct Function {
    name: &'static str,
    signature: &'static str,
    run: fn(&[Value]) -> Result<Value>,
}

const fn function(
    name: &'static str,
    signature: &'static str,
    run: fn(&[Value]) -> Result<Value>,
) -> Function {
    Function { name, signature, run }
}

const TABLES: &[&[Function]] = &[
    numbers::FUNCTIONS,
    strings::FUNCTIONS,
    format::FUNCTIONS,
    collections::FUNCTIONS,
    encoding::FUNCTIONS,
    logic::FUNCTIONS,
    network::FUNCTIONS,
    time::FUNCTIONS,
];

/// Functions that look beyond the values of their arguments: evaluation knows them.
const SPECIAL: &[&str] = &["can", "convert", "homedir", "try"];

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    TABLES.iter().flat_map(|table| table.iter()).find(|function| function.name == name)
}

/// Tells whether the library has a function, `try` and its kind among them.
pub(crate) fn exists(name: &str) -> bool {
    SPECIAL.contains(&name) || find(name).is_some()
}

pub(crate) fn names<'a>() -> impl Iterator<Item = &'a str> {
    let table = TABLES.iter().flat_map(|table| table.iter()).map(|function| function.name);
    table.chain(SPECIAL.iter().copied())
}

/// Checks and converts the arguments, then runs the function.
pub(crate) fn call(function: &Function, arguments: Vec<Value>, spans: &[Span]) -> Result<Value> {
    let name = function.name;
    let (letters, variadic) = match function.signature.strip_suffix('*') {
        Some(letters) => (&letters[..letters.len() - 1], letters.chars().last()),
        None => (function.signature, None),
    };
    let count = letters.len();
    if arguments.len() < count || (variadic.is_none() && arguments.len() > count) {
        let least = if variadic.is_some() { "at least " } else { "" };
        let noun = if count == 1 { "argument" } else { "arguments" };
        return fail(format!("`{name}` takes {least}{count} {noun}, not {}", arguments.len()));
    }
    let mut converted = Vec::with_capacity(arguments.len());
    for (at, value) in arguments.into_iter().enumerate() {
        let letter = letters.chars().nth(at).or(variadic).unwrap_or('V');
        let wrong = |reason: String| {
            let problem = Problem::new(format!("invalid argument {} of `{name}`", at + 1)).because(reason);
            match spans.get(at).or(spans.last()) {
                Some(span) => problem.at(*span),
                None => problem,
            }
        };
        if value.is_null() && letter != 'V' {
            return Err(wrong("it must not be null".to_owned()).into());
        }
        converted.push(convert(&value, &parameter(letter)).map_err(|error| wrong(error.to_string()))?);
    }
    (function.run)(&converted).map_err(|problems| {
        let mut named = problems;
        if let Some(first) = spans.first() {
            named = named.at(*first);
        }
        named
    })
}

fn parameter(letter: char) -> Type {
    match letter {
        's' => Type::String,
        'n' => Type::Number,
        'b' => Type::Bool,
        'l' => Type::List(Box::new(Type::Any)),
        'L' => Type::List(Box::new(Type::String)),
        't' => Type::Set(Box::new(Type::Any)),
        _ => Type::Any,
    }
}

/// Returns a string argument; the signature has made sure that it is one.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the elements of a sequence argument.
fn elements(value: &Value) -> &[Value] {
    value.elements().unwrap_or_default()
}

/// Returns a number argument as an integer.
fn integer(value: &Value) -> Result<i64> {
    match value {
        Value::Number(number) => crate::value::whole(number)
            .ok_or_else(|| Problem::new("invalid argument").because("a whole number is required").into()),
        _ => fail("a whole number is required"),
    }
}

/// Returns a number argument as a count or an index.
fn count(value: &Value) -> Result<usize> {
    usize::try_from(integer(value)?).map_err(|_| Problem::new("a negative number is not allowed").into())
}

/// Returns a boolean argument.
fn truth(value: &Value) -> bool {
    matches!(value, Value::Bool(true))
}

#[cfg(test)]
mod tests;
