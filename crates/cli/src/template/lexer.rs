//! Splits a template into text and actions, and actions into tokens.

use super::TemplateError;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action { tokens: Vec<Token>, source: String },
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `if`, `json`, `true`: the parser knows which it is.
    Word(String),
    /// `.` alone.
    Dot,
    /// `.Name`; `adjacent` if it follows the token before it without a blank.
    Field {
        name: String,
        adjacent: bool,
    },
    /// `$`, `$name`.
    Variable(String),
    Text(String),
    Number(serde_json::Number),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

/// Splits a template at its actions.
pub(super) fn split(template: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim_next = false;
    loop {
        let (text, after) = match rest.split_once("{{") {
            Some((text, after)) => (text, Some(after)),
            None => (rest, None),
        };
        let mut text = if trim_next { text.trim_start() } else { text };
        let trims =
            |inside: &str| inside.strip_prefix('-').is_some_and(|i| i.starts_with(char::is_whitespace));
        if after.is_some_and(trims) {
            text = text.trim_end();
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let Some(after) = after else { return Ok(pieces) };
        let inside = if trims(after) { &after[1..] } else { after };
        let end = action_end(inside).ok_or(TemplateError::Unclosed)?;
        let (action, after) = (&inside[..end], &inside[end + 2..]);
        let action = match action.strip_suffix('-') {
            Some(action) if action.ends_with(char::is_whitespace) => {
                trim_next = true;
                action.trim()
            }
            _ => {
                trim_next = false;
                action.trim()
            }
        };
        if !action.starts_with("/*") {
            pieces.push(Piece::Action { tokens: tokens(action)?, source: action.to_owned() });
        }
        rest = after;
    }
}

/// Finds the `}}` that ends an action, which may hold it in a string or comment.
fn action_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    if text.trim_start().starts_with("/*") {
        let close = text.find("*/")?;
        return text[close..].find("}}").map(|end| close + end);
    }
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            quote @ (b'"' | b'`') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if quote == b'"' && bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn tokens(action: &str) -> Result<Vec<Token>, TemplateError> {
    let unexpected =
        |found: &str| TemplateError::Unexpected { found: found.to_owned(), action: action.to_owned() };
    let mut tokens = Vec::new();
    let mut rest = action;
    let mut adjacent = false;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            c if c.is_whitespace() => {
                adjacent = false;
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '=' => (Token::Assign, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '"' | '`' => string(rest).ok_or_else(|| unexpected(rest))?,
            '.' => match word_length(&rest[1..]) {
                0 => (Token::Dot, 1),
                length => (Token::Field { name: rest[1..=length].to_owned(), adjacent }, length + 1),
            },
            '$' => {
                let length = word_length(&rest[1..]);
                (Token::Variable(rest[1..=length].to_owned()), length + 1)
            }
            c if c.is_ascii_digit() || (c == '-' && rest[1..].starts_with(|d: char| d.is_ascii_digit())) => {
                let length =
                    rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(rest.len(), |n| n + 1);
                let number =
                    serde_json::from_str(&rest[..length]).map_err(|_| unexpected(&rest[..length]))?;
                (Token::Number(number), length)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = word_length(rest);
                (Token::Word(rest[..length].to_owned()), length)
            }
            c => return Err(unexpected(&c.to_string())),
        };
        tokens.push(token);
        adjacent = true;
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Reads a string; returns its value and the length of its source.
fn string(text: &str) -> Option<(Token, usize)> {
    if let Some(raw) = text.strip_prefix('`') {
        let end = raw.find('`')?;
        return Some((Token::Text(raw[..end].to_owned()), end + 2));
    }
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Token::Text(value), at + 1)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            c => value.push(c),
        }
    }
    None
}
