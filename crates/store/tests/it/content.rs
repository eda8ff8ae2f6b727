//! Blobs: verified, resumable, shared.

use std::io::Write as _;

use slipway_model::Digest;
use slipway_store::{IngestOutcome, StoreError};

use crate::support::Scratch;

#[test]
fn a_blob_is_what_was_put() {
    let scratch = Scratch::new();
    let content = scratch.store.content();
    let digest = content.put(b"hello", &scratch.lease).unwrap();
    assert_eq!(digest, Digest::of("hello"));
    assert_eq!(content.contains(&digest).unwrap(), Some(5));
    assert_eq!(content.read(&digest, 5).unwrap(), b"hello");
    assert!(matches!(content.read(&digest, 4), Err(StoreError::BlobTooLarge { .. })));
    assert_eq!(content.put(b"hello", &scratch.lease).unwrap(), digest);
    let missing = Digest::of("other");
    assert_eq!(content.contains(&missing).unwrap(), None);
    assert!(matches!(content.open(&missing), Err(StoreError::BlobMissing(_))));
}

#[test]
fn an_interrupted_ingest_is_resumed() {
    let scratch = Scratch::new();
    let content = scratch.store.content();
    let bytes = vec![7u8; 3 << 20];
    let expected = Some((Digest::of(&bytes), bytes.len() as u64));
    let mut ingest = content.ingest(expected, &scratch.lease).unwrap();
    ingest.write_all(&bytes[..1_500_000]).unwrap();
    drop(ingest);
    let mut ingest = content.ingest(expected, &scratch.lease).unwrap();
    assert_eq!(ingest.offset(), 1_500_000);
    ingest.write_all(&bytes[1_500_000..]).unwrap();
    assert_eq!(ingest.commit().unwrap(), Digest::of(&bytes));
    assert_eq!(content.contains(&Digest::of(&bytes)).unwrap(), Some(bytes.len() as u64));
}

#[test]
fn a_source_that_cannot_resume_starts_again() {
    let scratch = Scratch::new();
    let content = scratch.store.content();
    let expected = Some((Digest::of("whole"), 5));
    let mut ingest = content.ingest(expected, &scratch.lease).unwrap();
    ingest.write_all(b"who").unwrap();
    ingest.restart().unwrap();
    ingest.write_all(b"whole").unwrap();
    ingest.commit().unwrap();
}

#[test]
fn wrong_content_is_refused_and_forgotten() {
    let scratch = Scratch::new();
    let content = scratch.store.content();
    let expected = Some((Digest::of("right"), 5));
    let mut ingest = content.ingest(expected, &scratch.lease).unwrap();
    ingest.write_all(b"wrong").unwrap();
    assert!(matches!(ingest.commit(), Err(StoreError::DigestMismatch { .. })));
    let mut ingest = content.ingest(expected, &scratch.lease).unwrap();
    assert_eq!(ingest.offset(), 0);
    assert!(ingest.write_all(b"longer").is_err());
    assert!(matches!(ingest.append(b"longer"), Err(StoreError::SizeMismatch { .. })));
    drop(ingest);
    let mut ingest = content.ingest(expected, &scratch.lease).unwrap();
    ingest.write_all(b"rig").unwrap();
    assert!(matches!(ingest.commit(), Err(StoreError::SizeMismatch { actual: 3, .. })));
    assert_eq!(content.contains(&Digest::of("right")).unwrap(), None);
}

#[test]
fn a_damaged_blob_is_missing() {
    let scratch = Scratch::new();
    let content = scratch.store.content();
    let digest = content.put(b"hello", &scratch.lease).unwrap();
    std::fs::write(content.path(&digest), b"hell").unwrap();
    assert_eq!(content.contains(&digest).unwrap(), None);
    content.put(b"hello", &scratch.lease).unwrap();
    std::fs::write(content.path(&digest), b"hallo").unwrap();
    assert!(matches!(content.read(&digest, 10), Err(StoreError::BlobMissing(_))));
    assert!(!content.path(&digest).exists());
}

#[test]
fn a_second_download_waits_for_the_first() {
    let scratch = Scratch::new();
    let content = scratch.store.content();
    let expected = (Digest::of("layer"), 5);
    let start = |cancelled: &dyn Fn() -> bool| content.ingest_or_wait(expected, &scratch.lease, cancelled);
    let IngestOutcome::Started(mut first) = start(&|| false).unwrap() else { panic!("nothing is there yet") };
    assert!(matches!(start(&|| true), Err(StoreError::Cancelled)));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| start(&|| false));
        first.write_all(b"layer").unwrap();
        first.commit().unwrap();
        assert!(matches!(second.join().unwrap().unwrap(), IngestOutcome::Present(5)));
    });
    let ingests = std::fs::read_dir(scratch.store.root().join("ingest")).unwrap().count();
    assert_eq!(ingests, 0);
    // Without waiting, the second has a file of its own.
    let other = Some((Digest::of("other"), 5));
    let mut first = content.ingest(other, &scratch.lease).unwrap();
    let mut second = content.ingest(other, &scratch.lease).unwrap();
    first.write_all(b"oth").unwrap();
    second.write_all(b"other").unwrap();
    second.commit().unwrap();
    first.write_all(b"er").unwrap();
    first.commit().unwrap();
    assert_eq!(content.read(&Digest::of("other"), 5).unwrap(), b"other");
}
