//! `history`: what was built, and what it said.

mod attachments;
mod share;

use std::io;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use slipway_engine::Attachment;
use slipway_engine::history::{Outcome, Record};

use crate::app::Context;
use crate::args::history::{
    HistoryArgs, HistoryCommand, InspectArgs, InspectCommand, LogsArgs, LogsForm, LsArgs, RmArgs,
};
use crate::builder::Builder;
use crate::error::Failure;
use crate::settings::history::Condition;
use crate::settings::{SettingsError, repository_of};
use crate::template::{JsonStyle, Template, TemplateError};
use crate::ui::format::{human_duration, rfc3339, seconds, table};
use crate::ui::{DisplayMode, DisplayOptions, explain, replay};
use crate::{interrupt, output};

/// The longest name in a table.
const NAME_WIDTH: usize = 36;

/// Runs `history`.
pub(crate) fn run(args: &HistoryArgs, context: &mut Context) -> Result<(), Failure> {
    let open = || Builder::open(&context.global);
    match &args.command {
        HistoryCommand::Ls(args) => list(&open()?, args, context),
        HistoryCommand::Inspect(args) => inspect(&open()?, args),
        HistoryCommand::Logs(args) => logs(&open()?, args, context),
        HistoryCommand::Rm(args) => remove(&open()?, args),
        HistoryCommand::Trace(args) => share::trace(&open()?, args),
        HistoryCommand::Export(args) => share::export(&open()?, args, context),
        HistoryCommand::Import(args) => share::import(args, context),
        HistoryCommand::Open(args) => share::open(&open()?, args, context),
    }
}

fn list(builder: &Builder, args: &LsArgs, context: &Context) -> Result<(), Failure> {
    let now = SystemTime::now();
    let conditions = args.filter.iter().map(|text| Condition::parse(text, now));
    let mut conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    if args.local {
        let repository = repository_of(&context.around.absolute(""))?.ok_or_else(|| {
            SettingsError::input("`--local` needs a repository with a remote, and there is none here")
                .hint("name the repository with `--filter repository=ADDRESS`")
        })?;
        conditions.push(Condition::Repository { part: repository, equal: true });
    }
    let mut records = builder.history().list()?;
    records.retain(|record| conditions.iter().all(|condition| condition.holds(record)));
    // What runs comes first.
    records.sort_by_key(|record| record.completed.is_some());
    output::text(&listing(&records, args, now)?)
}

fn listing(records: &[Record], args: &LsArgs, now: SystemTime) -> Result<String, SettingsError> {
    match args.format.as_str() {
        "table" => Ok(as_table(records, args.no_trunc, now)),
        "json" => Ok(records.iter().map(|record| format!("{}\n", summary(record))).collect()),
        text => {
            let failed = |error: TemplateError| SettingsError::flag(error.to_string());
            let template = Template::parse(text, JsonStyle::Compact).map_err(failed)?;
            let line = |record: &Record| template.execute(&row(record, now)).map(|text| text + "\n");
            records.iter().map(|record| line(record).map_err(failed)).collect()
        }
    }
}

fn as_table(records: &[Record], whole: bool, now: SystemTime) -> String {
    let head = ["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"].map(str::to_owned).to_vec();
    let rows = records.iter().map(|record| {
        let name = &record.request.name;
        let name = if whole { name.clone() } else { without_beginning(name, NAME_WIDTH) };
        vec![record.id.clone(), name, status(record).to_owned(), created(record, now), duration(record, now)]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 3)
}

/// Cuts the beginning off a name that is too long.
fn without_beginning(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    format!("..{}", name.chars().skip(count + 2 - width).collect::<String>())
}

fn status(record: &Record) -> &'static str {
    match record.outcome {
        None => "Running",
        Some(Outcome::Completed) => "Completed",
        Some(Outcome::Canceled) => "Canceled",
        Some(Outcome::Failed(_)) => "Error",
    }
}

fn created(record: &Record, now: SystemTime) -> String {
    format!("{} ago", human_duration(now.duration_since(record.started).unwrap_or_default()))
}

fn took(record: &Record, now: SystemTime) -> Duration {
    record.completed.unwrap_or(now).duration_since(record.started).unwrap_or_default()
}

fn duration(record: &Record, now: SystemTime) -> String {
    let took = took(record, now);
    let mut text = match took.as_secs() {
        0..60 => seconds(took),
        whole => format!("{}m {:2}s", whole / 60, whole % 60),
    };
    if record.completed.is_none() {
        text.push('+');
    }
    text
}

/// Returns what a build is called: its builder is known once it has ended.
fn full_reference(record: &Record) -> String {
    let known = record.metadata.get("buildx.build.ref").and_then(Value::as_str);
    known.map_or_else(|| format!("default/default/{}", record.id), str::to_owned)
}

/// What `--format json` shows of a build; names are in order, as Go writes them.
fn summary(record: &Record) -> Value {
    let mut value = json!({
        "cached_steps": record.steps.cached,
        "completed_at": record.completed.map(rfc3339),
        "completed_steps": record.steps.completed,
        "created_at": rfc3339(record.started),
        "name": record.request.name,
        "ref": full_reference(record),
        "status": status(record),
        "total_steps": record.steps.total,
    });
    if let Value::Object(members) = &mut value {
        members.retain(|_, value| !value.is_null());
    }
    value
}

/// What a template sees of a build in a list.
fn row(record: &Record, now: SystemTime) -> Value {
    json!({
        "Ref": record.id,
        "Name": record.request.name,
        "Status": status(record),
        "CreatedAt": created(record, now),
        "Duration": duration(record, now),
    })
}

fn inspect(builder: &Builder, args: &InspectArgs) -> Result<(), Failure> {
    if let Some(InspectCommand::Attachment(args)) = &args.command {
        return attachments::print(builder, args);
    }
    if args.explain {
        let steps = builder.explain(&args.reference)?;
        return output::text(&match args.format.as_str() {
            "json" => format!("{:#}\n", explain::to_json(&steps)),
            _ => explain::table(&steps),
        });
    }
    let record = builder.history().find(&args.reference)?;
    let now = SystemTime::now();
    // A builder that does not answer is no reason not to show what is known here.
    let attachments = interrupt::runtime()?.block_on(builder.attachments(&record)).unwrap_or_default();
    let text = match args.format.as_str() {
        "pretty" => pretty(&record, args.reference.is_empty(), &attachments, now),
        "json" => format!("{:#}\n", details(&record, &attachments, now)),
        text => {
            let failed = |error: TemplateError| SettingsError::flag(error.to_string());
            let template = Template::parse(text, JsonStyle::Compact).map_err(failed)?;
            template.execute(&details(&record, &attachments, now)).map_err(failed)? + "\n"
        }
    };
    output::text(&text)
}

/// Lays out what is known of a build, for people.
fn pretty(record: &Record, with_reference: bool, attachments: &[Attachment], now: SystemTime) -> String {
    let request = &record.request;
    let filters = request.no_cache_filter.join(", ");
    let reference = if with_reference { record.id.as_str() } else { "" };
    let about = [
        ("Name", request.name.as_str()),
        ("Ref", reference),
        ("Context", &request.context),
        ("Dockerfile", &request.dockerfile),
        ("Target", request.target.as_deref().unwrap_or_default()),
        ("Platforms", &request.platforms.join(", ")),
    ];
    let steps = &record.steps;
    let cached = f64::from(steps.cached) / f64::from(steps.total.max(1)) * 100.0;
    let took = duration(record, now);
    let course = [
        ("Started", rfc3339(record.started)),
        ("Duration", if record.completed.is_some() { took } else { format!("{took} (running)") }),
        (
            match record.outcome {
                Some(Outcome::Failed(_)) => "Error",
                _ => "Status",
            },
            match &record.outcome {
                Some(Outcome::Failed(message)) => message.clone(),
                Some(Outcome::Canceled) => "Canceled".to_owned(),
                _ => String::new(),
            },
        ),
        ("Build Steps", format!("{}/{} ({cached:.0}% cached)", steps.completed, steps.total)),
    ];
    let options =
        [("No Cache", if request.no_cache { "true" } else { "" }), ("No Cache Filter", filters.as_str())];
    let image = record.metadata.get("containerimage.digest").and_then(Value::as_str).unwrap_or_default();
    let names = record.metadata.get("image.name").and_then(Value::as_str).unwrap_or_default();
    let mut parts = vec![
        fields(about.map(|(name, value)| (name, value.to_owned()))),
        pairs("NAMED CONTEXT", &request.named_contexts),
        fields(course),
        fields(options.map(|(name, value)| (name, value.to_owned()))),
        pairs("BUILD ARG", &request.build_args),
        pairs("LABEL", &request.labels),
        fields([("Image", names.to_owned()), ("Digest", image.to_owned())]),
        attachments::listed(attachments),
    ];
    parts.push(format!("Print build logs: slipway history logs {}\n", record.id));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// Lays out what has a value.
fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    let rows = fields.into_iter().filter(|(_, value)| !value.is_empty());
    table(&rows.map(|(name, value)| vec![format!("{name}:"), value]).collect::<Vec<_>>(), 1)
}

fn pairs(head: &str, pairs: &std::collections::BTreeMap<String, String>) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let head = vec![head.to_owned(), "VALUE".to_owned()];
    let rows = pairs.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 1)
}

/// What `--format json` and templates see of one build.
fn details(record: &Record, attachments: &[Attachment], now: SystemTime) -> Value {
    let request = &record.request;
    let list = |pairs: &std::collections::BTreeMap<String, String>| -> Value {
        pairs.iter().map(|(name, value)| json!({ "Name": name, "Value": value })).collect()
    };
    let status = match record.outcome {
        None => "running",
        Some(Outcome::Completed) => "completed",
        Some(Outcome::Canceled) => "canceled",
        Some(Outcome::Failed(_)) => "failed",
    };
    let mut value = json!({
        "Name": request.name,
        "Ref": record.id,
        "Context": request.context,
        "Dockerfile": request.dockerfile,
        "Target": request.target.as_deref().unwrap_or_default(),
        "Platform": request.platforms,
        "NamedContexts": list(&request.named_contexts),
        "StartedAt": rfc3339(record.started),
        "CompletedAt": record.completed.map(rfc3339).unwrap_or_default(),
        "Duration": u64::try_from(took(record, now).as_nanos()).unwrap_or(u64::MAX),
        "Status": status,
        "NumCompletedSteps": record.steps.completed,
        "NumTotalSteps": record.steps.total,
        "NumCachedSteps": record.steps.cached,
        "BuildArgs": list(&request.build_args),
        "Labels": list(&request.labels),
        "Config": { "NoCache": request.no_cache, "NoCacheFilter": request.no_cache_filter },
        "Metadata": record.metadata,
        "Attachments": attachments.iter().map(attachments::in_list).collect::<Vec<_>>(),
    });
    if let Some(Outcome::Failed(message)) = &record.outcome {
        value["Error"] = json!({ "Message": message });
    }
    if let Value::Object(members) = &mut value {
        members.retain(|_, value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => true,
        });
    }
    value
}

fn logs(builder: &Builder, args: &LogsArgs, context: &Context) -> Result<(), Failure> {
    let events = builder.history().events(&args.reference)?;
    let mode = match args.progress {
        LogsForm::Plain => DisplayMode::Plain,
        LogsForm::RawJson => DisplayMode::RawJson,
    };
    // What was asked for is data, so it goes where data goes.
    match replay(&DisplayOptions::new(mode, &context.around), events, io::stdout()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("failed to print the logs", &error))
        }
        _ => Ok(()),
    }
}

fn remove(builder: &Builder, args: &RmArgs) -> Result<(), Failure> {
    let history = builder.history();
    if args.all {
        for record in history.list()?.iter().filter(|record| record.outcome.is_some()) {
            history.remove(&record.id)?;
        }
    }
    // All are tried, so that one that is gone does not keep the others.
    let failed: Vec<_> = args.references.iter().filter_map(|id| history.remove(id).err()).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_value(json!({
            "id": "k3j9",
            "request": {
                "name": "a-directory-with-a-rather-long-name/Dockerfile.dev (test)",
                "context": "/src/app", "dockerfile": "Dockerfile.dev", "target": "test",
                "platforms": ["linux/arm64"], "build_args": { "VERSION": "1" },
            },
            "started": 1_700_000_000_000_000_000_u64,
            "completed": 1_700_000_075_500_000_000_u64,
            "outcome": { "failed": "exit code: 1" },
            "steps": { "total": 8, "completed": 6, "cached": 2, "warnings": 0 },
        }))
        .unwrap()
    }

    #[test]
    fn a_list_reads_as_the_references() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 7200);
        assert_eq!(
            as_table(&[record()], false, now),
            "BUILD ID   NAME                                   STATUS   CREATED AT    DURATION\n\
             k3j9       ..er-long-name/Dockerfile.dev (test)   Error    2 hours ago   1m 15s\n"
        );
        assert_eq!(summary(&record())["ref"], "default/default/k3j9");
        assert_eq!(summary(&record())["completed_at"], "2023-11-14T22:14:35.5Z");
    }

    #[test]
    fn one_build_is_laid_out() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(
            pretty(&record(), true, &[], now),
            "Name:       a-directory-with-a-rather-long-name/Dockerfile.dev (test)\n\
             Ref:        k3j9\n\
             Context:    /src/app\n\
             Dockerfile: Dockerfile.dev\n\
             Target:     test\n\
             Platforms:  linux/arm64\n\
             \n\
             Started:     2023-11-14T22:13:20Z\n\
             Duration:    1m 15s\n\
             Error:       exit code: 1\n\
             Build Steps: 6/8 (25% cached)\n\
             \n\
             BUILD ARG VALUE\n\
             VERSION   1\n\
             \n\
             Print build logs: slipway history logs k3j9\n"
        );
        let value = details(&record(), &[], now);
        assert_eq!(value["Status"], "failed");
        assert_eq!(value["Duration"], 75_500_000_000_u64);
        assert!(value.get("Labels").is_none());
    }
}
