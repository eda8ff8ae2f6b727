//! `bake`: read the definition, build its targets at once, leave the results where they were asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use slipway_bake::{Bake, Grants, ListKind, ListRequest};
use slipway_engine::{RemoteFiles, RemoteFilesRequest};
use slipway_model::progress::{Event, EventSink, Status, Vertex, Warning};
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_policy::LogLevel;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::build::{answer_text, in_build, metadata, policy_level, tell_error, under_policy};
use crate::app::Context;
use crate::args::GlobalArgs;
use crate::args::bake::BakeArgs;
use crate::args::build::ProgressArg;
use crate::builder::{BuildOutcome, Builder};
use crate::confirm::confirmed;
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;
use crate::settings::SettingsError;
use crate::settings::bake::remote::Addresses;
use crate::settings::bake::{self, Loaded, Places, PlannedTarget, privileges};
use crate::ui::{DisplayMode, DisplayOptions, Prefixed, Progress, Together, Tone, call, explain, warnings};

/// Runs `bake`.
pub(crate) fn run(args: &BakeArgs, context: &mut Context) -> Result<(), Failure> {
    let list = list_request(args)?;
    let mut args = args.clone();
    let addresses = Addresses::take(&mut args);
    let args = &args;
    let display = DisplayOptions::new(DisplayMode::Silent, &context.around);
    let global = context.global.clone();
    let mut fetch = |request| fetch(request, &global, display.clone());
    let loaded = bake::load(args, &addresses, &mut context.around, &mut fetch)?;
    tell_notes(&loaded, context);
    if let Some(list) = list {
        return output::text(&listed(&loaded, list));
    }
    let bake = loaded.resolve(args)?;
    let grants = Grants::parse(&args.allow)?;
    if args.print {
        return output::text(&format!("{}\n", slipway_bake::to_json(&bake)));
    }
    let grants = granted(grants, args.progress, &loaded, &bake, context)?;
    build(args, &grants, &loaded, &bake, context)
}

/// Gets the files of a definition at an address.
fn fetch(
    request: RemoteFilesRequest,
    global: &GlobalArgs,
    display: DisplayOptions,
) -> Result<RemoteFiles, Failure> {
    let builder = Builder::open(global)?;
    let progress = Progress::start(display);
    let runtime = interrupt::runtime()?;
    let cancel = CancellationToken::new();
    let found = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        Ok::<_, Failure>(builder.remote_files(request, progress.sink(), &cancel).await?)
    });
    runtime.shutdown_background();
    progress.finish();
    found
}

fn list_request(args: &BakeArgs) -> Result<Option<ListRequest>, Failure> {
    let text = match (&args.list, args.list_targets, args.list_variables) {
        (Some(text), _, _) => text.as_str(),
        (None, true, _) => "targets",
        (None, false, true) => "variables",
        (None, false, false) => return Ok(None),
    };
    if args.print {
        let error = SettingsError::flag("`--print` and `--list` are mutually exclusive");
        return Err(error.hint("leave one of them out").into());
    }
    Ok(Some(ListRequest::parse(text)?))
}

fn listed(loaded: &Loaded, list: ListRequest) -> String {
    let definition = &loaded.definition;
    match (list.kind, list.json) {
        (ListKind::Targets, false) => slipway_bake::targets_as_table(definition),
        (ListKind::Targets, true) => slipway_bake::targets_as_json(definition),
        (ListKind::Variables, false) => slipway_bake::variables_as_table(&definition.variables),
        (ListKind::Variables, true) => slipway_bake::variables_as_json(&definition.variables),
    }
}

/// Shows what has no effect in the files, with its place and what may be meant.
fn tell_notes(loaded: &Loaded, context: &Context) {
    for note in &loaded.definition.notes {
        let place = note.span.as_ref().and_then(|span| {
            let line = span.ranges.first()?.start.as_ref()?.line;
            Some(format!("{}:{line}: ", crate::ui::source::file_name(&span.source)))
        });
        let hint = note.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        let place = place.unwrap_or_default();
        warn(&format!("{place}{}{hint}", crate::ui::printable(&note.message)), context);
    }
}

fn warn(text: &str, context: &Context) {
    output::text_to_stderr(&format!("{} {text}\n", context.palette.paint(Tone::Warning, "warning:")));
}

/// Returns all that is granted; who is at a terminal is asked for what is missing.
fn granted(
    mut grants: Grants,
    progress: ProgressArg,
    loaded: &Loaded,
    bake: &Bake,
    context: &mut Context,
) -> Result<Grants, Failure> {
    let missing = privileges::missing(&grants, bake, loaded, &context.around);
    if missing.is_empty() {
        return Ok(grants);
    }
    if progress != ProgressArg::Rawjson {
        output::text_to_stderr(&privileges::request(&missing));
        let question = "Do you want to grant the requested privileges and continue?";
        if context.around.stdin_is_terminal && confirmed(question, &mut context.around)? {
            let given: Vec<String> = missing.values().map(str::to_owned).collect();
            grants.extend(&given)?;
            return Ok(grants);
        }
    }
    Err(privileges::refused(&context.arguments, &missing).into())
}

fn build(
    args: &BakeArgs,
    grants: &Grants,
    loaded: &Loaded,
    bake: &Bake,
    context: &mut Context,
) -> Result<(), Failure> {
    let layouts = tempfile::tempdir().map_err(|error| {
        Failure::io("failed to make a directory for what targets need of each other", &error)
    })?;
    let places = Places {
        layouts: layouts.path(),
        several_nodes: Builder::has_several_nodes(&context.global)?,
        directory: loaded.directory.as_ref(),
    };
    let targets = bake::plan(args, bake, grants, &places, &mut context.around)?;
    let Some(first) = targets.first() else { return Ok(()) };
    let display = first.settings.display;
    let builds = targets.iter().any(|target| target.settings.call.is_none());
    let mut builder =
        if builds { Builder::open(&context.global)? } else { Builder::open_unprivileged(&context.global)? };
    if targets.len() > 1 {
        builder.share_directories();
    }
    if display != DisplayMode::RawJson {
        let mut notes: Vec<String> = targets.iter().flat_map(|t| t.settings.notes.iter().cloned()).collect();
        notes.extend(builder.notes());
        notes.extend(targets.iter().flat_map(|target| builder.notes_on(&target.settings.request)));
        let mut seen = std::collections::BTreeSet::new();
        notes.iter().filter(|note| seen.insert((*note).clone())).for_each(|note| warn(note, context));
    }
    for target in targets.iter().filter(|target| target.settings.call.is_some()) {
        for needed in &target.needs {
            let path = layouts.path().join(needed);
            if !path.exists() && targets.iter().any(|t| t.name == *needed && t.settings.call.is_some()) {
                bake::links::write_stand_in(&path, &target.settings.request.platforms)
                    .map_err(|error| Failure::io("failed to write a stand-in image", &error))?;
            }
        }
    }
    let builder = Arc::new(builder);
    let progress = Progress::start(DisplayOptions::new(display, &context.around).at(builder.label()));
    if builder.label().is_some() {
        let of_environment = args.file.is_empty() && context.around.non_empty("BUILDX_BAKE_FILE").is_some();
        tell_definition(loaded, of_environment, &progress.sink());
    }
    let built = solve_all(&builder, &targets, &progress, policy_level(context));
    let warnings = once(&progress.finish());
    if builds && !matches!(display, DisplayMode::Silent | DisplayMode::RawJson) {
        output::text_to_stderr(&warnings::summary(&warnings, &context.palette, context.global.debug));
    }
    if args.explain && builds {
        for target in targets.iter().filter(|target| target.settings.call.is_none()) {
            // A target that was not begun has no record.
            let Ok(steps) = builder.explain(&target.settings.request.id) else { continue };
            output::text_to_stderr(&format!("\n{}\n{}", target.name, explain::table(&steps)));
        }
    }
    let left = built.and_then(|built| leave_results(args, bake, &targets, &built, &warnings, context));
    if builds {
        builder.tidy();
    }
    left
}

/// Shows which files the targets come from.
fn tell_definition(loaded: &Loaded, of_environment: bool, events: &Arc<dyn EventSink>) {
    let name = match of_environment {
        true => "[internal] load local bake definitions from BUILDX_BAKE_FILE env",
        false => "[internal] load local bake definitions",
    };
    let (digest, now) = (Digest::of(name), SystemTime::now());
    let vertex = Vertex {
        digest,
        name: name.to_owned(),
        inputs: Vec::new(),
        started: Some(now),
        completed: None,
        cached: false,
        error: None,
        progress_group: None,
    };
    events.emit(Event::Vertex(vertex.clone()));
    for (name, size) in loaded.files() {
        events.emit(Event::Status(Status {
            vertex: digest,
            id: match name {
                "-" => "reading from stdin".to_owned(),
                name => format!("reading {name}"),
            },
            current: size,
            total: size,
            timestamp: now,
            started: Some(now),
            completed: Some(now),
        }));
    }
    events.emit(Event::Vertex(Vertex { completed: Some(SystemTime::now()), ..vertex }));
}

/// Leaves out warnings that another target has given: of the same lines, the same is said.
fn once(found: &[Warning]) -> Vec<Warning> {
    let mut seen = std::collections::HashSet::new();
    let place = |warning: &Warning| {
        let file = warning.source.as_ref().map(|source| (source.filename.clone(), source.data.clone()));
        (warning.short.clone(), file, format!("{:?}", warning.ranges))
    };
    found.iter().filter(|warning| seen.insert(place(warning))).cloned().collect()
}

type Outcomes = BTreeMap<String, BuildOutcome>;

/// Builds all targets at once, each as soon as what it needs is there; the first failure stops the rest.
fn solve_all(
    builder: &Arc<Builder>,
    targets: &[PlannedTarget],
    progress: &Progress,
    level: LogLevel,
) -> Result<Outcomes, Failure> {
    let runtime = interrupt::runtime()?;
    let cancel = CancellationToken::new();
    let result = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        let stop = cancel.child_token();
        let mut tasks = spawn_all(builder, targets, progress, (&stop, level));
        let (mut outcomes, mut failed) = (Outcomes::new(), None);
        while let Some(joined) = tasks.join_next().await {
            let (name, result) = joined.unwrap_or_else(|error| (String::new(), Err(vec![lost(&error)])));
            match result {
                Ok(outcome) => drop(outcomes.insert(name, outcome)),
                // What fails after the first failure was stopped by it.
                Err(diagnostics) if failed.is_none() && !diagnostics.is_empty() => {
                    stop.cancel();
                    let named = |diagnostic| bake::in_target(&name, in_build(diagnostic));
                    failed = Some(diagnostics.into_iter().map(named).collect::<Vec<_>>());
                }
                Err(_) => {}
            }
        }
        failed.map_or(Ok(outcomes), |diagnostics| Err(Failure::from(diagnostics)))
    });
    // What still blocks a thread belongs to a build that is over.
    runtime.shutdown_background();
    match result {
        Err(_) if cancel.is_cancelled() => Err(Failure::Interrupted("failed to build: canceled")),
        result => result,
    }
}

fn lost(error: &tokio::task::JoinError) -> Diagnostic {
    Diagnostic::new(ErrorKind::Internal, "a build ended without a result").cause(error.to_string())
}

type Built = (String, Result<BuildOutcome, Vec<Diagnostic>>);

fn spawn_all(
    builder: &Arc<Builder>,
    targets: &[PlannedTarget],
    progress: &Progress,
    (stop, level): (&CancellationToken, LogLevel),
) -> JoinSet<Built> {
    let mut tasks = JoinSet::new();
    let together = Together::new(progress.sink());
    let (senders, receivers): (HashMap<&str, _>, HashMap<&str, _>) = targets
        .iter()
        .map(|target| {
            let (sender, receiver) = watch::channel(false);
            ((target.name.as_str(), sender), (target.name.as_str(), receiver))
        })
        .unzip();
    for (target, (_, done)) in targets.iter().zip(in_order(targets, senders)) {
        // A call does not look into what it is made of.
        let needs: Vec<watch::Receiver<bool>> = match target.settings.call {
            Some(_) => Vec::new(),
            None => target.needs.iter().filter_map(|name| receivers.get(name.as_str()).cloned()).collect(),
        };
        let parts: Vec<watch::Receiver<bool>> =
            target.parts.iter().filter_map(|name| receivers.get(name.as_str()).cloned()).collect();
        let name = target.name.clone();
        // The same step at two nodes is two.
        let events: Arc<dyn EventSink> = match targets.len() {
            1 => progress.sink(),
            _ if builder.is_spread() => Arc::new(Prefixed::new(name, progress.sink())),
            _ => together.build(name),
        };
        let (builder, stop) = (Arc::clone(builder), stop.clone());
        let (name, settings) = (target.name.clone(), Arc::clone(&target.settings));
        tasks.spawn(async move {
            for mut needed in needs {
                if needed.wait_for(|built| *built).await.is_err() {
                    // It has failed, and has said so.
                    return (name, Err(Vec::new()));
                }
            }
            let result = under_policy(&builder, &settings, events, stop, level, None).await;
            match &result {
                Ok(_) => drop(done.send(true)),
                Err(diagnostics) if diagnostics.iter().all(|diagnostic| diagnostic.vertex.is_some()) => {
                    // A step that failed may be a part's, whose own build says so.
                    for mut part in parts {
                        if part.wait_for(|built| *built).await.is_err() {
                            return (name, Err(Vec::new()));
                        }
                    }
                }
                Err(_) => {}
            }
            (name, result)
        });
    }
    tasks
}

/// Puts the senders into the order of the targets.
fn in_order<'a>(
    targets: &'a [PlannedTarget],
    mut senders: HashMap<&'a str, watch::Sender<bool>>,
) -> Vec<(&'a str, watch::Sender<bool>)> {
    targets.iter().filter_map(|target| senders.remove_entry(target.name.as_str())).collect()
}

fn leave_results(
    args: &BakeArgs,
    bake: &Bake,
    targets: &[PlannedTarget],
    built: &Outcomes,
    found: &[Warning],
    context: &Context,
) -> Result<(), Failure> {
    if let Some(path) = &args.metadata_file {
        let mut members: BTreeMap<String, Value> = targets
            .iter()
            .filter_map(|target| {
                let outcome = built.get(&target.name)?;
                Some((target.name.clone(), Value::Object(metadata(outcome, &[], context))))
            })
            .collect();
        // Warnings are of all targets together.
        let of_all = metadata(&BuildOutcome::default(), found, context);
        members.extend(of_all);
        let members: Map<String, Value> = members.into_iter().collect();
        output::file(&context.around.absolute(path), format!("{:#}", Value::Object(members)).as_bytes())?;
    }
    let called: Vec<&PlannedTarget> =
        targets.iter().filter(|target| target.settings.call.is_some()).collect();
    if called.is_empty() { Ok(()) } else { show_answers(bake, &called, built, context) }
}

/// Shows what calls found, one target after the other, or all in one JSON document.
fn show_answers(
    bake: &Bake,
    called: &[&PlannedTarget],
    built: &Outcomes,
    context: &Context,
) -> Result<(), Failure> {
    let mut failed = false;
    let mut document = slipway_bake::to_value(bake);
    let as_json = called.iter().any(|target| target.settings.call.is_some_and(|call| call.json));
    if let Some(targets) = document.get_mut("target").and_then(Value::as_object_mut) {
        for (_, definition) in targets.iter_mut() {
            *definition = serde_json::json!({ "build": definition.take() });
        }
    }
    for (at, target) in called.iter().enumerate() {
        let (Some(settings), Some(outcome)) = (target.settings.call, built.get(&target.name)) else {
            continue;
        };
        if settings.function == crate::settings::build::CallFunction::Describe {
            output::text(&call::describe(settings.json))?;
            continue;
        }
        let Some(answer) = &outcome.answer else { continue };
        failed |= answer.failed && !settings.ignore_status;
        if as_json {
            let answer: Value = serde_json::from_str(&answer.json).unwrap_or(Value::Null);
            document["target"][&target.name][settings.function.name()] = answer;
            continue;
        }
        let separator = if at > 0 { "\n" } else { "" };
        let description = match target.description.as_str() {
            "" => String::new(),
            text => format!("{text}\n"),
        };
        let text = answer_text(&target.settings, answer);
        output::text(&format!("{separator}{}\n{description}\n{text}", target.name))?;
        tell_error(&target.settings, answer, context);
    }
    if as_json {
        output::text(&format!("{document:#}\n"))?;
    }
    if failed { Err(Failure::Status(1)) } else { Ok(()) }
}
