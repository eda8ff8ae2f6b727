//! One service becomes one target.

use std::collections::BTreeMap;

use yaml_serde::{Mapping, Value};

use super::dotenv;
use slipway_model::{clean_path, parse_bool, parse_size};

use crate::definition::check_name;
use crate::error::Problem;
use crate::files::{Environment, is_remote, unique};
use crate::target::{
    Attest, Output, SecretEntry, SshEntry, Strings, Target, merge_caches, merge_outputs, merge_secrets,
    merge_ssh, parse_cache_entries,
};

type Result<T> = std::result::Result<T, Problem>;

/// The members of a `build` section.
const BUILD_KEYS: &[&str] = &[
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

/// Makes the target of a service; `None` if there is nothing to build.
pub(super) fn target(
    name: &str,
    service: &Value,
    secrets: &Value,
    variables: &BTreeMap<String, String>,
    around: &Environment,
) -> Result<Option<Target>> {
    let empty = Mapping::new();
    let service = service.as_mapping().unwrap_or(&empty);
    let image = text_of(service, "image")?;
    let Some(build) = service.get("build").filter(|build| !build.is_null()) else {
        if image.is_none() {
            return Err(Problem::new(format!(
                "the service `{name}` has neither an image nor a build context specified"
            ))
            .hint("add `build: .` or `image: …`"));
        }
        return Ok(None);
    };
    let target_name = sanitized(name);
    check_name(&target_name)?;
    let build = build.as_mapping().unwrap_or(&empty);
    for key in build.keys().filter_map(Value::as_str) {
        if !BUILD_KEYS.contains(&key) && !key.starts_with("x-") {
            return Err(Problem::new(format!(
                "the `build` of the service `{name}` has no attribute `{key}`"
            ))
            .meant(key, BUILD_KEYS.iter().copied()));
        }
    }
    let context = text_of(build, "context")?.unwrap_or_else(|| ".".to_owned());
    let mut target = Target {
        name: target_name,
        context: Some(local_path(&context)),
        dockerfile: text_of(build, "dockerfile")?.filter(|text| !text.is_empty()),
        dockerfile_inline: text_of(build, "dockerfile_inline")?.filter(|text| !text.is_empty()),
        contexts: contexts(build.get("additional_contexts"))?,
        args: args(build, service, variables, around)?,
        labels: Some(strings(build.get("labels"))?).filter(|labels| !labels.is_empty()),
        tags: list(build.get("tags"))?,
        cache_from: caches(build.get("cache_from"))?,
        cache_to: caches(build.get("cache_to"))?,
        network: text_of(build, "network")?.filter(|text| !text.is_empty()),
        platforms: list(build.get("platforms"))?,
        target: text_of(build, "target")?.filter(|text| !text.is_empty()),
        shm_size: shm_size(build)?,
        ulimits: ulimits(build.get("ulimits"))?,
        extra_hosts: extra_hosts(build.get("extra_hosts"))?,
        secrets: service_secrets(build.get("secrets"), secrets)?,
        ssh: service_ssh(build.get("ssh"))?,
        attest: attests(build)?,
        no_cache: boolean(build.get("no_cache"))?.filter(|on| *on),
        pull: boolean(build.get("pull"))?.filter(|on| *on),
        ..Target::default()
    };
    if let Some(extension) = build.get("x-bake").and_then(Value::as_mapping) {
        extend(&mut target, extension)?;
    }
    if target.tags.as_ref().is_none_or(Vec::is_empty)
        && let Some(image) = image
    {
        target.tags = Some(vec![image]);
    }
    Ok(Some(target))
}

/// Replaces the dots that a service's name may have.
pub(crate) fn sanitized(name: &str) -> String {
    name.replace('.', "_")
}

fn local_path(path: &str) -> String {
    if path.contains("://") || path.starts_with("service:") || is_remote(path) {
        path.to_owned()
    } else {
        clean_path(path)
    }
}

/// Writes a scalar as text.
fn scalar(value: &Value) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(Problem::new("a string is required, not a list or a mapping")),
    }
}

fn text_of(mapping: &Mapping, key: &str) -> Result<Option<String>> {
    match mapping.get(key) {
        Some(value) => scalar(value).map_err(|problem| problem.because(format!("in `{key}`"))),
        None => Ok(None),
    }
}

fn boolean(value: Option<&Value>) -> Result<Option<bool>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(value) => {
            let text = scalar(value)?.unwrap_or_default();
            parse_bool(&text)
                .map(Some)
                .ok_or_else(|| Problem::new(format!("`{text}` is neither true nor false")))
        }
    }
}

fn list(value: Option<&Value>) -> Result<Option<Vec<String>>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Sequence(list)) => {
            let texts: Vec<Option<String>> = list.iter().map(scalar).collect::<Result<_>>()?;
            Ok(Some(texts.into_iter().flatten().collect()))
        }
        Some(value) => Ok(Some(scalar(value)?.into_iter().collect())),
    }
}

fn strings(value: Option<&Value>) -> Result<Strings> {
    match value {
        None | Some(Value::Null) => Ok(Strings::new()),
        Some(Value::Mapping(mapping)) => mapping
            .iter()
            .map(|(key, value)| Ok((scalar(key)?.unwrap_or_default(), scalar(value)?)))
            .collect(),
        Some(_) => Err(Problem::new("a mapping, or a list of `key=value`, is required")),
    }
}

fn contexts(value: Option<&Value>) -> Result<Option<BTreeMap<String, String>>> {
    let map = strings(value)?;
    let named = map.into_iter().map(|(key, value)| (key, named_context(&value.unwrap_or_default())));
    Ok(Some(named.collect::<BTreeMap<_, _>>()).filter(|map| !map.is_empty()))
}

fn named_context(value: &str) -> String {
    match value.strip_prefix("service:").or_else(|| value.strip_prefix("target:")) {
        Some(name) => format!("target:{}", sanitized(name)),
        None => local_path(value),
    }
}

/// Reads build arguments; those without a value come from the service's environment or from outside.
fn args(
    build: &Mapping,
    service: &Mapping,
    variables: &BTreeMap<String, String>,
    around: &Environment,
) -> Result<Option<Strings>> {
    let mut args = strings(build.get("args"))?;
    if args.values().any(Option::is_none) {
        let own = environment(service, variables, around)?;
        for (name, value) in args.iter_mut().filter(|(_, value)| value.is_none()) {
            *value = own.get(name).or_else(|| variables.get(name)).cloned();
        }
    }
    args.retain(|_, value| value.is_some());
    Ok(Some(args).filter(|args| !args.is_empty()))
}

fn environment(
    service: &Mapping,
    variables: &BTreeMap<String, String>,
    around: &Environment,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let files: Vec<Value> = match service.get("env_file") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(list)) => list.clone(),
        Some(value) => vec![value.clone()],
    };
    for file in files {
        let path = file.get("path").map_or_else(|| scalar(&file), scalar)?.unwrap_or_default();
        let required = boolean(file.get("required"))?.unwrap_or(true);
        match (around.read)(&path) {
            Ok(text) => all.extend(dotenv::parse(&text, variables)?),
            Err(_) if !required => {}
            Err(error) => {
                return Err(Problem::new(format!("failed to read the `env_file` `{path}`"))
                    .because(error.to_string()));
            }
        }
    }
    for (name, value) in strings(service.get("environment"))? {
        if let Some(value) = value.or_else(|| variables.get(&name).cloned()) {
            all.insert(name, value);
        }
    }
    Ok(all)
}

fn single(problems: crate::error::Problems) -> Problem {
    Problem::new(problems.to_string())
}

fn caches(value: Option<&Value>) -> Result<Option<Vec<crate::target::CacheEntry>>> {
    let Some(list) = list(value)?.filter(|list| !list.is_empty()) else { return Ok(None) };
    parse_cache_entries(list.iter().map(String::as_str)).map(Some).map_err(single)
}

fn attests(build: &Mapping) -> Result<Option<Vec<Attest>>> {
    let mut all = Vec::new();
    for kind in ["sbom", "provenance"] {
        if let Some(text) = text_of(build, kind)?.filter(|text| !text.is_empty()) {
            all.push(Attest::parse(&Attest::canonical(kind, &text)).map_err(single)?);
        }
    }
    Ok(Some(all).filter(|all| !all.is_empty()))
}

/// Writes a size as the reference prints it.
fn shm_size(build: &Mapping) -> Result<Option<String>> {
    let Some(text) = text_of(build, "shm_size")? else { return Ok(None) };
    let bytes = parse_size(&text)
        .ok_or_else(|| Problem::new(format!("invalid `shm_size`: `{text}`")).hint("write it as `128m`"))?;
    if bytes == 0 {
        return Ok(None);
    }
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut size, mut at) = (bytes as f64, 0);
    while size >= 1024.0 && at + 1 < units.len() {
        size /= 1024.0;
        at += 1;
    }
    Ok(Some(format!("{}{}", significant(size), units[at])))
}

/// Writes a number with four significant digits and no needless zeros.
fn significant(number: f64) -> String {
    let whole = number.trunc().to_string().len();
    let text = format!("{number:.*}", 4_usize.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn ulimits(value: Option<&Value>) -> Result<Option<Vec<String>>> {
    let Some(Value::Mapping(mapping)) = value else { return Ok(None) };
    let mut all = Vec::new();
    for (name, limit) in mapping {
        let name = scalar(name)?.unwrap_or_default();
        let (soft, hard) = match limit {
            Value::Mapping(limit) => (text_of(limit, "soft")?, text_of(limit, "hard")?),
            single => (scalar(single)?, scalar(single)?),
        };
        all.push(format!("{name}={}:{}", soft.unwrap_or_default(), hard.unwrap_or_default()));
    }
    all.sort();
    Ok(Some(all).filter(|all| !all.is_empty()))
}

/// Reads hosts: a mapping, or a list of `host=address` and `host:address`.
fn extra_hosts(value: Option<&Value>) -> Result<Option<Strings>> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let plain = |address: &str| address.trim_start_matches('[').trim_end_matches(']').to_owned();
    match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Mapping(mapping)) => {
            for (host, addresses) in mapping {
                let host = scalar(host)?.unwrap_or_default();
                let addresses = list(Some(addresses))?.unwrap_or_default();
                hosts.entry(host).or_default().extend(addresses.iter().map(|address| plain(address)));
            }
        }
        Some(value) => {
            for entry in list(Some(value))?.unwrap_or_default() {
                let (host, address) =
                    entry.split_once('=').or_else(|| entry.split_once(':')).ok_or_else(|| {
                        Problem::new(format!("invalid host `{entry}`")).hint("write it as `host=address`")
                    })?;
                hosts.entry(host.to_owned()).or_default().push(plain(address));
            }
        }
    }
    let joined = hosts.into_iter().map(|(host, addresses)| (host, Some(addresses.join(","))));
    Ok(Some(joined.collect::<Strings>()).filter(|hosts| !hosts.is_empty()))
}

fn service_secrets(value: Option<&Value>, defined: &Value) -> Result<Option<Vec<SecretEntry>>> {
    let Some(Value::Sequence(list)) = value else { return Ok(None) };
    let mut all = Vec::new();
    for item in list {
        let source = item.get("source").map_or_else(|| scalar(item), scalar)?.unwrap_or_default();
        let mut secret = SecretEntry { id: source.clone(), ..SecretEntry::default() };
        let definition = defined.get(&source).ok_or_else(|| {
            let known: Vec<&str> = defined
                .as_mapping()
                .into_iter()
                .flat_map(|map| map.keys())
                .filter_map(Value::as_str)
                .collect();
            Problem::new(format!("undefined secret `{source}`")).meant(&source, known)
        })?;
        if let Some(definition) = definition.as_mapping() {
            if boolean(definition.get("external"))? == Some(true) {
                return Err(Problem::new(format!("unsupported external secret `{source}`"))
                    .hint("give it a `file` or an `environment`"));
            }
            secret.path = text_of(definition, "file")?.map(|path| local_path(&path)).unwrap_or_default();
            secret.variable = text_of(definition, "environment")?.unwrap_or_default();
        }
        all.push(secret);
    }
    Ok(Some(all).filter(|all| !all.is_empty()))
}

/// Reads SSH entries: `default`, `id=path`, or a mapping.
fn service_ssh(value: Option<&Value>) -> Result<Option<Vec<SshEntry>>> {
    let mut all = Vec::new();
    match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Mapping(mapping)) => {
            for (id, path) in mapping {
                let paths = scalar(path)?.filter(|path| !path.is_empty()).into_iter().collect();
                all.push(SshEntry { id: scalar(id)?.unwrap_or_default(), paths });
            }
        }
        Some(value) => {
            let texts = list(Some(value))?.unwrap_or_default();
            all.extend(texts.iter().map(|text| SshEntry::parse(text)));
        }
    }
    sort_ssh(&mut all);
    Ok(Some(all).filter(|all| !all.is_empty()))
}

fn sort_ssh(list: &mut [SshEntry]) {
    list.sort_by(|a, b| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
}

/// Reads a list that may be written as words in one string.
fn words(extension: &Mapping, key: &str) -> Result<Vec<String>> {
    match extension.get(key) {
        Some(Value::String(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        other => Ok(list(other)?.unwrap_or_default()),
    }
}

/// Adds what `x-bake` has and compose has not.
fn extend(target: &mut Target, extension: &Mapping) -> Result<()> {
    let joined = |old: &mut Option<Vec<String>>, new: Vec<String>| {
        if !new.is_empty() {
            let all = old.take().unwrap_or_default().into_iter().chain(new).collect();
            *old = Some(unique(all));
        }
    };
    joined(&mut target.tags, words(extension, "tags")?);
    joined(&mut target.platforms, words(extension, "platforms")?);
    joined(&mut target.no_cache_filter, words(extension, "no-cache-filter")?);
    for (key, caches) in [("cache-from", &mut target.cache_from), ("cache-to", &mut target.cache_to)] {
        let new = words(extension, key)?;
        if !new.is_empty() {
            let new = parse_cache_entries(new.iter().map(String::as_str)).map_err(single)?;
            *caches = merge_caches(caches.take(), new);
        }
    }
    let secrets = words(extension, "secret")?;
    if !secrets.is_empty() {
        let new: crate::error::Result<Vec<_>> = secrets.iter().map(|text| SecretEntry::parse(text)).collect();
        target.secrets = merge_secrets(target.secrets.take(), new.map_err(single)?);
    }
    let ssh = words(extension, "ssh")?;
    if !ssh.is_empty() {
        let new = ssh.iter().map(|text| SshEntry::parse(text)).collect();
        target.ssh = merge_ssh(target.ssh.take(), new);
        target.ssh.iter_mut().for_each(|list| sort_ssh(list));
    }
    let outputs = words(extension, "output")?;
    if !outputs.is_empty() {
        let new: crate::error::Result<Vec<_>> = outputs.iter().map(|text| Output::parse(text)).collect();
        target.outputs = merge_outputs(target.outputs.take(), new.map_err(single)?);
    }
    target.pull = boolean(extension.get("pull"))?.or(target.pull);
    target.no_cache = boolean(extension.get("no-cache"))?.or(target.no_cache);
    for (name, value) in strings(extension.get("contexts"))? {
        let value = value.unwrap_or_default();
        let value = if value.starts_with("target:") || value.starts_with("service:") {
            named_context(&value)
        } else {
            value
        };
        target.contexts.get_or_insert_default().entry(name).or_insert(value);
    }
    Ok(())
}
