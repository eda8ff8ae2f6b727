//! The flags of `history`.

use std::path::PathBuf;

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
    /// Print when which step of a build ran, as Jaeger reads it
    Trace(TraceArgs),
    /// Write records of builds to a file that Docker Desktop imports
    Export(ExportArgs),
    /// Give a file with records of builds to Docker Desktop
    Import(ImportArgs),
    /// Show a build in Docker Desktop
    Open(OpenArgs),
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
    /// Show only builds that match (format: `status=error`, `repository=github.com/me/app`, `startedAt>1h`)
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Vec<String>,
    /// Show only builds of the repository that the working directory is in
    #[arg(long)]
    pub(crate) local: bool,
}

/// Flags of `history inspect`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    pub(crate) command: Option<InspectCommand>,
    /// Build to look at: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
    /// Format the output (`pretty`, `json`, or a Go template)
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    pub(crate) format: String,
    /// Tell of each step whether it was in the cache, and why
    #[arg(long)]
    pub(crate) explain: bool,
}

/// What `history inspect` can look into.
#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Print a document of what a build has made
    Attachment(AttachmentArgs),
}

/// Flags of `history inspect attachment`.
#[derive(Args, Debug)]
pub(crate) struct AttachmentArgs {
    /// Build to look at: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
    /// Document to print
    #[arg(value_name = "DIGEST", required_unless_present_any = ["kind", "platform"])]
    pub(crate) digest: Option<String>,
    /// Print the first document of this type: `index`, `manifest`, `image`, `provenance`, `sbom` or the type in full
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Print the first document of this platform
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
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

/// Flags of `history trace`.
#[derive(Args, Debug)]
pub(crate) struct TraceArgs {
    /// Build to trace: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
    /// Print the trace of this build too
    #[arg(long, value_name = "REF")]
    pub(crate) compare: Option<String>,
    /// Address for a viewer, which there is none of; has no effect
    #[arg(long, hide = true, value_name = "ADDR")]
    pub(crate) addr: Option<String>,
}

/// Flags of `history export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Builds to export: ids or their beginnings, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", conflicts_with = "all")]
    pub(crate) references: Vec<String>,
    /// File to write (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Export every build that has ended
    #[arg(long)]
    pub(crate) all: bool,
    /// Complete the records first; they always are
    #[arg(long, hide = true)]
    pub(crate) finalize: bool,
}

/// Flags of `history import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// File to read, `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<String>,
}

/// Flags of `history open`.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// Build to show: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
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
