//! Layers over other parents.

use std::fs;

use slipway_model::solve::Compression;
use slipway_store::{CommitInfo, DiffOptions, LayerFormat, SnapshotState, chain_id};

use crate::support::{Scratch, archive, can_mount, dir, file, names, tar_names};

#[test]
fn a_layer_without_parent_goes_anywhere() {
    if !can_mount("a_layer_without_parent_goes_anywhere") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let info = CommitInfo::default();
    // A base that is not unpacked, as with `COPY --link`.
    let base = scratch.image(&[archive(&[dir("usr"), file("usr/a", "a")])]);
    let copied = scratch.commit(None, |root| {
        fs::create_dir(root.join("usr")).unwrap();
        fs::write(root.join("usr/b"), "b").unwrap();
    });
    let merged = snapshots.reparent(copied, Some(base), &info, &scratch.lease).unwrap();
    assert_eq!(snapshots.reparent(copied, Some(base), &info, &scratch.lease).unwrap(), merged);
    assert_eq!(snapshots.reparent(copied, None, &info, &scratch.lease).unwrap(), copied);
    // Its blob needs no base, and is that of the original.
    let format = LayerFormat { compression: Compression::Uncompressed, ..LayerFormat::default() };
    let layer = snapshots.export_layer(merged, &format, &DiffOptions::default(), &scratch.lease).unwrap();
    let original = snapshots.export_layer(copied, &format, &DiffOptions::default(), &scratch.lease).unwrap();
    assert_eq!(layer, original);
    let blob = scratch.store.content().read(&layer.descriptor.digest, 1 << 20).unwrap();
    assert_eq!(tar_names(&blob), ["usr/", "usr/b"]);
    let base_chain = snapshots.get(base).unwrap().chain_id;
    assert_eq!(snapshots.get(merged).unwrap().chain_id, Some(chain_id(base_chain.as_ref(), &layer.diff_id)));
    assert_eq!(snapshots.get(base).unwrap().state, SnapshotState::Lazy);
    snapshots.unpack_chain(merged, &Default::default(), &scratch.lease).unwrap();
    assert_eq!(names(&scratch.tree(merged)), ["usr", "usr/a", "usr/b"]);
}

#[test]
fn a_layer_with_marks_of_overlayfs_is_made_anew() {
    if !can_mount("a_layer_with_marks_of_overlayfs_is_made_anew") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let first = scratch.commit(None, |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/old"), "old").unwrap();
    });
    let second = scratch.commit(Some(first), |root| {
        // Opaque in overlayfs's eyes, as it is new.
        fs::create_dir(root.join("opt")).unwrap();
        fs::write(root.join("opt/new"), "new").unwrap();
        fs::remove_file(root.join("etc/old")).unwrap();
    });
    let other = scratch.commit(None, |root| {
        fs::create_dir(root.join("opt")).unwrap();
        fs::write(root.join("opt/kept"), "kept").unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/old"), "old").unwrap();
    });
    let merged = snapshots.reparent(second, Some(other), &CommitInfo::default(), &scratch.lease).unwrap();
    assert_eq!(names(&scratch.tree(merged)), ["etc", "opt", "opt/kept", "opt/new"]);
    assert_eq!(scratch.diff(merged), scratch.diff(second));
}

#[test]
fn merging_stacks_all_layers() {
    if !can_mount("merging_stacks_all_layers") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let write = |name: &'static str| move |root: &std::path::Path| fs::write(root.join(name), name).unwrap();
    let a = scratch.commit(None, write("a"));
    let b = scratch.commit(None, write("b"));
    let c = scratch.commit(Some(b), write("c"));
    let merged = snapshots.merge(&[a, c], &CommitInfo::default(), &scratch.lease).unwrap().unwrap();
    assert_eq!(names(&scratch.tree(merged)), ["a", "b", "c"]);
    assert_eq!(snapshots.chain(merged).unwrap().len(), 3);
    assert_eq!(snapshots.merge(&[], &CommitInfo::default(), &scratch.lease).unwrap(), None);
}

#[test]
fn diffs_of_related_and_unrelated_trees() {
    if !can_mount("diffs_of_related_and_unrelated_trees") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let info = CommitInfo::default();
    let a = scratch.commit(None, |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/1"), "1").unwrap();
        fs::write(root.join("same"), "same").unwrap();
    });
    let b = scratch.commit(Some(a), |root| {
        fs::remove_file(root.join("d/1")).unwrap();
        fs::write(root.join("d/2"), "2").unwrap();
    });
    let related = snapshots.diff(Some(a), Some(b), &info, &scratch.lease).unwrap().unwrap();
    assert_eq!(tar_names(&scratch.diff(related)), ["d/", "d/.wh.1", "d/2"]);
    let again = snapshots.merge(&[a, related], &info, &scratch.lease).unwrap().unwrap();
    assert_eq!(scratch.tree(again), scratch.tree(b));
    assert_eq!(snapshots.diff(Some(a), Some(a), &info, &scratch.lease).unwrap(), None);
    assert_eq!(snapshots.diff(None, Some(b), &info, &scratch.lease).unwrap(), Some(b));
    // The same change, made without knowing `a`.
    let unrelated = scratch.commit(None, |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/2"), "2").unwrap();
    });
    let computed = snapshots.diff(Some(a), Some(unrelated), &info, &scratch.lease).unwrap().unwrap();
    let applied = snapshots.merge(&[a, computed], &info, &scratch.lease).unwrap().unwrap();
    assert_eq!(scratch.tree(applied), scratch.tree(unrelated));
}

#[test]
fn a_diff_that_only_deletes_is_kept_whole() {
    if !can_mount("a_diff_that_only_deletes_is_kept_whole") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let info = CommitInfo::default();
    let a = scratch.commit(None, |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/1"), "1").unwrap();
        fs::write(root.join("2"), "2").unwrap();
    });
    let emptied = snapshots.diff(Some(a), None, &info, &scratch.lease).unwrap().unwrap();
    // Nothing below it has these names, and it still says that they are to go.
    assert_eq!(tar_names(&scratch.diff(emptied)), [".wh.2", ".wh.d"]);
    let other = scratch.commit(None, |root| fs::write(root.join("3"), "3").unwrap());
    let merged = snapshots.merge(&[a, other, emptied], &info, &scratch.lease).unwrap().unwrap();
    assert_eq!(names(&scratch.tree(merged)), ["3"]);
    assert_eq!(scratch.diff(merged), scratch.diff(emptied));
}

#[test]
fn a_directory_made_anew_removes_what_it_has_seen() {
    if !can_mount("a_directory_made_anew_removes_what_it_has_seen") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let old = |root: &std::path::Path| {
        fs::create_dir_all(root.join("d/sub")).unwrap();
        fs::write(root.join("d/seen"), "seen").unwrap();
    };
    let base = scratch.commit(None, old);
    let anew = scratch.commit(Some(base), |root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/new"), "new").unwrap();
    });
    let other = scratch.commit(None, |root| {
        old(root);
        fs::write(root.join("d/unseen"), "unseen").unwrap();
        fs::write(root.join("d/sub/unseen"), "unseen").unwrap();
    });
    let merged = snapshots.reparent(anew, Some(other), &CommitInfo::default(), &scratch.lease).unwrap();
    assert_eq!(names(&scratch.tree(merged)), ["d", "d/new", "d/unseen"]);
}
