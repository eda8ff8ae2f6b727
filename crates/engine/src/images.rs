//! Base images: from a name and a platform to a pinned manifest, its config, and a chain of lazy layers.
//!
//! Owns the look-up order and what is remembered about where a blob can be had. Does not download layers:
//! a layer is fetched when a step or an exporter needs its bytes (see [`crate::blobs`]).
//!
//! Every reference is resolved once for each solve, however many platforms and stages name it. A name is
//! asked for at its registry; if that cannot be reached, the last answer is used and a warning says so, and
//! an image of that name in slipway's own store serves too, so that building on what was just built works
//! without a registry. Whoever wants it pulled gets what the registry says, or an error.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use slipway_dockerfile::{ImageOrigin, ResolveMode, ResolveRequest, ResolvedImage};
use slipway_model::llb::pb;
use slipway_model::solve::LayoutSelector;
use slipway_model::{
    Descriptor, Diagnostic, Digest, ErrorKind, ImageConfig, ImageIndex, Manifest, MediaType, Platform,
    Reference,
};
use tokio::sync::OnceCell;

use crate::attest::{ImageSource, Scope};
use crate::blobs::{BlobSource, Blobs};
use crate::sources::layout::Layout;

/// An image for one platform, pinned.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    /// What the name stands for: an index or a manifest.
    pub(crate) root: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_digest: Digest,
    pub(crate) config: Arc<[u8]>,
}

/// What the source of a registry's image begins with.
const IMAGE: &str = "docker-image://";

type Slot<T> = Arc<OnceCell<Result<T, Diagnostic>>>;

/// Where an OCI layout is.
#[derive(Clone, Debug)]
enum LayoutPlace {
    Here(Layout, LayoutSelector),
    /// A content store of the client.
    Client(String),
}

/// Resolves the images of one build.
pub(crate) struct Images {
    blobs: Blobs,
    layouts: parking_lot::Mutex<HashMap<String, LayoutPlace>>,
    roots: parking_lot::Mutex<HashMap<(String, ResolveMode), Slot<Descriptor>>>,
    pinned: parking_lot::Mutex<HashMap<(String, Platform), Slot<Pinned>>>,
    /// What a policy says is used instead of an image.
    replaced: parking_lot::Mutex<HashMap<(String, Platform), pb::SourceOp>>,
}

impl Images {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            layouts: Default::default(),
            roots: Default::default(),
            pinned: Default::default(),
            replaced: Default::default(),
        }
    }

    /// Makes a layout known under a name.
    pub(crate) fn add_layout(&self, name: String, layout: Layout, selector: LayoutSelector) {
        self.layouts.lock().insert(name, LayoutPlace::Here(layout, selector));
    }

    /// Makes a content store of the client known under a name.
    pub(crate) fn add_client_layout(&self, name: String, store: String) {
        self.layouts.lock().insert(name, LayoutPlace::Client(store));
    }

    /// Uses a source instead of an image.
    pub(crate) fn replace(&self, reference: &Reference, platform: &Platform, source: pb::SourceOp) {
        self.replaced.lock().insert((reference.to_string(), platform.clone()), source);
    }

    /// Finds what is used instead of an image.
    pub(crate) fn replacement(&self, request: &ResolveRequest) -> Option<pb::SourceOp> {
        let key = (request.reference.to_string(), request.platform.clone());
        let registry = request.origin == ImageOrigin::Registry;
        self.replaced.lock().get(&key).filter(|_| registry).cloned()
    }

    /// Tells whether a layout has that name in this build.
    pub(crate) fn knows_layout(&self, name: &str) -> bool {
        self.layouts.lock().contains_key(name)
    }

    /// Resolves a registry's image for a platform.
    pub(crate) async fn pin_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<Pinned, Diagnostic> {
        let source = BlobSource::Registry(reference.without_tag());
        let name = match mode {
            ResolveMode::Default => reference.to_string(),
            ResolveMode::Pull => format!("pulled:{reference}"),
        };
        self.pin(name, platform, source, self.root_of(reference, mode)).await
    }

    /// Resolves an image in a named OCI layout for a platform.
    pub(crate) async fn pin_layout(
        &self,
        name: &str,
        digest: Option<Digest>,
        platform: &Platform,
    ) -> Result<Pinned, Diagnostic> {
        let place = self.layouts.lock().get(name).cloned().ok_or_else(|| {
            Diagnostic::new(ErrorKind::User, format!("there is no OCI layout named `{name}`"))
                .hint(format!("give one with `--build-context {name}=oci-layout://PATH`"))
        })?;
        match (place, digest) {
            (LayoutPlace::Here(layout, selector), digest) => {
                let selector = digest.map(LayoutSelector::Digest).unwrap_or(selector);
                let source = BlobSource::Layout(layout.path().to_owned());
                let key = format!("oci-layout:{name}@{selector:?}");
                self.pin(key, platform, source, async move { layout.select(&selector) }).await
            }
            (LayoutPlace::Client(store), Some(digest)) => {
                self.pin_client_layout(&store, digest, platform).await
            }
            (LayoutPlace::Client(store), None) => {
                Err(Diagnostic::new(ErrorKind::User, format!("oci-layout reference `{store}` has no digest")))
            }
        }
    }

    /// Resolves an image in a content store of the client for a platform.
    pub(crate) async fn pin_client_layout(
        &self,
        store: &str,
        digest: Digest,
        platform: &Platform,
    ) -> Result<Pinned, Diagnostic> {
        let source = BlobSource::client_layout(store);
        let root = self.blobs.describe(&source, &digest).await;
        self.pin(format!("client:{store}@{digest}"), platform, source, async { root }).await
    }

    /// Takes an image of slipway's own store for a platform.
    pub(crate) async fn pin_stored(
        &self,
        name: &Reference,
        root: Descriptor,
        platform: &Platform,
    ) -> Result<Pinned, Diagnostic> {
        let source = BlobSource::Registry(name.without_tag());
        self.pin(format!("own:{name}"), platform, source, async { Ok(root) }).await
    }

    async fn root_of(&self, reference: &Reference, mode: ResolveMode) -> Result<Descriptor, Diagnostic> {
        let slot = self.roots.lock().entry((reference.to_string(), mode)).or_default().clone();
        slot.get_or_init(|| self.blobs.resolve(reference, mode)).await.clone()
    }

    async fn pin(
        &self,
        name: String,
        platform: &Platform,
        source: BlobSource,
        root: impl Future<Output = Result<Descriptor, Diagnostic>>,
    ) -> Result<Pinned, Diagnostic> {
        let slot = self.pinned.lock().entry((name.clone(), platform.clone())).or_default().clone();
        slot.get_or_init(|| async { self.pin_once(&name, platform, &source, root.await?).await })
            .await
            .clone()
    }

    async fn pin_once(
        &self,
        name: &str,
        platform: &Platform,
        source: &BlobSource,
        root: Descriptor,
    ) -> Result<Pinned, Diagnostic> {
        let document = self.blobs.document(&root, source).await?;
        let (manifest_digest, manifest) = if MediaType::is_index(&root.media_type) {
            let index: ImageIndex = parse(name, "image index", &document)?;
            let chosen = index.select(platform).ok_or_else(|| missing_platform(name, platform, &index))?;
            let document = self.blobs.document(chosen, source).await?;
            (chosen.digest, parse::<Manifest>(name, "image manifest", &document)?)
        } else {
            (root.digest, parse::<Manifest>(name, "image manifest", &document)?)
        };
        let config = self.blobs.document(&manifest.config, source).await?;
        for layer in &manifest.layers {
            self.blobs.remember(&layer.digest, source);
        }
        Ok(Pinned { root, manifest, manifest_digest, config: config.into() })
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, what: &str, bytes: &[u8]) -> Result<T, Diagnostic> {
    serde_json::from_slice(bytes).map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot use `{name}`"))
            .cause(format!("what was received is no {what}: {error}"))
    })
}

fn missing_platform(name: &str, platform: &Platform, index: &ImageIndex) -> Diagnostic {
    let has: Vec<String> = index.platforms().iter().map(ToString::to_string).collect();
    let message = format!("{name}: no match for platform in manifest: not found");
    let mut diagnostic = Diagnostic::new(ErrorKind::User, message)
        .cause(format!("the image has no `{platform}`; it has {}", has.join(", ")))
        .hint(format!(
            "build for the platforms it has (`--platform {}`), or use another base image",
            has.join(",")
        ));
    diagnostic.platform = Some(Box::new(platform.clone()));
    diagnostic
}

impl Images {
    /// Resolves one image for one platform, wherever it comes from.
    pub(crate) async fn find(&self, request: &ResolveRequest) -> Result<Pinned, Diagnostic> {
        let found = match &request.origin {
            ImageOrigin::Registry => {
                self.pin_registry(&request.reference, &request.platform, request.mode).await
            }
            ImageOrigin::OciLayout { context } => {
                self.pin_layout(context, request.reference.digest(), &request.platform).await
            }
        };
        found.map_err(|diagnostic| diagnostic.at(request.span.clone()).on(Some(request.platform.clone())))
    }

    /// Resolves an image for a frontend, or what is used instead, and notes which.
    pub(crate) async fn resolve(
        &self,
        mut request: ResolveRequest,
        scope: &Scope,
    ) -> Result<ResolvedImage, Diagnostic> {
        let mut source = self.replacement(&request);
        if let Some(source) = &source {
            let Some(name) = source.identifier.strip_prefix(IMAGE) else {
                return Ok(ResolvedImage {
                    digest: Digest::of(source.encode_to_vec()),
                    config: ImageConfig::for_platform(&request.platform),
                    config_digest: None,
                    source: Some(source.clone()),
                });
            };
            request.reference = name.parse().map_err(|error: slipway_model::ParseReferenceError| {
                Diagnostic::new(ErrorKind::User, error.to_string())
            })?;
        }
        let pinned = self.find(&request).await?;
        if let Some(source) = &mut source {
            source.identifier = format!("{IMAGE}{}", request.reference.with_digest(pinned.root.digest));
        }
        let local = matches!(request.origin, ImageOrigin::OciLayout { .. });
        let reference = match local {
            true => request.reference.with_digest(pinned.root.digest),
            false => request.reference.clone(),
        };
        let (platform, digest) = (Some(request.platform.clone()), pinned.root.digest);
        scope.resolved(ImageSource { reference, platform, digest, local });
        let config: ImageConfig = parse(&request.reference.to_string(), "image config", &pinned.config)?;
        Ok(ResolvedImage {
            digest: pinned.root.digest,
            config,
            config_digest: Some(pinned.manifest.config.digest),
            source,
        })
    }
}
