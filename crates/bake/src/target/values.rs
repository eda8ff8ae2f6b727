//! From options back to values: what `target.x.y` is in an expression.

use super::entries::Attributes;
use super::{Strings, Target};
use crate::value::{Members, Value};

/// Returns one attribute of a target; the name is known to be one.
pub(crate) fn attribute_value(target: &Target, name: &str) -> Value {
    match name {
        "name" => Value::string(&target.name),
        "description" => Value::string(&target.description),
        "inherits" => Value::strings(target.inherits.clone()),
        "annotations" => list(&target.annotations),
        "context" => text(&target.context),
        "contexts" => target.contexts.as_ref().map_or(Value::Null, |contexts| {
            Value::Map(contexts.iter().map(|(key, value)| (key.clone(), Value::string(value))).collect())
        }),
        "dockerfile" => text(&target.dockerfile),
        "dockerfile-inline" => text(&target.dockerfile_inline),
        "args" => map(&target.args),
        "labels" => map(&target.labels),
        "extra-hosts" => map(&target.extra_hosts),
        "tags" => list(&target.tags),
        "target" => text(&target.target),
        "platforms" => list(&target.platforms),
        "pull" => target.pull.map_or(Value::Null, Value::Bool),
        "no-cache" => target.no_cache.map_or(Value::Null, Value::Bool),
        "network" => text(&target.network),
        "no-cache-filter" => list(&target.no_cache_filter),
        "shm-size" => text(&target.shm_size),
        "ulimits" => list(&target.ulimits),
        "call" => text(&target.call),
        "entitlements" => list(&target.entitlements),
        _ => entry_value(target, name),
    }
}

fn entry_value(target: &Target, name: &str) -> Value {
    let entry = |attributes: &Attributes, extra: &[(&str, &str)]| {
        let own = attributes.iter().map(|(key, value)| (key.clone(), Value::string(value)));
        let extra = extra.iter().map(|(key, value)| ((*key).to_owned(), Value::string(*value)));
        Value::Map(own.chain(extra).collect::<Members>())
    };
    match name {
        "attest" => all(&target.attest, |attest| {
            let mut extra = vec![("type", attest.kind.as_str())];
            if attest.disabled {
                extra.push(("disabled", "true"));
            }
            entry(&attest.attributes, &extra)
        }),
        "cache-from" => all(&target.cache_from, |cache| entry(&cache.attributes, &[("type", &cache.kind)])),
        "cache-to" => all(&target.cache_to, |cache| entry(&cache.attributes, &[("type", &cache.kind)])),
        "output" => all(&target.outputs, |output| {
            entry(&output.attributes, &[("type", &output.kind), ("dest", &output.destination)])
        }),
        "secret" => all(&target.secrets, |secret| {
            let members = [("id", &secret.id), ("src", &secret.path), ("env", &secret.variable)];
            Value::Object(members.into_iter().map(|(key, v)| (key.to_owned(), Value::string(v))).collect())
        }),
        "ssh" => all(&target.ssh, |ssh| {
            let members = [("id", Value::string(&ssh.id)), ("paths", Value::strings(ssh.paths.clone()))];
            Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        }),
        "policy" => all(&target.policy, |policy| {
            let mut extra = Vec::new();
            if let Some(file) = policy.files.first() {
                extra.push(("filename", file.as_str()));
            }
            if policy.reset {
                extra.push(("reset", "true"));
            }
            if policy.disabled {
                extra.push(("disabled", "true"));
            }
            if let Some(strict) = policy.strict {
                extra.push(("strict", if strict { "true" } else { "false" }));
            }
            if let Some(level) = &policy.log_level {
                extra.push(("log-level", level));
            }
            entry(&Attributes::new(), &extra)
        }),
        "resources" => target.resources.as_ref().map_or(Value::Null, |resources| {
            let mut members: Members = ["memory", "memory-swap", "cpuset-cpus", "cpuset-mems"]
                .into_iter()
                .chain(["cpu-shares", "cpu-period", "cpu-quota"])
                .map(|name| (name.to_owned(), Value::Null))
                .collect();
            for (name, value) in resources.entries() {
                let number = name.starts_with("cpu-").then(|| value.parse::<i64>().ok()).flatten();
                members.insert(name.to_owned(), number.map_or(Value::String(value), Value::integer));
            }
            Value::Object(members)
        }),
        _ => Value::Null,
    }
}

fn all<T>(list: &Option<Vec<T>>, value: impl Fn(&T) -> Value) -> Value {
    Value::List(list.iter().flatten().map(value).collect())
}

fn text(text: &Option<String>) -> Value {
    text.as_ref().map_or(Value::Null, Value::string)
}

fn list(list: &Option<Vec<String>>) -> Value {
    list.as_ref().map_or(Value::Null, |list| Value::strings(list.clone()))
}

fn map(map: &Option<Strings>) -> Value {
    map.as_ref().map_or(Value::Null, |map| {
        Value::Map(map.iter().map(|(key, value)| (key.clone(), text(value))).collect())
    })
}
