//! Digests of file contents, kept between builds so that an unchanged file is not read again.
//!
//! A digest is remembered with what identified the file when it was read: device, inode, size, modification
//! and change time, the latter two to the nanosecond. A file that was modified so shortly before it was read
//! that another modification could leave the same times is *racy*: its digest serves this build, which checks
//! it again while copying, but is not kept.
//!
//! On disk an index is one file of fixed-size records sorted by identity, searched in place: loading is one
//! read and a checksum. It is replaced by rename, and an index that is damaged, foreign or from another version
//! counts as empty.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use slipway_model::Digest;

use crate::entry::{Metadata, Time};
use crate::error::{FilesError, Result};

const MAGIC: &[u8; 8] = b"slwyidx1";
/// Magic, number of records, checksum of the records.
const HEADER: usize = 8 + 8 + 4;
const KEY: usize = 48;
const RECORD: usize = KEY + 32 + 16;
/// How many unused records are kept whatever the number of used ones.
const SPARE_RECORDS: usize = 50_000;

/// What is known of the content of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// The SHA-256 of the content.
    pub content: Digest,
    /// Names the extended attributes; zero when there are none.
    pub attributes: [u8; 16],
    /// Whether the file could have changed since without its times showing it.
    pub racy: bool,
}

/// Whether the files may change while the index is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// The user's files, which change at any time.
    Live,
    /// A committed snapshot: the files never change, and their device number means nothing, since it belongs
    /// to the mount they are seen through.
    Frozen,
}

/// An index of digests.
#[derive(Debug)]
pub struct DigestCache {
    stability: Stability,
    file: Option<PathBuf>,
    /// The records as read from disk.
    stored: Vec<u8>,
    /// Which of them were looked up.
    used: Vec<AtomicBool>,
    /// What this run found or used.
    fresh: RwLock<HashMap<[u8; KEY], FileDigest>>,
    changed: AtomicBool,
}

impl DigestCache {
    /// Loads the index `name` of a state directory; there need not be one yet.
    pub fn load(directory: &Path, name: &str, stability: Stability) -> Self {
        let file = directory.join(format!("{name}.idx"));
        let stored = fs::read(&file).ok().and_then(check).unwrap_or_default();
        let used = (0..stored.len() / RECORD).map(|_| AtomicBool::new(false)).collect();
        Self { file: Some(file), stored, used, ..Self::in_memory(stability) }
    }

    /// Makes an index that is not kept.
    pub fn in_memory(stability: Stability) -> Self {
        Self {
            stability,
            file: None,
            stored: Vec::new(),
            used: Vec::new(),
            fresh: RwLock::default(),
            changed: AtomicBool::new(false),
        }
    }

    /// Returns the name under which the index of a context directory is kept.
    pub fn name_of_directory(directory: &Path) -> String {
        use std::os::unix::ffi::OsStrExt;
        Digest::of(directory.as_os_str().as_bytes()).hex()[..32].to_owned()
    }

    /// Looks up a file by its attributes.
    pub fn get(&self, metadata: &Metadata) -> Option<FileDigest> {
        let key = self.key(metadata);
        if let Some(found) = self.fresh.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(*found);
        }
        let (content, attributes) = self.search(&key)?;
        Some(FileDigest { content, attributes, racy: false })
    }

    /// Remembers what was found in a file whose attributes were `metadata` before and after it was read, the
    /// reading having begun at `read_at`.
    pub(crate) fn insert(
        &self,
        metadata: &Metadata,
        content: Digest,
        attributes: [u8; 16],
        read_at: Time,
    ) -> FileDigest {
        let racy = self.stability == Stability::Live && is_racy(metadata, read_at);
        let digest = FileDigest { content, attributes, racy };
        if !racy {
            self.changed.store(true, Ordering::Relaxed);
        }
        self.fresh.write().unwrap_or_else(PoisonError::into_inner).insert(self.key(metadata), digest);
        digest
    }

    /// Remembers a digest for this run only, to be checked again when the file is copied.
    pub(crate) fn insert_unkept(&self, metadata: &Metadata, digest: FileDigest) -> FileDigest {
        let digest = FileDigest { racy: true, ..digest };
        self.fresh.write().unwrap_or_else(PoisonError::into_inner).insert(self.key(metadata), digest);
        digest
    }

    /// Writes the index back if something was added to it.
    pub fn save(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let failed =
            |source| FilesError::Host { operation: "write digest index", path: file.clone(), source };
        write_atomically(file, &self.encode()).map_err(failed)
    }

    /// Merges the records of this run into the stored ones.
    fn encode(&self) -> Vec<u8> {
        let fresh = self.fresh.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<[u8; RECORD]> = Vec::with_capacity(fresh.len() + self.stored.len() / RECORD);
        for (key, digest) in fresh.iter().filter(|(_, digest)| !digest.racy) {
            let mut record = [0; RECORD];
            record[..KEY].copy_from_slice(key);
            record[KEY..KEY + 32].copy_from_slice(digest.content.as_bytes());
            record[KEY + 32..].copy_from_slice(&digest.attributes);
            records.push(record);
        }
        // Files come and go: records this run had no use for are kept while they are not too many.
        let old = self.stored.as_chunks::<RECORD>().0;
        let is_used = |index: usize| self.used[index].load(Ordering::Relaxed);
        let used = (0..old.len()).filter(|index| is_used(*index)).count();
        let keep_all = old.len() - used <= SPARE_RECORDS + used + records.len();
        records.extend((0..old.len()).filter(|index| keep_all || is_used(*index)).map(|index| old[index]));
        // One record for an inode: a changed file replaces its old state. The sort is stable, so that the
        // fresh record comes first.
        records.sort_by(|a, b| a[..16].cmp(&b[..16]));
        records.dedup_by(|later, first| later[..16] == first[..16]);
        let body = records.concat();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(records.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn search(&self, key: &[u8; KEY]) -> Option<(Digest, [u8; 16])> {
        let records = self.stored.as_chunks::<RECORD>().0;
        // There is one record for an inode; it is found by that, and right if the rest is the same too.
        let inode = |bytes: &[u8]| bytes.first_chunk::<16>().map(|bytes| u128::from_be_bytes(*bytes));
        let wanted = inode(key);
        let at = records.binary_search_by_key(&wanted, |record| inode(record)).ok()?;
        if records[at][..KEY] != key[..] {
            return None;
        }
        self.used[at].store(true, Ordering::Relaxed);
        let record = &records[at];
        let content = record[KEY..KEY + 32].try_into().ok()?;
        let attributes = record[KEY + 32..].try_into().ok()?;
        Some((Digest::from_sha256(content), attributes))
    }

    /// Writes the identity of a file so that records sort by device and inode.
    fn key(&self, metadata: &Metadata) -> [u8; KEY] {
        let device = match self.stability {
            Stability::Live => metadata.device,
            Stability::Frozen => 0,
        };
        let mut key = [0; KEY];
        key[..8].copy_from_slice(&device.to_be_bytes());
        key[8..16].copy_from_slice(&metadata.inode.to_be_bytes());
        key[16..24].copy_from_slice(&metadata.size.to_le_bytes());
        key[24..32].copy_from_slice(&metadata.modified.seconds.to_le_bytes());
        key[32..40].copy_from_slice(&metadata.changed.seconds.to_le_bytes());
        key[40..44].copy_from_slice(&metadata.modified.nanoseconds.to_le_bytes());
        key[44..48].copy_from_slice(&metadata.changed.nanoseconds.to_le_bytes());
        key
    }
}

/// Says whether a file read at `read_at` could be modified after that without its times changing.
///
/// A file system that keeps fractions of a second advances them with the kernel's tick; one that does not may
/// count in steps of two seconds.
fn is_racy(metadata: &Metadata, read_at: Time) -> bool {
    let margin: i128 = if metadata.changed.nanoseconds == 0 { 2_000_000_000 } else { 20_000_000 };
    let nanoseconds = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    // A modification time in the future says nothing; the change time is set by the kernel.
    let latest = nanoseconds(metadata.changed);
    latest + margin > nanoseconds(read_at)
}

/// Tells the time, as file systems do.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
}

/// Returns the records of an index that is whole.
fn check(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let header = bytes.get(..HEADER)?;
    let count = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let checksum = u32::from_le_bytes(header[16..20].try_into().ok()?);
    let whole = header.starts_with(MAGIC)
        && (bytes.len() - HEADER) as u64 == count.checked_mul(RECORD as u64)?
        && crc32fast::hash(&bytes[HEADER..]) == checksum;
    whole.then(|| {
        bytes.drain(..HEADER);
        bytes
    })
}

fn write_atomically(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = file.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = fs::File::create(&temporary).and_then(|mut out| out.write_all(bytes));
    // No sync: after a crash the checksum tells a torn index, and all it costs is reading the files again.
    let outcome = written.and_then(|()| fs::rename(&temporary, file));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::FileKind;

    const LATER: Time = Time { seconds: 1000, nanoseconds: 0 };

    fn file(inode: u64, changed: Time) -> Metadata {
        Metadata {
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 3,
            blocks: 8,
            links: 1,
            device: 7,
            inode,
            special: (0, 0),
            modified: Time { seconds: 5, nanoseconds: 6 },
            changed,
        }
    }

    const OLD: Time = Time { seconds: 10, nanoseconds: 5 };

    #[test]
    fn digests_outlive_the_process_and_change_with_the_file() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let cache = DigestCache::load(state.path(), "ctx", Stability::Live);
        for inode in 0..500 {
            cache.insert(&file(inode, OLD), Digest::of(inode.to_string()), [1; 16], LATER);
        }
        cache.save().expect("saved");

        let cache = DigestCache::load(state.path(), "ctx", Stability::Live);
        for inode in 0..500 {
            let found = cache.get(&file(inode, OLD)).expect("kept");
            assert_eq!((found.content, found.attributes), (Digest::of(inode.to_string()), [1; 16]));
        }
        let touched = Time { seconds: 11, nanoseconds: 5 };
        assert_eq!(cache.get(&file(3, touched)), None);
        cache.insert(&file(3, touched), Digest::of("new"), [0; 16], LATER);
        cache.save().expect("saved");

        let cache = DigestCache::load(state.path(), "ctx", Stability::Live);
        assert_eq!(cache.get(&file(3, touched)).map(|found| found.content), Some(Digest::of("new")));
        assert_eq!(cache.get(&file(3, OLD)), None);
        assert!(cache.get(&file(4, OLD)).is_some());
    }

    #[test]
    fn a_racy_digest_serves_but_is_not_kept() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let cache = DigestCache::load(state.path(), "ctx", Stability::Live);
        let young = file(1, Time { seconds: 999, nanoseconds: 999_999_999 });
        assert!(cache.insert(&young, Digest::of("a"), [0; 16], LATER).racy);
        let coarse = file(2, Time { seconds: 999, nanoseconds: 0 });
        assert!(cache.insert(&coarse, Digest::of("a"), [0; 16], LATER).racy);
        assert!(cache.get(&young).is_some());
        cache.save().expect("nothing to save");
        assert!(DigestCache::load(state.path(), "ctx", Stability::Live).get(&young).is_none());
        let frozen = DigestCache::in_memory(Stability::Frozen);
        assert!(!frozen.insert(&young, Digest::of("a"), [0; 16], LATER).racy);
        assert!(frozen.get(&Metadata { device: 99, ..young }).is_some());
    }

    #[test]
    fn a_damaged_index_counts_as_empty() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let cache = DigestCache::load(state.path(), "ctx", Stability::Live);
        cache.insert(&file(1, OLD), Digest::of("a"), [0; 16], LATER);
        cache.save().expect("saved");
        let path = state.path().join("ctx.idx");
        let whole = fs::read(&path).expect("the index");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(check(damaged).is_none(), "byte {at}");
            assert!(check(whole[..at].to_vec()).is_none(), "cut at {at}");
        }
    }
}
