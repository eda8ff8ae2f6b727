//! What a conversion is told, and the one question it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use slipway_model::llb::pb;
use slipway_model::solve::{Entitlement, ExtraHost, NamedContext, NetworkMode, NoCache, Ulimit};
use slipway_model::{Diagnostic, Digest, ImageConfig, Platform, Reference, SourceSpan};

use crate::parser::{Syntax, detect_syntax};
use crate::{Lines, SourceFile};

/// Tells whether `.dockerignore` excludes a path of the context.
///
/// It is given cleaned paths, and `.` for the whole context, which counts as excluded only if a pattern
/// excludes everything (`*`, `**`, `**/*`). Where the file has exceptions (`!pattern`) the answer must be
/// no, because what an exception brings back is not known without the files.
pub type Ignored = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Tells a conversion everything that is not in the Dockerfile.
#[derive(Clone)]
pub struct ConvertOptions {
    /// The stage to build; the last if `None`.
    pub target: Option<String>,
    pub platform: Platform,
    /// No platform was asked for: the image keeps its base's.
    pub implicit_platform: bool,
    pub build_platform: Platform,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub named_contexts: Vec<NamedContext>,
    pub main_context: MainContext,
    pub no_cache: NoCache,
    /// Ask registries even for what is known locally.
    pub pull: bool,
    pub network: NetworkMode,
    pub extra_hosts: Vec<ExtraHost>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    pub ulimits: Vec<Ulimit>,
    pub cgroup_parent: Option<String>,
    pub hostname: Option<String>,
    pub resources: pb::LinuxResources,
    /// Several platforms are built, so vertex names say which.
    pub multi_platform: bool,
    pub entitlements: BTreeSet<Entitlement>,
    /// The operations that give the client's directories, by the name that `context_use` tells, where they are
    /// not the plain `local://NAME`.
    pub locals: BTreeMap<String, pb::SourceOp>,
    /// For the check that nothing excluded is copied; `None` if there is no `.dockerignore`.
    pub ignored: Option<Ignored>,
}

/// Where the build context is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum MainContext {
    /// A directory that the engine knows by the name `context`.
    #[default]
    Local,
    /// A repository, as given by the user.
    Git(String),
    /// A file at an address; the context holds it under the name `context`.
    HttpFile(String),
    /// An archive at an address.
    HttpArchive(String),
    /// What a definition makes.
    Definition(Box<pb::Definition>),
    /// A part of another context.
    Below(Box<MainContext>, String),
}

impl ConvertOptions {
    /// Makes options for one platform, everything else at its default.
    pub fn new(platform: Platform, build_platform: Platform) -> Self {
        Self {
            target: None,
            platform,
            implicit_platform: false,
            build_platform,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            named_contexts: Vec::new(),
            main_context: MainContext::Local,
            no_cache: NoCache::Nothing,
            pull: false,
            network: NetworkMode::Default,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            hostname: None,
            resources: pb::LinuxResources::default(),
            multi_platform: false,
            entitlements: BTreeSet::new(),
            locals: BTreeMap::new(),
            ignored: None,
        }
    }

    /// Returns a build argument that is not empty.
    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the host name that steps see.
    pub(crate) fn step_hostname(&self) -> &str {
        self.build_arg("BUILDKIT_SANDBOX_HOSTNAME").or(self.hostname.as_deref()).unwrap_or_default()
    }

    pub(crate) fn resolve_mode(&self) -> ResolveMode {
        if self.pull { ResolveMode::Pull } else { ResolveMode::Default }
    }

    /// Tells whether a stage is built without cache.
    pub(crate) fn ignores_cache(&self, stage: Option<&str>) -> bool {
        match &self.no_cache {
            NoCache::Nothing => false,
            NoCache::All => true,
            NoCache::Stages(names) => {
                let stage = stage.unwrap_or_default();
                names.iter().any(|name| name.eq_ignore_ascii_case(stage))
            }
        }
    }
}

impl fmt::Debug for ConvertOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Build arguments may be secrets.
        f.debug_struct("ConvertOptions")
            .field("target", &self.target)
            .field("platform", &self.platform)
            .field("build_platform", &self.build_platform)
            .finish_non_exhaustive()
    }
}

/// Says what base images are.
///
/// 1. An answer is for exactly the platform of the request, or an error that names the platforms there are.
/// 2. Within one build, equal requests get equal answers: definitions of several platforms share vertices
///    only if the digests agree.
#[async_trait]
pub trait ImageResolver: Send + Sync {
    /// Resolves an image for a platform to its pinned digest and its config.
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic>;

    /// Returns the time, in seconds since 1970, that a source states for itself: a commit's, a
    /// `Last-Modified`, the newest file of an archive or a directory. `None` if it has none.
    ///
    /// Only asked if `SOURCE_DATE_EPOCH` names a context or a stage rather than a number.
    async fn source_time(&self, source: &pb::SourceOp) -> Result<Option<i64>, Diagnostic> {
        let _ = source;
        Ok(None)
    }
}

/// Asks for one image.
#[derive(Clone, Debug)]
pub struct ResolveRequest {
    /// The reference, with its default tag; for a layout, the context's name.
    pub reference: Reference,
    pub platform: Platform,
    pub origin: ImageOrigin,
    pub mode: ResolveMode,
    /// The instruction that needs the image.
    pub span: Option<SourceSpan>,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageOrigin {
    Registry,
    /// The OCI layout given as the named context of this name (`name` or `name::platform`).
    OciLayout {
        context: String,
    },
}

/// Whether what is known locally is good enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResolveMode {
    #[default]
    Default,
    /// Only what the registry says now.
    Pull,
}

impl FromStr for ResolveMode {
    type Err = String;

    /// Reads the value of a source's attribute, or of a frontend's option; what is preferred locally is so anyway.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "default" | "local" => Ok(Self::Default),
            "pull" => Ok(Self::Pull),
            other => Err(format!("invalid resolvemode: {other}")),
        }
    }
}

impl ResolveMode {
    /// Returns the value of the source attribute `image.resolvemode`.
    pub fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Pull => Some("pull"),
        }
    }
}

/// Answers for one image.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The digest that pins the image.
    pub digest: Digest,
    pub config: ImageConfig,
    /// The digest of the config's bytes, if known.
    pub config_digest: Option<Digest>,
    /// What is used instead of the image of that name; the digest and the config are of this.
    pub source: Option<pb::SourceOp>,
}

/// Who converts a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontendChoice {
    /// This crate.
    BuiltIn,
    /// The frontend in an image.
    Image {
        reference: String,
        command_line: String,
        /// Where the file says so; `None` if the build argument does.
        lines: Option<Lines>,
    },
}

/// Tells whether a file with this text is for the built-in frontend.
pub fn is_for_built_in(text: &[u8], build_args: &BTreeMap<String, String>) -> bool {
    let source = SourceFile::new("Dockerfile", text.to_vec());
    matches!(frontend_for(&source, build_args), FrontendChoice::BuiltIn)
}

/// Decides who converts a Dockerfile: `BUILDKIT_SYNTAX`, then the file's own `syntax` directive.
pub fn frontend_for(source: &SourceFile, build_args: &BTreeMap<String, String>) -> FrontendChoice {
    let argument = build_args.get("BUILDKIT_SYNTAX").map(|text| text.trim()).filter(|text| !text.is_empty());
    let (syntax, from_file) = match argument {
        Some(text) => {
            let reference = text.split(' ').next().unwrap_or_default().to_owned();
            (Some(Syntax { reference, command_line: text.to_owned(), lines: Lines::default() }), false)
        }
        None => (detect_syntax(source), true),
    };
    match syntax {
        Some(syntax) if !syntax.is_built_in() => FrontendChoice::Image {
            reference: syntax.reference,
            command_line: syntax.command_line,
            lines: from_file.then_some(syntax.lines),
        },
        _ => FrontendChoice::BuiltIn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_argument_decides_before_the_file() {
        let file = SourceFile::new("Dockerfile", "# syntax=example/front:1 x\nFROM a");
        let choose = |value: Option<&str>| {
            let args = value.map(|v| ("BUILDKIT_SYNTAX".to_owned(), v.to_owned())).into_iter().collect();
            frontend_for(&file, &args)
        };
        assert_eq!(choose(Some("docker/dockerfile:1")), FrontendChoice::BuiltIn);
        assert_eq!(
            choose(None),
            FrontendChoice::Image {
                reference: "example/front:1".into(),
                command_line: "example/front:1 x".into(),
                lines: Some(Lines::single(1)),
            }
        );
    }
}
