//! `$VAR`, `${VAR}`, `${VAR:-default}` and their kin in compose files and `.env`.

use std::collections::BTreeMap;

use yaml_serde::Value;

use crate::error::Problem;

/// Replaces variables in every string of a document, but not in keys; collects what is not set.
pub(super) fn document(
    value: &mut Value,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
) -> Result<(), Problem> {
    match value {
        Value::String(text) if text.contains('$') => *text = string(text, variables, unset)?,
        Value::Sequence(list) => {
            for value in list {
                document(value, variables, unset)?;
            }
        }
        Value::Mapping(mapping) => {
            for (_, value) in mapping.iter_mut() {
                document(value, variables, unset)?;
            }
        }
        Value::Tagged(tagged) => document(&mut tagged.value, variables, unset)?,
        _ => {}
    }
    Ok(())
}

/// Replaces variables in a string.
pub(super) fn string(
    text: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| invalid(text))?;
            out.push_str(&braced(&after[..end], text, variables, unset)?);
            rest = &after[end + 1..];
        } else {
            let end = name_length(after);
            if end == 0 {
                return Err(invalid(text));
            }
            out.push_str(&value(&after[..end], variables, unset));
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn invalid(text: &str) -> Problem {
    Problem::new(format!("invalid interpolation format in `{text}`"))
        .hint("write `${NAME}`, or `$$` for a dollar sign")
}

fn value(name: &str, variables: &BTreeMap<String, String>, unset: &mut Vec<String>) -> String {
    match variables.get(name) {
        Some(value) => value.clone(),
        None => {
            if !unset.iter().any(|known| known == name) {
                unset.push(name.to_owned());
            }
            String::new()
        }
    }
}

fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Finds the brace that closes one which is already open.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn braced(
    inner: &str,
    whole: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
) -> Result<String, Problem> {
    let end = name_length(inner);
    let (name, operator) = inner.split_at(end);
    if name.is_empty() {
        return Err(invalid(whole));
    }
    if operator.is_empty() {
        return Ok(value(name, variables, unset));
    }
    // With a colon, an empty value counts as none.
    let (colon, operator) = match operator.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operator),
    };
    let present = variables.get(name).filter(|value| !(colon && value.is_empty()));
    let (kind, word) = operator.split_at_checked(1).ok_or_else(|| invalid(whole))?;
    match (kind, present) {
        ("-" | "?", Some(value)) => Ok(value.clone()),
        ("-", None) => string(word, variables, unset),
        ("+", Some(_)) => string(word, variables, unset),
        ("+", None) => Ok(String::new()),
        ("?", None) => {
            let word = string(word, variables, unset)?;
            let problem = Problem::new(format!("required variable `{name}` is missing a value"))
                .hint(format!("set it in the environment or in `.env`: `{name}=…`"));
            Err(if word.is_empty() { problem } else { problem.because(word) })
        }
        _ => Err(invalid(whole)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_does_what_a_shell_does() {
        let variables: BTreeMap<String, String> =
            [("A", "a"), ("EMPTY", "")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        for (text, want) in [
            ("plain", "plain"),
            ("$A-${A}", "a-a"),
            ("$$A", "$A"),
            ("${A:-x}", "a"),
            ("${B:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${B:-${A}}", "a"),
            ("${A:+yes}", "yes"),
            ("${B+yes}", ""),
            ("${EMPTY:+yes}", ""),
            ("${B}", ""),
        ] {
            assert_eq!(string(text, &variables, &mut Vec::new()).unwrap(), want, "{text}");
        }
        for text in ["${", "${A", "$1", "${A!b}", "${B:?why}"] {
            assert!(string(text, &variables, &mut Vec::new()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_set_is_told_once() {
        let mut unset = Vec::new();
        string("$B $B ${C:-x}", &BTreeMap::new(), &mut unset).unwrap();
        assert_eq!(unset, ["B"]);
    }
}
