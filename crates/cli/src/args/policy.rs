//! The flags of `policy`.

use clap::{Args, Subcommand};

/// Commands of `policy`.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

/// What `policy` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Decide about one source, or show what policies see of it
    Eval(EvalArgs),
    /// Run the tests of a policy
    Test(TestArgs),
    /// Print the JSON schema of what policies see as `input`
    JsonSchema,
}

/// Flags of `policy eval`.
#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    /// Source to decide about (format: `docker-image://NAME`, `https://…`, `git://…`, a directory)
    pub(crate) source: String,
    /// Read the policy from FILE`.rego`, or from standard input with `-`
    #[arg(short, long, value_name = "FILE", default_value = "Dockerfile")]
    pub(crate) file: String,
    /// Read the policy from FILE`.rego`
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "file")]
    pub(crate) filename: Option<String>,
    /// Ask for these fields too, as `image.labels`
    #[arg(long, value_name = "FIELD", value_delimiter = ',', requires = "print")]
    pub(crate) fields: Vec<String>,
    /// Decide for this platform
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Show what policies see of the source, and decide nothing
    #[arg(long)]
    pub(crate) print: bool,
}

/// Flags of `policy test`.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// File that ends in `_test.rego`, or directory with such files
    pub(crate) path: String,
    /// Test the policy in FILE`.rego`
    #[arg(long, value_name = "FILE", default_value = "Dockerfile")]
    pub(crate) filename: String,
    /// Run only tests whose names contain TEXT
    #[arg(long, value_name = "TEXT")]
    pub(crate) run: Option<String>,
}
