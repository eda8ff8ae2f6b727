//! Mirrors: directories of the state in which clients' directories are kept between builds.
//!
//! A mirror belongs to a key (who sends it, and what), so the next build of the same client finds nearly
//! everything there. It is locked while a build uses it, because the build reads it in place; a second build
//! with the same key at the same time gets another mirror. Mirrors that were not used for long are removed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};
use slipway_model::{Diagnostic, Digest};
use slipway_store::{Lease, Store};
use tokio::sync::OnceCell;

use super::record::Record;
use super::{Fetched, LocalDirectory};
use crate::error::{Context as _, blocking, internal};

/// Where mirrors are, below the state directory.
const DIRECTORY: &str = "mirrors";
/// How many builds of one key can be under way at once.
const MAX_SLOTS: u32 = 1000;
/// How long a mirror stays that nobody uses.
const IDLE: Duration = Duration::from_secs(48 * 3600);

/// A directory that is kept between builds, locked from the first use.
pub struct MirrorDirectory {
    store: Store,
    lease: Lease,
    key: Digest,
    locked: OnceCell<Locked>,
    transferred: Transferred,
}

/// Is told how many bytes came, each time that some did.
pub type Transferred = Arc<dyn Fn(u64) + Send + Sync>;

/// A mirror that nobody else writes to while this lives.
#[derive(Debug)]
pub(crate) struct Locked {
    path: PathBuf,
    record: Arc<Record>,
    /// The list that was found, for the transfer that asks first.
    list: Mutex<Option<Vec<u8>>>,
    lock: Arc<OwnedFd>,
}

impl MirrorDirectory {
    pub(crate) fn new(store: Store, lease: Lease, key: Digest, transferred: Transferred) -> Self {
        Self { store, lease, key, locked: OnceCell::new(), transferred }
    }

    /// Returns whom to tell of the bytes that come.
    pub fn transferred(&self) -> Transferred {
        self.transferred.clone()
    }

    /// Returns the directory, which exists and is this build's alone.
    pub async fn path(&self) -> Result<&Path, Diagnostic> {
        let (state, key) = (self.store.root().join(DIRECTORY), self.key);
        let locked = self.locked.get_or_try_init(|| blocking(move || lock(&state, &key))).await?;
        Ok(&locked.path)
    }

    /// Keeps what was brought up to date, and lets go of the build that asked for it.
    pub(crate) fn keep(self, directory: LocalDirectory) -> Fetched {
        Fetched { directory, mirror: self.locked.into_inner() }
    }

    /// Gives the list of the transfer that left the directory as it is, if there is one; once.
    pub fn take_list(&self) -> Option<Vec<u8>> {
        self.locked.get()?.list.lock().take()
    }

    /// Returns what is to be called before the directory is changed. Whoever has it has the directory, too: a transfer
    /// that nobody waits for any more may still write.
    pub fn changing(&self) -> impl Fn() -> std::io::Result<()> + Send + use<> {
        let held = self.locked.get().map(|locked| (locked.record.clone(), locked.lock.clone()));
        move || held.as_ref().map_or(Ok(()), |(record, _lock)| record.forget())
    }

    /// Keeps the list of what the directory holds now.
    pub fn keep_list(&self, list: &[u8]) {
        if let Some(locked) = self.locked.get() {
            locked.keep(|record| record.keep(list));
        }
    }

    /// Makes an empty directory that goes away with the build, for what cannot be kept up to date.
    pub fn temporary(&self) -> Result<PathBuf, Diagnostic> {
        self.store.temporary_directory(&self.lease).diagnose()
    }
}

impl Locked {
    /// Finds what a selection of the directory as it is was computed to be.
    pub(crate) fn digest(&self, selection: &Digest) -> Option<Digest> {
        self.record.digest(selection)
    }

    /// Keeps what a selection of the directory as it is was computed to be.
    pub(crate) fn keep_digest(&self, selection: Digest, digest: Digest) {
        self.keep(|record| record.keep_digest(selection, digest));
    }

    /// Without a record the next build is slower, no more.
    fn keep(&self, write: impl FnOnce(&Record) -> std::io::Result<()>) {
        if let Err(error) = write(&self.record) {
            tracing::warn!(%error, mirror = %self.path.display(), "could not keep what a mirror holds");
        }
    }
}

fn lock(state: &Path, key: &Digest) -> Result<Locked, Diagnostic> {
    let doing = || format!("cannot make a mirror in `{}`", state.display());
    std::fs::create_dir_all(state).context(doing)?;
    for slot in 0..MAX_SLOTS {
        let name = format!("{}-{slot}", &key.hex()[..32]);
        let Some(lock) = try_lock(&state.join(format!("{name}.lock"))).context(doing)? else { continue };
        let path = state.join(&name);
        std::fs::create_dir_all(&path).context(doing)?;
        let (record, list) = Record::open(state.join(format!("{name}.list")), &path).context(doing)?;
        return Ok(Locked { path, record: Arc::new(record), list: Mutex::new(list), lock: Arc::new(lock) });
    }
    Err(internal(format!("all {MAX_SLOTS} mirrors of one directory are in use")))
}

/// Takes a lock file; `None` if somebody else has it.
fn try_lock(path: &Path) -> std::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // The collector may have removed the file between the two calls; a lock on it would lock nothing.
    let there = rustix::fs::stat(path).is_ok_and(|now| {
        rustix::fs::fstat(&file).is_ok_and(|ours| (ours.st_dev, ours.st_ino) == (now.st_dev, now.st_ino))
    });
    if !there {
        return Ok(None);
    }
    // Says when the mirror was last used.
    let _ = rustix::fs::futimens(&file, &now());
    Ok(Some(file))
}

fn now() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::Timestamps { last_access: now, last_modification: now }
}

/// Removes the mirrors that were not used for long.
pub(crate) fn collect(state: &Path) {
    let Ok(entries) = std::fs::read_dir(state.join(DIRECTORY)) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let used = entry.metadata().and_then(|metadata| metadata.modified());
        let idle = used.is_ok_and(|used| SystemTime::now().duration_since(used).is_ok_and(|age| age > IDLE));
        if let (true, Ok(Some(_lock))) = (idle, try_lock(&path)) {
            let _ = std::fs::remove_file(path.with_extension("list"));
            let _ = std::fs::remove_dir_all(path.with_extension(""));
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mirror_in_use_is_left_alone_and_used_again_later() {
        let state = std::env::temp_dir().join(format!("slipway-mirror-{}", std::process::id()));
        let store = Store::open(&state).unwrap();
        let lease = store.lease().unwrap();
        let key = Digest::of("a client's context");
        let mirror = || MirrorDirectory::new(store.clone(), lease.clone(), key, Arc::new(|_| ()));
        let first = mirror();
        let path = first.path().await.unwrap().to_owned();
        assert!(path.starts_with(state.join(DIRECTORY)));
        std::fs::write(path.join("kept"), "x").unwrap();
        let second = mirror();
        assert_ne!(second.path().await.unwrap(), path);
        let changing = first.changing();
        drop(first);
        let late = mirror();
        assert_ne!(late.path().await.unwrap(), path, "a transfer that was given up may still write");
        drop((late, changing));
        let third = mirror();
        assert_eq!(third.path().await.unwrap(), path);
        assert!(path.join("kept").exists());
        std::fs::remove_dir_all(&state).unwrap();
    }
}
