//! Layers of images: extracted independently, right together.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;

use slipway_store::{CommitInfo, SnapshotState, StoreError, UnpackOptions};

use crate::support::{Raw, Scratch, archive, can_mount, dir, file, hard_link, names, path_of, symlink};

fn unpack(scratch: &Scratch, archives: &[Vec<u8>]) -> slipway_store::SnapshotId {
    let id = scratch.image(archives);
    scratch.store.snapshots().unpack_chain(id, &UnpackOptions::default(), &scratch.lease).unwrap();
    assert!(scratch.store.snapshots().is_ready(id).unwrap());
    id
}

#[test]
fn whiteouts_and_opaque_directories() {
    if !can_mount("whiteouts_and_opaque_directories") {
        return;
    }
    let scratch = Scratch::new();
    let id = unpack(
        &scratch,
        &[
            archive(&[
                dir("a"),
                file("a/1", "1"),
                file("a/2", "2"),
                dir("b"),
                file("b/1", "1"),
                dir("c"),
                file("c/1", ""),
            ]),
            archive(&[
                file("a/.wh.1", ""),
                dir("b"),
                file("b/.wh..wh..opq", ""),
                file("b/2", "new"),
                file(".wh.c", ""),
            ]),
            archive(&[dir("c"), file("c/2", ""), file(".wh..wh.plnk", ""), file("a/.wh.none", "")]),
        ],
    );
    assert_eq!(names(&scratch.tree(id)), ["a", "a/2", "b", "b/2", "c", "c/2"]);
}

#[test]
fn implied_directories_are_those_of_the_parent() {
    if !can_mount("implied_directories_are_those_of_the_parent") {
        return;
    }
    let scratch = Scratch::new();
    let tmp = Raw { mode: 0o1777, ..dir("tmp") };
    let deep = Raw { mode: 0o700, ..dir("tmp/deep") };
    let id =
        unpack(&scratch, &[archive(&[tmp, deep]), archive(&[file("tmp/deep/f", "f"), file("new/f", "")])]);
    let tree = scratch.tree(id);
    assert_eq!(tree["tmp"], "1777 0:0 dir");
    assert_eq!(tree["tmp/deep"], "700 0:0 dir");
    assert_eq!(tree["new"], "755 0:0 dir");
    let view = scratch.store.snapshots().mount_view(id).unwrap();
    assert_eq!(std::fs::metadata(path_of(&view).join("tmp")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn paths_through_links_of_the_parent_reach_their_target() {
    if !can_mount("paths_through_links_of_the_parent_reach_their_target") {
        return;
    }
    let scratch = Scratch::new();
    let base = archive(&[
        dir("usr"),
        dir("usr/lib"),
        file("usr/lib/old", "old"),
        symlink("lib", "usr/lib"),
        file("top", "t"),
    ]);
    let id = unpack(
        &scratch,
        &[
            base,
            archive(&[file("lib/new", "new"), file("lib/.wh.old", ""), hard_link("copy", "top")]),
            archive(&[symlink("usr/abs", "/usr/lib"), file("usr/abs/third", "3")]),
        ],
    );
    let tree = scratch.tree(id);
    assert_eq!(
        names(&tree),
        ["copy", "lib", "top", "usr", "usr/abs", "usr/lib", "usr/lib/new", "usr/lib/third"]
    );
    assert_eq!(tree["lib"], "777 0:0 -> usr/lib");
    assert_eq!(tree["copy"], "644 0:0 t");
}

#[test]
fn entries_replace_what_came_before_them() {
    if !can_mount("entries_replace_what_came_before_them") {
        return;
    }
    let scratch = Scratch::new();
    let id = unpack(
        &scratch,
        &[
            archive(&[dir("d"), file("d/below", ""), file("f", "below"), dir("e"), file("e/below", "")]),
            archive(&[
                file("f", "first"),
                file("f", "second"),
                file("x", ""),
                dir("x"),
                file("x/in", ""),
                dir("y"),
                file("y/in", ""),
                file("y", "file"),
                // Removed below, then made again: nothing of the old one shows.
                file(".wh.d", ""),
                dir("d"),
                file("d/new", ""),
                dir("e"),
                file("e/new", ""),
                file(".wh.e", ""),
            ]),
        ],
    );
    let tree = scratch.tree(id);
    assert_eq!(names(&tree), ["d", "d/new", "e", "e/new", "f", "x", "x/in", "y"]);
    assert_eq!(tree["f"], "644 0:0 second");
}

#[test]
fn a_sparse_file_of_gnu_tar() {
    if !can_mount("a_sparse_file_of_gnu_tar") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.dir.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 20).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=1.0"],
        &["--format=pax", "--sparse-version=0.1"],
    ] {
        let mut tar = std::process::Command::new("tar");
        tar.args(format).args(["-cS", "-C"]).arg(scratch.dir.path()).arg("sparse");
        let output = tar.output().unwrap();
        assert!(output.status.success());
        let id = unpack(&scratch, &[output.stdout]);
        let view = scratch.store.snapshots().mount_view(id).unwrap();
        assert_eq!(std::fs::read(path_of(&view).join("sparse")).unwrap(), std::fs::read(&path).unwrap());
    }
}

#[test]
fn layers_may_be_unpacked_in_any_order() {
    if !can_mount("layers_may_be_unpacked_in_any_order") {
        return;
    }
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let tmp = Raw { mode: 0o1777, ..dir("tmp") };
    let id =
        scratch.image(&[archive(&[tmp]), archive(&[file("tmp/a", "a")]), archive(&[file("tmp/b", "b")])]);
    let chain = snapshots.chain(id).unwrap();
    assert_eq!(snapshots.needed_blobs(id).unwrap(), []);
    for &layer in chain.iter().rev() {
        snapshots.unpack_layer(layer, &UnpackOptions::default(), &scratch.lease).unwrap();
    }
    snapshots.unpack_chain(id, &UnpackOptions::default(), &scratch.lease).unwrap();
    assert_eq!(scratch.tree(id)["tmp"], "1777 0:0 dir");
    assert_eq!(names(&scratch.tree(id)), ["tmp", "tmp/a", "tmp/b"]);
}

#[test]
fn a_layer_is_read_from_a_stream() {
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let bytes = archive(&[file("a", "a")]);
    let blob = scratch.layer(&bytes);
    let id = snapshots.add_layer(None, &blob, &CommitInfo::default(), &scratch.lease).unwrap();
    let options = UnpackOptions::default();
    let cut = snapshots.unpack_from(id, &blob, &bytes[..600], &options, &scratch.lease);
    assert!(matches!(cut, Err(StoreError::MalformedLayer { .. })));
    assert_eq!(snapshots.get(id).unwrap().state, SnapshotState::Lazy);
    snapshots.unpack_from(id, &blob, bytes.as_slice(), &options, &scratch.lease).unwrap();
    assert_eq!(snapshots.get(id).unwrap().state, SnapshotState::Ready);
}

#[test]
fn unpacking_can_be_cancelled_and_done_later() {
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let id = scratch.image(&[archive(&[file("a", "a")])]);
    let cancel = UnpackOptions { parallelism: 2, progress: &|_| ControlFlow::Break(()) };
    assert!(matches!(snapshots.unpack_chain(id, &cancel, &scratch.lease), Err(StoreError::Cancelled)));
    snapshots.unpack_chain(id, &UnpackOptions::default(), &scratch.lease).unwrap();
}

#[test]
fn a_layer_must_have_its_diff_id() {
    let scratch = Scratch::new();
    let snapshots = scratch.store.snapshots();
    let mut blob = scratch.layer(&archive(&[file("a", "a")]));
    blob.diff_id = slipway_model::Digest::of("another");
    let id = snapshots.add_layer(None, &blob, &CommitInfo::default(), &scratch.lease).unwrap();
    let error = snapshots.unpack_chain(id, &UnpackOptions::default(), &scratch.lease).unwrap_err();
    assert!(matches!(error, StoreError::DiffIdMismatch { .. }), "{error}");
    assert_eq!(snapshots.get(id).unwrap().state, SnapshotState::Lazy);
}

#[test]
fn owners_and_devices_in_a_user_namespace() {
    let scratch = Scratch::new();
    let device = Raw { flag: b'3', ..file("null", "") };
    let mut owned = crate::support::header(&file("owned", ""));
    owned[108..115].copy_from_slice(b"0177777");
    crate::support::seal(&mut owned);
    let bytes = [archive(&[device])[..512].to_vec(), owned.to_vec(), vec![0; 1024]].concat();
    let id = scratch.image(&[bytes]);
    let unpacked = scratch.store.snapshots().unpack_chain(id, &UnpackOptions::default(), &scratch.lease);
    match unpacked {
        Ok(()) => {
            let root = &scratch.store.snapshots().view(id).unwrap().lower[0];
            assert_eq!(std::fs::metadata(root.join("owned")).unwrap().uid(), 0o177_777);
        }
        // Where this user has too few ids, the error says so.
        Err(StoreError::LayerEntry {
            entry,
            fault: slipway_store::EntryFault::UnmappedOwner { uid, .. },
            ..
        }) => {
            assert_eq!((entry.as_str(), uid), ("owned", 0o177_777));
        }
        Err(error) => panic!("{error:?}"),
    }
}
