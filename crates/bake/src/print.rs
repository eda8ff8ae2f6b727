//! `--print`: the definition as JSON, byte for byte as the reference prints it.

use serde_json::{Map, Value};

use crate::resolve::Bake;
use crate::target::{
    Attest, CacheEntry, Group, Output, Policy, Resources, SecretEntry, SshEntry, Strings, Target,
};
use crate::value::json::escape_html;

/// Writes what would be built.
pub fn to_json(bake: &Bake) -> String {
    escape_html(&format!("{:#}", to_value(bake)))
}

/// Returns what would be built as a JSON document.
pub fn to_value(bake: &Bake) -> Value {
    let mut whole = Map::new();
    if !bake.groups.is_empty() {
        let groups = bake.groups.iter().map(|(name, group)| (name.clone(), group_json(group)));
        whole.insert("group".to_owned(), Value::Object(groups.collect()));
    }
    let targets = bake.targets.iter().map(|(name, target)| (name.clone(), target_json(target)));
    whole.insert("target".to_owned(), Value::Object(targets.collect()));
    Value::Object(whole)
}

/// Members in the order they are written in; what is empty is left out.
struct Members(Map<String, Value>);

impl Members {
    fn put(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value);
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        self.put(key, (!text.is_empty()).then(|| text.into()));
    }

    fn list(&mut self, key: &str, list: &Option<Vec<String>>) {
        self.entries(key, list, |text| text.as_str().into());
    }

    fn entries<T>(&mut self, key: &str, list: &Option<Vec<T>>, json: fn(&T) -> Value) {
        let list = list.as_ref().filter(|list| !list.is_empty());
        self.put(key, list.map(|list| list.iter().map(json).collect()));
    }

    fn strings(&mut self, key: &str, map: &Option<Strings>, escape: fn(&str) -> String) {
        let map = map.as_ref().filter(|map| !map.is_empty());
        self.put(
            key,
            map.map(|map| {
                map.iter()
                    .map(|(key, value)| {
                        (key.clone(), value.as_deref().map_or(Value::Null, |v| escape(v).into()))
                    })
                    .collect()
            }),
        );
    }
}

fn group_json(group: &Group) -> Value {
    let mut members = Members(Map::new());
    members.text("description", &group.description);
    members.put("targets", Some(group.targets.clone().map_or(Value::Null, Value::from)));
    Value::Object(members.0)
}

/// Keeps what looks like a template from being one when the output is read again.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

pub(crate) fn target_json(target: &Target) -> Value {
    let mut out = Members(Map::new());
    let context = target.context.as_deref().map(shown_context);
    out.text("description", &target.description);
    out.entries("annotations", &target.annotations, |text| escaped(text).into());
    out.entries("attest", &target.attest, attest_json);
    out.put("context", context.map(Value::from));
    let contexts = target.contexts.as_ref().filter(|contexts| !contexts.is_empty());
    out.put(
        "contexts",
        contexts.map(|map| map.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect()),
    );
    out.put("dockerfile", target.dockerfile.as_deref().map(Value::from));
    out.put("dockerfile-inline", target.dockerfile_inline.as_deref().map(|text| escaped(text).into()));
    out.strings("args", &target.args, escaped);
    out.strings("labels", &target.labels, escaped);
    out.list("tags", &target.tags);
    out.entries("cache-from", &target.cache_from, cache_json);
    out.entries("cache-to", &target.cache_to, cache_json);
    out.put("target", target.target.as_deref().map(Value::from));
    out.entries("secret", &target.secrets, secret_json);
    out.entries("ssh", &target.ssh, ssh_json);
    out.list("platforms", &target.platforms);
    out.entries("output", &target.outputs, output_json);
    out.put("pull", target.pull.map(Value::from));
    out.put("no-cache", target.no_cache.map(Value::from));
    out.put("network", target.network.as_deref().map(Value::from));
    out.list("no-cache-filter", &target.no_cache_filter);
    out.put("shm-size", target.shm_size.as_deref().map(Value::from));
    out.list("ulimits", &target.ulimits);
    out.put("resources", target.resources.as_ref().map(resources_json));
    out.put("call", target.call.as_deref().map(Value::from));
    out.list("entitlements", &target.entitlements);
    out.strings("extra-hosts", &target.extra_hosts, escaped);
    out.entries("policy", &target.policy, policy_json);
    Value::Object(out.0)
}

/// Cleans a context's path as it is before a build.
fn shown_context(context: &str) -> String {
    use slipway_model::clean_path;

    use crate::files::is_remote;
    match context.strip_prefix("cwd://") {
        Some(path) => clean_path(path),
        None if is_remote(context) => context.to_owned(),
        None => clean_path(context),
    }
}

/// Writes an entry's attributes and other members in the order of their names.
fn entry_json<'a>(
    attributes: &'a std::collections::BTreeMap<String, String>,
    extra: impl IntoIterator<Item = (&'a str, Value)>,
) -> Value {
    let own = attributes.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str())));
    let sorted: std::collections::BTreeMap<&str, Value> = own.chain(extra).collect();
    sorted.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn attest_json(attest: &Attest) -> Value {
    let disabled = attest.disabled.then_some(("disabled", Value::Bool(true)));
    entry_json(&attest.attributes, [("type", Value::from(attest.kind.as_str()))].into_iter().chain(disabled))
}

fn cache_json(cache: &CacheEntry) -> Value {
    entry_json(&cache.attributes, [("type", Value::from(cache.kind.as_str()))])
}

fn output_json(output: &Output) -> Value {
    let destination =
        (!output.destination.is_empty()).then(|| ("dest", Value::from(output.destination.as_str())));
    entry_json(
        &output.attributes,
        [("type", Value::from(output.kind.as_str()))].into_iter().chain(destination),
    )
}

fn secret_json(secret: &SecretEntry) -> Value {
    let mut members = Members(Map::new());
    members.text("id", &secret.id);
    members.text("src", &secret.path);
    members.text("env", &secret.variable);
    Value::Object(members.0)
}

fn ssh_json(ssh: &SshEntry) -> Value {
    let mut members = Members(Map::new());
    members.text("id", &ssh.id);
    members.list("paths", &Some(ssh.paths.clone()));
    Value::Object(members.0)
}

fn resources_json(resources: &Resources) -> Value {
    let entry = |(name, value): (&'static str, String)| {
        let number = name.starts_with("cpu-").then(|| value.parse::<i64>().ok()).flatten();
        (name.to_owned(), number.map_or(Value::String(value), Value::from))
    };
    resources.entries().into_iter().map(entry).collect()
}

fn policy_json(policy: &Policy) -> Value {
    let files: Vec<Value> =
        policy.files.iter().map(|name| serde_json::json!({ "Filename": name, "Data": null })).collect();
    serde_json::json!({
        "Files": if files.is_empty() { Value::Null } else { files.into() },
        "Reset": policy.reset,
        "Disabled": policy.disabled,
        "Strict": policy.strict,
        "LogLevel": policy.log_level,
    })
}
