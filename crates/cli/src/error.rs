//! The only place where errors are shown, and where exit codes are decided.
//!
//! An error reads from the top: what failed, where in which file, what the step last said, the platform,
//! why, and what mends it. Only the first line starts with `error:`, so that tools find it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory as _;
use slipway_model::{Diagnostic, ErrorKind};

use crate::settings::SettingsError;
use crate::ui::{Palette, source};
use crate::ui::{Tone, printable};

/// Something failed.
const GENERAL: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Stopped by SIGINT, as shells say it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command ended without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(Box<Diagnostic>),
    /// Something failed; each is shown.
    Failed(Vec<Diagnostic>),
    /// Stopped by a signal; the text says what.
    Interrupted(&'static str),
    /// Everything has been said; only the code is left.
    Status(u8),
}

impl Failure {
    /// Wraps an error that no better diagnostic exists for.
    pub(crate) fn from_error(kind: ErrorKind, error: &dyn std::error::Error) -> Self {
        Diagnostic::from_error(kind, error).into()
    }

    /// Makes a failure of the machine around slipway: a file that cannot be written, a closed pipe.
    pub(crate) fn io(doing: impl Into<String>, error: &io::Error) -> Self {
        Diagnostic::new(ErrorKind::Environment, doing).cause(error.to_string()).into()
    }

    /// Returns the code that the process exits with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => USAGE,
            Self::Failed(_) => GENERAL,
            Self::Interrupted(_) => INTERRUPTED,
            Self::Status(code) => *code,
        })
    }

    /// Shows the failure.
    pub(crate) fn report(&self, palette: &Palette, out: &mut dyn Write) -> io::Result<()> {
        let diagnostics = match self {
            Self::Usage(diagnostic) => std::slice::from_ref(&**diagnostic),
            Self::Failed(diagnostics) => diagnostics.as_slice(),
            Self::Interrupted(what) => {
                writeln!(out, "{} {what}", palette.error())?;
                &[]
            }
            Self::Status(_) => &[],
        };
        for (at, diagnostic) in diagnostics.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            out.write_all(render(diagnostic, palette).as_bytes())?;
        }
        out.flush()
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Failed(vec![diagnostic])
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self::Failed(diagnostics)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let usage = error.is_usage();
        let diagnostic = error.into_diagnostic();
        if usage { Self::Usage(Box::new(diagnostic)) } else { diagnostic.into() }
    }
}

/// What command lines begin with.
const ROOT: &str = "slipway";

/// Says what clap found wrong with a command line, in the same form as everything else.
pub(crate) fn from_clap(error: &clap::Error, line: &[String]) -> Failure {
    use clap::error::{ContextKind, ContextValue, ErrorKind as Kind};
    let list = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(list)) => list.clone(),
        _ => Vec::new(),
    };
    let context = |kind: ContextKind| Some(list(kind).join(", ")).filter(|text| !text.is_empty());
    let (path, command) = command_of(line);
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = name_of(&argument);
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let mut hint = context(ContextKind::SuggestedArg)
        .or_else(|| context(ContextKind::SuggestedSubcommand))
        .or_else(|| context(ContextKind::SuggestedValue))
        // The nearest is the last.
        .and_then(|near| near.rsplit(", ").next().map(|near| format!("did you mean `{near}`?")));
    let message = match error.kind() {
        Kind::UnknownArgument if !argument.starts_with('-') => {
            hint = takes_context(&command).then(|| "give one context; quote a path with blanks".to_owned());
            format!("unexpected argument `{argument}`")
        }
        Kind::UnknownArgument => format!("unknown flag: {flag}"),
        Kind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            hint = hint.or_else(|| Some(instead_of(&word, &command)));
            format!("unknown command: {word}")
        }
        Kind::MissingSubcommand | Kind::DisplayHelpOnMissingArgumentOrSubcommand => {
            hint = Some(commands_of(&command));
            format!("`{path}` needs a command")
        }
        Kind::InvalidValue if value.is_empty() => format!("flag needs an argument: {flag}"),
        Kind::InvalidValue | Kind::ValueValidation => {
            let known = context(ContextKind::ValidValue).map(|known| format!("use one of {known}"));
            hint = hint.or(known);
            format!("invalid value `{value}` for `{flag}`")
        }
        Kind::MissingRequiredArgument => {
            hint = takes_context(&command).then(|| format!("add the context: `{path} .`"));
            format!("missing argument: {argument}")
        }
        Kind::ArgumentConflict => {
            let others = list(ContextKind::PriorArg);
            let others: Vec<String> = others.iter().map(|other| format!("`{}`", name_of(other))).collect();
            format!("`{flag}` and {} cannot be used together", others.join(", "))
        }
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let diagnostic = Diagnostic::new(ErrorKind::User, message);
    Failure::Usage(Box::new(diagnostic.hint(hint.unwrap_or_else(|| format!("see `{path} --help`")))))
}

/// Follows a command line to the command that it names; returns also how one comes to that.
fn command_of(line: &[String]) -> (String, clap::Command) {
    let (mut path, mut command) = (ROOT.to_owned(), crate::args::Root::command());
    for word in line.iter().skip(1) {
        if let Some(below) = command.find_subcommand(word) {
            path = format!("{path} {}", below.get_name());
            command = below.clone();
        }
    }
    (path, command)
}

/// Tells whether a command line names any command.
pub(crate) fn names_command(line: &[String]) -> bool {
    command_of(line).0 != ROOT
}

/// Tells whether a command's argument is a build context.
fn takes_context(command: &clap::Command) -> bool {
    command.get_positionals().any(|argument| argument.get_id() == "context")
}

/// Returns the name of an argument, without the form of its value.
fn name_of(argument: &str) -> &str {
    match argument.starts_with('-') {
        true => argument.split([' ', '=', '[']).next().unwrap_or_default(),
        false => argument,
    }
}

/// Says what somebody may have wanted who typed a word that is no command of `group`.
fn instead_of(word: &str, group: &clap::Command) -> String {
    match word {
        "doctor" | "info" | "status" | "platforms" => {
            "`slipway binfmt --format table` tells which platforms run here".to_owned()
        }
        "pull" => "a build pulls what it needs, and `slipway run IMAGE` runs an image".to_owned(),
        "rmi" | "gc" | "clean" => "`slipway prune` removes what nothing uses".to_owned(),
        _ => commands_of(group),
    }
}

fn commands_of(group: &clap::Command) -> String {
    let shown = group.get_subcommands().filter(|command| !command.is_hide_set());
    let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
    format!("the commands are {}", names.join(", "))
}

/// Formats a diagnostic.
fn render(diagnostic: &Diagnostic, palette: &Palette) -> String {
    let label = |tone: Tone, text: &str| palette.paint(tone, text);
    let message = multiline(&diagnostic.message);
    let mut out = format!("{} {message}\n", palette.error());
    if let Some(span) = &diagnostic.span
        && let Some(snippet) = source::snippet(&span.source, &span.ranges)
    {
        out.push_str(&snippet);
    }
    if !diagnostic.log_tail.is_empty() {
        out.push_str("last output of the step:\n");
        for line in &diagnostic.log_tail {
            let _ = writeln!(out, "  | {}", printable(line));
        }
    }
    if let Some(platform) = &diagnostic.platform {
        let _ = writeln!(out, "{} {platform}", label(Tone::Bold, "platform:"));
    }
    for cause in diagnostic.causes.iter().filter(|cause| !cause.is_empty()) {
        let _ = writeln!(out, "{} {}", label(Tone::Bold, "caused by:"), multiline(cause));
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(out, "{} {}", label(Tone::Bold, "hint:"), multiline(hint));
    }
    if diagnostic.kind == ErrorKind::Internal {
        let _ = writeln!(out, "this is a mistake in slipway; please report it");
    }
    out
}

/// Makes a text of several lines safe to show, and indents all but the first.
fn multiline(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(printable).collect();
    lines.join("\n  ")
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
