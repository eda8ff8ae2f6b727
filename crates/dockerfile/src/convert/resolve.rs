//! The second step: what the stages that are needed are based on.
//!
//! All images of a round are asked for at once. A round can bring `ONBUILD` triggers that need further
//! stages, so rounds go on until none does.

use std::collections::BTreeSet;

use slipway_model::llb::{Edge, VertexMeta, pb};
use slipway_model::{ImageConfig, ParseReferenceError, Platform, Reference};

use super::context::ContextSource;
use super::stage::Files;
use super::{BaseInfo, Converter, Purpose, image, names};
use crate::expand::NoVariables;
use crate::instruction::{InstructionKind, parse_instruction};
use crate::lint::rules;
use crate::options::{ImageOrigin, ResolveRequest, ResolvedImage};
use crate::problem::Problem;
use crate::suggest::Case;
use crate::text::quote;

/// Says how a stage gets its base.
pub(super) struct Plan {
    pub(super) stage: usize,
    pub(super) platform: Platform,
    /// The named context it comes from.
    pub(super) context: Option<usize>,
    source: Option<pb::SourceOp>,
    definition: Option<(Box<pb::Definition>, Option<Box<ImageConfig>>)>,
    pub(super) request: Option<ResolveRequest>,
}

/// Names that people often mean when they misspell an image.
const COMMON_IMAGES: [&str; 14] = [
    "alpine",
    "busybox",
    "centos",
    "debian",
    "golang",
    "ubuntu",
    "fedora",
    "alpine:latest",
    "busybox:latest",
    "centos:latest",
    "debian:latest",
    "golang:latest",
    "ubuntu:latest",
    "fedora:latest",
];

impl Converter<'_> {
    /// Resolves all bases that `target` needs; returns the stages to convert.
    pub(super) async fn resolve_stages(&mut self, target: usize) -> Result<BTreeSet<usize>, Vec<Problem>> {
        loop {
            let needed = self.needed(target);
            let plans = self.plans(&needed)?;
            let resolver = self.resolver;
            let answers = plans.iter().map(|plan| async move {
                match plan.request.clone() {
                    Some(request) => Some(resolver.resolve(request).await),
                    None => None,
                }
            });
            let answers = futures_util::future::join_all(answers).await;
            let mut problems = Vec::new();
            for (plan, answer) in plans.into_iter().zip(answers) {
                match answer.transpose() {
                    Ok(answer) => self.set_base(plan, answer),
                    Err(error) => problems.push(self.unresolved(&plan, error.into())),
                }
            }
            if !problems.is_empty() {
                return Err(problems);
            }
            let new_needs = self.read_triggers(target).map_err(|problem| vec![problem])?;
            if !new_needs {
                return Ok(self.needed(target));
            }
        }
    }

    /// Lists the stages to convert: what the target needs; for a check without target, all.
    pub(super) fn needed(&self, target: usize) -> BTreeSet<usize> {
        if self.purpose == Purpose::Check && self.options.target.is_none() {
            return (0..self.stages.len()).collect();
        }
        self.reachable(target).into_iter().collect()
    }

    /// Says how each needed stage that has no base yet gets it; empty bases are set at once.
    pub(super) fn plans(&mut self, needed: &BTreeSet<usize>) -> Result<Vec<Plan>, Vec<Problem>> {
        let (mut plans, mut problems) = (Vec::new(), Vec::new());
        for &index in needed {
            let stage = &mut self.stages[index];
            if stage.base.is_some() || stage.dispatched || std::mem::replace(&mut stage.resolved, true) {
                continue;
            }
            if stage.base_name == "scratch" && stage.named_context.is_none() {
                stage.image = image::empty(&self.options.platform);
                stage.platform = Some(self.options.platform.clone());
                stage.dispatched = index >= self.file_stages;
                continue;
            }
            let lines = stage.lines;
            match self.plan(index) {
                Ok(plan) => plans.push(plan),
                Err(problem) => problems.push(problem.at(lines)),
            }
        }
        if problems.is_empty() { Ok(plans) } else { Err(problems) }
    }

    fn plan(&self, index: usize) -> Result<Plan, Problem> {
        let stage = &self.stages[index];
        let platform = stage.platform.as_ref().unwrap_or(&self.options.platform).clone();
        let span = Some(stage.lines.span(&self.source, Some(&stage.written_base)));
        let named = stage.named_context;
        let context = match named {
            Some(context) => Some(context),
            None => self.find_context(&stage.base_name, Some(&platform)),
        };
        let mut plan =
            Plan { stage: index, platform, context, source: None, definition: None, request: None };
        let (reference, origin) = match context {
            None => (self.base_reference(index)?.with_default_tag(), ImageOrigin::Registry),
            Some(context) => match self.context_source(context)? {
                ContextSource::Scratch => return Ok(plan),
                ContextSource::Operation(source) => {
                    plan.source = Some(source);
                    return Ok(plan);
                }
                ContextSource::Definition(definition, config) => {
                    plan.definition = Some((definition, config));
                    return Ok(plan);
                }
                ContextSource::Image(reference, origin) => (reference, origin),
            },
        };
        plan.request =
            Some(ResolveRequest { span, ..self.request(reference, plan.platform.clone(), origin) });
        Ok(plan)
    }

    fn base_reference(&self, index: usize) -> Result<Reference, Problem> {
        let stage = &self.stages[index];
        stage.base_name.parse().map_err(|error| {
            let cause = match &error {
                ParseReferenceError::Uppercase(name) => {
                    let repository = repository(name);
                    format!("invalid reference format: repository name ({repository}) must be lowercase")
                }
                ParseReferenceError::Malformed(_) => "invalid reference format".to_owned(),
                other => other.to_string(),
            };
            let message = format!("failed to parse stage name {}: {cause}", quote(&stage.base_name));
            let problem = Problem::new(message).token(stage.written_base.clone());
            match self.stage_by_name(&stage.base_name).and_then(|index| self.stages[index].name.clone()) {
                Some(name) => problem.hint(format!("the stage's name is `{name}`")),
                None => problem,
            }
        })
    }

    fn unresolved(&self, plan: &Plan, problem: Problem) -> Problem {
        let stage = &self.stages[plan.stage];
        let problem = problem.at(stage.lines).token(stage.written_base.clone());
        if plan.context.is_some() {
            return problem;
        }
        let options = self.stage_names().into_iter().chain(COMMON_IMAGES);
        problem.suggest(&stage.written_base, options, Case::Sensitive)
    }

    fn set_base(&mut self, plan: Plan, answer: Option<ResolvedImage>) {
        // An image or context that an instruction names has no instructions of its own.
        if plan.stage >= self.file_stages {
            self.stages[plan.stage].dispatched = true;
        }
        match plan.context {
            None => {
                let reference = plan.request.map(|request| request.reference);
                if let (Some(reference), Some(answer)) = (reference, answer) {
                    self.set_image(plan.stage, reference, plan.platform, answer);
                }
            }
            Some(context) => self.set_context(context, plan, answer),
        }
    }

    /// Bases a stage on an image from a registry.
    fn set_image(&mut self, index: usize, reference: Reference, asked: Platform, answer: ResolvedImage) {
        let actual = answer.config.platform();
        let mut platform = asked.clone();
        if self.stages[index].platform.is_none() && self.options.implicit_platform {
            platform = detected(&actual, &asked, &self.options.build_platform);
        }
        let pinned = reference.with_digest(answer.digest);
        let empty =
            answer.config.rootfs.diff_ids.is_empty() && answer.config.history.iter().all(|h| h.empty_layer);
        if !empty || answer.source.is_some() {
            let named = || {
                let mode = self.options.resolve_mode().attribute();
                let attrs = mode.map(|mode| ("image.resolvemode".to_owned(), mode.to_owned()));
                let identifier = format!("docker-image://{pinned}");
                pb::SourceOp { identifier, attrs: attrs.into_iter().collect() }
            };
            let source = answer.source.clone().unwrap_or_else(named);
            let multi_platform = self.options.multi_platform;
            let stage = &mut self.stages[index];
            let name =
                names::prefixed(stage, &format!("FROM {pinned}"), multi_platform, &platform, &NoVariables);
            let mut meta = VertexMeta {
                name: Some(name),
                locations: vec![stage.lines.location()],
                ..Default::default()
            };
            meta.description.insert(names::COMMAND.to_owned(), stage.code.clone());
            let vertex = self.graph.add(&[], pb::op::Op::Source(source), Some(&platform), meta);
            self.stages[index].files.output = Some(Edge { vertex, index: 0 });
            self.check_platform(index, &platform, &actual);
        }
        self.stages[index].base_info = Some(BaseInfo {
            reference: Some(reference),
            digest: answer.digest,
            config_digest: answer.config_digest,
            platform: platform.clone(),
            config: answer.config.clone(),
            name: self.stages[index].base_name.clone(),
            lines: self.stages[index].lines,
        });
        self.inherit(index, answer.config);
        self.stages[index].platform = Some(platform);
    }

    fn check_platform(&self, index: usize, expected: &Platform, actual: &Platform) {
        if expected.os == actual.os && expected.architecture == actual.architecture {
            return;
        }
        let stage = &self.stages[index];
        let detail = format!(
            "Base image {} was pulled with platform {}, expected {} for current build",
            stage.base_name,
            quote(&actual.to_string()),
            quote(&expected.to_string())
        );
        self.linter.report(&rules::INVALID_BASE_IMAGE_PLATFORM, &[], stage.lines, detail);
    }

    /// Bases a stage on a named context, or puts the context in the stage's place.
    fn set_context(&mut self, context: usize, plan: Plan, answer: Option<ResolvedImage>) {
        let index = plan.stage;
        let options = self.options;
        let context = &options.named_contexts[context];
        let key = context.key();
        let replaces = self.stages[index].named_context.is_some();
        let mut config = None;
        if let Some((definition, theirs)) = plan.definition {
            // It was checked when it was taken.
            self.stages[index].files.output = self.graph.add_definition(&definition).unwrap_or_default();
            config = theirs.map(|config| *config);
        }
        match (plan.source, plan.request, answer) {
            (Some(source), _, _) => {
                let is_directory = source.identifier.starts_with("local://");
                let what =
                    if is_directory { "load from client".to_owned() } else { source.identifier.clone() };
                if is_directory {
                    self.main_context.directories.entry(key.clone()).or_default().push(index);
                }
                let name = Some(format!("[context {key}] {what}"));
                let edge = self.add_source(source, VertexMeta { name, ..Default::default() });
                self.stages[index].files.output = Some(edge);
            }
            (None, Some(request), Some(answer)) => {
                let (op, name) = context_image(&key, &request, &answer);
                let meta = VertexMeta { name: Some(name), ..Default::default() };
                let vertex = self.graph.add(&[], pb::op::Op::Source(op), Some(&plan.platform), meta);
                self.stages[index].files.output = Some(Edge { vertex, index: 0 });
                self.stages[index].base_info = Some(BaseInfo {
                    reference: (request.origin == ImageOrigin::Registry).then_some(request.reference),
                    digest: answer.digest,
                    config_digest: answer.config_digest,
                    platform: plan.platform.clone(),
                    config: answer.config.clone(),
                    name: self.stages[index].base_name.clone(),
                    lines: self.stages[index].lines,
                });
                config = Some(answer.config);
            }
            _ => {}
        }
        if !replaces {
            let config = config.unwrap_or_else(|| image::empty(&plan.platform));
            self.inherit(index, config);
            self.stages[index].platform = Some(plan.platform);
            return;
        }
        let platform = config.as_ref().map(ImageConfig::platform).filter(|p| !p.os.is_empty());
        let stage = &mut self.stages[index];
        stage.platform = platform.or(stage.platform.take());
        stage.dispatched = true;
        let platform = stage.platform.clone().unwrap_or(plan.platform);
        self.inherit(index, config.unwrap_or_else(|| ImageConfig::for_platform(&platform)));
        let stage = &mut self.stages[index];
        let run = &stage.image.config;
        let mut env = crate::expand::EnvList::default();
        for entry in &run.env {
            let (name, value) = image::split_env(entry);
            env.set(name, value);
        }
        let dir = if run.working_dir.is_empty() { "/".to_owned() } else { run.working_dir.clone() };
        stage.files = Files { env, dir, ..stage.files.clone() };
    }

    /// Takes over a base image's config.
    fn inherit(&mut self, index: usize, mut config: ImageConfig) {
        config.created = None;
        let stage = &mut self.stages[index];
        stage.history_lines = vec![None; config.history.len()];
        stage.image = config;
    }

    /// Puts `ONBUILD` triggers of bases in front of stages; returns whether they need further stages.
    fn read_triggers(&mut self, target: usize) -> Result<bool, Problem> {
        let mut new_needs = false;
        for index in self.reachable(target) {
            if index >= self.file_stages || self.stages[index].named_context.is_some() {
                continue;
            }
            let mut triggers = std::mem::take(&mut self.stages[index].image.config.on_build);
            if let Some(base) = self.stages[index].base
                && !std::mem::replace(&mut self.stages[index].triggers_read, true)
            {
                triggers.extend(self.stages[base].commands.iter().filter_map(|command| {
                    match &command.instruction.kind {
                        InstructionKind::Onbuild(expression) => Some(expression.clone()),
                        _ => None,
                    }
                }));
            }
            new_needs |= self.add_triggers(index, &triggers)?;
        }
        Ok(new_needs)
    }

    fn add_triggers(&mut self, index: usize, triggers: &[String]) -> Result<bool, Problem> {
        let lines = self.stages[index].lines;
        let mut commands = Vec::with_capacity(triggers.len());
        let mut new_needs = false;
        for trigger in triggers {
            let mut instruction = parse_instruction(trigger).map_err(|problem| {
                let context = format_args!("ONBUILD trigger {} of the base", quote(trigger)).to_string();
                problem.context(context).moved_to(lines)
            })?;
            if matches!(instruction.kind, InstructionKind::From(_)) {
                return Err(Problem::new("FROM isn't allowed as an ONBUILD trigger").at(lines));
            }
            instruction.lines = lines;
            let command = self.link(index, instruction, true).map_err(|problem| problem.moved_to(lines))?;
            new_needs |= command.sources.iter().any(Option::is_some);
            commands.push(command);
        }
        let stage = &mut self.stages[index];
        stage.steps += commands.len();
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(new_needs)
    }
}

/// Returns the part of a reference between the registry and the tag, with `library/` where Docker Hub has it.
fn repository(name: &str) -> String {
    let is_domain =
        |part: &str| part.contains(['.', ':']) || part != part.to_lowercase() || part == "localhost";
    let registry = name.split_once('/').filter(|(first, _)| is_domain(first));
    let rest = registry.map_or(name, |(_, rest)| rest);
    let path = rest.split([':', '@']).next().unwrap_or(rest);
    if registry.is_none() && !path.contains('/') { format!("library/{path}") } else { path.to_owned() }
}

/// Picks the platform of a build that did not ask for one.
fn detected(image: &Platform, asked: &Platform, build: &Platform) -> Platform {
    let same = |platform: &Platform| platform.os == image.os && platform.architecture == image.architecture;
    if !same(asked) && same(build) { build.clone() } else { asked.clone() }
}

/// Makes the source of an image that a named context gives, and its name.
fn context_image(key: &str, request: &ResolveRequest, answer: &ResolvedImage) -> (pb::SourceOp, String) {
    match &request.origin {
        ImageOrigin::Registry => {
            let identifier = format!("docker-image://{}", request.reference.with_digest(answer.digest));
            let name = format!("[context {key}] {}", request.reference);
            let named = pb::SourceOp { identifier, ..Default::default() };
            (answer.source.clone().unwrap_or(named), name)
        }
        ImageOrigin::OciLayout { context } => {
            let identifier = format!("oci-layout://{context}@{}", answer.digest);
            let attrs = [("oci.store".to_owned(), context.clone())].into();
            (pb::SourceOp { identifier, attrs }, format!("[context {key}] OCI load from client"))
        }
    }
}
