//! `daemon`: answers BuildKit's clients until it is told to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_daemon::{Address, BUILDKIT_VERSION, DaemonConfig, DaemonOptions, Frontends, PACKAGE, TlsFiles};
use slipway_engine::{Engine, EngineOptions, runtime};
use slipway_model::Diagnostic;
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::args::daemon::{DaemonArgs, Switch};
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;
use crate::settings::{SettingsError, Surroundings};

/// The configuration that is read if none is named.
const CONFIG: &str = "/etc/buildkit/buildkitd.toml";

/// Runs `daemon`.
pub(crate) fn run(args: &DaemonArgs, context: &Context) -> Result<(), Failure> {
    if args.version {
        return output::text(&format!(
            "buildkitd {PACKAGE} {BUILDKIT_VERSION} slipway-v{}\n",
            env!("CARGO_PKG_VERSION")
        ));
    }
    runtime::rootless::enter_if_needed().map_err(|error| {
        let mut diagnostic = Diagnostic::from_error(error.kind(), &error);
        diagnostic.hint = error.hint();
        diagnostic
    })?;
    let named = context.global.config.clone();
    let file = named.clone().or_else(|| Some(PathBuf::from(CONFIG)).filter(|path| path.is_file()));
    let config = file.as_deref().map(DaemonConfig::read).transpose()?.unwrap_or_default();
    let settings = settings(args, config, &context.around)?;
    start_logging(context.global.debug || settings.config.debug);
    for key in &settings.config.unknown {
        tracing::warn!(key, "unknown key in the configuration");
    }
    if args.accepted.containerd_worker == Some(Switch(true)) {
        tracing::warn!("there is no containerd worker: builds run in slipway's own");
    }
    let engine = Engine::open(EngineOptions {
        root: context.global.root.clone().or_else(|| settings.config.root.clone()),
        config: named,
        emulators: context.global.emulator.clone(),
        device_directories: match args.cdi_disabled {
            true => Some(Vec::new()),
            false => Some(args.cdi_spec_dir.clone()).filter(|directories| !directories.is_empty()),
        },
        parallelism: args.oci_max_parallelism.or(settings.config.max_parallelism).filter(|n| *n > 0),
        frontends: Some(Arc::new(Frontends::new(settings.labels.clone()))),
    })?;
    let stop = CancellationToken::new();
    let runtime = interrupt::runtime()?;
    let result = runtime.block_on(async {
        let _watch = Watch::start(stop.clone())?;
        let ready = |addresses: &[Address]| {
            for address in addresses {
                tracing::info!("running server on {address}");
            }
        };
        slipway_daemon::serve(engine, settings, stop, ready).await.map_err(Failure::from)
    });
    runtime.shutdown_background();
    result
}

/// Joins flags and file; flags win.
fn settings(
    args: &DaemonArgs,
    mut config: DaemonConfig,
    around: &Surroundings,
) -> Result<DaemonOptions, SettingsError> {
    let mut addresses = if args.addr.is_empty() { config.addresses.clone() } else { args.addr.clone() };
    if addresses.is_empty() {
        addresses.push(default_address(around));
    }
    let addresses = addresses
        .iter()
        .map(|text| text.parse::<Address>().map_err(|error| SettingsError::flag(error.to_string())));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    for name in &args.allow_insecure_entitlement {
        config.allow(name).map_err(|error| {
            SettingsError::flag(error).hint("the entitlements are `network.host` and `security.insecure`")
        })?;
    }
    if let Some(Switch(gc)) = args.oci_worker_gc {
        config.gc = gc;
    }
    let mut labels = config.labels.clone();
    labels.extend(parse_labels(&args.oci_worker_labels)?);
    let tls = match (&args.tlscert, &args.tlskey) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_authority: args.tlscacert.clone(),
        }),
        (None, None) if args.tlscacert.is_none() => config.tls.clone(),
        _ => {
            return Err(SettingsError::flag("incomplete TLS settings")
                .hint("give `--tlscert` and `--tlskey` together"));
        }
    };
    let group = match &args.group {
        Some(name) => Some(group_id(name)?),
        None => config.gid,
    };
    Ok(DaemonOptions { addresses, tls, group, config, labels })
}

fn default_address(around: &Surroundings) -> String {
    let user = around.variable("XDG_RUNTIME_DIR").filter(|_| !runtime::rootless::is_initial_namespace());
    match user {
        Some(directory) => format!("unix://{directory}/buildkit/buildkitd.sock"),
        None => "unix:///run/buildkit/buildkitd.sock".to_owned(),
    }
}

fn parse_labels(texts: &[String]) -> Result<BTreeMap<String, String>, SettingsError> {
    let parse = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(SettingsError::flag(format!("invalid value `{text}` for `--oci-worker-labels`"))
            .hint("write `KEY=VALUE`")),
    };
    texts.iter().map(parse).collect()
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

fn start_logging(debug: bool) {
    let level = if debug { "debug" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!("{level},h2=info,hyper=info,hyper_util=info"))
    });
    // Another subscriber can only be there in tests.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn of(line: &str) -> Result<DaemonOptions, String> {
        let root = crate::args::Root::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        let crate::args::Command::Daemon(args) = root.command else { return Err("another command".into()) };
        let around = Surroundings::fixed(Path::new("/"), &[], b"");
        settings(&args, DaemonConfig::default(), &around).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_those_of_buildkitd() {
        let got = of("slipway daemon --oci-worker=true --containerd-worker=false --oci-worker-gc=false \
             --oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true --oci-worker-snapshotter=native \
             --addr unix:///a --addr tcp://127.0.0.1:1 --allow-insecure-entitlement network.host --debug --group 7")
        .unwrap();
        assert_eq!(got.addresses, [Address::Unix("/a".into()), Address::Tcp("127.0.0.1:1".into())]);
        assert_eq!(got.labels["org.mobyproject.buildkit.worker.sandbox"], "true");
        assert!(!got.config.gc);
        assert_eq!((got.group, got.entitlements().len()), (Some(7), 1));
        assert!(of("slipway daemon --addr nowhere").is_err());
        assert!(of("slipway daemon --tlscert x").is_err());
        assert!(of("slipway daemon --oci-worker=perhaps").is_err());
    }
}
