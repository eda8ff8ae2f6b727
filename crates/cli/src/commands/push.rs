//! `push`: send an image of slipway's own store to a registry.

use slipway_model::Reference;
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::args::storage::PushArgs;
use crate::builder::Builder;
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;
use crate::settings::SettingsError;
use crate::ui::{DisplayMode, DisplayOptions, Progress};

/// Runs `push`.
pub(crate) fn run(args: &PushArgs, context: &Context) -> Result<(), Failure> {
    let image = reference(&args.image)?;
    let target = args.target.as_deref().map(reference).transpose()?.unwrap_or_else(|| image.clone());
    let builder = Builder::open(&context.global)?;
    let mode = match (args.quiet, context.around.stderr_is_terminal) {
        (true, _) => DisplayMode::Silent,
        (false, true) => DisplayMode::Tty,
        (false, false) => DisplayMode::Plain,
    };
    let progress = Progress::start(DisplayOptions::new(mode, &context.around));
    let cancel = CancellationToken::new();
    let runtime = interrupt::runtime()?;
    let pushed = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        builder.push(&image, &target, progress.sink(), cancel.clone()).await
    });
    progress.finish();
    let digest = match pushed {
        Err(_) if cancel.is_cancelled() => return Err(Failure::Interrupted("failed to push: canceled")),
        pushed => pushed?,
    };
    output::text(&if args.quiet {
        format!("{digest}\n")
    } else {
        format!("{}\n", target.with_digest(digest))
    })
}

fn reference(text: &str) -> Result<Reference, SettingsError> {
    let parsed: Result<Reference, _> = text.parse();
    parsed
        .map(|name| name.with_default_tag())
        .map_err(|error| SettingsError::flag(format!("invalid image name `{text}`: {error}")))
}
