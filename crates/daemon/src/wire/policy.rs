//! Source policies on the wire: rules, and the service by which a client is asked about sources.

use std::collections::HashMap;

use slipway_engine::policy::SourcePolicy;
use slipway_model::llb::pb;
use slipway_model::source_rules::{
    RuleAction, RuleCondition, RuleConstraint, RuleMatch, RuleSelector, RuleUpdates, SourceRule,
};
use slipway_model::{Diagnostic, ErrorKind, SourceRules};

use super::control::sourcepolicy::{AttrConstraint, Policy, Rule, Selector, Update};
use super::gateway::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};

/// The method by which a client is asked about a source.
pub(crate) const CHECK_POLICY: &str =
    "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";
/// `PolicyAction`s.
pub(crate) const ALLOW: i32 = 0;
pub(crate) const DENY: i32 = 1;
pub(crate) const CONVERT: i32 = 2;

fn wrong(text: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, text)
}

/// Checks a policy and takes its rules.
pub(crate) fn rules(policy: &Policy) -> Result<SourcePolicy, Diagnostic> {
    let rules = policy.rules.iter().map(rule).collect::<Result<_, _>>()?;
    SourcePolicy::new(&SourceRules { version: policy.version, rules })
}

fn rule(rule: &Rule) -> Result<SourceRule, Diagnostic> {
    let action = match rule.action {
        ALLOW => RuleAction::Allow,
        DENY => RuleAction::Deny,
        CONVERT => RuleAction::Convert,
        other => return Err(wrong(format!("source policy: rule {other}: unknown type"))),
    };
    let selector = rule.selector.as_ref().map(|selector| {
        let match_type = match selector.match_type {
            0 => RuleMatch::Wildcard,
            1 => RuleMatch::Exact,
            2 => RuleMatch::Regex,
            other => return Err(wrong(format!("unknown match type: {other}"))),
        };
        let constraints = selector.constraints.iter().map(constraint).collect::<Result<_, _>>()?;
        Ok(RuleSelector { identifier: selector.identifier.clone(), match_type, constraints })
    });
    let updates = rule.updates.as_ref().map(|updates| RuleUpdates {
        identifier: updates.identifier.clone(),
        attrs: updates.attrs.clone().into_iter().collect(),
    });
    Ok(SourceRule { action, selector: selector.transpose()?, updates })
}

fn constraint(constraint: &AttrConstraint) -> Result<RuleConstraint, Diagnostic> {
    let condition = match constraint.condition {
        0 => RuleCondition::Equal,
        1 => RuleCondition::NotEqual,
        2 => RuleCondition::Matches,
        other => return Err(wrong(format!("unknown attr condition: {other}"))),
    };
    Ok(RuleConstraint { key: constraint.key.clone(), value: constraint.value.clone(), condition })
}

/// Puts rules on the wire.
pub(crate) fn to_wire(rules: &SourceRules) -> Policy {
    let constraint = |constraint: &RuleConstraint| AttrConstraint {
        key: constraint.key.clone(),
        value: constraint.value.clone(),
        condition: constraint.condition as i32,
    };
    let rule = |rule: &SourceRule| Rule {
        action: rule.action as i32,
        selector: rule.selector.as_ref().map(|selector| Selector {
            identifier: selector.identifier.clone(),
            match_type: selector.match_type as i32,
            constraints: selector.constraints.iter().map(constraint).collect(),
        }),
        updates: rule.updates.as_ref().map(|updates| Update {
            identifier: updates.identifier.clone(),
            attrs: updates.attrs.clone().into_iter().collect(),
        }),
    };
    Policy { version: rules.version, rules: rules.rules.iter().map(rule).collect() }
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
