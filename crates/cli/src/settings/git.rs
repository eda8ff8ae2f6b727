//! What says of which commit a build is, asked of the repository the context is in: labels (`BUILDX_GIT_LABELS`), and
//! members of provenance (unless `BUILDX_GIT_INFO` is off).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use slipway_model::parse_bool;
use slipway_model::solve::{ContextSource, DockerfileSource, NamedContext, NamedContextSource};

use super::{SettingsError, Surroundings};

const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const DOCKERFILE: &str = "com.docker.image.source.entrypoint";

/// What a repository says of a build.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OfCommit {
    pub(super) labels: BTreeMap<String, String>,
    /// For provenance and for the records of builds.
    pub(super) vcs: BTreeMap<String, String>,
}

/// Asks the repository that a context is in, if it is in one and that is wanted.
pub(super) fn of_commit(
    context: &ContextSource,
    dockerfile: &DockerfileSource,
    named: &[NamedContext],
    around: &Surroundings,
) -> Result<OfCommit, SettingsError> {
    let mut found = OfCommit::default();
    let ContextSource::Directory(directory) = context else { return Ok(found) };
    let wants_labels = match around.variable("BUILDX_GIT_LABELS") {
        Some("full") => true,
        value => value.and_then(parse_bool) == Some(true),
    };
    let wants_vcs = around.variable("BUILDX_GIT_INFO").and_then(parse_bool) != Some(false);
    let is_kept = directory.ancestors().any(|above| above.join(".git").exists());
    if !(wants_labels || wants_vcs) || !is_kept {
        return Ok(found);
    }
    let repository = Repository { directory };
    let asked = repository.lines(&["rev-parse", "--show-toplevel", "HEAD"])?;
    let Some(root) = asked.first().map(Path::new) else { return Ok(found) };
    let mut say = |label: &str, vcs: &str, value: String| {
        if wants_vcs {
            found.vcs.insert(vcs.to_owned(), value.clone());
        }
        if wants_labels {
            found.labels.insert(label.to_owned(), value);
        }
    };
    // Before the first commit there is none.
    if let Some(commit) = asked.get(1).filter(|commit| *commit != "HEAD") {
        let checks = around.variable("BUILDX_GIT_CHECK_DIRTY").and_then(parse_bool) == Some(true);
        let dirty = checks && repository.ask(&["status", "--porcelain", "--ignored"])?.is_some();
        say(REVISION, "revision", if dirty { format!("{commit}-dirty") } else { commit.clone() });
    }
    if let Some(address) = repository.address()? {
        say(SOURCE, "source", address);
    }
    let file = match dockerfile {
        DockerfileSource::Path(file) => Some(directory.join(file)),
        _ => None,
    };
    if wants_labels && let Some(path) = file.as_ref().and_then(|file| below(file, root)) {
        found.labels.insert(DOCKERFILE.to_owned(), path);
    }
    if wants_vcs {
        let of_file = file.as_ref().and_then(|file| file.parent()).map(|parent| ("dockerfile", parent));
        let of_names = named.iter().filter_map(|context| match &context.source {
            NamedContextSource::Directory(path) => Some((context.name.as_str(), path.as_path())),
            _ => None,
        });
        for (name, path) in of_names.chain(of_file).chain([("context", directory.as_path())]) {
            if let Some(path) = below(path, root) {
                let path = if path.is_empty() { ".".to_owned() } else { path };
                found.vcs.insert(format!("localdir:{name}"), path);
            }
        }
    }
    Ok(found)
}

/// Finds the address of the repository that a directory is in.
pub(crate) fn address_of(directory: &Path) -> Result<Option<String>, SettingsError> {
    Repository { directory }.address()
}

struct Repository<'a> {
    directory: &'a Path,
}

impl Repository<'_> {
    /// Asks git something; `None` if there is no answer.
    fn ask(&self, arguments: &[&str]) -> Result<Option<String>, SettingsError> {
        let first = self.lines(arguments)?.into_iter().next();
        Ok(first.filter(|first| !first.is_empty()))
    }

    /// Asks git something; returns what it answers, line by line. An answer that breaks off is one to a question that
    /// cannot be answered in full.
    fn lines(&self, arguments: &[&str]) -> Result<Vec<String>, SettingsError> {
        let run =
            Command::new("git").arg("-C").arg(self.directory).args(arguments).stderr(Stdio::null()).output();
        let output = match run {
            Ok(output) => output,
            Err(_) if !self.directory.join(".git").is_dir() => return Ok(Vec::new()),
            Err(error) => {
                return Err(SettingsError::input(format!(
                    "failed to start `git` to ask for the commit: {error}"
                ))
                .hint("install git, or set `BUILDX_GIT_INFO=0` and unset `BUILDX_GIT_LABELS`"));
            }
        };
        if !output.status.success() && arguments.first() != Some(&"rev-parse") {
            return Ok(Vec::new());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
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
        let around = Surroundings::fixed(directory.path(), &[], b"");
        let context = ContextSource::Directory(directory.path().to_owned());
        let new = of_commit(&context, &DockerfileSource::default(), &[], &around).unwrap();
        let vcs: Vec<&str> = new.vcs.keys().map(String::as_str).collect();
        assert_eq!(vcs, ["localdir:context", "localdir:dockerfile"]);
        std::fs::create_dir(directory.path().join("app")).unwrap();
        std::fs::write(directory.path().join("app/Dockerfile"), "FROM scratch\n").unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "one"]);
        git(&["remote", "add", "origin", "https://me:secret@git.example/app.git"]);
        let commit = git(&["rev-parse", "HEAD"]);
        let asked = |variables: &[(&str, &str)]| {
            let around = Surroundings::fixed(directory.path(), variables, b"");
            let context = ContextSource::Directory(directory.path().join("app"));
            let named = [NamedContext {
                name: "top".to_owned(),
                platform: None,
                source: NamedContextSource::Directory(directory.path().to_owned()),
            }];
            of_commit(&context, &DockerfileSource::Path("Dockerfile".into()), &named, &around).unwrap()
        };
        let of = |variables: &[(&str, &str)]| {
            let labels = asked(variables).labels;
            labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(&[]), "");
        let pairs = [
            ("localdir:context", "app"),
            ("localdir:dockerfile", "app"),
            ("localdir:top", "."),
            ("revision", &commit),
            ("source", "https://git.example/app.git"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(asked(&[]).vcs, BTreeMap::from(pairs));
        assert_eq!(asked(&[("BUILDX_GIT_INFO", "0")]), OfCommit::default());
        assert_eq!(address_of(directory.path()).unwrap().as_deref(), Some("https://git.example/app.git"));
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
