//! A combined image as an output of a build: an archive, or an image in a container engine.

use std::sync::Arc;

use slipway_model::progress::EventSink;
use slipway_model::solve::OutputSpec;
use slipway_model::{Descriptor, Diagnostic, Manifest};
use tokio_util::sync::CancellationToken;

use super::combine::Combined;
use super::location::Location;
use crate::build::BuildOptions;
use crate::engine::Engine;
use crate::error::{Context as _, blocking};
use crate::exporters::{self, Built};
use crate::job::Job;
use crate::sources::layout::Layout;

impl Engine {
    /// Writes an image whose parts are in OCI layouts, as a build writes its own.
    pub async fn write_image(
        &self,
        image: &Combined,
        output: &OutputSpec,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<(), Diagnostic> {
        let job = Arc::new(Job::start(&self.inner, BuildOptions::local("image"), events, cancel.clone())?);
        for member in &image.members {
            let Location::Layout { path, .. } = &member.location else {
                return Err(crate::error::internal("only layouts are written as outputs"));
            };
            let layout = Layout::new(path.clone());
            let bytes = self.place(&member.location).document(&member.descriptor).await?;
            let manifest: Manifest = self.place(&member.location).parse(&member.descriptor, &bytes)?;
            for blob in manifest.layers.iter().chain([&manifest.config, &member.descriptor]) {
                take(&job, &layout, blob).await?;
            }
        }
        job.engine.store.content().put(&image.bytes, &job.lease).diagnose()?;
        let built = Arc::new(Built::read(&job.engine.store, &image.descriptor)?);
        tokio::select! {
            written = exporters::write_whole(job.clone(), output, &built) => written,
            () = cancel.cancelled() => Err(Diagnostic::new(slipway_model::ErrorKind::User, "canceled")),
        }
    }
}

/// Takes a blob of a layout into the store, for as long as the job lasts.
async fn take(job: &Arc<Job>, layout: &Layout, blob: &Descriptor) -> Result<(), Diagnostic> {
    let (job, path, blob) = (job.clone(), layout.blob_path(&blob.digest), blob.clone());
    blocking(move || {
        let doing = || format!("cannot read `{}`", path.display());
        let content = job.engine.store.content();
        let mut ingest = content.ingest(Some((blob.digest, blob.size)), &job.lease).diagnose()?;
        ingest.restart().diagnose()?;
        let mut file = std::fs::File::open(&path).context(doing)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = std::io::Read::read(&mut file, &mut buffer).context(doing)?;
            if length == 0 {
                break;
            }
            ingest.append(&buffer[..length]).diagnose()?;
        }
        ingest.commit().diagnose().map(drop)
    })
    .await
}
