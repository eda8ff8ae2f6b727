//! Strings; lengths and positions count what a reader sees as one character.

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation as _;

use super::numbers::limited;
use super::{Function, elements, function, integer, text};
use crate::error::{Problem, Result, fail};
use crate::value::{Members, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function("basename", "s", |a| Ok(Value::string(basename(text(&a[0]))))),
    function("byteslen", "s", |a| Ok(Value::length_of(text(&a[0]).len()))),
    function("bytesslice", "snn", bytes_slice),
    function("chomp", "s", |a| Ok(Value::string(text(&a[0]).trim_end_matches(['\r', '\n'])))),
    function("dirname", "s", |a| Ok(Value::String(dirname(text(&a[0]))))),
    function("indent", "ns", indent),
    function("join", "sL*", join),
    function("lower", "s", |a| Ok(Value::String(text(&a[0]).to_lowercase()))),
    function("regex", "ss", regex_first),
    function("regex_replace", "sss", regex_replace),
    function("regexall", "ss", regex_all),
    function("replace", "sss", |a| Ok(Value::String(text(&a[0]).replace(text(&a[1]), text(&a[2]))))),
    function("reverse", "s", |a| Ok(Value::String(text(&a[0]).graphemes(true).rev().collect()))),
    function("sanitize", "s", |a| Ok(Value::String(sanitize(text(&a[0]))))),
    function("semvercmp", "ss", semver_compare),
    function("split", "ss", split),
    function("strlen", "s", |a| Ok(Value::length_of(text(&a[0]).graphemes(true).count()))),
    function("substr", "snn", substr),
    function("title", "s", |a| Ok(Value::String(title(text(&a[0]))))),
    function("trim", "ss", |a| {
        let cut: Vec<char> = text(&a[1]).chars().collect();
        Ok(Value::string(text(&a[0]).trim_matches(cut.as_slice())))
    }),
    function("trimprefix", "ss", |a| {
        let (whole, prefix) = (text(&a[0]), text(&a[1]));
        Ok(Value::string(whole.strip_prefix(prefix).unwrap_or(whole)))
    }),
    function("trimspace", "s", |a| Ok(Value::string(text(&a[0]).trim()))),
    function("trimsuffix", "ss", |a| {
        let (whole, suffix) = (text(&a[0]), text(&a[1]));
        Ok(Value::string(whole.strip_suffix(suffix).unwrap_or(whole)))
    }),
    function("upper", "s", |a| Ok(Value::String(text(&a[0]).chars().map(upper).collect()))),
];

/// Returns the last element of a path, as Go's `path.Base`.
fn basename(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".",
        (false, true) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Returns all but the last element of a path, cleaned, as Go's `path.Dir`.
fn dirname(path: &str) -> String {
    let directory = path.rfind('/').map_or("", |at| &path[..=at]);
    slipway_model::clean_path(directory)
}

fn bytes_slice(a: &[Value]) -> Result<Value> {
    let bytes = text(&a[0]).as_bytes();
    let (start, end) = bounds(bytes.len(), integer(&a[1])?, integer(&a[2])?);
    Ok(Value::String(String::from_utf8_lossy(&bytes[start..end]).into_owned()))
}

/// Turns an offset and a length, both of which may be negative, into a range.
fn bounds(length: usize, offset: i64, count: i64) -> (usize, usize) {
    let whole = i64::try_from(length).unwrap_or(i64::MAX);
    let start = if offset < 0 { (offset.saturating_add(whole)).max(0) } else { offset.min(whole) };
    let end = if count < 0 { whole } else { start.saturating_add(count).min(whole) };
    let index = |at: i64| usize::try_from(at).unwrap_or(length).min(length);
    (index(start), index(end.max(start)))
}

fn substr(a: &[Value]) -> Result<Value> {
    let characters: Vec<&str> = text(&a[0]).graphemes(true).collect();
    let (start, end) = bounds(characters.len(), integer(&a[1])?, integer(&a[2])?);
    Ok(Value::String(characters[start..end].concat()))
}

fn indent(a: &[Value]) -> Result<Value> {
    let pad = " ".repeat(limited(&a[0], 4096)?);
    Ok(Value::String(text(&a[1]).replace('\n', &format!("\n{pad}"))))
}

fn join(a: &[Value]) -> Result<Value> {
    let mut parts = Vec::new();
    for value in a[1..].iter().flat_map(elements) {
        match value {
            Value::String(text) => parts.push(text.as_str()),
            _ => return fail("an element of the list is null: `join` needs strings"),
        }
    }
    Ok(Value::String(parts.join(text(&a[0]))))
}

fn split(a: &[Value]) -> Result<Value> {
    let (separator, whole) = (text(&a[0]), text(&a[1]));
    if separator.is_empty() {
        return Ok(Value::strings(whole.chars().map(String::from)));
    }
    Ok(Value::strings(whole.split(separator).map(str::to_owned)))
}

fn sanitize(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    name.chars().map(safe).collect()
}

/// Returns the one letter in upper case, where there is one.
fn upper(c: char) -> char {
    let mut letters = c.to_uppercase();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => letter,
        _ => c,
    }
}

/// Puts the first letter of each word in upper case.
fn title(whole: &str) -> String {
    let mut out = String::with_capacity(whole.len());
    let mut inside = false;
    for c in whole.chars() {
        let letter = c.is_alphanumeric() || c == '_';
        if letter && !inside {
            out.push(upper(c));
        } else {
            out.push(c);
        }
        inside = letter;
    }
    out
}

fn pattern(text: &str) -> Result<Regex> {
    Regex::new(&ascii_classes(text)).map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Problem::new(format!("invalid regular expression `{text}`")).because(last).into()
    })
}

/// Spells out `\d`, `\s` and `\w`, which are of ASCII alone in Go.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
            Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('b') => out.push_str("(?-u:\\b)"),
            Some('B') => out.push_str("(?-u:\\B)"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

fn regex_first(a: &[Value]) -> Result<Value> {
    let pattern = pattern(text(&a[0]))?;
    match pattern.captures(text(&a[1])) {
        Some(captures) => Ok(captured(&pattern, &captures)),
        None => fail("the pattern did not match any part of the string"),
    }
}

fn regex_all(a: &[Value]) -> Result<Value> {
    let pattern = pattern(text(&a[0]))?;
    let found = pattern.captures_iter(text(&a[1])).map(|captures| captured(&pattern, &captures));
    Ok(Value::List(found.collect()))
}

/// Returns a match: a string without groups, an object with named ones, a tuple with others.
fn captured(pattern: &Regex, captures: &regex::Captures<'_>) -> Value {
    let group = |at: usize| captures.get(at).map_or(Value::Null, |found| Value::string(found.as_str()));
    if pattern.captures_len() == 1 {
        return group(0);
    }
    if pattern.capture_names().flatten().next().is_none() {
        return Value::Tuple((1..pattern.captures_len()).map(group).collect());
    }
    let named =
        pattern.capture_names().enumerate().filter_map(|(at, name)| Some((name?.to_owned(), group(at))));
    Value::Object(named.collect::<Members>())
}

fn regex_replace(a: &[Value]) -> Result<Value> {
    let pattern = pattern(text(&a[1]))?;
    Ok(Value::String(pattern.replace_all(text(&a[0]), text(&a[2])).into_owned()))
}

fn semver_compare(a: &[Value]) -> Result<Value> {
    let version = lenient_version(text(&a[0]))?;
    let constraint = text(&a[1]);
    let mut holds = false;
    for alternative in constraint.split("||") {
        holds |= alternative_holds(alternative, &version)?;
    }
    Ok(Value::Bool(holds))
}

/// Parses a version that may have a `v` and may lack its last parts.
fn lenient_version(text: &str) -> Result<semver::Version> {
    let invalid = || Problem::new(format!("invalid semantic version `{text}`"));
    let bare = text.trim().trim_start_matches('v');
    let end = bare.find(['-', '+']).unwrap_or(bare.len());
    let (core, rest) = bare.split_at(end);
    let mut core = core.to_owned();
    while core.matches('.').count() < 2 {
        core.push_str(".0");
    }
    Ok(semver::Version::parse(&format!("{core}{rest}")).map_err(|_| invalid())?)
}

/// Checks one part of a constraint: conditions, all of which must hold.
fn alternative_holds(text: &str, version: &semver::Version) -> Result<bool> {
    let invalid = || Problem::new(format!("invalid version constraint `{}`", text.trim()));
    // A hyphen between blanks is a range.
    if let Some((low, high)) = text.split_once(" - ") {
        return Ok(lenient_version(low)? <= *version && *version <= lenient_version(high)?);
    }
    let mut holds = true;
    let mut words = text.split([',', ' ']).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err(invalid().into());
    }
    while let Some(word) = words.next() {
        let end = word.find(|c: char| !"<>=!~^".contains(c)).unwrap_or(word.len());
        let (operator, number) = word.split_at(end);
        let number = match number {
            "" => words.next().ok_or_else(invalid)?,
            number => number,
        };
        holds &= condition_holds(operator, number, version).ok_or_else(invalid)?;
    }
    Ok(holds)
}

fn condition_holds(operator: &str, text: &str, version: &semver::Version) -> Option<bool> {
    let bare = text.trim_start_matches('v');
    let wild = |part: &str| matches!(part, "x" | "X" | "*");
    let core = bare.split(['-', '+']).next()?;
    let known: Vec<u64> = core
        .split('.')
        .take_while(|part| !wild(part))
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    if known.len() > 3 {
        return None;
    }
    let part = |at: usize| known.get(at).copied().unwrap_or(0);
    let mut low = semver::Version::new(part(0), part(1), part(2));
    if known.len() == 3 && bare.len() > core.len() {
        low = lenient_version(bare).ok()?;
    }
    // Versions of a development series count only where one is asked for.
    if !version.pre.is_empty() && low.pre.is_empty() && operator != "!=" {
        return Some(false);
    }
    let above = |level: usize| match level {
        0 => None,
        1 => Some(semver::Version::new(part(0) + 1, 0, 0)),
        2 => Some(semver::Version::new(part(0), part(1) + 1, 0)),
        _ => Some(semver::Version::new(part(0), part(1), part(2) + 1)),
    };
    let below = |end: Option<semver::Version>| end.is_none_or(|end| *version < end);
    let within = |level: usize| *version >= low && below(above(level));
    Some(match operator {
        "" | "=" if known.len() == 3 => *version == low,
        "" | "=" => within(known.len()),
        "!=" if known.len() == 3 => *version != low,
        "!=" => !within(known.len()),
        ">" if known.len() == 3 => *version > low,
        ">" => above(known.len()).is_some_and(|end| *version >= end),
        ">=" | "=>" => *version >= low,
        "<" => *version < low,
        "<=" | "=<" if known.len() == 3 => *version <= low,
        "<=" | "=<" => below(above(known.len())),
        "~" | "~>" => within(known.len().min(2)),
        "^" => {
            let first = known.iter().position(|part| *part != 0).unwrap_or(known.len().saturating_sub(1));
            within(first + 1)
        }
        _ => return None,
    })
}
