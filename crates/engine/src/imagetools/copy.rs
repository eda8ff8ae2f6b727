//! Copying a combined image to a place: blobs, then manifests, the names last.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use slipway_model::progress::Stream;
use slipway_model::{Descriptor, Diagnostic, ImageIndex, Manifest, MediaType};
use slipway_registry::{Access, BlobSource, PushOptions};
use tokio::sync::Semaphore;

use super::combine::Combined;
use super::layout::LayoutTarget;
use super::location::{Location, Place};
use crate::engine::Engine;
use crate::error::Context as _;
use crate::progress::Step;
use crate::sources::layout::Layout;

/// Copies into one repository or layout.
pub(super) struct Copier<'a> {
    pub(super) engine: &'a Engine,
    pub(super) step: &'a Step,
    /// Any name in the place.
    pub(super) target: &'a Location,
    /// For blobs.
    pub(super) permits: Arc<Semaphore>,
}

impl Copier<'_> {
    /// Copies all that an image lists, and gives it its names.
    pub(super) async fn publish(&self, image: &Combined, targets: &[&Location]) -> Result<(), Diagnostic> {
        let is_index = MediaType::is_index(&image.descriptor.media_type);
        try_join_all(image.members.iter().map(|member| async {
            let (from, descriptor) = (&member.location, &member.descriptor);
            self.say(format!("copying {} from {from} to {}", descriptor.digest, self.target.repository()));
            match is_index {
                true => self.document(from, descriptor).await,
                // It gets its name last, as an index does.
                false => self.content(from, descriptor, &image.bytes).await,
            }
            .map_err(|mut error| {
                let target = self.target.repository();
                let doing = format!("cannot copy {} from {from} to {target}", descriptor.digest);
                error.causes.insert(0, std::mem::replace(&mut error.message, doing));
                error
            })
        }))
        .await?;
        for target in targets {
            self.say(format!("pushing {} to {target}", image.descriptor.digest));
            self.name(target, &image.descriptor, &image.bytes).await?;
        }
        Ok(())
    }

    fn say(&self, text: String) {
        self.step.progress().log(self.step.digest(), Stream::Stdout, format!("{text}\n").as_bytes());
    }

    /// Copies a manifest or index with all below it and all that refers to it.
    async fn document(&self, from: &Location, descriptor: &Descriptor) -> Result<(), Diagnostic> {
        let place = self.engine.place(from);
        if !self.has(descriptor).await {
            let bytes = place.document(descriptor).await?;
            self.content(from, descriptor, &bytes).await?;
            self.write(descriptor, bytes).await?;
        }
        let referrers = place.referrers(descriptor).await;
        for referrer in referrers {
            if !self.has(&referrer).await {
                let bytes = place.document(&referrer).await?;
                Box::pin(self.content(from, &referrer, &bytes)).await?;
                self.write(&referrer, bytes).await?;
            }
        }
        Ok(())
    }

    /// Copies what a manifest or index lists.
    async fn content(
        &self,
        from: &Location,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), Diagnostic> {
        let place = self.engine.place(from);
        if MediaType::is_index(&descriptor.media_type) {
            let index: ImageIndex = place.parse(descriptor, bytes)?;
            for inner in &index.manifests {
                Box::pin(self.document(from, inner)).await?;
            }
            return Ok(());
        }
        let manifest: Manifest = place.parse(descriptor, bytes)?;
        // Layers that may not be given away stay where their addresses say.
        let ours = |layer: &&Descriptor| layer.urls.is_empty();
        let blobs = manifest.layers.iter().filter(ours).chain([&manifest.config]);
        try_join_all(blobs.map(|blob| self.blob(place, blob))).await.map(drop)
    }

    async fn blob(&self, from: Place<'_>, blob: &Descriptor) -> Result<(), Diagnostic> {
        let _permit = self.permits.acquire().await;
        let client = &self.engine.inner.client;
        let doing = || format!("cannot copy the blob {} to {}", blob.digest, self.target.repository());
        match (self.target, from.location) {
            (Location::Registry(to), Location::Registry(source)) => {
                let same = to.repository() == source.repository();
                if same {
                    return Ok(());
                }
                client.copy_blob(source, to, blob, &PushOptions::default()).await.context(doing).map(drop)
            }
            (Location::Registry(to), Location::Layout { path, .. }) => {
                let body = BlobSource::Path(Layout::new(path.clone()).blob_path(&blob.digest));
                client.push_blob(to, blob, &body, &PushOptions::default()).await.context(doing).map(drop)
            }
            (Location::Layout { path, .. }, Location::Registry(source)) => {
                LayoutTarget::new(path).fetch(client, source, blob).await
            }
            (Location::Layout { path, .. }, Location::Layout { path: source, .. }) => {
                LayoutTarget::new(path).copy(&Layout::new(source.clone()), blob).await
            }
        }
    }

    /// Tells whether a manifest is in the place, and with it all that it lists.
    async fn has(&self, descriptor: &Descriptor) -> bool {
        match self.target {
            Location::Registry(to) => {
                let pinned = to.without_tag().with_digest(descriptor.digest);
                self.engine.inner.client.resolve(&pinned, Access::Push).await.is_ok()
            }
            // The blobs of a layout may have been thinned out; looking at each costs little.
            Location::Layout { .. } => false,
        }
    }

    async fn write(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<(), Diagnostic> {
        match self.target {
            Location::Registry(to) => {
                let pinned = to.without_tag().with_digest(descriptor.digest);
                self.engine
                    .inner
                    .client
                    .push_manifest(&pinned, bytes, &descriptor.media_type)
                    .await
                    .context(|| format!("cannot push {pinned}"))
                    .map(drop)
            }
            Location::Layout { path, .. } => LayoutTarget::new(path).write(descriptor, &bytes),
        }
    }

    /// Gives an image, all of which is there, a name.
    async fn name(
        &self,
        target: &Location,
        descriptor: &Descriptor,
        bytes: &Bytes,
    ) -> Result<(), Diagnostic> {
        match target {
            Location::Registry(to) => self
                .engine
                .inner
                .client
                .push_manifest(&to.with_default_tag(), bytes.clone(), &descriptor.media_type)
                .await
                .context(|| format!("cannot push {to}"))
                .map(drop),
            Location::Layout { path, selector } => {
                let target = LayoutTarget::new(path);
                target.write(descriptor, bytes)?;
                target.name(descriptor, selector)
            }
        }
    }
}
