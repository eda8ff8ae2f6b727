//! The command line as clap sees it: names, help and shapes of flags, nothing of their meaning.
//!
//! Values stay the strings that were typed, except where the shape alone decides (booleans, paths);
//! [`crate::settings`] turns them into requests.

pub(crate) mod bake;
pub(crate) mod binfmt;
pub(crate) mod build;
pub(crate) mod builders;
pub(crate) mod daemon;
pub(crate) mod dap;
pub(crate) mod debug;
pub(crate) mod history;
pub(crate) mod imagetools;
mod names;
mod plugin;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod storage;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use names::{called_buildx, canonical};
pub(crate) use plugin::{PLUGIN, PluginCall, plugin_call};

/// Build container images for every platform, with one binary and no daemon
#[derive(Debug, Parser)]
#[command(name = "slipway", disable_version_flag = true, args_override_self = true)]
#[command(arg_required_else_help = true, infer_subcommands = false)]
#[command(version = concat!("v", env!("CARGO_PKG_VERSION")))]
pub(crate) struct Root {
    /// Show the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GlobalArgs {
    /// Keep all state in DIR (default: `/var/lib/slipway` as root, else `~/.local/share/slipway`)
    #[arg(long, global = true, env = "SLIPWAY_ROOT", value_name = "DIR", hide_env = true)]
    pub(crate) root: Option<PathBuf>,
    /// Read registries and other settings from FILE (BuildKit's TOML)
    #[arg(long, global = true, env = "SLIPWAY_CONFIG", value_name = "FILE", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Use this emulator, or those in this directory, before all others
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) emulator: Vec<PathBuf>,
    /// Show what developers need to see: debug messages and whole warnings
    #[arg(short = 'D', long, global = true)]
    pub(crate) debug: bool,
    /// Use this builder instead of the current one
    #[arg(long, global = true, env = "BUILDX_BUILDER", value_name = "NAME", hide_env = true)]
    pub(crate) builder: Option<String>,
}

/// What slipway can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<build::BuildArgs>),
    /// Build the targets of a bake or compose file
    #[command(visible_alias = "f")]
    Bake(Box<bake::BakeArgs>),
    /// Look at and combine images in registries
    Imagetools(imagetools::ImagetoolsArgs),
    /// Try source policies out, and test them
    Policy(policy::PolicyArgs),
    /// Run a command in an image of any platform
    Run(Box<run::RunArgs>),
    /// List the images in slipway's own store
    #[command(visible_alias = "ls-images")]
    Images(storage::ImagesArgs),
    /// Push an image from slipway's own store to a registry
    Push(storage::PushArgs),
    /// Show what was built
    History(history::HistoryArgs),
    /// Look into the steps of a build
    Debug(Box<debug::DebugArgs>),
    /// Let an editor step through a build
    Dap(Box<dap::DapArgs>),
    /// Show what the state takes on disk
    Du(storage::DuArgs),
    /// Remove build cache and images that nothing uses
    Prune(storage::PruneArgs),
    /// Answer BuildKit's clients: buildctl, docker buildx and others
    Daemon(Box<daemon::DaemonArgs>),
    /// Create a builder, or change its nodes
    Create(Box<builders::CreateArgs>),
    /// Set the current builder
    Use(builders::UseArgs),
    /// List builders
    Ls(builders::LsArgs),
    /// Show a builder
    Inspect(builders::InspectArgs),
    /// Remove builders
    Rm(builders::RmArgs),
    /// Stop a builder
    Stop(builders::StopArgs),
    /// Register emulators of foreign platforms with the host's kernel
    Binfmt(binfmt::BinfmtArgs),
    /// Make slipway the plugin `docker buildx`
    Install,
    /// Take the plugin away, and put back what was there before
    Uninstall,
    /// Tell docker what this plugin is
    #[command(name = "docker-cli-plugin-metadata", hide = true)]
    PluginMetadata,
    /// Hand on standard input and output to a builder's daemon
    DialStdio(builders::DialStdioArgs),
    /// Show the version
    Version,
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write the reference of the command line
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

/// Flags of `completion`.
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// Shell to complete for
    pub(crate) shell: clap_complete::Shell,
}

/// Flags of `reference`.
#[derive(Args, Debug)]
pub(crate) struct ReferenceArgs {
    /// Directory to write the pages to
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

impl GlobalArgs {
    /// Returns what the environment says, where no command line was parsed.
    pub(crate) fn of_environment() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            root: path("SLIPWAY_ROOT"),
            config: path("SLIPWAY_CONFIG"),
            builder: std::env::var("BUILDX_BUILDER").ok(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Root::command().debug_assert();
    }

    #[test]
    fn help_texts_end_without_a_period() {
        fn check(command: &clap::Command) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.ends_with('.'), "{}: {about}", command.get_name());
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.ends_with('.'), "{} {}: {help}", command.get_name(), argument.get_id());
                assert!(!help.is_empty(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Root::command());
    }
}
