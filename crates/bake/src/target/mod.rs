//! Targets and groups: every option of a build, typed, and how two definitions of one become one.
//!
//! A list that is absent and a list that is empty differ: an empty one replaces what is inherited.

mod decode;
mod entries;
mod values;

use std::collections::BTreeMap;

pub(crate) use decode::set_attribute;
pub(crate) use entries::parse_cache_entries;
pub use entries::{Attest, Attributes, CacheEntry, Output, Policy, Resources, SecretEntry, SshEntry};
pub(crate) use values::attribute_value;

/// Several targets under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub description: String,
    /// `None` where no list was written.
    pub targets: Option<Vec<String>>,
}

/// Strings by key; a null takes no part.
pub type Strings = BTreeMap<String, Option<String>>;

/// One thing to build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub name: String,
    pub description: String,
    pub inherits: Vec<String>,
    pub annotations: Option<Vec<String>>,
    pub attest: Option<Vec<Attest>>,
    pub context: Option<String>,
    pub contexts: Option<BTreeMap<String, String>>,
    pub dockerfile: Option<String>,
    pub dockerfile_inline: Option<String>,
    pub args: Option<Strings>,
    pub labels: Option<Strings>,
    pub tags: Option<Vec<String>>,
    pub cache_from: Option<Vec<CacheEntry>>,
    pub cache_to: Option<Vec<CacheEntry>>,
    pub target: Option<String>,
    pub secrets: Option<Vec<SecretEntry>>,
    pub ssh: Option<Vec<SshEntry>>,
    pub platforms: Option<Vec<String>>,
    pub outputs: Option<Vec<Output>>,
    pub pull: Option<bool>,
    pub no_cache: Option<bool>,
    pub network: Option<String>,
    pub no_cache_filter: Option<Vec<String>>,
    pub shm_size: Option<String>,
    pub ulimits: Option<Vec<String>>,
    pub resources: Option<Resources>,
    pub call: Option<String>,
    pub entitlements: Option<Vec<String>>,
    pub extra_hosts: Option<Strings>,
    pub policy: Option<Vec<Policy>>,
    /// Built only because another target's contexts name it.
    pub linked: bool,
    pub(crate) base: ContextBase,
}

/// The directory that relative contexts start at, where that is the file's and not the working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContextBase {
    /// The directory of the file that defines the target.
    pub(crate) of_file: Option<String>,
    /// The default context starts at `of_file`.
    pub(crate) for_default: bool,
    /// The directory that the written context starts at.
    pub(crate) of_context: Option<String>,
    /// The target whose context this one's is a reference to.
    pub(crate) reference: Option<String>,
    pub(crate) of_contexts: BTreeMap<String, String>,
}

/// The attributes that a `target` block has.
pub(crate) const TARGET_ATTRIBUTES: &[&str] = &[
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "description",
    "dockerfile",
    "dockerfile-inline",
    "entitlements",
    "extra-hosts",
    "inherits",
    "labels",
    "name",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "policy",
    "pull",
    "resources",
    "secret",
    "shm-size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

impl Target {
    /// Lays a later definition over this one.
    pub(crate) fn merge(&mut self, over: &Self) {
        fn replace<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        fn append(old: &mut Option<Vec<String>>, new: &Option<Vec<String>>) {
            if let Some(new) = new {
                old.get_or_insert_default().extend_from_slice(new);
            }
        }
        fn insert(old: &mut Option<Strings>, new: &Option<Strings>) {
            for (key, value) in new.iter().flatten().filter(|(_, value)| value.is_some()) {
                old.get_or_insert_default().insert(key.clone(), value.clone());
            }
        }
        if over.base.of_file.is_some() {
            self.base.of_file.clone_from(&over.base.of_file);
            self.base.for_default = over.base.for_default;
        }
        if over.context.is_some() {
            self.context.clone_from(&over.context);
            self.base.of_context.clone_from(&over.base.of_context);
            self.base.reference.clone_from(&over.base.reference);
        }
        for (key, value) in over.contexts.iter().flatten() {
            self.contexts.get_or_insert_default().insert(key.clone(), value.clone());
            match over.base.of_contexts.get(key) {
                Some(base) => self.base.of_contexts.insert(key.clone(), base.clone()),
                None => self.base.of_contexts.remove(key),
            };
        }
        replace(&mut self.dockerfile, &over.dockerfile);
        replace(&mut self.dockerfile_inline, &over.dockerfile_inline);
        insert(&mut self.args, &over.args);
        insert(&mut self.labels, &over.labels);
        insert(&mut self.extra_hosts, &over.extra_hosts);
        replace(&mut self.tags, &over.tags);
        replace(&mut self.target, &over.target);
        replace(&mut self.call, &over.call);
        append(&mut self.annotations, &over.annotations);
        self.attest =
            merged(self.attest.take(), over.attest.clone(), |list| entries::last_of(list, |e| &e.kind));
        if let Some(policy) = &over.policy {
            self.policy.get_or_insert_default().extend_from_slice(policy);
        }
        self.secrets =
            merged(self.secrets.take(), over.secrets.clone(), |list| entries::last_of(list, |e| &e.id));
        self.ssh = merged(self.ssh.take(), over.ssh.clone(), |list| entries::last_of(list, |e| &e.id));
        replace(&mut self.platforms, &over.platforms);
        self.cache_from =
            merged(self.cache_from.take(), over.cache_from.clone(), entries::without_duplicates);
        replace(&mut self.cache_to, &over.cache_to);
        replace(&mut self.outputs, &over.outputs);
        replace(&mut self.pull, &over.pull);
        replace(&mut self.no_cache, &over.no_cache);
        replace(&mut self.network, &over.network);
        append(&mut self.no_cache_filter, &over.no_cache_filter);
        replace(&mut self.shm_size, &over.shm_size);
        append(&mut self.ulimits, &over.ulimits);
        if let Some(resources) = &over.resources {
            self.resources.get_or_insert_default().merge(resources);
        }
        if !over.description.is_empty() {
            self.description.clone_from(&over.description);
        }
        append(&mut self.entitlements, &over.entitlements);
        self.inherits.extend_from_slice(&over.inherits);
    }

    /// Drops duplicates and empty values, and adds what follows from other options.
    pub(crate) fn normalize(&mut self) {
        fn words(list: &mut Option<Vec<String>>) {
            if let Some(list) = list {
                let mut seen = std::collections::BTreeSet::new();
                list.retain(|word| !word.is_empty() && seen.insert(word.clone()));
            }
        }
        fn entries<T>(list: &mut Option<Vec<T>>, normalize: fn(Vec<T>) -> Vec<T>) {
            *list = list.take().filter(|list| !list.is_empty()).map(normalize);
        }
        words(&mut self.annotations);
        words(&mut self.tags);
        words(&mut self.platforms);
        words(&mut self.no_cache_filter);
        words(&mut self.ulimits);
        entries(&mut self.attest, |list| entries::last_of(list, |e| &e.kind));
        entries(&mut self.secrets, |list| entries::last_of(list, |e| &e.id));
        entries(&mut self.ssh, |list| entries::last_of(list, |e| &e.id));
        entries(&mut self.cache_from, entries::without_duplicates);
        entries(&mut self.cache_to, entries::without_duplicates);
        entries(&mut self.outputs, entries::without_duplicates);
        if self.network.as_deref() == Some("host") {
            self.entitlements.get_or_insert_default().push("network.host".to_owned());
        }
        words(&mut self.entitlements);
        if let Some(contexts) = &mut self.contexts {
            contexts.retain(|_, value| !value.is_empty());
        }
        self.contexts = self.contexts.take().filter(|contexts| !contexts.is_empty());
    }
}

/// Joins two lists; only what comes from both needs to be made unique.
fn merged<T>(old: Option<Vec<T>>, new: Option<Vec<T>>, unique: fn(Vec<T>) -> Vec<T>) -> Option<Vec<T>> {
    match (old, new) {
        (Some(mut old), Some(new)) => {
            old.extend(new);
            Some(unique(old)).filter(|list| !list.is_empty())
        }
        (old, None) => old,
        (None, new) => new,
    }
}

/// Joins two lists of outputs, as `--set x.output+=…` does.
pub(crate) fn merge_outputs(old: Option<Vec<Output>>, new: Vec<Output>) -> Option<Vec<Output>> {
    merged(old, Some(new), entries::without_duplicates)
}

/// Joins two lists of cache entries.
pub(crate) fn merge_caches(old: Option<Vec<CacheEntry>>, new: Vec<CacheEntry>) -> Option<Vec<CacheEntry>> {
    merged(old, Some(new), entries::without_duplicates)
}

/// Joins two lists of secrets; the last of an id counts.
pub(crate) fn merge_secrets(
    old: Option<Vec<SecretEntry>>,
    new: Vec<SecretEntry>,
) -> Option<Vec<SecretEntry>> {
    merged(old, Some(new), |list| entries::last_of(list, |e| &e.id))
}

/// Joins two lists of SSH entries; the last of an id counts.
pub(crate) fn merge_ssh(old: Option<Vec<SshEntry>>, new: Vec<SshEntry>) -> Option<Vec<SshEntry>> {
    merged(old, Some(new), |list| entries::last_of(list, |e| &e.id))
}

/// Joins two lists of attestations; the last of a type counts.
pub(crate) fn merge_attests(old: Option<Vec<Attest>>, new: Vec<Attest>) -> Option<Vec<Attest>> {
    merged(old, Some(new), |list| entries::last_of(list, |e| &e.kind))
}
