//! What is kept beside a mirror: the list it was filled by, and the digests that were computed of it.
//!
//! A record makes the mirror's files trusted without a look at them. It is therefore gone before the first of them
//! changes, is written again when the mirror is complete, and counts only for the directory it was written for and
//! until the machine starts anew: files that were never written back to the disk are not those it tells of.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use slipway_model::Digest;

/// The first bytes of a record; another form has others.
const MAGIC: &[u8; 8] = b"mirror1\n";
/// The first bytes, the boot, the directory's inode, and the length of the list.
const HEADER: usize = 8 + 36 + 8 + 8;
/// The digest of a selection, and of what it selects.
const DIGEST: usize = 64;
/// So many selections are known of one list; more would be those of Dockerfiles that nobody builds any more.
const MAX_DIGESTS: usize = 1000;

/// The record of a mirror that its user has locked.
#[derive(Debug)]
pub(super) struct Record {
    file: PathBuf,
    header: [u8; HEADER - 8],
    digests: Mutex<Digests>,
}

/// What was computed of the mirror as it is.
#[derive(Debug, Default)]
struct Digests {
    /// Where the next one is written; `None` as long as there is no list.
    end: Option<u64>,
    known: Vec<(Digest, Digest)>,
}

impl Record {
    /// Reads the record in `file` of the mirror `directory`, with the list that is kept in it.
    pub(super) fn open(file: PathBuf, directory: &Path) -> io::Result<(Self, Option<Vec<u8>>)> {
        let mut header = [0; HEADER - 8];
        let boot = fs::read("/proc/sys/kernel/random/boot_id")?;
        header[..8].copy_from_slice(MAGIC);
        let length = boot.len().min(36);
        header[8..8 + length].copy_from_slice(&boot[..length]);
        header[44..].copy_from_slice(&fs::metadata(directory)?.ino().to_le_bytes());
        let (list, digests) = match fs::read(&file) {
            Ok(bytes) => take_apart(&header, bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        }
        .map_or((None, Digests::default()), |(list, digests)| (Some(list), digests));
        Ok((Self { file, header, digests: Mutex::new(digests) }, list))
    }

    /// Throws the record away, since the mirror is about to change.
    pub(super) fn forget(&self) -> io::Result<()> {
        *self.digests.lock() = Digests::default();
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps the list of the mirror, which is complete.
    pub(super) fn keep(&self, list: &[u8]) -> io::Result<()> {
        let temporary = self.file.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&self.header)?;
        file.write_all(&(list.len() as u64).to_le_bytes())?;
        file.write_all(list)?;
        fs::rename(&temporary, &self.file)?;
        *self.digests.lock() = Digests { end: Some((HEADER + list.len()) as u64), known: Vec::new() };
        Ok(())
    }

    /// Finds what a selection was computed to be.
    pub(super) fn digest(&self, selection: &Digest) -> Option<Digest> {
        let digests = self.digests.lock();
        digests.known.iter().find(|(known, _)| known == selection).map(|(_, digest)| *digest)
    }

    /// Keeps what a selection is.
    pub(super) fn keep_digest(&self, selection: Digest, digest: Digest) -> io::Result<()> {
        let at = {
            let mut digests = self.digests.lock();
            let Some(at) = digests.end.filter(|_| digests.known.len() < MAX_DIGESTS) else { return Ok(()) };
            digests.known.push((selection, digest));
            digests.end = Some(at + DIGEST as u64);
            at
        };
        let mut bytes = [0; DIGEST];
        bytes[..32].copy_from_slice(selection.as_bytes());
        bytes[32..].copy_from_slice(digest.as_bytes());
        File::options().write(true).open(&self.file)?.write_all_at(&bytes, at)
    }
}

/// Returns the list and the digests of a record with this header.
fn take_apart(header: &[u8], mut bytes: Vec<u8>) -> Option<(Vec<u8>, Digests)> {
    let rest = bytes.strip_prefix(header)?;
    let length = usize::try_from(u64::from_le_bytes(*rest.first_chunk()?)).ok()?;
    let end = HEADER.checked_add(length).filter(|end| *end <= bytes.len())?;
    // One that was only begun is written over by the next.
    let known: Vec<_> = bytes[end..].as_chunks::<DIGEST>().0.iter().filter_map(pair).collect();
    let digests = Digests { end: Some((end + known.len() * DIGEST) as u64), known };
    bytes.truncate(end);
    bytes.drain(..HEADER);
    Some((bytes, digests))
}

fn pair(bytes: &[u8; DIGEST]) -> Option<(Digest, Digest)> {
    let (selection, digest) = (bytes.first_chunk::<32>()?, bytes.last_chunk::<32>()?);
    Some((Digest::from_sha256(*selection), Digest::from_sha256(*digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let state = tempfile::tempdir().unwrap();
        let (file, mirror) = (state.path().join("m.list"), state.path().join("m"));
        fs::create_dir(&mirror).unwrap();
        (state, file, mirror)
    }

    #[test]
    fn a_record_is_found_until_the_mirror_changes() {
        let (_state, file, mirror) = place();
        let open = || Record::open(file.clone(), &mirror).unwrap();
        let (record, list) = open();
        assert_eq!(list, None);
        let (selection, digest) = (Digest::of("COPY ."), Digest::of("files"));
        record.keep_digest(selection, digest).unwrap();
        assert!(!file.exists(), "there is nothing that a digest without a list would be of");
        record.keep(b"list").unwrap();
        record.keep_digest(selection, digest).unwrap();

        let (record, list) = open();
        assert_eq!(list.as_deref(), Some(&b"list"[..]));
        assert_eq!((record.digest(&selection), record.digest(&digest)), (Some(digest), None));
        record.keep_digest(digest, selection).unwrap();
        let (record, _) = open();
        assert_eq!((record.digest(&selection), record.digest(&digest)), (Some(digest), Some(selection)));
        record.forget().unwrap();
        assert_eq!(record.digest(&selection), None);
        record.keep_digest(selection, digest).unwrap();
        assert_eq!(open().1, None);
    }

    #[test]
    fn a_record_that_is_damaged_or_of_something_else_says_nothing() {
        let (state, file, mirror) = place();
        let (record, _) = Record::open(file.clone(), &mirror).unwrap();
        record.keep(b"list").unwrap();
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(Record::open(file.clone(), &mirror).unwrap().1, None, "{length} bytes");
        }
        for at in 0..HEADER {
            let mut other = whole.clone();
            other[at] ^= 0x40;
            fs::write(&file, &other).unwrap();
            assert_eq!(Record::open(file.clone(), &mirror).unwrap().1, None, "byte {at}");
        }
        // What was only begun when the process was killed is as if it were not there, and written over.
        fs::write(&file, [&whole[..], &[1; DIGEST - 1]].concat()).unwrap();
        let (record, list) = Record::open(file.clone(), &mirror).unwrap();
        assert_eq!(list.as_deref(), Some(&b"list"[..]));
        record.keep_digest(Digest::of("s"), Digest::of("d")).unwrap();
        assert_eq!(
            Record::open(file.clone(), &mirror).unwrap().0.digest(&Digest::of("s")),
            Some(Digest::of("d"))
        );

        let other = state.path().join("other");
        fs::create_dir(&other).unwrap();
        assert_eq!(Record::open(file, &other).unwrap().1, None, "a directory that was made anew");
    }
}
