//! Containers that a client or a frontend starts and talks to, beside the steps of a definition.
//!
//! A container is a set of mounts and, once a process is started in it, a sandbox. The first process is the
//! container: the others join its namespaces, so they see its mounts and each other, and when it ends, they are
//! killed and none is started any more. What the processes write is thrown away with the container.

use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use slipway_files::{FileTree, Root};
use slipway_model::llb::pb;
use slipway_model::solve::Entitlement;
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform};
use slipway_proxy::Serving;
use slipway_runtime::{
    FileContent, Listener, Mount, MountSource, PendingListener, Process, ProcessSpec, Security, Stdio,
    Terminals,
};
use slipway_store::{ActiveSnapshot, CacheMount, MountedTree, Sharing, SnapshotId};

use super::files::{self, FileInfo};
use super::{Build, Canceled, Ref};
use crate::error::{Context as _, Explain as _, blocking, internal};
use crate::job::{Job, Running};
use crate::ops::{absolute, cache_id, limits, process_settings};
use crate::proxied::{self, StepProxy};
use crate::sandbox::Sandbox;
use crate::ssh::AgentSocket;

/// What programs of Windows see as their search path when nobody says.
const WINDOWS_PATH: &str = r"PATH=c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";

/// What a container is made of.
#[derive(Clone, Debug, Default)]
pub struct ContainerRequest {
    /// One of them is at `/`.
    pub mounts: Vec<ContainerMount>,
    /// A `pb::NetMode`.
    pub network: i32,
    pub platform: Option<Platform>,
    /// Empty is the usual name.
    pub hostname: String,
    pub extra_hosts: Vec<pb::HostIp>,
}

/// One mount of a container.
#[derive(Clone, Debug, Default)]
pub struct ContainerMount {
    /// Where and what; its input and output say nothing here.
    pub mount: pb::Mount,
    /// The files of a bind mount; `None` is an empty directory.
    pub reference: Option<Ref>,
    /// Makes the mount a file of its own, that can only be read.
    pub content: Option<Vec<u8>>,
}

/// A process to start in a container.
#[derive(Debug)]
pub struct ProcessRequest {
    pub meta: pb::Meta,
    /// A `pb::SecurityMode`.
    pub security: i32,
    pub secret_env: Vec<pb::SecretEnv>,
    pub stdio: Stdio,
}

/// Files and other things that processes see; dropping it kills the processes.
pub struct Container {
    job: Arc<Job>,
    sandbox: Sandbox,
    request: ContainerRequest,
    /// In the order of the request; without what is optional and not there.
    mounts: Vec<(pb::Mount, Option<Held>)>,
    terminals: Terminals,
    processes: Arc<Processes>,
    /// By which the processes reach the network, if by nothing else.
    proxy: Option<Arc<StepProxy>>,
    /// From the first process on.
    serving: Mutex<Option<Serving>>,
}

/// The processes of a container.
#[derive(Default)]
struct Processes {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    first: Option<Weak<Process>>,
    /// Why no process is started any more.
    over: Option<Over>,
    running: Vec<Weak<Process>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    FirstEnded,
    Released,
}

impl Processes {
    /// Kills what runs; says whether anything did.
    fn end(&self, over: Over) -> bool {
        let mut state = self.state.lock();
        state.over.get_or_insert(over);
        let running = std::mem::take(&mut state.running);
        let mut any = false;
        for process in running.iter().filter_map(Weak::upgrade) {
            process.kill();
            any = true;
        }
        any
    }

    /// Enters a process that `start` makes, beside the first one if there is one; says whether it is the first.
    fn start(
        &self,
        start: impl FnOnce(Option<&Process>) -> Result<Process, Diagnostic>,
    ) -> Result<(Arc<Process>, bool), Diagnostic> {
        let stopped = || {
            Diagnostic::new(ErrorKind::User, "the container has stopped")
                .hint("its first process has ended: make another container")
        };
        let mut state = self.state.lock();
        if state.over.is_some() {
            return Err(stopped());
        }
        let first = state.first.as_ref().map(|first| first.upgrade().ok_or_else(stopped)).transpose()?;
        let process = Arc::new(start(first.as_deref())?);
        if first.is_none() {
            state.first = Some(Arc::downgrade(&process));
        }
        state.running.push(Arc::downgrade(&process));
        Ok((process, first.is_none()))
    }

    fn remove(&self, process: &Arc<Process>) {
        let gone = Arc::downgrade(process);
        self.state.lock().running.retain(|other| !other.ptr_eq(&gone));
    }

    fn is_released(&self) -> bool {
        self.state.lock().over == Some(Over::Released)
    }
}

/// What a mount needs for as long as the container lives.
enum Held {
    Files { tree: MountedTree, _active: Option<ActiveSnapshot> },
    Tmpfs { size: Option<u64> },
    Cache(CacheMount),
    File(FileContent),
    Agent(AgentSocket),
}

impl Drop for Container {
    fn drop(&mut self) {
        self.processes.end(Over::Released);
    }
}

impl Build {
    /// Makes a container; its files are built if they are not yet.
    pub async fn container(&self, request: ContainerRequest) -> Result<Container, Diagnostic> {
        self.run(|| Container::new(&self.job, request.clone())).await
    }
}

fn refused(name: &str) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("{name} is not allowed"))
        .hint(format!("grant it with `--allow {name}`"))
}

impl Container {
    async fn new(job: &Arc<Job>, request: ContainerRequest) -> Result<Self, Diagnostic> {
        if request.network == pb::NetMode::Host as i32
            && !job.entitlements.contains(&Entitlement::NetworkHost)
        {
            return Err(refused("network.host"));
        }
        if !request.mounts.iter().any(|mount| mount.mount.dest == "/") {
            return Err(Diagnostic::new(ErrorKind::User, "the container has no root file system"));
        }
        // A program of another system cannot run, but one may look at its files.
        let platform = request.platform.clone().filter(|platform| platform.os == "linux");
        let platform = platform.unwrap_or_else(Platform::host);
        job.sandboxes.decide(|| job.engine.facts(), [platform.clone()]).map_err(super::first)?;
        let sandbox = job.sandboxes.for_platform(Some(&platform)).await?;
        let mut mounts = Vec::with_capacity(request.mounts.len());
        for wanted in &request.mounts {
            let mount = pb::Mount { dest: absolute(&wanted.mount.dest, "/"), ..wanted.mount.clone() };
            mounts.push((mount, hold(job, wanted).await?));
        }
        let terminals = Terminals::new()
            .map_err(std::io::Error::from)
            .context(|| "cannot make the terminals of a container".to_owned())?;
        Ok(Self {
            job: job.clone(),
            sandbox,
            mounts,
            terminals,
            processes: Arc::default(),
            proxy: job.proxy(request.network)?.map(Arc::new),
            serving: Mutex::default(),
            request,
        })
    }

    /// Returns what terminals for its processes are made of.
    pub fn terminals(&self) -> &Terminals {
        &self.terminals
    }

    /// Kills what still runs, and starts nothing any more.
    ///
    /// # Errors
    /// If something still ran.
    pub fn release(&self) -> Result<(), Diagnostic> {
        match self.processes.end(Over::Released) {
            true => Err(Canceled.into()),
            false => Ok(()),
        }
    }

    /// Reads a file, or the part of it that `range` names, of the mount at that position of the request.
    pub async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<Vec<u8>, Diagnostic> {
        self.look(mount, path, move |tree, path| files::read_file(tree, path, range)).await
    }

    /// Lists a directory of a mount, with `pattern` only the names that match it.
    pub async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        pattern: Option<&str>,
    ) -> Result<Vec<FileInfo>, Diagnostic> {
        let pattern = pattern.map(str::to_owned);
        self.look(mount, path, move |tree, path| files::read_dir(tree, path, pattern.as_deref())).await
    }

    /// Returns the attributes of a file of a mount; a symbolic link's are its own.
    pub async fn stat_file(&self, mount: usize, path: &str) -> Result<FileInfo, Diagnostic> {
        self.look(mount, path, files::stat_file).await
    }

    /// Does something with the files of a mount.
    async fn look<T: Send + 'static>(
        &self,
        position: usize,
        path: &str,
        work: impl FnOnce(&dyn FileTree, &str) -> Result<T, Diagnostic> + Send + 'static,
    ) -> Result<T, Diagnostic> {
        let no_files = |why: &str| {
            Diagnostic::new(ErrorKind::User, format!("cannot look into mount {position} of the container"))
                .cause(why)
        };
        let Some((mount, held)) = self.mounts.get(position) else {
            return Err(no_files("there is no such mount"));
        };
        let root = match held.as_ref().filter(|held| !matches!(held, Held::Tmpfs { .. })) {
            Some(held) => match held.source()? {
                MountSource::Detached(directory) => Root::from(directory),
                _ => return Err(no_files("it is no directory")),
            },
            None => return Err(no_files("it has files only while a process sees them")),
        };
        let path = format!("{}/{path}", mount.selector);
        blocking(move || work(&root, &path)).await
    }

    /// Starts a process.
    pub async fn start(&self, request: ProcessRequest) -> Result<ContainerProcess, Diagnostic> {
        let job = &self.job;
        let insecure = request.security == pb::SecurityMode::Insecure as i32;
        if insecure && !job.entitlements.contains(&Entitlement::SecurityInsecure) {
            return Err(refused("security.insecure"));
        }
        let mut secrets = Vec::new();
        for secret in &request.secret_env {
            if let Some(value) = job.secret(&secret.id, !secret.optional).await? {
                secrets.push(format!("{}={}", secret.name, String::from_utf8_lossy(value.expose())));
            }
        }
        let root = self.root()?;
        let terminal = matches!(request.stdio, Stdio::Terminal(_));
        let mut meta = request.meta;
        if self.is_windows() && !meta.env.iter().any(|entry| entry.starts_with("PATH=")) {
            meta.env.push(WINDOWS_PATH.to_owned());
        }
        let mut settings = process_settings(&meta, root.as_fd(), secrets)?;
        if terminal && !settings.env.iter().any(|entry| entry.starts_with("TERM=")) {
            settings.env.push("TERM=xterm".to_owned());
        }
        if meta.hostname.is_empty() && !self.request.hostname.is_empty() {
            settings.hostname.clone_from(&self.request.hostname);
        }
        settings.network = self.job.engine.network(self.request.network);
        settings.limits = limits(None, self.job.engine.cgroup_parent(&meta.cgroup_parent));
        settings.security = if insecure { Security::Insecure } else { Security::Sandbox };
        settings.readonly_root = self.mounts.iter().any(|(mount, _)| mount.dest == "/" && mount.readonly);
        self.sandbox.adjust(&mut settings);
        if let Some(proxy) = &self.proxy {
            proxy.lead(&mut settings);
        }
        let server = self.sandbox.server();
        let stdio = request.stdio;
        let mut pending = None;
        let (process, is_first) = self.processes.start(|first| match first {
            None => {
                let (mounts, terminals) = (self.mounts(&meta)?, Some(self.terminals.clone()));
                let listener = self.prepare_proxy(root.as_fd(), &mut pending)?;
                let spec = ProcessSpec { root, mounts, terminals, stdio, listener, settings };
                server.spawn(spec).map_err(|error| error.explain())
            }
            Some(first) => server.join(first, &stdio, settings).map_err(|error| error.explain()),
        })?;
        let running = job.track(process.clone());
        if let (Some(proxy), Some(pending)) = (self.proxy.clone(), pending) {
            let serving = blocking(move || proxy.serve(pending)).await?;
            *self.serving.lock() = serving;
        }
        Ok(ContainerProcess { process, is_first, siblings: self.processes.clone(), _running: running })
    }

    /// Makes the programs of the container believe its proxy, and asks for the proxy's socket.
    ///
    /// The files are the container's own, and go with it: so the certificate stays in them.
    fn prepare_proxy(
        &self,
        root: BorrowedFd<'_>,
        pending: &mut Option<PendingListener>,
    ) -> Result<Option<Listener>, Diagnostic> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        proxy.trust(root)?.keep();
        let (listener, socket) = proxied::listener()?;
        *pending = Some(socket);
        Ok(Some(listener))
    }

    fn is_windows(&self) -> bool {
        self.request.platform.as_ref().is_some_and(|platform| platform.os == "windows")
    }

    /// Makes the mount of the root.
    fn root(&self) -> Result<OwnedFd, Diagnostic> {
        let root = self.mounts.iter().rev().find(|(mount, _)| mount.dest == "/");
        match root.and_then(|(_, held)| held.as_ref()).map(Held::source).transpose()? {
            Some(MountSource::Detached(root)) => Ok(root),
            _ => Err(internal("the root of a container is no directory")),
        }
    }

    /// Makes the other mounts.
    fn mounts(&self, meta: &pb::Meta) -> Result<Vec<Mount>, Diagnostic> {
        let mut mounts = Vec::with_capacity(self.mounts.len() + 2);
        for (mount, held) in self.mounts.iter().filter(|(mount, _)| mount.dest != "/") {
            let Some(held) = held else { continue };
            let source = part(held.source()?, &mount.selector);
            let readonly = mount.readonly || matches!(held, Held::File(_));
            mounts.push(Mount { destination: mount.dest.clone(), source, readonly });
        }
        let hostname = match (meta.hostname.as_str(), self.request.hostname.as_str()) {
            ("", "") => crate::ops::HOSTNAME,
            ("", name) | (name, _) => name,
        };
        let hosts = self.request.extra_hosts.iter().chain(&meta.extra_hosts);
        mounts.extend(crate::ops::system_files(hostname, hosts, &self.job.engine.resolv_conf(), &mounts));
        Ok(mounts)
    }
}

fn part(source: MountSource, selector: &str) -> MountSource {
    match (source, selector.trim_matches('/')) {
        (MountSource::Detached(mount), path) if !matches!(path, "" | ".") => {
            MountSource::Subtree { mount, path: path.to_owned() }
        }
        (source, _) => source,
    }
}

impl Held {
    fn source(&self) -> Result<MountSource, Diagnostic> {
        let host =
            |path: &std::path::Path| MountSource::host_path(path).map_err(std::io::Error::from).diagnose();
        Ok(match self {
            Self::Files { tree, .. } => MountSource::Detached(tree.try_clone().diagnose()?.into_fd()),
            Self::Tmpfs { size } => MountSource::Tmpfs { size: *size, mode: 0o1777 },
            Self::Cache(cache) => host(cache.path())?,
            Self::File(file) => MountSource::File(file.clone()),
            Self::Agent(agent) => host(agent.path())?,
        })
    }
}

/// Gets what a mount needs; `None` if it is optional and there is nothing.
async fn hold(job: &Arc<Job>, wanted: &ContainerMount) -> Result<Option<Held>, Diagnostic> {
    let mount = &wanted.mount;
    if let Some(content) = &wanted.content {
        let file = FileContent { content: content.clone(), mode: 0o400, uid: 0, gid: 0 };
        return Ok(Some(Held::File(file)));
    }
    match pb::MountType::try_from(mount.mount_type) {
        Ok(pb::MountType::Tmpfs) => {
            let size = mount.tmpfs_opt.as_ref().map(|options| options.size).filter(|size| *size > 0);
            Ok(Some(Held::Tmpfs { size: size.and_then(|size| u64::try_from(size).ok()) }))
        }
        Ok(pb::MountType::Secret) => {
            let options = mount.secret_opt.clone().unwrap_or_default();
            let value = job.secret(&options.id, !options.optional).await?;
            Ok(value.map(|value| {
                Held::File(FileContent {
                    content: value.expose().clone(),
                    mode: options.mode & 0o777,
                    uid: options.uid,
                    gid: options.gid,
                })
            }))
        }
        Ok(pb::MountType::Ssh) => {
            let options = mount.ssh_opt.clone().unwrap_or_default();
            Ok(job.forward_agent(&options).await?.map(Held::Agent))
        }
        Ok(pb::MountType::Cache) => {
            let options = mount.cache_opt.clone().unwrap_or_default();
            let sharing = match pb::CacheSharing::try_from(options.sharing) {
                Ok(pb::CacheSharing::Private) => Sharing::Private,
                Ok(pb::CacheSharing::Locked) => Sharing::Locked,
                _ => Sharing::Shared,
            };
            let (job, id) = (job.clone(), cache_id(mount));
            let acquire = move || {
                let cancelled = || job.cancel.is_cancelled();
                let mounts = job.engine.store.cache_mounts();
                mounts.acquire(id.as_str(), sharing, &job.lease, &|_| Ok(()), &cancelled).diagnose()
            };
            blocking(acquire).await.map(|cache| Some(Held::Cache(cache)))
        }
        _ => files(job, wanted).await.map(Some),
    }
}

async fn files(job: &Arc<Job>, wanted: &ContainerMount) -> Result<Held, Diagnostic> {
    let snapshot: Option<SnapshotId> = match &wanted.reference {
        Some(reference) => {
            let tree = reference.tree(job).await?;
            job.materialize(&tree, Digest::of("container")).await?
        }
        None => None,
    };
    let (job, readonly) = (job.clone(), wanted.mount.readonly && wanted.mount.dest != "/");
    blocking(move || {
        let snapshots = job.engine.store.snapshots();
        if let (true, Some(id)) = (readonly, snapshot) {
            return Ok(Held::Files { tree: snapshots.mount_view(id).diagnose()?, _active: None });
        }
        // What is written belongs to the container, and goes with it.
        let active = snapshots.prepare(snapshot, &job.lease).diagnose()?;
        Ok(Held::Files { tree: active.mount().diagnose()?, _active: Some(active) })
    })
    .await
}

/// A process of a container; dropping it kills it, and everything in the container if it is the first.
pub struct ContainerProcess {
    process: Arc<Process>,
    is_first: bool,
    siblings: Arc<Processes>,
    _running: Running,
}

impl Drop for ContainerProcess {
    fn drop(&mut self) {
        self.process.kill();
    }
}

impl ContainerProcess {
    /// Waits for the end and returns the exit code; it is an error if the container was released before.
    pub async fn wait(&self) -> Result<i32, Diagnostic> {
        let process = self.process.clone();
        let code = blocking(move || process.wait().diagnose().map(|exit| exit.status.code())).await;
        self.siblings.remove(&self.process);
        if self.siblings.is_released() {
            return Err(Canceled.into());
        }
        if self.is_first {
            self.siblings.end(Over::FirstEnded);
        }
        code
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// Kills the process, and everything in the container if it is the first.
    pub fn kill(&self) {
        self.process.kill();
    }
}
