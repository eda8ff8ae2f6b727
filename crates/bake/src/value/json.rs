//! Values to and from JSON, as `jsonencode`, `jsondecode`, typed variables and `--list` use it.

use super::{Type, Value, number_text, parse_number};

/// Writes a value as JSON on one line, in the form that Go gives it.
pub(crate) fn encode(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => quote(text, out),
        Value::List(list) | Value::Tuple(list) | Value::Set(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Map(members) | Value::Object(members) => {
            out.push('{');
            for (at, (key, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&escape_html(&serde_json::Value::from(text).to_string()));
}

/// Escapes what Go escapes in JSON for the sake of HTML; outside strings none of it occurs.
pub(crate) fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// Reads JSON; the value has the types that JSON implies.
pub(crate) fn decode(text: &str) -> Result<Value, String> {
    let parsed: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(from_json(&parsed))
}

/// Reads JSON as a value of a type.
pub(crate) fn decode_as(text: &str, kind: &Type) -> Result<Value, String> {
    let value = decode(text)?;
    let same = |value: &Value, kind: &Type| match kind {
        Type::Bool => matches!(value, Value::Bool(_) | Value::Null),
        // JSON says what is a number and what a string: neither stands for the other.
        Type::Number => matches!(value, Value::Number(_) | Value::String(_) | Value::Null),
        _ => true,
    };
    if !same(&value, kind) {
        return Err(format!("a {} is required", kind.friendly()));
    }
    super::convert(&value, kind).map_err(|error| error.to_string())
}

fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => {
            let text = number.to_string();
            parse_number(&text).map_or(Value::String(text), Value::Number)
        }
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(list) => Value::Tuple(list.iter().map(from_json).collect()),
        serde_json::Value::Object(members) => {
            Value::Object(members.iter().map(|(key, value)| (key.clone(), from_json(value))).collect())
        }
    }
}
