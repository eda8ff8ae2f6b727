//! The built-in frontend's string options, as clients send them, converted once.

use std::collections::{BTreeMap, BTreeSet};

use slipway_model::llb::pb;
use slipway_model::solve::{
    Attestations, CacheOptions, Call, ContextSource, DockerfileRequest, DockerfileSource, Entitlement,
    ExtraHost, Frontend, NamedContext, NamedContextSource, NetworkMode, NoCache, PlatformCheck, SolveRequest,
    SourceDateEpoch, StepOptions, Ulimit,
};
use slipway_model::{Diagnostic, ErrorKind, Platform};

/// The options of a client.
struct Options<'a> {
    all: &'a BTreeMap<String, String>,
}

/// Makes a request of a client's options.
pub(super) fn request(
    options: &BTreeMap<String, String>,
    entitlements: &BTreeSet<Entitlement>,
) -> Result<SolveRequest, Diagnostic> {
    let options = Options { all: options };
    let build_args = options.with_prefix("build-arg:");
    let mut build_args: BTreeMap<String, String> = build_args.collect();
    if let Some(multi) = options.text("multi-platform") {
        build_args.entry("BUILDKIT_MULTI_PLATFORM".to_owned()).or_insert_with(|| multi.to_owned());
    }
    let platforms = options.platforms()?;
    check_multi_platform(&build_args, platforms.len())?;
    let source_date_epoch = match build_args.get("SOURCE_DATE_EPOCH").map(String::as_str) {
        None | Some("") => None,
        Some("context") => Some(SourceDateEpoch::Context),
        Some(text) => Some(SourceDateEpoch::Seconds(
            text.parse().map_err(|_| invalid("build-arg:SOURCE_DATE_EPOCH", text))?,
        )),
    };
    let dockerfile = DockerfileRequest {
        context: options.context(),
        dockerfile: options.dockerfile(),
        target: options.text("target").map(str::to_owned),
        labels: options.with_prefix("label:").collect(),
        named_contexts: options.named_contexts()?,
        no_cache_stages: options.no_cache(),
        pull: match options.text("image-resolve-mode") {
            None | Some("default" | "local") => false,
            Some("pull") => true,
            Some(other) => return Err(invalid("image-resolve-mode", other)),
        },
        call: options.call()?,
        build_args,
    };
    Ok(SolveRequest {
        id: String::new(),
        frontend: Frontend::Dockerfile(Box::new(dockerfile)),
        platforms,
        outputs: Vec::new(),
        cache: CacheOptions::default(),
        steps: options.steps()?,
        attestations: Attestations::default(),
        entitlements: entitlements.clone(),
        platform_check: PlatformCheck::Off,
        source_date_epoch,
    })
}

fn invalid(key: &str, value: &str) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("invalid {key}: {value}"))
}

fn check_multi_platform(build_args: &BTreeMap<String, String>, platforms: usize) -> Result<(), Diagnostic> {
    let Some(text) = build_args.get("BUILDKIT_MULTI_PLATFORM").filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    match super::dockerfile::parse_bool(text) {
        None => {
            Err(Diagnostic::new(ErrorKind::User, format!("invalid boolean value for multi-platform: {text}")))
        }
        Some(false) if platforms > 1 => Err(Diagnostic::new(
            ErrorKind::User,
            "conflicting config: returning multiple target platforms is not allowed",
        )),
        Some(_) => Ok(()),
    }
}

impl<'a> Options<'a> {
    /// Returns an option that is not empty.
    fn text(&self, key: &str) -> Option<&'a str> {
        self.all.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Lists the options below a prefix, without it.
    fn with_prefix(&self, prefix: &'static str) -> impl Iterator<Item = (String, String)> {
        self.all
            .iter()
            .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Diagnostic> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid(key, text))
    }

    fn platforms(&self) -> Result<Vec<Platform>, Diagnostic> {
        let texts = self.text("platform").into_iter().flat_map(|text| text.split(','));
        let parse = |text: &str| {
            text.trim().parse::<Platform>().map_err(|error| {
                Diagnostic::new(ErrorKind::User, format!("failed to parse target platform {text}"))
                    .cause(error.to_string())
            })
        };
        texts.map(parse).collect()
    }

    fn context(&self) -> ContextSource {
        // The option `contextkey` names the option that holds the address.
        let key = self.text("contextkey").unwrap_or("context");
        match self.text(key) {
            Some(url) => ContextSource::Url(self.below_context(url)),
            None => ContextSource::Client,
        }
    }

    fn below_context(&self, url: &str) -> String {
        match self.text("contextsubdir") {
            Some(directory) if !url.contains('#') => format!("{url}#:{directory}"),
            _ => url.to_owned(),
        }
    }

    fn dockerfile(&self) -> DockerfileSource {
        let path = self.text("filename").unwrap_or("Dockerfile").to_owned();
        let is_remote = matches!(self.context(), ContextSource::Url(_));
        match self.text("dockerfilekey") {
            Some(name) => DockerfileSource::Client { name: name.to_owned(), path },
            None if is_remote => DockerfileSource::Path(path.into()),
            None => DockerfileSource::Client { name: "dockerfile".to_owned(), path },
        }
    }

    fn no_cache(&self) -> NoCache {
        match self.all.get("no-cache").map(String::as_str) {
            None => NoCache::Nothing,
            Some("") => NoCache::All,
            Some(stages) => NoCache::Stages(stages.split(',').map(str::to_owned).collect()),
        }
    }

    fn call(&self) -> Result<Call, Diagnostic> {
        match self.text("requestid") {
            None => Ok(Call::Build),
            Some("frontend.lint") => Ok(Call::Check),
            Some("frontend.outline") => Ok(Call::Outline),
            Some("frontend.targets") => Ok(Call::Targets),
            Some(other) => Err(Diagnostic::new(ErrorKind::User, format!("unsupported request {other}"))),
        }
    }

    fn named_contexts(&self) -> Result<Vec<NamedContext>, Diagnostic> {
        let mut contexts = Vec::new();
        for (name, input) in self.with_prefix("context:") {
            let (name, platform) = match name.split_once("::") {
                Some((name, platform)) => (name.to_owned(), platform.parse::<Platform>().ok()),
                None => (name, None),
            };
            let source = named_source(&name, &input)?;
            contexts.push(NamedContext { name, platform, source });
        }
        Ok(contexts)
    }

    fn steps(&self) -> Result<StepOptions, Diagnostic> {
        let network = match self.text("force-network-mode") {
            None | Some("sandbox") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(other) => return Err(invalid("netmode", other)),
        };
        let resources = pb::LinuxResources {
            memory: self.number("memory")?.unwrap_or_default(),
            memory_swap: self.number("memswap")?.unwrap_or_default(),
            cpu_shares: self.number("cpushares")?.unwrap_or_default(),
            cpu_period: self.number("cpuperiod")?.unwrap_or_default(),
            cpu_quota: self.number("cpuquota")?.unwrap_or_default(),
            cpuset_cpus: self.text("cpusetcpus").unwrap_or_default().to_owned(),
            cpuset_mems: self.text("cpusetmems").unwrap_or_default().to_owned(),
        };
        Ok(StepOptions {
            network,
            extra_hosts: self.list("add-hosts").map(host).collect::<Result<_, _>>()?,
            shm_size: self.number("shm-size")?,
            ulimits: self.list("ulimit").map(ulimit).collect::<Result<_, _>>()?,
            cgroup_parent: self.text("cgroup-parent").map(str::to_owned),
            resources,
            ..StepOptions::default()
        })
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.text(key).into_iter().flat_map(|text| text.split(',')).map(|field| field.trim_matches('"'))
    }
}

/// Says where a named context comes from.
fn named_source(name: &str, input: &str) -> Result<NamedContextSource, Diagnostic> {
    let unsupported = |kind: &str| {
        Diagnostic::new(ErrorKind::User, format!("unsupported context source {kind} for {name}"))
    };
    let Some((scheme, rest)) = input.split_once(':') else {
        return Err(Diagnostic::new(
            ErrorKind::User,
            format!("invalid context specifier {input} for {name}"),
        ));
    };
    match scheme {
        "docker-image" => {
            let reference = rest.trim_start_matches('/').parse().map_err(
                |error: slipway_model::ParseReferenceError| {
                    Diagnostic::new(ErrorKind::User, format!("invalid context specifier {input} for {name}"))
                        .cause(error.to_string())
                },
            )?;
            Ok(NamedContextSource::Image(reference))
        }
        "local" => Ok(NamedContextSource::Client(rest.to_owned())),
        "git" | "http" | "https" | "ssh" => Ok(NamedContextSource::Url(input.to_owned())),
        _ if scheme.starts_with("git@") => Ok(NamedContextSource::Url(input.to_owned())),
        other => Err(unsupported(other)),
    }
}

fn host(text: &str) -> Result<ExtraHost, Diagnostic> {
    let Some((host, address)) = text.split_once('=') else {
        return Err(Diagnostic::new(
            ErrorKind::User,
            format!("failed to parse additional hosts: invalid key-value pair {text}"),
        ));
    };
    let address = address.parse().map_err(|_| {
        Diagnostic::new(
            ErrorKind::User,
            format!("failed to parse additional hosts: failed to parse IP {address}"),
        )
    })?;
    Ok(ExtraHost { host: host.to_lowercase(), address })
}

fn ulimit(text: &str) -> Result<Ulimit, Diagnostic> {
    let invalid = || Diagnostic::new(ErrorKind::User, format!("failed to parse ulimit: {text}"));
    let (name, values) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<SolveRequest, String> {
        let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        request(&options, &BTreeSet::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_those_of_clients() {
        let request = of(&[
            ("platform", "linux/amd64,linux/arm64"),
            ("build-arg:A", "1"),
            ("label:l", "2"),
            ("no-cache", ""),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("ulimit", "nofile=1:2"),
            ("shm-size", "5"),
            ("context:more", "local:other"),
            ("context:base::linux/arm64", "docker-image://busybox"),
            ("filename", "x/Dockerfile"),
        ])
        .unwrap();
        let Frontend::Dockerfile(dockerfile) = &request.frontend else { panic!("a Dockerfile") };
        assert_eq!(request.platforms.len(), 2);
        assert_eq!(dockerfile.context, ContextSource::Client);
        assert_eq!(
            dockerfile.dockerfile,
            DockerfileSource::Client { name: "dockerfile".into(), path: "x/Dockerfile".into() }
        );
        assert_eq!((dockerfile.build_args["A"].as_str(), dockerfile.labels["l"].as_str()), ("1", "2"));
        assert_eq!(dockerfile.no_cache_stages, NoCache::All);
        assert_eq!(dockerfile.named_contexts[1].source, NamedContextSource::Client("other".into()));
        assert!(dockerfile.named_contexts[0].platform.is_some());
        assert_eq!((request.steps.extra_hosts.len(), request.steps.shm_size), (2, Some(5)));
        let git = of(&[("context", "https://host/x.git")]).unwrap();
        let Frontend::Dockerfile(dockerfile) = git.frontend else { panic!("a Dockerfile") };
        assert_eq!(dockerfile.dockerfile, DockerfileSource::Path("Dockerfile".into()));
    }

    #[test]
    fn mistakes_are_refused() {
        for (key, value) in [
            ("platform", "a/b/c/d"),
            ("force-network-mode", "x"),
            ("shm-size", "x"),
            ("ulimit", "x"),
            ("add-hosts", "x"),
            ("multi-platform", "x"),
            ("context:a", "x"),
            ("context:a", "x:y"),
            ("requestid", "x"),
        ] {
            assert!(of(&[(key, value)]).is_err(), "{key}={value}");
        }
    }
}
