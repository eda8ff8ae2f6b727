//! From values to options: what an attribute of a block may hold.

use std::collections::BTreeMap;

use super::entries::{
    Attest, CacheEntry, Output, Policy, Resources, SecretEntry, SshEntry, parse_cache_entries,
};
use super::{Strings, Target};
use crate::error::{Problem, Result};
use crate::eval::with_article;
use crate::value::{Type, Value, convert, json, whole};

/// Sets one attribute of a target; the name is known to be one.
pub(crate) fn set_attribute(target: &mut Target, name: &str, value: &Value) -> Result<()> {
    match name {
        "description" => target.description = text(value)?.unwrap_or_default(),
        "inherits" => target.inherits = texts(value)?.unwrap_or_default(),
        "annotations" => target.annotations = texts(value)?,
        "attest" => target.attest = entries(value, attest)?,
        "context" => target.context = text(value)?,
        "contexts" => target.contexts = map(value)?.map(required).transpose()?,
        "dockerfile" => target.dockerfile = text(value)?,
        "dockerfile-inline" => target.dockerfile_inline = text(value)?,
        "args" => target.args = map(value)?,
        "labels" => target.labels = map(value)?,
        "tags" => target.tags = texts(value)?,
        "cache-from" => target.cache_from = caches(value)?,
        "cache-to" => target.cache_to = caches(value)?,
        "target" => target.target = text(value)?,
        "secret" => target.secrets = entries(value, secret)?,
        "ssh" => target.ssh = entries(value, ssh)?,
        "platforms" => target.platforms = texts(value)?,
        "output" => target.outputs = entries(value, output)?,
        "pull" => target.pull = boolean(value)?,
        "no-cache" => target.no_cache = boolean(value)?,
        "network" => target.network = text(value)?,
        "no-cache-filter" => target.no_cache_filter = texts(value)?,
        "shm-size" => target.shm_size = text(value)?,
        "ulimits" => target.ulimits = texts(value)?,
        "resources" => target.resources = resources(value)?,
        "call" => target.call = text(value)?,
        "entitlements" => target.entitlements = texts(value)?,
        "extra-hosts" => target.extra_hosts = map(value)?,
        "policy" => target.policy = entries(value, policy)?,
        _ => {}
    }
    Ok(())
}

fn unsuitable(reason: impl Into<String>) -> Problem {
    Problem::new("unsuitable value").because(reason)
}

fn to(value: &Value, kind: &Type) -> Result<Value> {
    convert(value, kind).map_err(|error| unsuitable(error.to_string()).into())
}

fn text(value: &Value) -> Result<Option<String>> {
    Ok(to(value, &Type::String)?.to_text())
}

fn boolean(value: &Value) -> Result<Option<bool>> {
    Ok(match to(value, &Type::Bool)? {
        Value::Bool(value) => Some(value),
        _ => None,
    })
}

/// Reads a list of strings.
pub(crate) fn texts(value: &Value) -> Result<Option<Vec<String>>> {
    if value.is_null() {
        return Ok(None);
    }
    if value.as_str().is_some() {
        return Err(unsuitable("a list of string is required")
            .hint("write it in brackets: `[\"…\"]`")
            .into());
    }
    let list = to(value, &Type::List(Box::new(Type::String)))?;
    let element = |(at, value): (usize, &Value)| {
        value
            .to_text()
            .ok_or_else(|| unsuitable(format!("element [{at}] is null, a string is required")).into())
    };
    list.elements().unwrap_or_default().iter().enumerate().map(element).collect::<Result<_>>().map(Some)
}

fn map(value: &Value) -> Result<Option<Strings>> {
    let value = to(value, &Type::Map(Box::new(Type::String)))?;
    Ok(value.members().map(|members| members.iter().map(|(key, v)| (key.clone(), v.to_text())).collect()))
}

/// Refuses nulls.
fn required(map: Strings) -> Result<BTreeMap<String, String>> {
    map.into_iter()
        .map(|(key, value)| match value {
            Some(value) => Ok((key, value)),
            None => Err(unsuitable(format!("element [{key}] is null, a string is required")).into()),
        })
        .collect()
}

/// Reads a list of entries; empty strings in it take no part.
fn entries<T>(value: &Value, read: fn(&Value) -> Result<T>) -> Result<Option<Vec<T>>> {
    if value.is_null() {
        return Ok(None);
    }
    let list = match value {
        Value::List(list) | Value::Tuple(list) => list,
        other => {
            return Err(unsuitable(format!("a list is required, this is {}", with_article(other)))
                .hint("write it in brackets: `[\"…\"]`")
                .into());
        }
    };
    let present = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    list.iter().filter(present).map(read).collect::<Result<_>>().map(Some)
}

/// Reads an object whose values are strings; nulls take no part.
fn pairs(value: &Value) -> Result<Vec<(String, String)>> {
    let value = to(value, &Type::Map(Box::new(Type::String)))?;
    let members = value.members().into_iter().flatten();
    Ok(members.filter_map(|(key, value)| Some((key.clone(), value.to_text()?))).collect())
}

fn attest(value: &Value) -> Result<Attest> {
    match value.as_str() {
        Some(text) => Attest::parse(text),
        None => Attest::from_pairs(pairs(value)?),
    }
}

fn output(value: &Value) -> Result<Output> {
    match value.as_str() {
        Some(text) => Output::parse(text),
        None => Output::from_pairs(pairs(value)?),
    }
}

fn caches(value: &Value) -> Result<Option<Vec<CacheEntry>>> {
    let lists = entries(value, |value| match value.as_str() {
        Some(text) => parse_cache_entries([text]),
        None => Ok(vec![CacheEntry::from_pairs(pairs(value)?, &json::encode(value))?]),
    })?;
    Ok(lists.map(|lists| lists.into_iter().flatten().collect()))
}

fn known_keys(value: &Value, known: &[&str]) -> Result<()> {
    let members = value
        .members()
        .ok_or_else(|| unsuitable(format!("an object is required, this is {}", with_article(value))))?;
    match members.keys().find(|key| !known.contains(&key.as_str())) {
        // The reference drops what it does not know; a mistyped key must not be lost.
        Some(key) => Err(Problem::new(format!("there is no attribute named `{key}` here"))
            .meant(key, known.iter().copied())
            .into()),
        None => Ok(()),
    }
}

fn secret(value: &Value) -> Result<SecretEntry> {
    if let Some(text) = value.as_str() {
        return SecretEntry::parse(text);
    }
    known_keys(value, &["id", "src", "env"])?;
    let pairs: BTreeMap<String, String> = pairs(value)?.into_iter().collect();
    let get = |key: &str| pairs.get(key).cloned().unwrap_or_default();
    Ok(SecretEntry { id: get("id"), path: get("src"), variable: get("env") })
}

fn ssh(value: &Value) -> Result<SshEntry> {
    if let Some(text) = value.as_str() {
        return Ok(SshEntry::parse(text));
    }
    known_keys(value, &["id", "paths"])?;
    let member = |key: &str| value.members().and_then(|members| members.get(key)).unwrap_or(&Value::Null);
    Ok(SshEntry {
        id: text(member("id"))?.unwrap_or_default(),
        paths: texts(member("paths"))?.unwrap_or_default(),
    })
}

fn policy(value: &Value) -> Result<Policy> {
    match value.as_str() {
        Some(text) => Policy::parse(text),
        None => {
            let filled = pairs(value)?.into_iter().filter(|(_, value)| !value.is_empty());
            Policy::from_pairs(filled.collect())
        }
    }
}

fn resources(value: &Value) -> Result<Option<Resources>> {
    if value.is_null() {
        return Ok(None);
    }
    let members = value
        .members()
        .ok_or_else(|| unsuitable(format!("an object is required, this is {}", with_article(value))))?;
    let mut resources = Resources::default();
    for (name, value) in members {
        let value = match value {
            Value::Null => continue,
            Value::Number(number) => match whole(number) {
                Some(number) => number.to_string(),
                None => return Err(unsuitable(format!("`{name}` must be a whole number")).into()),
            },
            other => text(other)?.unwrap_or_default(),
        };
        resources.set(name, &value)?;
    }
    Ok(Some(resources))
}
