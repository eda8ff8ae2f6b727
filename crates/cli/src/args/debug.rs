//! The flags of `debug`.

use clap::{Args, Subcommand, ValueEnum};

use super::build::BuildArgs;

/// Commands of `debug`.
#[derive(Args, Debug)]
pub(crate) struct DebugArgs {
    /// Run this in the step instead of `/bin/sh`
    #[arg(long, value_name = "COMMAND")]
    pub(crate) invoke: Option<String>,
    /// Say when to look into a step
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) on: DebugOnArg,
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

/// What `debug` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Build, and open a shell in the step that fails; the same as `slipway build --on-failure=shell`
    Build(Box<BuildArgs>),
    /// Open a shell in a step of a build that is over
    Shell(ShellArgs),
    /// List the workers of a daemon, as `buildctl debug workers` does: buildx asks so whether one is up
    #[command(hide = true)]
    Workers(WorkersArgs),
}

/// Flags of `debug workers`.
#[derive(Args, Debug)]
pub(crate) struct WorkersArgs {
    /// Address of the daemon
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) addr: String,
}

/// When `debug build` looks into a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DebugOnArg {
    /// When one fails
    #[default]
    Error,
}

/// Flags of `debug shell`.
#[derive(Args, Debug)]
pub(crate) struct ShellArgs {
    /// Build to look into: an id or its beginning, `^N` for the Nth before the newest (default: the newest)
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    pub(crate) reference: String,
    /// Step: its digest or a part of its name (default: the one that failed)
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Give the step a secret again (format: `id=mysecret[,src=path|,env=NAME]`)
    #[arg(long, value_name = "CSV")]
    pub(crate) secret: Vec<String>,
    /// Give the step an SSH agent or keys again (format: `default|ID[=SOCKET|KEY[,KEY]]`)
    #[arg(long, value_name = "ID[=PATH]")]
    pub(crate) ssh: Vec<String>,
    /// Program to run instead of `/bin/sh`, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) program: Vec<String>,
}
