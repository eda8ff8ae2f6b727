//! The directories of `RUN --mount=type=cache`: they outlive the build.
//!
//! A directory is in use while its lock is held, which the kernel ends with the process. Its sharing
//! mode is just the way in which the lock is taken: *shared* users share it, a *locked* user waits to be
//! alone, a *private* user takes the first instance of the directory that nobody uses.
//!
//! A mount can be started anew: later users get another directory, those of now keep theirs to their end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::params;
use slipway_model::Digest;

use crate::db;
use crate::error::{Result, StoreError};
use crate::kv::KeyValues;
use crate::lease::Lease;
use crate::lock::{FileLock, Share};
use crate::store::Inner;

/// Begins the ids of mounts that are the git source's own, one for each remote; no Dockerfile can name one.
pub const GIT_REPOSITORY: &str = "\0git\0";

/// The key-value namespace of the directories that mounts were started anew with, by the mount's id.
const ANEW: &str = "cache-mount";

/// Which cache mount is meant.
#[derive(Clone, Copy, Debug)]
pub struct CacheMountName<'a> {
    pub id: &'a str,
    /// What the mount starts with: mounts of one id that start with other content are others.
    pub seed: Option<&'a Digest>,
}

impl<'a> From<&'a str> for CacheMountName<'a> {
    fn from(id: &'a str) -> Self {
        Self { id, seed: None }
    }
}

impl CacheMountName<'_> {
    /// The name under which the mount is listed.
    fn full(&self) -> String {
        match self.seed {
            Some(seed) => format!("{}:{}", self.id, seed.hex()),
            None => self.id.to_owned(),
        }
    }

    /// Tells whether a listed name is that of a mount with this id, whatever it starts with.
    fn has(id: &str, full: &str) -> bool {
        let is_seed = |rest: &str| {
            rest.strip_prefix(':').is_some_and(|seed| format!("sha256:{seed}").parse::<Digest>().is_ok())
        };
        full.strip_prefix(id).is_some_and(|rest| rest.is_empty() || is_seed(rest))
    }
}

/// Gives access to the cache mounts of a store.
#[derive(Clone, Debug)]
pub struct CacheMounts {
    store: Arc<Inner>,
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// A cache mount in use; dropping it ends the use.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    instance: u32,
    _lock: FileLock,
}

impl CacheMount {
    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns which of the instances of a private mount this is; 0 for the others.
    pub fn instance(&self) -> u32 {
        self.instance
    }
}

impl CacheMounts {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self { store }
    }

    /// Takes a cache mount into use, making it where needed: `fill` then gets the empty directory
    /// before anyone else sees it, to set its owner and mode and to put in what it starts with.
    ///
    /// Waits for other users as the sharing mode demands, asking `cancelled` meanwhile.
    pub fn acquire<'a>(
        &self,
        name: impl Into<CacheMountName<'a>>,
        sharing: Sharing,
        lease: &Lease,
        fill: &dyn Fn(&Path) -> Result<()>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<CacheMount> {
        let name = name.into();
        let (id, anew) =
            (name.full(), KeyValues::new(Arc::clone(&self.store)).get(ANEW, name.id.as_bytes())?);
        let anew = anew.map(|stamped| stamped.value).unwrap_or_default();
        for instance in 0.. {
            let dir = directory_name(&id, &anew, instance);
            let lock_path = self.store.layout.lock(&format!("cache-mount-{dir}"));
            let path = self.store.layout.cache_mounts().join(&dir);
            if !path.is_dir() {
                self.create(&lock_path, &path, lease, fill, cancelled)?;
            }
            let lock = match sharing {
                Sharing::Shared => FileLock::wait_unless(&lock_path, Share::Shared, cancelled)?,
                Sharing::Locked => FileLock::wait_unless(&lock_path, Share::Exclusive, cancelled)?,
                Sharing::Private => match FileLock::try_take(&lock_path, Share::Exclusive)? {
                    Some(lock) => lock,
                    None => continue,
                },
            };
            if !path.is_dir() {
                // A collection came in between.
                drop(lock);
                return self.acquire(name, sharing, lease, fill, cancelled);
            }
            self.record(&id, &dir, instance)?;
            return Ok(CacheMount { path, instance, _lock: lock });
        }
        unreachable!("the loop has no end")
    }

    /// Lets the mounts of an id start anew, and removes what nobody uses any more.
    pub fn start_anew(&self, id: &str, lease: &Lease) -> Result<()> {
        KeyValues::new(Arc::clone(&self.store)).put(ANEW, id.as_bytes(), lease.unique_name().as_bytes())?;
        let known: Vec<(String, String)> = self.store.database.read(|connection| {
            let mut query = connection.prepare_cached("SELECT dir, id FROM cache_mounts")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        for (dir, _) in known.into_iter().filter(|(_, full)| CacheMountName::has(id, full)) {
            crate::prune::remove_cache_mount(&self.store, &dir)?;
        }
        Ok(())
    }

    fn create(
        &self,
        lock_path: &Path,
        path: &Path,
        lease: &Lease,
        fill: &dyn Fn(&Path) -> Result<()>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        // Whoever made it meanwhile may be using it, and may be waiting for us.
        let given_up = || path.is_dir() || cancelled();
        let _lock = match FileLock::wait_unless(lock_path, Share::Exclusive, &given_up) {
            Err(StoreError::Cancelled) if path.is_dir() => return Ok(()),
            taken => taken?,
        };
        if path.is_dir() {
            return Ok(());
        }
        let fresh = self.store.layout.ingest().join(lease.unique_name());
        std::fs::create_dir(&fresh).map_err(StoreError::io("create the directory", &fresh))?;
        let filled = fill(&fresh).and_then(|()| {
            std::fs::rename(&fresh, path).map_err(StoreError::io("create the cache mount", path))
        });
        if filled.is_err() {
            let _ = crate::tree::remove(&fresh);
        }
        filled
    }

    fn record(&self, id: &str, dir: &str, instance: u32) -> Result<()> {
        self.store.database.write(|tx| {
            let upsert = "INSERT INTO cache_mounts VALUES (?1, ?2, ?3, ?4, ?4, 1, NULL) ON CONFLICT (dir)
                DO UPDATE SET last_used_at = excluded.last_used_at, use_count = use_count + 1, size = NULL";
            tx.prepare_cached(upsert)?.execute(params![dir, id, instance, db::now()])?;
            Ok(())
        })
    }
}

/// The id may hold anything, so the directory is named by its hash, and by what it was started anew with.
fn directory_name(id: &str, anew: &[u8], instance: u32) -> String {
    let hash = Digest::of([id.as_bytes(), anew].concat()).hex();
    format!("{}.{instance}", &hash[..32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn sharing_modes() {
        let scratch = Scratch::new();
        let (mounts, lease) = (scratch.store.cache_mounts(), scratch.store.lease().unwrap());
        let take = |sharing| mounts.acquire("go", sharing, &lease, &|_| Ok(()), &|| true);
        let first = take(Sharing::Shared).unwrap();
        let second = take(Sharing::Shared).unwrap();
        assert_eq!(first.path(), second.path());
        assert!(matches!(take(Sharing::Locked), Err(StoreError::Cancelled)));
        let private = take(Sharing::Private).unwrap();
        assert_eq!((private.instance(), take(Sharing::Private).unwrap().instance()), (1, 2));
        drop((first, second));
        let locked = take(Sharing::Locked).unwrap();
        assert!(matches!(take(Sharing::Shared), Err(StoreError::Cancelled)));
        std::fs::write(locked.path().join("kept"), b"x").unwrap();
        drop(locked);
        assert!(take(Sharing::Shared).unwrap().path().join("kept").exists());
    }

    #[test]
    fn a_mount_that_another_makes_and_uses_is_not_waited_for() {
        let scratch = Scratch::new();
        let (mounts, lease) = (scratch.store.cache_mounts(), scratch.store.lease().unwrap());
        let used = mounts.acquire("a", Sharing::Shared, &lease, &|_| Ok(()), &|| true).unwrap();
        let lock = scratch
            .store
            .cache_mounts()
            .store
            .layout
            .lock(&format!("cache-mount-{}", used.path().file_name().unwrap().to_string_lossy()));
        // As one who found no directory, a moment before it was there.
        mounts.create(&lock, used.path(), &lease, &|_| Ok(()), &|| true).unwrap();
    }

    #[test]
    fn a_mount_that_starts_anew_is_empty_and_disturbs_nobody() {
        let scratch = Scratch::new();
        let (mounts, lease) = (scratch.store.cache_mounts(), scratch.store.lease().unwrap());
        let take = |name: CacheMountName<'_>| {
            let mount = mounts.acquire(name, Sharing::Shared, &lease, &|_| Ok(()), &|| true).unwrap();
            std::fs::write(mount.path().join("kept"), b"x").unwrap();
            mount
        };
        let seed = Digest::of("seed");
        let used = take("a".into());
        let seeded = take(CacheMountName { id: "a", seed: Some(&seed) }).path().to_owned();
        let other = take("a:b".into()).path().to_owned();
        mounts.start_anew("a", &lease).unwrap();
        let anew = mounts.acquire("a", Sharing::Locked, &lease, &|_| Ok(()), &|| true).unwrap();
        assert!(!anew.path().join("kept").exists());
        assert!(used.path().join("kept").exists(), "what is in use stays");
        assert!(!seeded.exists(), "what nobody uses is gone");
        assert!(other.join("kept").exists());
        // The next one finds what this one left.
        std::fs::write(anew.path().join("new"), b"x").unwrap();
        drop(anew);
        assert!(take("a".into()).path().join("new").exists());
    }

    #[test]
    fn a_failed_fill_leaves_nothing() {
        let scratch = Scratch::new();
        let (mounts, lease) = (scratch.store.cache_mounts(), scratch.store.lease().unwrap());
        let failing =
            mounts.acquire("a", Sharing::Shared, &lease, &|_| Err(StoreError::Cancelled), &|| false);
        assert!(failing.is_err());
        let fill =
            |path: &Path| std::fs::write(path.join("seed"), b"s").map_err(StoreError::io("write", path));
        let mount = mounts.acquire("a", Sharing::Shared, &lease, &fill, &|| false).unwrap();
        assert!(mount.path().join("seed").exists());
    }
}
