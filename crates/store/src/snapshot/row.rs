//! The rows of the table `snapshots`.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use slipway_model::Digest;

use super::{CommitInfo, SnapshotId, SnapshotInfo, SnapshotKind, SnapshotState, chain_id};
use crate::db;
use crate::error::{Result, StoreError};

/// One row of the table `snapshots`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: SnapshotId,
    pub(crate) parent: Option<SnapshotId>,
    /// The snapshot whose diff this is too: a layer that was put onto another parent.
    pub(crate) source: Option<SnapshotId>,
    pub(crate) dir: Option<String>,
    /// The directory of a layer that is extracted but still needs its parent, see `unpack`.
    pub(crate) pending: Option<String>,
    pub(crate) pending_implied: Option<Vec<u8>>,
    pub(crate) diff_id: Option<Digest>,
    pub(crate) chain_id: Option<Digest>,
    pub(crate) description: String,
    pub(crate) kind: SnapshotKind,
    pub(crate) imported: bool,
    /// The directory serves over any parent.
    pub(crate) portable: bool,
    pub(crate) created_at: i64,
    pub(crate) last_used_at: i64,
    pub(crate) use_count: i64,
    pub(crate) size: Option<i64>,
}

const COLUMNS: &str =
    "id, parent, source, dir, pending, pending_implied, diff_id, chain_id, description, kind,
    imported, portable, created_at, last_used_at, use_count, size";

impl Row {
    /// A row that is not yet in the table.
    pub(crate) fn new(parent: Option<SnapshotId>, info: &CommitInfo) -> Self {
        let now = db::now();
        Self {
            id: SnapshotId::from_row(0),
            parent,
            source: None,
            dir: None,
            pending: None,
            pending_implied: None,
            diff_id: None,
            chain_id: None,
            description: info.description.clone(),
            kind: info.kind,
            imported: false,
            portable: false,
            created_at: info.created_at.map_or(now, db::to_millis),
            last_used_at: now,
            use_count: 1,
            size: None,
        }
    }

    /// Inserts the row under a new id.
    pub(crate) fn insert(&self, tx: &Transaction<'_>) -> Result<SnapshotId> {
        let insert =
            "INSERT INTO snapshots (parent, source, dir, diff_id, chain_id, description, kind, imported,
            portable, created_at, last_used_at, use_count)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        tx.prepare_cached(insert)?.execute(params![
            self.parent.map(SnapshotId::row),
            self.source.map(SnapshotId::row),
            self.dir,
            self.diff_id.as_ref().map(Digest::as_bytes),
            self.chain_id.as_ref().map(Digest::as_bytes),
            self.description,
            self.kind.row(),
            self.imported,
            self.portable,
            self.created_at,
            self.last_used_at,
            self.use_count,
        ])?;
        Ok(SnapshotId::from_row(tx.last_insert_rowid()))
    }

    pub(crate) fn into_info(self) -> SnapshotInfo {
        SnapshotInfo {
            id: self.id,
            parent: self.parent,
            state: if self.dir.is_some() { SnapshotState::Ready } else { SnapshotState::Lazy },
            diff_id: self.diff_id,
            chain_id: self.chain_id,
            imported: self.imported,
            description: self.description,
            kind: self.kind,
            created_at: db::from_millis(self.created_at),
            last_used_at: db::from_millis(self.last_used_at),
            use_count: db::size_from(self.use_count),
            size: self.size.map(db::size_from),
        }
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let id =
            |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(SnapshotId::from_row));
        let digest = |index| {
            let bytes: Option<[u8; 32]> = row.get(index)?;
            Ok::<_, rusqlite::Error>(bytes.map(Digest::from_sha256))
        };
        Ok(Self {
            id: SnapshotId::from_row(row.get(0)?),
            parent: id(1)?,
            source: id(2)?,
            dir: row.get(3)?,
            pending: row.get(4)?,
            pending_implied: row.get(5)?,
            diff_id: digest(6)?,
            chain_id: digest(7)?,
            description: row.get(8)?,
            kind: SnapshotKind::from_row(row.get(9)?),
            imported: row.get(10)?,
            portable: row.get(11)?,
            created_at: row.get(12)?,
            last_used_at: row.get(13)?,
            use_count: row.get(14)?,
            size: row.get(15)?,
        })
    }
}

/// Returns the row, which must be there.
pub(crate) fn require(connection: &Connection, id: SnapshotId) -> Result<Row> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshots WHERE id = ?1"))?;
    query.query_row([id.row()], Row::read).optional()?.ok_or(StoreError::SnapshotMissing(id))
}

/// Returns all rows, oldest first.
pub(crate) fn all(connection: &Connection) -> Result<Vec<Row>> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshots ORDER BY id"))?;
    let rows = query.query_map([], Row::read)?.collect::<Result<_, _>>()?;
    Ok(rows)
}

/// Records the diff id of a snapshot, and the chain ids that follow from it, its descendants' too.
pub(crate) fn set_diff_id(tx: &Transaction<'_>, id: SnapshotId, diff_id: &Digest) -> Result<()> {
    tx.prepare_cached("UPDATE snapshots SET diff_id = ?2 WHERE id = ?1")?
        .execute(params![id.row(), diff_id.as_bytes()])?;
    let mut queue = vec![id];
    while let Some(id) = queue.pop() {
        let row = require(tx, id)?;
        let parent_chain = match row.parent {
            None => Some(None),
            Some(parent) => require(tx, parent)?.chain_id.map(Some),
        };
        let (Some(parent_chain), Some(diff_id)) = (parent_chain, row.diff_id) else { continue };
        let chain = chain_id(parent_chain.as_ref(), &diff_id);
        if row.chain_id == Some(chain) {
            continue;
        }
        tx.prepare_cached("UPDATE snapshots SET chain_id = ?2 WHERE id = ?1")?
            .execute(params![id.row(), chain.as_bytes()])?;
        queue.extend(children(tx, id)?);
    }
    Ok(())
}

/// Returns the snapshots whose parent is `id`.
pub(crate) fn children(connection: &Connection, id: SnapshotId) -> Result<Vec<SnapshotId>> {
    let mut query = connection.prepare_cached("SELECT id FROM snapshots WHERE parent = ?1")?;
    let ids = query.query_map([id.row()], |row| Ok(SnapshotId::from_row(row.get(0)?)))?;
    Ok(ids.collect::<Result<_, _>>()?)
}
