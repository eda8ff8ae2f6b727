//! Caches of a build that are at the client: directories there, which travel as blobs of its content stores.
//!
//! The engine knows directories of this machine only. So what is imported is fetched into one first, and what is
//! exported is sent from one afterwards. The client's own paths name its stores, and are never opened here.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use slipway_engine::session::Session as _;
use slipway_model::solve::{CacheOptions, CacheSpec};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::Daemon;
use crate::session::BuildSession;
use crate::wire::control::CacheOptionsEntry;
use crate::wire::extra::ControlSolveRequest;

/// The largest document of an image.
const MAX_DOCUMENT: usize = 16 << 20;

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
    /// Reads what a request says, and fetches what is at the client; what cannot be had is left out.
    pub(super) async fn prepare(
        daemon: &Daemon,
        request: &ControlSolveRequest,
        session: &BuildSession,
    ) -> Result<Self, Diagnostic> {
        let cache = request.cache.clone().unwrap_or_default();
        let is_local = |entry: &CacheOptionsEntry| entry.r#type == "local";
        let directory = match cache.exports.iter().chain(&cache.imports).any(is_local) {
            true => Some(directory(daemon.engine.root())?),
            false => None,
        };
        let place = |index: usize, kind: &str| {
            directory.as_ref().map(|directory| directory.path().join(format!("{kind}-{index}")))
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
        for (index, entry) in cache.imports.iter().enumerate() {
            let mut spec = spec(entry);
            if let Some(place) = place(index, "import").filter(|_| is_local(entry)) {
                let store = format!("local:{}", spec.attributes.get("src").cloned().unwrap_or_default());
                let digest = spec.attributes.get("digest").cloned().unwrap_or_default();
                if let Err(error) = fetch(session, &store, &digest, &place).await {
                    tracing::warn!(%error, "a cache of the client cannot be used");
                    continue;
                }
                spec.attributes.insert("src".to_owned(), place.display().to_string());
            }
            caches.options.imports.push(spec);
        }
        for (index, entry) in cache.exports.iter().enumerate() {
            let mut spec = spec(entry);
            if let Some(place) = place(index, "export").filter(|_| is_local(entry)) {
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

/// Copies an image of a client's store into a layout; every blob is checked against its digest.
async fn fetch(session: &BuildSession, store: &str, root: &str, place: &Path) -> Result<(), Diagnostic> {
    let invalid =
        |text: &str| Diagnostic::new(ErrorKind::User, "cannot use the client's cache").cause(text.to_owned());
    let disk = |error: std::io::Error| {
        Diagnostic::new(ErrorKind::Environment, "cannot keep the client's cache").cause(error.to_string())
    };
    let root: Digest = root.parse().map_err(|_| invalid("its digest is none"))?;
    let blobs = place.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(disk)?;
    let mut wanted = vec![(root, true)];
    let mut seen = HashSet::new();
    let mut first: Option<(Value, u64)> = None;
    while let Some((digest, is_document)) = wanted.pop() {
        if !seen.insert(digest) {
            continue;
        }
        let mut reader = session.content(store, &digest).await?;
        let mut file = std::fs::File::create(blobs.join(digest.hex())).map_err(disk)?;
        let mut digester = slipway_model::Digester::new();
        let (mut text, mut size) = (Vec::new(), 0u64);
        let mut chunk = vec![0; 1 << 18];
        loop {
            let length = reader.read(&mut chunk).await.map_err(disk)?;
            if length == 0 {
                break;
            }
            size += length as u64;
            digester.update(&chunk[..length]);
            std::io::Write::write_all(&mut file, &chunk[..length]).map_err(disk)?;
            if is_document && text.len() + length <= MAX_DOCUMENT {
                text.extend_from_slice(&chunk[..length]);
            }
        }
        if digester.finish() != digest {
            return Err(invalid(&format!("{digest} is not what the client sent")));
        }
        if !is_document {
            continue;
        }
        let document: Value = serde_json::from_slice(&text).map_err(|error| invalid(&error.to_string()))?;
        let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        let named = |value: &Value| value["digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
        for manifest in list("manifests") {
            let media_type = manifest["mediaType"].as_str().unwrap_or_default();
            let is_document = media_type.contains("manifest") || media_type.contains("index");
            wanted.extend(named(&manifest).map(|digest| (digest, is_document)));
        }
        wanted.extend(list("layers").iter().filter_map(named).map(|digest| (digest, false)));
        wanted.extend(named(&document["config"]).map(|digest| (digest, false)));
        first.get_or_insert((document, size));
    }
    let (document, size) = first.ok_or_else(|| invalid("it is empty"))?;
    let media_type = document["mediaType"].as_str().unwrap_or(match document["manifests"] {
        Value::Array(_) => "application/vnd.oci.image.index.v1+json",
        _ => "application/vnd.oci.image.manifest.v1+json",
    });
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": media_type, "digest": root.to_string(), "size": size }],
    });
    std::fs::write(place.join("index.json"), index.to_string()).map_err(disk)?;
    std::fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(disk)
}
