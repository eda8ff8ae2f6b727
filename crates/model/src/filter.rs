//! Filters in containerd's language: `type==regular,shared` are two conditions that must both hold.
//!
//! Owns the grammar and what a condition means; which fields there are is known by whoever is asked. A condition is a
//! field alone, which has to be there, or a field, an operator and a value: `==`, `!=`, and `~=` for a regular
//! expression. Fields and values may be quoted as in Go, behind `~=` also with `/` and `|`. Two things
//! are stricter than there: an expression that cannot be read is an error and not one that matches nothing, and a
//! caller can refuse fields that it does not know.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;

/// Filters of which any is enough; without one, all is meant.
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<Filter>);

/// Conditions that must all hold; one that is empty always holds.
#[derive(Clone, Debug, Default)]
pub struct Filter(Vec<Condition>);

/// What is asked of one field.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The field's name, and of a field with members theirs.
    path: Vec<String>,
    comparison: Comparison,
}

/// How a field is compared.
#[derive(Clone, Debug)]
pub enum Comparison {
    /// It is there.
    Present,
    Equal(String),
    /// It is another, or none.
    NotEqual(String),
    /// A part of it is such.
    Matches(Regex),
}

/// What a thing has for a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Absent,
    /// It is there or not, and has no text; compared with one, it is `true` or `false`.
    Flag(bool),
    Text(Cow<'a, str>),
}

/// Says what is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter `{text}`: {problem}")]
pub struct ParseFilterError {
    text: String,
    problem: String,
}

impl<'a> Field<'a> {
    /// Returns a field that is there if it is not empty.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Absent } else { Self::Text(text) }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Absent => "",
            Self::Flag(false) => "false",
            Self::Flag(true) => "true",
            Self::Text(text) => text,
        }
    }
}

impl Filters {
    /// Parses filters of which any is enough.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, ParseFilterError> {
        texts.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the names of the fields that are asked for.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|filter| &filter.0).map(Condition::field)
    }

    /// Tells whether a thing is meant; `field` is given a name and those of members.
    pub fn match_fields<'a>(&self, field: impl Fn(&[String]) -> Field<'a>) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.match_fields(&field))
    }

    /// Writes each filter.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl FromIterator<Filter> for Filters {
    fn from_iter<T: IntoIterator<Item = Filter>>(filters: T) -> Self {
        Self(filters.into_iter().collect())
    }
}

impl Filter {
    /// Returns the conditions.
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }

    /// Tells whether all conditions hold; `field` is given a name and those of members.
    pub fn match_fields<'a>(&self, field: impl Fn(&[String]) -> Field<'a>) -> bool {
        self.0.iter().all(|condition| condition.comparison.holds(&field(&condition.path)))
    }
}

impl FromIterator<Condition> for Filter {
    fn from_iter<T: IntoIterator<Item = Condition>>(conditions: T) -> Self {
        Self(conditions.into_iter().collect())
    }
}

impl Condition {
    /// Asks for a field by its name.
    pub fn new(field: &str, comparison: Comparison) -> Self {
        Self { path: vec![field.to_owned()], comparison }
    }

    /// Returns the field's name, without those of members.
    pub fn field(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }

    /// Returns how the field is compared.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }
}

impl Comparison {
    /// Compares with an expression.
    pub fn matches(expression: &str) -> Result<Self, ParseFilterError> {
        let problem = |error: regex::Error| ParseFilterError {
            text: expression.to_owned(),
            problem: format!("not a regular expression: {error}"),
        };
        Regex::new(expression).map(Self::Matches).map_err(problem)
    }

    /// Tells whether a field is such.
    pub fn holds(&self, field: &Field<'_>) -> bool {
        match self {
            Self::Present => !matches!(field, Field::Absent | Field::Flag(false)),
            Self::Equal(wanted) => !matches!(field, Field::Absent) && field.as_str() == wanted,
            Self::NotEqual(wanted) => field.as_str() != wanted,
            Self::Matches(expression) => expression.is_match(field.as_str()),
        }
    }
}

impl std::str::FromStr for Filter {
    type Err = ParseFilterError;

    fn from_str(text: &str) -> Result<Self, ParseFilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut parser = Parser { text, at: 0 };
        let conditions = parser.conditions();
        conditions.map(Self).map_err(|problem| ParseFilterError { text: text.to_owned(), problem })
    }
}

/// Reads a value as it stands in a filter behind an operator, for those who write filters otherwise: it may be quoted.
pub fn parse_value(text: &str, is_expression: bool) -> Result<String, ParseFilterError> {
    if !text.starts_with(is_quote) {
        return Ok(text.to_owned());
    }
    let mut parser = Parser { text, at: 0 };
    let value = parser.quoted(is_expression).and_then(|value| match parser.rest() {
        "" => Ok(value),
        rest => Err(format!("unexpected `{rest}`")),
    });
    value.map_err(|problem| ParseFilterError { text: text.to_owned(), problem })
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(f, "{separator}{condition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.path.iter().enumerate() {
            let separator = if at == 0 { "" } else { "." };
            let is_plain = !name.is_empty() && name.chars().all(is_field);
            write!(f, "{separator}{}", if is_plain { Cow::Borrowed(name.as_str()) } else { quote(name) })?;
        }
        let (operator, value) = match &self.comparison {
            Comparison::Present => return Ok(()),
            Comparison::Equal(value) => ("==", value.as_str()),
            Comparison::NotEqual(value) => ("!=", value.as_str()),
            Comparison::Matches(expression) => ("~=", expression.as_str()),
        };
        let begins = |c: char| is_value(c) && !is_quote(c) && !is_operator(c) && c != '.';
        let is_plain = value.starts_with(begins) && value.chars().all(is_value);
        write!(f, "{operator}{}", if is_plain { Cow::Borrowed(value) } else { quote(value) })
    }
}

fn quote(text: &str) -> Cow<'_, str> {
    Cow::Owned(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")))
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '!' | '~')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '/' | '|')
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control()
}

/// Reads a filter from its beginning; problems are told without the filter's text.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn expected<T>(&self, what: &str) -> Result<T, String> {
        match self.rest() {
            "" => Err(format!("expected {what} at the end")),
            rest => Err(format!("expected {what} at `{rest}`")),
        }
    }

    fn conditions(&mut self) -> Result<Vec<Condition>, String> {
        let mut conditions = vec![self.condition()?];
        while self.eat(',') {
            conditions.push(self.condition()?);
        }
        if self.rest().is_empty() { Ok(conditions) } else { self.expected("`,`") }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let mut path = vec![self.name()?];
        while self.eat('.') {
            path.push(self.name()?);
        }
        if self.rest().is_empty() || self.rest().starts_with(',') {
            return Ok(Condition { path, comparison: Comparison::Present });
        }
        self.take(char::is_whitespace);
        let comparison = match self.take(is_operator) {
            "==" => Comparison::Equal(self.value(false)?),
            "!=" => Comparison::NotEqual(self.value(false)?),
            "~=" => Comparison::matches(&self.value(true)?).map_err(|error| error.problem)?,
            "" => return self.expected("`==`, `!=` or `~=`"),
            other => return Err(format!("unknown operator `{other}`, expected `==`, `!=` or `~=`")),
        };
        Ok(Condition { path, comparison })
    }

    fn name(&mut self) -> Result<String, String> {
        self.take(char::is_whitespace);
        if self.rest().starts_with(is_quote) {
            return self.quoted(false);
        }
        match self.take(is_field) {
            "" => self.expected("a field"),
            name => Ok(name.to_owned()),
        }
    }

    fn value(&mut self, is_expression: bool) -> Result<String, String> {
        self.take(char::is_whitespace);
        if self.rest().starts_with(is_quote) {
            return self.quoted(is_expression);
        }
        if self.rest().starts_with('.') {
            return self.expected("a value, in quotes if it begins with `.`");
        }
        match self.take(is_value) {
            "" => self.expected("a value"),
            value => Ok(value.to_owned()),
        }
    }

    /// Reads a text in quotes; only expressions may have other quotes than `"`.
    fn quoted(&mut self, is_expression: bool) -> Result<String, String> {
        let Some(quote) = self.next() else { return self.expected("a quote") };
        if quote != '"' && !is_expression {
            return Err(format!("`{quote}` quotes expressions only"));
        }
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                None | Some('\n') => return Err(format!("no `{quote}` at the end of a quoted text")),
                Some(c) if c == quote => break,
                Some('\\') => self.escape(quote, &mut bytes)?,
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| "a quoted text is not UTF-8".to_owned())
    }

    /// Reads what stands behind a backslash, as in a Go string.
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), String> {
        let unknown = || "unknown escape in a quoted text".to_owned();
        let start = self.at;
        let escaped = self.next().ok_or_else(unknown)?;
        let byte = match escaped {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            _ if escaped == quote => quote as u8,
            '0'..='7' => {
                self.at = start;
                u8::try_from(self.number(3, 8).ok_or_else(unknown)?).map_err(|_| unknown())?
            }
            'x' => u8::try_from(self.number(2, 16).ok_or_else(unknown)?).map_err(|_| unknown())?,
            'u' | 'U' => {
                let digits = if escaped == 'u' { 4 } else { 8 };
                let c = self.number(digits, 16).and_then(char::from_u32).ok_or_else(unknown)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(unknown()),
        };
        bytes.push(byte);
        Ok(())
    }

    fn number(&mut self, digits: usize, base: u32) -> Option<u32> {
        let text = self.rest().get(..digits).filter(|text| text.chars().all(|c| c.is_digit(base)))?;
        self.at += digits;
        u32::from_str_radix(text, base).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(path: &[String]) -> Field<'static> {
        match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["name"] => Field::text("a cache, of go"),
            ["mutable"] => Field::Flag(true),
            ["inuse"] => Field::Flag(false),
            ["labels", "org.x/y"] => Field::text("z"),
            _ => Field::Absent,
        }
    }

    #[test]
    fn conditions_hold_as_in_containerd() {
        for (text, holds) in [
            ("", true),
            ("name", true),
            ("other", false),
            ("name==cache", false),
            (r#"name=="a cache, of go""#, true),
            (r#"name == "a \x63ache, of \147\u006f""#, true),
            ("name!=cache", true),
            ("other!=cache", true),
            ("other==x", false),
            ("name~=cache", true),
            ("name~=^a.*go$", true),
            ("name~=^cache", false),
            ("name~=/cache, of/", true),
            ("name~=|GO|", false),
            ("other~=^$", true),
            ("name~=cache, mutable", true),
            ("name~=cache,inuse", false),
            ("mutable==true,inuse==false", true),
            ("mutable!=true", false),
            (r#"labels."org.x/y"==z"#, true),
            ("labels.org", false),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap().match_fields(field), holds, "{text}");
        }
        let any = Filters::parse(&["inuse", "mutable"]).unwrap();
        assert!(any.match_fields(field));
        assert_eq!(any.fields().collect::<Vec<_>>(), ["inuse", "mutable"]);
        assert!(Filters::default().match_fields(field));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, problem) in [
            ("ref+foo", "expected `==`, `!=` or `~=` at `+foo`"),
            ("a=b", "unknown operator `=`, expected `==`, `!=` or `~=`"),
            ("a==", "expected a value at the end"),
            ("a==b c", "expected `,` at ` c`"),
            ("a,,b", "expected a field at `,b`"),
            ("a~=/go", "no `/` at the end of a quoted text"),
            ("a==/go/", "`/` quotes expressions only"),
            (r#"a=="\q""#, "unknown escape in a quoted text"),
            ("a==.b", "expected a value, in quotes if it begins with `.` at `.b`"),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid filter `{text}`: {problem}"));
        }
        assert!("a~=(".parse::<Filter>().unwrap_err().to_string().contains("not a regular expression"));
    }

    #[test]
    fn filters_are_written_as_they_are_read() {
        for text in ["type==source.local", "a,b!=c", "a~=^b.c", r#"labels."org.x"=="a b""#, r#"a~="/x""#] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
        assert_eq!(r#""a"~=|b "c"|"#.parse::<Filter>().unwrap().to_string(), r#"a~="b \"c\"""#);
        assert_eq!(parse_value("/a b/", true).as_deref(), Ok("a b"));
        assert_eq!(parse_value("a b", true).as_deref(), Ok("a b"));
        parse_value("/a/b", true).unwrap_err();
    }
}
