//! JSON texts: HCL's other syntax, in which every string is a template.
//!
//! What is a block and what an attribute is not in the text: the names of bake's blocks decide.

use std::rc::Rc;

use super::hcl::parse_template;
use super::tree::{Expr, Kind};
use super::{Attribute, Block, Body};
use crate::error::{Problem, Result, Span};
use crate::value::{Value, parse_number};

/// The blocks of a file; all have one label.
const BLOCKS: &[&str] = &["target", "group", "variable", "function"];
/// Deeper texts are refused.
const MAX_DEPTH: usize = 128;

/// Parses a file.
pub(crate) fn parse_json(file: usize, text: &str) -> Result<Body> {
    let mut reader = Reader { file, text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.wrong("something follows the end of the JSON value"));
    }
    let mut body = Body::default();
    for (name, member) in flatten(&value)? {
        if BLOCKS.contains(&name.text.as_str()) {
            for (label, content) in flatten(member)? {
                for content in bodies(content)? {
                    body.blocks.push(Rc::new(block(file, &name.text, label, content)?));
                }
            }
        } else if name.text != "//" {
            body.attributes.push(attribute(file, name, member)?);
        }
    }
    Ok(body)
}

fn block(file: usize, kind: &str, label: &Name, content: &Json) -> Result<Block> {
    let mut body = Body::default();
    for (name, member) in flatten(content)? {
        if name.text == "//" {
            continue;
        }
        if kind == "variable" && name.text == "validation" {
            for content in bodies(member)? {
                body.blocks.push(Rc::new(block(file, "validation", name, content)?));
            }
            continue;
        }
        body.attributes.push(attribute(file, name, member)?);
    }
    Ok(Block { kind: kind.to_owned(), labels: vec![label.text.clone()], body, span: label.span })
}

fn attribute(file: usize, name: &Name, value: &Json) -> Result<Attribute> {
    let value = Rc::new(expression(file, value)?);
    Ok(Attribute { name: name.text.clone(), value, name_span: name.span })
}

fn expression(file: usize, json: &Json) -> Result<Expr> {
    let kind = match &json.kind {
        JsonKind::Literal(value) => Kind::Literal(value.clone()),
        JsonKind::String(text) => return parse_template(file, text, json.span),
        JsonKind::Array(list) => {
            Kind::Tuple(list.iter().map(|json| expression(file, json)).collect::<Result<_>>()?)
        }
        JsonKind::Object(members) => {
            let member = |(name, value): &(Name, Json)| {
                Ok((parse_template(file, &name.text, name.span)?, expression(file, value)?))
            };
            Kind::Object(members.iter().map(member).collect::<Result<_>>()?)
        }
    };
    Ok(Expr::new(kind, json.span))
}

/// Lists the members of an object, or of an array of objects.
fn flatten(json: &Json) -> Result<Vec<(&Name, &Json)>> {
    Ok(match &json.kind {
        JsonKind::Object(members) => members.iter().map(|(name, value)| (name, value)).collect(),
        JsonKind::Array(list) => {
            let mut all = Vec::new();
            for item in list {
                match &item.kind {
                    JsonKind::Object(members) => {
                        all.extend(members.iter().map(|(name, value)| (name, value)));
                    }
                    _ => return Err(Problem::new("a JSON object is required here").at(item.span).into()),
                }
            }
            all
        }
        JsonKind::Literal(Value::Null) => Vec::new(),
        _ => return Err(Problem::new("a JSON object is required here").at(json.span).into()),
    })
}

/// Lists the bodies of a block: one, or as many as an array has.
fn bodies(json: &Json) -> Result<Vec<&Json>> {
    Ok(match &json.kind {
        JsonKind::Array(list) => list.iter().collect(),
        JsonKind::Literal(Value::Null) => Vec::new(),
        _ => vec![json],
    })
}

struct Name {
    text: String,
    span: Span,
}

struct Json {
    kind: JsonKind,
    span: Span,
}

enum JsonKind {
    Literal(Value),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(Name, Json)>),
}

struct Reader<'a> {
    file: usize,
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        let trimmed = self.rest().trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - trimmed.len();
    }

    fn span(&self, start: usize) -> Span {
        Span { file: self.file, start, end: self.at }
    }

    fn wrong(&self, reason: &str) -> crate::error::Problems {
        let width = self.rest().chars().next().map_or(0, char::len_utf8);
        let span = Span { file: self.file, start: self.at, end: self.at + width };
        Problem::new("invalid JSON").because(reason).at(span).into()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("the values are nested too deeply"));
        }
        self.space();
        let start = self.at;
        let kind = match self.rest().bytes().next() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => JsonKind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => {
                let end = |c: char| !c.is_ascii_digit() && !"+-.eE".contains(c);
                let length = self.rest().find(end).unwrap_or(self.rest().len());
                let number = parse_number(&self.rest()[..length]);
                let number = number.ok_or_else(|| self.wrong("the number cannot be read"))?;
                self.at += length;
                JsonKind::Literal(Value::Number(number))
            }
            _ if self.take("true") => JsonKind::Literal(Value::Bool(true)),
            _ if self.take("false") => JsonKind::Literal(Value::Bool(false)),
            _ if self.take("null") => JsonKind::Literal(Value::Null),
            None => return Err(self.wrong("the text ends where a value is expected")),
            Some(_) => return Err(self.wrong("a value is expected here")),
        };
        Ok(Json { kind, span: self.span(start) })
    }

    fn object(&mut self, depth: usize) -> Result<JsonKind> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            self.space();
            if self.take("}") {
                return Ok(JsonKind::Object(members));
            }
            if !members.is_empty() {
                if !self.take(",") {
                    return Err(self.wrong("expected `,` or `}`"));
                }
                self.space();
            }
            if !self.rest().starts_with('"') {
                return Err(self.wrong("expected a name in double quotes"));
            }
            let start = self.at;
            let name = Name { text: self.string()?, span: self.span(start) };
            self.space();
            if !self.take(":") {
                return Err(self.wrong("expected `:`"));
            }
            members.push((name, self.value(depth + 1)?));
        }
    }

    fn array(&mut self, depth: usize) -> Result<JsonKind> {
        self.at += 1;
        let mut list = Vec::new();
        loop {
            self.space();
            if self.take("]") {
                return Ok(JsonKind::Array(list));
            }
            if !list.is_empty() && !self.take(",") {
                return Err(self.wrong("expected `,` or `]`"));
            }
            list.push(self.value(depth + 1)?);
        }
    }

    fn string(&mut self) -> Result<String> {
        let mut escaped = false;
        let end = self.rest().bytes().enumerate().skip(1).find(|(_, byte)| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else { return Err(self.wrong("the string has no closing `\"`")) };
        let text = serde_json::from_str(&self.rest()[..=end])
            .map_err(|_| self.wrong("the string holds an escape or a character that JSON does not have"))?;
        self.at += end + 1;
        Ok(text)
    }
}
