//! Where steps run: one helper process for native steps, one with private emulators for foreign ones.
//!
//! How each platform runs is decided before the first step ([`Sandboxes::decide`]); a platform that cannot
//! run is refused then, not after twenty minutes. The helpers are started when the first step needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_emulation::{Emulator, HostFacts};
use slipway_model::{Diagnostic, ErrorKind, Platform};
use slipway_runtime::{ProcessSettings, SandboxServer, ServerOptions};
use tokio::sync::OnceCell;

use crate::error::{Context as _, blocking, internal};
use crate::job::Job;

/// How the steps of each platform run in this build.
#[derive(Default)]
pub(crate) struct Sandboxes {
    decisions: Mutex<BTreeMap<Platform, Decision>>,
    native: OnceCell<Arc<SandboxServer>>,
    /// The helper with emulators, and what is registered in its table.
    emulating: tokio::sync::Mutex<Option<(BTreeSet<String>, Arc<SandboxServer>)>>,
}

#[derive(Clone)]
struct Decision {
    emulator: Emulator,
    /// The programs run here if they are told that the machine is a 32-bit one.
    linux32: bool,
}

impl Sandboxes {
    /// Decides for every platform that has steps and is not decided yet; refuses those that cannot run here.
    pub(crate) fn decide(
        &self,
        facts: impl Fn() -> Arc<HostFacts>,
        platforms: impl IntoIterator<Item = Platform>,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut refused = Vec::new();
        for platform in platforms {
            if self.decisions.lock().contains_key(&platform) {
                continue;
            }
            let facts = facts();
            let emulator = slipway_emulation::decide(&facts, &platform);
            if let Emulator::Unsupported(reason) = &emulator {
                let mut diagnostic = Diagnostic::new(
                    ErrorKind::Environment,
                    format!("cannot run steps for `{platform}` on this machine"),
                )
                .cause(reason.to_string());
                diagnostic.hint = reason.hint();
                diagnostic.platform = Some(Box::new(platform.clone()));
                refused.push(diagnostic);
                continue;
            }
            let linux32 = slipway_emulation::needs_linux32(&facts, &platform);
            self.decisions.lock().insert(platform, Decision { emulator, linux32 });
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    fn decision(&self, platform: &Platform) -> Option<Decision> {
        self.decisions.lock().get(platform).cloned()
    }

    /// Describes the emulator of a platform's steps; `None` if they run natively.
    pub(crate) fn describe(&self, platform: Option<&Platform>) -> Option<String> {
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        self.decision(&platform)?.emulator.describe(&platform)
    }

    /// Returns where a step for `platform` runs.
    pub(crate) async fn for_platform(&self, platform: Option<&Platform>) -> Result<Sandbox, Diagnostic> {
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let Decision { emulator, linux32 } = self
            .decision(&platform)
            .ok_or_else(|| internal(format!("nobody decided how `{platform}` runs")))?;
        let server = match registration(&emulator) {
            Some(registration) => self.emulating(registration?).await?,
            None => self.native.get_or_try_init(|| start(ServerOptions::default())).await?.clone(),
        };
        Ok(Sandbox { server, emulator, linux32, platform })
    }

    /// Returns a helper in whose table an emulator is registered.
    ///
    /// The table is filled when the helper starts, with all that was decided until then. An emulator that a
    /// later definition needs takes a new helper; steps of the old one go on in it.
    async fn emulating(&self, registration: String) -> Result<Arc<SandboxServer>, Diagnostic> {
        let mut running = self.emulating.lock().await;
        if let Some((registered, server)) = running.as_ref()
            && registered.contains(&registration)
        {
            return Ok(server.clone());
        }
        let decided: Vec<Emulator> = self.decisions.lock().values().map(|d| d.emulator.clone()).collect();
        let registered =
            decided.iter().filter_map(self::registration).collect::<Result<BTreeSet<String>, _>>()?;
        let binfmt = registered.iter().cloned().collect();
        let server =
            start(ServerOptions { user_namespace: true, binfmt, ..ServerOptions::default() }).await?;
        *running = Some((registered, server.clone()));
        Ok(server)
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
