//! A program in a step of a build, to look around: with the step's mounts, environment, user and emulator.
//!
//! The build is over by then. The step is taken from the build's record, its files from the cache: those that the
//! step left when it failed, where the build was told to keep them ([`StepOptions::keep_failed`]), or else those
//! that it started from. What the program writes is thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use slipway_model::llb::pb;
use slipway_model::progress::{Event, NoEvents, StepKey};
use slipway_model::solve::{Entitlement, StepOptions};
use slipway_model::{Diagnostic, Digest, Digester, ErrorKind, Platform, SolveRequest};
use tokio_util::sync::CancellationToken;

use crate::build::{Build, BuildOptions, ContainerMount, ContainerRequest, ProcessRequest, Ref};
use crate::cache::stored_trees;
use crate::engine::Engine;
use crate::error::Context as _;
use crate::session::EmbeddedSession;
use crate::terminal::OwnStreams;
use crate::tree::{Tree, TreeRecord};

/// How many steps are named where none was chosen.
const NAMED: usize = 10;

/// A step that a program can be started in.
#[derive(Clone, Debug)]
pub struct DebugStep {
    build: String,
    key: StepKey,
    op: pb::Op,
    exec: pb::ExecOp,
}

impl DebugStep {
    /// Returns what the step is called.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    fn of(build: &str, key: &StepKey) -> Option<Self> {
        let op = pb::Op::decode(hex::decode(key.process.as_ref()?).ok()?.as_slice()).ok()?;
        let Some(pb::op::Op::Exec(exec)) = op.op.clone() else { return None };
        Some(Self { build: build.to_owned(), key: key.clone(), op, exec })
    }
}

/// What is started in a step.
#[derive(Debug)]
pub struct DebugOptions<'a> {
    pub command: Vec<String>,
    /// Give the program a terminal.
    pub terminal: bool,
    pub offer: DebugOffer<'a>,
}

/// What a program in a step may use of the person who looks.
#[derive(Clone, Copy, Debug)]
pub enum DebugOffer<'a> {
    /// All that the build was offered.
    Build(&'a SolveRequest),
    /// Secrets and agents that are offered again; those of the step's that are not among them are not there.
    Again(&'a StepOptions),
}

impl DebugOffer<'_> {
    /// Tells whether what the step needs has to be there.
    fn is_whole(self) -> bool {
        matches!(self, Self::Build(_))
    }
}

impl Engine {
    /// Finds a step of a build by its digest or a part of its name; without one, the step that failed.
    ///
    /// # Errors
    /// There is no such step, or there are several.
    pub fn debug_step(&self, reference: &str, step: Option<&str>) -> Result<DebugStep, Diagnostic> {
        let history = self.history();
        let id = history.find(reference)?.id;
        let keys = history.keys(&id)?;
        let steps: Vec<DebugStep> = keys.iter().filter_map(|key| DebugStep::of(&id, key)).collect();
        let Some(wanted) = step else {
            let failed: BTreeSet<Digest> = history
                .events(&id)?
                .filter_map(|event| match event {
                    Event::Vertex(vertex) if vertex.error.as_ref().is_some_and(|e| e != "canceled") => {
                        Some(vertex.digest)
                    }
                    _ => None,
                })
                .collect();
            let failed = steps.iter().find(|step| failed.contains(&step.key.vertex));
            return failed.cloned().ok_or_else(|| choose("no step of the build failed", &id, &steps));
        };
        let exact = |step: &&DebugStep| step.key.name == wanted || step.key.vertex.to_string() == wanted;
        let near =
            |step: &&DebugStep| step.key.name.contains(wanted) || step.key.vertex.hex().starts_with(wanted);
        if let Some(step) = steps.iter().find(exact) {
            return Ok(step.clone());
        }
        match steps.iter().filter(near).collect::<Vec<_>>().as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err(choose(&format!("no step of the build is `{wanted}`"), &id, &steps)),
            _ => Err(choose(&format!("several steps of the build are `{wanted}`"), &id, &steps)),
        }
    }

    /// Runs a program in a step, with this process's streams; returns its exit code.
    ///
    /// # Errors
    /// The step's files are not there any more, or the program cannot be started.
    pub async fn debug(
        &self,
        step: &DebugStep,
        options: DebugOptions<'_>,
        cancel: &CancellationToken,
    ) -> Result<u8, Diagnostic> {
        let session = match options.offer {
            DebugOffer::Build(request) => EmbeddedSession::new(self, request),
            DebugOffer::Again(offered) => EmbeddedSession::offering(self, offered),
        };
        let mut entitlements = BTreeSet::new();
        if step.exec.network == pb::NetMode::Host as i32 {
            entitlements.insert(Entitlement::NetworkHost);
        }
        if step.exec.security == pb::SecurityMode::Insecure as i32 {
            entitlements.insert(Entitlement::SecurityInsecure);
        }
        // The build had these rights, or the step would not be on record.
        let build_options =
            BuildOptions { session: Arc::new(session), entitlements, ..BuildOptions::local(&step.build) };
        let build = self.start(build_options, Arc::new(NoEvents), cancel)?;
        let whole = options.offer.is_whole();
        let container = build.container(self.container(&build, step, whole)?).await?;
        let (streams, stdio) = OwnStreams::open(options.terminal.then(|| container.terminals()), true)?;
        let mut secret_env = step.exec.secretenv.clone();
        secret_env.iter_mut().for_each(|secret| secret.optional |= !whole);
        let meta = pb::Meta { args: options.command, ..step.exec.meta.clone().unwrap_or_default() };
        let request = ProcessRequest { meta, security: step.exec.security, secret_env, stdio };
        let process = container.start(request).await?;
        let relay = streams.relay()?;
        let ended = build.until_cancelled(process.wait()).await;
        drop(relay);
        Ok(u8::try_from(ended? & 0xff).unwrap_or(1))
    }

    /// Puts the step's mounts together.
    fn container(
        &self,
        build: &Build,
        step: &DebugStep,
        whole: bool,
    ) -> Result<ContainerRequest, Diagnostic> {
        let left = self.trees(&failed_key(&step.build, &step.key.vertex)).unwrap_or_default();
        let mut mounts = Vec::with_capacity(step.exec.mounts.len());
        for (position, mount) in step.exec.mounts.iter().enumerate() {
            let mut mount = mount.clone();
            if let Some(secret) = mount.secret_opt.as_mut().filter(|_| !whole) {
                secret.optional = true;
            }
            if let Some(agent) = mount.ssh_opt.as_mut().filter(|_| !whole) {
                agent.optional = true;
            }
            let tree = match left.get(position) {
                Some(Some(tree)) => Some(tree.clone()),
                _ => self.input(step, mount.input),
            };
            if tree.is_none() && mount.dest == "/" && mount.input >= 0 {
                return Err(gone(step));
            }
            let snapshots: Vec<_> = tree.iter().filter_map(Tree::snapshot).collect();
            if !build.job.lease.hold_snapshots(&snapshots).diagnose()? {
                return Err(gone(step));
            }
            mounts.push(ContainerMount {
                mount,
                reference: tree.and_then(Ref::of_tree),
                ..ContainerMount::default()
            });
        }
        let meta = step.exec.meta.clone().unwrap_or_default();
        Ok(ContainerRequest {
            mounts,
            network: step.exec.network,
            platform: step.op.platform.as_ref().map(Platform::from),
            hostname: meta.hostname,
            extra_hosts: Vec::new(),
        })
    }

    /// Finds the files of an input in the cache; a directory of the person who built is not in there.
    fn input(&self, step: &DebugStep, input: i64) -> Option<Tree> {
        let input = step.key.inputs.get(usize::try_from(input).ok()?)?;
        self.trees(&input.key?)?.into_iter().nth(input.output)?
    }

    fn trees(&self, key: &Digest) -> Option<Vec<Option<Tree>>> {
        stored_trees(&self.inner.store.cache().record(key).ok()??)
    }

    /// Keeps what failed steps left, so that it can be looked at when the build is over.
    pub(crate) fn keep_failed(&self, build: &Build, id: &str, failures: &[Diagnostic]) {
        for vertex in failures.iter().filter_map(|failure| failure.vertex) {
            let Some(step) = build.failed_step(&vertex) else { continue };
            let known = |mount: &Option<Ref>| mount.as_ref().and_then(|files| files.known_tree(&build.job));
            let trees: Vec<Option<Tree>> = step.mounts.iter().map(known).collect();
            let record =
                |tree: &Option<Tree>| tree.as_ref().and_then(Tree::record).unwrap_or(TreeRecord::Absent);
            let records: Vec<TreeRecord> = trees.iter().map(record).collect();
            let snapshots: Vec<_> = trees.iter().flatten().filter_map(Tree::snapshot).collect();
            let Ok(payload) = serde_json::to_vec(&records) else { continue };
            let key = failed_key(id, &vertex);
            let cache = self.inner.store.cache();
            if let Err(error) = cache.put(&key, &[], &payload, &snapshots, &build.job.lease) {
                tracing::warn!(%error, "could not keep what a failed step left");
            }
        }
    }
}

/// Names what a step of a build left when it failed.
fn failed_key(build: &str, vertex: &Digest) -> Digest {
    let mut digester = Digester::new();
    digester.field("slipway.failed.v1");
    digester.field(build);
    digester.field(vertex.as_bytes());
    digester.finish()
}

fn gone(step: &DebugStep) -> Diagnostic {
    Diagnostic::new(
        ErrorKind::User,
        format!("the files of the step `{}` are not there any more", step.name()),
    )
    .hint("build again with `--on-failure=shell`")
}

/// Asks for one of the steps.
fn choose(message: &str, id: &str, steps: &[DebugStep]) -> Diagnostic {
    let diagnostic = Diagnostic::new(ErrorKind::User, message);
    if steps.is_empty() {
        return diagnostic.cause("it has no steps that run a program");
    }
    let names: Vec<String> = steps.iter().take(NAMED).map(|step| format!("`{}`", step.name())).collect();
    diagnostic
        .hint(format!("name a step: `slipway debug shell {id} STEP`, where STEP is of {}", names.join(", ")))
}
