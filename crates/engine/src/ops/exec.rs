//! Running a step: from an LLB exec to a process in a sandbox, and from what it wrote to snapshots.
//!
//! A step works on snapshots of its own; they are committed when it succeeded and thrown away otherwise, so
//! a step that fails, is killed or is retried leaves nothing. What a step may see besides its files (secrets,
//! agent sockets, cache mounts) is mounted over them and is never part of the result.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use slipway_model::llb::pb;
use slipway_model::progress::Stream;
use slipway_model::{Diagnostic, Digest, ErrorKind, Secret};
use slipway_proxy::Record;
use slipway_runtime::{FileContent, Mount, MountSource, ProcessSettings, ResourceLimits, Rlimit, Security};
use slipway_store::{ActiveSnapshot, CacheMount, CacheMountName, Sharing, SnapshotId};

use super::VertexOperation;
use super::keys::Selection;
use super::process::{Ending, Outcome, StepProcess};
use crate::devices;
use crate::error::{Context as _, blocking, internal};
use crate::failed::{FailedPart, Leftovers};
use crate::job::Job;
use crate::ssh::AgentSocket;
use crate::tree::Tree;

/// What programs see as their search path when neither the image nor the Dockerfile says.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The host name inside a step, as BuildKit has it.
pub(crate) const HOSTNAME: &str = "buildkitsandbox";

/// A mount whose content is known, before the kernel is asked.
struct Planned {
    mount: pb::Mount,
    snapshot: Option<SnapshotId>,
    /// Distinguishes cache mounts that start from different content.
    seed: Option<Digest>,
}

/// Returns the id of a cache mount, which is where it is mounted if none is given.
pub(crate) fn cache_id(mount: &pb::Mount) -> String {
    let id = mount.cache_opt.as_ref().map(|options| options.id.clone());
    id.filter(|id| !id.is_empty()).unwrap_or_else(|| mount.dest.clone())
}

/// Runs the step and returns one tree for each output, which will be known by `key`.
pub(super) async fn execute(
    operation: &VertexOperation,
    exec: &pb::ExecOp,
    key: &Digest,
    inputs: Vec<Tree>,
) -> Result<Vec<Tree>, Diagnostic> {
    let job = &operation.job;
    let mut planned = Vec::with_capacity(exec.mounts.len());
    let cwd = exec.meta.as_ref().map(|meta| meta.cwd.as_str()).unwrap_or_default();
    for mount in &exec.mounts {
        let tree = usize::try_from(mount.input).ok().and_then(|input| inputs.get(input));
        let snapshot = match tree {
            Some(tree) => job.materialize(tree, operation.digest()).await?,
            None => None,
        };
        let is_cache = mount.mount_type == pb::MountType::Cache as i32;
        let seed = match tree {
            Some(tree) if is_cache => {
                Some(job.content_digest(tree, vec![Selection::Path(mount.selector.clone())]).await?)
            }
            _ => None,
        };
        let mount = pb::Mount { dest: absolute(&mount.dest, cwd), ..mount.clone() };
        planned.push(Planned { mount, snapshot, seed });
    }
    let offered = Offered::gather(job, exec).await?;
    let _permit = job.engine.permits.acquire().await.map_err(|_| internal("the step permits are closed"))?;
    if job.cancel.is_cancelled() {
        return Err(Diagnostic::new(ErrorKind::User, "canceled"));
    }
    let sandbox = job.sandboxes.for_platform(operation.vertex.platform().as_ref()).await?;
    let (proxy, key) = (job.proxy(exec.network)?, *key);
    let (exec, job, vertex, name) =
        (exec.clone(), job.clone(), operation.vertex.clone(), operation.name.clone());
    let ending = Ending::default();
    let _guard = ending.guard();
    blocking(move || {
        let mut step = Prepared::new(&job, name, &exec, &planned, &offered)?;
        let mut settings = step.settings(&exec, &offered, &vertex.metadata)?;
        let devices = job.engine.config.devices.resolve(&exec.cdi_devices, &job.entitlements)?;
        let additions = devices::additions(&devices)?;
        settings.env.extend(additions.env);
        settings.user.additional_gids.extend(additions.groups);
        step.mounts.extend(additions.mounts);
        sandbox.adjust(&mut settings);
        let mounts = std::mem::take(&mut step.mounts);
        let root = step.root.try_clone().diagnose()?;
        let mut proxied = proxy.map(|proxy| proxy.enter(step.root.as_fd(), &mut settings)).transpose()?;
        let process = StepProcess { job: &job, vertex: vertex.digest, sandbox: &sandbox, ending: &ending };
        let outcome = process.run(root, mounts, settings, proxied.as_mut());
        let record = proxied.map(|proxied| proxied.leave(step.root.as_fd())).transpose()?;
        if let Some(log) = record.as_ref().map(Record::log).filter(|log| !log.is_empty()) {
            job.progress.log(vertex.digest, Stream::Stderr, log.as_bytes());
        }
        match outcome.and_then(|outcome| check(&exec, &sandbox, outcome)) {
            Ok(()) => {
                if let Some(record) = record {
                    job.keep_fetched(vertex.digest, &key, record.fetched)?;
                }
                step.commit()
            }
            Err(mut error) => {
                error.causes.extend(record.iter().flat_map(Record::refusals));
                let error = step.full_disk(error);
                job.notes.failed.keep(&vertex, FailedPart::Process, || step.leftovers(&planned));
                Err(error)
            }
        }
    })
    .await
}

/// What the client gives to a step, asked for before the step is set up: sockets live as long as this.
struct Offered {
    secrets: HashMap<String, Secret<Vec<u8>>>,
    /// By the position of the mount.
    agents: HashMap<usize, AgentSocket>,
}

impl Offered {
    async fn gather(job: &Arc<Job>, exec: &pb::ExecOp) -> Result<Self, Diagnostic> {
        let mut offered = Self { secrets: HashMap::new(), agents: HashMap::new() };
        for (position, mount) in exec.mounts.iter().enumerate() {
            match pb::MountType::try_from(mount.mount_type) {
                Ok(pb::MountType::Secret) => {
                    let options = mount.secret_opt.clone().unwrap_or_default();
                    offered.secret(job, &options.id, !options.optional).await?;
                }
                Ok(pb::MountType::Ssh) => {
                    let mut options = mount.ssh_opt.clone().unwrap_or_default();
                    if options.id.is_empty() {
                        options.id = "default".to_owned();
                    }
                    let agent = job.forward_agent(&options).await?;
                    offered.agents.extend(agent.map(|agent| (position, agent)));
                }
                _ => {}
            }
        }
        for secret in &exec.secretenv {
            offered.secret(job, &secret.id, !secret.optional).await?;
        }
        Ok(offered)
    }

    async fn secret(&mut self, job: &Job, id: &str, required: bool) -> Result<(), Diagnostic> {
        if let Some(value) = job.secret(id, required).await? {
            self.secrets.insert(id.to_owned(), value);
        }
        Ok(())
    }
}

/// The snapshots and mounts of a step that is about to run.
struct Prepared<'a> {
    job: &'a Arc<Job>,
    name: String,
    root: OwnedFd,
    mounts: Vec<Mount>,
    env: Vec<String>,
    readonly_root: bool,
    outputs: Vec<MountOutput>,
    /// Cache mounts, held while the step runs.
    _caches: StepCaches,
}

/// What becomes of a mount.
struct MountOutput {
    /// The position of the mount.
    mount: usize,
    /// Which result of the step it is; a negative one is nobody's, and kept until the step has ended.
    index: i64,
    output: Output,
}

enum Output {
    /// What the step writes is a result.
    New(ActiveSnapshot),
    /// What the step writes is thrown away; the result, if anyone asks, is what it started from.
    Scratch {
        active: ActiveSnapshot,
        original: Option<SnapshotId>,
    },
    Unchanged(Option<SnapshotId>),
}

/// With less than this, a disk counts as full: what a step could not write is larger than what is left.
const FULL: u64 = 64 << 10;

impl<'a> Prepared<'a> {
    /// Adds to a step's failure that the disk is full, if it is: programs seldom say so.
    fn full_disk(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        let full = rustix::fs::fstatvfs(&self.root).is_ok_and(|disk| disk.f_bavail * disk.f_frsize < FULL);
        if full {
            diagnostic.kind = ErrorKind::Environment;
            diagnostic.causes.push("no space left on the device of the state directory".to_owned());
            diagnostic.hint = Some(crate::error::FULL_DISK.to_owned());
        }
        diagnostic
    }

    fn new(
        job: &'a Arc<Job>,
        name: String,
        exec: &pb::ExecOp,
        planned: &[Planned],
        offered: &Offered,
    ) -> Result<Self, Diagnostic> {
        let mut root = None;
        let mut this = PreparedMounts::new(job, offered);
        for (position, plan) in planned.iter().enumerate() {
            if plan.mount.dest == "/" {
                root = Some(this.root(position, plan)?);
            } else {
                this.add(position, plan)?;
            }
        }
        let root = root.ok_or_else(|| internal("a step has no root file system"))?;
        this.system_files(exec);
        Ok(Self {
            job,
            name,
            root,
            mounts: this.mounts,
            env: this.env,
            readonly_root: this.readonly_root,
            outputs: this.outputs,
            _caches: this.caches,
        })
    }

    fn settings(
        &self,
        exec: &pb::ExecOp,
        offered: &Offered,
        metadata: &pb::OpMetadata,
    ) -> Result<ProcessSettings, Diagnostic> {
        let meta = exec.meta.clone().unwrap_or_default();
        let mut env = self.env.clone();
        for secret in &exec.secretenv {
            if let Some(value) = offered.secrets.get(&secret.id) {
                let value = String::from_utf8_lossy(value.expose()).into_owned();
                env.push(format!("{}={value}", secret.name));
            }
        }
        Ok(ProcessSettings {
            network: self.job.engine.network(exec.network),
            security: match pb::SecurityMode::try_from(exec.security) {
                Ok(pb::SecurityMode::Insecure) => Security::Insecure,
                _ => Security::Sandbox,
            },
            readonly_root: self.readonly_root,
            limits: limits(
                metadata.linux_resources.as_ref(),
                self.job.engine.cgroup_parent(&meta.cgroup_parent),
            ),
            ..process_settings(&meta, self.root.as_fd(), env)?
        })
    }

    fn commit(self) -> Result<Vec<Tree>, Diagnostic> {
        drop(self.root);
        let mut outputs = self.outputs;
        outputs.retain(|output| output.index >= 0);
        outputs.sort_by_key(|output| output.index);
        outputs
            .into_iter()
            .map(|output| match output.output {
                Output::New(active) => self.job.commit(active, &self.name).map(Tree::Snapshot),
                Output::Scratch { original, .. } | Output::Unchanged(original) => {
                    Ok(original.map_or(Tree::Empty, Tree::Snapshot))
                }
            })
            .collect()
    }
}

impl Prepared<'_> {
    /// Keeps what the step had and what it wrote, when it has failed.
    fn leftovers(self, planned: &[Planned]) -> Leftovers {
        drop(self.root);
        let inputs: Vec<Option<Tree>> =
            planned.iter().map(|plan| plan.snapshot.map(Tree::Snapshot)).collect();
        let mut mounts = inputs.clone();
        for MountOutput { mount, output, .. } in self.outputs {
            let (Output::New(active) | Output::Scratch { active, .. }) = output else { continue };
            if planned[mount].mount.readonly {
                continue;
            }
            match self.job.commit(active, &self.name) {
                Ok(snapshot) => mounts[mount] = Some(Tree::Snapshot(snapshot)),
                Err(error) => tracing::warn!(%error, "what a failed step wrote is lost"),
            }
        }
        Leftovers { inputs, mounts }
    }
}

struct PreparedMounts<'a> {
    job: &'a Arc<Job>,
    offered: &'a Offered,
    mounts: Vec<Mount>,
    env: Vec<String>,
    readonly_root: bool,
    outputs: Vec<MountOutput>,
    caches: StepCaches,
}

/// The cache mounts of a step, with the id and the seed of each.
type StepCaches = Vec<((String, Option<Digest>), CacheMount)>;

impl<'a> PreparedMounts<'a> {
    fn new(job: &'a Arc<Job>, offered: &'a Offered) -> Self {
        Self {
            job,
            offered,
            mounts: Vec::new(),
            env: Vec::new(),
            readonly_root: false,
            outputs: Vec::new(),
            caches: Vec::new(),
        }
    }

    fn root(&mut self, position: usize, plan: &Planned) -> Result<OwnedFd, Diagnostic> {
        self.readonly_root = plan.mount.readonly;
        self.files(position, plan)
    }

    /// Mounts the snapshot of a bind mount: a writable one of its own, unless it is only read.
    fn files(&mut self, position: usize, plan: &Planned) -> Result<OwnedFd, Diagnostic> {
        let (mount, index) = (position, plan.mount.output);
        let snapshots = self.job.engine.store.snapshots();
        // A read-only root still needs mount points made in it, so it is a snapshot that is thrown away.
        if plan.mount.readonly && plan.mount.dest != "/" {
            let tree = match plan.snapshot {
                Some(id) => snapshots.mount_view(id).diagnose()?.into_fd(),
                None => self.job.empty_directory()?,
            };
            if plan.mount.output >= 0 {
                let output = Output::Unchanged(plan.snapshot);
                self.outputs.push(MountOutput { mount, index, output });
            }
            return Ok(tree);
        }
        let active = snapshots.prepare(plan.snapshot, &self.job.lease).diagnose()?;
        let tree = active.mount().diagnose()?;
        let output = match plan.mount.readonly || plan.mount.output < 0 {
            true => Output::Scratch { active, original: plan.snapshot },
            false => Output::New(active),
        };
        self.outputs.push(MountOutput { mount, index, output });
        Ok(tree.into_fd())
    }

    fn add(&mut self, position: usize, plan: &Planned) -> Result<(), Diagnostic> {
        let mount = &plan.mount;
        let kind = pb::MountType::try_from(mount.mount_type).unwrap_or(pb::MountType::Bind);
        let (source, readonly) = match kind {
            pb::MountType::Bind => {
                let files = self.files(position, plan)?;
                (part(files, &mount.selector), mount.readonly)
            }
            pb::MountType::Tmpfs => {
                let size = mount.tmpfs_opt.as_ref().map(|t| t.size).filter(|size| *size > 0);
                (
                    MountSource::Tmpfs { size: size.and_then(|s| u64::try_from(s).ok()), mode: 0o1777 },
                    mount.readonly,
                )
            }
            pb::MountType::Cache => (self.cache(plan)?, mount.readonly),
            pb::MountType::Secret => match self.secret(mount) {
                Some(source) => (source, true),
                None => return Ok(()),
            },
            pb::MountType::Ssh => match self.ssh(position)? {
                Some(source) => (source, false),
                None => return Ok(()),
            },
        };
        self.mounts.push(Mount { destination: mount.dest.clone(), source, readonly });
        Ok(())
    }

    fn cache(&mut self, plan: &Planned) -> Result<MountSource, Diagnostic> {
        let options = plan.mount.cache_opt.clone().unwrap_or_default();
        let name = (cache_id(&plan.mount), plan.seed);
        // One that the step has already is the same directory, however it is shared with others.
        let known = self.caches.iter().position(|(known, _)| *known == name);
        let position = match known {
            Some(position) => position,
            None => {
                let cache =
                    self.acquire(plan, &options, CacheMountName { id: &name.0, seed: name.1.as_ref() })?;
                self.caches.push((name, cache));
                self.caches.len() - 1
            }
        };
        let path = self.caches[position].1.path();
        Ok(match MountSource::host_path(path).map_err(std::io::Error::from).diagnose()? {
            MountSource::Detached(mount) => part(mount, &plan.mount.selector),
            other => other,
        })
    }

    fn acquire(
        &self,
        plan: &Planned,
        options: &pb::CacheOpt,
        name: CacheMountName<'_>,
    ) -> Result<CacheMount, Diagnostic> {
        let sharing = match pb::CacheSharing::try_from(options.sharing) {
            Ok(pb::CacheSharing::Private) => Sharing::Private,
            Ok(pb::CacheSharing::Locked) => Sharing::Locked,
            _ => Sharing::Shared,
        };
        let cancel = self.job.cancel.clone();
        // What the mount starts with; a failure to put it there goes around the store's own errors.
        let failure = std::cell::RefCell::new(None);
        let fill = |directory: &std::path::Path| match plan.snapshot {
            Some(snapshot) => self.job.seed_directory(snapshot, directory).map_err(|error| {
                failure.replace(Some(error));
                slipway_store::StoreError::Cancelled
            }),
            None => Ok(()),
        };
        let mounts = self.job.engine.store.cache_mounts();
        let acquired = mounts.acquire(name, sharing, &self.job.lease, &fill, &|| cancel.is_cancelled());
        match failure.take() {
            Some(error) => Err(error),
            None => acquired.diagnose(),
        }
    }

    fn secret(&self, mount: &pb::Mount) -> Option<MountSource> {
        let options = mount.secret_opt.clone().unwrap_or_default();
        let value = self.offered.secrets.get(&options.id)?;
        Some(MountSource::File(FileContent {
            content: value.expose().clone(),
            mode: options.mode & 0o777,
            uid: options.uid,
            gid: options.gid,
        }))
    }

    fn ssh(&self, position: usize) -> Result<Option<MountSource>, Diagnostic> {
        let Some(agent) = self.offered.agents.get(&position) else { return Ok(None) };
        MountSource::host_path(agent.path()).map_err(std::io::Error::from).diagnose().map(Some)
    }

    /// Adds `/etc/hosts` and `/etc/resolv.conf`.
    fn system_files(&mut self, exec: &pb::ExecOp) {
        let meta = exec.meta.clone().unwrap_or_default();
        let name = if meta.hostname.is_empty() { HOSTNAME } else { &meta.hostname };
        let resolv_conf = self.job.engine.resolv_conf();
        let files = system_files(name, meta.extra_hosts.iter(), &resolv_conf, &self.mounts);
        self.mounts.extend(files);
    }
}

/// Makes what a definition says of a process into settings; `more` are further entries of the environment.
pub(crate) fn process_settings(
    meta: &pb::Meta,
    root: BorrowedFd<'_>,
    more: Vec<String>,
) -> Result<ProcessSettings, Diagnostic> {
    let mut env = meta.env.clone();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    env.extend(meta.proxy_env.iter().flat_map(proxies));
    env.extend(more);
    let user = slipway_runtime::passwd::resolve(root, &meta.user).map_err(|error| {
        // The reference reports it as a failure of the process, and scripts look for that.
        Diagnostic::new(
            ErrorKind::User,
            format!("process {:?} did not complete successfully", meta.args.join(" ")),
        )
        .cause(error.to_string())
        .hint("create the user in an earlier RUN, or name it by number")
    })?;
    Ok(ProcessSettings {
        args: meta.args.clone(),
        env,
        cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() },
        user,
        hostname: if meta.hostname.is_empty() { HOSTNAME.to_owned() } else { meta.hostname.clone() },
        rlimits: meta.ulimit.iter().map(rlimit).collect(),
        ..ProcessSettings::default()
    })
}

/// Makes `/etc/hosts` and `/etc/resolv.conf`, unless the process brings its own.
pub(crate) fn system_files<'h>(
    hostname: &str,
    hosts: impl Iterator<Item = &'h pb::HostIp>,
    resolv_conf: &str,
    mounts: &[Mount],
) -> Vec<Mount> {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in hosts {
        text.push_str(&format!("{}\t{}\n", host.ip, host.host));
    }
    let files = [("/etc/hosts", text), ("/etc/resolv.conf", resolv_conf.to_owned())];
    let free = files.into_iter().filter(|(path, _)| mounts.iter().all(|mount| mount.destination != *path));
    free.map(|(path, text)| Mount::public_file(path, text)).collect()
}

/// Returns where a mount is: one that is relative is below the working directory.
pub(crate) fn absolute(destination: &str, cwd: &str) -> String {
    let path = Path::new("/").join(cwd).join(destination);
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

/// Returns the part of a mount that is asked for.
fn part(mount: OwnedFd, selector: &str) -> MountSource {
    match selector.trim_matches('/') {
        "" | "." => MountSource::Detached(mount),
        path => MountSource::Subtree { mount, path: path.to_owned() },
    }
}

fn proxies(proxy: &pb::ProxyEnv) -> Vec<String> {
    let both = |name: &str, value: &str| match value {
        "" => Vec::new(),
        _ => vec![format!("{}={value}", name.to_uppercase()), format!("{name}={value}")],
    };
    [
        both("http_proxy", &proxy.http_proxy),
        both("https_proxy", &proxy.https_proxy),
        both("ftp_proxy", &proxy.ftp_proxy),
        both("no_proxy", &proxy.no_proxy),
        both("all_proxy", &proxy.all_proxy),
    ]
    .concat()
}

fn rlimit(limit: &pb::Ulimit) -> Rlimit {
    let value = |v: i64| u64::try_from(v).ok();
    Rlimit { name: limit.name.clone(), soft: value(limit.soft), hard: value(limit.hard) }
}

pub(crate) fn limits(resources: Option<&pb::LinuxResources>, parent: &str) -> Option<ResourceLimits> {
    let text = |value: &str| Some(value.to_owned()).filter(|v| !v.is_empty());
    let mut limits = ResourceLimits { parent: text(parent), ..ResourceLimits::default() };
    if let Some(wanted) = resources {
        limits.memory = Some(wanted.memory).filter(|v| *v != 0);
        limits.memory_swap = Some(wanted.memory_swap).filter(|v| *v != 0);
        limits.cpu_shares = Some(wanted.cpu_shares).filter(|v| *v != 0);
        limits.cpu_period = Some(wanted.cpu_period).filter(|v| *v != 0);
        limits.cpu_quota = Some(wanted.cpu_quota).filter(|v| *v != 0);
        limits.cpuset_cpus = text(&wanted.cpuset_cpus);
        limits.cpuset_mems = text(&wanted.cpuset_mems);
    }
    (!limits.is_empty()).then_some(limits)
}

/// Turns the end of a process into success or the error a person reads.
fn check(exec: &pb::ExecOp, sandbox: &crate::sandbox::Sandbox, outcome: Outcome) -> Result<(), Diagnostic> {
    let code = outcome.exit.status.code();
    let valid = exec.meta.as_ref().map(|m| m.valid_exit_codes.as_slice()).unwrap_or_default();
    if valid.contains(&code) || (valid.is_empty() && code == 0) {
        return Ok(());
    }
    let args = exec.meta.as_ref().map(|m| m.args.join(" ")).unwrap_or_default();
    let message = format!("process {args:?} did not complete successfully: exit code: {code}");
    let mut diagnostic = Diagnostic::new(ErrorKind::User, message);
    if outcome.exit.usage.out_of_memory {
        diagnostic =
            diagnostic.cause("the kernel killed a process because the step's memory limit was reached");
        diagnostic.hint = Some("raise the limit with `--resource memory=…`".to_owned());
    } else if let Some((cause, hint)) = sandbox.explain_exit(code, &outcome.tail) {
        diagnostic = diagnostic.cause(cause);
        diagnostic.hint = Some(hint);
    } else {
        diagnostic.hint = Some(advice(code).to_owned());
    }
    diagnostic.log_tail = outcome.tail;
    diagnostic.exit_code = Some(code);
    Err(diagnostic)
}

/// Says what to do about an exit code that means the same everywhere, or where to look.
fn advice(code: i32) -> &'static str {
    match code {
        127 => "the command was not found: install it in an earlier step, or check its name and `PATH`",
        137 => "a process was killed, as for lack of memory",
        139 => "a process used memory that is not its own",
        _ => "the step's own output says why; `--progress=plain` shows all of it",
    }
}
