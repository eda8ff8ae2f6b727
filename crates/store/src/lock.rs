//! Advisory locks between processes.
//!
//! A lock is `flock` on a file that is made when needed. It ends with the process, so nothing is stale
//! after `kill -9`. A lock file may be removed by whoever holds its lock; hence taking a lock checks
//! that the file locked is still the one at the path.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Result, StoreError};

/// Holds a lock until it is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
}

/// How one attempt to lock ended.
enum Attempt {
    Locked(FileLock),
    Held,
    /// The file at the path is another one than the file locked.
    Replaced,
}

/// Whether others may hold the lock too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Exclusive,
    Shared,
}

impl FileLock {
    /// Takes the lock, waiting for it.
    pub(crate) fn wait(path: &Path, share: Share) -> Result<Self> {
        let operation = match share {
            Share::Exclusive => FlockOperation::LockExclusive,
            Share::Shared => FlockOperation::LockShared,
        };
        loop {
            if let Attempt::Locked(lock) = Self::attempt(path, operation)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock if nobody else has it.
    pub(crate) fn try_take(path: &Path, share: Share) -> Result<Option<Self>> {
        let operation = match share {
            Share::Exclusive => FlockOperation::NonBlockingLockExclusive,
            Share::Shared => FlockOperation::NonBlockingLockShared,
        };
        loop {
            match Self::attempt(path, operation)? {
                Attempt::Locked(lock) => return Ok(Some(lock)),
                Attempt::Held => return Ok(None),
                Attempt::Replaced => {}
            }
        }
    }

    /// Takes the lock, asking `cancelled` now and then while it waits.
    pub(crate) fn wait_unless(path: &Path, share: Share, cancelled: &dyn Fn() -> bool) -> Result<Self> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = Self::try_take(path, share)? {
                return Ok(lock);
            }
            if cancelled() {
                return Err(StoreError::Cancelled);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn attempt(path: &Path, operation: FlockOperation) -> Result<Attempt> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
            .map_err(StoreError::io("open the lock", path))?;
        loop {
            match rustix::fs::flock(&fd, operation) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Attempt::Held),
                Err(error) => return Err(StoreError::io("lock", path)(error)),
            }
        }
        let ours = rustix::fs::fstat(&fd).map_err(StoreError::io("stat the lock", path))?;
        match rustix::fs::lstat(path) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => {
                Ok(Attempt::Locked(Self { file: File::from(fd), path: path.to_owned() }))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(Attempt::Replaced),
            Err(error) => Err(StoreError::io("stat the lock", path)(error)),
        }
    }

    /// Returns the locked file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Removes the lock file and ends the lock.
    pub(crate) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(StoreError::io("remove the lock", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_excludes_and_shared_shares() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = FileLock::try_take(&path, Share::Shared).unwrap().unwrap();
        let second = FileLock::try_take(&path, Share::Shared).unwrap().unwrap();
        assert!(FileLock::try_take(&path, Share::Exclusive).unwrap().is_none());
        drop((first, second));
        let third = FileLock::try_take(&path, Share::Exclusive).unwrap().unwrap();
        assert!(FileLock::try_take(&path, Share::Shared).unwrap().is_none());
        third.remove().unwrap();
        assert!(!path.exists());
        assert!(FileLock::try_take(&path, Share::Exclusive).unwrap().is_some());
    }

    #[test]
    fn waiting_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let _held = FileLock::wait(&path, Share::Exclusive).unwrap();
        let error = FileLock::wait_unless(&path, Share::Exclusive, &|| true).unwrap_err();
        assert!(matches!(error, StoreError::Cancelled));
    }
}
