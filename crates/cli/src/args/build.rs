//! The flags of `build`: every one that `docker buildx build` takes, and slipway's own.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use slipway_model::solve::{ContextSource, NamedContext};

use crate::settings::values::boolean_flag;

/// Flags of `build`.
#[derive(Args, Clone, Debug, Default)]
#[command(override_usage = "slipway build [OPTIONS] PATH | URL | -")]
pub(crate) struct BuildArgs {
    /// Directory, URL or archive (`-` for standard input) to build from
    #[arg(value_name = "PATH | URL | -")]
    pub(crate) context: String,

    /// Add a custom host-to-IP mapping (format: `host:ip`)
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Grant an entitlement (`network.host`, `security.insecure`, `buildx.local.delete`)
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Add an annotation to the image (format: `[TYPE[PLATFORM]:]KEY=VALUE`)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Ask for attestations (format: `type=sbom,generator=image`)
    #[arg(long, value_name = "CSV")]
    pub(crate) attest: Vec<String>,
    /// Set a build-time variable; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub(crate) build_arg: Vec<String>,
    /// Add a named build context (format: `name=path`)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Use a cache from elsewhere (format: `user/app:cache`, `type=local,src=path`)
    #[arg(long, value_name = "CSV")]
    pub(crate) cache_from: Vec<String>,
    /// Export the cache (format: `user/app:cache`, `type=local,dest=path`)
    #[arg(long, value_name = "CSV")]
    pub(crate) cache_to: Vec<String>,
    /// Choose what to do with the Dockerfile (`build`, `check`, `outline`, `targets`)
    #[arg(long, value_name = "METHOD", default_value = "build")]
    pub(crate) call: String,
    /// Check the Dockerfile; shorthand for `--call=check`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) check: Option<bool>,
    /// Set the parent cgroup of RUN steps
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Tell of each step whether it was in the cache, and why
    #[arg(long)]
    pub(crate) explain: bool,
    /// Name of the Dockerfile (default: `PATH/Dockerfile`)
    #[arg(short, long, value_name = "PATH | URL | -")]
    pub(crate) file: Option<String>,
    /// Write the image's ID to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Load the image into a Docker engine or podman; shorthand for `--output=type=docker`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) load: bool,
    /// Write the result's metadata to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Set the network of RUN steps (`default`, `none`, `host`)
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// Do not use the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) no_cache: bool,
    /// Do not use the cache for the named stages
    #[arg(long, value_name = "STAGE[,STAGE]")]
    pub(crate) no_cache_filter: Vec<String>,
    /// Do this when a step fails
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(crate) on_failure: Option<OnFailureArg>,
    /// Say where the result goes (format: `type=local,dest=path`)
    #[arg(short, long, value_name = "CSV | PATH | -")]
    pub(crate) output: Vec<String>,
    /// Build for these platforms (format: `os/arch[/variant][,…]`, or `local`)
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Say what happens when a file of the image is for another platform than the image
    #[arg(long, value_enum, value_name = "ACTION", default_value_t)]
    pub(crate) platform_check: PlatformCheckArg,
    /// Decide by policies what may be built from (format: `filename=FILE,reset=BOOL,disabled=BOOL,strict=BOOL,log-level=LEVEL`)
    #[arg(long, value_name = "CSV")]
    pub(crate) policy: Vec<String>,
    /// Set the kind of progress output
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) progress: ProgressArg,
    /// Add a provenance attestation; shorthand for `--attest=type=provenance`
    #[arg(long, value_name = "BOOL | CSV")]
    pub(crate) provenance: Option<String>,
    /// Ask registries for all images again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) pull: bool,
    /// Push the image; shorthand for `--output=type=registry`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) push: bool,
    /// Print nothing but the image's ID
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    pub(crate) quiet: bool,
    /// Limit the resources of each RUN step (format: `memory=2g`, `cpu-quota=50000`)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) resource: Vec<String>,
    /// Add an SBOM attestation; shorthand for `--attest=type=sbom`
    #[arg(long, value_name = "BOOL | CSV")]
    pub(crate) sbom: Option<String>,
    /// Give a secret to the build (format: `id=mysecret[,src=path|,env=NAME]`)
    #[arg(long, value_name = "CSV")]
    pub(crate) secret: Vec<String>,
    /// Set the size of `/dev/shm` in RUN steps
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Give an SSH agent or keys to the build (format: `default|ID[=SOCKET|KEY[,KEY]]`)
    #[arg(long, value_name = "ID[=PATH]")]
    pub(crate) ssh: Vec<String>,
    /// Name the image (format: `[registry/]repository[:tag]`)
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// Build up to this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a limit of processes in RUN steps (format: `type=soft[:hard]`)
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,

    #[command(flatten)]
    pub(crate) hidden: HiddenArgs,

    #[arg(skip)]
    pub(crate) of_bake: OfBake,
}

/// What a target of a bake file can say and no flag can.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfBake {
    /// The Dockerfile itself.
    pub(crate) dockerfile: Option<String>,
    /// A directory at an address, in place of the context that is named.
    pub(crate) context: Option<ContextSource>,
    /// Directories at an address.
    pub(crate) contexts: Vec<NamedContext>,
}

/// Flags that other builders had, so that old command lines go on to work.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HiddenArgs {
    /// Choose what to do with the Dockerfile; older name of `--call`
    #[arg(long, hide = true, value_name = "METHOD")]
    pub(crate) print: Option<String>,
    /// Limit the memory of each RUN step
    #[arg(short, long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Limit memory and swap of each RUN step
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Set the CPU weight of each RUN step
    #[arg(short, long, hide = true)]
    pub(crate) cpu_shares: Option<String>,
    /// Set the CPU period of each RUN step
    #[arg(long, hide = true)]
    pub(crate) cpu_period: Option<String>,
    /// Set the CPU quota of each RUN step
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<String>,
    /// Choose the CPUs of each RUN step
    #[arg(long, hide = true)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Choose the memory nodes of each RUN step
    #[arg(long, hide = true)]
    pub(crate) cpuset_mems: Option<String>,
    /// Compress the context; has no effect
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag)]
    pub(crate) compress: Option<bool>,
    /// Remove intermediate containers; has no effect
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag)]
    pub(crate) rm: Option<bool>,
    /// Always remove intermediate containers; has no effect
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag)]
    pub(crate) force_rm: Option<bool>,
    /// Choose the isolation technology; has no effect
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    /// Set security options; has no effect
    #[arg(long, hide = true, action = ArgAction::Append)]
    pub(crate) security_opt: Vec<String>,
    /// Squash the layers; has no effect
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag)]
    pub(crate) squash: Option<bool>,
}

/// What to do when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailureArg {
    /// Open a shell in it: its files as it left them, its mounts, environment, user and emulator
    Shell,
}

/// Kinds of progress output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressArg {
    /// `tty` on a terminal, else `plain`
    #[default]
    Auto,
    /// A live display of what is running
    Tty,
    /// One line after the other
    Plain,
    /// Nothing but the image's ID
    Quiet,
    /// BuildKit's status messages as JSON lines
    Rawjson,
    /// Nothing
    None,
}

/// What to do about files for another platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlatformCheckArg {
    /// Do not look
    Off,
    /// Warn, and fail if the image could not start
    #[default]
    Warn,
    /// Fail
    Error,
}
