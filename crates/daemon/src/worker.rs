//! What the daemon says of itself: version, platforms, labels, capabilities.

use std::collections::BTreeMap;
use std::path::Path;

use slipway_engine::config::StepNetwork;
use slipway_engine::store::GcRule;
use slipway_engine::{Device, Engine};
use slipway_model::filter::{Field, Filters};
use slipway_model::{Diagnostic, ErrorKind, Platform};

use crate::wire::apicaps::ApiCap;
use crate::wire::types::{BuildkitVersion, CdiDevice, GcPolicy, WorkerRecord};
use crate::wire::{recode, wire_pb};

/// The version of BuildKit's interface that is spoken; clients choose what they use by it.
pub const BUILDKIT_VERSION: &str = "v0.32.2";
/// What the daemon is.
pub const PACKAGE: &str = "github.com/moby/buildkit";
/// Which build of it.
pub(crate) const REVISION: &str = concat!("slipway-v", env!("CARGO_PKG_VERSION"));
/// Whose program a frontend is told to run in.
pub(crate) const PRODUCT: &str = "buildkit";

/// What a frontend or client can call, as far as it works here.
const GATEWAY: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.filesystem",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "reference.attestations",
    "source.metaresolver",
    "source.metaresolver.http.checksumrequest",
    "source.metaresolver.image.attestations",
];

/// What LLB may contain, as far as it works here.
const LLB: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.image.layerlimit",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.local.metadatatransfer",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.signatureverify",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.perm",
    "source.http.header",
    "source.http.signatureverify",
    // The reference spells it so.
    "soruce.http.uidgid",
    "source.ocilayout",
    "source.imageblob",
    "source.image.checksum",
    "source.policy",
    "source.policy.session",
    "source.buildop.llbfilename",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.network.proxy",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.linux.resources",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.cgroup",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "cache.s3",
    "mergeop",
    "diffop",
    "passthroughop",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "exporter.session",
    "gc.freespacefilter",
    "history.filter",
];

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    id: String,
    labels: BTreeMap<String, String>,
}

impl Worker {
    /// Reads the worker's id from the state, or makes one.
    pub(crate) fn open(engine: &Engine) -> Result<Self, Diagnostic> {
        let file = engine.root().join("workerid");
        let id = match std::fs::read_to_string(&file) {
            Ok(id) if !id.trim().is_empty() => id.trim().to_owned(),
            _ => {
                let id = new_id();
                std::fs::write(&file, &id).map_err(|error| {
                    Diagnostic::new(
                        ErrorKind::Environment,
                        format!("cannot keep the worker's id in `{}`", file.display()),
                    )
                    .cause(error.to_string())
                })?;
                id
            }
        };
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let network = match engine.config().network {
            StepNetwork::Host => "host",
            StepNetwork::None => "none",
        };
        let mut all = BTreeMap::new();
        for (key, value) in [
            ("executor", "oci"),
            ("hostname", hostname.as_str()),
            ("network", network),
            ("oci.process-mode", "sandbox"),
            ("selinux.enabled", "false"),
            ("apparmor.profile", ""),
            ("snapshotter", "overlayfs"),
        ] {
            if !value.is_empty() {
                all.insert(format!("org.mobyproject.buildkit.worker.{key}"), value.to_owned());
            }
        }
        all.extend(engine.config().labels.clone());
        Ok(Self { id, labels: all })
    }

    pub(crate) fn record(&self, engine: &Engine) -> WorkerRecord {
        WorkerRecord {
            id: self.id.clone(),
            labels: self.labels.clone().into_iter().collect(),
            platforms: platforms(engine).iter().map(platform).collect(),
            gc_policy: engine.gc_policy().rules.iter().map(gc_rule).collect(),
            buildkit_version: Some(version()),
            cdi_devices: engine.devices().list().into_iter().map(device).collect(),
        }
    }

    /// Writes the record as frontends read it.
    pub(crate) fn info(&self, engine: &Engine) -> serde_json::Value {
        serde_json::json!({
            "id": self.id,
            "labels": self.labels,
            "platforms": platforms(engine),
            "buildkitVersion": {
                "package": PACKAGE,
                "version": BUILDKIT_VERSION,
                "revision": REVISION,
            },
        })
    }

    /// Tells whether the filters of `ListWorkers` select this worker.
    pub(crate) fn matches(&self, filters: &Filters) -> bool {
        filters.match_fields(|path| match path {
            [name] if name == "id" => Field::text(self.id.as_str()),
            [name, label @ ..] if name == "labels" => {
                // A label that is empty is there.
                let label = self.labels.get(&label.join("."));
                label.map_or(Field::Absent, |value| Field::Text(value.into()))
            }
            _ => Field::Absent,
        })
    }
}

fn device(device: Device) -> CdiDevice {
    CdiDevice {
        name: device.name,
        auto_allow: device.auto_allowed,
        annotations: device.annotations.into_iter().collect(),
        on_demand: false,
    }
}

/// Lists what can be built for; clients take the first for the machine's own.
fn platforms(engine: &Engine) -> Vec<Platform> {
    let mut platforms = engine.platforms();
    if engine.config().platforms.is_empty() {
        // The plain one, and higher levels after it.
        let own = platforms.first().map(|platform| platform.architecture.clone());
        platforms.sort_by_key(|platform| {
            let is_own = Some(&platform.architecture) == own.as_ref();
            (!is_own, is_own.then(|| platform.variant.clone()))
        });
    }
    platforms
}

fn gc_rule(rule: &GcRule) -> GcPolicy {
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    GcPolicy {
        all: rule.all,
        filters: rule.filter.texts(),
        keep_duration: rule
            .keep_duration
            .map_or(0, |keep| i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX)),
        reserved_space: number(rule.reserved),
        max_used_space: number(rule.max_used),
        min_free_space: number(rule.min_free),
    }
}

fn platform(platform: &Platform) -> wire_pb::Platform {
    recode(&slipway_model::llb::pb::Platform::from(platform))
}

/// Returns the version record that clients see.
pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: PACKAGE.to_owned(),
        version: BUILDKIT_VERSION.to_owned(),
        revision: REVISION.to_owned(),
    }
}

/// Returns what frontends and clients may call.
pub(crate) fn gateway_caps() -> Vec<ApiCap> {
    GATEWAY.iter().map(|id| cap(id)).collect()
}

/// Returns what LLB may contain.
pub(crate) fn llb_caps() -> Vec<ApiCap> {
    LLB.iter().filter(|id| holds(id)).map(|id| cap(id)).collect()
}

/// Tells whether this machine has what a capability is about: steps are shown their control groups where there is one
/// tree of them.
fn holds(id: &str) -> bool {
    id != "exec.cgroup" || Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn cap(id: &str) -> ApiCap {
    ApiCap { id: id.to_owned(), enabled: true, ..ApiCap::default() }
}

/// Makes a name that no other thing has.
pub(crate) fn new_id() -> String {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(rustix::io::Errno::INTR) => {}
            // Without randomness the time is still different each time.
            Err(_) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                bytes = now.unwrap_or_default().as_nanos().to_le_bytes();
                break;
            }
        }
    }
    let number = u128::from_le_bytes(bytes);
    let mut text = String::with_capacity(25);
    let mut rest = number;
    for _ in 0..25 {
        let digit = (rest % 36) as u32;
        text.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= 36;
    }
    text
}

#[cfg(test)]
mod tests {
    use slipway_engine::EngineOptions;
    use slipway_engine::config::Config;

    use super::*;

    #[test]
    fn filters_select_by_label() {
        let directory = tempfile::tempdir().unwrap();
        let labels = BTreeMap::from([("a.b".to_owned(), "c".to_owned())]);
        let platforms = vec!["linux/s390x".parse().unwrap()];
        let config = Config { labels, platforms, network: StepNetwork::None, ..Config::default() };
        let root = Some(directory.path().to_owned());
        let engine = Engine::open(EngineOptions { root, config, ..EngineOptions::default() }).unwrap();
        let worker = Worker::open(&engine).unwrap();
        let matches = |filters: &[&str]| worker.matches(&Filters::parse(filters).unwrap());
        assert!(matches(&[]));
        assert!(matches(&["labels.\"a.b\"==c"]));
        assert!(matches(&["labels.a.b~=^c$,id"]));
        assert!(!matches(&["labels.\"a.b\"==d"]));
        assert!(matches(&["labels.\"org.mobyproject.buildkit.worker.network\"==none"]));
        let again = Worker::open(&engine).unwrap();
        assert_eq!(worker.id, again.id);
        assert_ne!(new_id(), new_id());
        let record = worker.record(&engine);
        assert_eq!(record.platforms.len(), 1);
        assert_eq!(record.gc_policy.len(), 4, "the usual rules");
        assert_eq!(record.gc_policy[0].filters[0], "type==source.local");
    }
}
