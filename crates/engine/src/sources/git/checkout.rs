//! From a commit in the bare repository to files.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use slipway_model::{Diagnostic, ErrorKind};

use super::access::Access;
use super::command::{Call, Failure, SHALLOW};
use super::repository::Repository;
use super::resolve::Resolved;
use super::{GitSource, Times, explain};
use crate::error::{Context as _, blocking};

/// Writes the files of a commit into an empty directory.
pub(super) async fn checkout(
    access: &Access<'_>,
    repository: &Repository,
    source: &GitSource,
    resolved: &Resolved,
    target: &Path,
) -> Result<(), Diagnostic> {
    let work = Work { access, repository, source, resolved };
    let failed = |failure| explain::failure(access, source, failure);
    match (source.keep_git_dir, source.directory.is_empty()) {
        (true, true) => {
            work.with_git_dir(target).await.map_err(failed)?;
            work.submodules(&target.join(".git"), None, target).await.map_err(failed)?;
        }
        (false, true) => work.files(target).await.map_err(failed)?,
        (_, false) => {
            let whole = access.home.join("tree");
            directory(&whole).diagnose()?;
            work.files(&whole).await.map_err(failed)?;
            let (source, target) = (source.clone(), target.to_owned());
            blocking(move || take_directory(&source, &whole, &target)).await?;
        }
    }
    if access.operation.job.compatibility.has_open_git_files() {
        let target = target.to_owned();
        blocking(move || open_files(&target).diagnose()).await?;
    }
    if source.times == Times::Commit {
        let show = ["log", "-1", "--format=%ct", resolved.object.as_str()];
        let time = work.bare().run(access, &show).await.map_err(failed)?;
        let seconds = time.trim().parse().map_err(|_| crate::error::internal("a commit without a time"))?;
        let target = target.to_owned();
        blocking(move || set_times(&target, seconds).diagnose()).await?;
    }
    Ok(())
}

struct Work<'a> {
    access: &'a Access<'a>,
    repository: &'a Repository,
    source: &'a GitSource,
    resolved: &'a Resolved,
}

impl Work<'_> {
    fn bare(&self) -> Call<'_> {
        Call { git_dir: Some(self.repository.path()), ..Call::default() }
    }

    /// Checks out everything, submodules too, without any `.git`.
    async fn files(&self, target: &Path) -> Result<(), Failure> {
        let index = self.access.home.join("index");
        let call = Call { work_tree: Some(target), index: Some(&index), ..self.bare() };
        call.run(self.access, &["read-tree", "--reset", "-u", &self.resolved.object]).await?;
        if !self.submodules(self.repository.path(), Some(&index), target).await? {
            return Ok(());
        }
        // These name a place in the state, which means nothing elsewhere.
        let target = target.to_owned();
        let removed = tokio::task::spawn_blocking(move || remove_git_files(&target)).await;
        removed.map_err(std::io::Error::other).and_then(|done| done).map_err(Failure::Start)
    }

    /// Checks out everything, and keeps a git directory with this one commit.
    async fn with_git_dir(&self, target: &Path) -> Result<(), Failure> {
        let git_dir = target.join(".git");
        let call = Call { git_dir: Some(&git_dir), work_tree: Some(target), ..Call::default() };
        let run = async |arguments: &[&str]| call.run(self.access, arguments).await;
        let format = if self.resolved.object.len() == 64 { "sha256" } else { "sha1" };
        run(&["init", "--quiet", &format!("--object-format={format}")]).await?;
        let origin = format!("file://{}", self.repository.path().display());
        let reference = Repository::reference(self.resolved);
        let specification = match &self.resolved.name {
            Some(name) => format!("{reference}:{name}"),
            None => reference,
        };
        let fetch =
            ["fetch", "--quiet", "--update-head-ok", "--depth=1", "--no-tags", &origin, &specification];
        Call { local: true, ..call }.run(self.access, &fetch).await?;
        run(&["checkout", "--quiet", "--detach", &format!("{}^{{commit}}", self.resolved.object)]).await?;
        run(&["remote", "add", "origin", self.source.address.as_str()]).await?;
        let _ = std::fs::remove_file(git_dir.join("FETCH_HEAD"));
        Ok(())
    }

    /// Fetches and checks out submodules, if there are any; says whether there are.
    async fn submodules(&self, git_dir: &Path, index: Option<&Path>, target: &Path) -> Result<bool, Failure> {
        if !self.source.submodules || target.join(".gitmodules").symlink_metadata().is_err() {
            return Ok(false);
        }
        let call =
            Call { git_dir: Some(git_dir), work_tree: Some(target), index, shown: true, ..Call::default() };
        let update = ["submodule", "update", "--init", "--recursive", SHALLOW];
        let updated = call.run_shallow(self.access, &update).await;
        let modules = self.repository.path().join("modules");
        if updated.as_ref().is_err_and(|failure| matches!(failure, Failure::Said(_))) && modules.exists() {
            // They may be of other addresses than now.
            std::fs::remove_dir_all(&modules).map_err(Failure::Start)?;
            let again = ["submodule", "update", "--init", "--recursive", "--force", SHALLOW];
            call.run_shallow(self.access, &again).await?;
            return Ok(true);
        }
        updated.map(|_| true)
    }
}

fn directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(path)
}

/// Moves what is in one directory of the repository.
fn take_directory(source: &GitSource, whole: &Path, target: &Path) -> Result<(), Diagnostic> {
    let mut from = whole.to_owned();
    for name in source.directory.split('/') {
        from.push(name);
        let refused = |cause: String| {
            Diagnostic::new(ErrorKind::User, format!("invalid subdir {}", source.directory)).cause(cause)
        };
        let shown = from.strip_prefix(whole).unwrap_or(&from).display().to_string();
        match std::fs::symlink_metadata(&from) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(refused(format!("`{shown}` is no directory"))),
            Err(_) => {
                let error = refused(format!("`{}` has no `{shown}`", source.address));
                let beside = from.parent().and_then(|parent| nearest(parent, name));
                return Err(match beside {
                    Some(name) => error.hint(format!("did you mean `{name}`?")),
                    None => error,
                });
            }
        }
    }
    let entries = std::fs::read_dir(&from).diagnose()?;
    for entry in entries {
        let entry = entry.diagnose()?;
        std::fs::rename(entry.path(), target.join(entry.file_name())).diagnose()?;
    }
    Ok(())
}

fn nearest(directory: &Path, wanted: &str) -> Option<String> {
    let names =
        std::fs::read_dir(directory).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .map(|name| (strsim::normalized_damerau_levenshtein(&name, wanted), name))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Removes the files by which submodules name their repositories.
fn remove_git_files(top: &Path) -> std::io::Result<()> {
    each(top, &mut |path, metadata| match path.file_name().is_some_and(|name| name == ".git")
        && metadata.is_file()
    {
        true => std::fs::remove_file(path),
        false => Ok(()),
    })
}

/// Lets everybody write files that are no programs.
fn open_files(top: &Path) -> std::io::Result<()> {
    each(top, &mut |path, metadata| {
        let mode = metadata.permissions().mode();
        match metadata.is_file() && mode & 0o111 == 0 {
            true => std::fs::set_permissions(path, Permissions::from_mode(mode | 0o222)),
            false => Ok(()),
        }
    })
}

/// Gives everything the same time; directories after what is in them.
fn set_times(top: &Path, seconds: i64) -> std::io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let set = |path: &Path| rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    each(top, &mut |path, _| Ok(set(path)?))?;
    Ok(set(top)?)
}

/// Calls something with everything below a directory, and with a directory after what is in it.
fn each(
    directory: &Path,
    call: &mut dyn FnMut(&Path, &std::fs::Metadata) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut pending: Vec<(PathBuf, bool)> = vec![(directory.to_owned(), false)];
    while let Some((path, visited)) = pending.pop() {
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.is_dir() && !visited {
            pending.push((path.clone(), true));
            for entry in std::fs::read_dir(&path)? {
                pending.push((entry?.path(), false));
            }
        } else if path != directory {
            call(&path, &metadata)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_opened_and_programs_are_not() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("dir")).unwrap();
        let modes = |modes: [u32; 2]| {
            for (name, mode) in ["dir/file", "program"].into_iter().zip(modes) {
                let path = top.path().join(name);
                std::fs::write(&path, "").unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            open_files(top.path()).unwrap();
            ["dir/file", "program"]
                .map(|name| std::fs::metadata(top.path().join(name)).unwrap().permissions().mode() & 0o777)
        };
        assert_eq!(modes([0o644, 0o755]), [0o666, 0o755]);
    }
}
