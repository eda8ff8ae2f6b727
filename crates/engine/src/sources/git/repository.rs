//! The bare repository of a remote, which is kept between builds.
//!
//! It is a cache mount of the store: `du` shows it, `prune` removes it, and its lock keeps others out. What
//! was fetched stands under `refs/slipway/`, so that the next fetch tells the remote what is there; names of the
//! remote are never used as ours, since one name may be the directory of another.

use std::path::{Path, PathBuf};

use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_store::{CacheMount, GIT_REPOSITORY, Sharing};

use super::access::Access;
use super::bundle::Bundle;
use super::command::{Call, Failure, SHALLOW};
use super::resolve::Resolved;
use super::{GitSource, explain};
use crate::error::{Context as _, blocking};
use crate::ops::VertexOperation;

/// What a damaged repository makes git say.
const DAMAGED: [&str; 6] = [
    "corrupt",
    "bad object",
    "missing blob",
    "did not send all necessary objects",
    "shallow file has changed",
    "unable to read tree",
];

/// What git says of a remote that gives only what its branches and tags name.
const UNADVERTISED: [&str; 3] = ["not our ref", "unadvertised object", "couldn't find remote ref"];

/// A repository that is ours alone while this exists.
pub(super) struct Repository {
    mount: CacheMount,
}

impl Repository {
    /// Opens the remote's repository, making it where needed; waits for other builds.
    pub(super) async fn open(
        operation: &VertexOperation,
        source: &GitSource,
        resolved: &Resolved,
    ) -> Result<Self, Diagnostic> {
        let job = operation.job.clone();
        let sha256 = resolved.object.len() == 64;
        let id = format!("{GIT_REPOSITORY}{}{}", source.address, if sha256 { "\0sha256" } else { "" });
        let address = source.address.as_str().to_owned();
        blocking(move || {
            let cancelled = || job.cancel.is_cancelled();
            let mounts = job.engine.store.cache_mounts();
            let mount = mounts
                .acquire(id.as_str(), Sharing::Locked, &job.lease, &|_| Ok(()), &cancelled)
                .context(|| format!("cannot open the local copy of `{address}`"))?;
            settle(mount.path(), &address, sha256)
                .context(|| format!("cannot open the local copy of `{address}`"))?;
            Ok(Self { mount })
        })
        .await
    }

    pub(super) fn path(&self) -> &Path {
        self.mount.path()
    }

    fn call(&self) -> Call<'_> {
        Call { git_dir: Some(self.path()), ..Call::default() }
    }

    /// Names a commit or tag here.
    pub(super) fn reference(resolved: &Resolved) -> String {
        let name = resolved.name.as_deref().unwrap_or(&resolved.object);
        format!("refs/slipway/{}", &Digest::of(name).hex()[..32])
    }

    async fn has(&self, access: &Access<'_>, object: &str) -> bool {
        self.call().run(access, &["cat-file", "-e", &format!("{object}^{{commit}}")]).await.is_ok()
    }

    /// Fetches what is wanted, unless it is here; a damaged repository is thrown away and fetched anew.
    pub(super) async fn fetch(
        &self,
        access: &Access<'_>,
        source: &GitSource,
        resolved: &Resolved,
    ) -> Result<(), Diagnostic> {
        let fetched = match self.has(access, &resolved.object).await {
            true => Ok(()),
            false if source.bundle.is_some() => {
                let bundle = Bundle::fetch(access, source).await?;
                self.take_bundle(access, &bundle).await
            }
            false => self.fetch_object(access, source, resolved).await,
        };
        let fetched = match fetched {
            Err(failure) if failure.says(&DAMAGED) => {
                self.clear(source, resolved).diagnose()?;
                self.fetch_object(access, source, resolved).await
            }
            other => other,
        };
        fetched.map_err(|failure| explain::failure(access, source, failure))?;
        if !self.has(access, &resolved.object).await {
            return Err(Diagnostic::new(
                ErrorKind::User,
                format!("repository does not contain commit {}", resolved.object),
            )
            .cause(format!("it is not part of any branch or tag of `{}`", source.address))
            .hint("check the commit; if it is in a fork, name the fork's address"));
        }
        let update = ["update-ref", "--no-deref", &Self::reference(resolved), &resolved.object];
        let updated = self.call().run(access, &update).await;
        updated.map(drop).map_err(|failure| explain::failure(access, source, failure))
    }

    fn clear(&self, source: &GitSource, resolved: &Resolved) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.path())?.flatten() {
            match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path())?,
                false => std::fs::remove_file(entry.path())?,
            }
        }
        settle(self.path(), source.address.as_str(), resolved.object.len() == 64)
    }

    /// Takes everything that a bundle has.
    async fn take_bundle(&self, access: &Access<'_>, bundle: &Bundle) -> Result<(), Failure> {
        let path = bundle.path.to_string_lossy();
        let fetch = ["fetch", "--no-tags", "--force", &path, "+refs/*:refs/slipway-all/*"];
        Call { local: true, ..self.call() }.run(access, &fetch).await.map(drop)
    }

    /// Fetches what is before the commit too, unless it is here.
    pub(super) async fn complete(&self, access: &Access<'_>, resolved: &Resolved) -> Result<(), Failure> {
        if !self.path().join("shallow").exists() {
            return Ok(());
        }
        let (name, reference) = (resolved.name.as_deref(), Self::reference(resolved));
        let specification = format!("+{}:{reference}", name.unwrap_or(&resolved.object));
        let fetch = ["fetch", "--unshallow", "--no-tags", "--force", "origin", &specification];
        Call { shown: true, ..self.call() }.run(access, &fetch).await?;
        // The name may stand for another commit by now.
        self.call().run(access, &["update-ref", "--no-deref", &reference, &resolved.object]).await.map(drop)
    }

    /// Fetches the commit alone, or, from servers that do not give a commit by its name, all branches and tags.
    async fn fetch_object(
        &self,
        access: &Access<'_>,
        source: &GitSource,
        resolved: &Resolved,
    ) -> Result<(), Failure> {
        let by_name = resolved.name.as_deref().filter(|_| !source.fetch_by_commit);
        if let Some(name) = by_name {
            let specification = format!("+{name}:{}", Self::reference(resolved));
            self.fetch_shallow(access, &specification).await?;
            if self.has(access, &resolved.object).await {
                return Ok(());
            }
            // It has moved on since it was asked for.
        }
        let specification = format!("{}:{}", resolved.object, Self::reference(resolved));
        match self.fetch_shallow(access, &specification).await {
            Err(failure) if failure.says(&UNADVERTISED) => {}
            done => return done,
        }
        let mut arguments = vec!["fetch", "--tags", "--force"];
        if self.path().join("shallow").exists() {
            arguments.push("--unshallow");
        }
        arguments.extend(["origin", "+refs/heads/*:refs/slipway-all/*"]);
        Call { shown: true, ..self.call() }.run(access, &arguments).await.map(drop)
    }

    async fn fetch_shallow(&self, access: &Access<'_>, specification: &str) -> Result<(), Failure> {
        let call = Call { shown: true, ..self.call() };
        let fetch = ["fetch", SHALLOW, "--no-tags", "--force", "origin", specification];
        call.run_shallow(access, &fetch).await.map(drop)
    }
}

/// Makes a directory a bare repository with no settings but the remote.
fn settle(directory: &Path, address: &str, sha256: bool) -> std::io::Result<()> {
    for part in ["objects", "refs"] {
        std::fs::create_dir_all(directory.join(part))?;
    }
    unlock(directory)?;
    let head = directory.join("HEAD");
    if !head.exists() {
        replace(&head, "ref: refs/heads/master\n")?;
    }
    let (version, extension) = match sha256 {
        true => (1, "[extensions]\n\tobjectFormat = sha256\n"),
        false => (0, ""),
    };
    let address = address.replace('\\', "\\\\").replace('"', "\\\"");
    let config = format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = true\n{extension}\
         [remote \"origin\"]\n\turl = \"{address}\"\n"
    );
    // Written anew each time, so that nothing earlier commits said of submodules is left.
    replace(&directory.join("config"), &config)
}

/// Removes lock files that a git left behind that was killed; our own lock says that there is no other.
fn unlock(directory: &Path) -> std::io::Result<()> {
    for part in ["", "refs", "refs/slipway", "refs/slipway-all", "refs/tags"] {
        let Ok(entries) = std::fs::read_dir(directory.join(part)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "lock") {
                std::fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new: PathBuf = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}
