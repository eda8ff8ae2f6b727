//! The first step: global arguments, stages, and which stage needs which.

use std::collections::BTreeSet;

use slipway_model::Platform;

use super::outline::{ArgumentNote, OutlineCapture};
use super::stage::{Command, StageState};
use super::{Converter, Purpose};
use crate::document::{Dockerfile, Reading, Stage};
use crate::expand::{EnvList, Environment as _, Expansion, NoVariables};
use crate::instruction::{Instruction, InstructionKind};
use crate::lint::{
    Linter, check_casing, check_default_arguments, check_definition_description, check_from_keywords,
    check_stage_names, rules,
};
use crate::problem::Problem;
use crate::suggest::{Case, nearest};
use crate::text::quote;

/// Runs the checks of the file's form; they stop where the file stops making sense.
pub(super) fn checked(reading: Reading, linter: &Linter) -> Result<Dockerfile, Vec<Problem>> {
    let document = reading.document;
    for &lines in &document.empty_continuations {
        linter.report(&rules::NO_EMPTY_CONTINUATION, &[], lines, "Empty continuation line");
    }
    for (instruction, arguments) in &reading.sound {
        match &instruction.kind {
            InstructionKind::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                let rule = &rules::MAINTAINER_DEPRECATED;
                linter.report(rule, &instruction.comments, instruction.lines, detail);
            }
            InstructionKind::From(_) => check_from_keywords(linter, instruction, arguments),
            _ => {}
        }
        check_definition_description(linter, instruction);
    }
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    check_stage_names(linter, document.stages.iter().map(|stage| &stage.from));
    check_casing(linter, document.instructions());
    Ok(document)
}

/// Returns the arguments that the builder itself gives.
fn automatic_arguments(converter: &Converter<'_>, target: &str) -> EnvList {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let without_version = |platform: &Platform| Platform { os_version: None, ..platform.clone() }.to_string();
    let (build, target_platform) = (&converter.options.build_platform, &converter.options.platform);
    let values = [
        ("BUILDPLATFORM", without_version(build)),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", text(&build.os_version)),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", text(&build.variant)),
        ("TARGETPLATFORM", target_platform.to_string()),
        ("TARGETOS", target_platform.os.clone()),
        ("TARGETOSVERSION", text(&target_platform.os_version)),
        ("TARGETARCH", target_platform.architecture.clone()),
        ("TARGETVARIANT", text(&target_platform.variant)),
        ("TARGETSTAGE", if target.is_empty() { "default" } else { target }.to_owned()),
    ];
    let mut list = EnvList::default();
    for (name, value) in values {
        list.set(name, converter.build_args.get(name).cloned().unwrap_or(value));
    }
    list
}

impl Converter<'_> {
    /// Makes the stages of the file; mistakes go to `problems`.
    pub(super) fn set_up(&mut self, document: Dockerfile) {
        let last_name = document.stages.last().and_then(Stage::name).unwrap_or_default();
        let target = self.options.target.as_deref().unwrap_or(last_name);
        let automatic = automatic_arguments(self, target);
        let mut capture = OutlineCapture::default();
        self.check_defaults(&automatic, &document);
        match self.global_arguments(automatic, &document.arguments, true, &mut capture) {
            Ok(list) => self.global_args = list,
            Err(problem) => return self.problems.push(problem),
        }
        for (index, stage) in document.stages.into_iter().enumerate() {
            match self.stage(index, stage, &capture) {
                Ok(state) => self.add_stage(state),
                Err(problem) => {
                    self.linter.close();
                    self.problems.push(problem);
                }
            }
        }
        self.file_stages = self.stages.len();
        let last = self.stages.last().map(|stage| stage.lines);
        self.check_final_stage(last);
    }

    fn check_defaults(&self, automatic: &EnvList, document: &Dockerfile) {
        let mut ignored = OutlineCapture::default();
        if let Ok(list) = self.global_arguments(automatic.clone(), &document.arguments, false, &mut ignored) {
            let stages = document.stages.iter().map(|stage| &stage.from);
            check_default_arguments(&self.linter, &self.expander, &list, stages);
        }
    }

    /// Evaluates the `ARG`s before the first stage.
    fn global_arguments(
        &self,
        mut list: EnvList,
        arguments: &[Instruction],
        with_build_args: bool,
        capture: &mut OutlineCapture,
    ) -> Result<EnvList, Problem> {
        for instruction in arguments {
            let InstructionKind::Arg(definitions) = &instruction.kind else { continue };
            for definition in definitions {
                let given = with_build_args.then(|| self.build_args.get(&definition.name)).flatten();
                let mut needs = BTreeSet::new();
                let value = match (given, &definition.value) {
                    (Some(value), _) => Some(value.clone()),
                    (None, None) => None,
                    (None, Some(default)) => {
                        let Expansion { result, matched, .. } = self.expander.expand(default, &list);
                        needs.extend(matched);
                        let failed = |error: crate::ExpandError| {
                            Problem::new(error.to_string()).at(instruction.lines).token(default.clone())
                        };
                        Some(result.map_err(failed)?)
                    }
                };
                // A value in terms of the same argument is in terms of what that was in terms of.
                if needs.remove(&definition.name) {
                    let before = capture.arguments.get(&definition.name);
                    needs.extend(before.iter().flat_map(|note| note.needs.iter().cloned()));
                }
                if let Some(value) = &value {
                    list.set(&definition.name, value);
                }
                let note = ArgumentNote {
                    definition: definition.clone(),
                    value: value.unwrap_or_default(),
                    needs,
                    lines: instruction.lines,
                };
                capture.arguments.insert(definition.name.clone(), note);
            }
        }
        Ok(list)
    }

    /// Makes the state of one stage of the file.
    fn stage(&self, index: usize, stage: Stage, capture: &OutlineCapture) -> Result<StageState, Problem> {
        let Some(from) = stage.from.as_from().cloned() else {
            return Err(Problem::new("a stage starts with FROM").at(stage.from.lines));
        };
        let lines = stage.from.lines;
        let mut used = BTreeSet::new();
        let base = self.expander.expand(&from.base, &self.global_args);
        self.check_from_arguments(&stage.from, &base, capture);
        let base_name = base.result.map_err(|error| Problem::new(error.to_string()).at(lines))?;
        if base_name.is_empty() {
            let problem = Problem::new(format!("base name ({}) should not be blank", from.base));
            return Err(problem
                .at(lines)
                .token(from.base)
                .hint("give the argument a default before the first FROM, or a value with --build-arg"));
        }
        used.extend(base.matched);
        let platform = match &from.platform {
            Some(written) => Some(self.stage_platform(&stage.from, written, &mut used, capture)?),
            None => None,
        };
        let steps = stage.instructions.iter().filter(|instruction| instruction.is_step()).count();
        let name = from.name.clone();
        let commands = stage.instructions.into_iter().map(|i| Command {
            instruction: i,
            sources: vec![],
            is_trigger: false,
        });
        let named_context = name.as_deref().and_then(|name| self.find_context(name, platform.as_ref()));
        let is_replaced = named_context.is_some();
        Ok(StageState {
            base_name,
            written_base: from.base,
            display_name: name.clone().unwrap_or_else(|| format!("stage-{index}")),
            description: from.description,
            code: stage.from.code,
            comments: stage.from.comments,
            lines,
            platform,
            named_context,
            commands: commands.collect(),
            steps: if is_replaced { 0 } else { steps },
            ignore_cache: !is_replaced && self.options.ignores_cache(name.as_deref()),
            outline: OutlineCapture { used, ..capture.clone() },
            name,
            ..StageState::default()
        })
    }

    fn stage_platform(
        &self,
        from: &Instruction,
        written: &str,
        used: &mut BTreeSet<String>,
        capture: &OutlineCapture,
    ) -> Result<Platform, Problem> {
        let expansion = self.expander.expand(written, &self.global_args);
        self.check_from_arguments(from, &expansion, capture);
        self.check_platform_flag(from, written, &expansion);
        let Expansion { result, matched, unmatched } = expansion;
        let suggest = |problem: Problem| {
            let names = self.global_args.names();
            unmatched
                .iter()
                .fold(problem, |problem, name| problem.suggest(name, names.iter().copied(), Case::Sensitive))
        };
        let text = result.map_err(|error| {
            let problem = Problem::new(error.to_string()).at(from.lines);
            problem.context("failed to process arguments for platform ")
        })?;
        if text.is_empty() {
            let problem = Problem::new(format!("empty platform value from expression {written}"));
            return Err(suggest(problem).at(from.lines).token(written));
        }
        let platform = text.parse::<Platform>().map_err(|error| {
            let problem = suggest(Problem::new(error.to_string()));
            let problem = problem.context(format_args!("failed to parse platform {written}"));
            let hint = "write a platform as `os/architecture[/variant]`, as in `linux/arm64`";
            problem.at(from.lines).token(written).hint(hint)
        })?;
        used.extend(matched);
        Ok(platform)
    }

    /// Warns of variables in a `FROM` that nothing declares.
    fn check_from_arguments(&self, from: &Instruction, expansion: &Expansion, capture: &OutlineCapture) {
        let declared: BTreeSet<&str> =
            capture.arguments.keys().map(String::as_str).chain(self.global_args.names()).collect();
        for name in expansion.unmatched.iter().filter(|name| !declared.contains(name.as_str())) {
            let mut detail = format!("FROM argument '{name}' is not declared");
            if let Some(near) = nearest(name, declared.iter().copied(), Case::Sensitive) {
                detail.push_str(&format!(" (did you mean {near}?)"));
            }
            self.linter.report(&rules::UNDEFINED_ARG_IN_FROM, &from.comments, from.lines, detail);
        }
    }

    /// Warns of a `--platform` that says nothing, or always the same.
    fn check_platform_flag(&self, from: &Instruction, written: &str, expansion: &Expansion) {
        let Ok(result) = &expansion.result else { return };
        match (expansion.matched.as_slice(), expansion.unmatched.as_slice()) {
            ([name], [])
                if name == "TARGETPLATFORM" && self.global_args.get(name) == Some(result.as_str()) =>
            {
                let detail = format!(
                    "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
                );
                self.linter.report(&rules::REDUNDANT_TARGET_PLATFORM, &from.comments, from.lines, detail);
            }
            ([], []) => {
                let Ok(platform) = result.parse::<Platform>() else { return };
                let name = from.as_from().and_then(|from| from.name.as_deref()).unwrap_or_default();
                if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                    let detail =
                        format!("FROM --platform flag should not use constant value {}", quote(result));
                    let rule = &rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED;
                    self.linter.report(rule, &from.comments, from.lines, detail);
                }
            }
            _ => {}
        }
    }

    /// Warns if the result is for the build platform whatever the target platform is.
    fn check_final_stage(&self, last: Option<crate::Lines>) {
        let (Some(lines), true) = (last, self.options.target.is_none()) else { return };
        let Some(stage) = self.stages.last() else { return };
        let pinned = stage.base.is_none() && stage.base_name != "scratch" && stage.platform.is_some();
        let build = &self.options.build_platform;
        let differs = !self.options.platform.same_machine(build) || self.options.multi_platform;
        let on_build = stage.platform.as_ref().is_some_and(|platform| platform.same_machine(build));
        if pinned && on_build && differs {
            let detail = format!(
                "the final stage is based on an image for {build}, whatever platform the image is built for"
            );
            self.linter.report(&rules::FINAL_STAGE_BUILD_PLATFORM, &stage.comments, lines, detail);
        }
    }

    /// Adds a stage; a base that is the name of an earlier stage is that stage.
    pub(super) fn add_stage(&mut self, mut stage: StageState) {
        let base = self.stage_by_exact_name(&stage.base_name);
        if let Some(base) = base {
            stage.outline = self.stages[base].outline.clone();
        }
        if stage.named_context.is_none() {
            stage.base = base;
        }
        stage.path_set = match stage.base {
            Some(base) => self.stages[base].path_set,
            None => {
                self.path_sets.push(BTreeSet::new());
                self.path_sets.len() - 1
            }
        };
        if stage.base.is_none() && stage.base_name != "scratch" && stage.named_context.is_none() {
            stage.steps += 1;
        }
        self.stages.push(stage);
    }

    /// Finds the last stage of a name that is written in lower case.
    fn stage_by_exact_name(&self, name: &str) -> Option<usize> {
        self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(name))
    }

    pub(super) fn stage_by_name(&self, name: &str) -> Option<usize> {
        self.stage_by_exact_name(&name.to_lowercase())
    }

    pub(super) fn stage_names(&self) -> Vec<&str> {
        let file_stages = &self.stages[..self.file_stages.min(self.stages.len())];
        file_stages.iter().map(|stage| stage.display_name.as_str()).filter(|name| !name.is_empty()).collect()
    }

    /// Finds the stage that is asked for.
    pub(super) fn target(&self) -> Result<usize, Problem> {
        let Some(name) = &self.options.target else { return Ok(self.file_stages - 1) };
        if let Some(index) = self.stage_by_name(name) {
            return Ok(index);
        }
        let problem = Problem::new(format!("target stage {} could not be found", quote(name)));
        let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let problem = problem.suggest(name, self.stage_names(), Case::Sensitive);
        Err(match names.as_slice() {
            [] => problem.hint("no stage of the file has a name; add one with `FROM image AS name`"),
            names => problem.hint(format!("stages: {}", names.join(", "))),
        })
    }

    /// Finds the stages that instructions name, and refuses circles.
    pub(super) fn link_stages(&mut self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        for index in 0..self.file_stages {
            let commands = std::mem::take(&mut self.stages[index].commands);
            let mut linked = Vec::with_capacity(commands.len());
            for command in commands {
                match self.link(index, command.instruction, false) {
                    Ok(command) => linked.push(command),
                    Err(problem) => problems.push(problem),
                }
            }
            self.stages[index].commands = linked;
        }
        problems.extend(self.circle());
        if self.is_single_stage() {
            self.stages[0].display_name.clear();
        }
        match problems.is_empty() {
            true => Ok(()),
            false if self.purpose == Purpose::Build => Err(problems),
            false => Err(problems.into_iter().take(1).collect()),
        }
    }

    /// Tells whether the names of steps need no stage: there is one, and it reads nothing that the reference
    /// counts as another. An image that `COPY --from` names is one, and so is any `RUN --mount` without `from`.
    fn is_single_stage(&self) -> bool {
        let has_mounts = |command: &Command| match &command.instruction.kind {
            InstructionKind::Run(run) => !run.mounts.is_empty(),
            _ => false,
        };
        self.stages.len() == 1 && !self.stages[0].commands.iter().any(has_mounts)
    }

    /// Finds the stages that one instruction of the stage `index` reads.
    pub(super) fn link(
        &mut self,
        index: usize,
        instruction: Instruction,
        is_trigger: bool,
    ) -> Result<Command, Problem> {
        let lines = instruction.lines;
        let sources = match &instruction.kind {
            InstructionKind::Copy(copy) => match &copy.from {
                Some(from) => {
                    vec![Some(self.copy_source(from, lines).map_err(|p| p.at(lines).token(from.clone()))?)]
                }
                None => Vec::new(),
            },
            InstructionKind::Run(run) => {
                let names: Vec<Option<String>> = run.mounts.iter().map(|mount| mount.from.clone()).collect();
                let sources = names.into_iter().map(|name| Some(self.named_source(&name?, lines)));
                sources.collect()
            }
            _ => Vec::new(),
        };
        for source in sources.iter().flatten() {
            self.stages[index].needs.push((*source, lines));
        }
        Ok(Command { instruction, sources, is_trigger })
    }

    fn copy_source(&mut self, from: &str, lines: crate::Lines) -> Result<usize, Problem> {
        let expanded = self.expander.expand(from, &NoVariables).result;
        if expanded.map_err(|error| Problem::new(error.to_string()))? != from {
            let message = "variable expansion is not supported for --from, \
                           define a new stage with FROM using ARG from global scope as a workaround";
            return Err(
                Problem::new(message).hint("add a stage `FROM ${NAME} AS alias` and write `--from=alias`")
            );
        }
        match from.parse::<i64>() {
            Err(_) => Ok(self.named_source(from, lines)),
            Ok(number) => match usize::try_from(number) {
                Ok(index) if index < self.file_stages => Ok(index),
                _ => {
                    let last = self.file_stages - 1;
                    let hint = format!("the file's stages have the numbers 0 to {last}");
                    Err(Problem::new(format!("invalid stage index {number}")).hint(hint))
                }
            },
        }
    }

    /// Finds a stage by name; a name that no stage has is an image's or a context's.
    fn named_source(&mut self, name: &str, lines: crate::Lines) -> usize {
        if let Some(index) = self.stage_by_name(name) {
            return index;
        }
        self.path_sets.push(BTreeSet::new());
        self.stages.push(StageState {
            base_name: name.to_owned(),
            written_base: name.to_owned(),
            lines,
            path_set: self.path_sets.len() - 1,
            ..StageState::default()
        });
        self.stages.len() - 1
    }

    /// Finds a circle among stages that read each other.
    fn circle(&self) -> Option<Problem> {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Visit {
            Not,
            OnPath,
            Done,
        }
        let mut visits = vec![Visit::Not; self.stages.len()];
        for start in 0..self.stages.len() {
            let mut path = Vec::new();
            if visits[start] == Visit::Not {
                path.push((start, 0usize));
                visits[start] = Visit::OnPath;
            }
            while let Some((index, next)) = path.pop() {
                let Some(&(needed, _)) = self.stages[index].needs.get(next) else {
                    visits[index] = Visit::Done;
                    continue;
                };
                path.push((index, next + 1));
                match visits[needed] {
                    Visit::OnPath => {
                        // Told at the first step of the way that ends in the circle.
                        let first = &self.stages[start];
                        let message =
                            format!("circular dependency detected on stage: {}", first.display_name);
                        let step = path.first().and_then(|&(_, next)| first.needs.get(next - 1));
                        let (source, lines) = step.copied().unwrap_or((start, first.lines));
                        let name = self.stages[source].display_name.clone();
                        let problem = Problem::new(message).at(lines).token(name);
                        return Some(
                            problem.hint("a stage can only use stages that do not need it themselves"),
                        );
                    }
                    Visit::Not => {
                        visits[needed] = Visit::OnPath;
                        path.push((needed, 0));
                    }
                    Visit::Done => {}
                }
            }
        }
        None
    }

    /// Lists a stage and everything it needs, the stage first.
    pub(crate) fn reachable(&self, target: usize) -> Vec<usize> {
        let mut found = vec![false; self.stages.len()];
        let mut list = vec![target];
        found[target] = true;
        let mut next = 0;
        while let Some(&index) = list.get(next) {
            next += 1;
            let stage = &self.stages[index];
            for needed in stage.base.into_iter().chain(stage.needs.iter().map(|(needed, _)| *needed)) {
                if !std::mem::replace(&mut found[needed], true) {
                    list.push(needed);
                }
            }
        }
        list
    }
}
