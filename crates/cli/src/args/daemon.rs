//! Flags of `daemon`, which are those of `buildkitd`.

use std::path::PathBuf;

use clap::Args;

/// A switch that may be given a value, as `--oci-worker=false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

impl std::str::FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            // A worker that is used if it can be: it always can.
            "auto" => Ok(Self(true)),
            text => slipway_model::parse_bool(text).map(Self).ok_or("expected `true` or `false`"),
        }
    }
}

/// Flags of `daemon`.
#[derive(Args, Debug)]
pub(crate) struct DaemonArgs {
    /// Answer at ADDR: unix://PATH, tcp://HOST:PORT or fd:// (can be repeated)
    #[arg(long, value_name = "ADDR")]
    pub(crate) addr: Vec<String>,
    /// Let members of GROUP use the unix sockets
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Prove who the daemon is with this certificate (tcp)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Private key of the certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Let in only clients that this authority has signed
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Let builds ask for NAME: `network.host` or `security.insecure` (can be repeated)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) allow_insecure_entitlement: Vec<String>,
    /// Add a label to the worker (can be repeated)
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) oci_worker_labels: Vec<String>,
    /// Run at most NUMBER steps at once
    #[arg(long, value_name = "NUMBER")]
    pub(crate) oci_max_parallelism: Option<usize>,
    /// Collect garbage after builds
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) oci_worker_gc: Option<Switch>,
    /// Give no devices to steps
    #[arg(long)]
    pub(crate) cdi_disabled: bool,
    /// Read descriptions of devices (CDI) in DIR; repeat for more, the most important last
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    /// Leave RESERVED[,FREE[,MAXIMUM]] megabytes to the cache
    #[arg(long, value_name = "SIZES")]
    pub(crate) oci_worker_gc_keepstorage: Option<String>,
    /// Say that these platforms can be built for (can be repeated)
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) oci_worker_platform: Vec<String>,
    /// Give steps this network: `host` or `none`
    #[arg(long, value_name = "NAME")]
    pub(crate) oci_worker_net: Option<String>,
    /// Let steps reach the network only through a proxy that asks policies and notes what is fetched
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) proxy_network: Option<Switch>,
    /// Write log messages as `text` or `json`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Log what is of LEVEL or more important: `error`, `warn`, `info`, `debug` or `trace`
    #[arg(long, value_name = "LEVEL", env = "BUILDKITD_LOG_LEVEL", hide_env = true)]
    pub(crate) log_level: Option<String>,
    /// Log everything
    #[arg(long, hide = true)]
    pub(crate) trace: bool,
    /// Show the version
    #[arg(long, short = 'v')]
    pub(crate) version: bool,
    #[command(flatten)]
    pub(crate) accepted: AcceptedArgs,
}

/// Flags that are taken so that existing command lines work, and change nothing.
#[derive(Args, Debug)]
pub(crate) struct AcceptedArgs {
    /// Use the worker; there is no other
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) oci_worker: Option<Switch>,
    /// Use containerd, which is not supported
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) containerd_worker: Option<Switch>,
    /// Run as an ordinary user, which needs no flag
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rootless: Option<Switch>,
    /// Run as an ordinary user, which needs no flag
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) oci_worker_rootless: Option<Switch>,
    /// Snapshots are always overlays
    #[arg(long, hide = true)]
    pub(crate) oci_worker_snapshotter: Option<String>,
    /// Snapshots are always overlays
    #[arg(long, hide = true)]
    pub(crate) oci_worker_proxy_snapshotter_path: Option<String>,
    /// Steps are run without another program
    #[arg(long, hide = true)]
    pub(crate) oci_worker_binary: Option<String>,
    /// Processes are always in a sandbox
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) oci_worker_no_process_sandbox: Option<Switch>,
    /// Profiles of AppArmor are not applied
    #[arg(long, hide = true)]
    pub(crate) oci_worker_apparmor_profile: Option<String>,
    /// Labels of SELinux are not applied
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) oci_worker_selinux: Option<Switch>,
    /// Networks of CNI are not made
    #[arg(long, hide = true)]
    pub(crate) oci_cni_config_path: Option<String>,
    /// Networks of CNI are not made
    #[arg(long, hide = true)]
    pub(crate) oci_cni_binary_dir: Option<String>,
    /// Networks of CNI are not made
    #[arg(long, hide = true)]
    pub(crate) oci_cni_pool_size: Option<u32>,
    /// There is nothing to look at with Go's tools
    #[arg(long, hide = true)]
    pub(crate) debugaddr: Option<String>,
    /// Traces are not collected
    #[arg(long, hide = true)]
    pub(crate) otel_socket_path: Option<String>,
    /// Keys are explained by other means
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) save_cache_debug: Option<Switch>,
}
