//! What is removed and what stays.

use std::fs;
use std::time::Duration;

use slipway_model::Digest;
use slipway_store::{
    CommitInfo, DiffOptions, GcPolicy, GcRule, LayerFormat, PruneOptions, Sharing, SnapshotKind, StoreError,
    UsageFilter, UsageId, UsageKind,
};

use crate::support::{Scratch, archive, can_mount, file};

fn count(scratch_root: &std::path::Path, directory: &str) -> usize {
    fs::read_dir(scratch_root.join(directory)).unwrap().count()
}

const ALL: PruneOptions<'static> = PruneOptions {
    all: true,
    keep_duration: None,
    filter: None,
    max_used: 0,
    reserved: 0,
    min_free: 0,
    dry_run: false,
};

#[test]
fn a_lease_protects_across_handles() {
    let scratch = Scratch::new();
    let id = scratch.image(&[archive(&[file("a", "a")]), archive(&[file("b", "b")])]);
    scratch.store.snapshots().unpack_layer(id, &Default::default(), &scratch.lease).unwrap();
    let blob = scratch.store.content().put(b"held", &scratch.lease).unwrap();
    let other = slipway_store::Store::open(scratch.store.root()).unwrap();
    assert_eq!(other.prune(&ALL).unwrap().len(), 0);
    assert!(other.usage().unwrap().iter().any(|item| item.id == UsageId::Snapshot(id) && item.in_use));
    let Scratch { store, lease, dir: _dir } = scratch;
    drop(lease);
    let dry = PruneOptions { dry_run: true, ..ALL };
    assert_eq!(other.prune(&dry).unwrap().len(), 3);
    assert_eq!(other.prune(&ALL).unwrap().len(), 3);
    assert_eq!(store.content().contains(&blob).unwrap(), None);
    for directory in ["blobs/sha256", "snapshots", "trash", "ingest", "leases"] {
        assert_eq!(count(store.root(), directory), 0, "{directory}");
    }
    assert!(matches!(store.snapshots().get(id), Err(StoreError::SnapshotMissing(_))));
}

#[test]
fn what_dead_processes_left_is_cleaned() {
    let scratch = Scratch::new();
    let root = scratch.store.root().to_owned();
    let kept = scratch.store.snapshots().prepare(None, &scratch.lease).unwrap();
    // As a killed process leaves them.
    fs::create_dir_all(root.join("snapshots/1x2x3-0/fs/d")).unwrap();
    fs::write(root.join("snapshots/1x2x3-0/fs/d/f"), "f").unwrap();
    fs::write(root.join("ingest/1x2x3-1"), "partial").unwrap();
    fs::write(root.join("leases/1x2x3.lock"), "").unwrap();
    fs::create_dir(root.join("trash/x")).unwrap();
    fs::write(root.join("blobs/sha256").join(Digest::of("never recorded").hex()), "f").unwrap();
    let partial = Some((Digest::of("partial"), 100));
    let mut ingest = scratch.store.content().ingest(partial, &scratch.lease).unwrap();
    ingest.append(b"resumable").unwrap();
    drop(ingest);
    scratch.store.collect_garbage(&GcPolicy::default()).unwrap();
    for (directory, expected) in
        [("snapshots", 1), ("ingest", 1), ("leases", 1), ("trash", 0), ("blobs/sha256", 0)]
    {
        assert_eq!(count(&root, directory), expected, "{directory}");
    }
    kept.commit(&CommitInfo::default()).unwrap();
    assert_eq!(scratch.store.content().ingest(partial, &scratch.lease).unwrap().offset(), 9);
    assert!(!scratch.store.collection_due());
}

#[test]
fn children_and_sources_keep_what_they_need() {
    if !can_mount("children_and_sources_keep_what_they_need") {
        return;
    }
    let scratch = Scratch::new();
    let base = scratch.commit(None, |root| fs::write(root.join("base"), "base").unwrap());
    let layer = scratch.commit(None, |root| fs::write(root.join("layer"), "layer").unwrap());
    let snapshots = scratch.store.snapshots();
    let merged = snapshots.reparent(layer, Some(base), &CommitInfo::default(), &scratch.lease).unwrap();
    snapshots.export_layer(merged, &LayerFormat::default(), &DiffOptions::default(), &scratch.lease).unwrap();
    let Scratch { store, lease, dir: _dir } = scratch;
    drop(lease);
    let holder = store.lease().unwrap();
    assert!(holder.hold_snapshots(&[merged]).unwrap());
    assert!(store.prune(&ALL).unwrap().is_empty());
    drop(holder);
    let items = store.usage().unwrap();
    let shared = items.iter().find(|item| item.id == UsageId::Snapshot(merged)).unwrap();
    assert_eq!((shared.shared, shared.size), (true, 0));
    let order: Vec<_> = store.prune(&ALL).unwrap().into_iter().map(|item| item.id).collect();
    assert_eq!(order[0], UsageId::Snapshot(merged));
    assert_eq!(order.len(), 3);
    assert_eq!(count(store.root(), "snapshots") + count(store.root(), "blobs/sha256"), 0);
}

#[test]
fn limits_stop_the_pruning() {
    if !can_mount("limits_stop_the_pruning") {
        return;
    }
    let scratch = Scratch::new();
    let big = |kind: SnapshotKind| {
        let active = scratch.store.snapshots().prepare(None, &scratch.lease).unwrap();
        crate::support::change_in(&active, |root| fs::write(root.join("f"), vec![1; 1 << 20]).unwrap());
        active.commit(&CommitInfo { kind, ..CommitInfo::default() }).unwrap()
    };
    let ids = [big(SnapshotKind::Regular), big(SnapshotKind::LocalSource), big(SnapshotKind::Internal)];
    let mount =
        scratch.store.cache_mounts().acquire("m", Sharing::Shared, &scratch.lease, &|_| Ok(()), &|| false);
    fs::write(mount.as_ref().unwrap().path().join("f"), vec![1; 1 << 20]).unwrap();
    let Scratch { store, lease, dir: _dir } = scratch;
    drop(lease);
    let removed = |options: &PruneOptions<'_>| -> Vec<UsageId> {
        store
            .prune(&PruneOptions { dry_run: true, ..*options })
            .unwrap()
            .into_iter()
            .map(|item| item.id)
            .collect()
    };
    let some = PruneOptions { all: false, ..ALL };
    assert_eq!(removed(&some), [UsageId::Snapshot(ids[0]), UsageId::Snapshot(ids[1])]);
    assert_eq!(removed(&PruneOptions { max_used: 5 << 20, ..ALL }), []);
    assert_eq!(removed(&PruneOptions { max_used: 3_500_000, ..ALL }), [UsageId::Snapshot(ids[0])]);
    assert_eq!(removed(&PruneOptions { keep_duration: Some(Duration::from_secs(60)), ..ALL }), []);
    drop(mount);
    assert_eq!(removed(&ALL).len(), 4);
    let sources = GcPolicy {
        rules: vec![GcRule {
            filter: UsageFilter::parse(&["type==source.local", "type==exec.cachemount"]).unwrap(),
            max_used: 3_500_000,
            ..GcRule::default()
        }],
    };
    let collected: Vec<_> = store.collect_garbage(&sources).unwrap().into_iter().map(|i| i.id).collect();
    assert_eq!(collected, [UsageId::Snapshot(ids[1])]);
    assert!(
        store.usage().unwrap().iter().any(|item| item.kind == UsageKind::CacheMount && item.size > 1 << 20)
    );
}
