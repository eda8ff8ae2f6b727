//! `.env` files: a variable on each line, quoted or not.

use std::collections::BTreeMap;

use super::interpolate;
use crate::error::Problem;

/// Reads the variables of a text; each may use those before it and `outer`.
pub(super) fn parse(
    text: &str,
    outer: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Problem> {
    let mut own = BTreeMap::new();
    let mut known = outer.clone();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut line = 1;
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let current = rest[..end].trim();
        if current.is_empty() || current.starts_with('#') {
            rest = &rest[end..];
            line += 1;
            continue;
        }
        let start = rest.trim_start();
        let start = start.strip_prefix("export ").unwrap_or(start).trim_start();
        let length =
            start.find(|c: char| !c.is_alphanumeric() && !"_.-[]".contains(c)).unwrap_or(start.len());
        let (name, after) = start.split_at(length);
        let after = after.trim_start_matches([' ', '\t']);
        let invalid = |reason: &str| Problem::new(format!("line {line}: {reason}"));
        if name.is_empty() {
            return Err(invalid("expected a name"));
        }
        let Some(after) = after.strip_prefix('=').or_else(|| after.strip_prefix(':')) else {
            // A name alone takes its value from outside.
            if let Some(value) = outer.get(name) {
                own.insert(name.to_owned(), value.clone());
            }
            rest = &rest[end..];
            line += 1;
            continue;
        };
        let after = after.trim_start_matches([' ', '\t']);
        let (value, remaining) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let close =
                    closing(&after[1..], quote).ok_or_else(|| invalid("the value has no closing quote"))?;
                let inner = &after[1..=close];
                let value = if quote == '"' {
                    interpolate::string(&unescape(inner), &known, &mut Vec::new())?
                } else {
                    inner.to_owned()
                };
                let tail = &after[close + 2..];
                (value, &tail[tail.find('\n').map_or(tail.len(), |at| at + 1)..])
            }
            _ => {
                let end = after.find('\n').map_or(after.len(), |at| at + 1);
                let plain = after[..end].split(" #").next().unwrap_or_default().trim();
                (interpolate::string(plain, &known, &mut Vec::new())?, &after[end..])
            }
        };
        line += rest[..rest.len() - remaining.len()].matches('\n').count();
        rest = remaining;
        known.entry(name.to_owned()).or_insert_with(|| value.clone());
        own.insert(name.to_owned(), value);
    }
    Ok(own)
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped && quote == '"';
        ends.then_some(at)
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\')) => out.push(other),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_shells_read_them() {
        let outer = [("HOME".to_owned(), "/root".to_owned())].into();
        let text = "# comment\nA=1\nexport B = two words # note\nC=\"x\\ny $A\"\nD='raw $A'\n\nE=${HOME}/e\nF=${A:-z}$B\nG=\n";
        let got = parse(text, &outer).unwrap();
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "x\ny 1"),
            ("D", "raw $A"),
            ("E", "/root/e"),
            ("F", "1two words"),
            ("G", ""),
        ];
        let want: BTreeMap<String, String> =
            want.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(got, want);
        assert!(parse("A=\"open", &outer).is_err());
    }
}
