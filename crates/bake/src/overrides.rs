//! `--set PATTERN.key=value`: what the command line changes of targets.

use std::collections::BTreeMap;

use slipway_model::parse_bool;

use crate::entitlements::Grants;
use crate::error::{Problem, Result};
use crate::pattern;
use crate::target::{
    Attest, Output, Policy, SecretEntry, SshEntry, Target, merge_attests, merge_caches, merge_outputs,
    merge_secrets, merge_ssh, parse_cache_entries,
};

/// The keys of `--set`; those that end in a dot are followed by a name.
const KEYS: &[&str] = &[
    "annotations",
    "args.",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts.",
    "dockerfile",
    "entitlements",
    "extra-hosts.",
    "labels.",
    "load",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platform",
    "policy",
    "pull",
    "push",
    "resources.",
    "secret.",
    "secrets",
    "shm-size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

/// Keys whose values are lists: repeated ones add up, `+=` keeps what is there.
const LISTS: &[&str] = &[
    "annotations",
    "attest",
    "cache-from",
    "cache-to",
    "entitlements",
    "no-cache-filter",
    "output",
    "platform",
    "policy",
    "secrets",
    "ssh",
    "tags",
    "ulimits",
];

/// The values of one key.
#[derive(Clone, Debug, Default)]
struct Override {
    values: Vec<String>,
    append: bool,
}

/// What the command line changes, by target and key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides(BTreeMap<String, BTreeMap<String, Override>>);

impl Overrides {
    /// Parses the values of `--set` for the targets of these names.
    pub(crate) fn parse(
        values: &[String],
        names: &[&str],
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut all = Self::default();
        for value in values {
            all.add(value, names, lookup)?;
        }
        Ok(all)
    }

    fn add(&mut self, text: &str, names: &[&str], lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let (left, value) = match text.split_once('=') {
            Some((left, value)) => (left, Some(value)),
            None => (text, None),
        };
        let (left, append) = match left.strip_suffix('+') {
            Some(left) => (left, true),
            None => (left, false),
        };
        let expected = "write `--set TARGET.KEY=VALUE`, as in `--set '*.platform=linux/arm64'`";
        let (pattern, path) = left
            .split_once('.')
            .ok_or_else(|| Problem::new(format!("invalid override key `{left}`")).hint(expected))?;
        let (key, name) = match path.split_once('.') {
            Some((key, name)) => (key, Some(name)),
            None => (path, None),
        };
        check_key(key, name, append)?;
        let value = match value {
            Some(value) => value.to_owned(),
            None if key == "args" => match lookup(name.unwrap_or_default()) {
                Some(value) => value,
                None => return Ok(()),
            },
            None => return Err(Problem::new(format!("invalid override `{text}`")).hint(expected).into()),
        };
        for target in matching(pattern, names)? {
            let entry = self.0.entry(target.to_owned()).or_default().entry(path.to_owned()).or_default();
            if LISTS.contains(&key) {
                entry.append = append;
                entry.values.push(value.clone());
            } else {
                entry.values = vec![value.clone()];
            }
        }
        Ok(())
    }

    /// Changes a target; paths that the command line names need no other permission.
    pub(crate) fn apply(&self, target: &mut Target, grants: &mut Grants) -> Result<()> {
        let Some(keys) = self.0.get(&target.name) else { return Ok(()) };
        // What changes outputs comes after what sets them.
        let late = |path: &str| matches!(path, "load" | "push") || path.starts_with("secret.");
        for (path, value) in keys.iter().filter(|(path, _)| !late(path)) {
            apply_one(target, path, value, grants)?;
        }
        for (path, value) in keys.iter().filter(|(path, _)| late(path)) {
            apply_one(target, path, value, grants)?;
        }
        let named = |id: &str| keys.contains_key(&format!("secret.{id}")) || keys.contains_key("secrets");
        let files = target.secrets.iter().flatten().filter(|s| named(&s.id) && !s.path.is_empty());
        grants.read.extend(files.map(|secret| secret.path.clone()));
        Ok(())
    }
}

fn check_key(key: &str, name: Option<&str>, append: bool) -> Result<()> {
    let plain: Vec<&str> = KEYS.iter().map(|key| key.trim_end_matches('.')).collect();
    if !plain.contains(&key) {
        return Err(Problem::new(format!("unknown key `{key}` in `--set`")).meant(key, plain).into());
    }
    let needs_name = KEYS.contains(&format!("{key}.").as_str());
    match name {
        None | Some("") if needs_name => {
            Err(Problem::new(format!("the key `{key}` in `--set` requires a name"))
                .hint(format!("write `--set TARGET.{key}.NAME=VALUE`"))
                .into())
        }
        Some(name) if !needs_name => Err(Problem::new(format!("the key `{key}` in `--set` takes no name"))
            .hint(format!("leave `.{name}` out"))
            .into()),
        _ if append && matches!(key, "resources" | "secret") => {
            Err(Problem::new(format!("the key `{key}` in `--set` does not support `+=`")).into())
        }
        _ => Ok(()),
    }
}

/// Lists the targets that a pattern names.
fn matching<'a>(text: &str, names: &[&'a str]) -> Result<Vec<&'a str>> {
    if let Some(exact) = names.iter().find(|name| **name == text) {
        return Ok(vec![exact]);
    }
    let mut found = Vec::new();
    for name in names {
        match pattern::matches(text, name) {
            Some(true) => found.push(*name),
            Some(false) => {}
            None => return Err(Problem::new(format!("could not match targets with `{text}`")).into()),
        }
    }
    if found.is_empty() {
        let problem = Problem::new(format!("could not find any target matching `{text}`"));
        return Err(problem.meant(text, names.iter().copied()).into());
    }
    Ok(found)
}

fn boolean(key: &str, value: &str) -> Result<bool> {
    parse_bool(value).ok_or_else(|| {
        Problem::new(format!("invalid value `{value}` for boolean key `{key}`"))
            .hint("write `true` or `false`")
            .into()
    })
}

fn parsed<T>(values: &[String], parse: fn(&str) -> Result<T>) -> Result<Vec<T>> {
    values.iter().filter(|value| !value.is_empty()).map(|value| parse(value)).collect()
}

/// Sets a list, or adds to it.
fn put(list: &mut Option<Vec<String>>, change: &Override) {
    if !change.append {
        *list = None;
    }
    list.get_or_insert_default().extend_from_slice(&change.values);
}

fn apply_one(target: &mut Target, path: &str, change: &Override, grants: &mut Grants) -> Result<()> {
    let (key, name) = path.split_once('.').unwrap_or((path, ""));
    let value = change.values.last().cloned().unwrap_or_default();
    let append = change.append;
    match key {
        "context" => target.context = Some(value),
        "dockerfile" => target.dockerfile = Some(value),
        "args" => drop(target.args.get_or_insert_default().insert(name.to_owned(), Some(value))),
        "labels" => drop(target.labels.get_or_insert_default().insert(name.to_owned(), Some(value))),
        "extra-hosts" => {
            drop(target.extra_hosts.get_or_insert_default().insert(name.to_owned(), Some(value)))
        }
        "contexts" => {
            target.base.of_contexts.remove(name);
            target.contexts.get_or_insert_default().insert(name.to_owned(), value);
        }
        "tags" => put(&mut target.tags, change),
        "platform" => put(&mut target.platforms, change),
        "no-cache-filter" => put(&mut target.no_cache_filter, change),
        "ulimits" => put(&mut target.ulimits, change),
        "annotations" => target.annotations.get_or_insert_default().extend_from_slice(&change.values),
        "policy" => {
            if !append {
                target.policy = None;
            }
            target.policy.get_or_insert_default().extend(parsed(&change.values, Policy::parse)?);
        }
        "cache-from" | "cache-to" => {
            let new = parse_cache_entries(change.values.iter().map(String::as_str))?;
            let from = key == "cache-from";
            let list = if from { &mut target.cache_from } else { &mut target.cache_to };
            *list = if append { merge_caches(list.take(), new) } else { Some(new) };
            let attribute = if from { "src" } else { "dest" };
            let local = list.iter().flatten().filter(|entry| entry.kind == "local");
            let paths = local.filter_map(|entry| entry.attributes.get(attribute).cloned());
            if from { grants.read.extend(paths) } else { grants.write.extend(paths) }
        }
        "target" => target.target = Some(value),
        "call" => target.call = Some(value),
        "secret" => override_secret(target, name, &value)?,
        "secrets" => {
            let new = parsed(&change.values, SecretEntry::parse)?;
            target.secrets = if append { merge_secrets(target.secrets.take(), new) } else { Some(new) };
        }
        "ssh" => {
            let new = parsed(&change.values, |text| Ok(SshEntry::parse(text)))?;
            target.ssh = if append { merge_ssh(target.ssh.take(), new) } else { Some(new) };
            grants.read.extend(target.ssh.iter().flatten().flat_map(|ssh| ssh.paths.clone()));
        }
        "output" => {
            let new = parsed(&change.values, Output::parse)?;
            target.outputs = if append { merge_outputs(target.outputs.take(), new) } else { Some(new) };
            let paths = target.outputs.iter().flatten().map(|output| output.destination.clone());
            grants.write.extend(paths.filter(|path| !path.is_empty()));
        }
        "entitlements" => {
            target.entitlements.get_or_insert_default().extend_from_slice(&change.values);
            grants.network_host |= change.values.iter().any(|value| value == "network.host");
            grants.security_insecure |= change.values.iter().any(|value| value == "security.insecure");
        }
        "attest" => {
            let new = parsed(&change.values, Attest::parse)?;
            target.attest = merge_attests(target.attest.take(), new);
        }
        "no-cache" => target.no_cache = Some(boolean(key, &value)?),
        "pull" => target.pull = Some(boolean(key, &value)?),
        "push" => set_push(target, boolean(key, &value)?),
        "load" if !boolean(key, &value)? => {}
        "load" => set_load(target),
        "shm-size" => target.shm_size = Some(value),
        "resources" => target.resources.get_or_insert_default().set(name, &value)?,
        "network" => target.network = Some(value),
        _ => {}
    }
    Ok(())
}

/// Gives a declared secret another source.
fn override_secret(target: &mut Target, id: &str, value: &str) -> Result<()> {
    let new = SecretEntry::parse(value)?;
    let declared: Vec<String> = target.secrets.iter().flatten().map(|secret| secret.id.clone()).collect();
    let Some(secret) = target.secrets.iter_mut().flatten().find(|secret| secret.id == id) else {
        return Err(Problem::new(format!("secret {id:?} must be declared before it can be overridden"))
            .meant(id, declared.iter().map(String::as_str))
            .into());
    };
    if !new.id.is_empty() && new.id != id {
        return Err(Problem::new(format!(
            "secret override id `{}` does not match declared secret `{id}`",
            new.id
        ))
        .into());
    }
    secret.variable = new.variable;
    secret.path = new.path;
    Ok(())
}

/// Turns pushing on where images are made, or off everywhere; outputs of files stay as they are.
fn set_push(target: &mut Target, push: bool) {
    let outputs = target.outputs.get_or_insert_default();
    let word = if push { "true" } else { "false" };
    if !push {
        while let Some(at) = outputs.iter().position(|output| output.kind == "registry") {
            outputs.swap_remove(at);
        }
    }
    for output in outputs.iter_mut().filter(|output| output.kind == "image") {
        output.attributes.insert("push".to_owned(), word.to_owned());
    }
    if push && outputs.iter().all(|output| output.kind == "docker") {
        let attributes = [("push".to_owned(), word.to_owned())].into();
        outputs.push(Output { kind: "image".to_owned(), destination: String::new(), attributes });
    }
    if outputs.is_empty() {
        target.outputs = None;
    }
}

/// Adds an output into the engine, unless the outputs are files.
fn set_load(target: &mut Target) {
    let outputs = target.outputs.get_or_insert_default();
    let settled = outputs.iter().any(|output| match output.kind.as_str() {
        "docker" => output.destination.is_empty(),
        "image" | "registry" | "oci" => false,
        _ => true,
    });
    if !settled {
        outputs.push(Output { kind: "docker".to_owned(), ..Output::default() });
    }
}
