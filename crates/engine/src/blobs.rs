//! Getting blobs: documents at once, layers when their bytes are needed.
//!
//! Every blob is remembered with the places it can be had from, across runs, so that a layer which was
//! never downloaded can be fetched by a later build that needs it, and so that a push can ask the registry
//! to mount it from its repository instead of sending it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipway_dockerfile::ResolveMode;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, Reference};
use slipway_registry::{Access, Client};
use std::ops::ControlFlow;

use slipway_store::{Lease, SnapshotId, Store, UnpackOptions};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

use crate::error::{Context as _, Explain as _, blocking};
use crate::progress::Progress;
use crate::remote_cache::Bucket;
use crate::session::{ContentReader, Session};
use crate::sources::layout::Layout;

/// The key-value namespace of the places of blobs.
const SOURCES: &str = "blob-source";
/// The key-value namespace of what names stood for, last time they were asked.
const RESOLVED: &str = "resolved";
/// The key-value namespace of blobs that came to be known through an imported cache.
const OF_CACHE: &str = "blob-of-cache";
/// The largest index, manifest or config that is read.
const MAX_DOCUMENT: u64 = 8 << 20;
/// How many places are remembered for one blob.
const MAX_SOURCES: usize = 8;

/// A place that has a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BlobSource {
    /// A repository; its reference has no tag.
    Registry(Reference),
    Layout(PathBuf),
    /// A content store of the client: there as long as the build is.
    Client(String),
    /// A bucket, by its id: of use to builds that were told of it.
    Bucket(String),
}

impl BlobSource {
    /// Names an OCI layout of the client; a client keeps its layouts and its caches apart.
    pub(crate) fn client_layout(id: &str) -> Self {
        Self::Client(format!("oci:{id}"))
    }
}

type Slot = Arc<OnceCell<Result<(), Diagnostic>>>;

/// Fetches blobs for one solve, each at most once.
#[derive(Clone)]
pub(crate) struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    store: Store,
    lease: Lease,
    progress: Progress,
    cancel: CancellationToken,
    session: OnceLock<Arc<dyn Session>>,
    /// The client's stores that have blobs.
    client_stores: Mutex<HashMap<Digest, String>>,
    /// The buckets of this build, by id.
    buckets: Mutex<HashMap<String, Arc<Bucket>>>,
    fetching: Mutex<HashMap<Digest, Slot>>,
    /// A blob of an imported cache could not be had.
    lost: AtomicBool,
    /// Hosts that may be spoken to without a trusted connection.
    insecure: Mutex<HashSet<String>>,
    /// As many as there are processors: extracting is work for them.
    extracting: Semaphore,
}

impl Blobs {
    pub(crate) fn new(
        client: Client,
        store: Store,
        lease: Lease,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let (fetching, extracting) = (Mutex::default(), Semaphore::new(processors));
        let (insecure, lost) = (Mutex::default(), AtomicBool::new(false));
        let (session, client_stores) = (OnceLock::new(), Mutex::default());
        let inner = Inner {
            client,
            store,
            lease,
            progress,
            cancel,
            session,
            client_stores,
            buckets: Mutex::default(),
            fetching,
            lost,
            insecure,
            extracting,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Notes that blobs came to be known through an imported cache: they may be gone when they are needed.
    pub(crate) fn note_of_cache(&self, digests: &[Digest]) -> Result<(), Diagnostic> {
        let values: Vec<(&[u8], &[u8])> =
            digests.iter().map(|blob| (&blob.as_bytes()[..], &b""[..])).collect();
        self.inner.store.key_values().put_all(OF_CACHE, &values).diagnose()
    }

    /// Tells whether a blob came to be known through an imported cache.
    pub(crate) fn is_of_cache(&self, digest: &Digest) -> bool {
        matches!(self.inner.store.key_values().get(OF_CACHE, digest.as_bytes()), Ok(Some(_)))
    }

    /// Tells whether a blob of an imported cache could not be had.
    pub(crate) fn has_lost(&self) -> bool {
        self.inner.lost.load(Ordering::Relaxed)
    }

    /// Lets what could not be had be tried again.
    pub(crate) fn forget_failures(&self) {
        self.inner.fetching.lock().retain(|_, slot| !matches!(slot.get(), Some(Err(_))));
    }

    /// Tells whether a blob is in the store.
    pub(crate) fn is_here(&self, digest: &Digest) -> bool {
        matches!(self.inner.store.content().contains(digest), Ok(Some(_)))
    }

    /// Makes a bucket known; returns what names it as a source.
    pub(crate) fn add_bucket(&self, id: String, bucket: Arc<Bucket>) -> BlobSource {
        self.inner.buckets.lock().insert(id.clone(), bucket);
        BlobSource::Bucket(id)
    }

    fn bucket(&self, id: &str) -> Result<Arc<Bucket>, Diagnostic> {
        let known = self.inner.buckets.lock().get(id).cloned();
        known.ok_or_else(|| {
            Diagnostic::new(ErrorKind::User, format!("cannot ask the bucket {id}"))
                .cause("this build was not told of it")
                .hint("name it with `--cache-from type=s3,…`")
        })
    }

    /// Lets blobs be fetched from a host without a trusted connection.
    pub(crate) fn allow_insecure(&self, domain: &str) {
        self.inner.insecure.lock().insert(domain.to_owned());
    }

    fn client_for(&self, repository: &Reference) -> Client {
        self.inner.client.insecure(self.inner.insecure.lock().contains(repository.domain()))
    }

    /// Tells whether a blob is here, or one of the places that have had it still has it.
    pub(crate) async fn available(&self, digest: &Digest) -> bool {
        if self.is_here(digest) {
            return true;
        }
        for source in self.all_sources(digest) {
            let there = match &source {
                BlobSource::Client(store) => match self.inner.session.get() {
                    Some(session) => session.has_content(store, digest).await.unwrap_or(false),
                    None => false,
                },
                BlobSource::Bucket(id) => match self.bucket(id) {
                    Ok(bucket) => bucket.has(digest).await.unwrap_or(false),
                    Err(_) => false,
                },
                BlobSource::Layout(path) => Layout::new(path.clone()).blob_path(digest).is_file(),
                BlobSource::Registry(repository) => {
                    self.client_for(repository).blob_exists(repository, *digest).await.unwrap_or(false)
                }
            };
            if there {
                // It is asked first when the blob is needed.
                self.remember(digest, &source);
                return true;
            }
        }
        false
    }

    /// Says who the client is, whose content stores have blobs too.
    pub(crate) fn serve(&self, session: Arc<dyn Session>) {
        let _ = self.inner.session.set(session);
    }

    /// Describes a document in a content store of the client.
    pub(crate) async fn describe(
        &self,
        source: &BlobSource,
        digest: &Digest,
    ) -> Result<Descriptor, Diagnostic> {
        let bytes = match (self.inner.store.content().read(digest, MAX_DOCUMENT), source) {
            (Err(_), BlobSource::Client(store)) => self.client_document(store, digest, MAX_DOCUMENT).await?,
            (read, _) => read.diagnose()?,
        };
        crate::sources::layout::describe(&bytes).context(|| format!("cannot use {digest} of an OCI layout"))
    }

    /// Reads a document in a content store of the client.
    pub(crate) async fn client_document(
        &self,
        store: &str,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, Diagnostic> {
        let doing = || format!("cannot read {digest} of the client's store `{store}`");
        let reader = self.client_blob(store, digest).await?;
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes).await.context(doing)?;
        if bytes.len() as u64 > limit || Digest::of(&bytes) != *digest {
            return Err(Diagnostic::new(ErrorKind::User, doing()).cause("the client sent other content"));
        }
        Ok(bytes)
    }

    async fn client_blob(&self, store: &str, digest: &Digest) -> Result<ContentReader, Diagnostic> {
        match self.inner.session.get() {
            Some(session) => session.content(store, digest).await,
            None => Err(crate::error::internal("there is no client to read a blob from")),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Finds what a reference stands for now; if nobody can be asked, what it stood for last time, unless the mode
    /// says that it has to be what the registry says.
    pub(crate) async fn resolve(
        &self,
        reference: &Reference,
        mode: ResolveMode,
    ) -> Result<Descriptor, Diagnostic> {
        let values = self.inner.store.key_values();
        let key = reference.to_string();
        let known = || -> Option<Descriptor> {
            let value = values.get(RESOLVED, key.as_bytes()).ok()??;
            let descriptor: Descriptor = serde_json::from_slice(&value.value).ok()?;
            let there = self.inner.store.content().contains(&descriptor.digest).ok()??;
            (there == descriptor.size).then_some(descriptor)
        };
        // A digest stands for the same content for ever.
        if let Some(pinned) = reference.digest().and_then(|digest| known().filter(|d| d.digest == digest)) {
            return Ok(pinned);
        }
        match self.inner.client.resolve(reference, Access::default()).await {
            Ok(descriptor) => {
                let text = serde_json::to_vec(&descriptor).unwrap_or_default();
                if known().as_ref() != Some(&descriptor) {
                    let _ = values.put(RESOLVED, key.as_bytes(), &text);
                }
                Ok(descriptor)
            }
            Err(error) => {
                let usable = mode == ResolveMode::Default;
                let built = || {
                    self.inner.store.images().get(&reference.with_default_tag().to_string()).ok().flatten()
                };
                if let Some(image) = usable.then(built).flatten() {
                    self.note(&format!("using {} from slipway's own images", reference.familiar()), &error);
                    return Ok(image.descriptor);
                }
                match known().filter(|_| usable && error.kind() == ErrorKind::Environment) {
                    Some(descriptor) => {
                        self.note(
                            &format!("using {} as it was when last resolved", reference.familiar()),
                            &error,
                        );
                        Ok(descriptor)
                    }
                    None => Err(error).context(|| {
                        format!("failed to resolve source metadata for {}", reference.with_default_tag())
                    }),
                }
            }
        }
    }

    fn note(&self, text: &str, error: &dyn std::fmt::Display) {
        let step = self.inner.progress.step(format!("{text} ({error})"));
        step.done();
    }

    /// Returns an index, manifest or config, and keeps it.
    pub(crate) async fn document(
        &self,
        descriptor: &Descriptor,
        source: &BlobSource,
    ) -> Result<Vec<u8>, Diagnostic> {
        let content = self.inner.store.content();
        if let Ok(bytes) = content.read(&descriptor.digest, MAX_DOCUMENT) {
            self.inner.lease.hold_blobs(&[descriptor.digest]).diagnose()?;
            return Ok(bytes);
        }
        let bytes = match source {
            BlobSource::Client(store) => {
                self.client_document(store, &descriptor.digest, MAX_DOCUMENT).await?
            }
            BlobSource::Bucket(id) => {
                return Err(crate::error::internal(format!("a document is asked of the bucket {id}")));
            }
            BlobSource::Layout(path) => {
                let read = Layout::new(path.clone()).read(&descriptor.digest);
                read.context(|| format!("cannot read the OCI layout `{}`", path.display()))?
            }
            BlobSource::Registry(repository) => {
                let doing = || format!("cannot fetch {} from {repository}", descriptor.digest);
                let is_manifest = slipway_model::MediaType::is_index(&descriptor.media_type)
                    || slipway_model::MediaType::is_manifest(&descriptor.media_type);
                if is_manifest {
                    self.inner.client.manifest(repository, descriptor).await.context(doing)?.to_vec()
                } else {
                    self.inner
                        .client
                        .blob_bytes(repository, descriptor, MAX_DOCUMENT)
                        .await
                        .context(doing)?
                        .to_vec()
                }
            }
        };
        content.put(&bytes, &self.inner.lease).diagnose()?;
        Ok(bytes)
    }

    /// Notes that a blob can be had from a place.
    pub(crate) fn remember(&self, digest: &Digest, source: &BlobSource) {
        if let BlobSource::Client(store) = source {
            self.inner.client_stores.lock().insert(*digest, store.clone());
            return;
        }
        let mut sources = self.sources(digest);
        if sources.first() == Some(source) {
            return;
        }
        sources.retain(|known| known != source);
        sources.insert(0, source.clone());
        sources.truncate(MAX_SOURCES);
        if let Ok(text) = serde_json::to_vec(&sources) {
            let _ = self.inner.store.key_values().put(SOURCES, digest.as_bytes(), &text);
        }
    }

    /// Lists the places a blob can be had from, the latest first.
    pub(crate) fn sources(&self, digest: &Digest) -> Vec<BlobSource> {
        let value = self.inner.store.key_values().get(SOURCES, digest.as_bytes()).ok().flatten();
        value.and_then(|v| serde_json::from_slice(&v.value).ok()).unwrap_or_default()
    }

    /// Lists these places, and the client's store that has the blob.
    fn all_sources(&self, digest: &Digest) -> Vec<BlobSource> {
        let mut sources = self.sources(digest);
        let client = self.inner.client_stores.lock().get(digest).cloned();
        sources.extend(client.map(BlobSource::Client));
        sources
    }

    /// Makes sure that blobs are in the store, fetching what is missing, several at once.
    pub(crate) async fn ensure(&self, blobs: &[Descriptor], vertex: Digest) -> Result<(), Diagnostic> {
        let mut fetches = FuturesUnordered::new();
        for blob in blobs {
            let slot = self.inner.fetching.lock().entry(blob.digest).or_default().clone();
            fetches.push(async move { slot.get_or_init(|| self.fetch(blob, vertex)).await.clone() });
        }
        while let Some(fetched) = fetches.next().await {
            fetched?;
        }
        Ok(())
    }

    /// Makes sure that a blob is in the store of which no more than the digest is known.
    pub(crate) async fn ensure_alone(
        &self,
        digest: Digest,
        source: &BlobSource,
        vertex: Digest,
    ) -> Result<(), Diagnostic> {
        if self.is_here(&digest) {
            return self.inner.lease.hold_blobs(&[digest]).diagnose();
        }
        let doing = || format!("cannot fetch the blob {digest}");
        let missing = |place: &str| {
            Diagnostic::new(ErrorKind::User, format!("{digest}: not found"))
                .cause(format!("{place} has no such blob"))
        };
        match source {
            BlobSource::Registry(repository) => {
                let size = self.client_for(repository).blob_size(repository, digest).await.context(doing)?;
                let size = size.ok_or_else(|| missing(&repository.familiar()))?;
                self.remember(&digest, source);
                self.ensure(&[Descriptor::new("application/octet-stream", digest, size)], vertex).await
            }
            BlobSource::Client(store) => {
                let reader = self.client_blob(store, &digest).await?;
                let mut ingest = self.inner.store.content().ingest(None, &self.inner.lease).context(doing)?;
                let got = blocking(move || {
                    copy_into(&mut SyncIoBridge::new(reader), &mut ingest).diagnose()?;
                    ingest.commit().diagnose()
                });
                match got.await? {
                    got if got == digest => Ok(()),
                    got => Err(Diagnostic::new(ErrorKind::User, doing())
                        .cause(format!("expected checksum to match {digest}, got {got}"))),
                }
            }
            BlobSource::Layout(path) => Err(missing(&path.display().to_string())),
            BlobSource::Bucket(id) => Err(missing(id)),
        }
    }

    async fn fetch(&self, blob: &Descriptor, vertex: Digest) -> Result<(), Diagnostic> {
        if self.inner.store.content().contains(&blob.digest).diagnose()? == Some(blob.size) {
            return self.inner.lease.hold_blobs(&[blob.digest]).diagnose();
        }
        let sources = self.all_sources(&blob.digest);
        let mut failure =
            Diagnostic::new(ErrorKind::Environment, format!("cannot fetch the layer {}", blob.digest))
                .cause("it is not in the store, and nothing is known of where to get it")
                .hint("build again with `--pull --no-cache`");
        for source in &sources {
            match self.fetch_from(blob, source, vertex).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        if self.is_of_cache(&blob.digest) {
            self.inner.lost.store(true, Ordering::Relaxed);
        }
        Err(failure)
    }

    async fn fetch_from(
        &self,
        blob: &Descriptor,
        source: &BlobSource,
        vertex: Digest,
    ) -> Result<(), Diagnostic> {
        let doing = || format!("cannot fetch the layer {}", blob.digest);
        let content = self.inner.store.content();
        let mut ingest = content.ingest(Some((blob.digest, blob.size)), &self.inner.lease).context(doing)?;
        match source {
            BlobSource::Client(store) => {
                let counter = self.inner.progress.counter(vertex, format!("{}", blob.digest), blob.size);
                let reader = self.client_blob(store, &blob.digest).await?;
                blocking(move || {
                    let mut reader = SyncIoBridge::new(reader);
                    ingest.restart().diagnose()?;
                    copy_into(&mut reader, &mut ingest).diagnose()?;
                    counter.set(ingest.offset());
                    ingest.commit().diagnose().map(drop)
                })
                .await
            }
            BlobSource::Bucket(id) => {
                let bucket = self.bucket(id)?;
                let counter = self.inner.progress.counter(vertex, format!("{}", blob.digest), blob.size);
                let mut response = bucket.read(&blob.digest).await?;
                ingest.restart().diagnose()?;
                while let Some(piece) = response.chunk().await.map_err(|error| bucket.unreachable(error))? {
                    ingest = blocking(move || ingest.append(&piece).diagnose().map(|()| ingest)).await?;
                    counter.set(ingest.offset());
                }
                blocking(move || ingest.commit().diagnose().map(drop)).await
            }
            BlobSource::Layout(path) => {
                let path = Layout::new(path.clone()).blob_path(&blob.digest);
                blocking(move || {
                    let what = || format!("cannot read the blob `{}` of an OCI layout", path.display());
                    let mut file = std::fs::File::open(&path).context(what)?;
                    ingest.restart().diagnose()?;
                    copy_into(&mut file, &mut ingest).diagnose()?;
                    ingest.commit().context(what).map(drop)
                })
                .await
                .map_err(|mut error| {
                    error
                        .hint
                        .get_or_insert_with(|| "the layout is damaged: export or copy it again".to_owned());
                    error
                })
            }
            BlobSource::Registry(repository) => {
                let counter = self.inner.progress.counter(vertex, format!("{}", blob.digest), blob.size);
                let mut stream = self.client_for(repository).blob(repository, blob, ingest.offset());
                // Hashing and writing run beside the network, a few pieces behind it.
                let (pieces, mut queue) = tokio::sync::mpsc::channel::<bytes::Bytes>(16);
                let writer = tokio::task::spawn_blocking(move || -> Result<(), Diagnostic> {
                    while let Some(piece) = queue.blocking_recv() {
                        ingest.append(&piece).diagnose()?;
                        counter.set(ingest.offset());
                    }
                    ingest.commit().diagnose().map(drop)
                });
                let mut broken = None;
                while let Some(piece) = stream.next().await {
                    match piece {
                        Ok(piece) => {
                            // The writer has failed, and says why below.
                            if pieces.send(piece).await.is_err() {
                                break;
                            }
                        }
                        Err(error) => {
                            broken = Some(error.explain());
                            break;
                        }
                    }
                }
                drop(pieces);
                let written = writer.await.map_err(|e| crate::error::internal(e.to_string()))?;
                match broken {
                    Some(error) => Err(error),
                    None => written,
                }
                .map_err(|mut error| {
                    error.causes.insert(0, std::mem::replace(&mut error.message, doing()));
                    let hint = "the registry, or a proxy before it, gives other content; try again or another mirror";
                    error.hint.get_or_insert_with(|| hint.to_owned());
                    error
                })
            }
        }
    }

    /// Makes a snapshot's files readable: fetches its lazy layers and unpacks them, in parallel.
    pub(crate) async fn unpack(
        &self,
        id: SnapshotId,
        vertex: Digest,
        lease: &Lease,
    ) -> Result<(), Diagnostic> {
        let snapshots = self.inner.store.snapshots();
        if snapshots.is_ready(id).diagnose()? {
            return Ok(());
        }
        let needed = snapshots.needed_blobs(id).diagnose()?;
        let total = needed.iter().map(|(_, blob)| blob.descriptor.size).sum();
        let unpacking = Arc::new(Unpacking {
            counter: self.inner.progress.counter(vertex, "unpacking", total),
            done: Mutex::default(),
            cancel: self.inner.cancel.clone(),
        });
        // Each layer is extracted as soon as it is here, while others are still on their way.
        let mut layers: FuturesUnordered<_> = needed
            .into_iter()
            .map(|(layer, blob)| self.fetch_and_extract(layer, blob.descriptor, vertex, unpacking.clone()))
            .collect();
        while let Some(extracted) = layers.next().await {
            extracted?;
        }
        let lease = lease.clone();
        blocking(move || unpacking.with(|options| snapshots.unpack_chain(id, options, &lease))).await
    }

    async fn fetch_and_extract(
        &self,
        layer: SnapshotId,
        blob: Descriptor,
        vertex: Digest,
        unpacking: Arc<Unpacking>,
    ) -> Result<(), Diagnostic> {
        self.ensure(std::slice::from_ref(&blob), vertex).await?;
        let _permit =
            self.inner.extracting.acquire().await.map_err(|_| crate::error::internal("no permits"))?;
        let (snapshots, lease) = (self.inner.store.snapshots(), self.inner.lease.clone());
        blocking(move || unpacking.with(|options| snapshots.unpack_layer(layer, options, &lease))).await
    }
}

/// How far the layers of a chain are unpacked.
struct Unpacking {
    counter: crate::progress::Counter,
    /// Bytes read, by layer.
    done: Mutex<HashMap<Digest, u64>>,
    cancel: CancellationToken,
}

impl Unpacking {
    /// Does a part of the work, telling progress and minding cancellation.
    fn with(
        &self,
        work: impl FnOnce(&UnpackOptions<'_>) -> Result<(), slipway_store::StoreError>,
    ) -> Result<(), Diagnostic> {
        let progress = |at: slipway_store::UnpackProgress| {
            let mut done = self.done.lock();
            done.insert(at.layer, at.current);
            self.counter.set(done.values().sum());
            if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        work(&UnpackOptions { progress: &progress, ..UnpackOptions::default() })
            .context(|| "cannot unpack the base image".to_owned())
    }
}

/// Copies bytes into the store, in pieces that are large enough to make the calls cheap.
pub(crate) fn copy_into(
    file: &mut impl std::io::Read,
    ingest: &mut slipway_store::Ingest,
) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => ingest.append(&buffer[..read]).map_err(std::io::Error::other)?,
        }
    }
}
