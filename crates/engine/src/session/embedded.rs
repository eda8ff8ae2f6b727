//! The session of a build in this process: the client's things are on this machine, and used where they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use slipway_files::Root;
use slipway_model::solve::{
    ContextSource, DockerfileRequest, Frontend, NamedContextSource, SecretSource, SecretSpec, SolveRequest,
    SshSpec, StepOptions,
};
use slipway_model::{Diagnostic, ErrorKind, Secret};
use slipway_store::{Lease, Store};
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use super::{
    AgentOffer, AgentStream, LocalDirectory, LocalRequest, MirrorDirectory, Session, SharedDirectories,
};
use crate::engine::Engine;
use crate::error::{Context as _, blocking, internal};
use crate::sources::local::{MAIN, session_of};
use crate::ssh::Agent;

/// The client is the person at this machine.
#[derive(Default)]
pub struct EmbeddedSession {
    /// By name and session.
    directories: BTreeMap<(String, String), PathBuf>,
    /// The context came as an archive, which is unpacked when it is first asked for.
    archive: Option<PathBuf>,
    unpacked: OnceCell<PathBuf>,
    secrets: Vec<SecretSpec>,
    ssh: Vec<ForwardedAgent>,
    /// For what has to be written somewhere.
    store: Option<Store>,
    shared: Arc<SharedDirectories>,
}

/// An agent that is found or started when it is first asked for.
struct ForwardedAgent {
    spec: SshSpec,
    open: OnceCell<(Agent, Option<Lease>)>,
}

impl ForwardedAgent {
    fn new(spec: &SshSpec) -> Self {
        Self { spec: spec.clone(), open: OnceCell::new() }
    }
}

impl EmbeddedSession {
    /// Offers what a request names: its contexts, secrets and agents.
    pub fn new(engine: &Engine, request: &SolveRequest) -> Self {
        let mut session = Self::offering(engine, &request.steps);
        if let Frontend::Dockerfile(dockerfile) = &request.frontend {
            if let ContextSource::Archive(path) = &dockerfile.context {
                session.archive = Some(path.clone());
            }
            session.add_contexts(dockerfile);
        }
        session
    }

    /// Offers the contexts of a request, and what the requests may use that make some of them.
    fn add_contexts(&mut self, request: &DockerfileRequest) {
        if let ContextSource::Directory(path) = &request.context {
            self.add_directory(MAIN.to_owned(), path);
        }
        for named in &request.named_contexts {
            match &named.source {
                NamedContextSource::Directory(path) => {
                    self.add_directory(format!("{MAIN}:{}", named.key()), path);
                }
                NamedContextSource::Target { request, .. } => {
                    self.add_offers(&request.steps);
                    if let Frontend::Dockerfile(dockerfile) = &request.frontend {
                        self.add_contexts(dockerfile);
                    }
                }
                _ => {}
            }
        }
    }

    /// Offers further secrets and agents; a name that is known stays what it is.
    fn add_offers(&mut self, steps: &StepOptions) {
        for secret in &steps.secrets {
            if !self.secrets.iter().any(|known| known.id == secret.id) {
                self.secrets.push(secret.clone());
            }
        }
        for spec in &steps.ssh {
            if self.agent(&spec.id).is_none() {
                self.ssh.push(ForwardedAgent::new(spec));
            }
        }
    }

    /// Offers secrets and agents, and no directory.
    pub(crate) fn offering(engine: &Engine, steps: &StepOptions) -> Self {
        Self {
            secrets: steps.secrets.clone(),
            ssh: steps.ssh.iter().map(ForwardedAgent::new).collect(),
            store: Some(engine.inner.store.clone()),
            shared: engine.inner.directories.get().cloned().unwrap_or_default(),
            ..Self::default()
        }
    }

    fn add_directory(&mut self, name: String, path: &Path) {
        self.directories.insert((name, session_of(path)), path.to_owned());
    }
}

#[async_trait]
impl Session for EmbeddedSession {
    async fn directories(&self, _: &str) -> Result<Arc<SharedDirectories>, Diagnostic> {
        Ok(self.shared.clone())
    }

    async fn local(
        &self,
        request: &LocalRequest,
        mirror: &MirrorDirectory,
    ) -> Result<LocalDirectory, Diagnostic> {
        let found = |path: &Path| Ok(LocalDirectory { path: path.to_owned(), filtered: false });
        if let Some(path) = self.directories.get(&(request.name.clone(), request.session.clone())) {
            return found(path);
        }
        if request.name != MAIN {
            return Err(Diagnostic::new(
                ErrorKind::User,
                format!("there is no local context `{}`", request.name),
            )
            .hint("give a directory as the build context, as in `slipway build .`"));
        }
        // Without a context an empty directory stands for it: what is copied from it is then not found.
        let unpack = || async {
            let (directory, archive) = (mirror.temporary()?, self.archive.clone());
            blocking(move || unpack(archive.as_deref(), directory)).await
        };
        found(self.unpacked.get_or_try_init(unpack).await?)
    }

    async fn secret(&self, id: &str) -> Result<Option<Secret<Vec<u8>>>, Diagnostic> {
        let Some(spec) = self.secrets.iter().find(|secret| secret.id == id) else { return Ok(None) };
        let value = read_secret(&spec.source).context(|| format!("cannot read the secret `{id}`"))?;
        Ok(Some(Secret::new(value)))
    }

    async fn has_ssh(&self, id: &str) -> Result<AgentOffer, Diagnostic> {
        match self.agent(id) {
            Some(agent) => self.open(agent).await.map(|_| AgentOffer::Forwarded),
            None if self.ssh.is_empty() => Ok(AgentOffer::Nothing),
            None => Ok(AgentOffer::OtherNames),
        }
    }

    async fn ssh(&self, id: &str) -> Result<Box<dyn AgentStream>, Diagnostic> {
        let Some(agent) = self.agent(id) else {
            return Err(Diagnostic::new(ErrorKind::User, format!("unset ssh forward key {id}")));
        };
        let path = self.open(agent).await?.socket();
        let stream =
            UnixStream::connect(path).await.context(|| format!("cannot use `{}` for ssh", path.display()))?;
        Ok(Box::new(stream))
    }
}

impl EmbeddedSession {
    fn agent(&self, id: &str) -> Option<&ForwardedAgent> {
        self.ssh.iter().find(|agent| agent.spec.id == id)
    }

    async fn open<'a>(&self, agent: &'a ForwardedAgent) -> Result<&'a Agent, Diagnostic> {
        let open = || {
            let (spec, store) = (agent.spec.clone(), self.store.clone());
            blocking(move || {
                let mut lease = None;
                let directory = || {
                    let store = store.ok_or_else(|| internal("the session has no place for an agent"))?;
                    let lease = lease.insert(store.lease().diagnose()?);
                    store.temporary_directory(lease).diagnose()
                };
                let agent = Agent::open(&spec, directory)?;
                Ok((agent, lease))
            })
        };
        agent.open.get_or_try_init(open).await.map(|(agent, _)| agent)
    }
}

fn unpack(archive: Option<&Path>, directory: PathBuf) -> Result<PathBuf, Diagnostic> {
    let Some(archive) = archive else { return Ok(directory) };
    let doing = || "cannot unpack the build context".to_owned();
    let root = Root::open(&directory).context(doing)?;
    let file = std::fs::File::open(archive).diagnose()?;
    let plain = slipway_files::archive::decompress(file).context(doing)?;
    slipway_files::archive::unpack(plain, Path::new("context"), &root, Default::default()).context(doing)?;
    Ok(directory)
}

/// Reads a secret's value where it comes from.
fn read_secret(source: &SecretSource) -> std::io::Result<Vec<u8>> {
    match source {
        SecretSource::File(path) => std::fs::read(path),
        SecretSource::Environment(name) => {
            Ok(std::env::var_os(name).map(|v| v.into_encoded_bytes()).unwrap_or_default())
        }
    }
}
