//! Filters of what takes space: any of several, each a list of conditions that must all hold.

use std::borrow::Cow;

use slipway_model::filter::{Comparison, Condition, Field, Filter, Filters, ParseFilterError};

use crate::usage::{UsageItem, UsageKind};

/// What a condition can be about.
const FIELDS: [&str; 9] =
    ["id", "parents", "description", "inuse", "mutable", "immutable", "type", "shared", "private"];

/// Says which items are meant; one without conditions means all.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter(Filters);

/// Says why a filter of what takes space is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageFilterError {
    #[error(transparent)]
    Parse(#[from] ParseFilterError),
    /// No item has such a field, so the filter would mean nothing, or everything.
    #[error("unknown filter `{0}`")]
    Unknown(String),
}

impl UsageFilter {
    /// Parses filters such as `type==regular,shared`.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, UsageFilterError> {
        let filters = Filters::parse(texts)?;
        if let Some(unknown) = filters.fields().find(|field| !FIELDS.contains(field)) {
            return Err(UsageFilterError::Unknown(unknown.to_owned()));
        }
        Ok(Self(filters))
    }

    /// Returns a filter for items of these kinds.
    pub fn of_kinds(kinds: &[UsageKind]) -> Self {
        let is = |kind: &UsageKind| Condition::new("type", Comparison::Equal(kind.name().to_owned()));
        Self(kinds.iter().map(|kind| Filter::from_iter([is(kind)])).collect())
    }

    /// Writes each filter.
    pub fn texts(&self) -> Vec<String> {
        self.0.texts()
    }

    /// Tells whether an item is meant.
    pub fn matches(&self, item: &UsageItem) -> bool {
        self.0.match_fields(|path| field_of(item, path.first().map_or("", String::as_str)))
    }
}

fn field_of<'a>(item: &'a UsageItem, name: &str) -> Field<'a> {
    match name {
        "id" => Field::text(item.id.to_string()),
        "parents" => Field::text(item.parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")),
        "description" => Field::text(item.description.as_str()),
        "inuse" => Field::Flag(item.in_use),
        "mutable" => Field::Flag(item.is_mutable()),
        "immutable" => Field::Flag(!item.is_mutable()),
        "shared" => Field::Flag(item.shared),
        "private" => Field::Flag(!item.shared),
        "type" => Field::Text(Cow::Borrowed(item.kind.name())),
        _ => Field::Absent,
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
        assert_eq!(matches(&["description~=^cached.*go$"]), Some(true));
        assert_eq!(matches(&["description~=^mount"]), Some(false));
        assert_eq!(matches(&["parents,private"]), Some(false));
        assert_eq!(matches(&["", "type==frontend"]), Some(true));
        assert_eq!(matches(&["color==red"]), None);
        assert_eq!(matches(&["description~=("]), None);
        let kinds = UsageFilter::of_kinds(&[UsageKind::Regular, UsageKind::CacheMount]);
        assert!(kinds.matches(&item));
        assert_eq!(kinds.texts(), ["type==regular", "type==exec.cachemount"]);
    }
}
