//! Makes the blob of a snapshot's layer, or finds one that is there.
//!
//! One pass: archive, diff id, compression, digest and file are made together, block by block.

use std::io::{self, Read as _, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;

use slipway_model::solve::Compression;
use slipway_model::{Descriptor, Digester};

use super::compress::{Compressor, effective_level};
use super::diff::{self, BlobWatcher, DiffContext, DiffOptions, UpperForm};
use super::{Decompressor, Variant, layer_media_type};
use crate::content::{ContentStore, Ingest};
use crate::error::{Result, StoreError};
use crate::lease::Lease;
use crate::lock::{FileLock, Share};
use crate::snapshot::{LayerBlob, Row, SnapshotId, Snapshots, require, set_diff_id};

/// What a layer's blob should be like.
#[derive(Clone, Copy, Debug)]
pub struct LayerFormat {
    pub compression: Compression,
    pub level: Option<i32>,
    /// OCI media types rather than Docker's.
    pub oci: bool,
    /// Compress again what an image brought along in another form.
    pub force: bool,
    /// How many threads compress; all, if not given.
    pub threads: Option<NonZeroUsize>,
}

impl Default for LayerFormat {
    fn default() -> Self {
        Self { compression: Compression::default(), level: None, oci: true, force: false, threads: None }
    }
}

impl LayerFormat {
    fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(all, NonZeroUsize::get)
    }

    /// Tells whether a blob that is known will do: which one does must not depend on what was built before.
    /// The clamp is of no concern to layers of base images.
    fn accepts(&self, variant: &Variant, imported: bool, clamp: Option<i64>) -> bool {
        let original = imported && variant.is_original();
        if imported && !self.force {
            return original;
        }
        let level = effective_level(self.compression, self.level);
        let same = variant.compression == Some(self.compression)
            && (original || effective_level(self.compression, variant.level) == level);
        same && (imported || variant.clamp == clamp)
    }

    /// The descriptor of a blob under the media types asked for.
    fn descriptor_of(&self, variant: &Variant) -> Descriptor {
        let mut descriptor = variant.blob.descriptor.clone();
        let distributable =
            !descriptor.media_type.contains("foreign") && !descriptor.media_type.contains("nondistributable");
        if let (Some(compression), true) = (variant.compression, distributable) {
            descriptor.media_type = layer_media_type(compression, self.oci).to_owned();
        }
        descriptor
    }
}

impl Snapshots {
    /// Writes the archive of a snapshot's own layer; the snapshot and its ancestors must be unpacked.
    pub fn write_diff(&self, id: SnapshotId, out: &mut impl Write, options: &DiffOptions<'_>) -> Result<()> {
        let rows = self.rows(id)?;
        let row = rows.last().ok_or(StoreError::SnapshotMissing(id))?;
        let source = row.source.filter(|&source| self.is_ready(source).unwrap_or(false));
        match source {
            // The same layer over another parent: its archive is that of the original.
            Some(source) => self.write_diff(source, out, options),
            None => self.write_own_diff(row, out, options),
        }
    }

    fn write_own_diff(&self, row: &Row, out: &mut impl Write, options: &DiffOptions<'_>) -> Result<()> {
        let dir = row.dir.as_deref().ok_or(StoreError::NotUnpacked(row.id))?;
        let upper = super::extract::open_root(&self.store.layout.files(dir))?;
        let base = row.parent.map(|parent| self.mount_view(parent)).transpose()?;
        let context = DiffContext {
            snapshot: row.id,
            upper: upper.as_fd(),
            base: base.as_ref().map(|tree| tree.as_fd()),
            form: UpperForm::Changes,
            flavour: self.store.flavour,
        };
        diff::write(&context, options, out).map(drop)
    }

    /// Returns the blob of a snapshot's layer, made if no fitting one is known.
    ///
    /// A layer of a base image keeps the form in which it came, unless `format.force` is set; its blob is
    /// then not necessarily in the store. Everything else is in the store when this returns.
    pub fn export_layer(
        &self,
        id: SnapshotId,
        format: &LayerFormat,
        options: &DiffOptions<'_>,
        lease: &Lease,
    ) -> Result<LayerBlob> {
        if let Some(blob) = self.find_blob(id, format, options, lease)? {
            return Ok(blob);
        }
        let name = format!("export-{id}-{:?}", format.compression).to_lowercase();
        let lock = self.store.layout.lock(&name);
        let _lock = FileLock::wait_unless(&lock, Share::Exclusive, &|| options.is_cancelled())?;
        if let Some(blob) = self.find_blob(id, format, options, lease)? {
            return Ok(blob);
        }
        let row = self.rows(id)?.pop().ok_or(StoreError::SnapshotMissing(id))?;
        // Blobs belong to the layer's original where there is one, for its other copies to find.
        if let Some(source) = row.source {
            let blob = self.export_layer(source, format, options, lease)?;
            self.store.database.write(|tx| {
                Variant::copy_all(tx, source, id)?;
                if options.clamp_mtime.is_none() { set_diff_id(tx, id, &blob.diff_id) } else { Ok(()) }
            })?;
            return Ok(blob);
        }
        let clamp = if row.imported { None } else { options.clamp_mtime };
        let (blob, observed) = match self.convertible(&row, clamp)? {
            // The observer wants to see the files; those of a base image are not its business.
            Some(variant) if row.imported || options.observer.is_none() => {
                (self.convert(&variant, format, options, lease)?, true)
            }
            _ => (self.build(&row, format, options, lease)?, false),
        };
        self.record(&row, format, clamp, &blob)?;
        tracing::debug!(%id, digest = %blob.descriptor.digest, converted = observed, "made a layer's blob");
        Ok(blob)
    }

    /// Finds a blob that is known and fits.
    fn find_blob(
        &self,
        id: SnapshotId,
        format: &LayerFormat,
        options: &DiffOptions<'_>,
        lease: &Lease,
    ) -> Result<Option<LayerBlob>> {
        let content = ContentStore::new(std::sync::Arc::clone(&self.store));
        let (imported, variants) = self
            .store
            .database
            .read(|connection| Ok((require(connection, id)?.imported, Variant::list(connection, id)?)))?;
        let mut fitting: Vec<_> =
            variants.iter().filter(|v| format.accepts(v, imported, options.clamp_mtime)).collect();
        fitting.sort_by_key(|variant| variant.compression != Some(format.compression));
        let blob = |variant: &Variant| LayerBlob {
            descriptor: format.descriptor_of(variant),
            diff_id: variant.blob.diff_id,
        };
        for variant in &fitting {
            let digest = variant.blob.descriptor.digest;
            lease.hold_blobs(&[digest])?;
            if content.contains(&digest)?.is_some() {
                return Ok(Some(blob(variant)));
            }
        }
        // Elsewhere, in the base image's registry.
        Ok(fitting.first().filter(|_| imported).map(|variant| blob(variant)))
    }

    /// A blob of the same archive, in another form, that is in the store.
    fn convertible(&self, row: &Row, clamp: Option<i64>) -> Result<Option<Variant>> {
        let content = ContentStore::new(std::sync::Arc::clone(&self.store));
        let variants = self.store.database.read(|connection| Variant::list(connection, row.id))?;
        for variant in variants.into_iter().filter(|variant| row.imported || variant.clamp == clamp) {
            if content.contains(&variant.blob.descriptor.digest)?.is_some() {
                return Ok(Some(variant));
            }
        }
        Ok(None)
    }

    /// Compresses a blob again, verifying its archive on the way.
    fn convert(
        &self,
        variant: &Variant,
        format: &LayerFormat,
        options: &DiffOptions<'_>,
        lease: &Lease,
    ) -> Result<LayerBlob> {
        let content = ContentStore::new(std::sync::Arc::clone(&self.store));
        let layer = variant.blob.descriptor.digest;
        let malformed = |error: io::Error| StoreError::MalformedLayer { layer, reason: error.to_string() };
        let mut archive = Decompressor::new(content.open(&layer)?).map_err(malformed)?;
        let mut output = LayerOutput::new(&content, format, options, lease)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match archive.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => output.write_all(&buffer[..read]).map_err(write_error)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(malformed(error)),
            }
        }
        let blob = output.finish(format)?;
        let expected = variant.blob.diff_id;
        if blob.diff_id != expected {
            // The new blob is what it is, but of no use; no snapshot names it, so it is collected.
            return Err(StoreError::DiffIdMismatch { layer, expected, actual: blob.diff_id });
        }
        Ok(blob)
    }

    fn build(
        &self,
        row: &Row,
        format: &LayerFormat,
        options: &DiffOptions<'_>,
        lease: &Lease,
    ) -> Result<LayerBlob> {
        let content = ContentStore::new(std::sync::Arc::clone(&self.store));
        if row.imported {
            // Its archive cannot be made again from files; only its blob has the right diff id.
            let blob = self.blobs(row.id)?.into_iter().next().ok_or(StoreError::NoContent(row.id))?;
            return Err(StoreError::BlobMissing(blob.descriptor.digest));
        }
        let mut output = LayerOutput::new(&content, format, options, lease)?;
        self.write_own_diff(row, &mut output, options).map_err(|error| match error {
            StoreError::Output(error) => write_error(error),
            other => other,
        })?;
        output.finish(format)
    }

    fn record(&self, row: &Row, format: &LayerFormat, clamp: Option<i64>, blob: &LayerBlob) -> Result<()> {
        // What is made of an image's layer always has a level: only what came with the image has none.
        let level = match row.imported {
            true => Some(effective_level(format.compression, format.level)),
            false => format.level,
        };
        let variant = Variant { blob: blob.clone(), compression: Some(format.compression), level, clamp };
        self.store.database.write(|tx| {
            variant.insert(tx, row.id)?;
            let own = !row.imported && clamp.is_none();
            if own { set_diff_id(tx, row.id, &blob.diff_id) } else { Ok(()) }
        })
    }
}

/// Hashes an archive, compresses it and writes it to the content store.
struct LayerOutput<'a> {
    /// None where the blob is the archive, and the content store hashes it anyway.
    digester: Option<Digester>,
    compressor: Compressor<Watched<'a>>,
    options: DiffOptions<'a>,
}

impl<'a> LayerOutput<'a> {
    fn new(
        content: &ContentStore,
        format: &LayerFormat,
        options: &DiffOptions<'a>,
        lease: &Lease,
    ) -> Result<Self> {
        let output = Watched::new(content.ingest(None, lease)?, options.watcher);
        let compressor = Compressor::new(output, format.compression, format.level, format.threads());
        let digester = (format.compression != Compression::Uncompressed).then(Digester::new);
        Ok(Self { digester, compressor: compressor.map_err(write_error)?, options: *options })
    }

    /// Ends the blob and keeps it.
    fn finish(self, format: &LayerFormat) -> Result<LayerBlob> {
        let ingest = self.compressor.finish().map_err(write_error)?.ingest;
        let size = ingest.offset();
        let digest = ingest.commit()?;
        let media_type = layer_media_type(format.compression, format.oci);
        let diff_id = self.digester.map_or(digest, Digester::finish);
        Ok(LayerBlob { descriptor: Descriptor::new(media_type, digest, size), diff_id })
    }
}

impl Write for LayerOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Compressing is what takes long, also where there is only one large file.
        if self.options.is_cancelled() {
            return Err(io::Error::other(StoreError::Cancelled));
        }
        self.compressor.write_all(bytes)?;
        if let Some(digester) = &mut self.digester {
            digester.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob that is being written, with who wants to know how far it is.
struct Watched<'a> {
    ingest: Ingest,
    watcher: Option<&'a dyn BlobWatcher>,
}

impl<'a> Watched<'a> {
    fn new(ingest: Ingest, watcher: Option<&'a dyn BlobWatcher>) -> Self {
        let file = watcher.and_then(|_| ingest.file().try_clone().ok());
        // Without a handle there is nothing to read from.
        let watcher = watcher.filter(|_| file.is_some());
        if let (Some(watcher), Some(file)) = (watcher, file) {
            watcher.begun(file);
        }
        Self { ingest, watcher }
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.ingest.write(bytes)?;
        if let Some(watcher) = self.watcher {
            watcher.written(self.ingest.offset());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_error(error: io::Error) -> StoreError {
    match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(error) => StoreError::io("write the layer's blob in", "ingest")(error),
    }
}
