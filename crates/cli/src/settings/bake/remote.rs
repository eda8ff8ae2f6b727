//! A bake definition at an address: what of the command line says so, and what its paths mean then.
//!
//! Paths of such a definition start at the directory that it is in; `cwd://` leads to the working directory.

use std::path::Path;

use slipway_bake::{DEFAULT_FILES, Target};
use slipway_engine::{RemoteDirectory, RemoteFiles, RemoteFilesRequest, RemoteNames};
use slipway_model::solve::{
    ContextSource, NamedContextSource, SecretSource, SecretSpec, SshSpec, StepOptions,
};

use super::super::{SettingsError, Surroundings, build, context};
use crate::args::bake::BakeArgs;
use crate::args::build::BuildArgs;
use crate::error::Failure;

/// Gets files from an address.
pub(crate) type Fetch<'a> = dyn FnMut(RemoteFilesRequest) -> Result<RemoteFiles, Failure> + 'a;

/// The addresses of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Where the definition is.
    pub(crate) definition: Option<String>,
    /// What the definition sees as `BAKE_CMD_CONTEXT`.
    pub(crate) context: Option<String>,
}

impl Addresses {
    /// Takes the addresses from before the targets.
    pub(crate) fn take(args: &mut BakeArgs) -> Self {
        let mut next = || match args.targets.first() {
            Some(target) if context::is_remote(target) => Some(args.targets.remove(0)),
            _ => None,
        };
        let definition = next();
        Self { context: definition.is_some().then(next).flatten(), definition }
    }
}

/// Asks for the files of a definition; none named are the usual ones.
pub(super) fn request(url: &str, named: &[String], around: &Surroundings) -> RemoteFilesRequest {
    let names = match named {
        [] => RemoteNames::Existing(DEFAULT_FILES.iter().map(|name| (*name).to_owned()).collect()),
        named => RemoteNames::All(named.to_vec()),
    };
    RemoteFilesRequest { id: build::new_id(), url: url.to_owned(), names, offers: offers(url, around) }
}

/// Finds the logins for a repository that are meant for definitions.
fn offers(url: &str, around: &Surroundings) -> StepOptions {
    let ssh = around.non_empty("BUILDX_BAKE_GIT_SSH").unwrap_or_default();
    let paths = ssh.split(',').filter(|path| !path.is_empty()).map(|path| around.absolute(path)).collect();
    let wants_agent = context::is_git_ssh(url) || !ssh.is_empty();
    StepOptions {
        secrets: secrets(url, around),
        ssh: if wants_agent { vec![SshSpec { id: "default".to_owned(), paths }] } else { Vec::new() },
        ..StepOptions::default()
    }
}

/// Finds the secrets that open the host of an address.
fn secrets(url: &str, around: &Surroundings) -> Vec<SecretSpec> {
    let Some(host) = host(url) else { return Vec::new() };
    [("GIT_AUTH_TOKEN", "BUILDX_BAKE_GIT_AUTH_TOKEN"), ("GIT_AUTH_HEADER", "BUILDX_BAKE_GIT_AUTH_HEADER")]
        .into_iter()
        .filter(|(_, variable)| around.variable(variable).is_some())
        .map(|(id, variable)| SecretSpec {
            id: format!("{id}.{host}"),
            source: SecretSource::Environment(variable.to_owned()),
        })
        .collect()
}

fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit('@').next().filter(|host| !host.is_empty())
}

/// Gives the targets of a definition in a directory at an address the addresses of their contexts, where those have
/// some.
pub(super) fn place_contexts<'a>(
    directory: &RemoteDirectory,
    targets: impl IntoIterator<Item = &'a mut Target>,
) {
    for target in targets {
        let path = target.context.as_deref().unwrap_or(".");
        if let Some(address) = is_path(path).then(|| directory.address(path)).flatten() {
            target.context = Some(address);
        }
    }
}

/// Tells whether a context is a path of the directory that the definition is in.
fn is_path(context: &str) -> bool {
    const ELSEWHERE: &[&str] = &["cwd://", "target:", "docker-image:", "oci-layout:"];
    !context::is_remote(context) && !ELSEWHERE.iter().any(|prefix| context.starts_with(prefix))
}

/// Gives the flags of a target the contexts of a definition in a directory at an address.
pub(super) fn place(
    mut flags: BuildArgs,
    target: &Target,
    directory: &RemoteDirectory,
    around: &Surroundings,
) -> Result<BuildArgs, SettingsError> {
    refuse_dockerfile_of_neither(target, around)?;
    let context = target.context.as_deref().unwrap_or(".");
    if is_path(context) {
        directory.url().clone_into(&mut flags.context);
        flags.of_bake.context = Some(source(directory, context)?);
        // Paths of files start at the directory, too.
        if let Some(file) = target.dockerfile.as_ref().filter(|file| !file.starts_with("cwd://")) {
            flags.file = Some(file.clone()).filter(|_| target.dockerfile_inline.is_none());
        }
    }
    let mut named = Vec::new();
    for (name, value) in target.contexts.iter().flatten().filter(|(_, value)| is_path(value)) {
        let flag = format!("{name}=");
        flags.build_context.retain(|value| !value.starts_with(&flag));
        let source = match source(directory, value)? {
            ContextSource::Url(url) => NamedContextSource::Url(url),
            ContextSource::Definition(definition) => {
                NamedContextSource::Definition { definition, config: None }
            }
            _ => continue,
        };
        named.push(context::made(name, source)?);
    }
    flags.of_bake.contexts = named;
    flags.secret.extend(secret_flags(directory, around));
    Ok(flags)
}

fn source(directory: &RemoteDirectory, path: &str) -> Result<ContextSource, SettingsError> {
    directory.context(path).map_err(|error| SettingsError::input(error.to_string()))
}

/// Refuses a Dockerfile that may be meant to be where the definition is, or where the context is.
fn refuse_dockerfile_of_neither(target: &Target, around: &Surroundings) -> Result<(), SettingsError> {
    let context = target.context.as_deref().and_then(|context| context.strip_prefix("cwd://"));
    let (Some(context), None) = (context, &target.dockerfile_inline) else { return Ok(()) };
    let file = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    let is_said = file.starts_with("cwd://") || context::is_remote(file);
    let path = Path::new(context).join(file.trim_start_matches('/'));
    if is_said || !around.absolute(&path).exists() {
        return Ok(());
    }
    Err(SettingsError::input(
        "reading a dockerfile for a remote build invocation is currently not supported with a local context",
    )
    .hint(format!("if `{}` here is meant, write `dockerfile = \"cwd://{0}\"`", path.display())))
}

/// Lists the secrets that open the directory's host again, in the form of `--secret`.
fn secret_flags(directory: &RemoteDirectory, around: &Surroundings) -> Vec<String> {
    let secrets = secrets(directory.url(), around).into_iter();
    let flag = |secret: SecretSpec| match secret.source {
        SecretSource::Environment(variable) => Some(format!("id={},env={variable}", secret.id)),
        SecretSource::File(_) => None,
    };
    secrets.filter_map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_before_targets() {
        let take = |targets: &[&str]| {
            let targets = targets.iter().map(|target| (*target).to_owned()).collect();
            let mut args = BakeArgs { targets, ..BakeArgs::default() };
            let addresses = Addresses::take(&mut args);
            (addresses.definition, addresses.context, args.targets.join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(take(&["app", "test"]), (None, None, "app test".to_owned()));
        assert_eq!(
            take(&["https://h/r.git#v1", "app"]),
            (some("https://h/r.git#v1"), None, "app".to_owned())
        );
        assert_eq!(
            take(&["https://h/r.git", "git://h/s.git", "app"]),
            (some("https://h/r.git"), some("git://h/s.git"), "app".to_owned())
        );
    }

    #[test]
    fn logins_are_for_the_host_of_the_definition() {
        let directory = tempfile::tempdir().unwrap();
        let around = Surroundings::fixed(directory.path(), &[("BUILDX_BAKE_GIT_AUTH_TOKEN", "t")], b"");
        let ids = |url: &str| secrets(url, &around).into_iter().map(|secret| secret.id).collect::<Vec<_>>();
        assert_eq!(ids("https://me@h.example:8080/r.git#x"), ["GIT_AUTH_TOKEN.h.example:8080"]);
        assert!(ids("git@h.example:r.git").is_empty());
    }
}
