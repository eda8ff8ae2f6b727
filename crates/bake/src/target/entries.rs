//! The options that have a small grammar of their own: `type=local,dest=out`, `id=key,src=path`.

use std::collections::BTreeMap;

use slipway_model::{csv, parse_bool};

use crate::error::{Problem, Result, fail};

/// Keys and values of one entry.
pub type Attributes = BTreeMap<String, String>;

/// One attestation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attest {
    pub kind: String,
    pub disabled: bool,
    pub attributes: Attributes,
}

/// One place that cache comes from or goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    pub kind: String,
    pub attributes: Attributes,
}

/// One output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub kind: String,
    /// Empty where the output has none.
    pub destination: String,
    pub attributes: Attributes,
}

/// One secret; what is not given is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretEntry {
    pub id: String,
    pub path: String,
    pub variable: String,
}

/// One SSH agent or set of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshEntry {
    pub id: String,
    pub paths: Vec<String>,
}

/// One source policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub files: Vec<String>,
    pub reset: bool,
    pub disabled: bool,
    pub strict: Option<bool>,
    pub log_level: Option<String>,
}

/// Limits of each RUN step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory: Option<String>,
    pub memory_swap: Option<String>,
    pub cpu_shares: Option<i64>,
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
}

fn fields(what: &str, text: &str) -> Result<Vec<String>> {
    csv::fields(text).map_err(|reason| {
        Problem::new(format!("invalid {what} `{text}`"))
            .because(reason.to_string())
            .hint("quote a field that holds a comma as a whole: `\"name=a,b\"`, or write an object")
            .into()
    })
}

fn pairs(what: &str, text: &str) -> Result<Vec<(String, String)>> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Problem::new(format!("invalid {what} `{text}`"))
            .because(format!("`{field}` must be a key=value pair"))
            .into()),
    };
    fields(what, text)?.into_iter().map(pair).collect()
}

fn lower(key: &str) -> String {
    key.trim().to_lowercase()
}

fn boolean(what: &str, key: &str, value: &str) -> Result<bool> {
    match parse_bool(value) {
        Some(value) => Ok(value),
        None => fail(format!("invalid value `{value}` for `{key}` of {what}: expected `true` or `false`")),
    }
}

impl Attest {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::from_pairs(pairs("attestation", text)?)
    }

    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self> {
        let mut entry = Self::default();
        for (key, value) in pairs {
            match lower(&key).as_str() {
                "type" => entry.kind = value,
                "disabled" => entry.disabled = boolean("an attestation", "disabled", &value)?,
                _ => drop(entry.attributes.insert(key, value)),
            }
        }
        if entry.kind.is_empty() {
            return Err(Problem::new("attestation type not specified")
                .hint("write `type=provenance` or `type=sbom`")
                .into());
        }
        Ok(entry)
    }

    /// Makes an attestation of what `--sbom` and `--provenance` take.
    pub(crate) fn canonical(kind: &str, value: &str) -> String {
        match parse_bool(value) {
            Some(enabled) => format!("type={kind},disabled={}", !enabled),
            None => format!("type={kind},{value}"),
        }
    }

    /// Writes the entry as `--attest` takes it.
    pub fn to_csv(&self) -> String {
        let disabled = self.disabled.then_some(("disabled", "true"));
        csv::join(
            [("type", self.kind.as_str())].into_iter().chain(disabled).chain(borrowed(&self.attributes)),
        )
    }
}

impl CacheEntry {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let fields = fields("cache", text)?;
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            let attributes = [("ref".to_owned(), only.clone())].into();
            return Ok(Self { kind: "registry".to_owned(), attributes });
        }
        let pairs = pairs("cache", text)?;
        Self::from_pairs(pairs.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect(), text)
    }

    pub(crate) fn from_pairs(pairs: Vec<(String, String)>, shown: &str) -> Result<Self> {
        let mut attributes: Attributes = pairs.into_iter().collect();
        match attributes.remove("type") {
            Some(kind) if !kind.is_empty() => Ok(Self { kind, attributes }),
            _ => Err(Problem::new(format!("type required for `{shown}`"))
                .hint("write `type=registry,ref=…` or `type=local,src=…`")
                .into()),
        }
    }

    /// Writes the entry as `--cache-from` takes it.
    pub fn to_csv(&self) -> String {
        csv::join([("type", self.kind.as_str())].into_iter().chain(borrowed(&self.attributes)))
    }
}

/// Parses strings, of which one may name several references.
pub(crate) fn parse_cache_entries<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<CacheEntry>> {
    let mut list = Vec::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        if text.contains('=') {
            list.push(CacheEntry::parse(text)?);
        } else {
            for field in fields("cache", text)? {
                list.push(CacheEntry::parse(&field)?);
            }
        }
    }
    Ok(list)
}

impl Output {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let fields = fields("output", text)?;
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(Self { kind: kind.to_owned(), destination: text.to_owned(), ..Self::default() });
        }
        let pairs = pairs("output", text)?.into_iter().map(|(key, value)| (lower(&key), value));
        Self::from_pairs(pairs.collect())
    }

    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self> {
        let mut attributes: Attributes = pairs.into_iter().collect();
        let destination = attributes.remove("dest").unwrap_or_default();
        match attributes.remove("type") {
            Some(kind) if !kind.is_empty() => Ok(Self { kind, destination, attributes }),
            _ => Err(Problem::new("type is required for output")
                .hint("write `type=image`, `type=docker` or `type=local,dest=…`")
                .into()),
        }
    }

    /// Writes the entry as `--output` takes it.
    pub fn to_csv(&self) -> String {
        let destination = (!self.destination.is_empty()).then_some(("dest", self.destination.as_str()));
        csv::join(
            [("type", self.kind.as_str())].into_iter().chain(destination).chain(borrowed(&self.attributes)),
        )
    }
}

impl SecretEntry {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut entry = Self::default();
        let mut kind = String::new();
        for (key, value) in pairs("secret", text)? {
            match key.to_lowercase().as_str() {
                "type" if matches!(value.as_str(), "file" | "env") => kind = value,
                "type" => return fail(format!("unsupported secret type `{value}`")),
                "id" => entry.id = value,
                "source" | "src" => entry.path = value,
                "env" => entry.variable = value,
                other => {
                    return Err(Problem::new(format!("unexpected key `{other}` in the secret `{text}`"))
                        .meant(other, ["type", "id", "src", "env"])
                        .into());
                }
            }
        }
        if kind == "env" && entry.variable.is_empty() {
            entry.variable = std::mem::take(&mut entry.path);
        }
        Ok(entry)
    }

    /// Writes the entry as `--secret` takes it.
    pub fn to_csv(&self) -> String {
        let all = [("id", &self.id), ("src", &self.path), ("env", &self.variable)];
        csv::join(
            all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key, value.as_str())),
        )
    }
}

impl SshEntry {
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((id, paths)) => {
                Self { id: id.to_owned(), paths: paths.split(',').map(str::to_owned).collect() }
            }
            None => Self { id: text.to_owned(), paths: Vec::new() },
        }
    }

    /// Writes the entry as `--ssh` takes it.
    pub fn to_flag(&self) -> String {
        if self.paths.is_empty() { self.id.clone() } else { format!("{}={}", self.id, self.paths.join(",")) }
    }
}

impl Policy {
    /// Writes the policy as the flag of `build`.
    pub fn to_csv(&self) -> String {
        let text = |on: bool| if on { "true" } else { "false" };
        let files = self.files.iter().map(|file| ("filename", file.as_str()));
        let reset = self.reset.then_some(("reset", "true"));
        let disabled = self.disabled.then_some(("disabled", "true"));
        let strict = self.strict.map(|strict| ("strict", text(strict)));
        let level = self.log_level.as_deref().map(|level| ("log-level", level));
        csv::join(files.chain(reset).chain(disabled).chain(strict).chain(level))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::from_pairs(pairs("policy", text)?)
    }

    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self> {
        let mut policy = Self::default();
        for (key, value) in pairs {
            let key = lower(&key);
            match key.as_str() {
                "filename" if !value.is_empty() => policy.files.push(value),
                "reset" => policy.reset = boolean("a policy", &key, &value)?,
                "disabled" => policy.disabled = boolean("a policy", &key, &value)?,
                "strict" => policy.strict = Some(boolean("a policy", &key, &value)?),
                "log-level" => policy.log_level = Some(value),
                _ => {
                    return Err(Problem::new(format!("invalid value `{key}={value}` of a policy"))
                        .meant(&key, ["filename", "reset", "disabled", "strict", "log-level"])
                        .into());
                }
            }
        }
        Ok(policy)
    }
}

impl Resources {
    pub(crate) fn merge(&mut self, over: &Self) {
        fn replace<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        replace(&mut self.memory, &over.memory);
        replace(&mut self.memory_swap, &over.memory_swap);
        replace(&mut self.cpu_shares, &over.cpu_shares);
        replace(&mut self.cpu_period, &over.cpu_period);
        replace(&mut self.cpu_quota, &over.cpu_quota);
        replace(&mut self.cpuset_cpus, &over.cpuset_cpus);
        replace(&mut self.cpuset_mems, &over.cpuset_mems);
    }

    /// Sets one limit by its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let number = || {
            value.parse::<i64>().map(Some).map_err(|_| {
                Problem::new(format!("invalid value `{value}` for `resources.{name}`"))
                    .because("a whole number is required")
            })
        };
        match name {
            "memory" => self.memory = Some(value.to_owned()),
            "memory-swap" => self.memory_swap = Some(value.to_owned()),
            "cpu-shares" => self.cpu_shares = number()?,
            "cpu-period" => self.cpu_period = number()?,
            "cpu-quota" => self.cpu_quota = number()?,
            "cpuset-cpus" => self.cpuset_cpus = Some(value.to_owned()),
            "cpuset-mems" => self.cpuset_mems = Some(value.to_owned()),
            _ => {
                return Err(Problem::new(format!("unknown resources key `{name}`"))
                    .meant(name, RESOURCES.iter().copied())
                    .into());
            }
        }
        Ok(())
    }

    /// Lists the limits that are set, by name.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let values = [
            self.memory.clone(),
            self.memory_swap.clone(),
            number(self.cpu_shares),
            number(self.cpu_period),
            number(self.cpu_quota),
            self.cpuset_cpus.clone(),
            self.cpuset_mems.clone(),
        ];
        RESOURCES.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect()
    }
}

const RESOURCES: &[&str] =
    &["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];

fn borrowed(attributes: &Attributes) -> impl Iterator<Item = (&str, &str)> {
    attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// Keeps the last entry of each key, where the first of the key stands.
pub(super) fn last_of<T>(list: Vec<T>, key: fn(&T) -> &String) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for entry in list {
        match kept.iter_mut().find(|old| key(old) == key(&entry)) {
            Some(old) => *old = entry,
            None => kept.push(entry),
        }
    }
    kept
}

/// Drops entries that equal an earlier one, leaving the rest in the order the reference leaves them in.
pub(super) fn without_duplicates<T: PartialEq>(mut list: Vec<T>) -> Vec<T> {
    for at in (0..list.len().saturating_sub(1)).rev() {
        if let Some(other) = (at + 1..list.len()).find(|other| list[at] == list[*other]) {
            // The last entry takes the place of the duplicate.
            list.swap_remove(other);
        }
    }
    list
}
