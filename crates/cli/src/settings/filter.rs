//! `--filter` of `du` and `prune`: which records are meant.

use std::time::{Duration, SystemTime};

use super::SettingsError;
use super::values::{boolean, duration, nearest};
use crate::builder::UsageRecord;

/// Conditions that a record meets, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    conditions: Vec<Condition>,
    /// Leave records alone that were used this recently.
    pub(crate) until: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: Key,
    comparison: Comparison,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// Given without a value: the key is true.
    Is,
    Equal,
    NotEqual,
    Contains,
}

const KEYS: &[(&str, Key)] = &[
    ("id", Key::Id),
    ("parents", Key::Parents),
    ("description", Key::Description),
    ("type", Key::Type),
    ("inuse", Key::InUse),
    ("mutable", Key::Mutable),
    ("immutable", Key::Immutable),
    ("shared", Key::Shared),
    ("private", Key::Private),
];

impl Filter {
    /// Parses `key`, `key=value`, `key!=value`, `key~=value`, and `until=DURATION`.
    pub(crate) fn parse(values: &[String]) -> Result<Self, SettingsError> {
        let mut filter = Self::default();
        for text in values.iter().filter(|text| !text.is_empty()) {
            let (key, comparison, value) = split(text);
            if matches!(key, "until" | "unused-for") && comparison == Comparison::Equal {
                let age = duration(value).map_err(SettingsError::flag)?;
                if filter.until.replace(age).is_some() {
                    return Err(SettingsError::flag("the filter `until` expects only one value"));
                }
                continue;
            }
            let known = KEYS.iter().find(|(name, _)| *name == key).map(|(_, key)| *key);
            let key = known.ok_or_else(|| {
                let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).chain(["until"]).collect();
                let error = SettingsError::flag(format!("unknown filter `{key}`"));
                match nearest(key, &names) {
                    Some(near) => error.hint(format!("did you mean `--filter {near}=…`?")),
                    None => error.hint(format!("known filters are {}", names.join(", "))),
                }
            })?;
            filter.conditions.push(Condition { key, comparison, value: value.to_owned() });
        }
        Ok(filter)
    }

    /// Tells whether a record meets every condition.
    pub(crate) fn matches(&self, record: &UsageRecord, now: SystemTime) -> bool {
        let old = self.until.is_none_or(|age| {
            let used = record.last_used.unwrap_or(record.created);
            now.duration_since(used).unwrap_or_default() >= age
        });
        old && self.conditions.iter().all(|condition| condition.holds(record))
    }
}

impl Filter {
    /// Writes the conditions as daemons take them; `None` if there are none.
    pub(crate) fn to_containerd(&self) -> Option<String> {
        let conditions: Vec<String> = self.conditions.iter().filter_map(Condition::to_containerd).collect();
        Some(conditions.join(",")).filter(|text| !text.is_empty())
    }
}

fn split(text: &str) -> (&str, Comparison, &str) {
    let Some((key, value)) = text.split_once('=') else { return (text, Comparison::Is, "") };
    let value = value.strip_prefix('=').unwrap_or(value);
    if let Some(key) = key.strip_suffix('!') {
        (key, Comparison::NotEqual, value)
    } else if let Some(key) = key.strip_suffix('~') {
        (key, Comparison::Contains, value)
    } else {
        (key, Comparison::Equal, value)
    }
}

impl Condition {
    /// Writes the condition; `None` is one that daemons need not be told when they remove records.
    fn to_containerd(&self) -> Option<String> {
        let name = |wanted: Key| KEYS.iter().find(|(_, key)| *key == wanted).map_or("", |(name, _)| name);
        let operator = match self.comparison {
            Comparison::Equal if self.key == Key::Id => "~=",
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Is | Comparison::Contains => "~=",
        };
        // Daemons know whether a flag is set, and not its values: its opposite has a name of its own.
        let opposite = match self.key {
            Key::Id | Key::Parents | Key::Description | Key::Type if self.comparison == Comparison::Is => {
                return Some(name(self.key).to_owned());
            }
            Key::Id | Key::Parents | Key::Description | Key::Type => {
                return Some(format!("{}{operator}{}", name(self.key), self.value));
            }
            Key::Mutable => Some(Key::Immutable),
            Key::Immutable => Some(Key::Mutable),
            Key::Shared => Some(Key::Private),
            Key::Private => Some(Key::Shared),
            // What is in use is not removed anyway.
            Key::InUse => None,
        };
        let is_set = match self.comparison {
            Comparison::Is => true,
            Comparison::Equal | Comparison::Contains => boolean(&self.value) == Some(true),
            Comparison::NotEqual => boolean(&self.value) != Some(true),
        };
        let key = if is_set { Some(self.key) } else { opposite };
        key.map(|key| name(key).to_owned())
    }

    fn holds(&self, record: &UsageRecord) -> bool {
        let flag = |on: bool| match self.comparison {
            Comparison::Is => on,
            Comparison::NotEqual => boolean(&self.value) != Some(on),
            Comparison::Equal | Comparison::Contains => boolean(&self.value) == Some(on),
        };
        let text = |text: &str| match self.comparison {
            Comparison::Is => !text.is_empty(),
            // An id is given by its beginning or any part of it.
            Comparison::Equal if self.key == Key::Id => text.contains(&self.value),
            Comparison::Equal => text == self.value,
            Comparison::NotEqual => text != self.value,
            Comparison::Contains => text.contains(&self.value),
        };
        match self.key {
            Key::Id => text(&record.id),
            Key::Parents if self.comparison == Comparison::NotEqual => {
                record.parents.iter().all(|id| text(id))
            }
            Key::Parents => record.parents.iter().any(|id| text(id)),
            Key::Description => text(&record.description),
            Key::Type => text(&record.kind),
            Key::InUse => flag(record.in_use),
            Key::Mutable => flag(record.mutable),
            Key::Immutable => flag(!record.mutable),
            Key::Shared => flag(record.shared),
            Key::Private => flag(!record.shared),
        }
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
            ("description~=cache", Some(true)),
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
