//! Credential helpers: programs named `docker-credential-<name>` that keep logins in a key ring
//! ([protocol]).
//!
//! [protocol]: https://github.com/docker/docker-credential-helpers

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

/// Asks the helper called `name` for the login at `server`; nothing if it knows none.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    let program = format!("docker-credential-{name}");
    let output = match tokio::time::timeout(LIMIT, run(&program, server)).await {
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

async fn run(program: &str, server: &str) -> io::Result<std::process::Output> {
    let mut child = tokio::process::Command::new(program)
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
