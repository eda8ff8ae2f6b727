//! Which commit a branch, a tag or nothing means, as the remote says.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipway_model::{Diagnostic, Digest, Digester, ErrorKind};

use super::access::Access;
use super::bundle::Bundle;
use super::command::Call;
use super::{GitSource, explain, is_commit};
use crate::ops::VertexOperation;

/// How many names are shown where one was not found.
const NEAREST: usize = 3;

/// What a reference means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resolved {
    /// The whole name, as `refs/heads/main`; none where a commit was given.
    pub(super) name: Option<String>,
    /// The commit, or the annotated tag.
    pub(super) object: String,
    /// The commit behind an annotated tag.
    pub(super) peeled: Option<String>,
}

impl Resolved {
    /// Returns the commit, as far as it is known: a commit that was given may be a tag's name.
    pub(super) fn commit(&self) -> &str {
        self.peeled.as_deref().unwrap_or(&self.object)
    }
}

/// What references mean, from one build of a command to the next: the policy beside a Dockerfile is of the commit
/// that is built. Only who comes with the same means of access is told.
#[derive(Default)]
pub(crate) struct KnownReferences(Mutex<HashMap<Digest, Vec<u8>>>);

impl KnownReferences {
    fn key(name: &str, identity: &str) -> Digest {
        let mut key = Digester::new();
        key.field(name);
        key.field(identity);
        key.finish()
    }

    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        self.0.lock().get(key).cloned()
    }

    fn insert(&self, key: Digest, answer: Vec<u8>) {
        self.0.lock().insert(key, answer);
    }
}

/// Asks the remote, once for each reference in a build, or in a command.
pub(super) async fn resolve(operation: &VertexOperation, source: &GitSource) -> Result<Resolved, Diagnostic> {
    if let Some(resolved) = given(source) {
        check(source, &resolved)?;
        return Ok(resolved);
    }
    let reference = source.reference.as_deref().unwrap_or_default();
    let bundle = source.bundle.as_ref().map(|bundle| bundle.digest.to_string()).unwrap_or_default();
    let name = format!("git {}#{reference} {bundle}", source.address);
    let slot = operation.job.http_slot(&name);
    let answer = slot
        .get_or_init(|| async {
            let access = Access::prepare(operation, source).await?;
            let known = operation.job.engine.references.as_ref().zip(access.identity());
            let known = known.map(|(known, identity)| (known, KnownReferences::key(&name, &identity)));
            if let Some(answer) = known.as_ref().and_then(|(known, key)| known.get(key)) {
                return Ok(answer);
            }
            let resolved = ask(&access, source).await?;
            let answer =
                serde_json::to_vec(&resolved).map_err(|error| crate::error::internal(error.to_string()))?;
            if let Some((known, key)) = known {
                known.insert(key, answer.clone());
            }
            Ok(answer)
        })
        .await
        .clone()?;
    let resolved: Resolved =
        serde_json::from_slice(&answer).map_err(|error| crate::error::internal(error.to_string()))?;
    check(source, &resolved)?;
    Ok(resolved)
}

/// Answers without the remote, where the commit is named.
fn given(source: &GitSource) -> Option<Resolved> {
    let commit =
        |name: Option<String>, object: &str| Resolved { name, object: object.to_owned(), peeled: None };
    if let Some(reference) = source.reference.as_deref().filter(|reference| is_commit(reference)) {
        return Some(commit(None, reference));
    }
    let unnamed = source.bundle.is_some() && source.reference.is_none();
    let checksum = source.checksum.as_deref().filter(|_| source.fetch_by_commit || unnamed)?;
    let full = |name: &String| match name.starts_with("refs/") {
        true => name.clone(),
        false => format!("refs/heads/{name}"),
    };
    Some(commit(source.reference.as_ref().map(full), checksum))
}

fn check(source: &GitSource, resolved: &Resolved) -> Result<(), Diagnostic> {
    let Some(expected) = &source.checksum else { return Ok(()) };
    let known = [Some(&resolved.object), resolved.peeled.as_ref()];
    if known.into_iter().flatten().any(|object| object.starts_with(&expected.to_ascii_lowercase())) {
        return Ok(());
    }
    let got = known.into_iter().flatten().cloned().collect::<Vec<_>>().join(" or ");
    let name = source.reference.as_deref().unwrap_or("the default branch");
    Err(Diagnostic::new(ErrorKind::User, format!("expected checksum to match {expected}, got {got}"))
        .cause(format!("that is what `{name}` of `{}` is now", source.address))
        .hint("check what changed; if it is right, put the new commit into the checksum"))
}

async fn ask(access: &Access<'_>, source: &GitSource) -> Result<Resolved, Diagnostic> {
    let bundle = match source.bundle {
        Some(_) => Some(Bundle::fetch(access, source).await?.path.to_string_lossy().into_owned()),
        None => None,
    };
    let address = bundle.as_deref().unwrap_or(source.address.as_str());
    let call = Call { local: bundle.is_some(), ..Call::default() };
    let failed = |failure| explain::failure(access, source, failure);
    let Some(reference) = &source.reference else {
        let arguments = ["ls-remote", "--symref", "--", address, "HEAD"];
        let listed = call.run(access, &arguments).await.map_err(failed)?;
        return default_branch(&listed).ok_or_else(|| {
            let message = format!("could not find default branch for repository: {}", source.address);
            Diagnostic::new(ErrorKind::User, message)
                .cause("the repository is empty, or its HEAD names a branch that is not there")
                .hint("name a branch, tag or commit after a `#`")
        });
    };
    let peeled = format!("{reference}^{{}}");
    let arguments = ["ls-remote", "--", address, reference, &peeled];
    let listed = call.run(access, &arguments).await.map_err(failed)?;
    match choose(reference, &listed) {
        Some(resolved) => Ok(resolved),
        None => Err(unknown(access, source, reference).await),
    }
}

/// Reads `ref: refs/heads/main HEAD` and the commit.
fn default_branch(listed: &str) -> Option<Resolved> {
    let entries = || listed.lines().filter_map(|line| line.split_once('\t'));
    let name = entries().find_map(|(value, name)| value.strip_prefix("ref: ").filter(|_| name == "HEAD"));
    let object = entries().find(|(value, name)| *name == "HEAD" && is_commit(value))?.0;
    Some(Resolved { name: name.map(str::to_owned), object: object.to_owned(), peeled: None })
}

/// Picks what the reference means: its whole name, a branch, a tag, in this order.
fn choose(reference: &str, listed: &str) -> Option<Resolved> {
    let below = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
    let find = |name: &str| {
        let mut entries = listed.lines().filter_map(|line| line.split_once('\t'));
        entries
            .find(|(object, other)| *other == name && is_commit(object))
            .map(|(object, _)| object.to_owned())
    };
    let names = [below("refs/"), below("refs/heads/"), below("refs/tags/")];
    names.into_iter().find_map(|name| {
        let object = find(&name)?;
        let peeled = find(&format!("{name}^{{}}"));
        Some(Resolved { name: Some(name), object, peeled })
    })
}

/// Says that there is no such reference, and what is nearest to it.
async fn unknown(access: &Access<'_>, source: &GitSource, reference: &str) -> Diagnostic {
    let message = format!("repository does not contain ref {reference}");
    let diagnostic =
        Diagnostic::new(ErrorKind::User, message).cause(format!("the repository is `{}`", source.address));
    let arguments = ["ls-remote", "--heads", "--tags", "--refs", "--", source.address.as_str()];
    let Ok(listed) = Call::default().run(access, &arguments).await else { return diagnostic };
    let is_short = reference.len() >= 7 && reference.bytes().all(|b| b.is_ascii_hexdigit());
    match nearest(reference, &listed) {
        _ if is_short => diagnostic.hint("a commit has to be named by all of its 40 digits"),
        names if names.is_empty() => {
            diagnostic.hint(format!("`git ls-remote {}` lists what there is", source.address))
        }
        names => diagnostic.hint(format!("did you mean {}?", names.join(" or "))),
    }
}

fn nearest(wanted: &str, listed: &str) -> Vec<String> {
    let names = listed.lines().filter_map(|line| line.split_once('\t')).map(|(_, name)| name);
    let names =
        names.filter_map(|name| name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")));
    let likeness = |name: &str| {
        let alike = strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &wanted.to_lowercase());
        if name.contains(wanted) { alike.max(0.6) } else { alike }
    };
    let mut names: Vec<(f64, &str)> = names.map(|name| (likeness(name), name)).collect();
    names.retain(|(likeness, _)| *likeness > 0.5);
    names.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    names.dedup();
    names.into_iter().take(NEAREST).map(|(_, name)| format!("`{name}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    fn listing(entries: &[(char, &str)]) -> String {
        entries.iter().map(|(digit, name)| format!("{}\t{name}\n", id(*digit))).collect()
    }

    #[test]
    fn branches_come_before_tags_and_tags_are_peeled() {
        let listed = listing(&[
            ('1', "refs/heads/x/v1"),
            ('2', "refs/tags/v1"),
            ('3', "refs/tags/v1^{}"),
            ('4', "refs/heads/both"),
            ('5', "refs/tags/both"),
            ('6', "refs/pull/7/head"),
        ]);
        let tag = choose("v1", &listed).unwrap();
        assert_eq!((tag.name.as_deref(), tag.commit()), (Some("refs/tags/v1"), id('3').as_str()));
        assert_eq!(tag.object, id('2'));
        assert_eq!(choose("both", &listed).unwrap().object, id('4'));
        assert_eq!(choose("refs/tags/both", &listed).unwrap().object, id('5'));
        assert_eq!(choose("pull/7/head", &listed).unwrap().name.as_deref(), Some("refs/pull/7/head"));
        assert_eq!(choose("v2", &listed), None);
    }

    #[test]
    fn the_default_branch_is_what_head_names() {
        let listed = format!("ref: refs/heads/trunk\tHEAD\n{}\tHEAD\n", id('a'));
        let resolved = default_branch(&listed).unwrap();
        assert_eq!(
            (resolved.name.as_deref(), resolved.commit()),
            (Some("refs/heads/trunk"), id('a').as_str())
        );
        assert_eq!(default_branch(""), None);
    }

    #[test]
    fn names_that_are_near_are_shown() {
        let listed =
            listing(&[('1', "refs/heads/main"), ('2', "refs/tags/v1.2.3"), ('3', "refs/heads/other")]);
        assert_eq!(nearest("v1.2.4", &listed), ["`v1.2.3`"]);
        assert_eq!(nearest("mian", &listed), ["`main`"]);
        assert!(nearest("zzzzzz", &listed).is_empty());
    }
}
