//! Directories of a client elsewhere: the Dockerfile and the ignore files are fetched alone, and of a context
//! only what the Dockerfile can read.
//!
//! What a definition says of such a directory (its filters, the session that has it) is in the
//! definition, so that it means the same in another build. What is needed of it is known when the Dockerfile is converted; so it is
//! converted twice, the second time with the filters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slipway_dockerfile::{ContextPaths, ContextUse, Ignored};
use slipway_files::Root;
use slipway_files::patterns::parse_ignore_file;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};
use slipway_model::{Diagnostic, ErrorKind};

use crate::build::read_file;
use crate::error::{Context as _, blocking};
use crate::job::Job;
use crate::progress::Step;
use crate::session::LocalRequest;
use crate::sources::local::IgnoreFile;

/// The name of an ignore file.
pub(super) const IGNORE: &str = ".dockerignore";

/// A directory as the client calls it, and the session that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    /// Empty for a client on this machine.
    pub(super) session: String,
}

impl Place {
    /// Returns the operation that gives a part of the directory.
    fn source(&self, hint: &str, paths: Option<&[String]>, excludes: &[String]) -> pb::SourceOp {
        let list = |list: &[String]| serde_json::to_string(list).unwrap_or_default();
        let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), hint.to_owned())]);
        if !self.session.is_empty() {
            attrs.insert("local.session".to_owned(), self.session.clone());
        }
        if let Some(paths) = paths {
            attrs.insert("local.followpaths".to_owned(), list(paths));
        }
        if !excludes.is_empty() {
            attrs.insert("local.excludepatterns".to_owned(), list(excludes));
        }
        pb::SourceOp { identifier: format!("local://{}", self.name), attrs }
    }
}

/// A directory of a client, and what keeps files out of it.
#[derive(Clone, Debug)]
pub(super) struct ClientDirectory {
    pub(super) place: Place,
    /// Which earlier transfers are likely of the same files.
    pub(super) hint: String,
    pub(super) ignore: Arc<IgnoreFile>,
}

/// Fetches single files of a client's directory; those that do not exist are not in the answer.
async fn fetch(
    job: &Job,
    from: &Place,
    hint: String,
    paths: Vec<String>,
    step: &Step,
) -> Result<BTreeMap<String, Vec<u8>>, Diagnostic> {
    let request = LocalRequest {
        follow_paths: paths.clone(),
        shared_key_hint: hint,
        session: from.session.clone(),
        always_send: true,
        ..LocalRequest::named(&from.name)
    };
    let fetched = job.contexts.directory(&request, step.digest()).await?;
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
    /// What gives the file to who wants to see it again.
    pub(super) definition: pb::Definition,
}

impl ClientDockerfile {
    /// Fetches a Dockerfile, also by the name `dockerfile`.
    pub(super) async fn fetch(job: &Job, from: &Place, path: &str, step: &Step) -> Result<Self, Diagnostic> {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let special = format!("{path}{IGNORE}");
        let mut names = vec![path.to_owned()];
        if let Some(parent) = path.strip_suffix("Dockerfile").filter(|p| p.is_empty() || p.ends_with('/')) {
            names.push(format!("{parent}dockerfile"));
        }
        let wanted: Vec<String> = names.iter().cloned().chain([special.clone()]).collect();
        let source = pb::op::Op::Source(from.source(&from.name, Some(&wanted), &[]));
        let mut files = fetch(job, from, from.name.clone(), wanted, step).await?;
        let text = names.iter().find_map(|name| files.remove(name)).ok_or_else(|| {
            let what = format!("failed to read dockerfile: open {path}: no such file or directory");
            Diagnostic::new(ErrorKind::User, what).hint("name the file with `--file PATH`")
        })?;
        let ignore = files
            .remove(&special)
            .map(|text| IgnoreFile { name: special, patterns: parse_ignore_file(&text) });
        let mut graph = GraphBuilder::new();
        let vertex = graph.add(&[], source, None, VertexMeta::default());
        Ok(Self { text, ignore, definition: graph.finish(Some(Edge { vertex, index: 0 })) })
    }
}

impl ClientDirectory {
    /// Finds out what keeps files out of a directory: `ignore`, or its own ignore file.
    pub(super) async fn open(
        job: &Job,
        place: &Place,
        hint: &str,
        ignore: Option<IgnoreFile>,
        step: &Step,
    ) -> Result<Self, Diagnostic> {
        let ignore = match ignore {
            Some(ignore) => ignore,
            None => {
                let wanted = vec![IGNORE.to_owned()];
                let files = fetch(job, place, format!("{hint}-{IGNORE}"), wanted, step).await?;
                match files.get(IGNORE) {
                    Some(text) => IgnoreFile { name: IGNORE.to_owned(), patterns: parse_ignore_file(text) },
                    None => IgnoreFile::default(),
                }
            }
        };
        Ok(Self { place: place.clone(), hint: hint.to_owned(), ignore: Arc::new(ignore) })
    }

    /// Returns the operation that gives the directory, or the part of it that is needed.
    pub(super) fn source(&self, paths: &ContextPaths) -> pb::SourceOp {
        let paths = match paths {
            ContextPaths::Some(paths) => Some(paths.as_slice()),
            ContextPaths::All => None,
        };
        let excludes: Vec<String> = self.ignore.patterns.iter().map(|p| p.text.clone()).collect();
        self.place.source(&self.hint, paths, &excludes)
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
