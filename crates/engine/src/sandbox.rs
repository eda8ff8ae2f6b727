//! Where steps run: one helper process for native steps, one with private emulators for foreign ones.
//!
//! How each platform runs is decided before the first step ([`Sandboxes::decide`]); a platform that cannot
//! run is refused then, not after twenty minutes. The helpers are started when the first step needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slipway_emulation::{Emulator, HostFacts};
use slipway_model::{Diagnostic, ErrorKind, Platform};
use slipway_runtime::{ProcessSettings, SandboxServer, ServerOptions};
use tokio::sync::OnceCell;

use crate::error::{Context as _, blocking, internal};
use crate::job::Job;

/// How the steps of each platform run in this solve.
pub(crate) struct Sandboxes {
    host: Platform,
    decisions: BTreeMap<Platform, Emulator>,
    /// Platforms whose programs run here if they are told that the machine is a 32-bit one.
    linux32: BTreeSet<Platform>,
    native: OnceCell<Arc<SandboxServer>>,
    emulating: OnceCell<Arc<SandboxServer>>,
}

impl Sandboxes {
    /// Runs nothing.
    pub(crate) fn none() -> Self {
        Self {
            host: Platform::host(),
            decisions: BTreeMap::new(),
            linux32: BTreeSet::new(),
            native: OnceCell::new(),
            emulating: OnceCell::new(),
        }
    }

    /// Decides for every platform that has steps; refuses those that cannot run here.
    pub(crate) fn decide<'f>(
        facts: impl Fn() -> &'f HostFacts,
        platforms: impl IntoIterator<Item = Platform>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut decisions = BTreeMap::new();
        let mut linux32 = BTreeSet::new();
        let mut refused = Vec::new();
        for platform in platforms {
            let decision = slipway_emulation::decide(facts(), &platform);
            if let Emulator::Unsupported(reason) = &decision {
                let mut diagnostic = Diagnostic::new(
                    ErrorKind::Environment,
                    format!("cannot run steps for `{platform}` on this machine"),
                )
                .cause(reason.to_string());
                diagnostic.hint = reason.hint();
                diagnostic.platform = Some(platform.clone());
                refused.push(diagnostic);
            }
            if slipway_emulation::needs_linux32(facts(), &platform) {
                linux32.insert(platform.clone());
            }
            decisions.insert(platform, decision);
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let host = Platform::host();
        Ok(Self { host, decisions, linux32, native: OnceCell::new(), emulating: OnceCell::new() })
    }

    /// Describes the emulator of a platform's steps; `None` if they run natively.
    pub(crate) fn describe(&self, platform: Option<&Platform>) -> Option<String> {
        let platform = platform.unwrap_or(&self.host);
        self.decisions.get(platform)?.describe(platform)
    }

    /// Returns where a step for `platform` runs.
    pub(crate) async fn for_platform(&self, platform: Option<&Platform>) -> Result<Sandbox, Diagnostic> {
        let platform = platform.unwrap_or(&self.host);
        let emulator = self
            .decisions
            .get(platform)
            .cloned()
            .ok_or_else(|| internal(format!("nobody decided how `{platform}` runs")))?;
        let server = match &emulator {
            Emulator::PrivateBinfmt(_) => self.emulating.get_or_try_init(|| self.start_emulating()).await?,
            _ => self.native.get_or_try_init(|| start(ServerOptions::default())).await?,
        };
        let linux32 = self.linux32.contains(platform);
        Ok(Sandbox { server: server.clone(), emulator, linux32, platform: platform.clone() })
    }

    async fn start_emulating(&self) -> Result<Arc<SandboxServer>, Diagnostic> {
        let binfmt = self
            .decisions
            .values()
            .filter_map(registration)
            .collect::<Result<BTreeSet<String>, Diagnostic>>()?;
        let binfmt = binfmt.into_iter().collect();
        start(ServerOptions { user_namespace: true, binfmt, ..ServerOptions::default() }).await
    }
}

/// Returns the line that registers a platform's emulator in the private table.
fn registration(emulator: &Emulator) -> Option<Result<String, Diagnostic>> {
    match emulator {
        Emulator::PrivateBinfmt(qemu) => Some(qemu.registration().map_err(|error| {
            Diagnostic::new(ErrorKind::Environment, "cannot register the emulator").cause(error.to_string())
        })),
        _ => None,
    }
}

async fn start(options: ServerOptions) -> Result<Arc<SandboxServer>, Diagnostic> {
    blocking(move || {
        SandboxServer::start(&options).context(|| "cannot start the sandbox for build steps".to_owned())
    })
    .await
}

/// Where one step runs.
pub(crate) struct Sandbox {
    server: Arc<SandboxServer>,
    emulator: Emulator,
    linux32: bool,
    platform: Platform,
}

impl Sandbox {
    pub(crate) fn server(&self) -> &SandboxServer {
        &self.server
    }

    /// Adds what the platform's programs need of a process: the emulator's settings, the 32-bit personality.
    pub(crate) fn adjust(&self, settings: &mut ProcessSettings) {
        settings.linux32 = self.linux32;
        let has = |name: &str, env: &[String]| env.iter().any(|e| e.split('=').next() == Some(name));
        for (name, value) in self.emulator.env(&self.platform) {
            if !has(name, &settings.env) {
                settings.env.push(format!("{name}={value}"));
            }
        }
    }

    /// Explains an exit code that is likely the emulator's fault and not the program's.
    pub(crate) fn explain_exit(&self, code: i32, tail: &[String]) -> Option<(String, String)> {
        if code == 126 || tail.iter().any(|line| line.contains("exec format error")) {
            let name = Job::platform_name(Some(&self.platform));
            return Some((
                format!("a program of the step is not for `{name}`"),
                format!(
                    "check that every binary copied into the image is built for `{name}` (`ARG TARGETARCH`)"
                ),
            ));
        }
        let crash =
            self.emulator.is_emulated().then(|| slipway_emulation::classify(code, &tail.join("\n")))??;
        Some((crash.what, crash.hint))
    }
}
