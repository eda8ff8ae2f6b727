//! An agent of our own, for keys that are files: `ssh-agent` and `ssh-add` of OpenSSH.
//!
//! They know every kind of key and format there is, hardware keys too, and slipway needs no cryptography of
//! its own. The agent ends with the thread that started it, by whatever cause.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slipway_model::{Diagnostic, ErrorKind, Secret};

use crate::error::Context as _;
use crate::programs::install;

/// Begins the binary form of OpenSSH's keys; the name of the cipher comes after it.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A running `ssh-agent`; it ends when dropped.
pub(super) struct KeyAgent {
    child: Child,
    socket: PathBuf,
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl KeyAgent {
    /// Starts an agent with the keys of some files.
    pub(super) fn start(files: &[PathBuf], directory: &Path) -> Result<Self, Diagnostic> {
        let keys: Vec<(&PathBuf, Secret<String>)> =
            files.iter().map(|file| read(file).map(|key| (file, key))).collect::<Result<_, _>>()?;
        let socket = directory.join("keys.sock");
        let mut command = program("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| missing("ssh-agent", &error))?;
        let stdout = child.stdout.take();
        let agent = Self { child, socket };
        // It says where it listens as soon as it does.
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).diagnose()?;
        }
        if line.is_empty() {
            return Err(Diagnostic::new(ErrorKind::Environment, "`ssh-agent` ended before it had any key"));
        }
        for (file, key) in &keys {
            agent.add(file, key)?;
        }
        Ok(agent)
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    fn add(&self, file: &Path, key: &Secret<String>) -> Result<(), Diagnostic> {
        let mut command = program("ssh-add");
        command.args(["-q", "-"]).env("SSH_AUTH_SOCK", &self.socket).env("SSH_ASKPASS_REQUIRE", "never");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| missing("ssh-add", &error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may end before it has read all; its own words say why.
            let _ = stdin.write_all(key.expose().as_bytes());
        }
        let output = child.wait_with_output().diagnose()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason");
        Err(refused(file).cause(format!("ssh-add: {said}")).hint("name a private key in a format of OpenSSH"))
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    slipway_runtime::tether(&mut command);
    command
}

fn missing(program: &str, error: &std::io::Error) -> Diagnostic {
    let diagnostic = Diagnostic::new(ErrorKind::Environment, "cannot forward keys from files");
    match error.kind() {
        std::io::ErrorKind::NotFound => diagnostic
            .cause(format!("the program `{program}` is not installed, or not in PATH"))
            .hint(install("openssh-client")),
        _ => diagnostic.cause(format!("cannot run `{program}`: {error}")),
    }
}

fn refused(file: &Path) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("cannot use `{}` for ssh", file.display()))
}

fn read(file: &Path) -> Result<Secret<String>, Diagnostic> {
    let text =
        std::fs::read_to_string(file).context(|| format!("cannot use `{}` for ssh", file.display()))?;
    if is_protected(&text) {
        return Err(refused(file).cause("the key is protected by a passphrase").hint(format!(
            "load it into an agent with `ssh-add {}`, and forward that: `--ssh default`",
            file.display()
        )));
    }
    if !text.contains("PRIVATE KEY-----") {
        let error = refused(file).cause("it is neither a private key nor the socket of an agent");
        return Err(match file.extension().is_some_and(|extension| extension == "pub") {
            true => error.hint(format!("name the private key: `{}`", file.with_extension("").display())),
            false => error,
        });
    }
    Ok(Secret::new(format!("{}\n", text.trim_end())))
}

/// Says whether a key can only be read with a passphrase.
fn is_protected(text: &str) -> bool {
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let Ok(data) = STANDARD.decode(body) else { return false };
    // The length of the cipher's name, and the name.
    data.strip_prefix(MAGIC).is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_keys_are_known() {
        let key = |cipher: &[u8]| {
            let length = u32::try_from(cipher.len()).unwrap().to_be_bytes();
            let data = STANDARD.encode([MAGIC, &length, cipher, b"rest"].concat());
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{data}\n-----END OPENSSH PRIVATE KEY-----\n")
        };
        assert!(!is_protected(&key(b"none")));
        assert!(is_protected(&key(b"aes256-ctr")));
        assert!(is_protected("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_protected("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n"));
    }

    #[test]
    fn what_is_no_key_is_told() {
        let directory = std::env::temp_dir().join(format!("slipway-keys-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("id.pub");
        std::fs::write(&file, "ssh-ed25519 AAAA me\n").unwrap();
        let error = read(&file).unwrap_err();
        assert!(error.to_string().contains("neither a private key"), "{error}");
        assert!(error.hint.unwrap().ends_with("id`"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
