//! Rules of source policies: what they match, and what becomes of it.

use std::collections::BTreeMap;

use regex::Regex;
use slipway_model::llb::pb;
use slipway_model::source_rules::{self, RuleCondition, RuleMatch};
use slipway_model::{Diagnostic, ErrorKind, SourceRules};

/// How often a source may be replaced before the rules are taken to be going round in circles.
const MAX_REPLACED: usize = 20;

/// Rules in order; of those that allow and refuse the last one that matches counts.
#[derive(Clone, Debug, Default)]
pub struct SourcePolicy(pub Vec<SourceRule>);

/// One rule.
#[derive(Clone, Debug)]
pub struct SourceRule {
    identifier: String,
    /// `None` matches the identifier alone.
    pattern: Option<Pattern>,
    constraints: Vec<AttributeConstraint>,
    action: RuleAction,
}

#[derive(Clone, Debug)]
struct Pattern {
    regex: Regex,
    /// All of the source is matched, as by wildcards.
    whole: bool,
}

/// How a rule's identifier is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// `*` is any text.
    Wildcard,
    Exact,
    Regex,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    Allow,
    Deny,
    /// Replaces the identifier, unless that is empty, and sets attributes.
    Convert {
        identifier: String,
        attributes: BTreeMap<String, String>,
    },
}

/// What an attribute has to be for a rule to match.
#[derive(Clone, Debug)]
pub struct AttributeConstraint {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug)]
enum Condition {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

fn regex(text: &str) -> Result<Regex, Diagnostic> {
    Regex::new(text).map_err(|error| {
        Diagnostic::new(ErrorKind::User, format!("invalid regex {text:?} in a source policy"))
            .cause(error.to_string())
    })
}

impl AttributeConstraint {
    /// The attribute is `value`.
    pub fn equal(key: String, value: String) -> Self {
        Self { key, condition: Condition::Equal(value) }
    }

    /// The attribute is anything but `value`.
    pub fn not_equal(key: String, value: String) -> Self {
        Self { key, condition: Condition::NotEqual(value) }
    }

    /// The attribute matches a regular expression.
    pub fn matches(key: String, expression: &str) -> Result<Self, Diagnostic> {
        Ok(Self { key, condition: Condition::Matches(regex(expression)?) })
    }

    fn holds(&self, attributes: &BTreeMap<String, String>) -> bool {
        let value = attributes.get(&self.key).map(String::as_str).unwrap_or_default();
        match &self.condition {
            Condition::Equal(wanted) => value == wanted,
            Condition::NotEqual(other) => value != other,
            Condition::Matches(expression) => expression.is_match(value),
        }
    }
}

impl SourceRule {
    fn parse(rule: &source_rules::SourceRule) -> Result<Self, Diagnostic> {
        let wrong = |text: &str| Diagnostic::new(ErrorKind::User, text);
        let selector = rule.selector.as_ref().ok_or_else(|| wrong("invalid nil selector in policy"))?;
        let action = match rule.action {
            source_rules::RuleAction::Allow => RuleAction::Allow,
            source_rules::RuleAction::Deny => RuleAction::Deny,
            source_rules::RuleAction::Convert => {
                let updates = rule.updates.as_ref();
                let updates =
                    updates.filter(|updates| !(updates.identifier.is_empty() && updates.attrs.is_empty()));
                let updates = updates.ok_or_else(|| wrong("missing destination for convert rule"))?;
                RuleAction::Convert {
                    identifier: updates.identifier.clone(),
                    attributes: updates.attrs.clone(),
                }
            }
        };
        let matching = match selector.match_type {
            RuleMatch::Wildcard => Matching::Wildcard,
            RuleMatch::Exact => Matching::Exact,
            RuleMatch::Regex => Matching::Regex,
        };
        let constraints = selector.constraints.iter().map(|constraint| {
            let (key, value) = (constraint.key.clone(), constraint.value.clone());
            match constraint.condition {
                RuleCondition::Equal => Ok(AttributeConstraint::equal(key, value)),
                RuleCondition::NotEqual => Ok(AttributeConstraint::not_equal(key, value)),
                RuleCondition::Matches => AttributeConstraint::matches(key, &value),
            }
        });
        Self::new(selector.identifier.clone(), matching, constraints.collect::<Result<_, _>>()?, action)
    }

    /// Makes a rule.
    pub fn new(
        identifier: String,
        matching: Matching,
        constraints: Vec<AttributeConstraint>,
        action: RuleAction,
    ) -> Result<Self, Diagnostic> {
        let pattern = match matching {
            Matching::Exact => None,
            Matching::Regex => Some(Pattern { regex: regex(&identifier)?, whole: false }),
            Matching::Wildcard if identifier.contains("**") => {
                let text = format!("invalid wildcard {identifier:?} in a source policy: `**`");
                return Err(Diagnostic::new(ErrorKind::User, text));
            }
            Matching::Wildcard => {
                let expression = regex::escape(&identifier).replace(r"\*", "(.*)");
                Some(Pattern { regex: regex(&format!("^{expression}$"))?, whole: true })
            }
        };
        Ok(Self { identifier, pattern, constraints, action })
    }

    fn matches(&self, source: &pb::SourceOp) -> bool {
        let name = &source.identifier;
        self.constraints.iter().all(|constraint| constraint.holds(&source.attrs))
            && (*name == self.identifier || self.pattern.as_ref().is_some_and(|p| p.regex.is_match(name)))
    }

    /// Fills what wildcards and groups matched into the name of the replacement.
    fn replacement(&self, source: &str, replacement: &str) -> String {
        let text = if replacement.is_empty() { self.identifier.as_str() } else { replacement };
        match &self.pattern {
            None => text.to_owned(),
            Some(Pattern { regex, whole: false }) => regex.replace_all(source, text).into_owned(),
            Some(Pattern { regex, whole: true }) => match regex.captures(source) {
                None => source.to_owned(),
                Some(captures) => {
                    let mut filled = String::new();
                    captures.expand(text, &mut filled);
                    filled
                }
            },
        }
    }

    /// Applies a replacement; says whether it changed anything.
    fn convert(
        &self,
        source: &mut pb::SourceOp,
        identifier: &str,
        attributes: &BTreeMap<String, String>,
    ) -> bool {
        let mut changed = false;
        let identifier = self.replacement(&source.identifier, identifier);
        if !identifier.is_empty() && identifier != source.identifier {
            source.identifier = identifier;
            changed = true;
        }
        for (key, value) in attributes {
            changed |= source.attrs.insert(key.clone(), value.clone()).as_ref() != Some(value);
        }
        changed
    }
}

impl SourcePolicy {
    /// Checks rules as a client has written them.
    ///
    /// # Errors
    /// A rule that means nothing.
    pub fn new(written: &SourceRules) -> Result<Self, Diagnostic> {
        written.rules.iter().map(SourceRule::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Applies the rules once; says whether the source was replaced.
    fn apply_once(&self, source: &mut pb::SourceOp) -> Result<bool, Diagnostic> {
        let mut denied = false;
        for rule in self.0.iter() {
            if !rule.matches(source) {
                continue;
            }
            match &rule.action {
                RuleAction::Allow => denied = false,
                RuleAction::Deny => denied = true,
                RuleAction::Convert { identifier, attributes } => {
                    if rule.convert(source, identifier, attributes) {
                        return Ok(true);
                    }
                }
            }
        }
        match denied {
            false => Ok(false),
            true => {
                let text = format!("source {:?} denied by policy", source.identifier);
                Err(Diagnostic::new(ErrorKind::User, text).cause("source denied by policy"))
            }
        }
    }
}

/// Applies policies until nothing is replaced any more.
pub(super) fn apply<'p>(
    policies: impl Iterator<Item = &'p SourcePolicy> + Clone,
    source: &mut pb::SourceOp,
) -> Result<(), Diagnostic> {
    'again: for _ in 0..=MAX_REPLACED {
        for policy in policies.clone() {
            if policy.apply_once(source)? {
                continue 'again;
            }
        }
        return Ok(());
    }
    Err(Diagnostic::new(ErrorKind::User, "too many mutations on a single source")
        .cause("the rules of the source policy replace their own replacements"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(identifier: &str, matching: Matching, action: RuleAction) -> SourceRule {
        SourceRule::new(identifier.to_owned(), matching, Vec::new(), action).unwrap()
    }

    fn to(identifier: &str) -> RuleAction {
        RuleAction::Convert { identifier: identifier.to_owned(), attributes: BTreeMap::new() }
    }

    fn applied(rules: Vec<SourceRule>, identifier: &str) -> Result<String, Diagnostic> {
        let mut source = pb::SourceOp { identifier: identifier.to_owned(), ..pb::SourceOp::default() };
        apply([&SourcePolicy(rules)].into_iter(), &mut source).map(|()| source.identifier)
    }

    #[test]
    fn sources_are_replaced_by_wildcards_and_groups() {
        let wildcard =
            rule("docker-image://library/golang:*", Matching::Wildcard, to("x://golang:${1}-alpine"));
        assert_eq!(
            applied(vec![wildcard], "docker-image://library/golang:1.19").unwrap(),
            "x://golang:1.19-alpine"
        );
        let groups = rule(r"^a/(?P<name>\w+)$", Matching::Regex, to("b/${name}"));
        assert_eq!(applied(vec![groups], "a/front").unwrap(), "b/front");
        let attributes = [("image.layerlimit".to_owned(), "1".to_owned())].into();
        let limit = RuleAction::Convert { identifier: String::new(), attributes };
        assert_eq!(applied(vec![rule("a", Matching::Exact, limit)], "a").unwrap(), "a");
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let deny = || rule("*", Matching::Wildcard, RuleAction::Deny);
        let allow = || rule("good", Matching::Exact, RuleAction::Allow);
        assert!(applied(vec![deny(), allow()], "good").is_ok());
        assert!(applied(vec![allow(), deny()], "good").is_err());
        assert!(applied(vec![deny(), allow()], "bad").is_err());
        assert!(applied(vec![allow()], "bad").is_ok());
    }

    #[test]
    fn attributes_narrow_a_rule() {
        let constraint = AttributeConstraint::matches("git.ref".to_owned(), "^v1").unwrap();
        let rule =
            SourceRule::new("g".to_owned(), Matching::Exact, vec![constraint], RuleAction::Deny).unwrap();
        let of = |reference: &str| {
            let attrs = [("git.ref".to_owned(), reference.to_owned())].into();
            let mut source = pb::SourceOp { identifier: "g".to_owned(), attrs };
            apply([&SourcePolicy(vec![rule.clone()])].into_iter(), &mut source)
        };
        assert!(of("v1.2").is_err());
        assert!(of("v2").is_ok());
    }

    #[test]
    fn rules_that_never_end_are_an_error() {
        let rules = || vec![rule("a", Matching::Exact, to("b")), rule("b", Matching::Exact, to("a"))];
        assert!(applied(rules(), "a").unwrap_err().message.contains("too many"));
        let made =
            |text: &str, matching| SourceRule::new(text.to_owned(), matching, Vec::new(), RuleAction::Deny);
        assert!(made("**", Matching::Wildcard).is_err());
        assert!(made("(", Matching::Regex).is_err());
    }
}
