//! What git needs to be let in: a header for http, an agent for ssh; and a home with nothing else in it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind, Secret};

use super::GitSource;
use super::command::Call;
use crate::error::{Context as _, blocking};
use crate::ops::VertexOperation;
use crate::ssh::AgentSocket;

/// The first git that takes settings from the environment.
const HEADER_VERSION: (u32, u32) = (2, 31);

/// The means of one operation; what was written for it goes when it is dropped.
pub(super) struct Access<'a> {
    pub(super) operation: &'a VertexOperation,
    /// A directory of its own.
    pub(super) home: PathBuf,
    /// The setting's name and value.
    pub(super) header: Option<(String, Secret<String>)>,
    pub(super) agent: Option<AgentSocket>,
    /// The configuration of ssh.
    pub(super) ssh_config: Option<PathBuf>,
    /// What must not be shown of git's output.
    pub(super) secrets: Vec<Secret<String>>,
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.agent = None;
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl<'a> Access<'a> {
    pub(super) async fn prepare(
        operation: &'a VertexOperation,
        source: &GitSource,
    ) -> Result<Self, Diagnostic> {
        let job = operation.job.clone();
        let home = blocking(move || job.engine.store.temporary_directory(&job.lease).diagnose()).await?;
        let mut access =
            Self { operation, home, header: None, agent: None, ssh_config: None, secrets: Vec::new() };
        if source.address.is_http {
            access.authorize(source).await?;
            access.check_version().await?;
        }
        if source.address.is_ssh {
            access.forward(source).await?;
        }
        Ok(access)
    }

    /// Tells who asks apart from others; `None` if that is not known, since an agent holds keys of its own.
    pub(super) fn identity(&self) -> Option<String> {
        let header = self.header.as_ref().map(|(_, value)| value.expose().clone());
        self.ssh_config.is_none().then(|| header.unwrap_or_default())
    }

    /// Says whether git was given something to be let in with.
    pub(super) fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// Refuses a git that would pass over the header.
    async fn check_version(&self) -> Result<(), Diagnostic> {
        if !self.has_header() {
            return Ok(());
        }
        let Ok(text) = Call::default().run(self, &["version"]).await else { return Ok(()) };
        let version = text.split_whitespace().find_map(|word| {
            let mut numbers = word.split('.').map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        match version {
            Some(version) if version < HEADER_VERSION => {
                Err(Diagnostic::new(ErrorKind::Environment, "cannot give git the token or password")
                    .cause(format!("`{}` is too old", text.trim()))
                    .hint("install git 2.31 or newer"))
            }
            _ => Ok(()),
        }
    }

    async fn authorize(&mut self, source: &GitSource) -> Result<(), Diagnostic> {
        let Some(value) = self.authorization(source).await? else { return Ok(()) };
        let name = format!("http.{}.extraheader", source.address.scope());
        let words = value.expose().split_whitespace().map(|word| Secret::new(word.to_owned()));
        self.secrets.extend(words.filter(|word| word.expose().len() > 6));
        let header = Secret::new(format!("Authorization: {}", value.expose()));
        self.header = Some((name, header));
        Ok(())
    }

    /// Finds the value of the header: a secret for the host, one for all hosts, or what the address holds.
    async fn authorization(&mut self, source: &GitSource) -> Result<Option<Secret<String>>, Diagnostic> {
        let host = &source.address.host;
        let (header, token) = (&source.header_secret, &source.token_secret);
        let names = [
            header.as_ref().map(|name| (format!("{name}.{host}"), false)),
            token.as_ref().map(|name| (format!("{name}.{host}"), true)),
            header.as_ref().map(|name| (name.clone(), false)),
            token.as_ref().map(|name| (name.clone(), true)),
        ];
        for (name, is_token) in names.into_iter().flatten() {
            let Some(value) = self.operation.job.secret(&name, false).await? else { continue };
            let text = String::from_utf8_lossy(value.expose()).trim().to_owned();
            if text.is_empty() {
                continue;
            }
            if text.contains(['\n', '\r']) {
                return Err(Diagnostic::new(ErrorKind::User, format!("cannot use the secret `{name}`"))
                    .cause("it has more than one line"));
            }
            self.secrets.push(Secret::new(text.clone()));
            return Ok(Some(match is_token {
                true => basic("x-access-token", &text),
                false => Secret::new(text),
            }));
        }
        let Some((user, password)) = &source.address.password else { return Ok(None) };
        self.secrets.push(password.clone());
        Ok(Some(basic(user, password.expose())))
    }

    async fn forward(&mut self, source: &GitSource) -> Result<(), Diagnostic> {
        let job = &self.operation.job;
        if let Some(id) = &source.ssh {
            let options = pb::SshOpt { id: id.clone(), mode: 0o600, optional: true, ..Default::default() };
            let Some(agent) = job.forward_agent(&options).await? else {
                return Err(Diagnostic::new(ErrorKind::User, format!("unset ssh forward key {id}"))
                    .cause(format!("`{}` is fetched by ssh, and no agent is forwarded", source.address))
                    .hint(format!("forward your agent with `--ssh {id}`, or a key with `--ssh {id}=FILE`")));
            };
            self.agent = Some(agent);
        }
        let config = self.home.join("ssh_config");
        let text = match &source.known_hosts {
            Some(known) => {
                let file = self.home.join("known_hosts");
                std::fs::write(&file, known).diagnose()?;
                ssh_config("yes", &[&file])
            }
            None => {
                // The first one learns new hosts; a host that changed its key is refused.
                let own = job.engine.store.root().join("ssh-known-hosts");
                let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
                ssh_config("accept-new", &[&own, &home.join(".ssh/known_hosts")])
            }
        };
        std::fs::write(&config, text).diagnose()?;
        self.ssh_config = Some(config);
        Ok(())
    }
}

fn basic(user: &str, password: &str) -> Secret<String> {
    Secret::new(format!("basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// Writes a configuration for ssh: no questions, no keys but the agent's.
fn ssh_config(checking: &str, known: &[&Path]) -> String {
    let known: String = known.iter().map(|path| format!(" \"{}\"", path.display())).collect();
    format!(
        "BatchMode yes\nIdentityFile none\nStrictHostKeyChecking {checking}\nUserKnownHostsFile{known}\n\
         ConnectTimeout 30\n"
    )
}
