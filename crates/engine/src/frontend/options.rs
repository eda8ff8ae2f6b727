//! The built-in frontend's string options, as clients send them, converted once.
//!
//! The names and the meaning of the values are BuildKit's. What is not known is passed over: a client of a later
//! version sends options that do not matter to it either.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use slipway_dockerfile::ResolveMode;
use slipway_model::attestation::Attestations;
use slipway_model::llb::pb;
use slipway_model::solve::{
    CacheOptions, CacheSpec, Call, ContextSource, DockerfileRequest, DockerfileSource, Entitlement,
    ExtraHost, Frontend, NamedContext, NamedContextSource, NetworkMode, NoCache, PlatformCheck, SolveRequest,
    StepOptions, Ulimit,
};
use slipway_model::{Diagnostic, ErrorKind, ImageConfig, Platform, Reference};

use super::image;
use crate::build::keys;

const DEFAULT_FILE: &str = "Dockerfile";
/// The names of the client's directories, if the client gives no others.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
/// What clients may ask of the frontend by name.
const CAPABILITIES: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// Makes a request of a client's options and inputs.
pub(super) fn request(
    options: &BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
    entitlements: &BTreeSet<Entitlement>,
) -> Result<SolveRequest, Diagnostic> {
    let options = Options { values: options, inputs };
    check_capabilities(options.values, false)?;
    let platforms: Vec<Platform> =
        options.list("platform").map(|text| options.platform(text)).collect::<Result<_, _>>()?;
    options.check_multi_platform(platforms.len())?;
    Ok(SolveRequest {
        id: String::new(),
        frontend: Frontend::Dockerfile(Box::new(options.dockerfile()?)),
        platforms,
        outputs: Vec::new(),
        cache: CacheOptions { imports: options.cache_imports()?, exports: Vec::new() },
        steps: options.steps()?,
        attestations: attestations(options.values)?,
        entitlements: entitlements.clone(),
        platform_check: PlatformCheck::Off,
        source_date_epoch: None,
        source_policy: None,
    })
}

/// Refuses what the client asks of the frontend by a name that is not known.
///
/// What a frontend in an image may know (`NAME+forward`) is only refused if `last`.
pub(super) fn check_capabilities(options: &BTreeMap<String, String>, last: bool) -> Result<(), Diagnostic> {
    let text = options.get("frontend.caps").map(String::as_str).unwrap_or_default();
    let asked = text.split(',').map(|text| text.split_once('+').unwrap_or((text, "")));
    let unknown = |(name, addition): &(&str, &str)| {
        !name.is_empty() && !CAPABILITIES.contains(name) && (last || *addition != "forward")
    };
    match asked.into_iter().find(unknown) {
        None => Ok(()),
        Some((name, _)) => Err(image::unsupported_capability(name)),
    }
}

struct Options<'a> {
    values: &'a BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
}

fn invalid(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}

/// A place that a cache comes from, as clients write it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CacheEntry {
    r#type: String,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

impl Options<'_> {
    /// Lists where caches come from. Those at the client are told apart from this, with its request.
    fn cache_imports(&self) -> Result<Vec<CacheSpec>, Diagnostic> {
        let text = self.get("cache-imports").unwrap_or("null");
        let entries: Option<Vec<CacheEntry>> = serde_json::from_str(text).map_err(|error| {
            invalid(format!("failed to unmarshal cache-imports ({text:?})")).cause(error.to_string())
        })?;
        let entries = entries.unwrap_or_default().into_iter();
        let spec = |entry: CacheEntry| CacheSpec {
            kind: entry.r#type,
            attributes: entry.attrs.unwrap_or_default().into_iter().collect(),
        };
        let mut imports: Vec<CacheSpec> = entries.map(spec).filter(|spec| spec.kind != "local").collect();
        for reference in self.list("cache-from") {
            let attributes = [("ref".to_owned(), reference.to_owned())].into();
            let import = CacheSpec { kind: "registry".to_owned(), attributes };
            if !imports.contains(&import) {
                imports.push(import);
            }
        }
        Ok(imports)
    }

    /// Returns an option that is not empty.
    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        self.get(key).into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|t| !t.is_empty())
    }

    /// Returns the options that begin with `prefix`, without it.
    fn below<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, &'s str)> {
        self.values.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
    }

    fn map(&self, prefix: &str) -> BTreeMap<String, String> {
        self.below(prefix).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, Diagnostic> {
        self.get(key)
            .map(|text| {
                text.parse().map_err(|error| {
                    invalid(format!("failed to parse {key}: invalid value `{text}`: {error}"))
                })
            })
            .transpose()
    }

    fn platform(&self, text: &str) -> Result<Platform, Diagnostic> {
        text.parse().map_err(|error| {
            invalid(format!("failed to parse target platform {text}")).cause(format!("{error}"))
        })
    }

    fn dockerfile(&self) -> Result<DockerfileRequest, Diagnostic> {
        let mut build_args = self.map("build-arg:");
        if let Some(several) = self.get("multi-platform") {
            build_args.entry("BUILDKIT_MULTI_PLATFORM".to_owned()).or_insert_with(|| several.to_owned());
        }
        let context = self.context();
        Ok(DockerfileRequest {
            dockerfile: self.dockerfile_source(&context),
            context,
            client_sessions: self.map("local-sessionid:"),
            target: self.get("target").map(str::to_owned),
            build_args,
            labels: self.map("label:"),
            vcs: self.map("vcs:"),
            named_contexts: self.named_contexts()?,
            context_directory: self.get("contextsubdir").map(str::to_owned),
            no_cache_stages: match self.values.get("no-cache").map(String::as_str) {
                None => NoCache::Nothing,
                Some("") => NoCache::All,
                Some(stages) => NoCache::Stages(stages.split(',').map(str::to_owned).collect()),
            },
            pull: match self.get("image-resolve-mode") {
                None => false,
                Some(text) => {
                    let invalid = |_| invalid(format!("invalid image-resolve-mode: {text}"));
                    text.parse::<ResolveMode>().map_err(invalid)? == ResolveMode::Pull
                }
            },
            call: match self.get("requestid") {
                None => Call::Build,
                Some("frontend.subrequests.describe") => Call::Describe,
                Some("frontend.outline") => Call::Outline,
                Some("frontend.targets") => Call::Targets,
                Some("frontend.lint") => Call::Check,
                Some(other) => return Err(image::unsupported_request(other)),
            },
        })
    }

    /// Refuses an answer that cannot hold what is asked for.
    fn check_multi_platform(&self, platforms: usize) -> Result<(), Diagnostic> {
        let asked = self.get("build-arg:BUILDKIT_MULTI_PLATFORM").or_else(|| self.get("multi-platform"));
        match asked.map(|text| (text, slipway_model::parse_bool(text))) {
            Some((text, None)) => Err(invalid(format!("invalid boolean value for multi-platform: {text}"))),
            Some((_, Some(false))) if platforms > 1 => {
                Err(invalid("conflicting config: returning multiple target platforms is not allowed"))
            }
            _ => Ok(()),
        }
    }

    fn context(&self) -> ContextSource {
        // The directory's name is the name of the option, too, that has an address instead.
        let key = self.get("contextkey").unwrap_or(CONTEXT);
        if let Some(url) = self.get(key).filter(|text| is_address(text)) {
            return ContextSource::Url(url.to_owned());
        }
        match self.inputs.get(CONTEXT) {
            Some(definition) => ContextSource::Definition(Box::new(definition.clone())),
            None => ContextSource::Client(key.to_owned()),
        }
    }

    fn dockerfile_source(&self, context: &ContextSource) -> DockerfileSource {
        let path = self.get("filename").unwrap_or(DEFAULT_FILE).to_owned();
        let key = self.get("dockerfilekey");
        let input = self.inputs.get(key.unwrap_or(DOCKERFILE));
        match (key, context, input) {
            (None, ContextSource::Url(_), _) => DockerfileSource::Path(path.into()),
            (None, _, Some(definition)) => {
                DockerfileSource::Definition { definition: Box::new(definition.clone()), path }
            }
            _ => DockerfileSource::Client { directory: key.unwrap_or(DOCKERFILE).to_owned(), path },
        }
    }

    fn named_contexts(&self) -> Result<Vec<NamedContext>, Diagnostic> {
        let context = |(key, value): (&str, &str)| {
            let (name, platform) = match key.split_once("::") {
                Some((name, platform)) => (name, Some(self.platform(platform)?)),
                None => (key, None),
            };
            Ok(NamedContext { name: name.to_owned(), platform, source: self.named_source(key, value)? })
        };
        self.below("context:").map(context).collect()
    }

    fn named_source(&self, key: &str, value: &str) -> Result<NamedContextSource, Diagnostic> {
        let (kind, rest) = value
            .split_once(':')
            .ok_or_else(|| invalid(format!("invalid context specifier {value} for {key}")))?;
        let plain = rest.strip_prefix("//").unwrap_or(rest);
        let reference = || -> Result<Reference, Diagnostic> {
            plain.parse().map_err(|error| {
                invalid(format!("invalid context specifier {value} for {key}")).cause(format!("{error}"))
            })
        };
        Ok(match kind {
            "docker-image" => NamedContextSource::Image(reference()?),
            "local" => NamedContextSource::Client(rest.to_owned()),
            "oci-layout" => {
                let (store, digest) = plain
                    .split_once('@')
                    .ok_or_else(|| invalid(format!("oci-layout reference `{plain}` has no digest")))?;
                // The name may have a tag, which says nothing beside the digest.
                let store =
                    store.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(store, |(s, _)| s);
                let digest = digest.parse().map_err(|error| {
                    invalid(format!("could not parse oci-layout reference `{plain}`"))
                        .cause(format!("{error}"))
                })?;
                NamedContextSource::ClientLayout { store: store.to_owned(), digest }
            }
            "input" => {
                let definition = self
                    .inputs
                    .get(rest)
                    .ok_or_else(|| invalid(format!("invalid input {rest} for {key}")))?;
                // Checked here, so that nobody later needs to.
                slipway_model::llb::Definition::decode(definition)
                    .map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
                NamedContextSource::Definition {
                    definition: Box::new(definition.clone()),
                    config: self.input_config(rest)?.map(Box::new),
                }
            }
            _ if is_address(value) => NamedContextSource::Url(value.to_owned()),
            other => return Err(invalid(format!("unsupported context source {other} for {key}"))),
        })
    }

    /// Reads the image config that comes with an input.
    fn input_config(&self, input: &str) -> Result<Option<ImageConfig>, Diagnostic> {
        let Some(text) = self.get(&format!("input-metadata:{input}")) else { return Ok(None) };
        let failed =
            |cause: String| invalid(format!("failed to parse input metadata of {input}")).cause(cause);
        let metadata: BTreeMap<String, String> =
            serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
        let Some(encoded) = metadata.get(keys::CONFIG) else { return Ok(None) };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
    }

    fn steps(&self) -> Result<StepOptions, Diagnostic> {
        let host = |text: &str| -> Result<ExtraHost, Diagnostic> {
            let (host, address) =
                text.split_once('=').ok_or_else(|| invalid(format!("invalid key-value pair {text}")))?;
            let address = address.trim_matches(['[', ']']).parse().map_err(|_| {
                invalid("failed to parse additional hosts").cause(format!("failed to parse IP {address}"))
            })?;
            Ok(ExtraHost { host: host.to_owned(), address })
        };
        Ok(StepOptions {
            network: match self.get("force-network-mode") {
                None | Some("default" | "sandbox") => NetworkMode::Default,
                Some("none") => NetworkMode::None,
                Some("host") => NetworkMode::Host,
                Some(other) => return Err(invalid(format!("invalid netmode {other}"))),
            },
            extra_hosts: self
                .list("add-hosts")
                .map(|text| host(text.trim_matches('"')))
                .collect::<Result<_, _>>()?,
            shm_size: self.number("shm-size")?,
            ulimits: self
                .list("ulimit")
                .map(|text| ulimit(text.trim_matches('"')))
                .collect::<Result<_, _>>()?,
            cgroup_parent: self.get("cgroup-parent").map(str::to_owned),
            hostname: self.get("hostname").map(str::to_owned),
            resources: pb::LinuxResources {
                memory: self.number("memory")?.unwrap_or_default(),
                memory_swap: self.number("memswap")?.unwrap_or_default(),
                cpu_shares: self.number("cpushares")?.unwrap_or_default(),
                cpu_period: self.number("cpuperiod")?.unwrap_or_default(),
                cpu_quota: self.number("cpuquota")?.unwrap_or_default(),
                cpuset_cpus: self.get("cpusetcpus").unwrap_or_default().to_owned(),
                cpuset_mems: self.get("cpusetmems").unwrap_or_default().to_owned(),
            },
            ..StepOptions::default()
        })
    }
}

/// Reads which attestations are asked for: `attest:KIND`, or a build argument `BUILDKIT_ATTEST_KIND`.
pub fn attestations(options: &BTreeMap<String, String>) -> Result<Attestations, Diagnostic> {
    let mut asked = Attestations::default();
    for (key, text) in options {
        let kind = key.strip_prefix("attest:").or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
        let Some(kind) = kind.map(str::to_lowercase) else { continue };
        let mut attributes = BTreeMap::new();
        if !text.is_empty() {
            let fields = slipway_model::csv::fields(text);
            let fields = fields
                .map_err(|error| invalid(format!("failed to parse {kind}")).cause(error.to_string()))?;
            attributes.extend(fields.iter().map(|field| {
                let (name, value) = field.split_once('=').unwrap_or((field, ""));
                (name.to_owned(), value.to_owned())
            }));
        }
        if attributes.get("disabled").map(String::as_str) == Some("true") {
            continue;
        }
        asked.set(&kind, &attributes).map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
    }
    Ok(asked)
}

/// Tells whether a context is somewhere on the web or in a repository.
fn is_address(text: &str) -> bool {
    const SCHEMES: [&str; 5] = ["http://", "https://", "git://", "ssh://", "git@"];
    SCHEMES.iter().any(|scheme| text.starts_with(scheme)) || text.starts_with("github.com/")
}

fn ulimit(text: &str) -> Result<Ulimit, Diagnostic> {
    let failed = || invalid(format!("failed to parse ulimit: invalid value `{text}`"));
    let (name, values) = text.split_once('=').ok_or_else(failed)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().map_err(|_| failed());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn dockerfile(values: &[(&str, &str)]) -> DockerfileRequest {
        let Frontend::Dockerfile(request) =
            request(&options(values), BTreeMap::new(), &BTreeSet::new()).unwrap().frontend
        else {
            panic!()
        };
        *request
    }

    #[test]
    fn caches_are_named_in_two_ways() {
        let imports = |values: &[(&str, &str)]| {
            let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let options = Options { values: &values, inputs: BTreeMap::new() };
            let imports = options.cache_imports()?;
            let named = |spec: CacheSpec| format!("{} {:?}", spec.kind, spec.attributes.get("ref"));
            Ok::<_, Diagnostic>(imports.into_iter().map(named).collect::<Vec<_>>())
        };
        let entries =
            r#"[{"Type":"registry","Attrs":{"ref":"r.example/a"}},{"Type":"local","Attrs":{"src":"x"}}]"#;
        let both = [("cache-imports", entries), ("cache-from", "r.example/a, r.example/b")];
        assert_eq!(
            imports(&both).unwrap(),
            [r#"registry Some("r.example/a")"#, r#"registry Some("r.example/b")"#]
        );
        assert!(imports(&[]).unwrap().is_empty());
        assert!(imports(&[("cache-imports", "nonsense")]).is_err());
    }

    #[test]
    fn nothing_said_is_the_usual() {
        let made = dockerfile(&[]);
        assert_eq!(made.context, ContextSource::Client("context".to_owned()));
        let path = "Dockerfile".to_owned();
        assert_eq!(made.dockerfile, DockerfileSource::Client { directory: "dockerfile".to_owned(), path });
        assert_eq!(made.no_cache_stages, NoCache::Nothing);
    }

    #[test]
    fn options_are_read() {
        let values = [
            ("platform", "linux/amd64,linux/arm64"),
            ("build-arg:A", "1"),
            ("no-cache", ""),
            ("add-hosts", "a=10.0.0.1,b=::1"),
            ("ulimit", "nofile=10:20,core=0"),
            ("shm-size", "1048576"),
            ("force-network-mode", "none"),
            ("later-option", "x"),
        ];
        let made = request(&options(&values), BTreeMap::new(), &BTreeSet::new()).unwrap();
        assert_eq!(made.platforms.len(), 2);
        assert_eq!((made.steps.extra_hosts.len(), made.steps.ulimits[0].hard), (2, 20));
        assert_eq!((made.steps.shm_size, made.steps.network), (Some(1 << 20), NetworkMode::None));
        assert_eq!(dockerfile(&values).no_cache_stages, NoCache::All);
        assert_eq!(dockerfile(&values).build_args["A"], "1");
    }

    #[test]
    fn named_contexts_of_every_kind() {
        let digest = slipway_model::Digest::of("x");
        let layout = format!("oci-layout://store:tag@{digest}");
        let values = [
            ("context:a", "docker-image://busybox"),
            ("context:b::linux/arm64", "local:b"),
            ("context:c", layout.as_str()),
            ("context:d", "https://host/x.git#main"),
        ];
        let contexts = dockerfile(&values).named_contexts;
        assert!(matches!(&contexts[0].source, NamedContextSource::Image(_)));
        assert_eq!(contexts[1].platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!(contexts[1].source, NamedContextSource::Client("b".to_owned()));
        assert_eq!(
            contexts[2].source,
            NamedContextSource::ClientLayout { store: "store".to_owned(), digest }
        );
        assert!(matches!(&contexts[3].source, NamedContextSource::Url(_)));
    }

    #[test]
    fn nonsense_is_an_error() {
        for (key, value) in [
            ("platform", "///"),
            ("context:a", "nothing"),
            ("context:a", "moon:x"),
            ("context:a", "input:missing"),
            ("context:a", "oci-layout://x"),
            ("requestid", "frontend.moon"),
            ("add-hosts", "a"),
            ("ulimit", "x=y"),
            ("shm-size", "-"),
            ("force-network-mode", "moon"),
        ] {
            assert!(
                request(&options(&[(key, value)]), BTreeMap::new(), &BTreeSet::new()).is_err(),
                "{key}={value}"
            );
        }
    }
}
