//! Bundles: files that hold a commit with all before it, taken instead of a remote or made instead of a checkout.

use std::path::{Path, PathBuf};

use slipway_model::Diagnostic;

use super::access::Access;
use super::command::{Call, Failure};
use super::repository::Repository;
use super::resolve::Resolved;
use super::{GitSource, explain, is_commit};
use crate::error::{Context as _, blocking, internal};

/// The name of the file that is made.
const FILE: &str = "bundle";
/// What the commit is called in a bundle, if nothing else is known.
const DEFAULT: &str = "refs/heads/main";

/// A bundle that is here, as long as the access is.
pub(super) struct Bundle {
    pub(super) path: PathBuf,
}

impl Bundle {
    /// Fetches the bundle that the source names; its digest says what it has to be.
    pub(super) async fn fetch(access: &Access<'_>, source: &GitSource) -> Result<Self, Diagnostic> {
        let location = source.bundle.as_ref().ok_or_else(|| internal("a source without a bundle"))?;
        let job = access.operation.job.clone();
        location.fetch(&job, access.operation.digest()).await?;
        let (path, digest) = (access.home.join("source.bundle"), location.digest);
        let target = path.clone();
        blocking(move || {
            let mut content = job.engine.store.content().open(&digest).diagnose()?;
            let mut file = std::fs::File::create(&target).diagnose()?;
            std::io::copy(&mut content, &mut file).diagnose().map(drop)
        })
        .await?;
        Ok(Self { path })
    }
}

/// Writes a bundle with the commit into an empty directory.
pub(super) async fn make(
    access: &Access<'_>,
    repository: &Repository,
    source: &GitSource,
    resolved: &Resolved,
    target: &Path,
) -> Result<(), Diagnostic> {
    let made = write(access, repository, source, resolved, &target.join(FILE)).await;
    made.map_err(|failure| explain::failure(access, source, failure))
}

/// Goes through a repository of its own, so that the bundle names the commit as the source does and holds nothing
/// else of the shared one.
async fn write(
    access: &Access<'_>,
    repository: &Repository,
    source: &GitSource,
    resolved: &Resolved,
    target: &Path,
) -> Result<(), Failure> {
    if source.bundle.is_none() {
        repository.complete(access, resolved).await?;
    }
    let directory = access.home.join("bundle.git");
    std::fs::create_dir(&directory).map_err(Failure::Start)?;
    let call = Call { git_dir: Some(&directory), ..Call::default() };
    let run = async |arguments: &[&str]| call.run(access, arguments).await;
    let format = if resolved.object.len() == 64 { "sha256" } else { "sha1" };
    run(&["init", "--quiet", "--bare", &format!("--object-format={format}")]).await?;
    let name = name_in_bundle(source.reference.as_deref().unwrap_or_default());
    let origin = format!("file://{}", repository.path().display());
    let specification = format!("{}:{name}", Repository::reference(resolved));
    let fetch = ["fetch", "--quiet", "--no-tags", &origin, &specification];
    Call { local: true, ..call }.run(access, &fetch).await?;
    run(&["bundle", "create", "--quiet", &target.to_string_lossy(), &name]).await.map(drop)
}

/// Returns the name that a reference has in a bundle.
fn name_in_bundle(reference: &str) -> String {
    if reference.is_empty() || is_commit(reference) {
        return DEFAULT.to_owned();
    }
    if reference.starts_with("refs/tags/") {
        return reference.to_owned();
    }
    let name = reference.strip_prefix("refs/").unwrap_or(reference);
    format!("refs/heads/{}", name.strip_prefix("heads/").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_call_the_commit_as_the_source_does() {
        let commit = "a".repeat(40);
        for (reference, name) in [
            ("", DEFAULT),
            (commit.as_str(), DEFAULT),
            ("main", "refs/heads/main"),
            ("refs/heads/x/y", "refs/heads/x/y"),
            ("refs/tags/v1", "refs/tags/v1"),
            ("refs/pull/1/head", "refs/heads/pull/1/head"),
        ] {
            assert_eq!(name_in_bundle(reference), name);
        }
    }
}
