//! Archives made to harm.

use slipway_store::{EntryFault, StoreError, UnpackOptions};

use crate::support::{Raw, Scratch, archive, can_mount, dir, file, hard_link, header, seal, symlink};

fn unpack(archives: &[Vec<u8>]) -> (Scratch, StoreError) {
    let scratch = Scratch::new();
    let id = scratch.image(archives);
    let result = scratch.store.snapshots().unpack_chain(id, &UnpackOptions::default(), &scratch.lease);
    (scratch, result.expect_err("the layer is bad"))
}

#[track_caller]
fn assert_fault(entries: &[Raw<'_>], name: &str, expected: impl Fn(&EntryFault) -> bool) {
    // Lowest and over a parent; the latter needs mounts.
    let bad = archive(entries);
    let mut images = vec![vec![bad.clone()]];
    if can_mount("the half of a test with hostile layers over a parent") {
        images.push(vec![archive(&[dir("base")]), bad.clone()]);
    }
    for archives in images {
        let (scratch, error) = unpack(&archives);
        match &error {
            StoreError::LayerEntry { layer, entry, fault } => {
                assert_eq!((*layer, entry.as_str()), (slipway_model::Digest::of(&bad), name));
                assert!(expected(fault), "{fault:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!scratch.dir.path().join("escaped").exists());
        let left = std::fs::read_dir(scratch.store.root().join("snapshots")).unwrap().count();
        assert!(left < archives.len(), "the bad layer's directory is gone");
    }
}

#[test]
fn paths_that_leave_the_root() {
    assert_fault(&[file("../escaped", "")], "../escaped", |f| matches!(f, EntryFault::ParentDirectory));
    assert_fault(&[file("a/../../escaped", "")], "a/../../escaped", |f| {
        matches!(f, EntryFault::ParentDirectory)
    });
    assert_fault(&[file("/escaped", "")], "/escaped", |f| matches!(f, EntryFault::Absolute));
    assert_fault(&[file("../.wh.a", "")], "../.wh.a", |f| matches!(f, EntryFault::ParentDirectory));
}

#[test]
fn links_that_leave_the_root() {
    let up = "../../../../../../../../tmp";
    assert_fault(&[symlink("l", up), file("l/escaped", "")], "l/escaped", |f| {
        matches!(f, EntryFault::Escapes)
    });
    assert_fault(&[symlink("l", up), hard_link("h", "l/x")], "h", |f| matches!(f, EntryFault::Escapes));
    assert_fault(&[symlink("l", "m"), symlink("m", "l"), file("l/x", "")], "l/x", |f| {
        matches!(f, EntryFault::LinkLoop)
    });
    assert_fault(&[hard_link("h", "../../etc/passwd")], "h", |f| matches!(f, EntryFault::ParentDirectory));
    assert_fault(&[hard_link("h", "/etc/passwd")], "h", |f| matches!(f, EntryFault::LinkTarget(_)));
}

#[test]
fn an_absolute_link_stays_inside() {
    let scratch = Scratch::new();
    let outside = scratch.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap().to_owned();
    let id = scratch.image(&[archive(&[symlink("l", &target), file("l/file", "x")])]);
    scratch.store.snapshots().unpack_chain(id, &UnpackOptions::default(), &scratch.lease).unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let root = scratch.store.snapshots().view(id).unwrap().lower[0].clone();
    assert!(root.join(target.trim_start_matches('/')).join("file").exists());
}

#[test]
fn things_that_are_nothing() {
    assert_fault(&[file("f", ""), file("f/x", "")], "f/x", |f| matches!(f, EntryFault::NotADirectory));
    assert_fault(&[file("a/.wh.", "")], "a/.wh.", |f| matches!(f, EntryFault::Whiteout));
    assert_fault(&[file(".wh...", "")], ".wh...", |f| matches!(f, EntryFault::Whiteout));
    assert_fault(&[Raw { flag: b'Q', ..file("q", "") }], "q", |f| matches!(f, EntryFault::Type('Q')));
    assert_fault(&[hard_link("h", "missing")], "h", |f| matches!(f, EntryFault::LinkTarget(_)));
    assert_fault(&[dir("d"), hard_link("h", "d")], "h", |f| matches!(f, EntryFault::Io(_)));
}

#[test]
fn attributes_of_overlayfs_are_not_taken_over() {
    let scratch = Scratch::new();
    let mut bytes = Vec::new();
    let record = |key: &str, value: &str| {
        let rest = key.len() + value.len() + 3;
        format!("{} {key}={value}\n", rest + 2)
    };
    let pax =
        record("SCHILY.xattr.user.overlay.opaque", "y") + &record("SCHILY.xattr.trusted.overlay.opaque", "y");
    bytes.extend_from_slice(&archive(&[Raw { flag: b'x', ..file("pax", &pax) }])[..1024]);
    bytes.extend_from_slice(&archive(&[dir("d")]));
    let id = scratch.image(&[bytes]);
    scratch.store.snapshots().unpack_chain(id, &UnpackOptions::default(), &scratch.lease).unwrap();
    let directory = scratch.store.snapshots().view(id).unwrap().lower[0].join("d");
    for name in ["user.overlay.opaque", "trusted.overlay.opaque"] {
        assert!(rustix::fs::getxattr(&directory, name, &mut [0u8; 8]).is_err(), "{name}");
    }
}

#[test]
fn broken_archives() {
    let mut altered = archive(&[file("a", "a")]);
    altered[0] = b'b';
    let mut huge = header(&file("huge", "x"));
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut huge);
    let mut owner = header(&file("owner", ""));
    owner[108..116].copy_from_slice(&[0x80, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut owner);
    let size = Raw { flag: b'x', ..file("pax", "12 size=xyz\n") };
    let endless = Raw { flag: b'x', ..file("pax", "99999999 path=a\n") };
    for bytes in [
        altered,
        huge.to_vec(),
        archive(&[size, file("a", "")]),
        archive(&[endless, file("a", "")]),
        b"not an archive at all".repeat(100),
        vec![0x1f, 0x8b, 8, 0, 1, 2, 3],
        vec![0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3],
    ] {
        let (_, error) = unpack(&[bytes]);
        assert!(matches!(error, StoreError::MalformedLayer { .. }), "{error:?}");
    }
    let (_, error) = unpack(&[owner.to_vec()]);
    assert!(matches!(error, StoreError::LayerEntry { fault: EntryFault::Owner { .. }, .. }), "{error:?}");
}

#[test]
fn a_truncated_blob() {
    use std::io::Write as _;
    let mut compressed = Vec::new();
    let bytes = archive(&[file("a", &"content ".repeat(1000))]);
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    compressed.extend(child.wait_with_output().unwrap().stdout);
    compressed.truncate(compressed.len() / 2);
    let (_, error) = unpack(&[compressed]);
    assert!(matches!(error, StoreError::MalformedLayer { .. }), "{error:?}");
}

#[test]
fn any_single_altered_byte_is_an_error_or_another_tree_but_no_panic() {
    let bytes = archive(&[
        dir("d"),
        file("d/f", "content"),
        symlink("s", "d"),
        hard_link("h", "d/f"),
        file("s/x", ""),
    ]);
    let scratch = Scratch::new();
    for at in (0..bytes.len()).step_by(37) {
        for value in [0u8, 0xff, b'/', b'7'] {
            let mut altered = bytes.clone();
            altered[at] = value;
            // The checksum of the header it is in, so that the byte is looked at.
            let block = at / 512 * 512;
            if bytes[block + 257..].starts_with(b"ustar") {
                let header: &mut [u8; 512] = (&mut altered[block..block + 512]).try_into().unwrap();
                seal(header);
            }
            let id = scratch.image(&[altered]);
            let _ = scratch.store.snapshots().unpack_chain(id, &UnpackOptions::default(), &scratch.lease);
        }
    }
}
