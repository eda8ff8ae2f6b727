//! A bake definition at an address: what of the command line says so, and what its paths mean then.
//!
//! Paths of such a definition start at the directory that it is in; `cwd://` leads to the working directory.

use slipway_bake::DEFAULT_FILES;
use slipway_engine::{RemoteDirectory, RemoteFiles, RemoteFilesRequest, RemoteNames};
use slipway_model::solve::{
    ContextSource, NamedContext, NamedContextSource, SecretSource, SecretSpec, SshSpec, StepOptions,
};

use super::super::{SettingsError, Surroundings, build, context};
use crate::args::bake::BakeArgs;
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

/// What the paths of a target mean, if its definition is in a directory at an address.
pub(super) struct Remote<'a> {
    pub(super) directory: &'a RemoteDirectory,
}

impl Remote<'_> {
    /// Returns the context that a path is; `None` if it is none of the directory.
    pub(super) fn context(&self, path: &str) -> Result<Option<ContextSource>, SettingsError> {
        const ELSEWHERE: &[&str] = &["cwd://", "target:", "docker-image:", "oci-layout:"];
        if ELSEWHERE.iter().any(|prefix| path.starts_with(prefix)) || context::is_remote(path) {
            return Ok(None);
        }
        let made = self.directory.context(path);
        made.map(Some).map_err(|error| SettingsError::input(error.to_string()))
    }

    /// Returns the named context that a path is; `None` if it is none of the directory.
    pub(super) fn named(&self, name: &str, path: &str) -> Result<Option<NamedContext>, SettingsError> {
        let Some(source) = self.context(path)? else { return Ok(None) };
        let source = match source {
            ContextSource::Url(url) => NamedContextSource::Url(url),
            ContextSource::Definition(definition) => {
                NamedContextSource::Definition { definition, config: None }
            }
            _ => return Ok(None),
        };
        context::made(name, source).map(Some)
    }

    /// Lists the secrets that open the directory's host again, in the form of `--secret`.
    pub(super) fn secrets(&self, around: &Surroundings) -> Vec<String> {
        let secrets = secrets(self.directory.url(), around).into_iter();
        let flag = |secret: SecretSpec| match secret.source {
            SecretSource::Environment(variable) => Some(format!("id={},env={variable}", secret.id)),
            SecretSource::File(_) => None,
        };
        secrets.filter_map(flag).collect()
    }
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
