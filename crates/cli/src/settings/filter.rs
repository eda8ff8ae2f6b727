//! `--filter` of `du` and `prune`: which records are meant.

use std::time::{Duration, SystemTime};

use slipway_model::filter::{Comparison, Condition, Field, Filter as Conditions, parse_value};

use super::SettingsError;
use super::values::{boolean, duration, nearest};
use crate::builder::UsageRecord;

/// Conditions that a record meets, all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    conditions: Conditions,
    /// Leave records alone that were used this recently.
    pub(crate) until: Option<Duration>,
}

/// What a condition can be about.
const FIELDS: [&str; 9] =
    ["id", "parents", "description", "type", "inuse", "mutable", "immutable", "shared", "private"];

/// The flags among them, each with its opposite; what is not in use has no name.
const FLAGS: [(&str, Option<&str>); 5] = [
    ("inuse", None),
    ("mutable", Some("immutable")),
    ("immutable", Some("mutable")),
    ("shared", Some("private")),
    ("private", Some("shared")),
];

impl Filter {
    /// Parses `key`, `key=value`, `key!=value`, `key~=expression`, and `until=DURATION`.
    pub(crate) fn parse(values: &[String]) -> Result<Self, SettingsError> {
        let mut until = None;
        let mut conditions = Vec::new();
        for text in values.iter().filter(|text| !text.is_empty()) {
            let (key, operator, value) = split(text);
            let key = key.trim().to_ascii_lowercase();
            if matches!(key.as_str(), "until" | "unused-for") && operator == "=" {
                let age = duration(value).map_err(SettingsError::flag)?;
                if until.replace(age).is_some() {
                    return Err(SettingsError::flag("the filter `until` expects only one value"));
                }
                continue;
            }
            if !FIELDS.contains(&key.as_str()) {
                return Err(unknown(&key));
            }
            conditions.push(Condition::new(&key, comparison(&key, operator, value)?));
        }
        Ok(Self { conditions: conditions.into_iter().collect(), until })
    }

    /// Tells whether a record meets every condition.
    pub(crate) fn matches(&self, record: &UsageRecord, now: SystemTime) -> bool {
        let old = self.until.is_none_or(|age| {
            let used = record.last_used.unwrap_or(record.created);
            now.duration_since(used).unwrap_or_default() >= age
        });
        old && self.conditions.match_fields(|path| field_of(record, path.first().map_or("", String::as_str)))
    }

    /// Writes the conditions as daemons take them; `None` if there are none.
    pub(crate) fn to_containerd(&self) -> Option<String> {
        let conditions: Conditions = self.conditions.conditions().iter().filter_map(for_daemon).collect();
        Some(conditions.to_string()).filter(|text| !text.is_empty())
    }
}

fn unknown(key: &str) -> SettingsError {
    let names: Vec<&str> = FIELDS.into_iter().chain(["until"]).collect();
    let error = SettingsError::flag(format!("unknown filter `{key}`"));
    match nearest(key, &names) {
        Some(near) => error.hint(format!("did you mean `--filter {near}=…`?")),
        None => error.hint(format!("known filters are {}", names.join(", "))),
    }
}

/// Splits a filter into its key, the operator, which may be missing, and the value.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((key, value)) = text.split_once('=') else { return (text, "", "") };
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    match key.strip_suffix('!') {
        Some(key) => (key, "!=", value),
        None => match key.strip_suffix('~') {
            Some(key) => (key, "~=", value),
            None => (key, "=", value),
        },
    }
}

fn comparison(key: &str, operator: &str, value: &str) -> Result<Comparison, SettingsError> {
    // A part of an id is enough.
    let is_expression = operator == "~=" || (operator == "=" && key == "id");
    let wrong = |error: &dyn std::fmt::Display| SettingsError::flag(error.to_string());
    let mut value = parse_value(value, is_expression).map_err(|error| wrong(&error))?;
    if FLAGS.iter().any(|(flag, _)| *flag == key)
        && let Some(is_set) = boolean(&value)
    {
        value = is_set.to_string();
    }
    Ok(match operator {
        "" => Comparison::Present,
        "!=" => Comparison::NotEqual(value),
        _ if is_expression => Comparison::matches(&value).map_err(|error| wrong(&error))?,
        _ => Comparison::Equal(value),
    })
}

/// Returns what daemons are told; `None` is a condition that they need not be told when they remove records.
fn for_daemon(condition: &Condition) -> Option<Condition> {
    let name = condition.field();
    let Some((_, opposite)) = FLAGS.iter().find(|(flag, _)| *flag == name) else {
        return Some(condition.clone());
    };
    // Daemons know whether a flag is set, and not its values. What is in use is not removed anyway.
    let told = if condition.comparison().holds(&Field::Flag(true)) { Some(name) } else { *opposite };
    told.map(|name| Condition::new(name, Comparison::Present))
}

fn field_of<'a>(record: &'a UsageRecord, name: &str) -> Field<'a> {
    match name {
        "id" => Field::text(record.id.as_str()),
        "parents" => Field::text(record.parents.join(";")),
        "description" => Field::text(record.description.as_str()),
        "type" => Field::text(record.kind.as_str()),
        "inuse" => Field::Flag(record.in_use),
        "mutable" => Field::Flag(record.mutable),
        "immutable" => Field::Flag(!record.mutable),
        "shared" => Field::Flag(record.shared),
        "private" => Field::Flag(!record.shared),
        _ => Field::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn filters_select() {
        let record = UsageRecord {
            id: "abc123".into(),
            parents: vec!["p1".into()],
            kind: "exec.cachemount".into(),
            description: "mount /cache".into(),
            size: 1,
            mutable: true,
            in_use: false,
            shared: false,
            usage_count: 1,
            created: UNIX_EPOCH,
            last_used: None,
        };
        let now = UNIX_EPOCH + Duration::from_secs(3600);
        let matches = |text: &str| Filter::parse(&[text.to_owned()]).map(|f| f.matches(&record, now)).ok();
        for (text, want) in [
            ("id=c12", Some(true)),
            ("id=zz", Some(false)),
            ("type=exec.cachemount", Some(true)),
            ("type!=regular", Some(true)),
            ("description~=^mount.*cache$", Some(true)),
            ("description~=^cache", Some(false)),
            ("description=mount /cache", Some(true)),
            ("description~=|t /c|", Some(true)),
            ("description~=/t /c/", None),
            ("ID=^abc", Some(true)),
            ("description~=(", None),
            ("parents=p1", Some(true)),
            ("parents!=p1", Some(false)),
            ("mutable", Some(true)),
            ("immutable", Some(false)),
            ("inuse=false", Some(true)),
            ("shared!=true", Some(true)),
            ("private", Some(true)),
            ("until=30m", Some(true)),
            ("until=2h", Some(false)),
            ("until=x", None),
            ("tipe=x", None),
        ] {
            assert_eq!(matches(text), want, "{text}");
        }
    }

    #[test]
    fn daemons_are_told_by_names_what_is_not_set() {
        for (text, told) in [
            ("id=c12", Some("id~=c12")),
            ("type!=regular", Some("type!=regular")),
            ("description=a cache", Some("description==\"a cache\"")),
            ("description~=^/go", Some("description~=^/go")),
            ("description", Some("description")),
            ("mutable", Some("mutable")),
            ("mutable=false", Some("immutable")),
            ("immutable!=true", Some("mutable")),
            ("shared=true", Some("shared")),
            ("private=false", Some("shared")),
            ("inuse=false", None),
        ] {
            let filter = Filter::parse(&[text.to_owned()]).unwrap();
            assert_eq!(filter.to_containerd().as_deref(), told, "{text}");
        }
    }
}
