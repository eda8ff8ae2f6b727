//! Directories of the person who builds: the build context and named contexts, read in place.
//!
//! Nothing is copied before a step needs it. What a `COPY` takes is found by walking just that part; content
//! digests come from an index that is kept between builds. A bind mount, which a step could otherwise use to
//! see excluded files or to race with an editor, gets a snapshot of the context instead.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_dockerfile::{Ignored, MainContext, SourceFile};
use slipway_files::patterns::{Pattern, PatternMatcher, parse_ignore_file};
use slipway_files::{ContextTree, DigestCache, FileTree as _, Root, Stability};
use slipway_model::solve::{ContextSource, DockerfileRequest, DockerfileSource, NamedContextSource};
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform};
use slipway_solver::CacheMap;
use slipway_store::{Lease, SnapshotId};
use tokio::sync::OnceCell;

use crate::engine::Inner;
use crate::error::{Context as _, blocking};
use crate::job::Job;
use crate::ops::keys::Selection;
use crate::ops::{VertexOperation, keys};
use crate::tree::Tree;

/// The name of the main context in LLB.
const MAIN: &str = "context";

/// A directory that a build reads.
pub(crate) struct LocalContext {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) tree: ContextTree,
    pub(crate) digests: DigestCache,
    /// The ignore file's name, for messages.
    ignore_file: String,
    snapshot: OnceCell<Result<SnapshotId, Diagnostic>>,
}

impl std::fmt::Debug for LocalContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalContext({})", self.directory.display())
    }
}

/// Returns the name of a named context, as it stands in LLB and in look-ups.
pub(crate) fn context_key(name: &str, platform: Option<&Platform>) -> String {
    match platform {
        Some(platform) => format!("{name}::{platform}"),
        None => name.to_owned(),
    }
}

/// A local directory's content is only known by looking at what is used of it, so its own key is new each time.
pub(super) fn cache_map(operation: &VertexOperation, name: &str) -> CacheMap {
    keys::source("local", None, name.as_bytes(), Some(operation.job.nonce))
}

/// Gives the directory, still unread.
pub(super) fn execute(operation: &VertexOperation, name: &str) -> Result<Tree, Diagnostic> {
    match operation.job.contexts.get(name) {
        Some(context) => Ok(Tree::Local(context.clone())),
        None => Err(Diagnostic::new(ErrorKind::User, format!("there is no local context `{name}`"))
            .hint("give a directory as the build context, as in `slipway build .`")),
    }
}

/// The local directories of a request.
pub(crate) struct LocalContexts {
    directory: Option<PathBuf>,
    main: MainContext,
    contexts: HashMap<String, Arc<LocalContext>>,
}

impl LocalContexts {
    /// Opens the directories of a request; an archive is unpacked first.
    pub(crate) fn open(
        request: &DockerfileRequest,
        engine: &Inner,
        lease: &Lease,
    ) -> Result<Self, Diagnostic> {
        let directory = match &request.context {
            ContextSource::Directory(path) => Some(path.clone()),
            ContextSource::Archive(path) => Some(unpack(path, engine, lease)?),
            ContextSource::Empty => None,
            ContextSource::Url(url) => {
                return Err(Diagnostic::new(ErrorKind::User, format!("cannot use `{url}` as build context"))
                    .cause("contexts at an address are not supported yet")
                    .hint("download it, and give the directory as the context"));
            }
        };
        let mut contexts = HashMap::new();
        let state = engine.store.root().join("contexts");
        // Without a context an empty directory stands for it: what is copied from it is then not found.
        let path = match &directory {
            Some(path) => path.clone(),
            None => engine.store.temporary_directory(lease).diagnose()?,
        };
        let special = directory.as_deref().and_then(|d| ignore_file_of(d, &request.dockerfile));
        contexts.insert(MAIN.to_owned(), Arc::new(LocalContext::open(MAIN, &path, special, &state)?));
        for named in &request.named_contexts {
            if let NamedContextSource::Directory(path) = &named.source {
                let name = format!("{MAIN}:{}", context_key(&named.name, named.platform.as_ref()));
                contexts.insert(name.clone(), Arc::new(LocalContext::open(&name, path, None, &state)?));
            }
        }
        Ok(Self { directory, main: MainContext::Local, contexts })
    }

    pub(crate) fn main(&self) -> MainContext {
        self.main.clone()
    }

    pub(crate) fn into_map(self) -> HashMap<String, Arc<LocalContext>> {
        self.contexts
    }

    /// Returns what the Dockerfile is called in messages.
    pub(crate) fn dockerfile_name(&self, source: &DockerfileSource) -> String {
        match source {
            DockerfileSource::Path(path) => path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_else(|| path.display().to_string()),
            DockerfileSource::Inline(_) => "Dockerfile".to_owned(),
            DockerfileSource::Url(url) => url.rsplit('/').next().unwrap_or("Dockerfile").to_owned(),
        }
    }

    /// Reads the Dockerfile.
    pub(crate) fn read_dockerfile(&self, source: &DockerfileSource) -> Result<SourceFile, Diagnostic> {
        let name = self.dockerfile_name(source);
        match source {
            DockerfileSource::Inline(text) => Ok(SourceFile::new(name, text.clone())),
            DockerfileSource::Url(url) => {
                Err(Diagnostic::new(ErrorKind::User, format!("cannot read a Dockerfile from {url}"))
                    .hint("download it, and name the file with `--file`"))
            }
            DockerfileSource::Path(path) => {
                let full = match &self.directory {
                    Some(directory) => directory.join(path),
                    None => path.clone(),
                };
                let text = std::fs::read(&full).map_err(|error| self.no_dockerfile(path, &full, &error))?;
                Ok(SourceFile::new(name, text))
            }
        }
    }

    fn no_dockerfile(&self, path: &Path, full: &Path, error: &std::io::Error) -> Diagnostic {
        let text = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        let diagnostic = Diagnostic::new(
            ErrorKind::User,
            format!("failed to read dockerfile: open {}: {text}", path.display()),
        );
        let beside = full.parent().and_then(|directory| std::fs::read_dir(directory).ok());
        let candidate = beside.into_iter().flatten().flatten().map(|e| e.file_name()).find(|name| {
            let name = name.to_string_lossy().to_lowercase();
            name.contains("dockerfile") || name == "containerfile"
        });
        match candidate {
            Some(name) => {
                diagnostic.hint(format!("there is `{}`: name it with `--file`", name.to_string_lossy()))
            }
            None => diagnostic
                .hint("name the file with `--file PATH`, or give the directory that has a Dockerfile"),
        }
    }

    /// Returns the question whether `.dockerignore` keeps a path out, if there is such a file.
    pub(crate) fn ignored(&self) -> Option<Ignored> {
        let context = self.contexts.get(MAIN)?.clone();
        if context.ignore_file.is_empty() || context.tree.has_exceptions() {
            return None;
        }
        Some(Arc::new(move |path: &str| context.tree.excluded_by(Path::new(path)).is_some()))
    }
}

fn unpack(archive: &Path, engine: &Inner, lease: &Lease) -> Result<PathBuf, Diagnostic> {
    let directory = engine.store.temporary_directory(lease).diagnose()?;
    let doing = || "cannot unpack the build context".to_owned();
    let root = Root::open(&directory).context(doing)?;
    let file = std::fs::File::open(archive).diagnose()?;
    let plain = slipway_files::archive::decompress(file).context(doing)?;
    slipway_files::archive::unpack(plain, Path::new("context"), &root, Default::default()).context(doing)?;
    Ok(directory)
}

/// Finds `<Dockerfile>.dockerignore`, which wins over `.dockerignore`.
fn ignore_file_of(directory: &Path, dockerfile: &DockerfileSource) -> Option<PathBuf> {
    let DockerfileSource::Path(path) = dockerfile else { return None };
    let mut name = directory.join(path).into_os_string();
    name.push(".dockerignore");
    Some(PathBuf::from(name)).filter(|path| path.is_file())
}

impl LocalContext {
    fn open(name: &str, directory: &Path, ignore: Option<PathBuf>, state: &Path) -> Result<Self, Diagnostic> {
        let doing = || format!("cannot read the context directory `{}`", directory.display());
        let root = Root::open(directory).context(doing)?;
        let ignore = ignore.unwrap_or_else(|| directory.join(".dockerignore"));
        let (patterns, ignore_file): (Vec<Pattern>, String) = match std::fs::read(&ignore) {
            Ok(text) => {
                let shown = ignore.strip_prefix(directory).unwrap_or(&ignore);
                (parse_ignore_file(&text), shown.display().to_string())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Vec::new(), String::new()),
            Err(error) => return Err(error).context(|| format!("cannot read `{}`", ignore.display())),
        };
        let matcher = PatternMatcher::from_patterns(patterns)
            .context(|| format!("cannot use `{}`", ignore.display()))?;
        let tree = ContextTree::new(root, matcher).context(doing)?;
        let digests = DigestCache::load(state, &DigestCache::name_of_directory(directory), Stability::Live);
        Ok(Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            tree,
            digests,
            ignore_file,
            snapshot: OnceCell::new(),
        })
    }

    /// Computes the digest of what is selected.
    pub(crate) fn content_digest(&self, selections: &[Selection]) -> Result<Digest, Diagnostic> {
        let digest = crate::content::of_tree(&self.tree, &self.digests, selections);
        digest.map_err(|error| self.explain(error))
    }

    /// Keeps what was found out about files for the next build; without it that build is slower, no more.
    pub(crate) fn save_digests(&self) {
        if let Err(error) = self.digests.save() {
            tracing::warn!(%error, directory = %self.directory.display(), "could not keep file digests");
        }
    }

    /// Says of a missing file whether it is excluded, and what is nearest to its name.
    pub(crate) fn explain(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        let Some(path) = crate::content::missing_path(&diagnostic) else { return diagnostic };
        if let Some(pattern) = self.tree.excluded_by(&path)
            && std::fs::symlink_metadata(self.directory.join(&path)).is_ok()
        {
            let excluded = format!(
                "`{}` is excluded by {}:{} `{}`",
                path.display(),
                self.ignore_file,
                pattern.line,
                pattern.text
            );
            diagnostic.causes.push(excluded);
            return diagnostic.hint(format!(
                "add `!{}` to {}, or remove the pattern",
                path.display(),
                self.ignore_file
            ));
        }
        if let Some(cause) = self.outside(&path) {
            diagnostic.causes.push(cause);
            let hint = "copy it into the context, build from a directory above, or name its directory with \
                        `--build-context NAME=DIRECTORY` for `COPY --from=NAME`";
            return diagnostic.hint(hint);
        }
        diagnostic.causes.push(format!("the context is `{}`", self.directory.display()));
        match self.nearest(&path) {
            Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
            None => diagnostic,
        }
    }

    /// Tells how a missing path leaves the context: by a symbolic link, or by `..`, which ends at the context's top.
    fn outside(&self, path: &Path) -> Option<String> {
        let top = self.directory.canonicalize().ok()?;
        let mut below = PathBuf::new();
        for component in path.components() {
            below.push(component);
            let Ok(target) = std::fs::read_link(top.join(&below)) else { continue };
            let absolute = target.is_absolute();
            let resolved = top.join(&below).canonicalize();
            if absolute || resolved.is_ok_and(|resolved| !resolved.starts_with(&top)) {
                let (link, target) = (below.display(), target.display());
                return Some(format!(
                    "`{link}` is a symbolic link to `{target}`, which is outside the context"
                ));
            }
        }
        let above = top.parent()?.join(path);
        let climbed = above.symlink_metadata().is_ok();
        climbed
            .then(|| format!("`../{}` is outside the context `{}`", path.display(), self.directory.display()))
    }

    /// Finds the name most like the missing one, in the directory it would be in or at the top.
    fn nearest(&self, path: &Path) -> Option<String> {
        let wanted = path.file_name()?.to_string_lossy().into_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        let directory = self.tree.children(parent).or_else(|_| self.tree.children(Path::new(""))).ok()?;
        directory
            .entries
            .iter()
            .map(|entry| entry.name.to_string_lossy().into_owned())
            .map(|name| (strsim::normalized_damerau_levenshtein(&name, &wanted), name))
            .filter(|(likeness, _)| *likeness > 0.5)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| parent.join(name).display().to_string())
    }

    /// Makes a snapshot of the whole context, for mounts.
    pub(crate) async fn snapshot(self: &Arc<Self>, job: &Job) -> Result<SnapshotId, Diagnostic> {
        let (engine, lease, this) = (job.engine.clone(), job.lease.clone(), self.clone());
        let make = || blocking(move || crate::content::snapshot_of_context(&engine.store, &lease, &this));
        self.snapshot.get_or_init(make).await.clone()
    }

    /// Finds the newest time of the context's files, in seconds since 1970.
    pub(crate) async fn newest(self: &Arc<Self>) -> Result<Option<i64>, Diagnostic> {
        let this = self.clone();
        blocking(move || crate::content::newest(&this.tree)).await
    }
}
