//! The record of one build: what was asked for, and what became of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use slipway_dockerfile::GitReference;
use slipway_model::SolveRequest;
use slipway_model::solve::{
    ContextSource, DockerfileRequest, DockerfileSource, Frontend, NamedContextSource, NoCache,
};

/// A build that ran or runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Unique in a state directory; what `buildx.build.ref` ends with.
    pub id: String,
    pub request: RequestRecord,
    #[serde(with = "nanoseconds")]
    pub started: SystemTime,
    #[serde(with = "nanoseconds::option", default)]
    pub completed: Option<SystemTime>,
    /// `None` while it runs.
    pub outcome: Option<Outcome>,
    #[serde(default)]
    pub steps: Steps,
    /// The members of the metadata file.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Completed,
    Canceled,
    /// With the error's first line.
    Failed(String),
}

/// How many vertices a build had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    pub total: u32,
    pub completed: u32,
    pub cached: u32,
    pub warnings: u32,
}

/// What a build was asked for, as far as it helps to recognise it. No secret is in it; what people put into
/// build arguments is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestRecord {
    /// What it is called in lists.
    pub name: String,
    pub context: String,
    /// The repository that the context is in.
    pub repository: String,
    pub dockerfile: String,
    pub target: Option<String>,
    pub platforms: Vec<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub named_contexts: BTreeMap<String, String>,
    pub no_cache: bool,
    pub no_cache_filter: Vec<String>,
}

impl Record {
    pub(super) fn new(id: &str, request: RequestRecord, started: SystemTime) -> Self {
        Self {
            id: id.to_owned(),
            request,
            started,
            completed: None,
            outcome: None,
            steps: Steps::default(),
            metadata: Map::new(),
        }
    }
}

impl From<&SolveRequest> for RequestRecord {
    fn from(request: &SolveRequest) -> Self {
        let platforms = request.platforms.iter().map(ToString::to_string).collect();
        match &request.frontend {
            Frontend::Dockerfile(dockerfile) => Self { platforms, ..Self::of_dockerfile(dockerfile) },
            Frontend::Definition(_) => Self { platforms, ..Self::default() },
        }
    }
}

impl RequestRecord {
    fn of_dockerfile(request: &DockerfileRequest) -> Self {
        let context = match &request.context {
            ContextSource::Empty => String::new(),
            ContextSource::Directory(path) => path.display().to_string(),
            // The archive came through standard input; the file is slipway's own.
            ContextSource::Archive(_) => "-".to_owned(),
            ContextSource::Url(url) => url.clone(),
            ContextSource::Client(name) => format!("local:{name}"),
            ContextSource::Definition(_) => "input:context".to_owned(),
        };
        let dockerfile = match &request.dockerfile {
            DockerfileSource::Path(path) => path.display().to_string(),
            DockerfileSource::Inline(_) => "-".to_owned(),
            DockerfileSource::Url(url) => url.clone(),
            DockerfileSource::Client { path, .. } | DockerfileSource::Definition { path, .. } => path.clone(),
        };
        let named = request.named_contexts.iter().map(|named| {
            let source = match &named.source {
                NamedContextSource::Directory(path) => path.display().to_string(),
                NamedContextSource::Image(reference) => format!("docker-image://{reference}"),
                NamedContextSource::OciLayout { path, .. } => format!("oci-layout://{}", path.display()),
                NamedContextSource::Url(url) => url.clone(),
                NamedContextSource::Client(name) => format!("local:{name}"),
                NamedContextSource::ClientLayout { store, digest } => {
                    format!("oci-layout://{store}@{digest}")
                }
                NamedContextSource::Definition { .. } => format!("input:{}", named.name),
                NamedContextSource::Target { name, .. } => format!("target:{name}"),
            };
            (named.name.clone(), source)
        });
        let (no_cache, no_cache_filter) = match &request.no_cache_stages {
            NoCache::Nothing => (false, Vec::new()),
            NoCache::All => (true, Vec::new()),
            NoCache::Stages(stages) => (false, stages.clone()),
        };
        // Addresses of proxies often hold passwords, and they do not describe the build.
        let shown = |name: &String| !name.to_ascii_uppercase().ends_with("_PROXY");
        let remote = || repository_of_context(&context);
        let repository = request.vcs.get("source").cloned().or_else(remote).unwrap_or_default();
        Self {
            name: name(request, &context, &dockerfile),
            repository,
            context,
            dockerfile,
            target: request.target.clone(),
            platforms: Vec::new(),
            build_args: request.build_args.clone().into_iter().filter(|(name, _)| shown(name)).collect(),
            labels: request.labels.clone(),
            named_contexts: named.collect(),
            no_cache,
            no_cache_filter,
        }
    }
}

/// Returns the address of the repository that a context is; `None` if it is none.
pub fn repository_of_context(context: &str) -> Option<String> {
    Some(GitReference::parse(context).ok()??.short_remote())
}

/// Names a build: as it says itself, or by its directory, its Dockerfile where that has another name, and its target.
fn name(request: &DockerfileRequest, context: &str, dockerfile: &str) -> String {
    if let Some(given) = request.build_args.get("BUILDKIT_BUILD_NAME").filter(|given| !given.is_empty()) {
        return given.clone();
    }
    let last = |path: &str| {
        let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_default()
    };
    let directory = match GitReference::parse(context) {
        Ok(Some(repository)) => repository.short(),
        _ if context.contains("://") => context.to_owned(),
        _ => last(context),
    };
    let file = last(dockerfile);
    let place = match file.as_str() {
        "" | "-" | "Dockerfile" => directory,
        _ if directory.is_empty() => file,
        _ => format!("{directory}/{file}"),
    };
    match &request.target {
        Some(target) if place.is_empty() => target.clone(),
        Some(target) => format!("{place} ({target})"),
        None => place,
    }
}

/// Times as nanoseconds since 1970.
pub(super) mod nanoseconds {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let nanoseconds = super::super::since_epoch(*time).as_nanos();
        serializer.serialize_u64(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        u64::deserialize(deserializer).map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }

    /// The same for times that may be missing.
    pub(crate) mod option {
        use super::{Duration, SystemTime, UNIX_EPOCH};
        use serde::{Deserialize as _, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<SystemTime>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<SystemTime>, D::Error> {
            let nanoseconds = Option::<u64>::deserialize(deserializer)?;
            Ok(nanoseconds.map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_called_by_its_directory_file_and_target() {
        let request = |context: &str, file: &str, target: Option<&str>| DockerfileRequest {
            context: ContextSource::Directory(context.into()),
            dockerfile: DockerfileSource::Path(file.into()),
            target: target.map(str::to_owned),
            ..DockerfileRequest::default()
        };
        for (request, name) in [
            (request("/src/app", "Dockerfile", None), "app"),
            (request("/src/app", "Dockerfile", Some("test")), "app (test)"),
            (request("/src/app", "build/Dockerfile.dev", None), "app/Dockerfile.dev"),
            (request("/", "Dockerfile", Some("test")), "test"),
        ] {
            assert_eq!(RequestRecord::of_dockerfile(&request).name, name);
        }
        let mut remote = request("", "Dockerfile", Some("test"));
        remote.context = ContextSource::Url("https://me:secret@h/x.git?ref=main".to_owned());
        let record = RequestRecord::of_dockerfile(&remote);
        assert_eq!(record.name, "https://me:xxxxx@h/x.git#main (test)");
        assert_eq!(record.repository, "https://me:xxxxx@h/x.git");
        remote.vcs.insert("source".into(), "https://h/fork.git".into());
        assert_eq!(RequestRecord::of_dockerfile(&remote).repository, "https://h/fork.git");
        let mut named = request("/src/app", "Dockerfile", None);
        named.build_args.insert("BUILDKIT_BUILD_NAME".into(), "nightly".into());
        named.build_args.insert("https_proxy".into(), "http://me:secret@proxy".into());
        let record = RequestRecord::of_dockerfile(&named);
        assert_eq!(record.name, "nightly");
        assert!(!format!("{record:?}").contains("secret"));
    }
}
