//! Scopes of a token: which actions on which repositories it allows ([token scope documentation]).
//!
//! [token scope documentation]: https://distribution.github.io/distribution/spec/auth/scope/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Holds what a request needs to be allowed, in a canonical order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ScopeSet(BTreeMap<String, BTreeSet<String>>);

impl ScopeSet {
    /// Allows reading from the repository at `path`.
    pub(crate) fn pull(path: &str) -> Self {
        Self::default().with(&format!("repository:{path}"), &["pull"])
    }

    /// Allows reading from and writing to the repository at `path`.
    pub(crate) fn push(path: &str) -> Self {
        Self::default().with(&format!("repository:{path}"), &["pull", "push"])
    }

    /// Allows removing from the repository at `path`.
    pub(crate) fn delete(path: &str) -> Self {
        Self::default().with(&format!("repository:{path}"), &["delete", "pull"])
    }

    /// Allows also what `text` says, which is a list of scopes separated by spaces.
    pub(crate) fn merge_text(&mut self, text: &str) {
        for scope in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                self.0
                    .entry(resource.to_owned())
                    .or_default()
                    .extend(actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned));
            }
        }
    }

    /// Allows also what `other` does.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (resource, actions) in &other.0 {
            self.0.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
    }

    /// Tells whether all of `other` is allowed.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(resource, actions)| {
            self.0.get(resource).is_some_and(|known| known.contains("*") || known.is_superset(actions))
        })
    }

    /// Lists the scopes as a token server wants them.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }

    fn with(mut self, resource: &str, actions: &[&str]) -> Self {
        self.0.insert(resource.to_owned(), actions.iter().map(|&action| action.to_owned()).collect());
        self
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn union_and_cover() {
        let mut scopes = ScopeSet::push("a/b");
        assert!(scopes.covers(&ScopeSet::pull("a/b")));
        assert!(!scopes.covers(&ScopeSet::pull("c")));
        scopes.merge(&ScopeSet::pull("c"));
        assert_eq!(scopes.to_string(), "repository:a/b:pull,push repository:c:pull");
        assert!(!ScopeSet::pull("a/b").covers(&scopes));
    }

    #[test]
    fn texts_of_registries_are_merged() {
        let mut scopes = ScopeSet::pull("a");
        scopes.merge_text("repository:a:push,pull registry:catalog:* nonsense");
        assert_eq!(scopes.to_string(), "registry:catalog:* repository:a:pull,push");
        assert!(scopes.covers(&ScopeSet::push("a")));
    }
}
