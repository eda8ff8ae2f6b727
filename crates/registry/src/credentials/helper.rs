//! Credential helpers: programs named `docker-credential-<name>` that keep logins in a key ring
//! ([protocol]).
//!
//! [protocol]: https://github.com/docker/docker-credential-helpers

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use slipway_model::Secret;
use tokio::io::AsyncWriteExt;

use super::{Credential, CredentialError};

/// How long a helper may take: a locked key ring may ask the user.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer is a small JSON object.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper called `name`, found on `path`, for the login at `server`; nothing if it knows none.
pub(super) async fn get(
    name: &str,
    server: &str,
    path: Option<&OsStr>,
) -> Result<Option<Credential>, CredentialError> {
    let program = format!("docker-credential-{name}");
    let output = match tokio::time::timeout(LIMIT, run(&program, server, path)).await {
        Ok(output) => output.map_err(|source| CredentialError::Start { program: program.clone(), source })?,
        Err(_) => return Err(CredentialError::TimedOut { program, seconds: LIMIT.as_secs() }),
    };
    if !output.status.success() {
        // Helpers say what went wrong on standard output.
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if text.contains("credentials not found") || text.contains("no credentials server URL") {
            return Ok(None);
        }
        let message = crate::message::clean(&text, &[]).unwrap_or_else(|| output.status.to_string());
        return Err(CredentialError::Failed { program, message });
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| CredentialError::Answer { program: program.clone() })?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(Secret::new(answer.secret)),
        "" if answer.secret.is_empty() => Credential::Anonymous,
        _ => Credential::Basic { username: answer.username, password: Secret::new(answer.secret) },
    }))
}

async fn run(program: &str, server: &str, path: Option<&OsStr>) -> io::Result<std::process::Output> {
    let mut command = tokio::process::Command::new(program);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input still may give an answer.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `script` as the helper `test`.
    async fn answer(script: &str) -> Result<Option<Credential>, CredentialError> {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text");
        std::fs::write(&text, format!("#!/bin/sh\nread server\n{script}\n")).unwrap();
        // Written by another process: a file that a fork of this one has open cannot be run.
        let program = directory.path().join("docker-credential-test");
        let copied = std::process::Command::new("install").arg("-m755").args([&text, &program]).status();
        assert!(copied.unwrap().success());
        let mut path = directory.path().as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        get("test", "https://index.docker.io/v1/", Some(&path)).await
    }

    #[tokio::test]
    async fn answers_are_read() {
        let script = r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"$1\",\"Secret\":\"$server\"}""#;
        let password = Secret::new("https://index.docker.io/v1/".to_owned());
        let basic = Credential::Basic { username: "get".into(), password: password.clone() };
        assert_eq!(answer(script).await.unwrap(), Some(basic));
        let script = script.replace("$1", "<token>");
        assert_eq!(answer(&script).await.unwrap(), Some(Credential::IdentityToken(password)));
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let unknown = "echo credentials not found in native keychain; exit 1";
        assert_eq!(answer(unknown).await.unwrap(), None);
        let error = answer("echo the key ring is locked; exit 1").await.unwrap_err();
        assert!(error.to_string().ends_with("failed: the key ring is locked"), "{error}");
        let error = answer("echo hunter22").await.unwrap_err();
        assert!(matches!(error, CredentialError::Answer { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter22"));
    }
}
