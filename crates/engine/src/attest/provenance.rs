//! The provenance of one result: put together when the result is known, written when its output is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use slipway_model::attestation::{ProvenanceMode, ProvenanceOptions};
use slipway_model::{Descriptor, Diagnostic, ErrorDetail, ErrorKind, ForeignError, Platform};

use super::layers;
use super::predicate::{Invocation, Predicate, predicate_type};
use super::scope::of_platform;
use super::sources::{Sources, Uncaptured};
use super::steps::{self, Numbers};
use crate::build::{Build, BuildResult, Ref};
use crate::job::Job;

/// What can be told of how a result was made.
pub(crate) struct Provenance {
    job: Arc<Job>,
    predicate: Predicate,
    options: ProvenanceOptions,
    /// What the layers are found by, if they are told.
    steps: Option<(Ref, Numbers)>,
}

impl std::fmt::Debug for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provenance").field("predicate", &self.predicate).finish_non_exhaustive()
    }
}

impl Provenance {
    /// Collects what is known of a result for one platform.
    pub(super) fn of(
        build: &Build,
        result: &BuildResult,
        reference: &Ref,
        platform: &Platform,
        options: &ProvenanceOptions,
    ) -> Result<Self, Diagnostic> {
        let job = &build.job;
        let results: Vec<_> =
            result.all_refs().filter_map(|one| Some(one.decoded().result?.vertex)).collect();
        let platforms: Vec<Platform> =
            result.platforms()?.into_iter().map(|(_, platform)| platform).collect();
        let scope = reference.scope();
        let sources = scope.sources(Some(reference.decoded()), &results, &job.notes.pins, &|images| {
            of_platform(images, &platforms, platform)
        });
        let told = scope.request(&sources, &job.engine.producers);
        let mut predicate = Predicate::new(&sources, told, options, job.compatibility);
        if options.complete_materials && !predicate.materials_are_complete() {
            return Err(incomplete(&sources));
        }
        let mut steps = None;
        if options.mode == ProvenanceMode::Max {
            let (config, files, numbers) = steps::of(reference.definition())?;
            predicate.add_steps(config, files);
            steps = Some((reference.clone(), numbers));
        }
        Ok(Self { job: job.clone(), predicate, options: options.clone(), steps })
    }

    pub(super) fn predicate_type(&self) -> &'static str {
        predicate_type(self.options.version)
    }

    pub(super) fn file_name(&self) -> &str {
        &self.options.filename
    }

    pub(super) fn inline_only(&self) -> bool {
        self.options.inline_only
    }

    /// Tells whether nobody asked for it.
    pub(crate) fn is_unasked(&self) -> bool {
        self.options == ProvenanceOptions::unasked()
    }

    /// Writes the predicate for an output with these layers.
    pub(crate) fn write(&self, layers: &[Descriptor]) -> Value {
        let invocation =
            Invocation { id: self.job.invocation(), started: self.job.started, finished: SystemTime::now() };
        let environment = &self.job.engine.config.provenance_environment;
        let mut predicate = self.predicate.clone();
        if let Some((reference, numbers)) = &self.steps {
            predicate.add_layers(self.layers_of_steps(reference, numbers, layers));
        }
        predicate.write(self.options.version, Some(&invocation), environment)
    }

    /// Writes what the predicate says however often and whenever the build is run.
    pub(crate) fn lasting(&self) -> Value {
        self.predicate.write(self.options.version, None, &self.job.engine.config.provenance_environment)
    }

    fn layers_of_steps(
        &self,
        reference: &Ref,
        numbers: &Numbers,
        layers: &[Descriptor],
    ) -> BTreeMap<String, Vec<Vec<Descriptor>>> {
        let chains = layers::by_edge(reference.decoded(), layers, &self.job.notes.pins);
        let named = chains.into_iter().filter_map(|(edge, chain)| {
            Some((format!("{}:{}", numbers.name(&edge.vertex)?, edge.index), vec![chain.to_vec()]))
        });
        named.collect()
    }
}

/// Says why not everything that a build was made from can be told, in a form that clients of BuildKit know too.
fn incomplete(sources: &Sources) -> Diagnostic {
    let mut diagnostic = Diagnostic::new(ErrorKind::User, "provenance materials are incomplete").cause(
        "The build requested complete provenance materials, but not all dependencies could be captured.",
    );
    let mut missed = Vec::new();
    for name in &sources.locals {
        missed.push(json!({ "name": name, "reason": "local_source" }));
        diagnostic = diagnostic.cause(format!("Uncaptured local source: {name}"));
    }
    for Uncaptured { op, name, method, uri, reason } in &sources.uncaptured {
        missed.push(json!({ "op": op, "name": name, "method": method, "uri": uri, "reason": reason }));
        diagnostic = diagnostic.cause(format!("Uncaptured request: {method} {uri} ({reason}) by {name}"));
    }
    let detail = ErrorDetail {
        type_url: "github.com/moby/buildkit/errdefs.ProvenanceMaterialsIncomplete+json".to_owned(),
        value: json!({ "incomplete": missed }).to_string().into_bytes(),
    };
    diagnostic.foreign = Some(ForeignError { code: ForeignError::UNKNOWN, details: vec![detail] }.into());
    diagnostic
}
