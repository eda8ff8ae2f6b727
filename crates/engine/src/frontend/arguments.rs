//! A request of this process in the options by which BuildKit's clients ask their frontends: the other way round
//! than [`super::options`].
//!
//! [`frontend_options`] has what is the same wherever a build runs. Where contexts and the Dockerfile are found is
//! said by those who know: by the daemon's client of what it offers, by [`told`] of what provenance should tell.

use std::collections::BTreeMap;

use slipway_model::SolveRequest;
use slipway_model::attestation::{ProvenanceOptions, SbomOptions};
use slipway_model::solve::{
    Call, ContextSource, DockerfileRequest, DockerfileSource, Frontend, NamedContext, NamedContextSource,
    NetworkMode, NoCache, StepOptions,
};

use crate::attest::FrontendRequest;

/// Writes what a request asks of its frontend, but for where the contexts and the Dockerfile are.
pub fn frontend_options(request: &SolveRequest) -> BTreeMap<String, String> {
    let mut options = Options::default();
    if let Frontend::Dockerfile(dockerfile) = &request.frontend {
        options.dockerfile(dockerfile);
        options.result(request);
    }
    options.steps(&request.steps);
    options.0
}

/// Writes a request as provenance tells of it: directories of this machine by the names that clients give them.
pub(crate) fn told(request: &SolveRequest) -> FrontendRequest {
    let Frontend::Dockerfile(dockerfile) = &request.frontend else { return FrontendRequest::default() };
    let mut options = Options(frontend_options(request));
    options.places(dockerfile);
    FrontendRequest { frontend: "dockerfile.v0".to_owned(), options: options.0, inputs: BTreeMap::new() }
}

#[derive(Default)]
struct Options(BTreeMap<String, String>);

impl Options {
    fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// Sets what has a value.
    fn set_some(&mut self, pairs: impl IntoIterator<Item = (&'static str, String)>) {
        for (key, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            self.set(key, value);
        }
    }

    fn dockerfile(&mut self, request: &DockerfileRequest) {
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
        if request.pull {
            self.set("image-resolve-mode", "pull");
        }
        match request.call {
            Call::Build => {}
            Call::Check => self.set("requestid", "frontend.lint"),
            Call::Outline => self.set("requestid", "frontend.outline"),
            Call::Targets => self.set("requestid", "frontend.targets"),
            Call::Describe => self.set("requestid", "frontend.subrequests.describe"),
        }
    }

    /// Sets what is asked of the result.
    fn result(&mut self, request: &SolveRequest) {
        self.set_some([("platform", list(&request.platforms))]);
        let asked = &request.attestations;
        let provenance = asked.provenance.as_ref().map(ProvenanceOptions::attributes);
        let sbom = asked.sbom.as_ref().map(SbomOptions::attributes);
        for (kind, attributes) in [("provenance", provenance), ("sbom", sbom)] {
            if let Some(attributes) = attributes {
                self.set(format!("attest:{kind}"), pairs(&attributes));
            }
        }
    }

    fn places(&mut self, request: &DockerfileRequest) {
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
        for context in &request.named_contexts {
            self.named_context(context);
        }
    }

    fn named_context(&mut self, context: &NamedContext) {
        let key = context.key();
        let value = match &context.source {
            NamedContextSource::Directory(_) => format!("local:{key}"),
            NamedContextSource::Client(name) => format!("local:{name}"),
            NamedContextSource::Image(reference) => format!("docker-image://{reference}"),
            NamedContextSource::OciLayout { .. } => format!("oci-layout://{}", context.name),
            NamedContextSource::ClientLayout { store, digest } => format!("oci-layout://{store}@{digest}"),
            NamedContextSource::Url(url) => url.clone(),
            NamedContextSource::Definition { .. } => format!("input:{}", context.name),
            NamedContextSource::Target { name, .. } => format!("input:target:{name}"),
        };
        self.set(format!("context:{key}"), value);
    }

    fn steps(&mut self, steps: &StepOptions) {
        match steps.network {
            NetworkMode::Default => {}
            NetworkMode::None => self.set("force-network-mode", "none"),
            NetworkMode::Host => self.set("force-network-mode", "host"),
        }
        let hosts = steps.extra_hosts.iter().map(|host| format!("{}={}", host.host, host.address));
        let ulimits =
            steps.ulimits.iter().map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
        let resources = &steps.resources;
        let number = |number: i128| if number == 0 { String::new() } else { number.to_string() };
        self.set_some([
            ("add-hosts", list(hosts)),
            ("ulimit", list(ulimits)),
            ("shm-size", steps.shm_size.map(|size| size.to_string()).unwrap_or_default()),
            ("cgroup-parent", steps.cgroup_parent.clone().unwrap_or_default()),
            ("hostname", steps.hostname.clone().unwrap_or_default()),
            ("memory", number(resources.memory.into())),
            ("memswap", number(resources.memory_swap.into())),
            ("cpushares", number(resources.cpu_shares.into())),
            ("cpuperiod", number(resources.cpu_period.into())),
            ("cpuquota", number(resources.cpu_quota.into())),
            ("cpusetcpus", resources.cpuset_cpus.clone()),
            ("cpusetmems", resources.cpuset_mems.clone()),
        ]);
    }
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// Writes attributes as one value.
fn pairs(attributes: &BTreeMap<String, String>) -> String {
    list(attributes.iter().map(|(key, value)| match value.contains([',', '"']) {
        true => format!("\"{key}={}\"", value.replace('"', "\"\"")),
        false => format!("{key}={value}"),
    }))
}
