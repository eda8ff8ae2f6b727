//! The flags of `history`.

use clap::{Args, Subcommand, ValueEnum};

/// Commands of `history`.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    pub(crate) command: HistoryCommand,
}

/// What `history` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// List builds
    Ls(LsArgs),
    /// Show what a build was asked for and what became of it
    Inspect(InspectArgs),
    /// Print everything that a build said
    Logs(LogsArgs),
    /// Remove records of builds
    Rm(RmArgs),
}

/// Flags of `history ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Format the output (`table`, `json`, or a Go template)
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Show whole names
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show only builds that match (format: `status=error`, `startedAt>1h`)
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Vec<String>,
}

/// Flags of `history inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Build to look at: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
    /// Format the output (`pretty`, `json`, or a Go template)
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    pub(crate) format: String,
}

/// Flags of `history logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Build to read: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
    /// Set the form of the output
    #[arg(long, value_name = "FORM", default_value = "plain")]
    pub(crate) progress: LogsForm,
}

/// How logs are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogsForm {
    #[value(alias = "auto", alias = "tty")]
    Plain,
    #[value(name = "rawjson")]
    RawJson,
}

/// Flags of `history rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Builds to forget
    #[arg(value_name = "REF", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) references: Vec<String>,
    /// Forget every build that has ended
    #[arg(long)]
    pub(crate) all: bool,
}
