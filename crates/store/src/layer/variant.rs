//! The blobs that a snapshot's layer has: one archive, several compressions; or archives that differ in
//! their timestamps only.

use rusqlite::{Connection, Transaction, params};
use slipway_model::solve::Compression;
use slipway_model::{Descriptor, Digest};

use super::layer_compression;
use crate::db;
use crate::error::{Result, StoreError};
use crate::snapshot::{LayerBlob, SnapshotId};

/// A blob of a snapshot's layer and how it was made.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) blob: LayerBlob,
    /// `None` where the media type does not say.
    pub(crate) compression: Option<Compression>,
    /// What was asked for; of conversions of an image's layer what was used, so that the original, which has
    /// none, can be told from them.
    pub(crate) level: Option<i32>,
    /// The latest time that entries were given, see `DiffOptions::clamp_mtime`.
    pub(crate) clamp: Option<i64>,
}

impl Variant {
    /// The blob of a layer that came with an image.
    pub(crate) fn imported(layer: &LayerBlob) -> Self {
        let compression = layer_compression(&layer.descriptor.media_type);
        Self { blob: layer.clone(), compression, level: None, clamp: None }
    }

    /// Tells whether an image's layer came in this form.
    pub(crate) fn is_original(&self) -> bool {
        self.level.is_none()
    }

    pub(crate) fn insert(&self, tx: &Transaction<'_>, id: SnapshotId) -> Result<()> {
        let digest = self.blob.descriptor.digest;
        let descriptor = serde_json::to_string(&self.blob.descriptor)
            .map_err(|error| StoreError::InvalidImage(digest, error))?;
        let compression = self.compression.map_or(-1, row);
        // What is known stays: it may carry annotations that this one does not.
        tx.prepare_cached("INSERT OR IGNORE INTO layer_blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
            params![
                id.row(),
                digest.as_bytes(),
                self.blob.diff_id.as_bytes(),
                compression,
                self.level,
                self.clamp,
                descriptor
            ],
        )?;
        Ok(())
    }

    pub(crate) fn list(connection: &Connection, id: SnapshotId) -> Result<Vec<Self>> {
        let query = "SELECT diff_id, compression, level, clamp, descriptor FROM layer_blobs
            WHERE snapshot = ?1 ORDER BY level IS NOT NULL, digest";
        let mut query = connection.prepare_cached(query)?;
        let mut rows = query.query([id.row()])?;
        let mut variants = Vec::new();
        while let Some(row) = rows.next()? {
            let diff_id: Vec<u8> = row.get(0)?;
            let descriptor: Descriptor = serde_json::from_str(&row.get::<_, String>(4)?)
                .map_err(|error| StoreError::DamagedRecord { what: format!("layer blob: {error}") })?;
            variants.push(Self {
                blob: LayerBlob { descriptor, diff_id: db::digest_from(&diff_id)? },
                compression: compression(row.get(1)?),
                level: row.get(2)?,
                clamp: row.get(3)?,
            });
        }
        Ok(variants)
    }

    /// Copies the blobs of one snapshot's layer to another that has the same layer.
    pub(crate) fn copy_all(tx: &Transaction<'_>, from: SnapshotId, to: SnapshotId) -> Result<()> {
        let copy = "INSERT OR IGNORE INTO layer_blobs
            SELECT ?2, digest, diff_id, compression, level, clamp, descriptor FROM layer_blobs WHERE snapshot = ?1";
        tx.prepare_cached(copy)?.execute(params![from.row(), to.row()])?;
        Ok(())
    }

    /// Lists the digests of all blobs of a snapshot.
    pub(crate) fn digests(connection: &Connection, id: SnapshotId) -> Result<Vec<Digest>> {
        let mut query = connection.prepare_cached("SELECT digest FROM layer_blobs WHERE snapshot = ?1")?;
        let digests = query.query_map([id.row()], |row| row.get::<_, [u8; 32]>(0))?;
        Ok(digests.map(|bytes| bytes.map(Digest::from_sha256)).collect::<Result<_, _>>()?)
    }
}

const fn row(compression: Compression) -> i64 {
    match compression {
        Compression::Uncompressed => 0,
        Compression::Gzip => 1,
        Compression::Zstd => 2,
    }
}

const fn compression(row: i64) -> Option<Compression> {
    match row {
        0 => Some(Compression::Uncompressed),
        1 => Some(Compression::Gzip),
        2 => Some(Compression::Zstd),
        _ => None,
    }
}
