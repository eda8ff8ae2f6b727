//! The flags of `create`, `use`, `ls`, `inspect`, `rm` and `stop`: those of buildx.

use std::path::PathBuf;

use clap::Args;

/// Flags of `create`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct CreateArgs {
    /// Docker context or address of the builder, if its driver has one
    #[arg(value_name = "CONTEXT | ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Append a node to the builder instead of changing it
    #[arg(long)]
    pub(crate) append: bool,
    /// Boot the builder after it was created
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// Configure the builder by FILE (also `--config`)
    #[arg(long, value_name = "FILE")]
    pub(crate) buildkitd_config: Option<PathBuf>,
    /// Give the BuildKit daemon these flags
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub(crate) buildkitd_flags: Option<String>,
    /// Driver to use (`embedded`, `docker-container`, `remote`)
    #[arg(long, value_name = "DRIVER")]
    pub(crate) driver: Option<String>,
    /// Options for the driver
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) driver_opt: Vec<String>,
    /// Remove a node from the builder instead of changing it
    #[arg(long)]
    pub(crate) leave: bool,
    /// Name of the builder
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Create or change the node with this name
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Fix the platforms of the node
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Wait at most this long for the builder
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub(crate) timeout: String,
    /// Make it the current builder
    #[arg(long = "use")]
    pub(crate) make_current: bool,
}

/// Flags of `use`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UseArgs {
    /// Builder to use
    pub(crate) name: Option<String>,
    /// Make it the default of the current Docker context
    #[arg(long)]
    pub(crate) default: bool,
    /// Keep it when the Docker context changes
    #[arg(long)]
    pub(crate) global: bool,
}

/// Flags of `ls`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LsArgs {
    /// Format the output (`table`, `json`, or a Go template)
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Do not shorten
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Wait at most this long for builders
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub(crate) timeout: String,
}

/// Flags of `inspect`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// Builder to look at; the current one if left out
    pub(crate) name: Option<String>,
    /// Boot the builder first
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// Wait at most this long for the builder
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub(crate) timeout: String,
}

/// Flags of `rm`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RmArgs {
    /// Builders to remove; the current one if left out
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Remove all builders that are not running
    #[arg(long, conflicts_with = "names")]
    pub(crate) all_inactive: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Leave the builder's daemon running
    #[arg(long)]
    pub(crate) keep_daemon: bool,
    /// Keep the builder's state
    #[arg(long)]
    pub(crate) keep_state: bool,
    /// Wait at most this long for builders
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub(crate) timeout: String,
}

/// Flags of `stop`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    /// Builder to stop; the current one if left out
    pub(crate) name: Option<String>,
}

/// Flags of `dial-stdio`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DialStdioArgs {
    /// Address of the daemon, instead of a builder
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) addr: Option<String>,
    /// Choose the node for this platform
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Accepted, as buildx does
    #[arg(long, value_name = "MODE", default_value = "quiet")]
    pub(crate) progress: String,
}
