//! `daemon`: answers BuildKit's clients until it is told to stop.

mod log;
mod settings;

use std::sync::Arc;

use slipway_daemon::{Address, BUILDKIT_VERSION, Frontends, PACKAGE};
use slipway_engine::config::{self, Config, Reader};
use slipway_engine::{Engine, EngineOptions, runtime};
use slipway_model::Diagnostic;
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::args::daemon::DaemonArgs;
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;
use settings::Settings;

/// Runs `daemon`.
pub(crate) fn run(args: &DaemonArgs, context: &Context) -> Result<(), Failure> {
    if args.version {
        return output::text(&format!(
            "buildkitd {PACKAGE} {BUILDKIT_VERSION} slipway-v{}\n",
            env!("CARGO_PKG_VERSION")
        ));
    }
    runtime::rootless::enter_if_needed().map_err(|error| {
        let mut diagnostic = Diagnostic::from_error(error.kind(), &error);
        diagnostic.hint = error.hint();
        diagnostic
    })?;
    let named = context.global.config.clone();
    let mut paths = config::usual_paths(named.clone())?;
    // A daemon that is given a configuration has no other.
    paths.buildkit.truncate(if named.is_some() { 1 } else { usize::MAX });
    let (config, files) = Config::read(&paths)?;
    let mut settings = Settings::join(args, &context.global, config, &files, &context.around)?;
    log::start(settings.log);
    settings.config.notes.extend(files.notes(Reader::Daemon));
    for note in &settings.config.notes {
        tracing::warn!("{note}");
    }
    let Settings { root, config, options, .. } = settings;
    let engine = Engine::open(EngineOptions {
        root,
        config,
        emulators: context.global.emulator.clone(),
        frontends: Some(Arc::new(Frontends::default())),
        one_command: false,
    })?;
    let stop = CancellationToken::new();
    let runtime = interrupt::runtime()?;
    let result = runtime.block_on(async {
        let _watch = Watch::start(stop.clone())?;
        let ready = |addresses: &[Address]| {
            for address in addresses {
                tracing::info!("running server on {address}");
            }
        };
        slipway_daemon::serve(engine, options, stop, ready).await.map_err(Failure::from)
    });
    runtime.shutdown_background();
    result
}
