//! Running a program in an image of any platform, to try what was built.
//!
//! The program works on a snapshot of its own that is thrown away when it ends. It is a build step's sandbox
//! with the terminal attached, not a container engine: there is no network of its own, and nothing stays.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use slipway_dockerfile::ResolveMode;
use slipway_model::progress::EventSink;
use slipway_model::solve::{LayoutSelector, NetworkMode};
use slipway_model::{Diagnostic, ErrorKind, ImageConfig, Platform, Reference};
use slipway_runtime::{Mount, MountSource, Network, ProcessSettings, ProcessSpec, Terminals};
use slipway_store::{CommitInfo, LayerBlob};
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::engine::Engine;
use crate::error::{Context as _, Explain as _, blocking};
use crate::images::{Images, Pinned};
use crate::progress::Progress;
use crate::sandbox::{Sandbox, Sandboxes};
use crate::sources::layout::Layout;
use crate::terminal::OwnStreams;

/// The name under which a layout to run from is known.
const LAYOUT: &str = "run";

/// Where the image is.
#[derive(Clone, Debug)]
pub enum RunSource {
    /// In slipway's own store under this name, or else in its registry.
    Named(Reference),
    Layout {
        path: PathBuf,
        selector: LayoutSelector,
    },
}

/// A directory or file of the host that the program sees.
#[derive(Clone, Debug)]
pub struct Volume {
    pub source: PathBuf,
    pub target: String,
    pub readonly: bool,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub source: RunSource,
    pub platform: Platform,
    /// Replaces the image's command; empty keeps it.
    pub command: Vec<String>,
    pub entrypoint: Option<String>,
    pub environment: Vec<(String, String)>,
    pub volumes: Vec<Volume>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub network: NetworkMode,
    /// Keep standard input open.
    pub interactive: bool,
    /// Give the program a terminal.
    pub terminal: bool,
    /// Ask the registry even if the store has the image.
    pub pull: bool,
}

impl Engine {
    /// Runs a program, with this process's standard streams; returns its exit code.
    pub async fn run(
        &self,
        options: RunOptions,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<u8, Diagnostic> {
        let inner = self.inner.clone();
        let lease = inner.store.lease().diagnose()?;
        let progress = Progress::new(events);
        let blobs = Blobs::new(
            inner.client.clone(),
            inner.store.clone(),
            lease.clone(),
            progress.clone(),
            cancel.clone(),
        );
        let step = progress.step("preparing the image");
        let pinned = self.pin(&options, &blobs).await?;
        let config: ImageConfig = serde_json::from_slice(&pinned.config).map_err(|e| {
            Diagnostic::new(ErrorKind::Environment, "cannot use the image's config").cause(e.to_string())
        })?;
        let layers: Vec<(LayerBlob, CommitInfo)> = pinned
            .manifest
            .layers
            .iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(layer, id)| (LayerBlob { descriptor: layer.clone(), diff_id: *id }, CommitInfo::default()))
            .collect();
        let top = inner.store.snapshots().add_image(&layers, &lease).diagnose()?.last().copied();
        if let Some(top) = top {
            blobs.unpack(top, step.digest(), &lease).await?;
        }
        // An image for a compatible platform runs as what it is.
        let platform = config.platform();
        let sandboxes = Sandboxes::default();
        sandboxes.decide(|| inner.facts(), [platform.clone()]).map_err(|mut refused| {
            refused.pop().unwrap_or_else(|| crate::error::internal("refused without a reason"))
        })?;
        let sandbox = sandboxes.for_platform(Some(&platform)).await?;
        step.done();
        blocking(move || {
            let active = inner.store.snapshots().prepare(top, &lease).diagnose()?;
            let root: OwnedFd = active.mount().diagnose()?.into_fd();
            let mut settings = settings(&options, &config, &root)?;
            sandbox.adjust(&mut settings);
            let mounts = mounts(&options, &inner.resolv_conf())?;
            let code = Attached { sandbox: &sandbox, options: &options, cancel: &cancel }
                .run(root, mounts, settings)?;
            drop(active);
            Ok(code)
        })
        .await
    }

    async fn pin(&self, options: &RunOptions, blobs: &Blobs) -> Result<Pinned, Diagnostic> {
        match &options.source {
            RunSource::Layout { path, selector } => {
                let images = Images::new(blobs.clone());
                images.add_layout(LAYOUT.to_owned(), Layout::new(path), selector.clone());
                images.pin_layout(LAYOUT, None, &options.platform).await
            }
            RunSource::Named(name) => {
                let name = name.with_default_tag();
                let images = Images::new(blobs.clone());
                let own = self.inner.store.images().get(&name.to_string()).diagnose()?;
                match own.filter(|_| !options.pull) {
                    Some(own) => images.pin_stored(&name, own.descriptor, &options.platform).await,
                    None => {
                        let mode = if options.pull { ResolveMode::Pull } else { ResolveMode::Default };
                        images.pin_registry(&name, &options.platform, mode).await
                    }
                }
            }
        }
    }
}

fn settings(
    options: &RunOptions,
    config: &ImageConfig,
    root: &OwnedFd,
) -> Result<ProcessSettings, Diagnostic> {
    let run = &config.config;
    let mut args: Vec<String> = match &options.entrypoint {
        Some(entrypoint) => vec![entrypoint.clone()],
        None => run.entrypoint.clone().unwrap_or_default(),
    };
    match options.command.is_empty() {
        false => args.extend(options.command.iter().cloned()),
        true if options.entrypoint.is_none() => args.extend(run.cmd.clone().unwrap_or_default()),
        true => {}
    }
    if args.is_empty() {
        return Err(Diagnostic::new(ErrorKind::User, "the image does not say what to run")
            .hint("name a program after the image: `slipway run IMAGE PROGRAM`"));
    }
    let mut env = run.env.clone();
    for (name, value) in &options.environment {
        env.retain(|e| e.split('=').next() != Some(name));
        env.push(format!("{name}={value}"));
    }
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    if options.terminal && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    let user = options.user.as_deref().unwrap_or(&run.user);
    let user = slipway_runtime::passwd::resolve(root.as_fd(), user)
        .map_err(|e| Diagnostic::new(ErrorKind::User, e.to_string()))?;
    let cwd = options.workdir.clone().unwrap_or_else(|| run.working_dir.clone());
    Ok(ProcessSettings {
        args,
        env,
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        user,
        network: match options.network {
            NetworkMode::None => Network::None,
            NetworkMode::Default | NetworkMode::Host => Network::Host,
        },
        ..ProcessSettings::default()
    })
}

fn mounts(options: &RunOptions, resolv_conf: &str) -> Result<Vec<Mount>, Diagnostic> {
    let mut mounts = vec![
        Mount::public_file("/etc/resolv.conf", resolv_conf),
        Mount::public_file(
            "/etc/hosts",
            "127.0.0.1\tlocalhost slipway\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        ),
    ];
    for volume in &options.volumes {
        let source = MountSource::host_path(&volume.source)
            .map_err(std::io::Error::from)
            .context(|| format!("cannot mount `{}`", volume.source.display()))?;
        mounts.push(Mount { destination: volume.target.clone(), source, readonly: volume.readonly });
    }
    Ok(mounts)
}

/// A program with this process's streams.
struct Attached<'a> {
    sandbox: &'a Sandbox,
    options: &'a RunOptions,
    cancel: &'a CancellationToken,
}

impl Attached<'_> {
    fn run(&self, root: OwnedFd, mounts: Vec<Mount>, settings: ProcessSettings) -> Result<u8, Diagnostic> {
        let input = self.options.interactive;
        let terminals = self.options.terminal.then(Terminals::new).transpose();
        let terminals = terminals.map_err(std::io::Error::from).diagnose()?;
        let (streams, stdio) = OwnStreams::open(terminals.as_ref(), input)?;
        let program = settings.args.first().cloned().unwrap_or_default();
        let process = self
            .sandbox
            .server()
            .spawn(ProcessSpec { root, mounts, terminals, stdio, listener: None, settings })
            .map_err(|error| error.explain())?;
        let killer = process.killer();
        let watch = Watch::start(self.cancel.clone(), move || killer.kill());
        let relay = streams.relay()?;
        let exit = process.wait().context(|| format!("cannot run `{program}`"));
        drop(watch);
        drop(relay);
        Ok(u8::try_from(exit?.status.code() & 0xff).unwrap_or(1))
    }
}

/// Calls something when a token is cancelled, until dropped.
struct Watch {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start(cancel: CancellationToken, then: impl FnOnce() + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let handle = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let cancelled = handle.block_on(async {
                tokio::select! {
                    () = cancel.cancelled() => true,
                    () = ended.cancelled() => false,
                }
            });
            if cancelled {
                then();
            }
        });
        Self { stop, thread: thread.ok() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
