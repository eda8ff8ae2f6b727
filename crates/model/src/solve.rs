//! What a client asks for: one [`SolveRequest`], made once at the edge from flags, a bake target or gRPC.
//!
//! Options are grouped by who acts on them (frontend, steps, outputs, cache), and typed: nothing past the
//! edge reads a map of strings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::attestation::Attestations;
use crate::llb::pb;
use crate::oci::Annotations;
use crate::{Platform, Reference, SourceRules};

/// Everything a build needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct SolveRequest {
    /// Names this build in history and on the wire; unique for each request.
    pub id: String,
    pub frontend: Frontend,
    /// Empty means the builder's own platform, and an output that is not an image index.
    pub platforms: Vec<Platform>,
    pub outputs: Vec<OutputSpec>,
    pub cache: CacheOptions,
    pub steps: StepOptions,
    pub attestations: Attestations,
    pub entitlements: BTreeSet<Entitlement>,
    pub platform_check: PlatformCheck,
    /// What `created` and, on request, file times are clamped to, if it is not what the frontend says
    /// (`SOURCE_DATE_EPOCH`).
    pub source_date_epoch: Option<SourceDateEpoch>,
    /// Rules for sources, whatever else decides about them.
    pub source_policy: Option<SourceRules>,
}

/// The clamp of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceDateEpoch {
    /// Since 1970.
    Seconds(i64),
    /// There is none, whatever the frontend says.
    Unset,
}

impl SourceDateEpoch {
    /// Reads what an output says of it; nothing takes the clamp away.
    pub fn of_output(text: &str) -> Result<Self, std::num::ParseIntError> {
        match text {
            "" => Ok(Self::Unset),
            text => text.parse().map(Self::Seconds),
        }
    }

    /// Returns the seconds, if there are any.
    pub fn seconds(self) -> Option<i64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::Unset => None,
        }
    }
}

/// Who turns the request into LLB.
#[derive(Clone, Debug, PartialEq)]
pub enum Frontend {
    Dockerfile(Box<DockerfileRequest>),
    /// A ready definition, from a client of the LLB API.
    Definition(pb::Definition),
}

/// A request to the built-in Dockerfile frontend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DockerfileRequest {
    pub context: ContextSource,
    pub dockerfile: DockerfileSource,
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub named_contexts: Vec<NamedContext>,
    /// The directory of a context elsewhere that is taken for the context.
    pub context_directory: Option<String>,
    pub no_cache_stages: NoCache,
    pub pull: bool,
    pub call: Call,
    /// Where its files are kept, in the words of provenance: `source`, `revision`, and `localdir:NAME` of directories.
    pub vcs: BTreeMap<String, String>,
    /// Which session has a directory of the client, where that is not the build's own, by the directory's name.
    pub client_sessions: BTreeMap<String, String>,
}

/// Where the build context is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ContextSource {
    /// No context: a Dockerfile that copies nothing from it.
    #[default]
    Empty,
    Directory(PathBuf),
    /// A tar archive, already received into a file.
    Archive(PathBuf),
    /// A git or http(s) URL.
    Url(String),
    /// A directory of the client, by the name the client gave it.
    Client(String),
    /// What a definition makes.
    Definition(Box<pb::Definition>),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug, PartialEq)]
pub enum DockerfileSource {
    /// A path below the context, or an absolute one outside it.
    Path(PathBuf),
    /// The text itself, as read from standard input.
    Inline(Vec<u8>),
    Url(String),
    /// A file in a directory of the client, by the name the client gave it.
    Client {
        directory: String,
        path: String,
    },
    /// A file in what a definition makes.
    Definition {
        definition: Box<pb::Definition>,
        path: String,
    },
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::Path("Dockerfile".into())
    }
}

/// One `--build-context name=value`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedContext {
    pub name: String,
    /// Restricts the context to one platform (`name::linux/arm64`).
    pub platform: Option<Platform>,
    pub source: NamedContextSource,
}

impl NamedContext {
    /// Returns what tells it from other contexts: its name, with the platform that it is restricted to.
    pub fn key(&self) -> String {
        match &self.platform {
            Some(platform) => format!("{}::{platform}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What a named context stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum NamedContextSource {
    Directory(PathBuf),
    Image(Reference),
    /// A directory in OCI image layout, with the tag or digest to take from it.
    OciLayout {
        path: PathBuf,
        selector: LayoutSelector,
    },
    Url(String),
    /// A directory of the client, by the name the client gave it.
    Client(String),
    /// An image in a content store of the client.
    ClientLayout {
        store: String,
        digest: crate::Digest,
    },
    /// What a definition makes, with the config of the image that it is, if it is one.
    Definition {
        definition: Box<pb::Definition>,
        config: Option<Box<crate::ImageConfig>>,
    },
    /// What another request makes of its Dockerfile, for each of its platforms.
    Target {
        /// Tells its directories from those of other requests.
        name: String,
        request: Box<SolveRequest>,
    },
}

/// Picks an image in an OCI layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutSelector {
    /// The only one, or the one tagged `latest`.
    Default,
    Tag(String),
    Digest(crate::Digest),
}

/// Which stages are built without cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    #[default]
    Nothing,
    All,
    Stages(Vec<String>),
}

/// What to do with the Dockerfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    #[default]
    Build,
    Check,
    Outline,
    Targets,
    /// List what can be asked.
    Describe,
}

/// Options that act on RUN steps and are not in the Dockerfile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOptions {
    pub network: NetworkMode,
    /// Steps reach the network through a proxy only, which asks the policies about every request.
    pub proxy_network: bool,
    pub extra_hosts: Vec<ExtraHost>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    pub ulimits: Vec<Ulimit>,
    pub cgroup_parent: Option<String>,
    /// The name a step's machine has, if not the usual one.
    pub hostname: Option<String>,
    pub resources: pb::LinuxResources,
    pub secrets: Vec<SecretSpec>,
    pub ssh: Vec<SshSpec>,
    /// Keep what a step leaves that fails, to look at it when the build is over.
    pub keep_failed: bool,
}

/// The network a step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    #[default]
    Default,
    None,
    Host,
}

/// One `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    pub host: String,
    pub address: std::net::IpAddr,
}

/// One `--ulimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// One `--secret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSpec {
    pub id: String,
    pub source: SecretSource,
}

/// Where a secret's value is read from when a step asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    Environment(String),
}

/// One `--ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSpec {
    pub id: String,
    /// An agent's socket, or key files; empty is `SSH_AUTH_SOCK`.
    pub paths: Vec<PathBuf>,
}

/// A right that must be granted by the person who builds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entitlement {
    NetworkHost,
    SecurityInsecure,
    Device(DeviceGrant),
}

/// Which devices of the machine steps may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceGrant {
    All,
    Named {
        /// A device, a kind of devices or a class of them.
        name: String,
        /// What steps call it.
        alias: Option<String>,
    },
}

impl std::fmt::Display for Entitlement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NetworkHost => f.write_str("network.host"),
            Self::SecurityInsecure => f.write_str("security.insecure"),
            Self::Device(DeviceGrant::All) => f.write_str("device"),
            Self::Device(DeviceGrant::Named { name, alias: None }) => write!(f, "device={name}"),
            Self::Device(DeviceGrant::Named { name, alias: Some(alias) }) => {
                write!(f, "device={name},alias={alias}")
            }
        }
    }
}

impl std::str::FromStr for Entitlement {
    type Err = String;

    /// Reads what `--allow` takes, as `device=vendor.com/gpu=0,alias=gpu`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').unwrap_or((text, ""));
        match (kind, value) {
            ("network.host", "") => Ok(Self::NetworkHost),
            ("security.insecure", "") => Ok(Self::SecurityInsecure),
            ("device", "") => Ok(Self::Device(DeviceGrant::All)),
            ("device", value) => {
                let mut fields = value.split(',');
                let name = fields.next().unwrap_or_default().to_owned();
                let mut alias = None;
                for field in fields {
                    match field.split_once('=') {
                        Some(("alias", value)) => alias = Some(value.to_owned()),
                        _ => return Err(format!("unknown key `{field}` of entitlement `device`")),
                    }
                }
                Ok(Self::Device(DeviceGrant::Named { name, alias }))
            }
            _ => Err(format!("unknown entitlement `{text}`")),
        }
    }
}

/// What to do about files for another platform than the image's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlatformCheck {
    Off,
    /// Warn about every such file, fail if the image cannot start.
    #[default]
    Warn,
    /// Fail on any such file.
    Error,
}

/// Cache from and to other places than the local state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheOptions {
    pub imports: Vec<CacheSpec>,
    pub exports: Vec<CacheSpec>,
}

/// One `--cache-from` or `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputSpec {
    Image(ImageOutput),
    /// An OCI layout, as a tar or a directory.
    Oci(ArchiveOutput),
    /// A `docker load` archive, or straight into an engine.
    Docker(DockerOutput),
    Local(FilesOutput),
    Tar(FilesOutput),
    CacheOnly,
}

impl OutputSpec {
    /// Says whether it is written to standard output.
    pub fn is_stdout(&self) -> bool {
        match self {
            Self::Oci(output) => output.destination == Destination::Stdout,
            Self::Docker(output) => output.destination == Some(Destination::Stdout),
            Self::Tar(output) | Self::Local(output) => output.destination == Destination::Stdout,
            Self::Image(_) | Self::CacheOnly => false,
        }
    }
}

/// `type=image` and `type=registry`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOutput {
    pub names: Vec<Reference>,
    pub push: bool,
    pub push_by_digest: bool,
    pub insecure: bool,
    /// Nobody asked for it: a builder elsewhere leaves the result in its cache.
    pub by_default: bool,
    pub image: ImageOptions,
}

/// `type=oci`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOutput {
    pub names: Vec<Reference>,
    pub destination: Destination,
    /// `false` writes a directory.
    pub tar: bool,
    pub image: ImageOptions,
}

/// `type=docker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerOutput {
    pub names: Vec<Reference>,
    /// `None` loads into the engine.
    pub destination: Option<Destination>,
    pub tar: bool,
    /// A docker context's name, or the host of an engine.
    pub engine: Option<String>,
    pub image: ImageOptions,
}

/// `type=local` and `type=tar`: the files of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOutput {
    pub destination: Destination,
    /// One directory for each platform; `None` means only if there are several.
    pub platform_split: Option<bool>,
    /// `mode=delete`: remove what is in the destination and not in the result.
    pub delete: bool,
    /// What the names of attestations beside the files begin with.
    pub attestation_prefix: String,
}

/// Where a file output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    Path(PathBuf),
    /// The client's end of the output of this name, through its session.
    Client(String),
}

/// How images and their layers are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    pub compression: Compression,
    pub compression_level: Option<i32>,
    /// Recompress layers that are there in another form, the base image's too.
    pub force_compression: bool,
    /// OCI media types rather than Docker's; `None` is OCI.
    pub oci_media_types: Option<bool>,
    pub rewrite_timestamp: bool,
    pub annotations: Vec<AnnotationSpec>,
    /// Attestations in manifests of the artifact form; `None` is yes where media types are OCI's.
    pub oci_artifact: Option<bool>,
    /// Hold also the attestations that are for inside of images only; `None` is what suits the output.
    pub attestation_inline: Option<bool>,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    Uncompressed,
    #[default]
    Gzip,
    Zstd,
}

/// One `--annotation` or `annotation.*` key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationSpec {
    pub target: AnnotationTarget,
    /// Restricts the annotation to one platform's manifest.
    pub platform: Option<Platform>,
    pub key: String,
    pub value: String,
}

/// Which document an annotation goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AnnotationTarget {
    #[default]
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

impl ImageOptions {
    /// Collects the annotations for one document; `platform` is `None` for the index.
    pub fn annotations_for(&self, target: AnnotationTarget, platform: Option<&Platform>) -> Annotations {
        self.annotations
            .iter()
            .filter(|a| a.target == target && (a.platform.is_none() || a.platform.as_ref() == platform))
            .map(|a| (a.key.clone(), a.value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_read_and_written() {
        for text in
            ["network.host", "security.insecure", "device", "device=v.com/d=0", "device=v.com/d,alias=mine"]
        {
            assert_eq!(text.parse::<Entitlement>().unwrap().to_string(), text);
        }
        for text in ["", "network", "network.host=1", "device=a,b=c"] {
            assert!(text.parse::<Entitlement>().is_err(), "{text}");
        }
    }
}
