//! One pass over a text: quotes, escapes, substitutions, and the words between blanks.

use super::pattern::{Anchor, Pattern, Reach};
use super::{Environment, Expander, MAX_DEPTH, MAX_LENGTH};

/// What stands for the end of the text in messages.
const END: char = '\u{fffd}';

const MISSING_BRACE: &str = "syntax error: missing '}'";

/// Walks over one text.
pub(super) struct Lexer<'a> {
    expander: Expander,
    text: std::str::Chars<'a>,
    environment: &'a dyn Environment,
    depth: usize,
    pub(super) matched: Vec<String>,
    pub(super) unmatched: Vec<String>,
}

type Step<T> = Result<T, String>;

/// Collects words while the text goes by.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    /// Adds a character that ends a word if it is a blank.
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.finish();
        } else {
            self.current.push(c);
        }
    }

    fn finish(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn into_list(mut self) -> Vec<String> {
        self.finish();
        self.done
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(expander: Expander, text: &'a str, environment: &'a dyn Environment) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).chars();
        Self { expander, text, environment, depth: 0, matched: Vec::new(), unmatched: Vec::new() }
    }

    /// Expands the whole text; returns it in one piece and in words.
    pub(super) fn run(&mut self) -> Step<(String, Vec<String>)> {
        self.until(None, self.expander.raw_escapes)
    }

    fn peek(&self) -> Option<char> {
        self.text.clone().next()
    }

    fn at_end(&self) -> bool {
        self.text.as_str().is_empty()
    }

    /// Reads up to and over `stop`, or up to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Step<(String, Vec<String>)> {
        if self.depth >= MAX_DEPTH {
            return Err("substitutions are nested too deeply".to_owned());
        }
        self.depth += 1;
        let saved = std::mem::replace(&mut self.expander.raw_escapes, raw_escapes);
        let result = self.read(stop);
        self.expander.raw_escapes = saved;
        self.depth -= 1;
        result
    }

    fn read(&mut self, stop: Option<char>) -> Step<(String, Vec<String>)> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.text.next();
                return Ok((result, words.into_list()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    if result.len() + value.len() > MAX_LENGTH {
                        return Err("the result is too long".to_owned());
                    }
                    value.chars().for_each(|c| words.push(c));
                    result.push_str(&value);
                }
                '\'' | '"' if !self.expander.quotes_are_text => {
                    let value = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.current.push_str(&value);
                    result.push_str(&value);
                }
                '<' => {
                    let value = self.less_than();
                    words.current.push_str(&value);
                    result.push_str(&value);
                }
                c if c == self.expander.escape => {
                    self.text.next();
                    if self.expander.raw_escapes {
                        words.current.push(c);
                        result.push(c);
                    }
                    // At the very end there is nothing to escape.
                    let Some(escaped) = self.text.next() else { break };
                    words.current.push(escaped);
                    result.push(escaped);
                }
                c => {
                    self.text.next();
                    words.push(c);
                    result.push(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((result, words.into_list())),
        }
    }

    /// Reads `'…'`, in which nothing is special.
    fn single_quoted(&mut self) -> Step<String> {
        let mut result = String::new();
        self.quote(&mut result);
        for c in self.text.by_ref() {
            if c == '\'' {
                if self.expander.raw_quotes {
                    result.push(c);
                }
                return Ok(result);
            }
            result.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    /// Reads `"…"`, in which `$` is special and `"`, `$` and the escape character can be escaped.
    fn double_quoted(&mut self) -> Step<String> {
        let mut result = String::new();
        self.quote(&mut result);
        loop {
            match self.peek() {
                None => {
                    let message = "unexpected end of statement while looking for matching double-quote";
                    return Err(message.to_owned());
                }
                Some('"') => {
                    self.quote(&mut result);
                    return Ok(result);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    result.push_str(&value);
                    if result.len() > MAX_LENGTH {
                        return Err("the result is too long".to_owned());
                    }
                }
                Some(c) if c == self.expander.escape => {
                    self.text.next();
                    if self.expander.raw_escapes {
                        result.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if matches!(next, '"' | '$') || next == self.expander.escape => {
                            self.text.next();
                            result.push(next);
                        }
                        Some(_) => result.push(c),
                    }
                }
                Some(c) => {
                    self.text.next();
                    result.push(c);
                }
            }
        }
    }

    /// Reads over a quote.
    fn quote(&mut self, result: &mut String) {
        if let Some(c) = self.text.next().filter(|_| self.expander.raw_quotes) {
            result.push(c);
        }
    }

    /// Reads `<`, or `<<` with the blanks after it: a heredoc's name may stand apart.
    fn less_than(&mut self) -> String {
        self.text.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.text.next();
        let mut result = "<<".to_owned();
        while let Some(c) = self.peek().filter(|c| matches!(c, '\t' | '\r' | ' ')) {
            result.push(c);
            self.text.next();
        }
        result
    }

    /// Reads what starts with `$`.
    fn dollar(&mut self) -> Step<String> {
        self.text.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match self.lookup(&name) {
                _ if name.is_empty() => "$".to_owned(),
                None if self.expander.keep_unset => format!("${name}"),
                value => value.unwrap_or_default().to_owned(),
            });
        }
        self.text.next();
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.text.next() {
            Some('}') => Ok(match self.lookup(&name) {
                None if self.expander.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default().to_owned(),
            }),
            Some(':') => match self.text.next() {
                Some(modifier @ ('-' | '+' | '?')) => self.conditional(&name, modifier, true),
                None => Err(MISSING_BRACE.to_owned()),
                Some(other) => {
                    if !matches!(other, '#' | '%') {
                        self.operand('}', false, MISSING_BRACE)?;
                    }
                    Err(unsupported(&format!(":{other}")))
                }
            },
            Some(modifier @ ('-' | '+' | '?')) => self.conditional(&name, modifier, false),
            Some(modifier @ ('#' | '%')) => self.trim(&name, modifier),
            Some('/') => self.replace(&name),
            other => Err(unsupported(&other.unwrap_or(END).to_string())),
        }
    }

    /// Reads the rest of `${name-word}` and its like.
    fn conditional(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Step<String> {
        let word = self.operand('}', false, MISSING_BRACE)?;
        let value = self.lookup(name);
        let colon = if empty_is_unset { ":" } else { "" };
        let Some(value) = value else {
            return match modifier {
                _ if self.expander.keep_unset => Ok(format!("${{{name}{colon}{modifier}{word}}}")),
                '-' => Ok(word),
                '+' => Ok(String::new()),
                _ => Err(required(name, &word, "is not allowed to be unset")),
            };
        };
        let counts_as_unset = empty_is_unset && value.is_empty();
        match (modifier, counts_as_unset) {
            ('-', true) | ('+', false) => Ok(word),
            ('+', true) => Ok(String::new()),
            ('?', true) => Err(required(name, &word, "is not allowed to be empty")),
            _ => Ok(value.to_owned()),
        }
    }

    /// Reads the rest of `${name#pattern}` and its like.
    fn trim(&mut self, name: &str, modifier: char) -> Step<String> {
        let word = self.operand('}', true, MISSING_BRACE)?;
        let Some(value) = self.lookup(name).map(str::to_owned) else {
            if self.expander.keep_unset {
                return Ok(format!("${{{name}{modifier}{word}}}"));
            }
            return self.trimmed("", &word, modifier);
        };
        self.trimmed(&value, &word, modifier)
    }

    fn trimmed(&self, value: &str, word: &str, modifier: char) -> Step<String> {
        let (text, reach) = match word.strip_prefix(modifier) {
            Some(rest) => (rest, Reach::Longest),
            None => (word, Reach::Shortest),
        };
        let pattern = Pattern::parse(text).map_err(|error| invalid_pattern(text, &error))?;
        let anchor = if modifier == '#' { Anchor::Start } else { Anchor::End };
        Ok(pattern.trim(value, anchor, reach))
    }

    /// Reads the rest of `${name/pattern/replacement}` and its like.
    fn replace(&mut self, name: &str) -> Step<String> {
        let all = self.peek() == Some('/');
        if all {
            self.text.next();
        }
        let text = self.operand('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true, MISSING_BRACE)?;
        let value = match self.lookup(name) {
            None if self.expander.keep_unset => return Ok(format!("${{{name}/{text}/{replacement}}}")),
            value => value.unwrap_or_default().to_owned(),
        };
        let pattern = Pattern::parse(&text).map_err(|error| invalid_pattern(&text, &error))?;
        let replaced = pattern.replace(&value, &replacement, all);
        if replaced.len() > MAX_LENGTH { Err("the result is too long".to_owned()) } else { Ok(replaced) }
    }

    /// Reads up to `stop`; at the end of the text the error is `missing`.
    fn operand(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Step<String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.at_end() => Err(missing.to_owned()),
            Err(error) => Err(error),
        }
    }

    /// Reads a name: letters, digits and `_`; digits only if it starts with one; or a special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if name.is_empty() && c.is_numeric() {
                while let Some(digit) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(digit);
                    self.text.next();
                }
                return name;
            }
            if name.is_empty() && matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.text.next();
                return c.to_string();
            }
            if !c.is_alphanumeric() && c != '_' {
                break;
            }
            name.push(c);
            self.text.next();
        }
        name
    }

    /// Returns a variable's value and notes that it was asked for.
    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        if name.is_empty() {
            return None;
        }
        let value = self.environment.get(name);
        let list = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !list.iter().any(|other| other == name) {
            list.push(name.to_owned());
        }
        value
    }
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn required(name: &str, word: &str, otherwise: &str) -> String {
    format!("{name}: {}", if word.is_empty() { otherwise } else { word })
}

fn invalid_pattern(pattern: &str, error: &str) -> String {
    format!("invalid pattern ({pattern}) in substitution: {error}")
}
