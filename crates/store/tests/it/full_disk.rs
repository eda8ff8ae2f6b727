//! A disk without space: an error that says so, and a state that works once there is space again.

use std::path::{Path, PathBuf};
use std::process::Command;

use slipway_model::ErrorKind;
use slipway_store::{
    CommitInfo, DiffOptions, LayerBlob, LayerFormat, PruneOptions, Store, StoreError, UnpackOptions,
};
use tempfile::TempDir;

use crate::support::{archive, change_in, file};

/// A small tmpfs, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED {test}: mounting a tmpfs needs root");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[track_caller]
fn assert_full<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.expect_err("the disk is full");
    assert!(error.is_no_space(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.hint().is_some_and(|hint| hint.contains("slipway prune")));
}

fn fill(path: &Path) -> PathBuf {
    let filler = path.join("filler");
    let _ = std::fs::write(&filler, vec![0; 8 << 20]);
    filler
}

#[test]
fn every_kind_of_writing() {
    let Some(disk) = SmallDisk::new("every_kind_of_writing") else { return };
    let store = Store::open(disk.path().join("state")).unwrap();
    let lease = store.lease().unwrap();
    let (content, snapshots) = (store.content(), store.snapshots());
    let big = archive(&[file("big", &"x".repeat(1 << 20))]);
    let blob = LayerBlob {
        descriptor: slipway_model::Descriptor::of(slipway_model::MediaType::OCI_LAYER, &big),
        diff_id: slipway_model::Digest::of(&big),
    };
    content.put(&big, &lease).unwrap();
    let id = snapshots.add_layer(None, &blob, &CommitInfo::default(), &lease).unwrap();
    let active = snapshots.prepare(None, &lease).unwrap();
    change_in(&active, |root| std::fs::write(root.join("f"), vec![7; 100_000]).unwrap());
    let made = active.commit(&CommitInfo::default()).unwrap();

    let filler = fill(&disk.path());
    assert_full(content.put(vec![1; 100_000], &lease));
    assert_full(snapshots.unpack_chain(id, &UnpackOptions::default(), &lease));
    let plain =
        LayerFormat { compression: slipway_model::solve::Compression::Uncompressed, ..Default::default() };
    assert_full(snapshots.export_layer(made, &plain, &DiffOptions::default(), &lease));
    let mut ingest = content.ingest(None, &lease).unwrap();
    assert_full(ingest.append(&vec![2; 100_000]));
    drop(ingest);
    let values = store.key_values();
    let failed = (0..500u32).find_map(|n| values.put("fill", &n.to_be_bytes(), &[9; 4000]).err());
    assert!(failed.is_some_and(|error| error.is_no_space()));

    std::fs::remove_file(filler).unwrap();
    snapshots.unpack_chain(id, &UnpackOptions::default(), &lease).unwrap();
    snapshots.export_layer(made, &plain, &DiffOptions::default(), &lease).unwrap();
    drop(lease);
    store.prune(&PruneOptions { all: true, ..Default::default() }).unwrap();
    for directory in ["snapshots", "blobs/sha256", "ingest", "trash"] {
        assert_eq!(std::fs::read_dir(store.root().join(directory)).unwrap().count(), 0, "{directory}");
    }
}
