//! `run`: try an image of any platform.

use slipway_model::{Platform, Reference};
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::args::run::RunArgs;
use crate::builder::{Builder, RunOptions, RunSource, Volume};
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::settings::{SettingsError, Surroundings, build_context, network, parse_platforms};
use crate::ui::{DisplayMode, DisplayOptions, Progress};

/// Runs `run`; the exit code is the program's.
pub(crate) fn run(args: &RunArgs, context: &Context) -> Result<(), Failure> {
    let settings = settings(args, &context.around)?;
    let builder = Builder::open(&context.global)?;
    // Only what takes long is worth showing, and the program has the terminal afterwards.
    let progress = Progress::start(DisplayOptions::new(DisplayMode::Silent, &context.around));
    let cancel = CancellationToken::new();
    let runtime = interrupt::runtime()?;
    let code = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        builder.run(settings, progress.sink(), cancel.clone()).await
    });
    runtime.shutdown_background();
    match code? {
        0 => Ok(()),
        code => Err(Failure::Status(code)),
    }
}

fn settings(args: &RunArgs, around: &Surroundings) -> Result<RunOptions, SettingsError> {
    let platform = match &args.platform {
        None => None,
        Some(text) => parse_platforms(std::slice::from_ref(text))?.into_iter().next(),
    };
    Ok(RunOptions {
        source: source(&args.image, around)?,
        platform: platform.unwrap_or_else(Platform::host),
        command: args.command.clone(),
        entrypoint: args.entrypoint.clone(),
        environment: environment(&args.env, around)?,
        volumes: args.volume.iter().map(|text| volume(text, around)).collect::<Result<_, _>>()?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        network: network(&args.network)?,
        interactive: args.interactive,
        terminal: args.tty,
        pull: args.pull,
    })
}

fn source(text: &str, around: &Surroundings) -> Result<RunSource, SettingsError> {
    if text.starts_with("oci-layout://") {
        return match build_context("image", text, around)? {
            slipway_model::solve::NamedContextSource::OciLayout { path, selector } => {
                Ok(RunSource::Layout { path, selector })
            }
            _ => Err(SettingsError::flag(format!("`{text}` is no image"))),
        };
    }
    let reference: Result<Reference, _> = text.parse();
    reference.map(|name| RunSource::Named(name.with_default_tag())).map_err(|error| {
        SettingsError::flag(format!("invalid image name `{text}`: {error}"))
            .hint("write `slipway run NAME[:TAG] COMMAND` or `slipway run oci-layout://PATH COMMAND`")
    })
}

fn environment(values: &[String], around: &Surroundings) -> Result<Vec<(String, String)>, SettingsError> {
    let mut list = Vec::new();
    for text in values {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text.as_str(), around.variable(text)),
        };
        if key.is_empty() {
            return Err(SettingsError::flag(format!("invalid value `{text}` for `--env`: empty name")));
        }
        list.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }
    Ok(list)
}

fn volume(text: &str, around: &Surroundings) -> Result<Volume, SettingsError> {
    let invalid = |why: &str| {
        SettingsError::flag(format!("invalid value `{text}` for `--volume`: {why}"))
            .hint("write `--volume /on/host:/in/image[:ro]`")
    };
    let mut parts = text.split(':');
    let (source, target, mode) = (parts.next(), parts.next(), parts.next());
    let (Some(source), Some(target), None) = (source.filter(|s| !s.is_empty()), target, parts.next()) else {
        return Err(invalid("expected a source and a target"));
    };
    if !target.starts_with('/') {
        return Err(invalid("the target is no absolute path"));
    }
    let readonly = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return Err(invalid("the only modes are `ro` and `rw`")),
    };
    let source = around.absolute(source);
    if !source.exists() {
        return Err(SettingsError::input(format!("there is no `{}` to mount", source.display())));
    }
    Ok(Volume { source, target: target.to_owned(), readonly })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn of(line: &str, directory: &std::path::Path) -> Result<RunOptions, String> {
        let root = crate::args::Root::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        let crate::args::Command::Run(args) = root.command else { return Err("another command".into()) };
        let around = Surroundings::fixed(directory, &[("HOME", "/root")], b"");
        settings(&args, &around).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_end_where_the_command_begins() {
        let directory = tempfile::tempdir().unwrap();
        let got = of(
            "slipway run --platform linux/arm64 -it -e A=1 -e HOME -e NOT_SET -v .:/src:ro app ls -l --platform x",
            directory.path(),
        )
        .unwrap();
        assert_eq!(got.platform.to_string(), "linux/arm64");
        assert_eq!(got.command, ["ls", "-l", "--platform", "x"]);
        assert_eq!(got.environment, [("A".into(), "1".into()), ("HOME".into(), "/root".into())]);
        assert!(got.interactive && got.terminal && got.volumes[0].readonly);
        assert!(matches!(got.source, RunSource::Named(name) if name.familiar() == "app:latest"));
    }

    #[test]
    fn mistakes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for line in [
            "slipway run App",
            "slipway run -v /nowhere:/x app",
            "slipway run -v x app",
            "slipway run -v .:rel app",
            "slipway run -e =x app",
            "slipway run --platform a/b/c/d app",
            "slipway run oci-layout://nowhere",
            "slipway run",
        ] {
            assert!(of(line, directory.path()).is_err(), "{line}");
        }
    }
}
