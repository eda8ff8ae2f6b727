//! The provenance predicate, in the versions of SLSA that clients ask for, with BuildKit's members.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value, json};
use slipway_model::attestation::{ProvenanceMode, ProvenanceOptions, SlsaVersion};
use slipway_model::{Compatibility, Platform};

use super::request::{ConfigSource, Local, Parameters, RequestProvenance};
use super::sources::{Material, Sources};
use super::steps::{BuildConfig, StepSources};
use crate::exporters::assemble::rfc3339;

/// What comes before the version in the type of every provenance.
pub(crate) const SLSA: &str = "https://slsa.dev/provenance/";
const V1: &str = "https://slsa.dev/provenance/v1";
const V02: &str = "https://slsa.dev/provenance/v0.2";
const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
pub(super) const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";

/// Returns the type of a predicate.
pub(crate) fn predicate_type(version: SlsaVersion) -> &'static str {
    match version {
        SlsaVersion::V1 => V1,
        SlsaVersion::V02 => V02,
    }
}

/// Everything that a provenance says, whichever way it is written.
#[derive(Clone, Debug)]
pub(crate) struct Predicate {
    materials: Vec<Material>,
    config_source: ConfigSource,
    request: Parameters,
    /// The build's inputs are all known.
    complete_request: bool,
    complete_materials: bool,
    hermetic: bool,
    vcs: BTreeMap<String, String>,
    reproducible: bool,
    builder_id: String,
    /// The frontend's own version, of the built-in one.
    dockerfile_version: Option<String>,
    steps: Option<BuildConfig>,
    step_sources: Option<StepSources>,
    layers: Value,
    /// How steps reached the network, if that was watched.
    network: Value,
}

/// What tells one run of a build from another.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    pub(crate) id: String,
    pub(crate) started: SystemTime,
    pub(crate) finished: SystemTime,
}

impl Predicate {
    /// Tells what a result was made from, and by which request.
    pub(super) fn new(
        sources: &Sources,
        told: Option<RequestProvenance>,
        options: &ProvenanceOptions,
        compatibility: Compatibility,
    ) -> Self {
        let told = told.unwrap_or_default();
        let mut request = told.request.unwrap_or_default();
        let complete_request = !request.frontend.is_empty();
        let vcs = take_vcs(&mut request.args);
        request.secrets.clone_from(&sources.secrets);
        request.ssh.clone_from(&sources.ssh);
        request.locals = sources.locals.iter().map(|name| Local { name: name.clone() }).collect();
        request.compatibility_version = Some(compatibility.number());
        let complete_materials =
            !sources.incomplete && sources.locals.is_empty() && sources.uncaptured.is_empty();
        let built_in = request.frontend == "dockerfile.v0";
        let mut predicate = Self {
            materials: sources.materials(),
            config_source: told.config_source,
            request,
            complete_request,
            complete_materials,
            hermetic: complete_materials && !sources.network,
            vcs,
            reproducible: options.reproducible,
            builder_id: options.builder_id.clone(),
            dockerfile_version: built_in.then(|| slipway_dockerfile::SYNTAX_VERSION.to_owned()),
            steps: None,
            step_sources: None,
            layers: Value::Null,
            network: network(sources),
        };
        if options.mode == ProvenanceMode::Min && predicate.request.scrub() {
            predicate.complete_request = false;
        }
        predicate
    }

    /// Adds what was run, and where that stands in which file.
    pub(super) fn add_steps(&mut self, steps: BuildConfig, sources: Option<StepSources>) {
        (self.steps, self.step_sources) = (Some(steps), sources);
    }

    /// Adds the layers that steps gave, by step and output.
    pub(super) fn add_layers(&mut self, layers: BTreeMap<String, Vec<Vec<slipway_model::Descriptor>>>) {
        self.layers = if layers.is_empty() { Value::Null } else { json!(layers) };
    }

    pub(super) fn materials_are_complete(&self) -> bool {
        self.complete_materials
    }

    /// Writes the predicate; without an invocation it says only what does not change from run to run.
    pub(crate) fn write(
        &self,
        version: SlsaVersion,
        invocation: Option<&Invocation>,
        environment: &Map<String, Value>,
    ) -> Value {
        match version {
            SlsaVersion::V1 => self.v1(invocation, environment),
            SlsaVersion::V02 => self.v02(invocation, environment),
        }
    }

    fn v1(&self, invocation: Option<&Invocation>, environment: &Map<String, Value>) -> Value {
        let mut metadata = members(&[
            ("buildkit_metadata", self.extension()),
            ("buildkit_hermetic", flag(self.hermetic)),
            (
                "buildkit_completeness",
                json!({ "request": self.complete_request, "resolvedDependencies": self.complete_materials }),
            ),
            ("buildkit_reproducible", flag(self.reproducible)),
        ]);
        if let Some(invocation) = invocation {
            metadata.insert("invocationId".to_owned(), json!(invocation.id));
            metadata.insert("startedOn".to_owned(), json!(rfc3339(invocation.started)));
            metadata.insert("finishedOn".to_owned(), json!(rfc3339(invocation.finished)));
        }
        let mut internal = members(&[
            ("buildConfig", value(self.steps.as_ref())),
            ("builderPlatform", json!(Platform::host().to_string())),
            ("dockerfileVersion", value(self.dockerfile_version.as_ref())),
        ]);
        internal.extend(environment.clone());
        let materials = self.materials.iter().map(material);
        json!({
            "buildDefinition": members(&[
                ("buildType", json!(BUILD_TYPE_V1)),
                ("resolvedDependencies", list(materials)),
                ("externalParameters", json!({ "configSource": self.config_source, "request": self.request })),
                ("internalParameters", Value::Object(internal)),
            ]),
            "runDetails": { "builder": { "id": self.builder_id }, "metadata": metadata },
        })
    }

    fn v02(&self, invocation: Option<&Invocation>, own: &Map<String, Value>) -> Value {
        let mut metadata = members(&[
            (
                "completeness",
                json!({
                    "parameters": self.complete_request,
                    "environment": true,
                    "materials": self.complete_materials,
                }),
            ),
            ("reproducible", json!(self.reproducible)),
            ("https://mobyproject.org/buildkit@v1#metadata", self.extension()),
            ("https://mobyproject.org/buildkit@v1#hermetic", flag(self.hermetic)),
        ]);
        if let Some(invocation) = invocation {
            metadata.insert("buildInvocationID".to_owned(), json!(invocation.id));
            metadata.insert("buildStartedOn".to_owned(), json!(rfc3339(invocation.started)));
            metadata.insert("buildFinishedOn".to_owned(), json!(rfc3339(invocation.finished)));
        }
        let mut environment = members(&[
            ("platform", json!(Platform::host().to_string())),
            ("dockerfileVersion", value(self.dockerfile_version.as_ref())),
        ]);
        environment.extend(own.clone());
        let source = &self.config_source;
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let digest = if source.digest.is_empty() { Value::Null } else { json!(source.digest) };
        let config_source =
            members(&[("uri", text(&source.uri)), ("digest", digest), ("entryPoint", text(&source.path))]);
        Value::Object(members(&[
            ("builder", json!({ "id": self.builder_id })),
            ("buildType", json!(BUILD_TYPE_V02)),
            ("materials", list(self.materials.iter().map(material))),
            (
                "invocation",
                json!({
                    "configSource": config_source,
                    "parameters": self.request,
                    "environment": environment,
                }),
            ),
            ("buildConfig", value(self.steps.as_ref())),
            ("metadata", Value::Object(metadata)),
        ]))
    }

    /// Writes what only BuildKit tells.
    fn extension(&self) -> Value {
        let vcs = if self.vcs.is_empty() { Value::Null } else { json!(self.vcs) };
        Value::Object(members(&[
            ("vcs", vcs),
            ("source", value(self.step_sources.as_ref())),
            ("layers", self.layers.clone()),
            ("network", self.network.clone()),
        ]))
    }
}

/// Tells how steps reached the network, if they did so through a proxy.
fn network(sources: &Sources) -> Value {
    match (sources.proxied, sources.uncaptured.as_slice()) {
        (false, _) => Value::Null,
        (true, []) => json!({ "mode": "proxy" }),
        (true, missed) => json!({ "mode": "proxy", "proxy": { "incomplete": missed } }),
    }
}

/// Takes out of the arguments what says where the configuration is kept.
fn take_vcs(args: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut vcs = BTreeMap::new();
    args.retain(|key, value| {
        let Some(name) = key.strip_prefix("vcs:") else { return true };
        if !value.is_empty() {
            let shown = if name == "source" { super::purl::redacted(value) } else { value.clone() };
            vcs.insert(name.to_owned(), shown);
        }
        false
    });
    vcs
}

fn material(material: &Material) -> Value {
    json!({ "uri": material.uri, "digest": material.digest })
}

/// Makes an object of the members that say something.
fn members(members: &[(&str, Value)]) -> Map<String, Value> {
    let said = members.iter().filter(|(_, value)| !value.is_null());
    said.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn value(value: Option<&impl Serialize>) -> Value {
    value.map_or(Value::Null, |value| json!(value))
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    let values: Vec<Value> = values.collect();
    if values.is_empty() { Value::Null } else { Value::Array(values) }
}

/// Writes a flag that is left out where it is not set.
fn flag(set: bool) -> Value {
    if set { json!(true) } else { Value::Null }
}
