//! `build`: flags, environment and standard input become one [`SolveRequest`].

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Component, Path, PathBuf};

use slipway_model::SolveRequest;
use slipway_model::solve::{
    CacheOptions, Call, ContextSource, DockerfileRequest, Entitlement, Frontend, NetworkMode, NoCache,
    OutputSpec, PlatformCheck, StepOptions,
};

use super::outputs::{self, OutputFlags};
use super::policy::{self, PolicySettings};
use super::values::{boolean, bytes, csv_fields};
use super::{
    SettingsError, Surroundings, annotation, attestations, cache, context, git, limits, pairs, platforms,
    proxies, secrets, steps,
};
use crate::args::build::{BuildArgs, PlatformCheckArg, ProgressArg};
use crate::ui::DisplayMode;

/// Everything `build` does, decided.
#[derive(Debug)]
pub(crate) struct BuildSettings {
    pub(crate) request: SolveRequest,
    pub(crate) display: DisplayMode,
    /// Print the image's ID on standard output.
    pub(crate) print_id: bool,
    /// How the answer of a call is shown; `None` builds.
    pub(crate) call: Option<CallSettings>,
    /// What the Dockerfile is called in answers, if that says more than its name in the context.
    pub(crate) dockerfile_name: Option<String>,
    pub(crate) metadata_file: Option<PathBuf>,
    pub(crate) iid_file: Option<PathBuf>,
    /// Tell why steps were in the cache or were not.
    pub(crate) explain: bool,
    /// The policies that decide about sources, beside the rules of the request.
    pub(crate) policy: Option<PolicySettings>,
    /// Open a shell in a step that fails.
    pub(crate) shell_on_failure: bool,
    /// What a person should know about the flags, and that stops nothing.
    pub(crate) notes: Vec<String>,
    /// Keeps a context received on standard input open until the build is over.
    pub(crate) received: Option<File>,
}

/// How the answer of `--call` is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallSettings {
    pub(crate) function: CallFunction,
    pub(crate) json: bool,
    /// Exit with 0 even if the check found something.
    pub(crate) ignore_status: bool,
}

/// What `--call` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFunction {
    Check,
    Outline,
    Targets,
    /// Lists the functions there are.
    Describe,
}

impl CallFunction {
    /// Returns the name that `--call` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Outline => "outline",
            Self::Targets => "targets",
            Self::Describe => "subrequests.describe",
        }
    }
}

/// Makes a request from what was typed.
pub(crate) fn resolve(args: &BuildArgs, around: &mut Surroundings) -> Result<BuildSettings, SettingsError> {
    let mut notes = Vec::new();
    let (display, print_id) = display(args, around)?;
    let call = call(args)?;
    let build_args = build_args(args, around)?;
    let grants = steps::grants(&args.allow)?;
    let annotations = annotation::from_flags(&args.annotation)?;
    let outputs = outputs::parse(
        &OutputFlags {
            outputs: &args.output,
            push: args.push,
            load: args.load,
            tags: &args.tag,
            annotations: &annotations,
            local_delete: grants.local_delete,
        },
        around,
    )?;
    let place =
        |flag: &str, path: &Option<PathBuf>| path.as_deref().map(|path| around.place(flag, path)).transpose();
    let iid_file = place("iidfile", &args.iidfile)?;
    let metadata_file = place("metadata-file", &args.metadata_file)?;
    let writes_files = |spec: &OutputSpec| matches!(spec, OutputSpec::Local(_) | OutputSpec::Tar(_));
    if iid_file.is_some() && outputs.specs.iter().any(writes_files) {
        return Err(SettingsError::flag("local and tar exporters are incompatible with image ID file")
            .hint("leave `--iidfile` out, or use `--output type=oci` or `type=image`"));
    }
    let mut attestations =
        attestations::parse(&args.attest, args.provenance.as_deref(), args.sbom.as_deref(), around)?;
    if metadata_file.is_some() {
        attestations.metadata = attestations::metadata(around);
    }
    let cache = CacheOptions {
        imports: cache::parse("cache-from", &args.cache_from, around, &mut notes)?,
        exports: cache::parse("cache-to", &args.cache_to, around, &mut notes)?,
    };
    let platforms = platforms::of_build(&args.platform, around)?;
    let (step_options, entitlements) = step_options(args, grants.entitlements, around)?;
    note_without_effect(args, &mut notes);
    cache::note_unknown("cache-from", &cache.imports, &mut notes);
    cache::note_unknown("cache-to", &cache.exports, &mut notes);
    // Standard input is read last: a mistake in the flags is told without waiting for it.
    let mut inputs = match &args.of_bake.dockerfile {
        Some(text) => context::with_inline(&args.context, text, around)?,
        None => context::inputs(&args.context, args.file.as_deref(), around)?,
    };
    let dockerfile_name = dockerfile_name(args, &inputs.context);
    let mut labels = pairs::labels(&args.label)?;
    let mut named_contexts = context::named(&args.build_context, around)?;
    let commit = git::of_commit(&inputs.context, &inputs.dockerfile, &named_contexts, around)?;
    labels.extend(commit.labels);
    if let Some(context) = &args.of_bake.context {
        inputs.context = context.clone();
    }
    named_contexts.extend(args.of_bake.contexts.iter().cloned());
    let frontend = DockerfileRequest {
        context: inputs.context,
        dockerfile: inputs.dockerfile,
        target: args.target.clone().filter(|target| !target.is_empty()),
        build_args,
        labels,
        vcs: commit.vcs,
        named_contexts,
        context_directory: None,
        no_cache_stages: no_cache(args)?,
        pull: args.pull,
        call: call.map_or(Call::Build, |call| match call.function {
            CallFunction::Check => Call::Check,
            CallFunction::Outline => Call::Outline,
            CallFunction::Targets => Call::Targets,
            CallFunction::Describe => Call::Build,
        }),
        ..DockerfileRequest::default()
    };
    let written = (args.context.as_str(), args.file.as_deref());
    let policy = policy::of_build(&args.policy, &frontend, &step_options, written, around)?;
    if matches!(frontend.context, ContextSource::Definition(_)) && args.policy.is_empty() {
        let note = "policies beside the Dockerfile are not looked for below a directory of a bake definition elsewhere";
        notes.push(format!("{note} (`--policy disabled=true` silences this)"));
    }
    if around.variable("BUILDX_DEFAULT_POLICY").and_then(boolean) == Some(true) {
        notes.push(
            "`BUILDX_DEFAULT_POLICY` has no effect: signatures of sigstore cannot be verified".to_owned(),
        );
    }
    let request = SolveRequest {
        id: new_id(),
        frontend: Frontend::Dockerfile(Box::new(frontend)),
        platforms,
        outputs: if call.is_some() { Vec::new() } else { outputs.specs },
        cache,
        steps: step_options,
        attestations,
        entitlements,
        platform_check: match args.platform_check {
            PlatformCheckArg::Off => PlatformCheck::Off,
            PlatformCheckArg::Warn => PlatformCheck::Warn,
            PlatformCheckArg::Error => PlatformCheck::Error,
        },
        // The build argument is the frontend's, which knows the contexts and stages that it may name.
        source_date_epoch: outputs.source_date_epoch,
        source_policy: policy::static_rules(around)?,
    };
    Ok(BuildSettings {
        request,
        display,
        print_id: print_id && call.is_none(),
        call,
        dockerfile_name,
        metadata_file,
        iid_file,
        explain: args.explain,
        policy,
        shell_on_failure: args.on_failure.is_some(),
        notes,
        received: inputs.received,
    })
}

/// Returns what the Dockerfile is called by whoever has typed the flags.
fn dockerfile_name(args: &BuildArgs, context: &ContextSource) -> Option<String> {
    let plain = |path: &Path| -> String {
        let parts = path.components().filter(|part| *part != Component::CurDir);
        parts.collect::<PathBuf>().display().to_string()
    };
    match (&args.of_bake.dockerfile, args.file.as_deref().filter(|file| !file.is_empty()), context) {
        (Some(_), ..) => Some("inline".to_owned()),
        (None, Some("-"), _) | (None, None, ContextSource::Empty) => Some("stdin".to_owned()),
        (None, Some(url), _) if url.contains("://") => Some(url.to_owned()),
        (None, Some(file), _) => Some(plain(Path::new(file))),
        (None, None, ContextSource::Directory(_)) => {
            Some(plain(&Path::new(&args.context).join("Dockerfile")))
        }
        (None, None, _) => None,
    }
}

/// Decides how progress is shown, and whether the image's ID is printed.
fn display(args: &BuildArgs, around: &Surroundings) -> Result<(DisplayMode, bool), SettingsError> {
    let kind = args.progress;
    let quiet = args.quiet || kind == ProgressArg::Quiet;
    if quiet {
        return match kind {
            ProgressArg::Auto | ProgressArg::Quiet | ProgressArg::None => Ok((DisplayMode::Silent, true)),
            ProgressArg::Tty | ProgressArg::Plain | ProgressArg::Rawjson => {
                Err(SettingsError::flag("`--progress` and `--quiet` cannot be used together")
                    .hint("leave one of them out"))
            }
        };
    }
    Ok((display_mode(kind, around)?, false))
}

/// Decides how progress is shown.
pub(crate) fn display_mode(
    mut kind: ProgressArg,
    around: &Surroundings,
) -> Result<DisplayMode, SettingsError> {
    if kind == ProgressArg::Auto
        && let Some(value) = around.non_empty("BUILDKIT_PROGRESS")
    {
        kind = <ProgressArg as clap::ValueEnum>::from_str(value, true).map_err(|_| {
            SettingsError::flag(format!("invalid progress mode `{value}` in `BUILDKIT_PROGRESS`"))
                .hint("use auto, tty, plain, quiet, rawjson or none")
        })?;
    }
    let live = around.stderr_is_terminal && around.variable("TERM") != Some("dumb");
    Ok(match kind {
        ProgressArg::Auto | ProgressArg::Tty if live => DisplayMode::Tty,
        ProgressArg::Auto | ProgressArg::Tty | ProgressArg::Plain => DisplayMode::Plain,
        ProgressArg::Rawjson => DisplayMode::RawJson,
        ProgressArg::Quiet | ProgressArg::None => DisplayMode::Silent,
    })
}

/// Parses `--call`, `--check` and `--print`.
fn call(args: &BuildArgs) -> Result<Option<CallSettings>, SettingsError> {
    const HINT: &str = "use `--call check`, `outline`, `targets` or `build`";
    let text = match (args.check, &args.hidden.print) {
        (Some(true), _) => "check",
        (_, Some(print)) => print,
        _ => &args.call,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let (mut name, mut json, mut ignore_status) = (None, false, false);
    for field in csv_fields("call", text)? {
        match field.split_once('=') {
            Some(("format", format)) => json = format == "json",
            Some(("ignorestatus", value)) => {
                ignore_status = boolean(value).ok_or_else(|| {
                    SettingsError::flag(format!("invalid value `{value}` for `ignorestatus` of `--call`"))
                })?;
            }
            None if name.is_none() => name = Some(field),
            _ => return Err(SettingsError::flag(format!("invalid value `{text}` for `--call`")).hint(HINT)),
        }
    }
    let function = match name.as_deref() {
        None | Some("" | "build") => return Ok(None),
        Some("check" | "lint") => CallFunction::Check,
        Some("outline") => CallFunction::Outline,
        Some("targets") => CallFunction::Targets,
        Some("subrequests.describe") => CallFunction::Describe,
        Some(other) => {
            return Err(SettingsError::flag(format!("unknown method `{other}` for `--call`")).hint(HINT));
        }
    };
    Ok(Some(CallSettings { function, json, ignore_status }))
}

const EPOCH: &str = "SOURCE_DATE_EPOCH";

fn build_args(args: &BuildArgs, around: &Surroundings) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut map = pairs::from_environment(&args.build_arg, around)?;
    if !map.contains_key(EPOCH)
        && let Some(epoch) = around.non_empty(EPOCH)
    {
        map.insert(EPOCH.to_owned(), epoch.to_owned());
    }
    if map.get("BUILDKIT_SYNTAX").is_some_and(|line| line.trim().is_empty()) {
        return Err(SettingsError::flag(
            "empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior",
        ));
    }
    proxies::add(&mut map, around);
    Ok(map)
}

fn no_cache(args: &BuildArgs) -> Result<NoCache, SettingsError> {
    let stages: Vec<String> =
        args.no_cache_filter.iter().flat_map(|value| value.split(',')).map(str::to_owned).collect();
    match (args.no_cache, stages.is_empty()) {
        (true, false) => {
            Err(SettingsError::flag("--no-cache and --no-cache-filter cannot currently be used together")
                .hint("`--no-cache` is for all stages: leave `--no-cache-filter` out"))
        }
        (true, true) => Ok(NoCache::All),
        (false, true) => Ok(NoCache::Nothing),
        (false, false) => Ok(NoCache::Stages(stages)),
    }
}

type Entitlements = std::collections::BTreeSet<Entitlement>;

fn step_options(
    args: &BuildArgs,
    mut entitlements: Entitlements,
    around: &Surroundings,
) -> Result<(StepOptions, Entitlements), SettingsError> {
    let network = steps::network(&args.network)?;
    if network == NetworkMode::Host {
        entitlements.insert(Entitlement::NetworkHost);
    }
    let mut ssh = args.ssh.clone();
    if ssh.is_empty() && context::is_git_ssh(&args.context) && around.non_empty("SSH_AUTH_SOCK").is_some() {
        ssh.push("default".to_owned());
    }
    let shm_size = match args.shm_size.as_deref() {
        None => None,
        Some(text) => Some(bytes(text).map_err(|error| {
            SettingsError::flag(format!("invalid value for `--shm-size`: {error}"))
                .hint("write `--shm-size 64m`")
        })?),
    };
    let options = StepOptions {
        hostname: None,
        network,
        extra_hosts: steps::extra_hosts(&args.add_host)?,
        shm_size: shm_size.filter(|size| *size > 0),
        ulimits: limits::ulimits(&args.ulimit)?,
        cgroup_parent: args.cgroup_parent.clone().filter(|path| !path.is_empty()),
        resources: limits::resources(&args.resource, &args.hidden)?,
        secrets: secrets::secrets(&args.secret, around)?,
        ssh: secrets::ssh(&ssh, around)?,
        // What policies ask for.
        proxy_network: false,
        keep_failed: args.on_failure.is_some(),
    };
    Ok((options, entitlements))
}

/// Collects remarks on flags that are read and change nothing.
fn note_without_effect(args: &BuildArgs, notes: &mut Vec<String>) {
    let hidden = &args.hidden;
    let mut note = |given: bool, text: &str| {
        if given {
            notes.push(text.to_owned());
        }
    };
    note(hidden.isolation.is_some(), "`--isolation` has no effect");
    note(
        !hidden.security_opt.is_empty(),
        "`--security-opt` has no effect; use `RUN --security=insecure` with `--allow security.insecure`",
    );
    note(
        hidden.squash == Some(true),
        "`--squash` has no effect; copy the result into a stage `FROM scratch`",
    );
}

/// Makes a name for a build, as BuildKit's are: 25 letters and digits.
pub(crate) fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let random = || u128::from(RandomState::new().build_hasher().finish());
    let mut number = random() << 64 | random();
    let mut id = vec![0; 25];
    for digit in id.iter_mut().rev() {
        *digit = DIGITS[(number % 36) as usize];
        number /= 36;
    }
    id.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests;
