//! From a parsed Dockerfile to operations and an image config.
//!
//! A conversion is for one target platform and goes through these steps:
//!
//! 1. [`setup`]: global arguments, the stages, which stage needs which.
//! 2. [`resolve`]: the base images of the stages that the target needs; their `ONBUILD` triggers may need more.
//! 3. [`dispatch`]: each needed stage in order, each instruction in order; [`exec`] and [`copy`] make operations.
//! 4. Here: the target's result becomes the definition, its config the image.
//!
//! Stages that the target does not need are not converted, but `check` looks at all of them.
//!
//! Invariant: the bytes of an operation depend only on what the step does. Names, lines and the like go to
//! the metadata, so that a stage on the build platform is the same vertex whatever the target platform is.

mod bases;
mod chmod;
mod context;
mod copy;
mod dispatch;
mod epoch;
mod exec;
mod expose;
mod image;
mod names;
mod outline;
mod resolve;
mod setup;
mod signal;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slipway_model::llb::{GraphBuilder, pb};
use slipway_model::{Diagnostic, Digest, ImageConfig, Platform, Reference};

pub use bases::{BaseImage, bases};
pub use context::{context_definition, local};
pub(crate) use outline::OutlineCapture;
pub(crate) use stage::StageState;

use crate::expand::{EnvList, Expander};
use crate::lint::{LintConfig, Linter};
use crate::parser::directive_value;
use crate::problem::Problem;
use crate::{ConvertOptions, ImageResolver, Lines, LintWarning, SourceFile};

/// Is a Dockerfile converted for one platform.
#[derive(Clone, Debug)]
pub struct Converted {
    pub definition: pb::Definition,
    /// The config, with the whole history; without the layers' digests and the time of creation.
    pub image: ImageConfig,
    /// The image that the target is based on, if it is.
    pub base: Option<BaseInfo>,
    pub warnings: Vec<LintWarning>,
    /// Which checks apply, for those that the engine makes itself.
    pub lint: LintConfig,
    pub contexts: ContextUse,
    /// The file that locations point into.
    pub source: Arc<pb::SourceInfo>,
    /// For each entry of the image's history the lines it comes from; `None` for the base image's entries.
    pub history_lines: Vec<Option<Lines>>,
    /// Seconds since 1970 that `SOURCE_DATE_EPOCH` says.
    pub epoch: Option<i64>,
    /// What an SBOM is to cover beside the result (`BUILDKIT_SBOM_SCAN_STAGE`).
    pub scan_stages: Vec<ScanStage>,
    /// An SBOM is to cover the build context (`BUILDKIT_SBOM_SCAN_CONTEXT`).
    pub scan_context: bool,
}

/// Names the image that a result is based on.
#[derive(Clone, Debug)]
pub struct BaseInfo {
    /// `None` for an image without a name in a registry, as a layout's.
    pub reference: Option<Reference>,
    pub digest: Digest,
    pub config_digest: Option<Digest>,
    pub platform: Platform,
    /// As the registry has it.
    pub config: ImageConfig,
    /// What the `FROM` calls it.
    pub name: String,
    /// The `FROM` that names it.
    pub lines: Lines,
}

/// A stage that an SBOM is to cover.
#[derive(Clone, Debug)]
pub struct ScanStage {
    pub name: String,
    pub definition: pb::Definition,
}

/// Says which files of the contexts a build can read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextUse {
    /// `None` if the main context is not needed.
    pub main: Option<ContextPaths>,
    /// By the name in the source operation (`name` or `name::platform`).
    pub named: BTreeMap<String, ContextPaths>,
}

/// Some paths of a context, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextPaths {
    All,
    /// Paths and patterns, without a slash in front; symbolic links at them have to be followed.
    Some(Vec<String>),
}

impl ContextPaths {
    pub(crate) fn from_set(paths: &BTreeSet<String>) -> Self {
        if paths.is_empty() || paths.contains("/") {
            return Self::All;
        }
        Self::Some(paths.iter().map(|path| path.trim_start_matches('/').to_owned()).collect())
    }
}

/// Says why a Dockerfile cannot be converted; the warnings found until then are kept.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// At least one; the first is the one that the reference would report.
    pub diagnostics: Vec<Diagnostic>,
    pub warnings: Vec<LintWarning>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for diagnostic in &self.diagnostics {
            write!(f, "{separator}{diagnostic}")?;
            separator = "\n";
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What a conversion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Build,
    /// Only the warnings and the first error count; with no target, all stages are looked at.
    Check,
    Outline,
}

/// Holds everything during a conversion.
pub(crate) struct Converter<'a> {
    options: &'a ConvertOptions,
    resolver: &'a dyn ImageResolver,
    purpose: Purpose,
    source: Arc<pb::SourceInfo>,
    linter: Linter,
    expander: Expander,
    /// The options', except that `SOURCE_DATE_EPOCH` is a number here.
    build_args: BTreeMap<String, String>,
    global_args: EnvList,
    epoch: Option<i64>,
    graph: GraphBuilder,
    pub(crate) stages: Vec<StageState>,
    /// The stages of the file come first in `stages`; the others are images and contexts.
    file_stages: usize,
    /// Paths that are read of a stage, shared by a stage and those based on it.
    path_sets: Vec<BTreeSet<String>>,
    main_context: context::Main,
    problems: Vec<Problem>,
}

/// Converts a Dockerfile for the platform that `options` name.
pub async fn convert(
    source: &SourceFile,
    options: &ConvertOptions,
    resolver: &dyn ImageResolver,
) -> Result<Converted, Failure> {
    let info = source.info();
    let fail = |problems: Vec<Problem>, warnings| {
        let on_platform = |problem: Problem| {
            let platform = options.multi_platform.then(|| options.platform.clone());
            problem.into_diagnostic(&info).on(platform)
        };
        Failure { diagnostics: problems.into_iter().map(on_platform).collect(), warnings }
    };
    let mut converter = match Converter::new(source, options, resolver, Purpose::Build) {
        Ok(converter) => converter,
        Err((problems, warnings)) => return Err(fail(problems, warnings)),
    };
    match converter.run().await {
        Ok(target) => Ok(converter.finish(target)),
        Err(problems) => Err(fail(problems, converter.into_warnings())),
    }
}

/// Problems, and the warnings found before them.
type Refusal = (Vec<Problem>, Vec<LintWarning>);

impl<'a> Converter<'a> {
    /// Reads the file and checks its form.
    pub(crate) fn new(
        source: &SourceFile,
        options: &'a ConvertOptions,
        resolver: &'a dyn ImageResolver,
        purpose: Purpose,
    ) -> Result<Self, Refusal> {
        let text = source.text();
        if text.is_empty() {
            let problem = Problem::new("the Dockerfile cannot be empty");
            return Err((vec![problem.hint("a Dockerfile starts with a `FROM` instruction")], Vec::new()));
        }
        let config = lint_config(&text, options).map_err(|problem| (vec![problem], Vec::new()))?;
        let linter = Linter::new(config);
        let reading = crate::document::read(source);
        let document = setup::checked(reading, &linter);
        let document = match document {
            Ok(document) => document,
            Err(problems) => return Err((problems, linter.into_warnings())),
        };
        let mut graph = GraphBuilder::new();
        let info = source.info();
        graph.add_source(info.as_ref().clone());
        let mut converter = Self {
            options,
            resolver,
            purpose,
            source: info,
            linter,
            expander: Expander::new(document.escape),
            build_args: options.build_args.clone(),
            global_args: EnvList::default(),
            epoch: None,
            graph,
            stages: Vec::new(),
            file_stages: 0,
            path_sets: Vec::new(),
            main_context: context::Main::default(),
            problems: Vec::new(),
        };
        converter.set_up(document);
        if converter.problems.is_empty() {
            return Ok(converter);
        }
        let problems = std::mem::take(&mut converter.problems);
        Err((problems, converter.into_warnings()))
    }

    /// Converts everything that is needed; returns the target's index.
    pub(crate) async fn run(&mut self) -> Result<usize, Vec<Problem>> {
        self.resolve_epoch().await.map_err(|problem| vec![problem])?;
        let target = self.target().map_err(|problem| vec![problem])?;
        self.link_stages()?;
        let needed = self.resolve_stages(target).await?;
        self.dispatch_stages(&needed);
        if !self.problems.is_empty() {
            return Err(std::mem::take(&mut self.problems));
        }
        if let Some(violation) = self.linter.violation() {
            return Err(vec![violation]);
        }
        Ok(target)
    }

    pub(crate) fn into_warnings(self) -> Vec<LintWarning> {
        self.linter.into_warnings()
    }

    /// Runs the checks that need a finished conversion, and takes it apart.
    fn finish(self, target: usize) -> Converted {
        let contexts = self.context_use(target);
        let needed = self.reachable(target);
        let scan_context = self.stages[target].scan_context;
        let scan_stages = needed
            .iter()
            .filter(|&&index| index != target && self.stages[index].scan_stage)
            .map(|&index| ScanStage {
                name: self.stages[index].display_name.clone(),
                definition: self.graph.finish(self.stages[index].files.output),
            })
            .collect();
        let definition = self.graph.finish(self.stages[target].files.output);
        let Self { options, mut stages, source, linter, epoch, .. } = self;
        let stage = stages.swap_remove(target);
        let (image, history_lines) = image::finished(stage.image, stage.history_lines, options);
        Converted {
            definition,
            image,
            base: stage.base_info,
            lint: linter.config.clone(),
            warnings: linter.into_warnings(),
            contexts,
            source,
            history_lines,
            epoch,
            scan_stages,
            scan_context,
        }
    }
}

/// Finds which rules apply: the build argument's word counts before the file's.
fn lint_config(text: &str, options: &ConvertOptions) -> Result<LintConfig, Problem> {
    if let Some(value) = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        let what = "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK";
        return LintConfig::parse(value).map_err(|problem| problem.context(what));
    }
    let Some((value, lines)) = directive_value(text, "check") else { return Ok(LintConfig::default()) };
    LintConfig::parse(&value).map_err(|problem| problem.context("failed to parse check options").at(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_context() {
        let set = |paths: &[&str]| ContextPaths::from_set(&paths.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(set(&["/a/b", "/c*"]), ContextPaths::Some(vec!["a/b".into(), "c*".into()]));
        assert_eq!(set(&["/a", "/"]), ContextPaths::All);
    }
}
