//! Directories of the person who builds: the build context and named contexts, read in place.
//!
//! Nothing is copied before a step needs it. What a `COPY` takes is found by walking just that part; content
//! digests come from an index that is kept between builds. A bind mount, which a step could otherwise use to
//! see excluded files or to race with an editor, gets a snapshot of the context instead.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prost::Message as _;
use slipway_dockerfile::Ignored;
use slipway_files::patterns::{Pattern, PatternMatcher, parse_ignore_file};
use slipway_files::{ContextTree, DigestCache, FileTree as _, Root, Stability};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, Digester, ErrorKind};
use slipway_solver::CacheMap;
use slipway_store::{Lease, SnapshotId, Store};
use tokio::sync::OnceCell;

use crate::attest::Pin;
use crate::error::{Context as _, blocking};
use crate::job::{Job, Slot};
use crate::ops::keys::Selection;
use crate::ops::{VertexOperation, keys};
use crate::progress::{Counter, Progress};
use crate::session::{Fetched, LocalRequest, MirrorDirectory, Opened, Session, SharedDirectories};
use crate::tree::Tree;

/// The name of the main context in LLB.
pub(crate) const MAIN: &str = "context";

/// A directory that a build reads.
pub(crate) struct LocalContext {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    opened: Arc<Opened>,
    origin: Origin,
    /// The ignore file's name, for messages.
    ignore_file: String,
    /// Of the patterns that keep files out of a directory which holds more than was asked for.
    filters: Digest,
    snapshot: OnceCell<Result<SnapshotId, Diagnostic>>,
    fetched: Arc<Fetched>,
}

impl std::fmt::Debug for LocalContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalContext({})", self.directory.display())
    }
}

/// Tells whether an attribute of a source differs from run to run.
pub(crate) fn is_of_one_run(attribute: &str) -> bool {
    matches!(attribute, "local.session" | "local.unique")
}

/// Names the session that has a directory of this machine: requests that are parts of one build have directories of
/// the same names.
pub(crate) fn session_of(directory: &Path) -> String {
    Digest::of(directory.as_os_str().as_encoded_bytes()).hex()[..25].to_owned()
}

/// Lists the sessions that the directories of a definition are named to be in.
fn sessions_in(definition: &pb::Definition) -> BTreeSet<String> {
    let session = |bytes: &Vec<u8>| match pb::Op::decode(bytes.as_slice()).ok()?.op? {
        pb::op::Op::Source(mut source) => source.attrs.remove("local.session"),
        _ => None,
    };
    definition.def.iter().filter_map(session).filter(|session| !session.is_empty()).collect()
}

/// A local directory's content is only known by looking at what is used of it, so its own key is new each time.
pub(super) fn cache_map(operation: &VertexOperation, source: &pb::SourceOp) -> CacheMap {
    operation.pin(Pin::Local);
    keys::source("local", None, &source.encode_to_vec(), Some(operation.job.nonce))
}

/// Gives the directory, still unread.
pub(super) async fn execute(
    operation: &VertexOperation,
    name: &str,
    source: &pb::SourceOp,
) -> Result<Tree, Diagnostic> {
    let request = request_of(name, source)?;
    operation.job.contexts.get(&request, operation.digest()).await.map(Tree::Local)
}

/// The local directories of a build, each opened when it is first asked for.
pub(crate) struct Contexts {
    session: Arc<dyn Session>,
    store: Store,
    lease: Lease,
    progress: Progress,
    /// What is known of directories by the sessions that have them, where definitions name them.
    shared: Mutex<HashMap<String, Arc<SharedDirectories>>>,
    /// What is known of the ignore files of directories, by name and session.
    ignore_files: Mutex<HashMap<(String, String), Arc<IgnoreFile>>>,
    /// Where directories come from that the client has not named.
    origins: Mutex<HashMap<(String, String), Origin>>,
    open: Mutex<HashMap<LocalRequest, Slot<Arc<LocalContext>>>>,
}

/// Where a directory comes from, for messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The client named it.
    #[default]
    Named,
    /// It was unpacked from an archive on standard input.
    Archive,
    /// There is none: an empty directory stands for it.
    Nowhere,
}

/// What keeps files out of a directory, and how it is called in messages.
#[derive(Debug, Default)]
pub(crate) struct IgnoreFile {
    /// Empty if there is none.
    pub(crate) name: String,
    pub(crate) patterns: Vec<Pattern>,
}

impl Contexts {
    pub(crate) fn new(session: Arc<dyn Session>, store: Store, lease: Lease, progress: Progress) -> Self {
        Self {
            session,
            store,
            lease,
            progress,
            shared: Mutex::default(),
            ignore_files: Mutex::default(),
            origins: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Sets the ignore file of a directory that the engine filters, before it is opened.
    pub(crate) fn ignore(&self, request: &LocalRequest, file: IgnoreFile) {
        self.ignore_files.lock().insert(place(request), Arc::new(file));
    }

    /// Says where a directory comes from, before it is opened.
    pub(crate) fn comes_from(&self, request: &LocalRequest, origin: Origin) {
        self.origins.lock().insert(place(request), origin);
    }

    /// Keeps what is known of the directories that a definition names: their sessions may end before this build.
    pub(crate) async fn keep(&self, definition: &pb::Definition) {
        for session in sessions_in(definition) {
            // One that is gone is missed when the directory is needed.
            let _ = self.shared(&session).await;
        }
    }

    async fn shared(&self, session: &str) -> Result<Arc<SharedDirectories>, Diagnostic> {
        if let Some(known) = self.shared.lock().get(session) {
            return Ok(known.clone());
        }
        let shared = self.session.directories(session).await?;
        Ok(self.shared.lock().entry(session.to_owned()).or_insert(shared).clone())
    }

    /// Gives what a request asks for, without reading it; what has to come is counted below `vertex`.
    pub(crate) async fn directory(
        &self,
        request: &LocalRequest,
        vertex: Digest,
    ) -> Result<Arc<Fetched>, Diagnostic> {
        let shared = self.shared(&request.session).await?;
        let fetch = || self.fetch(request, vertex, shared.shared_key());
        if request.session.is_empty() {
            // Without a name it is a directory of this build.
            return fetch().await.map(Arc::new);
        }
        shared.fetched(request, fetch).await
    }

    /// Asks the client.
    async fn fetch(
        &self,
        request: &LocalRequest,
        vertex: Digest,
        shared_key: &str,
    ) -> Result<Fetched, Diagnostic> {
        let mut key = Digester::new();
        for part in [shared_key, &request.name, &request.shared_key_hint] {
            key.field(part);
        }
        let (progress, name, counter) =
            (self.progress.clone(), format!("transferring {}:", request.name), OnceLock::new());
        let transferred = move |bytes| {
            let counter: &Counter = counter.get_or_init(|| progress.counter(vertex, name.clone(), 0));
            counter.add(bytes);
        };
        let (store, lease) = (self.store.clone(), self.lease.clone());
        let mirror = MirrorDirectory::new(store, lease, key.finish(), Arc::new(transferred));
        let directory = self.session.local(request, &mirror).await?;
        Ok(mirror.keep(directory))
    }

    /// Opens what a request asks for; equal requests are one directory.
    pub(crate) async fn get(
        &self,
        request: &LocalRequest,
        vertex: Digest,
    ) -> Result<Arc<LocalContext>, Diagnostic> {
        let slot = self.open.lock().entry(request.clone()).or_default().clone();
        let open = || async {
            let ignore = self.ignore_files.lock().get(&place(request)).cloned().unwrap_or_default();
            let fetched = self.directory(request, vertex).await?;
            let origin = self.origins.lock().get(&place(request)).copied().unwrap_or_default();
            self.open(request, fetched, &ignore, origin).await.map(Arc::new)
        };
        slot.get_or_init(open).await.clone()
    }

    async fn open(
        &self,
        request: &LocalRequest,
        fetched: Arc<Fetched>,
        ignore: &IgnoreFile,
        origin: Origin,
    ) -> Result<LocalContext, Diagnostic> {
        let directory = fetched.directory.path.clone();
        let mut patterns = ignore.patterns.clone();
        if !fetched.directory.filtered {
            patterns.extend(parse_ignore_file(request.exclude.join("\n").as_bytes()));
        }
        let mut filters = Digester::new();
        patterns.iter().for_each(|pattern| filters.field(&pattern.text));
        let look = || {
            let doing = || format!("cannot read the context directory `{}`", directory.display());
            let matcher = PatternMatcher::from_patterns(patterns.clone())
                .context(|| format!("cannot use `{}`", ignore.name))?;
            let tree = ContextTree::new(Root::open(&directory).context(doing)?, matcher).context(doing)?;
            let name = DigestCache::name_of_directory(&directory);
            let digests = DigestCache::load(&self.store.root().join("contexts"), &name, Stability::Live);
            Ok(Opened { tree, digests })
        };
        let shared = self.shared(&request.session).await?;
        let opened = shared.opened(&fetched.directory, &patterns, look).await?;
        Ok(LocalContext {
            name: request.name.clone(),
            directory: directory.clone(),
            opened,
            origin,
            ignore_file: ignore.name.clone(),
            filters: filters.finish(),
            snapshot: OnceCell::new(),
            fetched,
        })
    }

    /// Keeps what was found out about files: what was read of them need not be read again by the next build.
    pub(crate) fn save_digests(&self) {
        let open: Vec<Slot<Arc<LocalContext>>> = self.open.lock().values().cloned().collect();
        for slot in open {
            if let Some(Ok(context)) = slot.get() {
                context.save_digests();
            }
        }
    }
}

/// Tells which directory is meant, whatever is wanted of it.
fn place(request: &LocalRequest) -> (String, String) {
    (request.name.clone(), request.session.clone())
}

/// Reads what a source operation asks for.
pub(crate) fn request_of(name: &str, source: &pb::SourceOp) -> Result<LocalRequest, Diagnostic> {
    let text = |key: &str| source.attrs.get(key).cloned().unwrap_or_default();
    let list = |key: &str| -> Result<Vec<String>, Diagnostic> {
        match source.attrs.get(key).map(String::as_str) {
            None | Some("") => Ok(Vec::new()),
            Some(value) => serde_json::from_str(value).map_err(|error| {
                Diagnostic::new(
                    ErrorKind::User,
                    format!("the attribute `{key}` of `local://{name}` is no list"),
                )
                .cause(error.to_string())
            }),
        }
    };
    Ok(LocalRequest {
        name: name.to_owned(),
        include: list("local.includepattern")?,
        exclude: list("local.excludepatterns")?,
        follow_paths: list("local.followpaths")?,
        shared_key_hint: text("local.sharedkeyhint"),
        unique: text("local.unique"),
        session: text("local.session"),
        metadata_only: text("local.metadatatransfer") == "true",
        metadata_exceptions: list("local.metadatatransferexclude")?,
        always_send: text("local.differ") == "none",
    })
}

impl IgnoreFile {
    /// Returns the question whether a path is kept out, if there is such a file and it has no exceptions.
    pub(crate) fn ignored(&self) -> Result<Option<Ignored>, Diagnostic> {
        let matcher = PatternMatcher::from_patterns(self.patterns.clone())
            .context(|| format!("cannot use `{}`", self.name))?;
        if self.name.is_empty() || matcher.has_exceptions() {
            return Ok(None);
        }
        Ok(Some(Arc::new(move |path: &str| matcher.matches_or_parent(Path::new(path)))))
    }

    /// Reads the ignore file of a directory: `special` if there is such a file, or else `.dockerignore`.
    pub(crate) fn read(directory: &Path, special: Option<PathBuf>) -> Result<Self, Diagnostic> {
        let path = special.filter(|path| path.is_file()).unwrap_or_else(|| directory.join(".dockerignore"));
        match std::fs::read(&path) {
            Ok(text) => {
                let shown = path.strip_prefix(directory).unwrap_or(&path);
                Ok(Self { name: shown.display().to_string(), patterns: parse_ignore_file(&text) })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context(|| format!("cannot read `{}`", path.display())),
        }
    }
}

impl LocalContext {
    /// Returns the files.
    pub(crate) fn tree(&self) -> &ContextTree {
        &self.opened.tree
    }

    /// Returns what is known of the files' contents.
    pub(crate) fn digests(&self) -> &DigestCache {
        &self.opened.digests
    }

    /// Returns the question whether the ignore file keeps a path out, if there is such a file.
    pub(crate) fn ignored(self: &Arc<Self>) -> Option<Ignored> {
        let context = self.clone();
        if context.ignore_file.is_empty() || context.tree().has_exceptions() {
            return None;
        }
        Some(Arc::new(move |path: &str| context.tree().excluded_by(Path::new(path)).is_some()))
    }

    /// Computes the digest of what is selected.
    pub(crate) fn content_digest(&self, selections: &[Selection]) -> Result<Digest, Diagnostic> {
        let mut selected = Digester::new();
        selected.field(self.filters.as_bytes());
        selections.iter().for_each(|selection| selection.key(&mut selected));
        let (selected, mirror) = (selected.finish(), &self.fetched.mirror);
        if let Some(known) = mirror.as_ref().and_then(|mirror| mirror.digest(&selected)) {
            return Ok(known);
        }
        let digest = crate::content::of_tree(self.tree(), self.digests(), selections);
        let digest = digest.map_err(|error| self.explain(error))?;
        if let Some(mirror) = mirror {
            mirror.keep_digest(selected, digest);
        }
        Ok(digest)
    }

    /// Keeps what was found out about files for the next build; without it that build is slower, no more.
    pub(crate) fn save_digests(&self) {
        if let Err(error) = self.digests().save() {
            tracing::warn!(%error, directory = %self.directory.display(), "could not keep file digests");
        }
    }

    /// Says of a missing file whether it is excluded, and what is nearest to its name.
    pub(crate) fn explain(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        let Some(path) = crate::content::missing_path(&diagnostic) else { return diagnostic };
        if let Some(pattern) = self.tree().excluded_by(&path)
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
        if self.origin == Origin::Nowhere {
            diagnostic.causes.push("there is no build context: standard input was the Dockerfile".to_owned());
            return diagnostic.hint("give a directory too: `slipway build -f - DIRECTORY < Dockerfile`");
        }
        if let Some(cause) =
            self.outside(&path).filter(|_| self.origin == Origin::Named && !self.fetched.directory.filtered)
        {
            diagnostic.causes.push(cause);
            let hint = "copy it into the context, build from a directory above, or name its directory with \
                        `--build-context NAME=DIRECTORY` for `COPY --from=NAME`";
            return diagnostic.hint(hint);
        }
        // The mirror of a client elsewhere is no place that person knows.
        if self.fetched.directory.filtered {
            return diagnostic;
        }
        diagnostic.causes.push(match self.origin {
            Origin::Archive => "the context is the archive on standard input".to_owned(),
            _ => format!("the context is `{}`", self.directory.display()),
        });
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
        let directory = self.tree().children(parent).or_else(|_| self.tree().children(Path::new(""))).ok()?;
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
}
