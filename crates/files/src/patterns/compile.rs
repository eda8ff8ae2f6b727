//! One pattern in a form that answers fast.
//!
//! Most patterns are plain paths, `dir/**` or `**/name`; they are compared as bytes. The others become a
//! regular expression. The reference's translation has quirks (a `*` inside brackets is expanded like any
//! other, a `^` is not escaped), so the text of its expression is built exactly as it builds it, and then read
//! by [`go_regex`](super::go_regex) with the meaning it has there.

use std::borrow::Cow;

use regex::Regex;

use super::go_regex;
use super::wildcard::is_well_formed;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// The cleaned pattern without `!`.
    text: String,
    form: Form,
    /// The bytes every match starts with.
    literal_start: usize,
}

#[derive(Debug)]
enum Form {
    Exact,
    /// `text` without its final `**` starts the path.
    Prefix,
    /// `text` without its first `**` ends the path.
    Suffix,
    Regex(Regex),
}

impl Compiled {
    /// Compiles a cleaned pattern; `None` when it is malformed.
    pub(crate) fn new(text: &str) -> Option<Self> {
        if !is_well_formed(text.as_bytes()) {
            return None;
        }
        let (shape, expression) = translate(text);
        let form = match shape {
            Shape::Exact => Form::Exact,
            Shape::Prefix => Form::Prefix,
            Shape::Suffix => Form::Suffix,
            Shape::Regex => Form::Regex(Regex::new(&go_regex::translate(&expression)?).ok()?),
        };
        // A byte order mark is dropped, and U+FFFD stands for bytes that are no UTF-8: neither is literal.
        let literal_start =
            text.find(['*', '?', '[', ']', '\\', '^', '\u{feff}', '\u{fffd}']).unwrap_or(text.len());
        Some(Self { text: text.to_owned(), form, literal_start })
    }

    /// Says whether the pattern matches the whole of `path`.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match &self.form {
            Form::Exact => path == text,
            Form::Prefix => path.starts_with(&text[..text.len() - 2]),
            Form::Suffix => {
                let suffix = &text[2..];
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Form::Regex(regex) => {
                path.starts_with(&text[..self.literal_start]) && regex.is_match(&replace_invalid(path))
            }
        }
    }

    /// Says whether the pattern could match a path strictly below `directory`; errs towards yes.
    pub(crate) fn may_match_below(&self, directory: &[u8]) -> bool {
        if directory.is_empty() || matches!(self.form, Form::Suffix) {
            return true;
        }
        let start = &self.text.as_bytes()[..self.literal_start];
        let below = |path: &[u8]| {
            path.len() > directory.len() && path.starts_with(directory) && path[directory.len()] == b'/'
        };
        match self.form {
            Form::Exact => below(start),
            // A match begins with `start`: either that lies below the directory, or the directory itself
            // begins so.
            _ => below(start) || directory.starts_with(start),
        }
    }
}

enum Shape {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

/// Builds the expression the reference builds, and says which comparison it would use.
fn translate(pattern: &str) -> (Shape, String) {
    let mut shape = Shape::Exact;
    let mut expression = String::from("^");
    // The reference's scanner drops a byte order mark in front.
    let mut rest = pattern.strip_prefix('\u{feff}').unwrap_or(pattern).chars().peekable();
    let mut first = true;
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_none() {
                    if matches!(shape, Shape::Exact) {
                        shape = Shape::Prefix;
                    } else {
                        expression.push_str(".*");
                        shape = Shape::Regex;
                    }
                } else {
                    expression.push_str("(.*/)?");
                    shape = Shape::Regex;
                }
                if first {
                    shape = Shape::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                shape = Shape::Regex;
            }
            '?' => {
                expression.push_str("[^/]");
                shape = Shape::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', character]),
            '\\' => match rest.next() {
                Some(escaped) => {
                    expression.extend(['\\', escaped]);
                    shape = Shape::Regex;
                }
                None => expression.push('\\'),
            },
            '[' | ']' => {
                expression.push(character);
                shape = Shape::Regex;
            }
            _ => expression.push(character),
        }
        first = false;
    }
    expression.push('$');
    (shape, expression)
}

/// Reads bytes that are no UTF-8 as U+FFFD each, as Go does when it iterates over a string.
fn replace_invalid(path: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(path) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(path.len() + 8);
            for chunk in path.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            Cow::Owned(text)
        }
    }
}
