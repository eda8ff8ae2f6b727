//! A request as the reference's clients send it: string options of the frontend, kinds and attributes of outputs
//! and caches; and what the daemon has to find at the client for it.
//!
//! Options that say nothing of places are the engine's to write (`frontend::arguments`), and so is the way back
//! (`frontend::options`, `build::exporter_request`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_engine::session::EmbeddedSession;
use slipway_engine::{Engine, Location, frontend_options};
use slipway_model::attestation::Attestations;
use slipway_model::solve::{
    CacheSpec, ContextSource, DockerfileRequest, DockerfileSource, Frontend, NamedContext,
    NamedContextSource, SolveRequest, SourceDateEpoch,
};
use slipway_model::{Diagnostic, ErrorKind};
use tempfile::TempDir;

use super::parts::{Part, input_metadata};
use super::places::Places;
use super::{Offer, SolveSpec, logins, uploads};

const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";

/// A request, ready to be sent.
pub(super) struct Prepared {
    pub(super) spec: SolveSpec,
    pub(super) offer: Offer,
    /// What contexts are made of.
    pub(super) parts: Vec<Part>,
    pub(super) places: Places,
    /// Directories that are made for the request alone.
    _temporary: Vec<TempDir>,
}

/// Turns a request into what is sent and what is offered.
pub(super) async fn prepare(engine: &Engine, request: &SolveRequest) -> Result<Prepared, Diagnostic> {
    let mut making = Making {
        spec: SolveSpec {
            id: request.id.clone(),
            attributes: frontend_options(request),
            ..SolveSpec::default()
        },
        offer: Offer {
            session: Some(Arc::new(EmbeddedSession::new(engine, request))),
            ..logins::offered(engine)
        },
        parts: Vec::new(),
        temporary: Vec::new(),
    };
    match &request.frontend {
        Frontend::Definition(definition) => making.spec.definition = Some(definition.clone()),
        Frontend::Dockerfile(dockerfile) => {
            making.spec.frontend = "dockerfile.v0".to_owned();
            making.dockerfile(engine, dockerfile).await?;
        }
    }
    making.spec.source_policy = request.source_policy.clone();
    making.spec.proxy_network = request.steps.proxy_network;
    making.spec.entitlements = request.entitlements.iter().map(ToString::to_string).collect();
    let mut places = Places::default();
    for output in &request.outputs {
        let Some((kind, mut attributes)) =
            places.add(engine, making.spec.exporters.len(), output, &mut making.offer)?
        else {
            continue;
        };
        if let Some(SourceDateEpoch::Seconds(seconds)) = request.source_date_epoch {
            attributes.entry("source-date-epoch".to_owned()).or_insert_with(|| seconds.to_string());
        }
        making.spec.exporters.push((kind, attributes));
    }
    for cache in &request.cache.imports {
        making.cache_import(engine, cache).await;
    }
    for cache in &request.cache.exports {
        places.add_cache(cache, &mut making.offer)?;
        making.spec.cache_exports.push(with_keys(cache));
    }
    let Making { spec, offer, parts, temporary } = making;
    Ok(Prepared { spec, offer, parts, places, _temporary: temporary })
}

fn invalid(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}

struct Making {
    spec: SolveSpec,
    offer: Offer,
    parts: Vec<Part>,
    temporary: Vec<TempDir>,
}

impl Making {
    fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.spec.attributes.insert(key.into(), value.into());
    }

    fn temporary(&mut self) -> Result<PathBuf, Diagnostic> {
        let directory = tempfile::tempdir().map_err(|error| {
            Diagnostic::new(ErrorKind::Environment, "cannot make a temporary directory")
                .cause(error.to_string())
        })?;
        let path = directory.path().to_owned();
        self.temporary.push(directory);
        Ok(path)
    }

    /// Offers a directory; directories that are not there are told of at once.
    fn directory(&mut self, name: &str, path: &Path) -> Result<(), Diagnostic> {
        if !path.is_dir() {
            return Err(invalid(format!(
                "unable to prepare context: path {:?} not found",
                path.display().to_string()
            )));
        }
        self.offer.directories.insert(name.to_owned(), path.to_owned());
        Ok(())
    }

    async fn dockerfile(&mut self, engine: &Engine, request: &DockerfileRequest) -> Result<(), Diagnostic> {
        let local = match &request.context {
            ContextSource::Empty => {
                let empty = self.temporary()?;
                self.directory(CONTEXT, &empty)?;
                Some(empty)
            }
            ContextSource::Directory(path) => {
                self.directory(CONTEXT, path)?;
                // The same directory of the same machine is likely what it was.
                self.offer.shared_key = shared_key(path);
                Some(path.clone())
            }
            ContextSource::Archive(path) => {
                let name = crate::worker::new_id();
                self.set(CONTEXT, format!("{}{name}", uploads::ADDRESS));
                self.offer.uploads.insert(name, path.clone());
                None
            }
            ContextSource::Url(url) => {
                self.set(CONTEXT, url);
                None
            }
            ContextSource::Definition(definition) => {
                // The frontend looks for the Dockerfile in an input of its own.
                self.spec.inputs.insert(CONTEXT.to_owned(), (**definition).clone());
                if matches!(&request.dockerfile, DockerfileSource::Path(path) if path.is_relative()) {
                    self.spec.inputs.insert(DOCKERFILE.to_owned(), (**definition).clone());
                }
                None
            }
            ContextSource::Client(_) => {
                return Err(invalid("a context of another client cannot be sent on"));
            }
        };
        self.dockerfile_source(engine, &request.dockerfile, local.as_deref()).await?;
        for context in &request.named_contexts {
            self.named_context(engine, context).await?;
        }
        if !request.named_contexts.is_empty() {
            self.set("frontend.caps", "moby.buildkit.frontend.contexts+forward");
        }
        self.syntax(request);
        Ok(())
    }

    /// Does what the reference's client does for some arguments: the frontend that one names replaces the built-in
    /// one, and another asks for an index.
    fn syntax(&mut self, request: &DockerfileRequest) {
        let several = request.build_args.get("BUILDKIT_MULTI_PLATFORM");
        if several.is_some_and(|text| slipway_model::parse_bool(text) == Some(true)) {
            self.set("multi-platform", "true");
        }
        let Some(line) = request.build_args.get("BUILDKIT_SYNTAX").map(|line| line.trim()) else { return };
        let Some(image) = line.split_whitespace().next() else { return };
        self.spec.frontend = "gateway.v0".to_owned();
        self.set("source", image);
        self.set("cmdline", line);
    }

    async fn dockerfile_source(
        &mut self,
        engine: &Engine,
        source: &DockerfileSource,
        context: Option<&Path>,
    ) -> Result<(), Diagnostic> {
        match source {
            DockerfileSource::Path(path) if path.is_absolute() => {
                self.set("dockerfilekey", DOCKERFILE);
                self.dockerfile_file(path)
            }
            DockerfileSource::Path(path) => match context {
                Some(context) => self.dockerfile_file(&context.join(path)),
                None => {
                    self.set("filename", path.to_string_lossy());
                    Ok(())
                }
            },
            DockerfileSource::Inline(text) => self.dockerfile_text(text),
            DockerfileSource::Url(url) => {
                let text = engine.fetch_dockerfile(url).await?;
                self.dockerfile_text(&text)
            }
            DockerfileSource::Client { .. } | DockerfileSource::Definition { .. } => {
                Err(invalid("a Dockerfile of another client cannot be sent on"))
            }
        }
    }

    fn dockerfile_text(&mut self, text: &[u8]) -> Result<(), Diagnostic> {
        let path = self.temporary()?.join("Dockerfile");
        std::fs::write(&path, text).map_err(|error| {
            Diagnostic::new(ErrorKind::Environment, format!("cannot write `{}`", path.display()))
                .cause(error.to_string())
        })?;
        self.set("dockerfilekey", DOCKERFILE);
        self.dockerfile_file(&path)
    }

    fn dockerfile_file(&mut self, path: &Path) -> Result<(), Diagnostic> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let directory = path.parent().unwrap_or(Path::new("/"));
        let lower = name.to_ascii_lowercase();
        // As in the reference, `dockerfile` serves where there is no `Dockerfile`.
        let name = match name == "Dockerfile" && !path.exists() && directory.join(&lower).exists() {
            true => lower,
            false => name,
        };
        self.directory(DOCKERFILE, directory)?;
        self.set("filename", name);
        Ok(())
    }

    async fn named_context(&mut self, engine: &Engine, context: &NamedContext) -> Result<(), Diagnostic> {
        let key = context.key();
        let value = match &context.source {
            NamedContextSource::Directory(path) => {
                // Not to be taken for the main ones.
                let name = if [CONTEXT, DOCKERFILE].contains(&key.as_str()) {
                    format!("_{key}")
                } else {
                    key.clone()
                };
                self.directory(&name, path)?;
                self.set(format!("sharedkey:localdir:{name}"), shared_key(path));
                format!("local:{name}")
            }
            NamedContextSource::Image(reference) => format!("docker-image://{reference}"),
            NamedContextSource::OciLayout { path, selector } => {
                let location = Location::Layout { path: path.clone(), selector: selector.clone() };
                let digest = engine.inspect(&location).await?.descriptor.digest;
                let store = crate::worker::new_id();
                let value = format!("oci-layout://{store}@{digest}");
                self.offer.stores.insert(format!("oci:{store}"), path.clone());
                value
            }
            NamedContextSource::Url(url) => url.clone(),
            NamedContextSource::Definition { definition, config } => {
                // Not to be taken for the main ones.
                let name = format!("named:{key}");
                if let Some(config) = config {
                    let config = serde_json::to_vec(config).unwrap_or_default();
                    self.set(format!("input-metadata:{name}"), input_metadata(&config));
                }
                self.spec.inputs.insert(name.clone(), (**definition).clone());
                format!("input:{name}")
            }
            NamedContextSource::Target { name, request } => {
                // The frontend's answer says what to write for it.
                return self.part(engine, key, name, request).await;
            }
            NamedContextSource::Client(_) | NamedContextSource::ClientLayout { .. } => {
                return Err(invalid(format!("the context `{key}` of another client cannot be sent on")));
            }
        };
        self.set(format!("context:{key}"), value);
        Ok(())
    }

    /// Makes a context of another request, of which only what the frontend makes of it is wanted.
    async fn part(
        &mut self,
        engine: &Engine,
        context: String,
        name: &str,
        request: &SolveRequest,
    ) -> Result<(), Diagnostic> {
        if let Some(known) = self.parts.iter_mut().find(|part| part.name == name) {
            known.contexts.push(context);
            return Ok(());
        }
        let Frontend::Dockerfile(dockerfile) = &request.frontend else {
            return Err(invalid(format!("the context `{context}` cannot be made of a definition")));
        };
        let asked = SolveRequest { attestations: Attestations::default(), ..request.clone() };
        let mut making = Making {
            spec: SolveSpec { attributes: frontend_options(&asked), ..SolveSpec::default() },
            offer: Offer::default(),
            parts: Vec::new(),
            temporary: Vec::new(),
        };
        making.spec.frontend = "dockerfile.v0".to_owned();
        Box::pin(making.dockerfile(engine, dockerfile)).await?;
        let Making { spec, offer, parts, temporary } = making;
        // Names of uploads are used once only. Secrets and agents of parts are in the session of the whole.
        self.offer.uploads.extend(offer.uploads);
        self.temporary.extend(temporary);
        let (directories, shared_key) = (offer.directories, offer.shared_key);
        let contexts = vec![context];
        self.parts.push(Part { name: name.to_owned(), contexts, spec, directories, shared_key, parts });
        Ok(())
    }

    /// Adds a cache to hit on; one in a directory that is not there, or is none, is passed over as there.
    async fn cache_import(&mut self, engine: &Engine, cache: &CacheSpec) {
        let mut cache = with_keys(cache);
        if cache.kind == "local" {
            let Some(source) = cache.attributes.get("src").cloned() else { return };
            if !cache.attributes.contains_key("digest") {
                let tag = cache.attributes.get("tag").cloned().unwrap_or_else(|| "latest".to_owned());
                let selector = slipway_model::solve::LayoutSelector::Tag(tag);
                let location = Location::Layout { path: PathBuf::from(&source), selector };
                let Ok(found) = engine.inspect(&location).await else { return };
                cache.attributes.insert("digest".to_owned(), found.descriptor.digest.to_string());
            }
            self.offer.stores.insert(format!("local:{source}"), source.into());
        }
        self.spec.cache_imports.push(cache);
    }
}

/// Adds to a cache in a bucket the keys that this machine's environment has, if it has none: a daemon elsewhere
/// has another environment.
fn with_keys(cache: &CacheSpec) -> CacheSpec {
    const ID: &str = "access_key_id";
    let mut cache = cache.clone();
    if cache.kind == "s3" && !cache.attributes.contains_key(ID) {
        let names = [ID, "secret_access_key", "session_token"];
        let found = names.map(|name| (name, std::env::var(format!("AWS_{}", name.to_uppercase())).ok()));
        let found = found.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        cache.attributes.extend(found.filter(|(_, value)| !value.is_empty()));
    }
    cache
}

/// Names a directory of this machine, for daemons to keep what it held.
fn shared_key(path: &Path) -> String {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digest = slipway_model::Digest::of(format!("{}\n{}", machine.trim(), path.display()));
    format!("{name}:{}", &digest.hex()[..12])
}
