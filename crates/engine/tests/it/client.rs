//! A client elsewhere: its directories are copied into mirrors, as a connection would do it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_engine::session::{
    AgentOffer, AgentStream, ExporterId, LocalDirectory, LocalRequest, MirrorDirectory, OutputStream,
    OutputTree, SharedDirectories,
};
use slipway_engine::{Build, BuildOptions, Engine, EngineOptions, Session};
use slipway_model::progress::NoEvents;
use slipway_model::{Diagnostic, ErrorKind, Secret};
use tokio_util::sync::CancellationToken;

/// What the client has, and what it was asked for.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) directories: BTreeMap<String, PathBuf>,
    pub(crate) requests: Mutex<Vec<LocalRequest>>,
    /// What builds have in common that name one session; without it none is named.
    pub(crate) shared: Option<Arc<SharedDirectories>>,
    /// Files of `local` outputs, by path.
    pub(crate) received: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

fn failed(error: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new(ErrorKind::Environment, error.to_string())
}

/// Copies the files that a request names; the tests' requests name plain paths.
fn copy(from: &Path, to: &Path, request: &LocalRequest) -> std::io::Result<()> {
    for entry in std::fs::read_dir(to)? {
        std::fs::remove_file(entry?.path())?;
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = request.follow_paths.is_empty() || request.follow_paths.contains(&name);
        if wanted && !request.exclude.contains(&name) {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

#[async_trait]
impl Session for Client {
    fn id(&self) -> String {
        self.shared.iter().map(|_| "together").collect()
    }

    async fn directories(&self, _: &str) -> Result<Arc<SharedDirectories>, Diagnostic> {
        Ok(self.shared.clone().unwrap_or_else(|| Arc::new(SharedDirectories::new("client"))))
    }

    async fn local(
        &self,
        request: &LocalRequest,
        mirror: &MirrorDirectory,
    ) -> Result<LocalDirectory, Diagnostic> {
        self.requests.lock().push(request.clone());
        let from = self.directories.get(&request.name).ok_or_else(|| failed("no such directory"))?;
        let path = mirror.path().await?;
        copy(from, path, request).map_err(failed)?;
        Ok(LocalDirectory { path: path.to_owned(), filtered: true })
    }

    async fn secret(&self, _: &str) -> Result<Option<Secret<Vec<u8>>>, Diagnostic> {
        Ok(None)
    }

    async fn has_ssh(&self, _: &str) -> Result<AgentOffer, Diagnostic> {
        Ok(AgentOffer::Nothing)
    }

    async fn ssh(&self, _: &str) -> Result<Box<dyn AgentStream>, Diagnostic> {
        Err(failed("no agent"))
    }

    async fn file(
        &self,
        _: &ExporterId,
        _: &BTreeMap<String, String>,
    ) -> Result<Box<dyn OutputStream>, Diagnostic> {
        Ok(Box::new(tokio::io::sink()))
    }

    async fn files(&self, _: &ExporterId, trees: Vec<OutputTree>) -> Result<(), Diagnostic> {
        use std::io::Read as _;
        for tree in trees {
            let files =
                slipway_engine::files::FileTree::children(&tree.root, Path::new("")).map_err(failed)?;
            for entry in &files.entries {
                let directory =
                    slipway_engine::files::FileTree::open_dir(&tree.root, Path::new("")).map_err(failed)?;
                let fd = rustix::fs::openat(
                    &directory,
                    &entry.name,
                    rustix::fs::OFlags::RDONLY,
                    rustix::fs::Mode::empty(),
                );
                let mut text = Vec::new();
                if !entry.metadata.is_dir() {
                    std::fs::File::from(fd.map_err(failed)?).read_to_end(&mut text).map_err(failed)?;
                }
                let name = format!("{}/{}", tree.prefix, entry.name.to_string_lossy());
                self.received.lock().insert(name, text);
            }
        }
        Ok(())
    }
}

/// An engine on a state directory that goes away.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) engine: Engine,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Opens an engine with other options than the usual.
    pub(crate) fn with(change: impl FnOnce(&mut EngineOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options =
            EngineOptions { root: Some(directory.path().join("state")), ..EngineOptions::default() };
        change(&mut options);
        Self { directory, engine: Engine::open(options).unwrap() }
    }

    /// Makes a directory with files.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        path
    }

    pub(crate) fn start(&self, id: &str, client: &Arc<Client>) -> Build {
        self.start_until(id, client, &CancellationToken::new())
    }

    pub(crate) fn start_until(&self, id: &str, client: &Arc<Client>, cancel: &CancellationToken) -> Build {
        let session: Arc<dyn Session> = client.clone();
        let options = BuildOptions { session, ..BuildOptions::local(id) };
        self.engine.start(options, Arc::new(NoEvents), cancel).unwrap()
    }
}
