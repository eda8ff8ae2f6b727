//! The flags of `run`.

use clap::Args;

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Image to run: a name in the store or a registry, or `oci-layout://PATH[:TAG]`
    pub(crate) image: String,
    /// Command and its arguments, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Run the image for this platform
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Mount a directory or file of the host (format: `SOURCE:TARGET[:ro]`)
    #[arg(short, long, value_name = "SOURCE:TARGET")]
    pub(crate) volume: Vec<String>,
    /// Set an environment variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Start in this directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Run this program instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set the network (`default`, `none`, `host`)
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// Ask the registry for the image again
    #[arg(long)]
    pub(crate) pull: bool,
    /// Remove the changes afterwards; always so
    #[arg(long, hide = true)]
    pub(crate) rm: bool,
}
