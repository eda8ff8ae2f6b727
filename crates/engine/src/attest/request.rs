//! What a frontend was asked, as provenance tells it.

use std::collections::BTreeMap;

use serde::Serialize;
use slipway_dockerfile::GitReference;
use slipway_model::llb::pb;

use super::purl::redacted;
use super::sources::Sources;

/// Names of digests with their digits, as in-toto has them.
pub(crate) type DigestSet = BTreeMap<String, String>;

/// A request to a frontend, or of a client that is its own frontend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrontendRequest {
    /// Empty for a client that is its own frontend.
    pub frontend: String,
    pub options: BTreeMap<String, String>,
    pub inputs: BTreeMap<String, pb::Definition>,
}

impl FrontendRequest {
    /// Names the built-in frontend as what it is where it is asked for as an image.
    pub(super) fn plain(mut self) -> Self {
        let built_in = |source: &String| slipway_dockerfile::is_built_in(source);
        let replaced = self.options.keys().any(|key| key.starts_with("context:dockerfile.v0"));
        let named = matches!(self.frontend.as_str(), "gateway.v0" | "dockerfile.v0");
        if named && !replaced && self.options.get("source").is_some_and(built_in) {
            self.frontend = "dockerfile.v0".to_owned();
            self.options.remove("source");
        }
        self
    }

    /// Says that nothing was asked.
    pub(super) fn is_empty(&self) -> bool {
        self.frontend.is_empty() && self.options.is_empty() && self.inputs.is_empty()
    }

    /// Returns the options that say something of the build, without what is private or only of this machine.
    pub(super) fn arguments(&self) -> BTreeMap<String, String> {
        const OF_THE_MACHINE: [&str; 4] =
            ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
        let context = self.get("contextkey").unwrap_or(CONTEXT);
        let told = self
            .options
            .iter()
            .filter(|(key, _)| !OF_THE_MACHINE.contains(&key.as_str()) && !key.starts_with("attest:"));
        let shown = |(key, value): (&String, &String)| {
            let address = key == context || key.starts_with("context:");
            (key.clone(), if address { redacted(value) } else { value.clone() })
        };
        told.map(shown).collect()
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

const CONTEXT: &str = "context";

/// A request as it is told: where the configuration came from, and the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RequestProvenance {
    #[serde(rename = "configSource")]
    pub(crate) config_source: ConfigSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Parameters>,
}

/// Where the configuration of a build came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ConfigSource {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) uri: String,
    #[serde(skip_serializing_if = "DigestSet::is_empty")]
    pub(crate) digest: DigestSet,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
}

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Parameters {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) frontend: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) args: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<Credential>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ssh: Vec<Credential>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) locals: Vec<Local>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) inputs: BTreeMap<String, RequestProvenance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<Box<RequestProvenance>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compatibility_version: Option<u32>,
}

/// A secret or an agent that a step could use; never its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Credential {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) optional: bool,
}

/// A directory of the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Local {
    pub(crate) name: String,
}

impl RequestProvenance {
    /// Tells a request; `sources` are what the build was made from.
    pub(super) fn of(request: &FrontendRequest, sources: &Sources) -> Self {
        let mut args = request.arguments();
        let context = match (request.get("contextkey"), request.get("input:context")) {
            (Some(key), _) => key,
            (None, Some(_)) => "input:context",
            (None, None) => CONTEXT,
        };
        let mut config_source = ConfigSource::default();
        if let Some(address) = args.get(context).filter(|address| !address.is_empty()).cloned() {
            args.remove(context);
            (config_source.uri, config_source.digest) = found(&address, sources);
        }
        if let Some(path) = args.get("filename").filter(|path| !path.is_empty()).cloned() {
            args.remove("filename");
            config_source.path = path;
        }
        let request = Parameters { frontend: request.frontend.clone(), args, ..Parameters::default() };
        Self { config_source, request: Some(request) }
    }

    /// Takes out what is private, here and in what the request tells of others; says whether there was anything.
    pub(super) fn scrub(&mut self) -> bool {
        self.request.as_mut().is_some_and(Parameters::scrub)
    }
}

impl Parameters {
    /// Takes out what is private; says whether that makes the request incomplete.
    pub(super) fn scrub(&mut self) -> bool {
        let before = self.args.len();
        self.args.retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
        let mut incomplete = self.args.len() < before;
        self.secrets.clear();
        self.ssh.clear();
        for input in self.inputs.values_mut() {
            incomplete |= input.scrub();
        }
        if let Some(root) = &mut self.root {
            incomplete |= root.scrub();
        }
        incomplete
    }
}

/// Finds the material that an address stands for, and says what is told of it.
fn found(address: &str, sources: &Sources) -> (String, DigestSet) {
    let (whole, plain) = fragments(address);
    if let Some(git) = sources.git.iter().find(|git| git.url == plain) {
        return (whole, git.digests());
    }
    if let Some(http) = sources.http.iter().find(|http| http.url == plain) {
        return (http.url.clone(), http.digests());
    }
    (redacted(address), DigestSet::new())
}

/// Writes a repository's address with a fragment, whichever way it was written: with its directory, and without.
fn fragments(address: &str) -> (String, String) {
    let Ok(Some(git)) = GitReference::parse(address) else { return (address.to_owned(), address.to_owned()) };
    let reference = git.reference.as_deref().unwrap_or_default();
    let directory = git.directory.as_deref().unwrap_or_default().trim_matches('/');
    let with = |directory: &str| match (reference, directory) {
        ("", "") => git.remote.clone(),
        (reference, "") => format!("{}#{reference}", git.remote),
        (reference, directory) => format!("{}#{reference}:{directory}", git.remote),
    };
    (with(directory), with(""))
}
