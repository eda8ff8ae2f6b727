//! The flags of `bake`: every one that `docker buildx bake` takes.

use std::path::PathBuf;

use clap::Args;

use super::build::ProgressArg;
use crate::settings::values::boolean_flag;

/// Flags of `bake`.
#[derive(Args, Clone, Debug, Default)]
#[command(override_usage = "slipway bake [OPTIONS] [TARGET...]")]
pub(crate) struct BakeArgs {
    /// Targets and groups to build, or patterns of their names (default: `default`)
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,

    /// Allow the build to use resources (`fs.read=PATH`, `fs.write=PATH`, `fs=PATH`, `network.host`,
    /// `security.insecure`, `ssh`)
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Choose what to do with the Dockerfiles (`build`, `check`, `outline`, `targets`)
    #[arg(long, value_name = "METHOD", default_value = "build")]
    pub(crate) call: String,
    /// Check the Dockerfiles; shorthand for `--call=check`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) check: Option<bool>,
    /// Tell of each step whether it was in the cache, and why
    #[arg(long)]
    pub(crate) explain: bool,
    /// Read this build definition: HCL, JSON or compose
    #[arg(short, long, value_name = "FILE | -")]
    pub(crate) file: Vec<String>,
    /// List targets or variables (format: `targets`, `type=variables,format=json`)
    #[arg(long, value_name = "CSV")]
    pub(crate) list: Option<String>,
    /// Load the images into an engine, where the outputs are not files; shorthand for `--set=*.output=type=docker`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) load: bool,
    /// Write the results' metadata to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Do not use the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) no_cache: Option<bool>,
    /// Say how policies are evaluated (format: `disabled=BOOL,strict=BOOL,log-level=LEVEL`)
    #[arg(long, value_name = "CSV")]
    pub(crate) policy: Vec<String>,
    /// Print the options without building
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) print: bool,
    /// Set the kind of progress output
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) progress: ProgressArg,
    /// Add provenance attestations; shorthand for `--set=*.attest=type=provenance`
    #[arg(long, value_name = "BOOL | CSV")]
    pub(crate) provenance: Option<String>,
    /// Ask registries for all images again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) pull: Option<bool>,
    /// Push the images, where the outputs are not files; shorthand for `--set=*.output=type=registry`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) push: bool,
    /// Add SBOM attestations; shorthand for `--set=*.attest=type=sbom`
    #[arg(long, value_name = "BOOL | CSV")]
    pub(crate) sbom: Option<String>,
    /// Override a value of targets (format: `TARGET.KEY=VALUE`)
    #[arg(long, value_name = "OVERRIDE")]
    pub(crate) set: Vec<String>,
    /// Set a variable of the definition
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,

    /// List the targets; older name of `--list=targets`
    #[arg(long, hide = true)]
    pub(crate) list_targets: bool,
    /// List the variables; older name of `--list=variables`
    #[arg(long, hide = true)]
    pub(crate) list_variables: bool,
}
