//! Caches of a build that are at the client: directories there, which travel as blobs of its content stores.
//!
//! What is imported is read from there when it is needed. What is exported is written into a directory of this machine
//! first, and sent from it. The client's own paths name its stores, and are never opened here.

use std::path::{Path, PathBuf};

use slipway_engine::IN_SESSION;
use slipway_engine::session::Session as _;
use slipway_model::solve::{CacheOptions, CacheSpec};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind};
use tempfile::TempDir;

use super::Daemon;
use crate::session::BuildSession;
use crate::wire::control::CacheOptionsEntry;
use crate::wire::extra::ControlSolveRequest;

/// The caches of a build.
pub(super) struct Caches {
    pub(super) options: CacheOptions,
    pub(super) inline: bool,
    /// Directories whose blobs go to the client's stores.
    exports: Vec<ClientExport>,
    _directory: Option<TempDir>,
}

/// A cache that is sent to the client when it is complete.
struct ClientExport {
    directory: PathBuf,
    store: String,
    ignore_error: bool,
}

impl Caches {
    /// Reads what a request says.
    pub(super) fn prepare(daemon: &Daemon, request: &ControlSolveRequest) -> Result<Self, Diagnostic> {
        let cache = request.cache.clone().unwrap_or_default();
        let is_local = |entry: &CacheOptionsEntry| entry.r#type == "local";
        let directory = match cache.exports.iter().any(is_local) {
            true => Some(directory(daemon.engine.root())?),
            false => None,
        };
        let mut caches = Self {
            options: CacheOptions::default(),
            inline: request
                .frontend_attrs
                .get("build-arg:BUILDKIT_INLINE_CACHE")
                .and_then(|value| slipway_model::parse_bool(value))
                == Some(true),
            exports: Vec::new(),
            _directory: None,
        };
        for entry in &cache.imports {
            let mut spec = spec(entry);
            if is_local(entry) {
                spec.kind = IN_SESSION.to_owned();
                let store = format!("local:{}", spec.attributes.get("src").map_or("", String::as_str));
                spec.attributes.insert("store".to_owned(), store);
            }
            caches.options.imports.push(spec);
        }
        for (index, entry) in cache.exports.iter().enumerate() {
            let mut spec = spec(entry);
            if let Some(directory) = directory.as_ref().filter(|_| is_local(entry)) {
                let place = directory.path().join(index.to_string());
                let store = format!("local:{}", spec.attributes.get("dest").cloned().unwrap_or_default());
                spec.attributes.insert("dest".to_owned(), place.display().to_string());
                // The client empties its directory itself.
                spec.attributes.remove("reset");
                let ignore_error = spec.attributes.get("ignore-error").is_some_and(|text| text == "true");
                caches.exports.push(ClientExport { directory: place, store, ignore_error });
            }
            caches.options.exports.push(spec);
        }
        caches._directory = directory;
        Ok(caches)
    }

    /// Sends what was exported for the client.
    pub(super) async fn give(&self, session: &BuildSession) -> Result<(), Diagnostic> {
        for export in &self.exports {
            match export.give(session).await {
                Err(error) if export.ignore_error => {
                    tracing::warn!(%error, store = export.store, "could not send a cache to the client");
                }
                given => given?,
            }
        }
        Ok(())
    }
}

impl ClientExport {
    async fn give(&self, session: &BuildSession) -> Result<(), Diagnostic> {
        let blobs = self.directory.join("blobs/sha256");
        for entry in std::fs::read_dir(&blobs).into_iter().flatten().flatten() {
            let Ok(digest) = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>()
            else {
                continue;
            };
            let failed = |error: std::io::Error| {
                Diagnostic::new(ErrorKind::Environment, "cannot send the cache to the client")
                    .cause(error.to_string())
            };
            let size = entry.metadata().map_err(failed)?.len();
            let file = tokio::fs::File::open(entry.path()).await.map_err(failed)?;
            let descriptor = Descriptor::new("application/octet-stream", digest, size);
            session.put_content(&self.store, &descriptor, Box::new(file)).await?;
        }
        Ok(())
    }
}

fn spec(entry: &CacheOptionsEntry) -> CacheSpec {
    CacheSpec { kind: entry.r#type.clone(), attributes: entry.attrs.clone().into_iter().collect() }
}

fn directory(root: &Path) -> Result<TempDir, Diagnostic> {
    tempfile::Builder::new().prefix("daemon-cache-").tempdir_in(root).map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot make a directory in `{}`", root.display()))
            .cause(error.to_string())
    })
}
