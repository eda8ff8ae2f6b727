//! Git repositories, for `ADD` and for contexts, by the `git` program.
//!
//! One bare repository for each remote stays in the state, under a lock, so that a later build fetches only
//! what is new. What is wanted is named by the remote first (`ls-remote`), which gives the cache key: the commit
//! and what is taken of it. Only if that is not in the cache is anything fetched and checked out.
//!
//! A repository is the work of somebody else: no configuration of the machine, hook, template or helper is used,
//! only some protocols are spoken, and nothing in the working tree is followed out of it.

mod access;
mod address;
mod bundle;
mod checkout;
mod command;
mod explain;
mod object;
mod repository;
mod resolve;

use std::path::{Component, Path};

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};
use slipway_solver::CacheMap;
use slipway_store::{CommitInfo, SnapshotKind};

use super::blob::BlobLocation;
use crate::attest::Pin;
use crate::build::GitMeta;
use crate::error::{Context as _, blocking};
use crate::ops::{VertexOperation, keys};
use crate::tree::Tree;
use access::Access;
use address::Address;
use object::{Objects, SignatureRule};
use repository::Repository;
use resolve::Resolved;

pub use object::GitObject;
pub(crate) use object::committed;
pub(crate) use resolve::KnownReferences;

/// What is taken of which repository, and how.
#[derive(Clone, Debug)]
struct GitSource {
    address: Address,
    /// A branch, tag or commit as it was given; the default branch without.
    reference: Option<String>,
    /// Below the top; empty for all.
    directory: String,
    /// The first digits of the commit that it has to be.
    checksum: Option<String>,
    keep_git_dir: bool,
    submodules: bool,
    times: Times,
    fetch_by_commit: bool,
    token_secret: Option<String>,
    header_secret: Option<String>,
    /// The agent to use.
    ssh: Option<String>,
    known_hosts: Option<String>,
    /// A bundle that has the commit, instead of the remote.
    bundle: Option<BlobLocation>,
    /// Give a bundle with the commit instead of its files.
    as_bundle: bool,
    /// Who has to have signed the commit or the tag.
    signature: Option<SignatureRule>,
}

/// Which time the files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Checkout,
    Commit,
}

impl GitSource {
    fn parse(source: &pb::SourceOp) -> Result<Self, Diagnostic> {
        let rest = source.identifier.strip_prefix("git://").unwrap_or(&source.identifier);
        let (location, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let attribute = |name: &str| source.attrs.get(name).filter(|value| !value.is_empty());
        let is_set = |name: &str| attribute(name).is_some_and(|value| value == "true");
        let store = attribute("oci.store").map(String::as_str);
        let bundle = attribute("git.bundle").map(|text| BlobLocation::parse(text, store)).transpose()?;
        let parsed = Self {
            address: Address::parse(attribute("git.fullurl").map_or(location, String::as_str))?,
            reference: Some(reference.to_owned()).filter(|reference| !reference.is_empty()),
            directory: clean(directory),
            checksum: attribute("git.checksum").cloned(),
            keep_git_dir: is_set("git.keepgitdir"),
            submodules: !is_set("git.skipsubmodules"),
            times: match attribute("git.mtime").map(String::as_str) {
                Some("commit") => Times::Commit,
                _ => Times::Checkout,
            },
            fetch_by_commit: is_set("git.fetchbycommit"),
            token_secret: attribute("git.authtokensecret").cloned(),
            header_secret: attribute("git.authheadersecret").cloned(),
            ssh: attribute("git.mountsshsock").cloned(),
            known_hosts: attribute("git.knownsshhosts").cloned(),
            bundle,
            as_bundle: is_set("git.checkoutbundle"),
            signature: SignatureRule::of(source),
        };
        parsed.check()?;
        Ok(parsed)
    }

    fn check(&self) -> Result<(), Diagnostic> {
        let refused = |message: String| Err(Diagnostic::new(ErrorKind::User, message));
        let bad = |name: &&str| name.starts_with('-') || name.contains(|c: char| c.is_control() || c == ' ');
        if let Some(name) = self.reference.as_deref().filter(bad) {
            return refused(format!("invalid git ref {name:?}"));
        }
        match (&self.checksum, self.reference.as_deref()) {
            (None, _) if self.bundle.is_some() => {
                return refused("git.bundle requires git.checksum to be set".to_owned());
            }
            (Some(sum), Some(commit))
                if self.bundle.is_some() && is_commit(commit) && !commit.starts_with(sum.as_str()) =>
            {
                return refused(format!("expected checksum to match {sum}, got {commit}"));
            }
            _ if self.as_bundle && self.keep_git_dir => {
                return refused("git.checkoutbundle is incompatible with git.keepgitdir".to_owned());
            }
            _ if self.as_bundle && !self.directory.is_empty() => {
                return refused("git.checkoutbundle is incompatible with git.subdir".to_owned());
            }
            _ => {}
        }
        match &self.checksum {
            Some(sum) if !sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
                refused(format!("invalid checksum {sum} for Git URL, expected hex commit hash"))
            }
            None if self.fetch_by_commit && !self.reference.as_deref().is_some_and(is_commit) => {
                refused("fetch-by-commit requires a checksum or a commit SHA ref".to_owned())
            }
            Some(sum) if self.fetch_by_commit && !is_commit(sum) => {
                refused(format!("fetch-by-commit requires a full commit SHA checksum, got {sum:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Names what the source gives, once it is known which commit that is.
    fn key(&self, resolved: &Resolved) -> String {
        // Without its directory, an annotated tag is no more than its commit.
        let mut key = if self.keep_git_dir { resolved.object.clone() } else { resolved.commit().to_owned() };
        if self.keep_git_dir {
            key.push_str(".git#");
            key.push_str(resolved.name.as_deref().unwrap_or_default());
        }
        if !self.directory.is_empty() {
            key.push(':');
            key.push_str(&self.directory);
        }
        if !self.submodules {
            key.push_str("(skip-submodules)");
        }
        if self.times == Times::Commit {
            key.push_str("(mtime=commit)");
        }
        if self.as_bundle {
            key.push_str("(bundle)");
        }
        key
    }

    fn description(&self) -> String {
        let reference = self.reference.as_deref().map(|r| format!("#{r}")).unwrap_or_default();
        format!("git snapshot for {}{reference}", self.address)
    }
}

/// Asks the remote which commit is meant.
pub(super) async fn cache_map(
    operation: &VertexOperation,
    source: &pb::SourceOp,
) -> Result<CacheMap, Diagnostic> {
    let source = GitSource::parse(source)?;
    let resolved = resolve::resolve(operation, &source).await?;
    if let Some(rule) = &source.signature {
        let repository = Fetched::get(operation, &source, &resolved).await?;
        repository.objects().await?.check(rule)?;
    }
    operation.pin(Pin::Git(resolved.commit().to_owned()));
    let mut key = source.key(&resolved);
    if operation.job.compatibility.has_open_git_files() {
        key.push_str("(open)");
    }
    Ok(keys::source("git", None, key.as_bytes(), None))
}

/// Says which commit is meant, on request with the commit and the tag themselves.
pub(super) async fn metadata(
    operation: &VertexOperation,
    source: &pb::SourceOp,
    with_objects: bool,
) -> Result<GitMeta, Diagnostic> {
    let source = GitSource::parse(source)?;
    let resolved = resolve::resolve(operation, &source).await?;
    // Whoever keeps the git directory gets the tag.
    let commit = resolved.peeled.clone().filter(|_| !source.keep_git_dir);
    let mut meta = GitMeta {
        reference: resolved.name.clone().unwrap_or_else(|| resolved.object.clone()),
        checksum: resolved.object.clone(),
        commit_checksum: commit,
        commit_object: Vec::new(),
        tag_object: Vec::new(),
    };
    if with_objects || source.signature.is_some() {
        let objects = Fetched::get(operation, &source, &resolved).await?.objects().await?;
        if let Some(rule) = &source.signature {
            objects.check(rule)?;
        }
        meta.commit_checksum = objects.tag.as_ref().map(|_| objects.commit.name.clone());
        meta.commit_object = objects.commit.raw;
        meta.tag_object = objects.tag.map(|tag| tag.raw).unwrap_or_default();
    }
    Ok(meta)
}

/// A repository of which what was wanted is here.
struct Fetched<'a> {
    access: Access<'a>,
    repository: Repository,
    source: &'a GitSource,
    resolved: &'a Resolved,
}

impl<'a> Fetched<'a> {
    async fn get(
        operation: &'a VertexOperation,
        source: &'a GitSource,
        resolved: &'a Resolved,
    ) -> Result<Self, Diagnostic> {
        let access = Access::prepare(operation, source).await?;
        let repository = Repository::open(operation, source, resolved).await?;
        repository.fetch(&access, source, resolved).await?;
        Ok(Self { access, repository, source, resolved })
    }

    /// Reads the commit, and the tag that names it.
    async fn objects(&self) -> Result<Objects, Diagnostic> {
        let read = Objects::read(&self.access, &self.repository, self.resolved).await;
        read.map_err(|failure| explain::failure(&self.access, self.source, failure))?
    }
}

/// Fetches the commit, where that was not done before, and checks it out into a snapshot.
pub(super) async fn execute(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Tree, Diagnostic> {
    let source = GitSource::parse(source)?;
    let resolved = resolve::resolve(operation, &source).await?;
    let fetched = Fetched::get(operation, &source, &resolved).await?;
    let Fetched { access, repository, .. } = &fetched;
    let job = &operation.job;
    let active = job.engine.store.snapshots().prepare(None, &job.lease).diagnose()?;
    // Without a parent, the snapshot is this directory and nothing else.
    let target = active.overlay().upper.ok_or_else(|| crate::error::internal("a snapshot without files"))?;
    match source.as_bundle {
        true => bundle::make(access, repository, &source, &resolved, &target).await?,
        false => checkout::checkout(access, repository, &source, &resolved, &target).await?,
    }
    let kind = SnapshotKind::GitCheckout;
    let info = CommitInfo { description: source.description(), kind, ..CommitInfo::default() };
    blocking(move || active.commit(&info).diagnose().map(Tree::Snapshot)).await
}

/// Says whether a text is the whole name of a commit.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns a path below the top without `.`, `..` and slashes at its ends.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => parts.extend(name.to_str()),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: &str = "oci-layout+blob://a@sha256:\
                          e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn source(identifier: &str, attributes: &[(&str, &str)]) -> Result<GitSource, Diagnostic> {
        let attrs =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        GitSource::parse(&pb::SourceOp { identifier: identifier.to_owned(), attrs })
    }

    #[test]
    fn identifiers_and_attributes_are_read() {
        let parsed = source(
            "git://host/repo.git#v1:a/../b/",
            &[("git.fullurl", "git@host:repo.git"), ("git.keepgitdir", "true"), ("git.mtime", "commit")],
        )
        .unwrap();
        assert_eq!(parsed.address.to_string(), "git@host:repo.git");
        assert_eq!((parsed.reference.as_deref(), parsed.directory.as_str()), (Some("v1"), "b"));
        assert!(parsed.keep_git_dir && parsed.submodules && parsed.times == Times::Commit);
        assert_eq!(source("git://host/r.git", &[]).unwrap().address.to_string(), "https://host/r.git");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (identifier, attributes, message) in [
            ("git://h/r.git#--upload-pack=x", &[][..], "invalid git ref"),
            ("git://h/r.git", &[("git.checksum", "xyz")][..], "invalid checksum xyz"),
            ("git://h/r.git", &[("git.fetchbycommit", "true")][..], "requires a checksum"),
            ("git://h/r.git", &[("git.bundle", "docker-image+blob://a/b")][..], "no digest"),
            ("git://h/r.git", &[("git.bundle", BUNDLE)][..], "requires git.checksum"),
            (
                "git://h/r.git",
                &[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")][..],
                "incompatible with git.keepgitdir",
            ),
            ("git://h/r.git#:d", &[("git.checkoutbundle", "true")][..], "incompatible with git.subdir"),
            ("git://h/r.git", &[("git.fullurl", "file:///etc")][..], "cannot fetch"),
        ] {
            let error = source(identifier, attributes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn the_key_is_of_what_is_taken() {
        let resolved = Resolved {
            name: Some("refs/tags/v1".to_owned()),
            object: "a".repeat(40),
            peeled: Some("b".repeat(40)),
        };
        let key = |identifier: &str, attributes: &[(&str, &str)]| {
            source(identifier, attributes).unwrap().key(&resolved)
        };
        assert_eq!(key("git://h/r.git#v1", &[]), "b".repeat(40));
        assert_eq!(key("git://h/r.git#v1:d", &[]), format!("{}:d", "b".repeat(40)));
        let kept = key("git://h/r.git#v1", &[("git.keepgitdir", "true")]);
        assert_eq!(kept, format!("{}.git#refs/tags/v1", "a".repeat(40)));
    }
}
