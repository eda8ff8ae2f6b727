//! Source policies on the wire: rules, and the service by which a client is asked about sources.

use std::collections::HashMap;

use slipway_engine::policy::{AttributeConstraint, Matching, RuleAction, SourcePolicy, SourceRule};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};

use super::control::sourcepolicy::{AttrConstraint, Policy, Rule};
use super::gateway::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};

fn wrong(text: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, text)
}

/// Checks a policy and takes its rules.
pub(crate) fn rules(policy: &Policy) -> Result<SourcePolicy, Diagnostic> {
    policy.rules.iter().map(rule).collect::<Result<_, _>>().map(SourcePolicy)
}

fn rule(rule: &Rule) -> Result<SourceRule, Diagnostic> {
    let selector = rule.selector.as_ref().ok_or_else(|| wrong("invalid nil selector in policy"))?;
    let action = match rule.action {
        0 => RuleAction::Allow,
        1 => RuleAction::Deny,
        2 => {
            let updates = rule.updates.as_ref();
            let updates =
                updates.filter(|updates| !(updates.identifier.is_empty() && updates.attrs.is_empty()));
            let updates = updates.ok_or_else(|| wrong("missing destination for convert rule"))?;
            RuleAction::Convert {
                identifier: updates.identifier.clone(),
                attributes: updates.attrs.clone().into_iter().collect(),
            }
        }
        other => return Err(wrong(format!("source policy: rule {other}: unknown type"))),
    };
    let matching = match selector.match_type {
        0 => Matching::Wildcard,
        1 => Matching::Exact,
        2 => Matching::Regex,
        other => return Err(wrong(format!("unknown match type: {other}"))),
    };
    let constraints = selector.constraints.iter().map(constraint).collect::<Result<_, _>>()?;
    SourceRule::new(selector.identifier.clone(), matching, constraints, action)
}

fn constraint(constraint: &AttrConstraint) -> Result<AttributeConstraint, Diagnostic> {
    let (key, value) = (constraint.key.clone(), constraint.value.clone());
    match constraint.condition {
        0 => Ok(AttributeConstraint::equal(key, value)),
        1 => Ok(AttributeConstraint::not_equal(key, value)),
        2 => AttributeConstraint::matches(key, &value),
        other => Err(wrong(format!("unknown attr condition: {other}"))),
    }
}

/// `moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CheckPolicyRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) platform: Option<pb::Platform>,
    #[prost(message, optional, tag = "2")]
    pub(crate) source: Option<ResolveSourceMetaResponse>,
    #[prost(map = "string, bool", tag = "3")]
    pub(crate) caps: HashMap<String, bool>,
}

/// `moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CheckPolicyResponse {
    #[prost(oneof = "Answer", tags = "1, 2")]
    pub(crate) answer: Option<Answer>,
}

#[expect(clippy::large_enum_variant, reason = "an answer is short-lived")]
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "1")]
    Decision(Decision),
    /// The client wants to know more before it decides.
    #[prost(message, tag = "2")]
    Request(ResolveSourceMetaRequest),
}

/// `DecisionResponse`; its action is a `PolicyAction`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Decision {
    #[prost(int32, tag = "1")]
    pub(crate) action: i32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) deny_messages: Vec<DenyMessage>,
    #[prost(message, optional, tag = "3")]
    pub(crate) update: Option<pb::SourceOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DenyMessage {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

#[cfg(test)]
mod tests {
    use super::super::control::sourcepolicy::{Selector, Update};
    use super::*;

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        let selector =
            |match_type| Some(Selector { identifier: "a".into(), match_type, ..Default::default() });
        let of = |action, selector, updates| {
            let rule = Rule { action, selector, updates };
            rules(&Policy { version: 1, rules: vec![rule] }).map_err(|error| error.message)
        };
        assert!(of(0, selector(0), None).is_ok());
        assert_eq!(of(0, None, None).unwrap_err(), "invalid nil selector in policy");
        assert_eq!(of(2, selector(0), None).unwrap_err(), "missing destination for convert rule");
        assert!(of(2, selector(0), Some(Update::default())).is_err());
        assert!(of(7, selector(0), None).is_err());
        assert!(of(0, selector(9), None).is_err());
    }
}
