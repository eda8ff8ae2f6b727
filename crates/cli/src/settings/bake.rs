//! `bake`: flags and files become a definition, each of its targets the same request that `build` makes.
//!
//! A target is written as the flags of `build`, and those are resolved where `build`'s are: there is one
//! way from options to a request.

pub(crate) mod links;
pub(crate) mod privileges;
pub(crate) mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use slipway_bake::{
    Bake, DEFAULT_FILES, Definition, Environment, Grants, PathBase, Request, SourceFile, Target,
};
use slipway_model::{Diagnostic, Platform};

use remote::{Addresses, Fetch};
use slipway_engine::RemoteDirectory;

use super::build::{self, BuildSettings};
use super::secrets::describe;
use super::{SettingsError, Surroundings, context};
use crate::args::bake::BakeArgs;
use crate::args::build::{BuildArgs, OfBake};
use crate::error::Failure;

/// The files, read and evaluated.
pub(crate) struct Loaded {
    files: Vec<SourceFile>,
    environment: Environment,
    pub(crate) definition: Definition,
    /// The definition is at an address.
    at_address: bool,
    /// Where its paths start, if that is not here.
    pub(crate) directory: Option<RemoteDirectory>,
}

/// One target, ready to be built.
pub(crate) struct PlannedTarget {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) settings: Arc<BuildSettings>,
    /// The targets that must be built first.
    pub(crate) needs: BTreeSet<String>,
    /// The targets that are built again as a part of this one, from what is built already.
    pub(crate) parts: BTreeSet<String>,
}

/// Reads the files that the flags, the environment or the defaults name, here or at an address.
pub(crate) fn load(
    args: &BakeArgs,
    addresses: &Addresses,
    around: &mut Surroundings,
    fetch: &mut Fetch<'_>,
) -> Result<Loaded, Failure> {
    let named = if args.file.is_empty() { files_of_environment(around) } else { args.file.clone() };
    let (files, directory) = match &addresses.definition {
        None => (read_files(&named, around)?, None),
        Some(url) => read_remote(url, &named, around, fetch)?,
    };
    if files.is_empty() {
        return Err(SettingsError::input("couldn't find a bake definition")
            .hint(format!("make one of {}, or name a file with `--file`", DEFAULT_FILES.join(", ")))
            .into());
    }
    let mut environment = environment(args, around)?;
    if addresses.definition.is_some() {
        // What is named there must not be looked for here.
        environment.read = Box::new(|_| {
            Err(io::Error::other(
                "a compose file at an address cannot name other files; clone the repository",
            ))
        });
    }
    if let Some(context) = &addresses.context {
        environment.builtins.insert("BAKE_CMD_CONTEXT".to_owned(), context.clone());
    }
    let definition = slipway_bake::parse(&files, &environment)?;
    let at_address = addresses.definition.is_some();
    Ok(Loaded { files, environment, definition, at_address, directory })
}

fn read_files(named: &[String], around: &mut Surroundings) -> Result<Vec<SourceFile>, SettingsError> {
    let names: Vec<&str> = match named {
        [] => DEFAULT_FILES.iter().copied().filter(|name| around.absolute(name).is_file()).collect(),
        named => named.iter().map(|name| name.strip_prefix("cwd://").unwrap_or(name)).collect(),
    };
    names.into_iter().map(|name| read_file(name, around)).collect()
}

/// Reads the files of an address, and those that the working directory adds to them.
fn read_remote(
    url: &str,
    named: &[String],
    around: &mut Surroundings,
    fetch: &mut Fetch<'_>,
) -> Result<(Vec<SourceFile>, Option<RemoteDirectory>), Failure> {
    let (here, there): (Vec<&String>, Vec<&String>) =
        named.iter().partition(|name| name.starts_with("cwd://"));
    let there: Vec<String> = there.into_iter().cloned().collect();
    let found = fetch(remote::request(url, &there, around))?;
    let mut files = Vec::new();
    for (name, content) in found.files {
        let text = String::from_utf8(content).map_err(|_| not_text(&name))?;
        files.push(SourceFile { name, text });
    }
    for name in here {
        files.push(read_file(name.trim_start_matches("cwd://"), around)?);
    }
    Ok((files, found.directory))
}

fn not_text(name: &str) -> SettingsError {
    SettingsError::input(format!("failed to read the bake file `{name}`: it is not UTF-8 text"))
}

/// Lists the targets and groups of the files that were named, or of the usual ones.
pub(crate) fn target_names(files: &[String], around: &mut Surroundings) -> Vec<String> {
    let args = BakeArgs { file: files.to_vec(), ..BakeArgs::default() };
    let mut nothing = |_| Err(Failure::Status(1));
    let Ok(loaded) = load(&args, &Addresses::default(), around, &mut nothing) else { return Vec::new() };
    loaded.definition.names().map(str::to_owned).collect()
}

/// Takes the files' names from `BUILDX_BAKE_FILE`.
fn files_of_environment(around: &Surroundings) -> Vec<String> {
    let separator = around.non_empty("BUILDX_BAKE_PATH_SEPARATOR").unwrap_or(":");
    let Some(list) = around.variable("BUILDX_BAKE_FILE") else { return Vec::new() };
    list.split(separator).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn read_file(name: &str, around: &mut Surroundings) -> Result<SourceFile, SettingsError> {
    if context::is_remote(name) {
        return Err(SettingsError::flag(format!("`--file {name}` is no path"))
            .hint(format!("name the address before the targets: `slipway bake {name}`")));
    }
    let mut bytes = Vec::new();
    if name == "-" {
        around
            .stdin()
            .read_to_end(&mut bytes)
            .map_err(|error| SettingsError::input(format!("failed to read standard input: {error}")))?;
    } else {
        bytes = std::fs::read(around.absolute(name)).map_err(|error| {
            SettingsError::input(format!("failed to read the bake file {name}: {}", describe(&error)))
                .hint("name a file that exists with `--file`")
        })?;
    }
    let text = String::from_utf8(bytes).map_err(|_| not_text(name))?;
    Ok(SourceFile { name: name.to_owned(), text })
}

fn environment(args: &BakeArgs, around: &Surroundings) -> Result<Environment, SettingsError> {
    let mut given = BTreeMap::new();
    for text in args.var.iter().filter(|text| !text.is_empty()) {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => drop(given.insert(name.to_owned(), value.to_owned())),
            _ => {
                return Err(SettingsError::flag(format!("invalid variable `{text}`, expected key=value"))
                    .hint("write `--var NAME=VALUE`"));
            }
        }
    }
    let builtins = [
        ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
        ("BAKE_LOCAL_PLATFORM".to_owned(), Platform::host().to_string()),
    ];
    let directory = around.absolute("");
    Ok(Environment {
        variables: around.variables().clone(),
        given,
        dot_env: std::fs::read_to_string(around.absolute(".env")).ok(),
        read: Box::new(move |path| std::fs::read_to_string(directory.join(path))),
        builtins: builtins.into(),
    })
}

impl Loaded {
    /// Lists the files with their sizes.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files.iter().map(|file| (file.name.as_str(), file.text.len() as u64))
    }

    /// Resolves what was asked for.
    pub(crate) fn resolve(&self, args: &BakeArgs) -> Result<Bake, Failure> {
        let mut overrides = args.set.clone();
        let mut set = |text: String| overrides.push(format!("*.{text}"));
        if args.push {
            set("push=true".to_owned());
        }
        if args.load {
            set("load=true".to_owned());
        }
        if let Some(method) = call_method(args) {
            set(format!("call={method}"));
        }
        if let Some(no_cache) = args.no_cache {
            set(format!("no-cache={no_cache}"));
        }
        if let Some(pull) = args.pull {
            set(format!("pull={pull}"));
        }
        for (kind, value) in [("sbom", &args.sbom), ("provenance", &args.provenance)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                set(format!("attest={}", attestation(kind, value)));
            }
        }
        let policies = super::policy::of_bake(&args.policy)?;
        for policy in policies.iter().flatten() {
            set(format!("policy+={policy}"));
        }
        let policies_off = policies.is_none();
        let request = Request { targets: args.targets.clone(), overrides, policies_off };
        let mut bake = slipway_bake::resolve(&self.definition, &self.files, &self.environment, &request)?;
        if let Some(directory) = &self.directory {
            remote::place_contexts(directory, bake.targets.values_mut());
        }
        Ok(bake)
    }

    /// Says where the paths of the targets start.
    fn paths(&self) -> PathBase {
        if self.directory.is_some() { PathBase::Address } else { PathBase::Here }
    }
}

fn attestation(kind: &str, value: &str) -> String {
    match super::values::boolean(value) {
        Some(on) => format!("type={kind},disabled={}", !on),
        None => format!("type={kind},{value}"),
    }
}

/// Returns the method that `--call` or `--check` name; `None` builds.
fn call_method(args: &BakeArgs) -> Option<String> {
    if args.check == Some(true) {
        return Some("lint".to_owned());
    }
    match args.call.split(',').find(|field| !field.contains('=')) {
        None | Some("" | "build") => None,
        Some("check") => Some("lint".to_owned()),
        Some(method) => Some(method.to_owned()),
    }
}

/// Makes the request of every target.
pub(crate) fn plan(
    args: &BakeArgs,
    bake: &Bake,
    grants: &Grants,
    places: &Places<'_>,
    around: &mut Surroundings,
) -> Result<Vec<PlannedTarget>, Failure> {
    let platforms = shared_platforms(bake);
    let (mut planned, mut failed) = (Vec::new(), Vec::new());
    for (name, target) in &bake.targets {
        let flags = flags(args, target, grants, platforms.get(name.as_str()), around);
        let flags = match (flags, places.directory) {
            (Ok(flags), Some(directory)) => remote::place(flags, target, directory, around),
            (flags, _) => flags,
        };
        let flags = match flags {
            Ok(flags) => flags,
            Err(error) => {
                failed.push(in_target(name, error.into_diagnostic()));
                continue;
            }
        };
        match build::resolve(&flags, around) {
            Ok(settings) => planned.push(PlannedTarget {
                name: name.clone(),
                description: target.description.clone(),
                settings: Arc::new(settings),
                needs: BTreeSet::new(),
                parts: BTreeSet::new(),
            }),
            Err(error) => failed.push(in_target(name, error.into_diagnostic())),
        }
    }
    if !failed.is_empty() {
        return Err(failed.into());
    }
    links::link(bake, places, &mut planned)?;
    Ok(planned)
}

/// Where targets find what is not said in full.
pub(crate) struct Places<'a> {
    /// What targets need of each other goes through OCI layouts below it, where they cannot share a build.
    pub(crate) layouts: &'a Path,
    /// The builder has several nodes, and none has what another makes.
    pub(crate) several_nodes: bool,
    /// Where the definition is, if that is not here.
    pub(crate) directory: Option<&'a RemoteDirectory>,
}

/// Says which target an error is about.
pub(crate) fn in_target(name: &str, mut diagnostic: Diagnostic) -> Diagnostic {
    diagnostic.message.insert_str(0, &format!("target `{name}`: "));
    diagnostic
}

/// Lists the targets that a target's contexts name.
fn needs_of(target: &Target) -> impl Iterator<Item = &str> {
    target.contexts.iter().flatten().filter_map(|(_, value)| value.strip_prefix("target:"))
}

/// Finds the platforms of targets that are built for others only and name none themselves: all that those
/// others have.
fn shared_platforms(bake: &Bake) -> BTreeMap<&str, Vec<String>> {
    let mut platforms: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let own = |target: &Target| target.platforms.clone().unwrap_or_default();
    // Each round carries platforms one link further.
    for _ in 0..bake.targets.len() {
        for target in bake.targets.values() {
            let mut of_target = own(target);
            if of_target.is_empty() {
                of_target = platforms.get(target.name.as_str()).cloned().unwrap_or_default();
            }
            for needed in needs_of(target).filter_map(|name| bake.targets.get(name)) {
                if !needed.linked || !own(needed).is_empty() {
                    continue;
                }
                let list = platforms.entry(needed.name.as_str()).or_default();
                for platform in &of_target {
                    if !list.contains(platform) {
                        list.push(platform.clone());
                    }
                }
            }
        }
    }
    platforms
}

/// Writes a target as the flags of `build`.
fn flags(
    args: &BakeArgs,
    target: &Target,
    grants: &Grants,
    platforms: Option<&Vec<String>>,
    around: &Surroundings,
) -> Result<BuildArgs, SettingsError> {
    let (context, file) = inputs(target, around)?;
    let mut allow = target.entitlements.clone().unwrap_or_default();
    if grants.local_delete {
        allow.push("buildx.local.delete".to_owned());
    }
    let pairs = |map: &Option<slipway_bake::Strings>| -> Vec<String> {
        let set = map.iter().flatten().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        set.map(|(key, value)| format!("{key}={value}")).collect()
    };
    // Those of other targets are added when all targets are known.
    let contexts = target.contexts.iter().flatten().filter(|(_, value)| !value.starts_with("target:"));
    let build_context = contexts
        .map(|(name, value)| format!("{name}={}", value.strip_prefix("cwd://").unwrap_or(value)))
        .collect();
    let own = target.platforms.as_ref().filter(|platforms| !platforms.is_empty());
    Ok(BuildArgs {
        context,
        add_host: pairs(&target.extra_hosts),
        allow,
        annotation: target.annotations.clone().unwrap_or_default(),
        attest: target.attest.iter().flatten().map(|attest| attest.to_csv()).collect(),
        build_arg: pairs(&target.args),
        build_context,
        cache_from: target.cache_from.iter().flatten().map(|cache| cache.to_csv()).collect(),
        cache_to: target.cache_to.iter().flatten().map(|cache| cache.to_csv()).collect(),
        call: call(args, target),
        file,
        label: pairs(&target.labels),
        // Written for all targets at once; what is in it is each one's.
        metadata_file: args.metadata_file.clone(),
        network: target.network.clone().unwrap_or_default(),
        no_cache: target.no_cache.unwrap_or(false),
        no_cache_filter: target.no_cache_filter.clone().unwrap_or_default(),
        output: target.outputs.iter().flatten().map(|output| output.to_csv()).collect(),
        platform: own.or(platforms).cloned().unwrap_or_default(),
        policy: target.policy.iter().flatten().map(|policy| policy.to_csv()).collect(),
        progress: args.progress,
        pull: target.pull.unwrap_or(false),
        resource: target
            .resources
            .iter()
            .flat_map(|resources| resources.entries())
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        secret: target.secrets.iter().flatten().map(|secret| secret.to_csv()).collect(),
        shm_size: target.shm_size.clone(),
        ssh: target.ssh.iter().flatten().map(|ssh| ssh.to_flag()).collect(),
        tag: target.tags.clone().unwrap_or_default(),
        target: target.target.clone(),
        ulimit: target.ulimits.clone().unwrap_or_default(),
        of_bake: OfBake { dockerfile: target.dockerfile_inline.clone(), ..OfBake::default() },
        ..BuildArgs::default()
    })
}

/// Returns a target's method, with the format that the command line asks for.
fn call(args: &BakeArgs, target: &Target) -> String {
    let Some(call) = target.call.as_ref().filter(|call| !call.is_empty()) else { return "build".to_owned() };
    let of_command_line = args.call.split(',').filter(|field| field.contains('='));
    [call.as_str()].into_iter().chain(of_command_line).collect::<Vec<_>>().join(",")
}

/// Finds the context and the Dockerfile, which starts at the context.
fn inputs(target: &Target, around: &Surroundings) -> Result<(String, Option<String>), SettingsError> {
    let context = target.context.as_deref().unwrap_or(".");
    let dockerfile = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    if context == "-" || dockerfile == "-" {
        let what = if context == "-" { "context" } else { "dockerfile" };
        return Err(SettingsError::flag(format!("{what} from stdin not allowed in bake"))
            .hint("give it a path, or the text with `dockerfile-inline`"));
    }
    let context = match context.strip_prefix("cwd://").unwrap_or(context) {
        "" => ".",
        path => path,
    };
    if target.dockerfile_inline.is_some() {
        return Ok((context.to_owned(), None));
    }
    if let Some(path) = dockerfile.strip_prefix("cwd://") {
        // A context elsewhere has no part in it.
        return Ok((context.to_owned(), Some(around.absolute(path).display().to_string())));
    }
    if context::is_remote(context) || context::is_remote(dockerfile) || dockerfile.starts_with('/') {
        return Ok((context.to_owned(), Some(dockerfile.to_owned())));
    }
    // The default name may be in lower case too.
    let file =
        (dockerfile != "Dockerfile").then(|| Path::new(context).join(dockerfile).display().to_string());
    Ok((context.to_owned(), file))
}

#[cfg(test)]
mod tests;
