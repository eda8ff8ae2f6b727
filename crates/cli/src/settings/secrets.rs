//! `--secret` and `--ssh`: what steps may read and no image may hold.

use std::io;
use std::path::PathBuf;

use slipway_model::solve::{SecretSource, SecretSpec, SshSpec};

use super::values::{csv_pairs, nearest};
use super::{SettingsError, Surroundings};

/// BuildKit's limit of a secret's size.
const MAX_SECRET: u64 = 500 * 1024;

/// Parses every `--secret`; the last of an id counts.
pub(crate) fn secrets(values: &[String], around: &Surroundings) -> Result<Vec<SecretSpec>, SettingsError> {
    let mut list: Vec<SecretSpec> = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let secret = secret(value, around)?;
        list.retain(|other| other.id != secret.id);
        list.push(secret);
    }
    Ok(list)
}

fn secret(value: &str, around: &Surroundings) -> Result<SecretSpec, SettingsError> {
    let (mut kind, mut id, mut source, mut variable) = (None, None, None, None);
    for (key, text) in csv_pairs("secret", value)? {
        match key.as_str() {
            "type" if matches!(text.as_str(), "file" | "env") => kind = Some(text),
            "type" => return Err(SettingsError::flag(format!("unsupported secret type `{text}`"))),
            "id" => id = Some(text).filter(|id| !id.is_empty()),
            "source" | "src" => source = Some(text).filter(|path| !path.is_empty()),
            "env" => variable = Some(text).filter(|name| !name.is_empty()),
            other => {
                let error = SettingsError::flag(format!("unexpected key `{other}` in `--secret {value}`"));
                let near = nearest(other, &["id", "src", "env", "type"]).unwrap_or("id");
                return Err(error.hint(format!("did you mean `{near}=`?")));
            }
        }
    }
    let id = id.ok_or_else(|| {
        SettingsError::flag(format!("`--secret {value}` has no id"))
            .hint("write `--secret id=NAME,src=PATH` or `--secret id=NAME,env=VARIABLE`")
    })?;
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = source.take();
    }
    let source = match (variable, source) {
        (_, Some(path)) => file(&id, &path, around)?,
        (Some(name), None) => SecretSource::Environment(name),
        (None, None) if around.variable(&id).is_some() => SecretSource::Environment(id.clone()),
        (None, None) => file(&id, &id.clone(), around)?,
    };
    Ok(SecretSpec { id, source })
}

/// Checks that a secret's file is there; its content is read when a step asks for it.
fn file(id: &str, path: &str, around: &Surroundings) -> Result<SecretSource, SettingsError> {
    let absolute = around.absolute(path);
    let found = std::fs::metadata(&absolute).map_err(|error| {
        let reason = describe(&error);
        SettingsError::input(format!("failed to stat {path}: stat {path}: {reason}")).hint(format!(
            "give the secret `{id}` as `--secret id={id},src=PATH` or `--secret id={id},env=VARIABLE`"
        ))
    })?;
    if found.is_dir() {
        return Err(SettingsError::input(format!("the secret `{id}` is a directory: {path}")));
    }
    if found.len() > MAX_SECRET {
        return Err(SettingsError::input(format!("secret {id} too big: the limit is 500 KiB")));
    }
    Ok(SecretSource::File(absolute))
}

/// Describes an error of the file system as every Unix tool does.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Parses every `--ssh`.
pub(crate) fn ssh(values: &[String], around: &Surroundings) -> Result<Vec<SshSpec>, SettingsError> {
    let mut list: Vec<SshSpec> = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let (id, paths) = value.split_once('=').unwrap_or((value, ""));
        let id = if id.is_empty() { "default" } else { id };
        if list.iter().any(|other| other.id == id) {
            return Err(SettingsError::flag(format!("duplicate agent ID `{id}` in `--ssh`")));
        }
        let paths: Vec<PathBuf> =
            paths.split(',').filter(|path| !path.is_empty()).map(|path| around.absolute(path)).collect();
        if paths.is_empty() && around.non_empty("SSH_AUTH_SOCK").is_none() {
            return Err(SettingsError::input(format!("`--ssh {value}` needs an agent, but there is none"))
                .hint(
                    "start one (`eval $(ssh-agent)`), or give keys: `--ssh default=$HOME/.ssh/id_ed25519`",
                ));
        }
        for path in &paths {
            std::fs::metadata(path).map_err(|error| {
                let path = path.display();
                SettingsError::input(format!("failed to stat {path}: stat {path}: {}", describe(&error)))
            })?;
        }
        list.push(SshSpec { id: id.to_owned(), paths });
    }
    Ok(list)
}
