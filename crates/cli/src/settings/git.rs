//! Labels that say of which commit an image is (`BUILDX_GIT_LABELS`), asked of the repository the context is in.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use slipway_model::parse_bool;
use slipway_model::solve::{ContextSource, DockerfileSource};

use super::{SettingsError, Surroundings};

const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const DOCKERFILE: &str = "com.docker.image.source.entrypoint";

/// Finds the labels of a context, if they are asked for and the context is in a repository.
pub(super) fn labels(
    context: &ContextSource,
    dockerfile: &DockerfileSource,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut labels = BTreeMap::new();
    let wanted = around.variable("BUILDX_GIT_LABELS").unwrap_or_default();
    let ContextSource::Directory(directory) = context else { return Ok(labels) };
    if wanted != "full" && parse_bool(wanted) != Some(true) {
        return Ok(labels);
    }
    let repository = Repository { directory };
    if repository.ask(&["rev-parse", "--is-inside-work-tree"])?.as_deref() != Some("true") {
        return Ok(labels);
    }
    if let Some(commit) = repository.ask(&["show", "--format=%H", "HEAD", "--quiet", "--"])? {
        let checks = around.variable("BUILDX_GIT_CHECK_DIRTY").and_then(parse_bool) == Some(true);
        let dirty = checks && repository.ask(&["status", "--porcelain", "--ignored"])?.is_some();
        labels.insert(REVISION.to_owned(), if dirty { format!("{commit}-dirty") } else { commit });
    }
    if let Some(address) = repository.address()? {
        labels.insert(SOURCE.to_owned(), address);
    }
    if let DockerfileSource::Path(file) = dockerfile
        && let Some(root) = repository.ask(&["rev-parse", "--show-toplevel"])?
        && let Some(path) = below(&directory.join(file), Path::new(&root))
    {
        labels.insert(DOCKERFILE.to_owned(), path);
    }
    Ok(labels)
}

struct Repository<'a> {
    directory: &'a Path,
}

impl Repository<'_> {
    /// Asks git something; `None` if there is no answer.
    fn ask(&self, arguments: &[&str]) -> Result<Option<String>, SettingsError> {
        let run =
            Command::new("git").arg("-C").arg(self.directory).args(arguments).stderr(Stdio::null()).output();
        let output = match run {
            Ok(output) => output,
            Err(_) if !self.directory.join(".git").is_dir() => return Ok(None),
            Err(error) => {
                return Err(SettingsError::input(format!(
                    "failed to start `git` for BUILDX_GIT_LABELS: {error}"
                ))
                .hint("install git, or unset the variable"));
            }
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let first = text.lines().next().unwrap_or_default().trim();
        Ok(Some(first.to_owned()).filter(|first| output.status.success() && !first.is_empty()))
    }

    /// Returns the address of what the branch follows, of `origin` or of `upstream`.
    fn address(&self) -> Result<Option<String>, SettingsError> {
        let mut remotes = Vec::new();
        if let Some(branch) = self.ask(&["symbolic-ref", "-q", "HEAD"])? {
            remotes.extend(self.ask(&["for-each-ref", "--format=%(upstream:remotename)", &branch])?);
        }
        remotes.extend(["origin".to_owned(), "upstream".to_owned()]);
        for remote in remotes {
            if let Some(address) = self.ask(&["remote", "get-url", &remote])? {
                return Ok(Some(without_login(&address)));
            }
        }
        Ok(None)
    }
}

/// Takes name and password out of an address.
fn without_login(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) if scheme.starts_with("http") => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
        }
        _ => address.to_owned(),
    }
}

/// Returns `path` as it is below `root`, both without links.
fn below(path: &Path, root: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    Some(path.strip_prefix(root.canonicalize().ok()?).ok()?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_commit() {
        let directory = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=T", "-c", "user.email=t@example.org"]).args(arguments);
            let output = command.env("HOME", directory.path()).current_dir(directory.path()).output();
            let output = output.expect("git is installed");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        git(&["init", "--quiet", "-b", "main"]);
        std::fs::create_dir(directory.path().join("app")).unwrap();
        std::fs::write(directory.path().join("app/Dockerfile"), "FROM scratch\n").unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "one"]);
        git(&["remote", "add", "origin", "https://me:secret@git.example/app.git"]);
        let commit = git(&["rev-parse", "HEAD"]);
        let of = |variables: &[(&str, &str)]| {
            let around = Surroundings::fixed(directory.path(), variables, b"");
            let context = ContextSource::Directory(directory.path().join("app"));
            let labels = labels(&context, &DockerfileSource::Path("Dockerfile".into()), &around).unwrap();
            labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(&[]), "");
        let rest = "org.opencontainers.image.source=https://git.example/app.git";
        let entrypoint = "com.docker.image.source.entrypoint=app/Dockerfile";
        assert_eq!(
            of(&[("BUILDX_GIT_LABELS", "full")]),
            format!("{entrypoint} org.opencontainers.image.revision={commit} {rest}")
        );
        std::fs::write(directory.path().join("new"), "").unwrap();
        let dirty = of(&[("BUILDX_GIT_LABELS", "1"), ("BUILDX_GIT_CHECK_DIRTY", "true")]);
        assert!(dirty.contains(&format!("revision={commit}-dirty ")), "{dirty}");
    }
}
