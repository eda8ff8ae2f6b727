//! The third step: every needed stage, instruction by instruction.

use std::collections::BTreeSet;

use super::stage::{Command, StageState};
use super::{Converter, Purpose, copy, expose, image, names, signal};
use crate::expand::{EnvList, Environment as _, Expander, Expansion};
use crate::instruction::{ArgDefinition, CommandLine, Copy, Instruction, InstructionKind, KeyValue};
use crate::lint::{Rule, rules};
use crate::problem::Problem;
use crate::suggest::{Case, nearest};
use crate::text::{is_absolute, normalize_workdir, quote, quote_list, to_slash};

/// Arguments that tell the builder something and are not for the steps.
const NOT_FOR_STEPS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The automatic arguments that a default in a stage hides.
const PLATFORM_ARGUMENTS: [&str; 8] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

impl Converter<'_> {
    /// Converts the needed stages in order; mistakes go to `problems`.
    pub(super) fn dispatch_stages(&mut self, needed: &BTreeSet<usize>) {
        for index in 0..self.file_stages {
            let skipped = !needed.contains(&index) || self.stages[index].dispatched;
            if skipped || (self.purpose != Purpose::Build && !self.problems.is_empty()) {
                continue;
            }
            let mut stage = std::mem::take(&mut self.stages[index]);
            self.dispatch_stage(&mut stage);
            stage.dispatched = true;
            self.stages[index] = stage;
        }
    }

    fn dispatch_stage(&mut self, stage: &mut StageState) {
        let commands = std::mem::take(&mut stage.commands);
        if let Err(problem) = self.start(stage) {
            self.problems.push(problem.at(stage.lines));
        }
        for command in &commands {
            stage.in_trigger = command.is_trigger;
            let lines = command.instruction.lines;
            if let Err(problem) = self.dispatch(stage, command) {
                self.problems.push(problem.at(lines));
                if self.purpose != Purpose::Build {
                    break;
                }
            }
        }
        stage.commands = commands;
        for (name, context) in [(NOT_FOR_STEPS[0], true), (NOT_FOR_STEPS[1], false)] {
            let global = self.global_args.get(name);
            let own = stage.build_args.iter().rev().find(|arg| arg.name == name);
            let value = own.and_then(|arg| arg.value.as_deref()).or(global);
            if value.is_some_and(|value| is_enabled(value, &stage.display_name)) {
                let slot = if context { &mut stage.scan_context } else { &mut stage.scan_stage };
                *slot = true;
            }
        }
    }

    /// Takes over what the base says.
    fn start(&mut self, stage: &mut StageState) -> Result<(), Problem> {
        if let Some(base) = stage.base {
            let base = &self.stages[base];
            stage.files = base.files.clone();
            stage.platform.clone_from(&base.platform);
            stage.image = base.image.clone();
            stage.image.config.on_build.clear();
            stage.history_lines.clone_from(&base.history_lines);
            stage.base_info.clone_from(&base.base_info);
            stage.workdir_set = base.workdir_set;
            stage.build_args.extend(base.build_args.iter().cloned());
        }
        stage.platform.get_or_insert_with(|| self.options.platform.clone());
        let config = &mut stage.image.config;
        if !config.env.iter().any(|entry| image::split_env(entry).0 == "PATH") {
            let os = stage.platform.as_ref().map_or("linux", |platform| &platform.os);
            config.env.extend(image::default_path(os));
        }
        for entry in &config.env {
            let (name, value) = image::split_env(entry);
            stage.files.env.set(name, value);
        }
        if !config.working_dir.is_empty() {
            let path = config.working_dir.clone();
            change_dir(stage, &path)?;
        }
        if !stage.image.config.user.is_empty() {
            stage.files.user = stage.image.config.user.clone();
        }
        Ok(())
    }

    fn dispatch(&mut self, stage: &mut StageState, command: &Command) -> Result<(), Problem> {
        use InstructionKind as Kind;
        let instruction = &command.instruction;
        let lines = instruction.lines;
        let epoch = self.epoch;
        match &instruction.kind {
            Kind::Add(add) => {
                let add = self.expanded_copy(stage, instruction, add)?;
                self.copy(stage, command, &add, copy::Kind::Add)
            }
            Kind::Copy(copied) => {
                let copied = self.expanded_copy(stage, instruction, copied)?;
                self.copy(stage, command, &copied, copy::Kind::Copy)
            }
            Kind::Run(run) => self.run_step(stage, command, run),
            Kind::Arg(definitions) => self.arg(stage, instruction, definitions),
            Kind::Env(pairs) => self.env(stage, instruction, pairs),
            Kind::Label(pairs) => self.label(stage, instruction, pairs),
            Kind::Cmd(line) => {
                self.check_used_once(stage.cmd.replace(lines), instruction);
                let arguments = self.command(stage, instruction, line);
                stage.commit(format!("CMD {}", quote_list(&arguments)), false, lines, epoch);
                stage.image.config.cmd = Some(arguments).filter(|arguments| !arguments.is_empty());
                stage.image.config.args_escaped = true;
                Ok(())
            }
            Kind::Entrypoint(line) => {
                self.check_used_once(stage.entrypoint.replace(lines), instruction);
                let arguments = self.command(stage, instruction, line);
                stage.commit(format!("ENTRYPOINT {}", quote_list(&arguments)), false, lines, epoch);
                stage.image.config.entrypoint = Some(arguments).filter(|arguments| !arguments.is_empty());
                if stage.cmd.is_none() {
                    stage.image.config.cmd = None;
                }
                Ok(())
            }
            Kind::Healthcheck(check) => {
                self.check_used_once(stage.healthcheck.replace(lines), instruction);
                stage.commit(healthcheck_text(check), false, lines, epoch);
                stage.image.config.healthcheck = Some(check.clone());
                Ok(())
            }
            Kind::Expose(ports) => self.expose(stage, instruction, ports),
            Kind::Maintainer(name) => {
                stage.image.author = Some(name.clone());
                stage.commit(format!("MAINTAINER {name}"), false, lines, epoch);
                Ok(())
            }
            Kind::Onbuild(expression) => {
                stage.image.config.on_build.push(expression.clone());
                Ok(())
            }
            Kind::Shell(shell) => {
                stage.commit(format!("SHELL [{}]", shell.join(" ")), false, lines, epoch);
                stage.image.config.shell = Some(shell.clone());
                Ok(())
            }
            Kind::StopSignal(written) => {
                let signal = self.expand(stage, instruction, written)?;
                signal::check(&signal).map_err(|problem| problem.token(written.clone()))?;
                stage.commit(format!("STOPSIGNAL {signal}"), false, lines, epoch);
                stage.image.config.stop_signal = signal;
                Ok(())
            }
            Kind::User(written) => {
                let user = self.expand(stage, instruction, written)?;
                stage.commit(format!("USER {user}"), false, lines, epoch);
                stage.files.user.clone_from(&user);
                stage.image.config.user = user;
                Ok(())
            }
            Kind::Volume(written) => self.volume(stage, instruction, written),
            Kind::Workdir(written) => self.workdir(stage, instruction, written),
            Kind::From(_) => Ok(()),
        }
    }

    /// Expands a text with the stage's variables and warns of those that are not set.
    pub(super) fn expand(
        &self,
        stage: &StageState,
        instruction: &Instruction,
        text: &str,
    ) -> Result<String, Problem> {
        self.expand_with(&self.expander, stage, instruction, text)
    }

    fn expand_with(
        &self,
        expander: &Expander,
        stage: &StageState,
        instruction: &Instruction,
        text: &str,
    ) -> Result<String, Problem> {
        let Expansion { result, unmatched, .. } = expander.expand(text, &stage.files.env);
        self.check_variables(stage, instruction, &unmatched);
        result.map_err(|error| Problem::new(error.to_string()).token(text))
    }

    fn expand_all(
        &self,
        stage: &StageState,
        instruction: &Instruction,
        texts: &[String],
    ) -> Result<Vec<String>, Problem> {
        texts.iter().map(|text| self.expand(stage, instruction, text)).collect()
    }

    /// Warns of variables that neither the stage's environment nor an `ARG` has.
    pub(super) fn check_variables(&self, stage: &StageState, instruction: &Instruction, unset: &[String]) {
        for name in unset {
            let declared = stage.build_args.iter().any(|arg| arg.name == *name);
            if declared || NOT_FOR_STEPS.contains(&name.as_str()) {
                continue;
            }
            let mut detail = format!("Usage of undefined variable '${name}'");
            if let Some(near) = nearest(name, stage.files.env.names(), Case::Sensitive) {
                detail.push_str(&format!(" (did you mean ${near}?)"));
            }
            self.report(&rules::UNDEFINED_VAR, instruction, detail);
        }
    }

    pub(super) fn report(&self, rule: &'static Rule, instruction: &Instruction, detail: String) {
        self.linter.report(rule, &instruction.comments, instruction.lines, detail);
    }

    fn check_used_once(&self, before: Option<crate::Lines>, instruction: &Instruction) {
        let Some(lines) = before else { return };
        let detail = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            instruction.name
        );
        // The earlier one is the one that has no effect.
        let rule = &rules::MULTIPLE_INSTRUCTIONS_DISALLOWED;
        self.linter.report(rule, &instruction.comments, lines, detail);
    }

    /// Returns the command line of a `CMD` or `ENTRYPOINT`.
    fn command(&self, stage: &StageState, instruction: &Instruction, line: &CommandLine) -> Vec<String> {
        if !line.shell {
            return line.arguments.clone();
        }
        if stage.image.config.shell.as_ref().is_none_or(Vec::is_empty) {
            let name = &instruction.name;
            let detail = format!(
                "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
            );
            self.report(&rules::JSON_ARGS_RECOMMENDED, instruction, detail);
        }
        with_shell(stage, &line.arguments)
    }

    fn expanded_copy(
        &self,
        stage: &StageState,
        instruction: &Instruction,
        written: &Copy,
    ) -> Result<Copy, Problem> {
        let expand = |text: &str| self.expand(stage, instruction, text);
        let mut copy = Copy {
            chown: expand(&written.chown)?,
            chmod: expand(&written.chmod)?,
            checksum: expand(&written.checksum)?,
            sources: self.expand_all(stage, instruction, &written.sources)?,
            destination: expand(&written.destination)?,
            ..written.clone()
        };
        // In the text of a heredoc quotes are ordinary, and the escape character is always the same.
        let expander = Expander::new('\\').quotes_are_text();
        for file in copy.files.iter_mut().filter(|file| file.expand) {
            file.data = self.expand_with(&expander, stage, instruction, &file.data)?;
        }
        Ok(copy)
    }

    fn arg(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        definitions: &[ArgDefinition],
    ) -> Result<(), Problem> {
        let mut texts = Vec::with_capacity(definitions.len());
        for definition in definitions {
            self.check_secret("ARG", &definition.name, instruction);
            self.check_platform_default(definition, instruction);
            let given = self.build_args.get(&definition.name);
            let inherited = match (given, &definition.value) {
                (None, None) => self.global_args.get(&definition.name),
                _ => None,
            };
            let value = match (given, &definition.value, inherited) {
                (Some(value), ..) => Some(value.clone()),
                (None, Some(default), _) => Some(self.expand(stage, instruction, default)?),
                (None, None, inherited) => inherited.map(str::to_owned),
            };
            if let Some(value) = value.as_ref().filter(|_| !NOT_FOR_STEPS.contains(&definition.name.as_str()))
            {
                stage.files.env.set(&definition.name, value);
            }
            if inherited.is_none() {
                let note = super::outline::ArgumentNote {
                    definition: definition.clone(),
                    value: value.clone().unwrap_or_default(),
                    needs: BTreeSet::new(),
                    lines: instruction.lines,
                };
                stage.outline.arguments.insert(definition.name.clone(), note);
            }
            stage.outline.used.insert(definition.name.clone());
            texts.push(match &value {
                Some(value) => format!("{}={value}", definition.name),
                None => definition.name.clone(),
            });
            stage.build_args.push(ArgDefinition { value, ..definition.clone() });
        }
        stage.commit(format!("ARG {}", texts.join(" ")), false, instruction.lines, self.epoch);
        Ok(())
    }

    /// Warns of a default that hides what the builder would give.
    fn check_platform_default(&self, definition: &ArgDefinition, instruction: &Instruction) {
        let name = definition.name.as_str();
        let hidden = PLATFORM_ARGUMENTS.contains(&name) && !self.build_args.contains_key(name);
        let Some(default) = definition.value.as_ref().filter(|_| hidden) else { return };
        let detail = format!(
            "The default {} hides the value that the builder gives {name} for the platform being built; \
             write `ARG {name}`",
            quote(default)
        );
        self.report(&rules::TARGET_ARG_DEFAULT, instruction, detail);
    }

    fn env(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Result<(), Problem> {
        let mut text = "ENV".to_owned();
        for pair in self.expanded_pairs(stage, instruction, pairs)? {
            if pair.legacy {
                self.report_legacy(instruction);
            }
            self.check_secret("ENV", &pair.key, instruction);
            text.push_str(&format!(" {}={}", pair.key, pair.value));
            image::set_env(&mut stage.image.config.env, &pair.key, &pair.value);
            stage.files.env.set(pair.key, pair.value);
        }
        stage.commit(text, false, instruction.lines, self.epoch);
        Ok(())
    }

    fn label(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Result<(), Problem> {
        let mut text = "LABEL".to_owned();
        for pair in self.expanded_pairs(stage, instruction, pairs)? {
            if pair.legacy {
                self.report_legacy(instruction);
            }
            text.push_str(&format!(" {}={}", pair.key, pair.value));
            stage.image.config.labels.insert(pair.key, pair.value);
        }
        stage.commit(text, false, instruction.lines, self.epoch);
        Ok(())
    }

    /// Expands all pairs with the variables as they were before the instruction.
    fn expanded_pairs(
        &self,
        stage: &StageState,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Result<Vec<KeyValue>, Problem> {
        let expanded = pairs.iter().map(|pair| {
            Ok(KeyValue {
                key: self.expand(stage, instruction, &pair.key)?,
                value: self.expand(stage, instruction, &pair.value)?,
                legacy: pair.legacy,
            })
        });
        expanded.collect()
    }

    fn report_legacy(&self, instruction: &Instruction) {
        let name = &instruction.name;
        let detail =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        self.report(&rules::LEGACY_KEY_VALUE_FORMAT, instruction, detail);
    }

    /// Warns of a name that a secret would have.
    fn check_secret(&self, keyword: &str, name: &str, instruction: &Instruction) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let has =
            |list: &[&str]| name.split('_').any(|word| list.iter().any(|w| w.eq_ignore_ascii_case(word)));
        if has(&SECRET) && !has(&HARMLESS) {
            let name = quote(name);
            let detail = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name})");
            self.report(&rules::SECRETS_USED_IN_ARG_OR_ENV, instruction, detail);
        }
    }

    fn expose(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        written: &[String],
    ) -> Result<(), Problem> {
        let mut ports = Vec::new();
        for text in written {
            let words = self.expander.words(text, &stage.files.env);
            for word in words.map_err(|error| Problem::new(error.to_string()).token(text.clone()))? {
                let port = expose::parse(&word).map_err(|problem| problem.token(text.clone()))?;
                if port.odd_casing {
                    let detail =
                        format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
                    self.report(&rules::EXPOSE_PROTO_CASING, instruction, detail);
                }
                if port.has_host_part {
                    let detail = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                    );
                    self.report(&rules::EXPOSE_INVALID_FORMAT, instruction, detail);
                }
                ports.extend(port.ports);
            }
        }
        let exposed = &mut stage.image.config.exposed_ports;
        exposed.extend(ports.iter().map(|port| (port.clone(), Default::default())));
        stage.commit(format!("EXPOSE [{}]", ports.join(" ")), false, instruction.lines, self.epoch);
        Ok(())
    }

    fn volume(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        written: &[String],
    ) -> Result<(), Problem> {
        let volumes = self.expand_all(stage, instruction, written)?;
        if volumes.iter().any(String::is_empty) {
            return Err(Problem::new("VOLUME specified can not be an empty string"));
        }
        let list = &mut stage.image.config.volumes;
        list.extend(volumes.iter().map(|volume| (volume.clone(), Default::default())));
        stage.commit(format!("VOLUME [{}]", volumes.join(" ")), false, instruction.lines, self.epoch);
        Ok(())
    }

    fn workdir(
        &mut self,
        stage: &mut StageState,
        instruction: &Instruction,
        written: &str,
    ) -> Result<(), Problem> {
        let path = self.expand(stage, instruction, written)?;
        if !stage.workdir_set && !is_absolute(&path, stage.os()) {
            let path = quote(&path);
            let detail =
                format!("Relative workdir {path} can have unexpected results if the base image changes");
            self.report(&rules::WORKDIR_RELATIVE_PATH, instruction, detail);
        }
        stage.workdir_set = true;
        change_dir(stage, &path)?;
        let dir = stage.files.dir.clone();
        let has_layer = dir != "/";
        if has_layer {
            self.make_dir(stage, instruction, &dir)?;
        }
        stage.commit(format!("WORKDIR {dir}"), has_layer, instruction.lines, self.epoch);
        Ok(())
    }

    fn make_dir(
        &mut self,
        stage: &mut StageState,
        instruction: &Instruction,
        dir: &str,
    ) -> Result<(), Problem> {
        let owner = match stage.image.config.user.as_str() {
            "" => None,
            user => Some(self.owner(stage, user, copy::Lookup::InBase)?),
        };
        let mkdir = slipway_model::llb::pb::FileActionMkDir {
            path: crate::text::clean(dir),
            mode: 0o755,
            make_parents: true,
            owner,
            timestamp: self.epoch.map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000)),
        };
        let name = names::expanded(&self.expander, &instruction.code, &stage.files.env);
        let meta = self.step_meta(stage, instruction, &name);
        let action = slipway_model::llb::pb::file_action::Action::Mkdir(mkdir);
        stage.files.output = Some(self.add_file_action(stage.files.output, action, meta));
        Ok(())
    }
}

/// Sets the working directory in the config and for steps.
fn change_dir(stage: &mut StageState, path: &str) -> Result<(), Problem> {
    let os = stage.os().to_owned();
    let dir = normalize_workdir(&stage.image.config.working_dir, path, &os)
        .map_err(|error| Problem::new(format!("normalizing workdir: {error}")).token(path))?;
    stage.files.dir = to_slash(&dir, &os);
    stage.image.config.working_dir = dir;
    Ok(())
}

/// Puts the stage's shell before a command line in shell form.
pub(super) fn with_shell(stage: &StageState, arguments: &[String]) -> Vec<String> {
    let own = stage.image.config.shell.clone().filter(|shell| !shell.is_empty());
    let default: &[&str] =
        if stage.image.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
    let mut line = own.unwrap_or_else(|| default.iter().map(|&word| word.to_owned()).collect());
    line.push(arguments.join(" "));
    line
}

/// Tells whether a yes, or a list of stages, means the stage.
fn is_enabled(value: &str, stage: &str) -> bool {
    crate::text::parse_bool(value).unwrap_or_else(|| value.split(',').any(|name| name == stage))
}

fn healthcheck_text(check: &slipway_model::image_config::Healthcheck) -> String {
    let duration = crate::text::format_duration;
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Writes the `RUN` of the history: build arguments, then the command line.
pub(super) fn run_text(arguments: &[String], build_args: &[ArgDefinition], env: &EnvList) -> String {
    let mut values: Vec<(&str, String)> = Vec::new();
    for arg in build_args {
        let value = env.get(&arg.name).or(arg.value.as_deref()).unwrap_or_default();
        let text = format!("{}={value}", arg.name);
        match values.iter_mut().find(|(name, _)| *name == arg.name) {
            Some((_, slot)) => *slot = text,
            None => values.push((&arg.name, text)),
        }
    }
    let count = Some(format!("|{}", values.len())).filter(|_| !values.is_empty());
    let words = count.into_iter().chain(values.into_iter().map(|(_, text)| text));
    words.chain(arguments.iter().cloned()).collect::<Vec<_>>().join(" ")
}
