//! `RUN`.

use slipway_model::llb::{Edge, NodeOutput, VertexMeta, pb};
use slipway_model::solve::{Entitlement, NetworkMode};

use super::dispatch::{run_text, with_shell};
use super::outline::MountNote;
use super::stage::{Command, StageState};
use super::{Converter, Purpose, names};
use crate::expand::{Environment as _, Masked};
use crate::instruction::{
    CacheSharing, DeviceSpec, Instruction, Mount, MountType, Run, RunNetwork, Security,
};
use crate::parser::parse_heredoc_word;
use crate::problem::Problem;
use crate::text::{base_name, clean, join, quote};

/// Collects what a step sees.
#[derive(Default)]
struct Mounts {
    /// With the files each comes from.
    mounts: Vec<(pb::Mount, NodeOutput)>,
    secrets: Vec<pb::Mount>,
    secret_env: Vec<pb::SecretEnv>,
    ssh: Vec<pb::Mount>,
}

/// A command line with what belongs to it.
struct Line {
    arguments: Vec<String>,
    /// What is shown after the instruction's text.
    summary: String,
    /// The script that a heredoc with `#!` becomes: its name and text.
    script: Option<(String, String)>,
}

impl Converter<'_> {
    /// Converts a `RUN`.
    pub(super) fn run_step(
        &mut self,
        stage: &mut StageState,
        command: &Command,
        run: &Run,
    ) -> Result<(), Problem> {
        let instruction = &command.instruction;
        // A step can read any file of the stage.
        self.path_sets[stage.path_set].insert("/".to_owned());
        let mut line = command_line(stage, run)?;
        let mut mounts = Mounts::default();
        if let Some((name, text)) = line.script.take() {
            let source = Some(self.inline_file(&format!("/{name}"), text.as_bytes(), 0o755));
            let dest = "/dev/pipes/".to_owned();
            let mount = pb::Mount {
                dest,
                readonly: true,
                selector: "/".to_owned(),
                output: -1,
                ..Default::default()
            };
            mounts.mounts.push((mount, source));
        }
        if run.command.shell {
            line.arguments = with_shell(stage, &line.arguments);
        }
        let resolved = self.resolve_mounts(stage, instruction, run)?;
        for (index, mount) in resolved.iter().enumerate() {
            let source = command.sources.get(index).copied().flatten();
            self.mount(stage, instruction, mount, source, &mut mounts)?;
        }
        if let Some(size) = self.options.shm_size.filter(|size| *size > 0) {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            mounts.mounts.push((tmpfs("/dev/shm".to_owned(), size), None));
        }
        let network = self.network(run, instruction)?;
        self.check_security(run)?;
        let secrets: Vec<String> = resolved.iter().filter_map(|mount| mount.env.clone()).collect();
        let code = format!("{}{}", instruction.code, line.summary);
        let shown = Masked { inner: &stage.files.env, secrets: &secrets };
        let name = names::expanded(&self.expander.raw_quotes().keep_unset(), &code, &shown);
        let mut meta = self.step_meta(stage, instruction, &name);
        meta.ignore_cache = stage.ignore_cache;
        meta.description.insert(names::COMMAND.to_owned(), instruction.code.clone());
        meta.linux_resources = Some(self.options.resources.clone())
            .filter(|resources| *resources != pb::LinuxResources::default());
        let text = run_text(&line.arguments, &stage.build_args, &stage.files.env);
        let exec = pb::ExecOp {
            meta: Some(self.process(stage, line.arguments, &mounts)),
            network: network as i32,
            security: match run.security {
                Security::Sandbox => pb::SecurityMode::Sandbox as i32,
                Security::Insecure => pb::SecurityMode::Insecure as i32,
            },
            cdi_devices: run.devices.iter().map(device).collect(),
            ..Default::default()
        };
        stage.files.output = Some(self.add_exec(stage, exec, mounts, meta));
        stage.commit(format!("RUN {text} # buildkit"), true, instruction.lines, self.epoch);
        Ok(())
    }

    /// Describes the process.
    fn process(&self, stage: &StageState, args: Vec<String>, mounts: &Mounts) -> pb::Meta {
        let mut env = stage.files.env.clone();
        if let Some(first) = mounts.ssh.first().filter(|_| env.get("SSH_AUTH_SOCK").is_none()) {
            env.set("SSH_AUTH_SOCK", &first.dest);
        }
        let options = self.options;
        let host = |host: &slipway_model::solve::ExtraHost| pb::HostIp {
            host: host.host.clone(),
            ip: host.address.to_string(),
        };
        let limit = |limit: &slipway_model::solve::Ulimit| pb::Ulimit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        };
        pb::Meta {
            args,
            env: env.to_strings(),
            cwd: stage.files.dir.clone(),
            user: stage.files.user.clone(),
            proxy_env: self.proxy(),
            extra_hosts: options.extra_hosts.iter().map(host).collect(),
            hostname: options.step_hostname().to_owned(),
            ulimit: options.ulimits.iter().map(limit).collect(),
            cgroup_parent: options.cgroup_parent.clone().unwrap_or_default(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }

    /// Returns the proxies that build arguments name; steps see them, cache and history do not.
    fn proxy(&self) -> Option<pb::ProxyEnv> {
        let mut proxy = pb::ProxyEnv::default();
        let mut found = false;
        for (name, value) in &self.build_args {
            let slot = match name.to_lowercase().as_str() {
                "http_proxy" => &mut proxy.http_proxy,
                "https_proxy" => &mut proxy.https_proxy,
                "ftp_proxy" => &mut proxy.ftp_proxy,
                "no_proxy" => &mut proxy.no_proxy,
                "all_proxy" => &mut proxy.all_proxy,
                _ => continue,
            };
            slot.clone_from(value);
            found = true;
        }
        found.then_some(proxy)
    }

    fn network(&self, run: &Run, instruction: &Instruction) -> Result<pb::NetMode, Problem> {
        let mode = match (run.network, self.options.network) {
            (RunNetwork::None, _) | (RunNetwork::Default, NetworkMode::None) => pb::NetMode::None,
            (RunNetwork::Host, _) | (RunNetwork::Default, NetworkMode::Host) => pb::NetMode::Host,
            (RunNetwork::Default, NetworkMode::Default) => pb::NetMode::Unset,
        };
        // Asking for the host's network on the command line grants it.
        let granted = self.options.network == NetworkMode::Host
            || self.options.entitlements.contains(&Entitlement::NetworkHost);
        if mode == pb::NetMode::Host && !granted && self.purpose == Purpose::Build {
            let problem =
                Problem::new("network.host is not allowed").at(instruction.lines).token("--network=host");
            return Err(problem.hint("allow it with `--allow network.host`"));
        }
        Ok(mode)
    }

    fn check_security(&self, run: &Run) -> Result<(), Problem> {
        let granted = self.options.entitlements.contains(&Entitlement::SecurityInsecure);
        if run.security == Security::Insecure && !granted && self.purpose == Purpose::Build {
            let problem = Problem::new("security.insecure is not allowed").token("--security=insecure");
            return Err(problem.hint("allow it with `--allow security.insecure`"));
        }
        Ok(())
    }

    fn resolve_mounts(
        &self,
        stage: &StageState,
        instruction: &Instruction,
        run: &Run,
    ) -> Result<Vec<Mount>, Problem> {
        let mut expand = |text: &str| self.expand(stage, instruction, text);
        run.mounts.iter().map(|mount| mount.resolve(&mut expand)).collect()
    }

    fn mount(
        &mut self,
        stage: &mut StageState,
        instruction: &Instruction,
        mount: &Mount,
        source: Option<usize>,
        mounts: &mut Mounts,
    ) -> Result<(), Problem> {
        if let Some(source) = source.filter(|&source| !self.stages[source].dispatched) {
            let from = mount.from.as_deref().unwrap_or(&self.stages[source].display_name);
            let message = format!(
                "cannot mount from stage {} to {}, stage needs to be defined before current command",
                quote(from),
                quote(&mount.target)
            );
            return Err(Problem::new(message).token(from));
        }
        match mount.kind {
            MountType::Secret => return self.secret(stage, instruction, mount, mounts),
            MountType::Ssh => return self.ssh(stage, instruction, mount, mounts),
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {}
        }
        let target = if clean(&mount.target).starts_with('/') {
            mount.target.clone()
        } else {
            join("/", &format!("{}/{}", stage.files.dir, mount.target))
        };
        if target == "/" {
            let problem = Problem::new(format!("invalid mount target {}", quote(&target)));
            return Err(problem.hint("say where to mount with `target=`"));
        }
        let path = join("/", &mount.source);
        let mut output = self.mount_source(mount, source, &path)?;
        let mut selector = String::new();
        if path != "/" {
            selector = path;
        } else if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
            output = Some(self.cache_directory(output, mount));
            selector = "/cache".to_owned();
        }
        let mut entry = match mount.kind {
            MountType::Tmpfs => tmpfs(target, mount.size),
            _ => pb::Mount { dest: target, output: -1, ..Default::default() },
        };
        entry.selector = selector;
        entry.readonly = mount.read_only;
        if mount.kind == MountType::Cache {
            let id = if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() };
            let namespace = self.options.build_arg("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default();
            let sharing = match mount.sharing {
                None | Some(CacheSharing::Shared) => pb::CacheSharing::Shared,
                Some(CacheSharing::Private) => pb::CacheSharing::Private,
                Some(CacheSharing::Locked) => pb::CacheSharing::Locked,
            };
            entry.mount_type = pb::MountType::Cache as i32;
            entry.cache_opt = Some(pb::CacheOpt { id: format!("{namespace}/{id}"), sharing: sharing as i32 });
        }
        mounts.mounts.push((entry, output));
        Ok(())
    }

    /// Returns the files that a mount starts with, and notes which of them it reads.
    fn mount_source(
        &mut self,
        mount: &Mount,
        source: Option<usize>,
        path: &str,
    ) -> Result<NodeOutput, Problem> {
        match (mount.kind, source) {
            (MountType::Tmpfs, _) => Ok(None),
            (_, Some(source)) => {
                self.path_sets[self.stages[source].path_set].insert(path.to_owned());
                Ok(self.stages[source].files.output)
            }
            (MountType::Bind, None) => {
                self.main_context.paths.insert(path.to_owned());
                self.main_context()
            }
            _ => Ok(None),
        }
    }

    /// Adds an operation that makes a cache's directory with its owner and mode.
    fn cache_directory(&mut self, base: NodeOutput, mount: &Mount) -> Edge {
        let id = |id: Option<u32>| {
            Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id.unwrap_or_default())) })
        };
        let mkdir = pb::FileActionMkDir {
            path: "/cache".to_owned(),
            mode: (mount.mode.unwrap_or(0o755) & 0o777) as i32,
            make_parents: false,
            owner: Some(pb::ChownOpt { user: id(mount.uid), group: id(mount.gid) }),
            timestamp: -1,
        };
        let name = Some("[internal] setting cache mount permissions".to_owned());
        let action = pb::file_action::Action::Mkdir(mkdir);
        self.add_file_action(base, action, VertexMeta { name, ..Default::default() })
    }

    fn secret(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        mount: &Mount,
        mounts: &mut Mounts,
    ) -> Result<(), Problem> {
        let id = [&mount.source, &mount.id].into_iter().find(|id| !id.is_empty());
        let id = id.map_or_else(|| base_name(&mount.target).to_owned(), Clone::clone);
        let note = MountNote { required: mount.required, lines: instruction.lines };
        stage.outline.secrets.entry(id.clone()).or_insert(note);
        let optional = !mount.required;
        if let Some(name) = &mount.env {
            let name = if name.is_empty() { id.clone() } else { name.clone() };
            mounts.secret_env.push(pb::SecretEnv { id: id.clone(), name, optional });
        }
        let dest = match (mount.target.as_str(), &mount.env) {
            ("", Some(_)) => return Ok(()),
            ("", None) => format!("/run/secrets/{}", base_name(&id)),
            (target, _) => target.to_owned(),
        };
        let secret = pb::SecretOpt {
            id,
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
            mode: mount.mode.unwrap_or(0o400),
            optional,
        };
        mounts.secrets.push(pb::Mount {
            input: -1,
            dest,
            mount_type: pb::MountType::Secret as i32,
            secret_opt: Some(secret),
            ..Default::default()
        });
        Ok(())
    }

    fn ssh(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        mount: &Mount,
        mounts: &mut Mounts,
    ) -> Result<(), Problem> {
        if !mount.source.is_empty() {
            return Err(Problem::new("ssh does not support source").token("source="));
        }
        let note = MountNote { required: mount.required, lines: instruction.lines };
        let id = if mount.id.is_empty() { "default" } else { &mount.id };
        stage.outline.ssh.entry(id.to_owned()).or_insert(note);
        let dest = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{}", mounts.ssh.len()),
            target => target.to_owned(),
        };
        let agent = pb::SshOpt {
            id: mount.id.clone(),
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
            mode: mount.mode.unwrap_or(0o600),
            optional: !mount.required,
        };
        mounts.ssh.push(pb::Mount {
            input: -1,
            dest,
            mount_type: pb::MountType::Ssh as i32,
            ssh_opt: Some(agent),
            ..Default::default()
        });
        Ok(())
    }

    /// Adds the operation; its first output is the stage's files after the step.
    fn add_exec(
        &mut self,
        stage: &StageState,
        mut exec: pb::ExecOp,
        mounts: Mounts,
        meta: VertexMeta,
    ) -> Edge {
        let root = pb::Mount { dest: "/".to_owned(), ..Default::default() };
        let mut all = vec![(root, stage.files.output)];
        all.extend(mounts.mounts);
        // Parents are mounted before what is below them.
        all.sort_by(|(a, _), (b, _)| a.dest.cmp(&b.dest));
        let mut inputs = Vec::new();
        for (mut mount, source) in all {
            mount.input = source.map_or(-1, |edge| input(&mut inputs, edge));
            exec.mounts.push(mount);
        }
        exec.mounts.extend(mounts.secrets);
        exec.mounts.extend(mounts.ssh);
        exec.secretenv = mounts.secret_env;
        let platform = stage.platform.as_ref().unwrap_or(&self.options.platform);
        let vertex = self.graph.add(&inputs, pb::op::Op::Exec(exec), Some(platform), meta);
        Edge { vertex, index: 0 }
    }
}

use super::copy::input_index as input;

fn device(device: &DeviceSpec) -> pb::CdiDevice {
    pb::CdiDevice { name: device.name.clone(), optional: !device.required }
}

fn tmpfs(dest: String, size: i64) -> pb::Mount {
    pb::Mount {
        dest,
        output: -1,
        mount_type: pb::MountType::Tmpfs as i32,
        tmpfs_opt: Some(pb::TmpfsOpt { size }),
        ..Default::default()
    }
}

/// Puts heredocs into the command line, or in the place of it.
fn command_line(stage: &StageState, run: &Run) -> Result<Line, Problem> {
    let arguments = run.command.arguments.clone();
    let Some(first) = run.command.heredocs.first() else {
        return Ok(Line { arguments, summary: String::new(), script: None });
    };
    let ([text], true) = (arguments.as_slice(), run.command.shell) else {
        return Err(Problem::new(format!("parsing produced an invalid run command: {arguments:?}")));
    };
    if parse_heredoc_word(text).ok().flatten().is_none() {
        // The shell gets the heredocs as they are.
        let mut text = text.clone();
        for heredoc in &run.command.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        return Ok(Line { arguments: vec![text], summary: String::new(), script: None });
    }
    let content = first.text();
    let summary = format!(" ({})", summary(&first.content));
    if stage.image.os != "windows" && content.starts_with("#!") {
        let path = join("/dev/pipes", &first.name);
        return Ok(Line { arguments: vec![path], summary, script: Some((first.name.clone(), content)) });
    }
    Ok(Line { arguments: vec![content], summary, script: None })
}

/// Returns the first line of a heredoc.
fn summary(text: &str) -> String {
    let text = text.trim().replace("\r\n", "\n");
    match text.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => text,
    }
}
