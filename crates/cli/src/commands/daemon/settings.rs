//! Flags and files of the daemon, joined; flags win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use slipway_daemon::{Address, DaemonConfig, DaemonOptions, LogConfig, LogFormat, LogLevel, Owner, TlsFiles};
use slipway_engine::config::{Config, ConfigFiles, step_network};
use slipway_engine::runtime;
use slipway_engine::store::{DiskSpace, GcLimits};

use crate::args::GlobalArgs;
use crate::args::daemon::{AcceptedArgs, DaemonArgs, Switch};
use crate::error::Failure;
use crate::settings::{SettingsError, Surroundings};

/// How the daemon is started.
pub(super) struct Settings {
    pub(super) root: Option<PathBuf>,
    pub(super) config: Config,
    pub(super) options: DaemonOptions,
    pub(super) log: LogConfig,
}

impl Settings {
    /// Joins what the flags and the files say.
    pub(super) fn join(
        args: &DaemonArgs,
        global: &GlobalArgs,
        mut config: Config,
        files: &ConfigFiles,
        around: &Surroundings,
    ) -> Result<Self, Failure> {
        let file = DaemonConfig::read(files)?;
        worker(args, &mut config)?;
        config.notes.extend(notes(&args.accepted));
        let mut entitlements = file.entitlements.clone();
        if !args.allow_insecure_entitlement.is_empty() {
            let named = args.allow_insecure_entitlement.iter().map(|name| {
                name.parse().map_err(|error: String| {
                    SettingsError::flag(error)
                        .hint("the entitlements are `network.host`, `security.insecure` and `device`")
                })
            });
            entitlements = named.collect::<Result<_, _>>()?;
        }
        let gid = args.group.as_deref().map(group_id).transpose()?.or(file.gid);
        let options = DaemonOptions {
            addresses: addresses(args, &file, around)?,
            tls: tls(args, &file)?,
            owner: Owner { uid: file.uid, gid },
            entitlements,
        };
        let root = global.root.clone().or_else(|| file.root.clone());
        Ok(Self { root, config, options, log: log(args, global, file.log)? })
    }
}

fn addresses(
    args: &DaemonArgs,
    file: &DaemonConfig,
    around: &Surroundings,
) -> Result<Vec<Address>, SettingsError> {
    let mut addresses = if args.addr.is_empty() { file.addresses.clone() } else { args.addr.clone() };
    if addresses.is_empty() {
        addresses.push(default_address(around));
    }
    let parse = |text: &String| text.parse().map_err(|error| SettingsError::flag(format!("{error}")));
    addresses.iter().map(parse).collect()
}

fn default_address(around: &Surroundings) -> String {
    let user = around.variable("XDG_RUNTIME_DIR").filter(|_| !runtime::rootless::is_initial_namespace());
    match user {
        Some(directory) => format!("unix://{directory}/buildkit/buildkitd.sock"),
        None => "unix:///run/buildkit/buildkitd.sock".to_owned(),
    }
}

fn tls(args: &DaemonArgs, file: &DaemonConfig) -> Result<Option<TlsFiles>, SettingsError> {
    let of_file = |choose: fn(&TlsFiles) -> &PathBuf| file.tls.as_ref().map(choose).cloned();
    let certificate = args.tlscert.clone().or_else(|| of_file(|tls| &tls.certificate));
    let key = args.tlskey.clone().or_else(|| of_file(|tls| &tls.key));
    let authority = || file.tls.as_ref()?.client_authority.clone();
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let client_authority = args.tlscacert.clone().or_else(authority);
            Ok(Some(TlsFiles { certificate, key, client_authority }))
        }
        (None, None) if args.tlscacert.is_none() => Ok(None),
        _ => {
            Err(SettingsError::flag("incomplete TLS settings")
                .hint("give `--tlscert` and `--tlskey` together"))
        }
    }
}

fn log(args: &DaemonArgs, global: &GlobalArgs, mut log: LogConfig) -> Result<LogConfig, SettingsError> {
    if global.debug {
        log.level = LogLevel::Debug;
    }
    if args.trace {
        log.level = LogLevel::Trace;
    }
    if let Some(name) = &args.log_level {
        log.level = LogLevel::parse(name).ok_or_else(|| {
            SettingsError::flag(format!("unsupported log level `{name}`"))
                .hint("the levels are `error`, `warn`, `info`, `debug` and `trace`")
        })?;
    }
    if let Some(name) = &args.log_format {
        log.format = LogFormat::parse(name).ok_or_else(|| {
            SettingsError::flag(format!("unsupported log type `{name}`"))
                .hint("the formats are `text` and `json`")
        })?;
    }
    Ok(log)
}

/// Replaces what the files say of the worker.
fn worker(args: &DaemonArgs, config: &mut Config) -> Result<(), SettingsError> {
    if let Some(number) = args.oci_max_parallelism {
        config.max_parallelism = Some(number);
    }
    if let Some(Switch(on)) = args.oci_worker_gc {
        config.gc.off = !on;
    }
    if let Some(text) = args.oci_worker_gc_keepstorage.as_ref().filter(|text| !text.is_empty()) {
        config.gc.limits = keep_storage(text).ok_or_else(|| {
            SettingsError::flag(format!("invalid value `{text}` for `--oci-worker-gc-keepstorage`"))
                .hint("write megabytes: `RESERVED[,FREE[,MAXIMUM]]`")
        })?;
    }
    config.labels.extend(parse_labels(&args.oci_worker_labels)?);
    if args.cdi_disabled || !args.cdi_spec_dir.is_empty() {
        let directories = if args.cdi_disabled { Vec::new() } else { args.cdi_spec_dir.clone() };
        config.devices.look_in(directories);
    }
    if !args.oci_worker_platform.is_empty() {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                SettingsError::flag(format!("invalid value `{text}` for `--oci-worker-platform`"))
                    .hint("write `linux/arm64`")
            })
        };
        config.platforms = args.oci_worker_platform.iter().map(parse).collect::<Result<_, _>>()?;
    }
    if let Some(name) = &args.oci_worker_net {
        let (network, note) = step_network(name).ok_or_else(|| {
            SettingsError::flag(format!("invalid network mode `{name}`"))
                .hint("steps have the network of the host, or `none`")
        })?;
        config.network = network;
        config.notes.extend(note);
    }
    if let Some(Switch(on)) = args.proxy_network {
        config.proxy_network = on;
    }
    Ok(())
}

/// Parses `RESERVED[,FREE[,MAXIMUM]]`, in megabytes.
fn keep_storage(text: &str) -> Option<GcLimits> {
    let sizes =
        text.split(',').map(|size| size.parse::<u64>().ok()?.checked_mul(1_000_000).map(DiskSpace::Bytes));
    let sizes = sizes.collect::<Option<Vec<_>>>()?;
    let at = |position: usize| sizes.get(position).copied().unwrap_or_default();
    (sizes.len() <= 3).then(|| GcLimits { reserved: at(0), min_free: at(1), max_used: at(2) })
}

fn parse_labels(texts: &[String]) -> Result<BTreeMap<String, String>, SettingsError> {
    let parse = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(SettingsError::flag(format!("invalid value `{text}` for `--oci-worker-labels`"))
            .hint("write `KEY=VALUE`")),
    };
    texts.iter().map(parse).collect()
}

/// Lists which flags are taken and change nothing, of those that somebody could rely on.
fn notes(args: &AcceptedArgs) -> Vec<String> {
    let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let on = |switch: Option<Switch>| switch == Some(Switch(true));
    let is_overlay = |name: &String| ["", "auto", "overlayfs"].contains(&name.as_str());
    let without_effect = [
        ("oci-worker=false", args.oci_worker == Some(Switch(false))),
        ("containerd-worker", on(args.containerd_worker)),
        (
            "oci-worker-snapshotter",
            args.oci_worker_snapshotter.as_ref().is_some_and(|name| !is_overlay(name)),
        ),
        ("oci-worker-proxy-snapshotter-path", text(&args.oci_worker_proxy_snapshotter_path)),
        ("oci-worker-binary", text(&args.oci_worker_binary)),
        ("oci-worker-no-process-sandbox", on(args.oci_worker_no_process_sandbox)),
        ("oci-worker-apparmor-profile", text(&args.oci_worker_apparmor_profile)),
        ("oci-worker-selinux", on(args.oci_worker_selinux)),
        ("oci-cni-config-path", text(&args.oci_cni_config_path)),
        ("oci-cni-binary-dir", text(&args.oci_cni_binary_dir)),
        ("oci-cni-pool-size", args.oci_cni_pool_size.is_some_and(|size| size > 0)),
        ("debugaddr", text(&args.debugaddr)),
        ("otel-socket-path", text(&args.otel_socket_path)),
        ("save-cache-debug", on(args.save_cache_debug)),
    ];
    let notes = without_effect.into_iter().filter(|(_, relied_on)| *relied_on);
    notes.map(|(name, _)| format!("`--{name}` has no effect")).collect()
}

/// Finds a group's number; a number is one already.
fn group_id(name: &str) -> Result<u32, SettingsError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or_else(|| SettingsError::flag(format!("there is no group `{name}`")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use slipway_engine::config::StepNetwork;
    use slipway_model::solve::Entitlement;

    use super::*;

    /// Joins a command line with the text of a file.
    fn of(line: &str, text: &str) -> Result<Settings, String> {
        let mut root =
            crate::args::Root::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        // The state directory may be in the environment of whoever runs the tests.
        root.global.root = root.global.root.filter(|_| line.contains("--root"));
        let crate::args::Command::Daemon(args) = root.command else { return Err("another command".into()) };
        let around = Surroundings::fixed(Path::new("/"), &[], b"");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("buildkitd.toml");
        std::fs::write(&path, text).unwrap();
        let paths = slipway_engine::registry::ConfigPaths { buildkit: vec![path], ..Default::default() };
        let (config, files) = Config::read(&paths).map_err(|error| error.message)?;
        Settings::join(&args, &root.global, config, &files, &around).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn flags_are_those_of_buildkitd() {
        let got = of(
            "slipway daemon --oci-worker=true --containerd-worker=false --oci-worker-gc=false \
             --oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true --oci-worker-snapshotter=native \
             --addr unix:///a --addr tcp://127.0.0.1:1 --allow-insecure-entitlement network.host --debug --group 7 \
             --oci-worker-net none --oci-worker-platform linux/arm64 --oci-max-parallelism 3 --cdi-disabled --proxy-network",
            "",
        )
        .unwrap();
        assert_eq!(got.options.addresses, [Address::Unix("/a".into()), Address::Tcp("127.0.0.1:1".into())]);
        assert_eq!(got.config.labels["org.mobyproject.buildkit.worker.sandbox"], "true");
        assert!(got.config.gc.off);
        assert_eq!((got.options.owner.gid, got.options.entitlements.len()), (Some(7), 1));
        assert_eq!((got.config.network, got.config.max_parallelism), (StepNetwork::None, Some(3)));
        assert_eq!(got.config.platforms, ["linux/arm64".parse().unwrap()]);
        assert_eq!(got.log.level, LogLevel::Debug);
        assert!(got.config.devices.is_disabled() && got.config.proxy_network);
        assert_eq!(got.config.notes, ["`--oci-worker-snapshotter` has no effect"]);
        for line in [
            "--addr nowhere",
            "--tlscert x",
            "--oci-worker=perhaps",
            "--oci-worker-net moon",
            "--log-format xml",
        ] {
            assert!(of(&format!("slipway daemon {line}"), "").is_err(), "{line}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = r#"
            root = "/of/file"
            insecure-entitlements = ["security.insecure"]
            proxyNetwork = true
            [log]
              level = "warn"
              format = "json"
            [grpc]
              address = ["unix:///of/file"]
              uid = 1
              gid = 2
              [grpc.tls]
                cert = "c"
                key = "k"
                ca = "a"
            [worker.oci]
              maxUsedSpace = "1GB"
              networkMode = "host"
              [worker.oci.labels]
                a = "file"
                b = "file"
        "#;
        let got = of("slipway daemon", file).unwrap();
        assert_eq!(got.root, Some(PathBuf::from("/of/file")));
        assert_eq!(got.options.addresses, [Address::Unix("/of/file".into())]);
        assert_eq!(got.options.owner, Owner { uid: Some(1), gid: Some(2) });
        assert_eq!(got.log, LogConfig { format: LogFormat::Json, level: LogLevel::Warn });
        assert_eq!(got.config.gc.limits.max_used, DiskSpace::Bytes(1 << 30));
        assert!(got.config.proxy_network);
        let got = of(
            "slipway --root /r daemon --addr unix:///x --group 9 --log-level error --tlscert d \
             --allow-insecure-entitlement network.host --oci-worker-labels a=flag --oci-worker-net none \
             --oci-worker-gc-keepstorage 9000,10,20 --proxy-network=false",
            file,
        )
        .unwrap();
        assert_eq!(got.root, Some(PathBuf::from("/r")));
        assert_eq!(got.options.addresses, [Address::Unix("/x".into())]);
        assert_eq!(got.options.owner, Owner { uid: Some(1), gid: Some(9) });
        assert_eq!(got.log, LogConfig { format: LogFormat::Json, level: LogLevel::Error });
        let tls = got.options.tls.unwrap();
        assert_eq!((tls.certificate, tls.key), (PathBuf::from("d"), PathBuf::from("k")));
        assert_eq!(Vec::from_iter(got.options.entitlements), [Entitlement::NetworkHost]);
        assert_eq!((got.config.labels["a"].as_str(), got.config.labels["b"].as_str()), ("flag", "file"));
        assert!(got.config.network == StepNetwork::None && !got.config.proxy_network);
        let megabytes = |number: u64| DiskSpace::Bytes(number * 1_000_000);
        let limits = GcLimits { reserved: megabytes(9000), min_free: megabytes(10), max_used: megabytes(20) };
        assert_eq!(got.config.gc.limits, limits);
    }
}
