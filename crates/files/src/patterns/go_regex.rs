//! Reads the small part of Go's regular expression syntax that ignore patterns can produce, and writes it in
//! the syntax of the `regex` crate.
//!
//! The two differ inside brackets (set operations, nesting), in what may be escaped, and in that Go's `\d` and
//! friends are ASCII only. Classes are therefore read into ranges and written back as code points.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

/// Translates an expression; `None` when Go would refuse it.
pub(super) fn translate(go: &str) -> Option<String> {
    let mut out = String::with_capacity(go.len() + 16);
    let mut rest = go.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '[' => class(&mut rest, &mut out)?,
            '\\' => escape(rest.next()?, &mut rest, &mut out)?,
            _ => out.push(character),
        }
    }
    Some(out)
}

/// Translates an escape outside brackets.
fn escape(character: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    match character {
        'd' | 's' | 'w' | 'D' | 'S' | 'W' => {
            out.push('[');
            if character.is_ascii_uppercase() {
                out.push('^');
            }
            out.push_str(perl_class(character.to_ascii_lowercase())?);
            out.push(']');
        }
        'A' | 'z' => out.extend(['\\', character]),
        'b' => out.push_str("(?-u:\\b)"),
        _ => {
            let literal = escaped_literal(character, rest)?;
            write!(out, "\\x{{{:x}}}", u32::from(literal)).ok()?;
        }
    }
    Some(())
}

/// Reads the rest of an escape that stands for one character.
fn escaped_literal(character: char, rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    Some(match character {
        'a' => '\u{7}',
        'f' => '\u{c}',
        't' => '\t',
        'n' => '\n',
        'r' => '\r',
        'v' => '\u{b}',
        'x' => {
            let mut digits = String::new();
            if rest.next_if_eq(&'{').is_some() {
                while let Some(digit) = rest.next_if(char::is_ascii_hexdigit) {
                    digits.push(digit);
                }
                rest.next_if_eq(&'}')?;
            } else {
                digits.push(rest.next_if(char::is_ascii_hexdigit)?);
                digits.push(rest.next_if(char::is_ascii_hexdigit)?);
            }
            char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
        }
        // `\0` and `\12` are octal; a single other digit would be a backreference, which Go refuses.
        '0'..='7' => {
            if character != '0' && !rest.peek().is_some_and(|next| ('0'..='7').contains(next)) {
                return None;
            }
            let mut value = character.to_digit(8)?;
            for _ in 0..2 {
                match rest.next_if(|next| ('0'..='7').contains(next)).and_then(|next| next.to_digit(8)) {
                    Some(digit) => value = value * 8 + digit,
                    None => break,
                }
            }
            char::from_u32(value)?
        }
        _ if character.is_ascii() && !character.is_ascii_alphanumeric() => character,
        _ => return None,
    })
}

fn perl_class(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "0-9",
        's' => "\\t\\n\\x{c}\\r\\x{20}",
        'w' => "0-9A-Z_a-z",
        _ => return None,
    })
}

/// Translates a class; the `[` is already taken.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        match rest.next()? {
            ']' if !first => break,
            '[' if rest.peek() == Some(&':') && named_class(rest, out)? => {}
            '\\' if rest.peek().is_some_and(|next| "dswDSW".contains(*next)) => {
                let letter = rest.next()?;
                let set = perl_class(letter.to_ascii_lowercase())?;
                let negation = if letter.is_ascii_uppercase() { "^" } else { "" };
                write!(out, "[{negation}{set}]").ok()?;
            }
            start => range(start, rest, out)?,
        }
        first = false;
    }
    out.push(']');
    Some(())
}

/// Translates one character of a class, or a range that starts with it.
fn range(start: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    let low = if start == '\\' { escaped_literal(rest.next()?, rest)? } else { start };
    let mut ahead = rest.clone();
    let high = if ahead.next() == Some('-') && ahead.next().is_some_and(|next| next != ']') {
        rest.next();
        match rest.next()? {
            '\\' => escaped_literal(rest.next()?, rest)?,
            literal => literal,
        }
    } else {
        low
    };
    if high < low {
        return None;
    }
    write!(out, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)).ok()
}

/// Translates `[:name:]`, of which the first `[` is already taken. Returns false, with nothing taken, when it
/// is no such thing.
fn named_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<bool> {
    let text: String = rest.clone().skip(1).take(16).collect();
    let Some((name, _)) = text.split_once(":]") else { return Some(false) };
    let known = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    if !known.contains(&name.trim_start_matches('^')) {
        return None;
    }
    write!(out, "[[:{name}:]]").ok()?;
    for _ in 0..name.len() + 3 {
        rest.next();
    }
    Some(true)
}
