//! The flags of `dap`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::build::BuildArgs;

/// Commands of `dap`.
#[derive(Args, Debug)]
pub(crate) struct DapArgs {
    #[command(subcommand)]
    pub(crate) command: DapCommand,
}

/// What `dap` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum DapCommand {
    /// Build as an editor says, by the Debug Adapter Protocol over standard input and output
    #[command(override_usage = "slipway dap build [OPTIONS] [PATH | URL]")]
    // The editor may name the context when it launches the build.
    #[command(mut_arg("context", |context| context.required(false).default_value("").hide_default_value(true)))]
    Build(Box<BuildArgs>),
    /// Hand on a terminal to a program in the step that a build is stopped at
    #[command(hide = true)]
    Attach(AttachArgs),
}

/// Flags of `dap attach`.
#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// Socket that the build has told of
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}
