//! Small values kept between runs, with the time they were written: the caches of other crates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension as _, params};

use crate::db;
use crate::error::Result;
use crate::store::Inner;

/// Gives access to small values by namespace and key.
#[derive(Clone, Debug)]
pub struct KeyValues {
    store: Arc<Inner>,
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    pub value: Vec<u8>,
    pub updated_at: SystemTime,
}

impl KeyValues {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self { store }
    }

    /// Returns the value, however old.
    pub fn get(&self, namespace: &str, key: &[u8]) -> Result<Option<Stamped>> {
        self.store.database.read(|connection| {
            let query = "SELECT value, updated_at FROM kv WHERE namespace = ?1 AND key = ?2";
            let found = connection.prepare_cached(query)?.query_row(params![namespace, key], |row| {
                Ok(Stamped { value: row.get(0)?, updated_at: db::from_millis(row.get(1)?) })
            });
            Ok(found.optional()?)
        })
    }

    /// Returns the value if it was written less than `lifetime` before `now`.
    pub fn get_fresh(
        &self,
        namespace: &str,
        key: &[u8],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Option<Vec<u8>>> {
        // A value from the future was written before the clock was set back: not fresh.
        let fresh =
            |stamped: &Stamped| now.duration_since(stamped.updated_at).is_ok_and(|age| age < lifetime);
        Ok(self.get(namespace, key)?.filter(fresh).map(|stamped| stamped.value))
    }

    /// Keeps a value, replacing an earlier one.
    pub fn put(&self, namespace: &str, key: &[u8], value: &[u8]) -> Result<()> {
        self.put_all(namespace, &[(key, value)])
    }

    /// Keeps several values in one transaction.
    pub fn put_all(&self, namespace: &str, values: &[(&[u8], &[u8])]) -> Result<()> {
        let now = db::now();
        self.store.database.write(|tx| {
            let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO kv VALUES (?1, ?2, ?3, ?4)")?;
            for (key, value) in values {
                insert.execute(params![namespace, key, value, now])?;
            }
            Ok(())
        })
    }

    /// Removes a value; missing is fine.
    pub fn remove(&self, namespace: &str, key: &[u8]) -> Result<()> {
        self.store.database.write(|tx| {
            tx.execute("DELETE FROM kv WHERE namespace = ?1 AND key = ?2", params![namespace, key])?;
            Ok(())
        })
    }

    /// Lists the keys and values of a namespace, in order of key.
    pub fn list(&self, namespace: &str) -> Result<Vec<(Vec<u8>, Stamped)>> {
        self.store.database.read(|connection| {
            let query = "SELECT key, value, updated_at FROM kv WHERE namespace = ?1 ORDER BY key";
            let mut query = connection.prepare_cached(query)?;
            let rows = query.query_map([namespace], |row| {
                let stamped = Stamped { value: row.get(1)?, updated_at: db::from_millis(row.get(2)?) };
                Ok((row.get(0)?, stamped))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Removes what was written before `deadline`.
    pub fn remove_older(&self, namespace: &str, deadline: SystemTime) -> Result<()> {
        self.store.database.write(|tx| {
            let delete = "DELETE FROM kv WHERE namespace = ?1 AND updated_at < ?2";
            tx.execute(delete, params![namespace, db::to_millis(deadline)])?;
            Ok(())
        })
    }
}
