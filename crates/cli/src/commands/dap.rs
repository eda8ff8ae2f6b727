//! `dap`: a build that an editor steps through.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use slipway_model::solve::{ContextSource, DockerfileSource, Frontend, OutputSpec};
use slipway_model::{Diagnostic, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::build::{
    failed, leave_results, policy_level, remove_stale_id, tell_more, tell_notes, under_policy,
};
use crate::app::Context;
use crate::args::build::BuildArgs;
use crate::args::dap::{DapArgs, DapCommand};
use crate::builder::Builder;
use crate::dap::{Adapter, LaunchArguments, Session, attach};
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::settings::build::{self, BuildSettings};
use crate::ui::{DisplayMode, DisplayOptions, Palette, Progress};

const STOPPED: Failure = Failure::Interrupted("failed to build: canceled");

/// Runs `dap`.
pub(crate) fn run(args: &DapArgs, context: &mut Context) -> Result<(), Failure> {
    match &args.command {
        DapCommand::Build(args) => debug(args, context),
        DapCommand::Attach(args) => attach::run(&args.path),
    }
}

/// Builds, with an editor at standard input and output.
fn debug(args: &BuildArgs, context: &mut Context) -> Result<(), Failure> {
    if args.context == "-" || args.file.as_deref() == Some("-") {
        return Err(refused("Dockerfile or context from stdin is not supported with debugger")
            .hint("the editor speaks there: give a directory, and a file with `--file`")
            .into());
    }
    let builder = Arc::new(Builder::open(&context.global)?);
    let runtime = interrupt::runtime()?;
    let cancel = CancellationToken::new();
    let (adapter, mut session) = Adapter::open(io::stdin(), io::stdout());
    let done = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        let work = async {
            let done = build(args, &builder, &mut session, &cancel, context).await;
            session.end(done.as_ref().err().map(told)).await;
            done
        };
        tokio::select! {
            done = work => done,
            () = adapter.serve(cancel.clone()) => Err(STOPPED),
        }
    });
    // A thread still waits for the editor.
    runtime.shutdown_background();
    builder.tidy();
    done
}

async fn build(
    args: &BuildArgs,
    builder: &Arc<Builder>,
    session: &mut Session,
    cancel: &CancellationToken,
    context: &mut Context,
) -> Result<(), Failure> {
    let launch = tokio::select! {
        launch = session.launched() => launch.ok_or(STOPPED)?,
        () = cancel.cancelled() => return Err(STOPPED),
    };
    let settings = build::resolve(&launched(args, &launch), &mut context.around)?;
    check(&settings)?;
    remove_stale_id(&settings)?;
    let notes = [&settings.notes[..], &builder.notes(), &builder.notes_on(&settings.request)].concat();
    tell_notes(&notes, settings.display, context);
    let mode = match settings.display {
        DisplayMode::Tty => DisplayMode::Plain,
        mode => mode,
    };
    let display = DisplayOptions::new(mode, &context.around).at(builder.label());
    let progress = Progress::start_on(display, session.console());
    let debugger = session.debugger(dockerfile(&settings), context.around.absolute(""), launch.stop_on_entry);
    let (events, level) = (session.noting(progress.sink()), policy_level(context));
    let built = under_policy(builder, &settings, events, cancel.clone(), level, Some(&debugger)).await;
    let warnings = tokio::task::block_in_place(|| progress.finish());
    tell_more(&settings, builder, &warnings, context)?;
    let built = built.map_err(|diagnostics| failed(diagnostics, cancel))?;
    leave_results(&settings, &built, &warnings, context)
}

/// Puts what the editor launched over what the command line says.
fn launched(args: &BuildArgs, launch: &LaunchArguments) -> BuildArgs {
    let mut args = args.clone();
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    args.file = said(&launch.dockerfile).or(args.file);
    args.target = said(&launch.target).or(args.target);
    args.context = said(&launch.context_path).unwrap_or(args.context);
    args
}

fn refused(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}

/// Refuses what has no place in a debugger, or would write where the editor reads.
fn check(settings: &BuildSettings) -> Result<(), Failure> {
    let to_stdout = settings.request.outputs.iter().any(OutputSpec::is_stdout);
    let reason = if settings.call.is_some() {
        "`--call` builds nothing that could be debugged"
    } else if settings.shell_on_failure {
        "the debugger stops where a step fails: leave `--on-failure` out"
    } else if to_stdout || settings.print_id {
        "the editor reads standard output: nothing else can be written there"
    } else {
        return Ok(());
    };
    Err(refused(reason).hint("`slipway build` takes it").into())
}

/// Returns the Dockerfile, if it is a file here.
fn dockerfile(settings: &BuildSettings) -> Option<PathBuf> {
    let Frontend::Dockerfile(request) = &settings.request.frontend else { return None };
    match (&request.dockerfile, &request.context) {
        (DockerfileSource::Path(path), ContextSource::Directory(context)) => Some(context.join(path)),
        (DockerfileSource::Path(path), _) if path.is_absolute() => Some(path.clone()),
        _ => None,
    }
}

/// Says what failed, for the editor's console.
fn told(failure: &Failure) -> String {
    let mut text = Vec::new();
    // It cannot fail to be kept.
    let _ = failure.report(&Palette::none(), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
