//! `policy eval`: one source, decided about or shown.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use slipway_engine::policy::{KnownSource, Verdict};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind, Platform, Reference};
use slipway_policy::{Environment, Log, LogLevel, Policy, PolicyFile, PolicyOptions, Printed, decide, print};

use super::AtBuilder;
use crate::app::Context;
use crate::args::policy::EvalArgs;
use crate::builder::Builder;
use crate::error::Failure;
use crate::policy::Files;
use crate::settings::SettingsError;
use crate::ui::Tone;
use crate::{interrupt, output};

/// How often the builder is asked about one source.
const MAX_QUESTIONS: usize = 5;
/// The most that a policy on standard input may have.
const MAX_POLICY: u64 = 16 << 20;

/// Runs `policy eval`.
pub(super) fn run(args: &EvalArgs, context: &mut Context) -> Result<(), Failure> {
    let source = source(&args.source, context)?;
    let platform = args.platform.as_deref().map(parse_platform).transpose()?;
    let policy = match args.print {
        true => None,
        false => Some(policy(args.filename.as_deref().unwrap_or(&args.file), context)?),
    };
    let builder = Arc::new(Builder::open_unprivileged(&context.global)?);
    let runtime = interrupt::runtime()?;
    let done = runtime.block_on(async {
        let platform = match platform {
            Some(platform) => platform,
            None => builder.platform().await?,
        };
        match policy {
            None => show(args, &source, &platform, &builder, context).await,
            Some(policy) => decided(policy, &source, platform, &builder, context).await,
        }
    });
    runtime.shutdown_background();
    done
}

fn parse_platform(text: &str) -> Result<Platform, SettingsError> {
    text.parse().map_err(|error: slipway_model::ParsePlatformError| {
        SettingsError::flag(format!("invalid platform \"{text}\": {error}"))
            .hint("write `--platform linux/arm64`")
    })
}

/// Reads the policy, from a file or from standard input.
fn policy(name: &str, context: &mut Context) -> Result<(PolicyFile, String), Failure> {
    if name == "-" {
        let mut text = String::new();
        let read = context.around.stdin().take(MAX_POLICY).read_to_string(&mut text);
        read.map_err(|error| Failure::io("failed to read the policy from standard input", &error))?;
        return Ok((PolicyFile { name: "stdin".to_owned(), text }, "stdin".to_owned()));
    }
    let file = format!("{name}.rego");
    let text = std::fs::read_to_string(context.around.absolute(&file));
    let text = text.map_err(|error| Failure::io(format!("failed to read policy file {file}"), &error))?;
    let base = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    Ok((PolicyFile { name: base(&file).unwrap_or(file), text }, base(name).unwrap_or_default()))
}

async fn decided(
    (file, filename): (PolicyFile, String),
    source: &pb::SourceOp,
    platform: Platform,
    builder: &Arc<Builder>,
    context: &Context,
) -> Result<(), Failure> {
    let level = if context.global.debug { LogLevel::Debug } else { LogLevel::Panic };
    let policy = Policy::load(PolicyOptions {
        files: vec![file],
        environment: Environment { filename, ..Environment::default() },
        log: Log::new(level, |line| output::text_to_stderr(&format!("{line}\n"))),
        more: Arc::new(Files::of_directory(context.around.absolute(""))),
        platform: platform.clone(),
    });
    let platform = pb::Platform::from(&platform);
    let verdict = decide(&policy.await?, source, Some(&platform), &AtBuilder(builder.clone())).await?;
    match verdict.0 {
        Verdict::Deny(reasons) if reasons.is_empty() => {
            Err(Diagnostic::new(ErrorKind::User, "policy denied").into())
        }
        Verdict::Deny(reasons) => {
            Err(Diagnostic::new(ErrorKind::User, format!("policy denied: {}", reasons.join("; "))).into())
        }
        Verdict::Allow | Verdict::Replace(_) | Verdict::More(_) => Ok(()),
    }
}

/// Shows what policies see, with the fields that are wanted.
async fn show(
    args: &EvalArgs,
    source: &pb::SourceOp,
    platform: &Platform,
    builder: &Builder,
    context: &Context,
) -> Result<(), Failure> {
    let mut known = KnownSource { op: source.clone(), ..KnownSource::default() };
    let mut printed = print(&known, platform, &args.fields)?;
    let invalid = std::mem::take(&mut printed.invalid);
    for _ in 0..MAX_QUESTIONS {
        let Some(mut wanted) = printed.question.take() else { break };
        wanted.options.platform = Some(platform.clone());
        let before = printed.unresolved;
        known = KnownSource { op: source.clone(), ..builder.learn(source, &wanted).await? };
        printed = print(&known, platform, &args.fields)?;
        if printed.unresolved == before {
            break;
        }
    }
    let Printed { document, unresolved, .. } = printed;
    if !invalid.is_empty() {
        let word = context.palette.paint(Tone::Warning, "warning:");
        output::text_to_stderr(&format!("{word} invalid fields: {}\n", invalid.join(", ")));
    }
    if !unresolved.is_empty() {
        output::text_to_stderr(&format!("unresolved fields: {}\n", unresolved.join(", ")));
    }
    output::text(&format!("{document:#}\n"))
}

/// Reads which source is meant.
fn source(text: &str, context: &Context) -> Result<pb::SourceOp, SettingsError> {
    let of = |identifier: String| pb::SourceOp { identifier, ..pb::SourceOp::default() };
    if let Some(name) = text.strip_prefix("docker-image://") {
        let reference: Reference = name.parse().map_err(|error: slipway_model::ParseReferenceError| {
            SettingsError::flag(format!("failed to parse image source reference: {error}"))
                .hint("write `docker-image://NAME[:TAG]`")
        })?;
        return Ok(of(format!("docker-image://{}", reference.with_default_tag())));
    }
    if text.starts_with("git://") {
        return Ok(of(text.to_owned()));
    }
    if let Some((_, rest)) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    {
        let address = text.split(['#', '?']).next().unwrap_or(text);
        if !address.ends_with(".git") {
            return Ok(of(text.to_owned()));
        }
        let attrs = [("git.fullurl".to_owned(), address.to_owned())].into();
        return Ok(pb::SourceOp { identifier: format!("git://{rest}"), attrs });
    }
    if context.around.absolute(text).exists() {
        return Ok(of("local://context".to_owned()));
    }
    Err(SettingsError::flag(format!("invalid local path {text}"))
        .hint("name an image as `docker-image://NAME`, a repository as `https://host/path.git`"))
}
