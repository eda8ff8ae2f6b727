//! Filters of what takes space, in containerd's language: any of several, each a list of conditions that must all
//! hold.

use crate::usage::{UsageItem, UsageKind};

/// What a condition can be about.
const KEYS: [&str; 9] =
    ["id", "parents", "description", "inuse", "mutable", "immutable", "type", "shared", "private"];

/// Says which items are meant; one without conditions means all.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    texts: Vec<String>,
    /// Any of these, all of whose conditions hold.
    any: Vec<Vec<(String, Condition)>>,
}

#[derive(Clone, Debug)]
enum Condition {
    Present,
    Equal(String),
    Different(String),
    Matches(String),
}

/// Says that a filter asks for what no item has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown filter `{0}`")]
pub struct ParseFilterError(String);

impl UsageFilter {
    /// Parses filters such as `type==regular,shared`.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, ParseFilterError> {
        let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        // One that is empty holds for everything, and any of several is enough.
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Ok(Self { texts, any: Vec::new() });
        }
        let parse = |text: &String| text.split(',').map(condition).collect::<Result<Vec<_>, _>>();
        let any = texts.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { texts, any })
    }

    /// Returns a filter for items of these kinds.
    pub fn of_kinds(kinds: &[UsageKind]) -> Self {
        let is = |kind: &UsageKind| ("type".to_owned(), Condition::Equal(kind.name().to_owned()));
        Self {
            texts: kinds.iter().map(|kind| format!("type=={}", kind.name())).collect(),
            any: kinds.iter().map(|kind| vec![is(kind)]).collect(),
        }
    }

    /// Returns the filters as they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Tells whether an item is meant.
    pub fn matches(&self, item: &UsageItem) -> bool {
        let holds = |(key, condition): &(String, Condition)| {
            let value = value_of(item, key);
            match condition {
                Condition::Present => value.is_some_and(|value| !value.is_empty()),
                Condition::Equal(wanted) => value.as_deref().unwrap_or("false") == wanted,
                Condition::Different(wanted) => value.as_deref().unwrap_or("false") != wanted,
                Condition::Matches(part) => value.is_some_and(|value| value.contains(part)),
            }
        };
        self.any.is_empty() || self.any.iter().any(|all| all.iter().all(holds))
    }
}

fn condition(text: &str) -> Result<(String, Condition), ParseFilterError> {
    let unquote = |text: &str| text.trim().trim_matches('"').to_owned();
    let (key, condition) = match (text.split_once("!="), text.split_once("=="), text.split_once("~=")) {
        (Some((key, value)), _, _) => (key, Condition::Different(unquote(value))),
        (_, Some((key, value)), _) => (key, Condition::Equal(unquote(value))),
        (_, _, Some((key, value))) => (key, Condition::Matches(unquote(value))),
        _ => (text, Condition::Present),
    };
    let key = key.trim();
    match KEYS.contains(&key) {
        true => Ok((key.to_owned(), condition)),
        false => Err(ParseFilterError(text.to_owned())),
    }
}

/// Returns what an item has for a key; what is not so is not there.
fn value_of(item: &UsageItem, key: &str) -> Option<String> {
    let flag = |value: bool| value.then(|| "true".to_owned());
    match key {
        "id" => Some(item.id.to_string()),
        "parents" => Some(item.parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")),
        "description" => Some(item.description.clone()),
        "inuse" => flag(item.in_use),
        "mutable" => flag(item.is_mutable()),
        "immutable" => flag(!item.is_mutable()),
        "shared" => flag(item.shared),
        "private" => flag(!item.shared),
        _ => Some(item.kind.name().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::usage::UsageId;

    #[test]
    fn filters_are_those_of_containerd() {
        let item = UsageItem {
            id: UsageId::CacheMount("c".to_owned()),
            kind: UsageKind::CacheMount,
            size: 1,
            created_at: SystemTime::UNIX_EPOCH,
            last_used_at: SystemTime::UNIX_EPOCH,
            use_count: 1,
            description: "cached mount /go".to_owned(),
            in_use: false,
            shared: false,
            parents: Vec::new(),
        };
        let matches = |texts: &[&str]| UsageFilter::parse(texts).map(|filter| filter.matches(&item)).ok();
        assert_eq!(matches(&[]), Some(true));
        assert_eq!(matches(&["type==exec.cachemount,mutable"]), Some(true));
        assert_eq!(matches(&["type==exec.cachemount,inuse"]), Some(false));
        assert_eq!(matches(&["type==frontend", "mutable==true"]), Some(true));
        assert_eq!(matches(&["type!=exec.cachemount"]), Some(false));
        assert_eq!(matches(&["description~=/go"]), Some(true));
        assert_eq!(matches(&["", "type==frontend"]), Some(true));
        assert_eq!(matches(&["color==red"]), None);
        assert!(UsageFilter::of_kinds(&[UsageKind::Regular, UsageKind::CacheMount]).matches(&item));
    }
}
