//! The flags of the commands on slipway's own store: `images`, `push`, `du`, `prune`.

use clap::Args;

/// Flags of `images`.
#[derive(Args, Debug)]
pub(crate) struct ImagesArgs {
    /// Show only images whose name holds this text
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Format the output (`table`, `json`, or a Go template)
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Print nothing but digests
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show whole digests
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// Flags of `push`.
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// Image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Push under this name (default: the image's own)
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Print nothing but the digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Flags of `du`.
#[derive(Args, Debug)]
pub(crate) struct DuArgs {
    /// Show only records that match (format: `type=regular`, `until=24h`)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Format the output (`table`, `json`, `pretty`, or a Go template)
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub(crate) format: Option<String>,
    /// Show everything; shorthand for `--format=pretty`
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Accept a limit of time; has no effect
    #[arg(long, hide = true, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

/// Flags of `prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove everything that is not in use, images of the store too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only records that match (format: `until=24h`)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Keep this much in any case
    #[arg(long, value_name = "BYTES", visible_alias = "keep-storage")]
    pub(crate) reserved_space: Option<String>,
    /// Keep no more than this
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_used_space: Option<String>,
    /// Leave this much of the disk free
    #[arg(long, value_name = "BYTES")]
    pub(crate) min_free_space: Option<String>,
    /// Show every record that is removed, whole
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Accept a limit of time; has no effect
    #[arg(long, hide = true, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}
