//! A request of this process as a client of BuildKit would write it, for provenance: the other way round than
//! [`super::options`].

use std::collections::BTreeMap;

use slipway_model::SolveRequest;
use slipway_model::solve::{
    ContextSource, DockerfileRequest, DockerfileSource, Frontend, NamedContext, NamedContextSource,
    NetworkMode, NoCache, StepOptions,
};

use crate::attest::FrontendRequest;

/// Writes what a request asks of its frontend.
pub(crate) fn of(request: &SolveRequest) -> FrontendRequest {
    let Frontend::Dockerfile(dockerfile) = &request.frontend else { return FrontendRequest::default() };
    let mut options = Options::default();
    options.dockerfile(dockerfile);
    options.steps(&request.steps);
    FrontendRequest { frontend: "dockerfile.v0".to_owned(), options: options.0, inputs: BTreeMap::new() }
}

#[derive(Default)]
struct Options(BTreeMap<String, String>);

impl Options {
    fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    fn dockerfile(&mut self, request: &DockerfileRequest) {
        if let ContextSource::Url(url) = &request.context {
            self.set("context", url);
        }
        match &request.dockerfile {
            DockerfileSource::Path(path) => {
                let remote = matches!(request.context, ContextSource::Url(_));
                let name = if remote { Some(path.as_os_str()) } else { path.file_name() };
                self.set("filename", name.unwrap_or_default().to_string_lossy());
            }
            DockerfileSource::Client { path, .. } | DockerfileSource::Definition { path, .. } => {
                self.set("filename", path);
            }
            DockerfileSource::Inline(_) | DockerfileSource::Url(_) => self.set("filename", "Dockerfile"),
        }
        if let Some(target) = &request.target {
            self.set("target", target);
        }
        for (key, value) in &request.build_args {
            self.set(format!("build-arg:{key}"), value);
        }
        for (key, value) in &request.labels {
            self.set(format!("label:{key}"), value);
        }
        for (key, value) in &request.vcs {
            self.set(format!("vcs:{key}"), value);
        }
        match &request.no_cache_stages {
            NoCache::Nothing => {}
            NoCache::All => self.set("no-cache", ""),
            NoCache::Stages(stages) => self.set("no-cache", stages.join(",")),
        }
        for context in &request.named_contexts {
            self.named_context(context);
        }
    }

    fn named_context(&mut self, context: &NamedContext) {
        let key = match &context.platform {
            Some(platform) => format!("{}::{platform}", context.name),
            None => context.name.clone(),
        };
        let value = match &context.source {
            NamedContextSource::Directory(_) => format!("local:{key}"),
            NamedContextSource::Client(name) => format!("local:{name}"),
            NamedContextSource::Image(reference) => format!("docker-image://{reference}"),
            NamedContextSource::OciLayout { .. } => format!("oci-layout://{}", context.name),
            NamedContextSource::ClientLayout { store, digest } => format!("oci-layout://{store}@{digest}"),
            NamedContextSource::Url(url) => url.clone(),
            NamedContextSource::Definition { .. } => format!("input:{}", context.name),
        };
        self.set(format!("context:{key}"), value);
    }

    fn steps(&mut self, steps: &StepOptions) {
        match steps.network {
            NetworkMode::Default => {}
            NetworkMode::None => self.set("force-network-mode", "none"),
            NetworkMode::Host => self.set("force-network-mode", "host"),
        }
        let hosts: Vec<String> =
            steps.extra_hosts.iter().map(|host| format!("{}={}", host.host, host.address)).collect();
        if !hosts.is_empty() {
            self.set("add-hosts", hosts.join(","));
        }
        if let Some(size) = steps.shm_size {
            self.set("shm-size", size.to_string());
        }
        let limits: Vec<String> = steps
            .ulimits
            .iter()
            .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
            .collect();
        if !limits.is_empty() {
            self.set("ulimit", limits.join(","));
        }
        if let Some(name) = &steps.hostname {
            self.set("hostname", name);
        }
    }
}
