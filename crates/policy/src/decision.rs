//! What a policy says of a source.

use std::collections::BTreeMap;

use serde_json::Value;
use slipway_model::Diagnostic;

use crate::wrong;

/// What may be asked for with `caps`.
const CAPS: [&str; 1] = [EXEC_PROXY];
/// Steps reach the network through a proxy that asks the policy.
const EXEC_PROXY: &str = "exec.proxy";

/// The value of the rule `decision`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allow: Option<bool>,
    pub deny_messages: Vec<String>,
    caps: BTreeMap<String, bool>,
}

impl Decision {
    /// Reads the value of the rule.
    pub(crate) fn parse(value: &Value) -> Result<Self, Diagnostic> {
        let Value::Object(fields) = value else {
            return Err(wrong("the policy's `decision` is no object")
                .hint("a policy ends as in `decision := {\"allow\": allow}`"));
        };
        let allow = match fields.get("allow") {
            None => None,
            Some(Value::Bool(allow)) => Some(*allow),
            Some(other) => {
                return Err(wrong(format!("`allow` of the policy's `decision` is {other}, not a boolean")));
            }
        };
        let deny_messages = fields.get("deny_msg").map(messages).unwrap_or_default();
        let caps = match fields.get("caps") {
            None => BTreeMap::new(),
            Some(Value::Object(caps)) => caps.iter().map(cap).collect::<Result<_, _>>()?,
            Some(other) => {
                return Err(wrong(format!("`caps` of the policy's `decision` is {other}, not an object")));
            }
        };
        Ok(Self { allow, deny_messages, caps })
    }

    /// Returns the decision as the policy writes it.
    pub fn document(&self) -> Value {
        let mut fields = serde_json::Map::new();
        if let Some(allow) = self.allow {
            fields.insert("allow".to_owned(), allow.into());
        }
        if !self.deny_messages.is_empty() {
            fields.insert("deny_msg".to_owned(), self.deny_messages.clone().into());
        }
        if !self.caps.is_empty() {
            fields.insert("caps".to_owned(), serde_json::json!(self.caps));
        }
        fields.into()
    }

    /// Tells whether steps are to reach the network through a proxy only.
    pub fn wants_proxy(&self) -> bool {
        self.caps.get(EXEC_PROXY) == Some(&true)
    }
}

fn cap((name, value): (&String, &Value)) -> Result<(String, bool), Diagnostic> {
    if !CAPS.contains(&name.as_str()) {
        return Err(wrong(format!("unknown policy cap {name:?}")));
    }
    let value = value.as_bool();
    let value = value.ok_or_else(|| wrong(format!("the policy cap `{name}` is no boolean")))?;
    Ok((name.clone(), value))
}

/// Reads messages from a list, from the keys of an object, which is what `deny_msg[message] if …` makes, or one alone.
fn messages(value: &Value) -> Vec<String> {
    match value {
        Value::String(message) => vec![message.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(fields) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decisions_are_read() {
        let decision = Decision::parse(&json!({ "allow": false, "deny_msg": ["a", "b"] })).unwrap();
        assert_eq!((decision.allow, decision.deny_messages.len()), (Some(false), 2));
        let decision = Decision::parse(&json!({ "deny_msg": { "a": true } })).unwrap();
        assert_eq!((decision.allow, decision.deny_messages), (None, vec!["a".to_owned()]));
        assert!(Decision::parse(&json!({ "caps": { "exec.proxy": true } })).unwrap().wants_proxy());
        for bad in [json!(true), json!({ "allow": "yes" }), json!({ "caps": { "x": true } })] {
            assert!(Decision::parse(&bad).is_err(), "{bad}");
        }
    }
}
