//! `build`: make the request, show what happens, leave the results where they were asked for.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use slipway_daemon::client::Stepper;
use slipway_engine::DebugOffer;
use slipway_model::Diagnostic;
use slipway_model::progress::{EventSink, Warning};
use slipway_policy::LogLevel;
use tokio_util::sync::CancellationToken;

use super::debug;
use crate::app::Context;
use crate::args::build::BuildArgs;
use crate::builder::{BuildOutcome, Builder, CallAnswer};
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;
use crate::policy::Loaded;
use crate::settings::build::{self, BuildSettings, CallFunction, CallSettings};
use crate::settings::values::boolean;
use crate::ui::{DisplayMode, DisplayOptions, Progress, Tone, call, explain, warnings};

/// Runs `build`.
pub(crate) fn run(args: &BuildArgs, context: &mut Context) -> Result<(), Failure> {
    run_with(args, &[], context)
}

/// Builds; `program` is what is started in a step that fails, if that was asked for.
pub(super) fn run_with(args: &BuildArgs, program: &[String], context: &mut Context) -> Result<(), Failure> {
    let mut settings = build::resolve(args, &mut context.around)?;
    if let Some(CallSettings { function: CallFunction::Describe, json, .. }) = settings.call {
        return output::text(&call::describe(json));
    }
    remove_stale_id(&settings)?;
    tell_notes(&settings.notes, settings.display, context);
    // Looking at a Dockerfile needs no powers, and should work where there are none.
    let builder = Arc::new(match settings.call {
        Some(_) => Builder::open_unprivileged(&context.global)?,
        None => Builder::open(&context.global)?,
    });
    tell_notes(&builder.notes(), settings.display, context);
    tell_notes(&builder.notes_on(&settings.request), settings.display, context);
    let received = settings.received.take();
    let display = DisplayOptions::new(settings.display, &context.around).at(builder.label());
    let progress = Progress::start(display);
    let built = solve(&builder, &settings, &progress, policy_level(context));
    let warnings = progress.finish();
    drop(received);
    if settings.call.is_none() {
        tell_more(&settings, &builder, &warnings, context)?;
    }
    let built = match built {
        Err(failure) if settings.shell_on_failure => {
            Err(look_into(failure, &builder, &settings, program, context))
        }
        built => built,
    };
    let left = built.and_then(|built| leave_results(&settings, &built, &warnings, context));
    if settings.call.is_none() {
        builder.tidy();
    }
    left
}

/// Builds, until the build is done or stopped.
fn solve(
    builder: &Arc<Builder>,
    settings: &BuildSettings,
    progress: &Progress,
    level: LogLevel,
) -> Result<BuildOutcome, Failure> {
    let runtime = interrupt::runtime()?;
    let cancel = CancellationToken::new();
    let result = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        let built = under_policy(builder, settings, progress.sink(), cancel.clone(), level, None).await;
        built.map_err(|diagnostics| failed(diagnostics, &cancel))
    });
    // What still blocks a thread belongs to a build that is over.
    runtime.shutdown_background();
    result
}

/// Says why there is no result; of a build that was stopped nothing else is told.
pub(super) fn failed(diagnostics: Vec<Diagnostic>, cancel: &CancellationToken) -> Failure {
    match cancel.is_cancelled() {
        true => Failure::Interrupted("failed to build: canceled"),
        false => diagnostics.into_iter().map(in_build).collect::<Vec<_>>().into(),
    }
}

/// Builds, in the order of a stepper if there is one, with the policies of the settings asked about every source.
pub(super) async fn under_policy(
    builder: &Arc<Builder>,
    settings: &BuildSettings,
    events: Arc<dyn EventSink>,
    cancel: CancellationToken,
    level: LogLevel,
    stepper: Option<&dyn Stepper>,
) -> Result<BuildOutcome, Vec<Diagnostic>> {
    let policy = match &settings.policy {
        None => None,
        Some(policy) => {
            Loaded::load(policy, builder, &events, &cancel, level).await.map_err(|error| vec![error])?
        }
    };
    let judge = policy.as_ref().map(Loaded::judge);
    let mut request = settings.request.clone();
    request.steps.proxy_network |= policy.as_ref().is_some_and(Loaded::wants_proxy);
    let built = builder.build(request, judge, events, cancel, stepper).await;
    if let (Some(policy), Err(errors)) = (&policy, &built) {
        policy.ended(errors);
    }
    built
}

/// Returns how much policies say, if they are not told how much.
pub(super) fn policy_level(context: &Context) -> LogLevel {
    if context.global.debug { LogLevel::Debug } else { LogLevel::Info }
}

/// Tells what there is to say of a build beside its result.
pub(super) fn tell_more(
    settings: &BuildSettings,
    builder: &Builder,
    warnings: &[Warning],
    context: &Context,
) -> Result<(), Failure> {
    if !matches!(settings.display, DisplayMode::Silent | DisplayMode::RawJson) {
        output::text_to_stderr(&warnings::summary(warnings, &context.palette, context.global.debug));
    }
    tell_details(builder, settings, context);
    if settings.explain {
        output::text_to_stderr(&format!("\n{}", explain::table(&builder.explain(&settings.request.id)?)));
    }
    Ok(())
}

/// Opens a shell in the step that failed, if one has; the failure is told before.
fn look_into(
    failure: Failure,
    builder: &Builder,
    settings: &BuildSettings,
    program: &[String],
    context: &Context,
) -> Failure {
    if matches!(failure, Failure::Interrupted(_)) {
        return failure;
    }
    let Ok(step) = builder.debug_step(&settings.request.id, None) else { return failure };
    let _ = failure.report(&context.palette, &mut io::stderr().lock());
    match debug::enter(builder, &step, program, DebugOffer::Build(&settings.request)) {
        // However the shell ended, the build has failed.
        Ok(_) => Failure::Status(1),
        Err(failure) => failure,
    }
}

/// Says what failed, as the reference does.
pub(super) fn in_build(mut diagnostic: Diagnostic) -> Diagnostic {
    if !diagnostic.message.starts_with("failed to ") {
        diagnostic.message.insert_str(0, "failed to build: ");
    }
    diagnostic
}

/// An ID left from an earlier build must not be taken for this one's.
pub(super) fn remove_stale_id(settings: &BuildSettings) -> Result<(), Failure> {
    let Some(path) = &settings.iid_file else { return Ok(()) };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("failed to remove the old image ID file `{}`", path.display()), &error))
        }
        _ => Ok(()),
    }
}

pub(super) fn tell_notes(notes: &[String], display: DisplayMode, context: &Context) {
    if display == DisplayMode::RawJson {
        return;
    }
    for note in notes {
        output::text_to_stderr(&format!("{} {note}\n", context.palette.paint(Tone::Warning, "warning:")));
    }
}

/// Says where Docker Desktop, if it is there, shows the build.
fn tell_details(builder: &Builder, settings: &BuildSettings, context: &Context) {
    let shown = !matches!(settings.display, DisplayMode::Silent | DisplayMode::RawJson);
    let home = context.around.non_empty("HOME").unwrap_or("/");
    let desktop = Path::new(home).join(".docker/desktop-build/.lastaccess");
    if shown && builder.label().is_some() && desktop.exists() {
        let reference = builder.reference_of(&settings.request.id);
        output::text_to_stderr(&format!(
            "\nView build details: docker-desktop://dashboard/build/{reference}\n\n"
        ));
    }
}

pub(super) fn leave_results(
    settings: &BuildSettings,
    built: &BuildOutcome,
    warnings: &[Warning],
    context: &Context,
) -> Result<(), Failure> {
    if let Some(path) = &settings.iid_file {
        output::file(path, built.image_id().unwrap_or_default().as_bytes())?;
    }
    if let Some(path) = &settings.metadata_file {
        let metadata = metadata(built, warnings, context);
        output::file(path, format!("{:#}", Value::Object(metadata)).as_bytes())?;
    }
    if settings.call.is_some() {
        return show_answer(settings, built, context);
    }
    match built.image_id() {
        Some(id) if settings.print_id => output::text(&format!("{id}\n")),
        _ => Ok(()),
    }
}

/// Collects the members of the metadata file, in order of name as Go writes maps.
pub(super) fn metadata(built: &BuildOutcome, warnings: &[Warning], context: &Context) -> Map<String, Value> {
    let mut members: Vec<(String, Value)> =
        built.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let wanted = context.around.variable("BUILDX_METADATA_WARNINGS").and_then(boolean) == Some(true);
    if let Some(answer) = &built.answer {
        members.push(("result.json".to_owned(), serde_json::from_str(&answer.json).unwrap_or_default()));
    } else if wanted && !warnings.is_empty() {
        let list = warnings.iter().map(warnings::to_json).collect();
        members.push(("buildx.build.warnings".to_owned(), list));
    }
    members.sort_by(|a, b| a.0.cmp(&b.0));
    members.into_iter().collect()
}

/// Lays out what a call found, for people.
pub(super) fn answer_text(settings: &BuildSettings, answer: &CallAnswer) -> String {
    match settings.call.map(|call| call.function) {
        Some(CallFunction::Check) => {
            call::warnings(&answer.text, &answer.json, settings.dockerfile_name.as_deref())
        }
        _ => answer.text.clone(),
    }
}

/// Shows the error that a check met.
pub(super) fn tell_error(settings: &BuildSettings, answer: &CallAnswer, context: &Context) {
    if let Some(error) = call::build_error(&answer.json, settings.dockerfile_name.as_deref()) {
        output::text_to_stderr(&format!("{} {error}", context.palette.error()));
    }
}

/// Shows what a call found; its exit code says whether something is wrong.
fn show_answer(settings: &BuildSettings, built: &BuildOutcome, context: &Context) -> Result<(), Failure> {
    let (Some(call), Some(answer)) = (settings.call, &built.answer) else { return Ok(()) };
    if call.json {
        output::text(&format!("{}\n", answer.json.trim_end()))?;
    } else {
        output::text(&answer_text(settings, answer))?;
        tell_error(settings, answer, context);
    }
    if answer.failed && !call.ignore_status { Err(Failure::Status(1)) } else { Ok(()) }
}
