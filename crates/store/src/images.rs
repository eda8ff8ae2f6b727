//! Named images, kept until their name is removed.
//!
//! A name holds the blobs that its index or manifest leads to, as far as they are in the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{OptionalExtension as _, Row, params};
use slipway_model::{Descriptor, Digest, ImageIndex, Manifest, MediaType};

use crate::content::ContentStore;
use crate::db;
use crate::error::{Result, StoreError};
use crate::store::Inner;

/// The largest index or manifest that is read; registries refuse more than this.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Gives access to the named images.
#[derive(Clone, Debug)]
pub struct Images {
    store: Arc<Inner>,
}

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    pub name: String,
    pub descriptor: Descriptor,
    pub created_at: SystemTime,
    pub updated_at: SystemTime,
}

impl Images {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self { store }
    }

    /// Gives `name` to the index or manifest, which must be in the content store.
    ///
    /// Its documents are flushed to the disk first; its layers, which can be had again, are not.
    pub fn put(&self, name: &str, descriptor: &Descriptor) -> Result<()> {
        if self.get(name)?.is_some_and(|image| image.descriptor == *descriptor) {
            return Ok(());
        }
        let (documents, blobs) = self.reachable(descriptor)?;
        for document in &documents {
            let path = self.store.layout.blob(document);
            std::fs::File::open(&path)
                .and_then(|file| file.sync_data())
                .map_err(StoreError::io("flush the blob", &path))?;
        }
        let text = serde_json::to_string(descriptor)
            .map_err(|error| StoreError::InvalidImage(descriptor.digest, error))?;
        self.store.database.write(|tx| {
            let upsert = "INSERT INTO images VALUES (?1, ?2, ?3, ?3) ON CONFLICT (name)
                DO UPDATE SET descriptor = excluded.descriptor, updated_at = excluded.updated_at";
            tx.execute(upsert, params![name, text, db::now()])?;
            tx.execute("DELETE FROM image_blobs WHERE name = ?1", [name])?;
            let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO image_blobs VALUES (?1, ?2)")?;
            for digest in &blobs {
                insert.execute(params![name, digest.as_bytes()])?;
            }
            Ok(())
        })
    }

    /// Returns what `name` stands for.
    pub fn get(&self, name: &str) -> Result<Option<NamedImage>> {
        self.store.database.read(|connection| {
            let query = "SELECT name, descriptor, created_at, updated_at FROM images WHERE name = ?1";
            let row = connection.prepare_cached(query)?.query_row([name], columns).optional()?;
            row.map(parse).transpose()
        })
    }

    /// Lists all names, in order.
    pub fn list(&self) -> Result<Vec<NamedImage>> {
        self.store.database.read(|connection| {
            let query = "SELECT name, descriptor, created_at, updated_at FROM images ORDER BY name";
            let mut query = connection.prepare_cached(query)?;
            let rows = query.query_map([], columns)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(parse).collect()
        })
    }

    /// Removes a name; tells whether it was there. Blobs are left to the garbage collection.
    pub fn remove(&self, name: &str) -> Result<bool> {
        self.store.database.write(|tx| {
            tx.execute("DELETE FROM image_blobs WHERE name = ?1", [name])?;
            Ok(tx.execute("DELETE FROM images WHERE name = ?1", [name])? > 0)
        })
    }

    /// Collects the documents below `root` that are in the store, and all blobs they lead to.
    fn reachable(&self, root: &Descriptor) -> Result<(BTreeSet<Digest>, BTreeSet<Digest>)> {
        let content = ContentStore::new(Arc::clone(&self.store));
        let (mut documents, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        let mut queue = vec![root.clone()];
        while let Some(descriptor) = queue.pop() {
            let digest = descriptor.digest;
            if !blobs.insert(digest) || content.contains(&digest)?.is_none() {
                continue;
            }
            let invalid = |error| StoreError::InvalidImage(digest, error);
            if MediaType::is_index(&descriptor.media_type) {
                documents.insert(digest);
                let bytes = content.read(&digest, DOCUMENT_LIMIT)?;
                queue.extend(serde_json::from_slice::<ImageIndex>(&bytes).map_err(invalid)?.manifests);
            } else if MediaType::is_manifest(&descriptor.media_type) {
                documents.insert(digest);
                let bytes = content.read(&digest, DOCUMENT_LIMIT)?;
                let manifest: Manifest = serde_json::from_slice(&bytes).map_err(invalid)?;
                if content.contains(&manifest.config.digest)?.is_some() {
                    documents.insert(manifest.config.digest);
                }
                blobs.insert(manifest.config.digest);
                blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        Ok((documents, blobs))
    }
}

type Columns = (String, String, i64, i64);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn parse((name, descriptor, created_at, updated_at): Columns) -> Result<NamedImage> {
    let descriptor = serde_json::from_str(&descriptor)
        .map_err(|error| StoreError::DamagedRecord { what: format!("image `{name}`: {error}") })?;
    let (created_at, updated_at) = (db::from_millis(created_at), db::from_millis(updated_at));
    Ok(NamedImage { name, descriptor, created_at, updated_at })
}
