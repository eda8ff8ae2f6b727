//! The metadata database: SQLite in WAL mode, shared by processes.
//!
//! Owns connections, transactions and the schema; the meaning of the tables belongs to the modules that
//! use them. Readers never wait. Writers of one process queue on a mutex, because SQLite's own waiting is
//! polling; writers of several processes poll with short pauses. `synchronous=NORMAL`: a commit is not
//! flushed to the disk, so a power cut may lose the last ones but never damages the file. Transactions
//! are short and do no I/O but renames, which make a directory or a blob appear together with its row.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use slipway_model::Digest;

use crate::error::{Result, StoreError};
use crate::layout::Layout;
use crate::lock::{FileLock, Share};

const SCHEMA_VERSION: i64 = 1;

/// How many connections are kept for the next to come. More are open only while more are in use at once: each is
/// two open files and a cache of pages, and a daemon lives long.
const MAX_IDLE: usize = 8;

/// The length of the write-ahead log from which a checkpoint is worth its flush.
const CHECKPOINT_AT: u64 = 1 << 20;

const SCHEMA: &str = "
CREATE TABLE blobs (
    digest BLOB PRIMARY KEY, size INTEGER NOT NULL,
    created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE lease_items (
    lease TEXT NOT NULL, kind INTEGER NOT NULL, item BLOB NOT NULL, PRIMARY KEY (lease, kind, item)
) WITHOUT ROWID;
CREATE INDEX lease_items_by_item ON lease_items (kind, item);
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER, source INTEGER, dir TEXT, pending TEXT, pending_implied BLOB,
    diff_id BLOB, chain_id BLOB, description TEXT NOT NULL, kind INTEGER NOT NULL,
    imported INTEGER NOT NULL, portable INTEGER NOT NULL,
    created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL, use_count INTEGER NOT NULL DEFAULT 0,
    size INTEGER
);
CREATE INDEX snapshots_by_parent ON snapshots (parent) WHERE parent IS NOT NULL;
CREATE INDEX snapshots_by_source ON snapshots (source) WHERE source IS NOT NULL;
CREATE INDEX snapshots_by_chain ON snapshots (chain_id) WHERE chain_id IS NOT NULL;
CREATE INDEX snapshots_by_diff ON snapshots (diff_id) WHERE diff_id IS NOT NULL;
CREATE INDEX snapshots_by_dir ON snapshots (dir) WHERE dir IS NOT NULL;
CREATE TABLE layer_blobs (
    snapshot INTEGER NOT NULL, digest BLOB NOT NULL, diff_id BLOB NOT NULL, compression INTEGER NOT NULL,
    level INTEGER, clamp INTEGER, descriptor TEXT NOT NULL, PRIMARY KEY (snapshot, digest)
) WITHOUT ROWID;
CREATE INDEX layer_blobs_by_digest ON layer_blobs (digest);
CREATE TABLE cache_keys (key BLOB PRIMARY KEY, canonical BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX cache_keys_by_canonical ON cache_keys (canonical);
CREATE TABLE cache_records (canonical BLOB PRIMARY KEY, payload BLOB NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE cache_snapshots (
    canonical BLOB NOT NULL, position INTEGER NOT NULL, snapshot INTEGER NOT NULL,
    PRIMARY KEY (canonical, position)
) WITHOUT ROWID;
CREATE INDEX cache_snapshots_by_snapshot ON cache_snapshots (snapshot);
CREATE TABLE kv (
    namespace TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE TABLE images (
    name TEXT PRIMARY KEY, descriptor TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE image_blobs (name TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (name, digest)) WITHOUT ROWID;
CREATE INDEX image_blobs_by_digest ON image_blobs (digest);
CREATE TABLE cache_mounts (
    dir TEXT PRIMARY KEY, id TEXT NOT NULL, instance INTEGER NOT NULL,
    created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL, use_count INTEGER NOT NULL, size INTEGER
) WITHOUT ROWID;
";

/// Gives connections to the metadata database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    writer: Mutex<()>,
}

impl Database {
    /// Opens the database, making it or bringing its schema up to date where needed.
    pub(crate) fn open(layout: &Layout) -> Result<Self> {
        let path = layout.database();
        let connection = connect(&path)?;
        if schema_version(&connection)? != SCHEMA_VERSION {
            let _lock = FileLock::wait(&layout.lock("schema"), Share::Exclusive)?;
            migrate(&connection, &path)?;
        }
        Ok(Self { path, idle: Mutex::new(vec![connection]), writer: Mutex::new(()) })
    }

    /// Runs `work` on a connection, outside any transaction.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.take()?;
        let result = work(&connection);
        self.give_back(connection);
        result
    }

    /// Runs `work` in a write transaction, which is committed unless `work` fails.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let _turn = lock(&self.writer);
        let mut connection = self.take()?;
        let result = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        self.give_back(connection);
        result
    }

    /// Copies the write-ahead log into the database file, as far as readers allow, once it is long enough
    /// to make opening slow. Not more often: the first commit afterwards has to flush the new log.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let log = self.path.with_extension("db-wal");
        if std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() < CHECKPOINT_AT) {
            return Ok(());
        }
        let _turn = lock(&self.writer);
        self.read(|connection| Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?))
    }

    fn take(&self) -> Result<Connection> {
        let idle = lock(&self.idle).pop();
        idle.map_or_else(|| connect(&self.path), Ok)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Neither mutex guards an invariant that a panic could break.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(pause))?;
    // The last process to leave would otherwise copy the log and flush it while its user waits.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Waits for another process's writer: 60 seconds in all, in steps of at most 5 ms.
fn pause(attempt: i32) -> bool {
    let micros = 50 * (u64::try_from(attempt).unwrap_or(0) + 1);
    std::thread::sleep(Duration::from_micros(micros.min(5_000)));
    attempt < 12_000
}

fn schema_version(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn migrate(connection: &Connection, path: &Path) -> Result<()> {
    match schema_version(connection)? {
        SCHEMA_VERSION => Ok(()),
        0 => {
            connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            ))?;
            Ok(())
        }
        found => Err(StoreError::NewerSchema { path: path.to_owned(), found, known: SCHEMA_VERSION }),
    }
}

/// Returns `time` as the database keeps it: milliseconds since 1970.
pub(crate) fn to_millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

/// Returns the time that the database keeps as `millis`.
pub(crate) fn from_millis(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Returns the present time as the database keeps it.
pub(crate) fn now() -> i64 {
    to_millis(SystemTime::now())
}

/// Reads a digest from a column that holds its 32 bytes.
pub(crate) fn digest_from(bytes: &[u8]) -> Result<Digest> {
    let bytes = <[u8; 32]>::try_from(bytes)
        .map_err(|_| StoreError::DamagedRecord { what: format!("a digest of {} bytes", bytes.len()) })?;
    Ok(Digest::from_sha256(bytes))
}

/// Reads a size, which is never negative.
pub(crate) fn size_from(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Returns a size as the database keeps it.
pub(crate) fn to_size(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        layout.create().unwrap();
        drop(Database::open(&layout).unwrap());
        Connection::open(layout.database()).unwrap().execute_batch("PRAGMA user_version=99").unwrap();
        let error = Database::open(&layout).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        layout.create().unwrap();
        let database = Database::open(&layout).unwrap();
        let failed: Result<()> = database.write(|tx| {
            tx.execute("INSERT INTO kv VALUES ('a', x'00', x'00', 1)", [])?;
            Err(StoreError::Cancelled)
        });
        assert!(failed.is_err());
        let rows: i64 =
            database.read(|c| Ok(c.query_row("SELECT count(*) FROM kv", [], |row| row.get(0))?)).unwrap();
        assert_eq!(rows, 0);
    }

    #[test]
    fn few_connections_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        layout.create().unwrap();
        let database = Database::open(&layout).unwrap();
        let all = std::sync::Barrier::new(2 * MAX_IDLE);
        std::thread::scope(|scope| {
            for _ in 0..2 * MAX_IDLE {
                scope.spawn(|| {
                    database.read(|_| {
                        all.wait();
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(lock(&database.idle).len(), MAX_IDLE);
    }

    #[test]
    fn times_round_trip() {
        for millis in [0, 1, 1_700_000_000_123, -5] {
            assert_eq!(to_millis(from_millis(millis)), millis);
        }
    }
}
