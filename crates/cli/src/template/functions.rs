//! The functions of templates: Go's own, and those of Docker's formatter.

use std::cmp::Ordering;

use serde_json::Value;

use super::{JsonStyle, TemplateError};

/// A function by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Index,
    Len,
    Slice,
    Print,
    Println,
    Printf,
    Json,
    Join,
    Split,
    Lower,
    Upper,
    Title,
    Pad,
    Truncate,
}

impl Function {
    /// Finds a function.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "index" => Self::Index,
            "len" => Self::Len,
            "slice" => Self::Slice,
            "print" => Self::Print,
            "println" => Self::Println,
            "printf" => Self::Printf,
            "json" => Self::Json,
            "join" => Self::Join,
            "split" => Self::Split,
            "lower" => Self::Lower,
            "upper" => Self::Upper,
            "title" => Self::Title,
            "pad" => Self::Pad,
            "truncate" => Self::Truncate,
            _ => return None,
        })
    }

    /// Calls the function.
    pub(super) fn call(self, arguments: Vec<Value>, json: JsonStyle) -> Result<Value, TemplateError> {
        let least = match self {
            Self::Eq
            | Self::Ne
            | Self::Lt
            | Self::Le
            | Self::Gt
            | Self::Ge
            | Self::Join
            | Self::Split
            | Self::Truncate => 2,
            Self::Pad => 3,
            Self::Print | Self::Println => 0,
            _ => 1,
        };
        if arguments.len() < least {
            return Err(self.error(format!("wants at least {least} arguments, has {}", arguments.len())));
        }
        self.apply(&arguments, json)
    }

    fn apply(self, arguments: &[Value], json: JsonStyle) -> Result<Value, TemplateError> {
        let text = |at: usize| match &arguments[at] {
            Value::String(text) => Ok(text.as_str()),
            other => Err(self.error(format!("expected text, found {}", kind_of(other)))),
        };
        let whole = |at: usize| {
            let number = arguments[at].as_u64().and_then(|n| usize::try_from(n).ok());
            number.ok_or_else(|| self.error(format!("expected a number, found {}", kind_of(&arguments[at]))))
        };
        let last = arguments.last().cloned().unwrap_or_default();
        Ok(match self {
            Self::And => arguments.iter().find(|value| !is_true(value)).cloned().unwrap_or(last),
            Self::Or => arguments.iter().find(|value| is_true(value)).cloned().unwrap_or(last),
            Self::Not => (!is_true(&arguments[0])).into(),
            Self::Eq => arguments[1..].iter().any(|other| *other == arguments[0]).into(),
            Self::Ne => (arguments[0] != arguments[1]).into(),
            Self::Lt => self.order(arguments)?.is_lt().into(),
            Self::Le => self.order(arguments)?.is_le().into(),
            Self::Gt => self.order(arguments)?.is_gt().into(),
            Self::Ge => self.order(arguments)?.is_ge().into(),
            Self::Index => self.index(arguments)?,
            Self::Len => self.length(&arguments[0])?.into(),
            Self::Slice => self.slice(arguments)?,
            Self::Print => arguments.iter().map(shown).collect::<String>().into(),
            Self::Println => (arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
            Self::Printf => printf(text(0)?, &arguments[1..]).into(),
            Self::Json => to_json(&arguments[0], json).into(),
            Self::Join => match &arguments[0] {
                Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(text(1)?).into(),
                Value::Null => Value::String(String::new()),
                other => return Err(self.error(format!("expected a list, found {}", kind_of(other)))),
            },
            Self::Split => text(0)?.split(text(1)?).map(Value::from).collect(),
            Self::Lower => text(0)?.to_lowercase().into(),
            Self::Upper => text(0)?.to_uppercase().into(),
            Self::Title => title(text(0)?).into(),
            Self::Pad => match text(0)? {
                "" => Value::String(String::new()),
                inner => {
                    format!("{}{inner}{}", " ".repeat(whole(1)?.min(1024)), " ".repeat(whole(2)?.min(1024)))
                        .into()
                }
            },
            Self::Truncate => text(0)?.chars().take(whole(1)?).collect::<String>().into(),
        })
    }

    fn error(self, reason: String) -> TemplateError {
        TemplateError::Function { function: format!("{self:?}").to_lowercase(), reason }
    }

    fn order(self, arguments: &[Value]) -> Result<Ordering, TemplateError> {
        let order = match (&arguments[0], &arguments[1]) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
            },
            _ => None,
        };
        order.ok_or_else(|| self.error("incompatible types for comparison".to_owned()))
    }

    fn index(self, arguments: &[Value]) -> Result<Value, TemplateError> {
        let mut value = arguments[0].clone();
        for key in &arguments[1..] {
            value = match (&value, key) {
                (Value::Object(map), Value::String(key)) => map.get(key).cloned().unwrap_or_default(),
                (Value::Array(list), Value::Number(at)) => at
                    .as_u64()
                    .and_then(|at| list.get(usize::try_from(at).ok()?))
                    .cloned()
                    .ok_or_else(|| self.error(format!("index out of range: {at}")))?,
                (Value::Null, _) => Value::Null,
                (other, _) => return Err(self.error(format!("cannot index {}", kind_of(other)))),
            };
        }
        Ok(value)
    }

    fn length(self, value: &Value) -> Result<usize, TemplateError> {
        match value {
            Value::String(text) => Ok(text.len()),
            Value::Array(list) => Ok(list.len()),
            Value::Object(map) => Ok(map.len()),
            Value::Null => Ok(0),
            other => Err(self.error(format!("{} has no length", kind_of(other)))),
        }
    }

    fn slice(self, arguments: &[Value]) -> Result<Value, TemplateError> {
        let length = self.length(&arguments[0])?;
        let bound = |at: usize, default: usize| {
            let given =
                arguments.get(at).map_or(Some(default), |v| v.as_u64().and_then(|n| n.try_into().ok()));
            given.filter(|n| *n <= length).ok_or_else(|| self.error("index out of range".to_owned()))
        };
        let (from, to) = (bound(1, 0)?, bound(2, length)?);
        let out_of_range = || self.error("index out of range".to_owned());
        match &arguments[0] {
            Value::String(text) => text.get(from..to).map(Value::from).ok_or_else(out_of_range),
            Value::Array(list) => {
                list.get(from..to).map(|part| part.to_vec().into()).ok_or_else(out_of_range)
            }
            other => Err(self.error(format!("cannot slice {}", kind_of(other)))),
        }
    }
}

/// Tells whether a value counts as true: not empty, not zero.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Names the kind of a value for an error.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Formats a value as Go's `print` does.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{k}:{}", shown(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

fn to_json(value: &Value, style: JsonStyle) -> String {
    match style {
        JsonStyle::Compact => value.to_string(),
        JsonStyle::Indented => format!("{value:#}"),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let at_start = std::mem::replace(&mut start, c.is_whitespace());
            let upper: Vec<char> = if at_start { c.to_uppercase().collect() } else { vec![c] };
            upper
        })
        .collect()
}

/// Formats with Go's verbs; flags and widths apply to texts and numbers.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || "-+ #.".contains(*c)) {
            spec.push(c);
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = match verb {
            'q' => format!("{:?}", shown(value)),
            'f' => {
                let precision = spec.split_once('.').and_then(|(_, p)| p.parse().ok()).unwrap_or(6);
                format!("{:.*}", precision, value.as_f64().unwrap_or(f64::NAN))
            }
            'x' => value.as_u64().map_or_else(|| hex(&shown(value)), |n| format!("{n:x}")),
            _ => shown(value),
        };
        out.push_str(&padded(&text, &spec, verb));
    }
    out
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn padded(text: &str, spec: &str, verb: char) -> String {
    let (width, precision) = spec.split_once('.').unwrap_or((spec, ""));
    let text: String = match precision.parse() {
        Ok(most) if verb != 'f' => text.chars().take(most).collect(),
        _ => text.to_owned(),
    };
    let left = width.contains('-');
    let zeros = !left && width.starts_with('0') && verb != 's';
    let width: usize = width.trim_start_matches(['-', '+', ' ', '#', '0']).parse().unwrap_or(0);
    let fill = width.min(4096).saturating_sub(text.chars().count());
    match (left, zeros) {
        (true, _) => text + &" ".repeat(fill),
        (false, true) => "0".repeat(fill) + &text,
        (false, false) => " ".repeat(fill) + &text,
    }
}
