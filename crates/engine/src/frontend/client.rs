//! Directories of a client elsewhere: the Dockerfile and the ignore files are fetched alone, and of a context
//! only what the Dockerfile can read.
//!
//! What a definition says of such a directory (its filters, the session it is in) is in the definition, so that it
//! means the same in another build. What is needed of it is known when the Dockerfile is converted; so it is
//! converted twice, the second time with the filters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slipway_dockerfile::{ContextPaths, ContextUse, Ignored};
use slipway_files::Root;
use slipway_files::patterns::parse_ignore_file;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};

use crate::build::read_file;
use crate::error::{Context as _, blocking};
use crate::job::Job;
use crate::session::LocalRequest;
use crate::sources::local::IgnoreFile;

/// The name of an ignore file.
pub(super) const IGNORE: &str = ".dockerignore";

/// A directory of a client, and what keeps files out of it.
#[derive(Clone, Debug)]
pub(super) struct ClientDirectory {
    /// As the client calls it.
    pub(super) name: String,
    /// Which earlier transfers are likely of the same files.
    pub(super) hint: String,
    pub(super) ignore: Arc<IgnoreFile>,
}

/// Fetches single files of a client's directory; those that do not exist are not in the answer.
async fn fetch(
    job: &Job,
    directory: &str,
    hint: String,
    paths: Vec<String>,
) -> Result<BTreeMap<String, Vec<u8>>, Diagnostic> {
    let request = LocalRequest {
        follow_paths: paths.clone(),
        shared_key_hint: hint,
        session: job.session.id(),
        always_send: true,
        ..LocalRequest::named(directory)
    };
    let fetched = job.contexts.directory(&request).await?;
    blocking(move || {
        let path = &fetched.directory.path;
        // A link of the client must not lead to a file of this machine.
        let root = Root::open(path).context(|| "cannot read what the client sent".to_owned())?;
        let read = |path: String| Some((path.clone(), read_file(&root, &path, None).ok()?));
        Ok(paths.into_iter().filter_map(read).collect())
    })
    .await
}

/// A Dockerfile of a client, and the ignore file that is its own.
pub(super) struct ClientDockerfile {
    pub(super) text: Vec<u8>,
    pub(super) ignore: Option<IgnoreFile>,
}

impl ClientDockerfile {
    /// Fetches a Dockerfile, also by the name `dockerfile`.
    pub(super) async fn fetch(job: &Job, directory: &str, path: &str) -> Result<Self, Diagnostic> {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let special = format!("{path}{IGNORE}");
        let mut names = vec![path.to_owned()];
        if let Some(parent) = path.strip_suffix("Dockerfile").filter(|p| p.is_empty() || p.ends_with('/')) {
            names.push(format!("{parent}dockerfile"));
        }
        let wanted = names.iter().cloned().chain([special.clone()]).collect();
        let mut files = fetch(job, directory, directory.to_owned(), wanted).await?;
        let text = names.iter().find_map(|name| files.remove(name)).ok_or_else(|| {
            let what = format!("failed to read dockerfile: open {path}: no such file or directory");
            Diagnostic::new(ErrorKind::User, what).hint("name the file with `--file PATH`")
        })?;
        let ignore = files
            .remove(&special)
            .map(|text| IgnoreFile { name: special, patterns: parse_ignore_file(&text) });
        Ok(Self { text, ignore })
    }
}

impl ClientDirectory {
    /// Finds out what keeps files out of a directory: `ignore`, or its own ignore file.
    pub(super) async fn open(
        job: &Job,
        name: &str,
        hint: &str,
        ignore: Option<IgnoreFile>,
    ) -> Result<Self, Diagnostic> {
        let ignore = match ignore {
            Some(ignore) => ignore,
            None => {
                let files = fetch(job, name, format!("{hint}-{IGNORE}"), vec![IGNORE.to_owned()]).await?;
                match files.get(IGNORE) {
                    Some(text) => IgnoreFile { name: IGNORE.to_owned(), patterns: parse_ignore_file(text) },
                    None => IgnoreFile::default(),
                }
            }
        };
        Ok(Self { name: name.to_owned(), hint: hint.to_owned(), ignore: Arc::new(ignore) })
    }

    /// Returns the operation that gives the directory, or the part of it that is needed.
    pub(super) fn source(&self, job: &Job, paths: &ContextPaths) -> pb::SourceOp {
        let list = |list: &[String]| serde_json::to_string(list).unwrap_or_default();
        let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), self.hint.clone())]);
        let session = job.session.id();
        if !session.is_empty() {
            attrs.insert("local.session".to_owned(), session);
        }
        if let ContextPaths::Some(paths) = paths {
            attrs.insert("local.followpaths".to_owned(), list(paths));
        }
        let excludes: Vec<String> = self.ignore.patterns.iter().map(|p| p.text.clone()).collect();
        if !excludes.is_empty() {
            attrs.insert("local.excludepatterns".to_owned(), list(&excludes));
        }
        pb::SourceOp { identifier: format!("local://{}", self.name), attrs }
    }

    /// Returns the question whether the ignore file keeps a path out, if there is such a file.
    pub(super) fn ignored(&self) -> Option<Ignored> {
        self.ignore.ignored().ok().flatten()
    }
}

/// Merges what the platforms' definitions read of the contexts: the paths of each, by the context's key.
pub(super) fn needed<'c>(
    uses: impl Iterator<Item = &'c ContextUse>,
    main: &str,
) -> BTreeMap<String, ContextPaths> {
    let mut needed: BTreeMap<String, ContextPaths> = BTreeMap::new();
    let mut add = |key: &str, paths: &ContextPaths| {
        let merged = match (needed.get(key), paths) {
            (Some(ContextPaths::All), _) | (_, ContextPaths::All) => ContextPaths::All,
            (Some(ContextPaths::Some(known)), ContextPaths::Some(more)) => {
                let all: BTreeSet<String> = known.iter().chain(more).cloned().collect();
                ContextPaths::Some(all.into_iter().collect())
            }
            (None, ContextPaths::Some(paths)) => ContextPaths::Some(paths.clone()),
        };
        needed.insert(key.to_owned(), merged);
    };
    for one in uses {
        if let Some(paths) = &one.main {
            add(main, paths);
        }
        one.named.iter().for_each(|(key, paths)| add(key, paths));
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_platforms_need_is_fetched() {
        let some = |paths: &[&str]| ContextPaths::Some(paths.iter().map(|p| (*p).to_owned()).collect());
        let uses = [
            ContextUse { main: Some(some(&["a", "b"])), named: [("x".to_owned(), some(&["y"]))].into() },
            ContextUse { main: Some(some(&["b", "c"])), named: [("x".to_owned(), ContextPaths::All)].into() },
        ];
        let needed = needed(uses.iter(), "context");
        assert_eq!(needed["context"], some(&["a", "b", "c"]));
        assert_eq!(needed["x"], ContextPaths::All);
    }
}
