//! Rules for sources, as clients write them in JSON: what is refused, and what is used instead.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SourceRules {
    #[serde(default)]
    pub version: i64,
    #[serde(default)]
    pub rules: Vec<SourceRule>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SourceRule {
    #[serde(default)]
    pub action: RuleAction,
    #[serde(default)]
    pub selector: Option<RuleSelector>,
    #[serde(default)]
    pub updates: Option<RuleUpdates>,
}

/// What a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RuleSelector {
    #[serde(default)]
    pub identifier: String,
    #[serde(default)]
    pub match_type: RuleMatch,
    #[serde(default)]
    pub constraints: Vec<RuleConstraint>,
}

/// What a rule uses instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RuleUpdates {
    #[serde(default)]
    pub identifier: String,
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
}

/// What an attribute has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RuleConstraint {
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub condition: RuleCondition,
}

/// Makes an enumeration that JSON has by name or by number.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(i32)]
        pub enum $name {
            #[default]
            $($variant),+
        }

        impl $name {
            const ALL: &[(&str, Self)] = &[$(($text, Self::$variant)),+];
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                let found = Self::ALL.iter().enumerate().find(|(number, (name, _))| {
                    value.as_str() == Some(name) || value.as_u64() == Some(*number as u64)
                });
                let wrong = || serde::de::Error::custom(format!("unknown {} {value}", stringify!($name)));
                found.map(|(_, (_, variant))| *variant).ok_or_else(wrong)
            }
        }
    };
}

named! {
    /// What a rule does.
    RuleAction { Allow = "ALLOW", Deny = "DENY", Convert = "CONVERT" }
}
named! {
    /// How an identifier is meant.
    RuleMatch { Wildcard = "WILDCARD", Exact = "EXACT", Regex = "REGEX" }
}
named! {
    /// How an attribute is compared.
    RuleCondition { Equal = "EQUAL", NotEqual = "NOTEQUAL", Matches = "MATCHES" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        let text = r#"{"version": 1, "rules": [
            {"action": "DENY", "selector": {"identifier": "*", "match_type": 1,
             "constraints": [{"key": "k", "value": "v", "condition": "MATCHES"}]}},
            {"action": 2, "selector": {"identifier": "a"}, "updates": {"identifier": "b", "attrs": {"x": "y"}}}
        ]}"#;
        let rules: SourceRules = serde_json::from_str(text).unwrap();
        let [deny, convert] = rules.rules.as_slice() else { panic!("{rules:?}") };
        let selector = deny.selector.as_ref().unwrap();
        assert_eq!((deny.action, selector.match_type), (RuleAction::Deny, RuleMatch::Exact));
        assert_eq!(selector.constraints[0].condition, RuleCondition::Matches);
        assert_eq!(convert.action, RuleAction::Convert);
        assert_eq!(convert.updates.as_ref().unwrap().identifier, "b");
        assert!(serde_json::from_str::<SourceRules>(r#"{"rules": [{"action": "MAYBE"}]}"#).is_err());
    }
}
