//! Shell-like patterns for one path, as Go's `filepath.Match` reads them: `*` and `?` stay within a name,
//! brackets hold ranges and may start with `^`, a backslash takes the next character literally.

use std::path::{Path, PathBuf};

/// Says whether `name` has a character that makes it a pattern.
pub fn has_wildcard(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Says whether `pattern` matches the whole of `name`; a malformed pattern matches nothing.
pub fn wildcard_match(pattern: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> bool {
    matches(pattern.as_ref(), name.as_ref()).unwrap_or(false)
}

/// Says whether `pattern` follows the syntax.
pub(crate) fn is_well_formed(mut pattern: &[u8]) -> bool {
    while let Some((first, rest)) = pattern.split_first() {
        pattern = match first {
            b'[' => match class(rest, '\0') {
                Some((_, rest)) => rest,
                None => return false,
            },
            b'\\' if rest.is_empty() => return false,
            b'\\' => &rest[1..],
            _ => rest,
        };
    }
    true
}

/// Cuts a path at its first name with a wildcard.
pub(crate) fn split_wildcards(path: &str) -> (PathBuf, Option<String>) {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let plain = names.iter().take_while(|name| !has_wildcard(name)).count();
    let rest = names[plain..].join("/");
    (names[..plain].iter().map(Path::new).collect(), (plain < names.len()).then_some(rest))
}

/// Matches with one point to return to: the last `*`, since an earlier one can gain nothing by taking more.
fn matches(pattern: &[u8], name: &[u8]) -> Option<bool> {
    if !is_well_formed(pattern) {
        return None;
    }
    let (mut at, mut here) = (pattern, name);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = at.split_first() {
            retry = Some((rest, here));
            at = rest;
            continue;
        }
        if at.is_empty() && here.is_empty() {
            return Some(true);
        }
        if let Some((pattern_rest, name_rest)) = step(at, here) {
            (at, here) = (pattern_rest, name_rest);
            continue;
        }
        let (pattern_rest, from) = retry?;
        let (_, next) = first_character(from)?;
        if from.first() == Some(&b'/') {
            return Some(false);
        }
        retry = Some((pattern_rest, next));
        (at, here) = (pattern_rest, next);
    }
}

/// Matches one element of the pattern that is no `*` with one character of the name.
fn step<'p, 'n>(pattern: &'p [u8], name: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    let (element, rest) = pattern.split_first()?;
    let (character, name_rest) = first_character(name)?;
    match element {
        b'?' => (character != '/').then_some((rest, name_rest)),
        b'[' => {
            let (hit, rest) = class(rest, character)?;
            hit.then_some((rest, name_rest))
        }
        b'\\' => {
            let (literal, rest) = rest.split_first()?;
            (name.first() == Some(literal)).then(|| (rest, &name[1..]))
        }
        literal => (name.first() == Some(literal)).then(|| (rest, &name[1..])),
    }
}

/// Reads a class after its `[`: whether it holds `character`, and what follows it; `None` when malformed.
fn class(mut pattern: &[u8], character: char) -> Option<(bool, &[u8])> {
    let negated = pattern.first() == Some(&b'^');
    if negated {
        pattern = &pattern[1..];
    }
    let mut hit = false;
    let mut ranges = 0;
    loop {
        if ranges > 0
            && let Some((b']', rest)) = pattern.split_first()
        {
            return Some((hit != negated, rest));
        }
        let low;
        (low, pattern) = class_character(pattern)?;
        let mut high = low;
        if let Some((b'-', rest)) = pattern.split_first() {
            (high, pattern) = class_character(rest)?;
        }
        hit |= (low..=high).contains(&character);
        ranges += 1;
    }
}

/// Reads one character of a class, which something has to follow.
fn class_character(pattern: &[u8]) -> Option<(char, &[u8])> {
    let pattern = match pattern.split_first()? {
        (b'-' | b']', _) => return None,
        (b'\\', rest) => rest,
        _ => pattern,
    };
    let (character, rest) = first_character(pattern)?;
    // Go refuses bytes that are no UTF-8 here.
    let invalid = character == char::REPLACEMENT_CHARACTER && pattern.len() - rest.len() == 1;
    (!invalid && !rest.is_empty()).then_some((character, rest))
}

/// Takes one character; a byte that is no UTF-8 is U+FFFD.
fn first_character(bytes: &[u8]) -> Option<(char, &[u8])> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), &bytes[1..]));
    }
    let window = &bytes[..bytes.len().min(4)];
    let valid = window.utf8_chunks().next()?.valid();
    match valid.chars().next() {
        Some(character) => Some((character, &bytes[character.len_utf8()..])),
        None => Some((char::REPLACEMENT_CHARACTER, &bytes[1..])),
    }
}
