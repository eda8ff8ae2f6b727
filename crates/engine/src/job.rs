//! What all operations of one build share, and the services they need from it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use slipway_files::Root;
use slipway_model::llb::{Vertex, pb};
use slipway_model::progress::EventSink;
use slipway_model::solve::Entitlement;
use slipway_model::{Compatibility, Diagnostic, Digest, Digester, ErrorKind, Platform, Secret};
use slipway_runtime::Process;
use slipway_store::{ActiveSnapshot, CommitInfo, Lease, SnapshotId};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::attest::Pins;
use crate::blobs::Blobs;
use crate::build::BuildOptions;
use crate::engine::Inner;
use crate::error::{Context as _, blocking};
use crate::failed::FailedSteps;
use crate::images::Images;
use crate::ops::keys::Selection;
use crate::policy::Policies;
use crate::progress::Progress;
use crate::remote_cache::RemoteCache;
use crate::sandbox::Sandboxes;
use crate::session::{AgentOffer, Session};
use crate::sources::local::Contexts;
use crate::ssh::AgentSocket;
use crate::start_over::StartOver;
use crate::tree::Tree;
use crate::vertices::Vertices;
use crate::views::Views;

/// The key-value namespace of content digests of snapshots.
const CONTENT: &str = "content";

/// One build of one client.
pub(crate) struct Job {
    pub(crate) engine: Arc<Inner>,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) lease: Lease,
    pub(crate) progress: Progress,
    pub(crate) images: Images,
    pub(crate) blobs: Blobs,
    pub(crate) contexts: Contexts,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) entitlements: BTreeSet<Entitlement>,
    /// Processes reach the network through a proxy only.
    pub(crate) proxy_network: bool,
    pub(crate) cancel: CancellationToken,
    /// Unique to the build.
    pub(crate) nonce: Digest,
    pub(crate) started: SystemTime,
    pub(crate) notes: Notes,
    pub(crate) views: Views,
    pub(crate) remote: RemoteCache,
    pub(crate) policies: Policies,
    pub(crate) compatibility: Compatibility,
}

/// What a job finds out and does on its way, each thing once; starts empty.
#[derive(Default)]
pub(crate) struct Notes {
    running: Arc<Mutex<HashMap<u64, Arc<Process>>>>,
    /// Snapshots whose files are there to be read.
    ready: Mutex<HashMap<SnapshotId, Slot<()>>>,
    /// Blobs that were pushed, by repository.
    pushed: Mutex<HashMap<(String, Digest), Slot<()>>>,
    /// Answers of web servers, by address.
    http: Mutex<HashMap<String, Slot<Vec<u8>>>>,
    /// Cache mounts that were started anew.
    anew: Mutex<HashSet<String>>,
    pub(crate) start_over: StartOver,
    pub(crate) vertices: Vertices,
    pub(crate) failed: FailedSteps,
    pub(crate) pins: Pins,
}

impl Notes {
    /// Forgets what may rest on a layer that is lost.
    pub(crate) fn forget(&self) {
        self.ready.lock().clear();
        self.pushed.lock().clear();
        self.vertices.forget();
    }
}

/// Work that is done once, by whoever asks first.
pub(crate) type Slot<T> = Arc<OnceCell<Result<T, Diagnostic>>>;

impl Job {
    /// Starts a job that has done nothing yet.
    pub(crate) fn start(
        engine: &Arc<Inner>,
        options: BuildOptions,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<Self, Diagnostic> {
        let BuildOptions { id, session, entitlements, proxy_network, compatibility, .. } = options;
        let proxy_network = proxy_network || engine.config.proxy_network;
        let lease = engine.store.lease().diagnose()?;
        let progress = Progress::new(events);
        let client = match session.credentials() {
            Some(credentials) => engine.client.with_credentials(credentials),
            None => engine.client.clone(),
        };
        let blobs = Blobs::new(client, engine.store.clone(), lease.clone(), progress.clone(), cancel.clone());
        blobs.serve(session.clone());
        Ok(Self {
            contexts: Contexts::new(session.clone(), engine.store.clone(), lease.clone(), progress.clone()),
            notes: Notes { pins: Pins::new(proxy_network), ..Notes::default() },
            views: Views::default(),
            proxy_network,
            engine: engine.clone(),
            session,
            lease,
            progress,
            images: Images::new(blobs.clone()),
            blobs,
            sandboxes: Sandboxes::default(),
            entitlements,
            cancel,
            nonce: nonce(&id),
            started: SystemTime::now(),
            remote: RemoteCache::default(),
            policies: Policies::default(),
            compatibility,
        })
    }

    /// Names the run of the build, as no client can choose it.
    pub(crate) fn invocation(&self) -> String {
        self.nonce.hex().to_string().chars().take(25).collect()
    }

    /// Adds to a vertex's name how it will run, where that is not natively.
    pub(crate) fn display_name(&self, vertex: &Vertex, name: String) -> String {
        let is_exec = matches!(vertex.op.op, Some(pb::op::Op::Exec(_)));
        match self.sandboxes.describe(vertex.platform().as_ref()).filter(|_| is_exec) {
            Some(emulator) => format!("{name} [{emulator}]"),
            None => name,
        }
    }

    /// Makes the files of a tree readable: fetches and unpacks what was never needed before.
    ///
    /// Returns the snapshot, `None` for the empty tree.
    pub(crate) async fn materialize(
        &self,
        tree: &Tree,
        vertex: Digest,
    ) -> Result<Option<SnapshotId>, Diagnostic> {
        match tree {
            Tree::Empty => Ok(None),
            Tree::Snapshot(id) => {
                let slot = self.notes.ready.lock().entry(*id).or_default().clone();
                slot.get_or_init(|| self.blobs.unpack(*id, vertex, &self.lease)).await.clone()?;
                Ok(Some(*id))
            }
            Tree::Local(context) => context.snapshot(self).await.map(Some),
        }
    }

    /// Computes the digest of what is selected of a tree.
    ///
    /// A snapshot never changes, so its digests are kept between runs.
    pub(crate) async fn content_digest(
        self: &Arc<Self>,
        tree: &Tree,
        selections: Vec<Selection>,
    ) -> Result<Digest, Diagnostic> {
        if let Tree::Local(context) = tree {
            let context = context.clone();
            return blocking(move || context.content_digest(&selections)).await;
        }
        let mut digester = Digester::new();
        digester.field(tree.snapshot().map(|id| id.to_string()).unwrap_or_default());
        for selection in &selections {
            selection.key(&mut digester);
        }
        let key = *digester.finish().as_bytes();
        let values = self.engine.store.key_values();
        let stored = values.get(CONTENT, &key).ok().flatten();
        let known = stored.and_then(|stored| stored.value.try_into().ok()).map(Digest::from_sha256);
        if let (Some(known), Some(_)) = (known, tree.snapshot()) {
            return Ok(known);
        }
        let snapshot = self.materialize(tree, Digest::of("content")).await?;
        let job = self.clone();
        let digest = blocking(move || crate::content::of_snapshot(&job, snapshot, &selections)).await?;
        if tree.snapshot().is_some() {
            let _ = values.put(CONTENT, &key, digest.as_bytes());
        }
        Ok(digest)
    }

    /// Gives the files of a snapshot, which must be unpacked.
    pub(crate) fn view(&self, snapshot: SnapshotId) -> Result<Arc<Root>, Diagnostic> {
        self.views.get(&self.engine.store, snapshot)
    }

    /// Commits what an operation wrote, under the operation's name.
    pub(crate) fn commit(&self, active: ActiveSnapshot, description: &str) -> Result<SnapshotId, Diagnostic> {
        let info = CommitInfo { description: description.to_owned(), ..CommitInfo::default() };
        active.commit(&info).context(|| "cannot keep the result of a step".to_owned())
    }

    /// Returns the place where a push of a blob to a repository is noted.
    pub(crate) fn pushed_slot(&self, repository: &str, digest: &Digest) -> Slot<()> {
        self.notes.pushed.lock().entry((repository.to_owned(), *digest)).or_default().clone()
    }

    /// Returns the place where the answer of a web server is noted.
    pub(crate) fn http_slot(&self, address: &str) -> Slot<Vec<u8>> {
        self.notes.http.lock().entry(address.to_owned()).or_default().clone()
    }

    /// Returns an empty directory, for a mount of nothing.
    pub(crate) fn empty_directory(&self) -> Result<OwnedFd, Diagnostic> {
        let active = self.engine.store.snapshots().prepare(None, &self.lease).diagnose()?;
        Ok(active.mount().diagnose()?.into_fd())
    }

    /// Fills a new cache mount with what the Dockerfile says it starts from.
    pub(crate) fn seed_directory(&self, snapshot: SnapshotId, directory: &Path) -> Result<(), Diagnostic> {
        crate::content::copy_out(&self.engine.store, snapshot, directory)
    }

    /// Lets a cache mount start anew, once in the build: what its steps put there, later ones find.
    pub(crate) fn start_cache_mount_anew(&self, id: String) -> Result<(), Diagnostic> {
        if !self.notes.anew.lock().insert(id.clone()) {
            return Ok(());
        }
        let started = self.engine.store.cache_mounts().start_anew(&id, &self.lease);
        started.context(|| format!("cannot empty the cache mount `{id}`"))
    }

    /// Returns a secret's value; `None` if there is none and it is not required.
    pub(crate) async fn secret(
        &self,
        id: &str,
        required: bool,
    ) -> Result<Option<Secret<Vec<u8>>>, Diagnostic> {
        let value = self.session.secret(id).await?;
        if value.is_some() || !required {
            return Ok(value);
        }
        Err(Diagnostic::new(ErrorKind::User, format!("secret {id}: not found"))
            .hint(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`")))
    }

    /// Makes a socket that leads to the client's ssh agent; `None` if there is none and it is not required.
    pub(crate) async fn forward_agent(
        &self,
        options: &pb::SshOpt,
    ) -> Result<Option<AgentSocket>, Diagnostic> {
        let id = &options.id;
        let missing = match self.session.has_ssh(id).await? {
            AgentOffer::Forwarded => None,
            AgentOffer::OtherNames => Some(format!("unset ssh forward key {id}")),
            AgentOffer::Nothing => Some(format!("no SSH key \"{id}\" forwarded from the client")),
        };
        if let Some(message) = missing {
            if options.optional {
                return Ok(None);
            }
            return Err(Diagnostic::new(ErrorKind::User, message)
                .hint(format!("forward your agent with `--ssh {id}`")));
        }
        let directory = self.engine.store.temporary_directory(&self.lease).diagnose()?;
        AgentSocket::listen(self.session.clone(), options, &directory).map(Some)
    }

    /// Notes a running process, so that [`Job::abort`] can kill it.
    pub(crate) fn track(&self, process: Arc<Process>) -> Running {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.notes.running.lock().insert(id, process.clone());
        if self.cancel.is_cancelled() {
            process.kill();
        }
        Running { id, running: self.notes.running.clone() }
    }

    /// Kills every running step, and keeps new ones from starting.
    pub(crate) fn abort(&self) {
        self.cancel.cancel();
        for process in self.notes.running.lock().values() {
            process.kill();
        }
    }

    /// Returns the platform's name for messages.
    pub(crate) fn platform_name(platform: Option<&Platform>) -> String {
        platform.cloned().unwrap_or_else(Platform::host).to_string()
    }
}

/// Makes a value that no other build has.
fn nonce(id: &str) -> Digest {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut digester = Digester::new();
    digester.field(id);
    digester.field(std::process::id().to_le_bytes());
    digester.field(COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    digester.field(now.as_nanos().to_le_bytes());
    digester.finish()
}

/// A process that [`Job::abort`] knows of; dropped when it has ended.
pub(crate) struct Running {
    id: u64,
    running: Arc<Mutex<HashMap<u64, Arc<Process>>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}
