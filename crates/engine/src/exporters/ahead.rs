//! Sends new layers to a registry while they are being made.
//!
//! A layer that the registry turns out to have costs what was sent of it, which is thrown away; see
//! [`Client::push_growing`] for what is not sent before its end. Layers that are not made are pushed as usual.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use slipway_model::{Descriptor, Digest, Reference};
use slipway_registry::{BlobSource, Client, Growth, PushOptions, RegistryError};
use slipway_store::BlobWatcher;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::progress::Counter;

/// Uploads that are under way; they end with the last clone. The default sends nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead(Option<Arc<Inner>>);

struct Inner {
    runtime: Handle,
    client: Client,
    name: Reference,
    tasks: Mutex<JoinSet<()>>,
    sent: Mutex<HashMap<Digest, Upload>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A layer on its way.
struct Upload {
    /// What became of it.
    outcome: oneshot::Receiver<Result<(), RegistryError>>,
    sent: Arc<Sent>,
}

/// How much has been sent, and who shows it once there is a step to show it in.
#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    counter: OnceLock<Counter>,
}

impl Ahead {
    /// Sends to the repository of `name`; must be called where a runtime is.
    pub(crate) fn to(client: Client, name: &Reference) -> Self {
        let (tasks, sent) = (Mutex::default(), Mutex::default());
        let (runtime, name) = (Handle::current(), name.clone());
        Self(Some(Arc::new(Inner { runtime, client, name, tasks, sent })))
    }

    /// Returns what is to watch a layer's blob.
    pub(crate) fn watch(&self) -> Option<Watch<'_>> {
        self.0.as_deref().map(|inner| Watch { inner, growing: Mutex::default() })
    }

    /// Waits until a layer has arrived in the repository of `name`; nothing if it is not on its way there.
    /// `counter` shows how far it is.
    pub(crate) async fn arrival(
        &self,
        name: &Reference,
        digest: &Digest,
        counter: impl FnOnce() -> Option<Counter>,
    ) -> Option<Result<(), RegistryError>> {
        let inner = self.0.as_deref().filter(|inner| inner.name.repository() == name.repository())?;
        let upload = inner.sent.lock().remove(digest)?;
        if let Some(counter) = counter() {
            let counter = upload.sent.counter.get_or_init(|| counter);
            counter.set(upload.sent.bytes.load(Ordering::Relaxed));
        }
        upload.outcome.await.ok()
    }

    /// Waits for the uploads that nobody waited for: they find that they are not needed, and clean up.
    pub(crate) async fn settle(&self) {
        let Some(inner) = &self.0 else { return };
        let mut tasks = std::mem::take(&mut *inner.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// Watches one layer's blob, and has it sent.
pub(crate) struct Watch<'a> {
    inner: &'a Inner,
    growing: Mutex<Option<Growing>>,
}

struct Growing {
    growth: watch::Sender<Growth>,
    upload: Upload,
}

impl Watch<'_> {
    /// Says that the blob is complete; dropped without this, the upload is given up.
    pub(crate) fn done(self, layer: &Descriptor) {
        let Some(growing) = self.growing.into_inner() else { return };
        self.inner.sent.lock().insert(layer.digest, growing.upload);
        growing.growth.send_replace(Growth::Done(Box::new(layer.clone())));
    }
}

impl BlobWatcher for Watch<'_> {
    fn begun(&self, file: File) {
        let (growth, grows) = watch::channel(Growth::Written(0));
        let (tell, outcome) = oneshot::channel();
        let sent = Arc::new(Sent::default());
        let options = PushOptions { progress: Some(progress(sent.clone())), ..PushOptions::default() };
        let (client, name) = (self.inner.client.clone(), self.inner.name.clone());
        let source = BlobSource::File(Arc::new(file));
        let push = async move {
            let pushed = client.push_growing(&name, &source, grows, &options).await;
            // Nobody asks if the image is there already.
            let _ = tell.send(pushed.map(drop));
        };
        self.inner.tasks.lock().spawn_on(push, &self.inner.runtime);
        *self.growing.lock() = Some(Growing { growth, upload: Upload { outcome, sent } });
    }

    fn written(&self, bytes: u64) {
        if let Some(growing) = &*self.growing.lock() {
            growing.growth.send_replace(Growth::Written(bytes));
        }
    }
}

fn progress(sent: Arc<Sent>) -> slipway_registry::Progress {
    Arc::new(move |bytes| {
        sent.bytes.store(bytes, Ordering::Relaxed);
        if let Some(counter) = sent.counter.get() {
            counter.set(bytes);
        }
    })
}
