//! From a tree to a blob and back, read by other programs on the way.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use slipway_model::Digest;
use slipway_model::solve::Compression;
use slipway_store::{
    BlobWatcher, CommitInfo, DiffOptions, FileObserver, LayerFormat, StoreError, UnpackOptions,
};

use crate::support::{Scratch, can_mount, is_real_root, list, path_of, pipe, tar_names};

const LONG: &str =
    "a-rather-long-name-of-a-directory-that-goes-on-and-on-until-it-is-long-enough-for-the-test";

/// A tree with one of everything.
fn populate(root: &Path) {
    let write = |name: &str, content: &[u8]| std::fs::write(root.join(name), content).unwrap();
    std::fs::create_dir_all(root.join(LONG).join(LONG).join(LONG)).unwrap();
    write(&format!("{LONG}/{LONG}/{LONG}/file"), b"deep");
    write("empty", b"");
    write("block", &[b'x'; 512]);
    write("large", &vec![b'y'; 700_001]);
    write("name with spaces\nand a newline", b"odd");
    write("setuid", b"s");
    std::fs::set_permissions(root.join("setuid"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::hard_link(root.join("block"), root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink(format!("{LONG}/{LONG}"), root.join("long-link")).unwrap();
    std::os::unix::fs::lchown(root.join("empty"), Some(3_000_000), Some(2_097_152)).unwrap();
    std::fs::create_dir(root.join("sticky")).unwrap();
    std::fs::set_permissions(root.join("sticky"), PermissionsExt::from_mode(0o1777)).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, mode, null).unwrap();
    let value = b"a value\nwith a newline and = sign";
    rustix::fs::setxattr(root.join("large"), "user.note", value, XattrFlags::empty()).unwrap();
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    rustix::fs::setxattr(root.join("block"), "security.capability", capability, XattrFlags::empty()).unwrap();
    set_time(&root.join("block"), -86_400);
    set_time(&root.join("sticky"), 1_700_000_000);
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn a_tree_survives_export_and_unpack() {
    if !is_real_root("a_tree_survives_export_and_unpack") {
        return;
    }
    let from = Scratch::new();
    let id = from.commit(None, populate);
    let original = from.tree(id);
    let mut diff_ids = Vec::new();
    for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
        let format = LayerFormat { compression, ..LayerFormat::default() };
        let layer =
            from.store.snapshots().export_layer(id, &format, &DiffOptions::default(), &from.lease).unwrap();
        diff_ids.push(layer.diff_id);
        let blob = from.store.content().read(&layer.descriptor.digest, 1 << 30).unwrap();
        match compression {
            Compression::Gzip => drop(pipe(Command::new("gzip").arg("-t"), &blob)),
            Compression::Zstd => drop(pipe(Command::new("zstd").args(["-t", "-q"]), &blob)),
            Compression::Uncompressed => assert_eq!(Digest::of(&blob), layer.diff_id),
        }
        let to = Scratch::new();
        to.store.content().put(&blob, &to.lease).unwrap();
        let unpacked =
            to.store.snapshots().add_layer(None, &layer, &CommitInfo::default(), &to.lease).unwrap();
        to.store.snapshots().unpack_chain(unpacked, &UnpackOptions::default(), &to.lease).unwrap();
        assert_eq!(to.tree(unpacked), original);
        check_details(&to.store.snapshots().view(unpacked).unwrap().lower[0]);
        // An imported layer is exported as it came.
        let again = to.store.snapshots().export_layer(unpacked, &format, &DiffOptions::default(), &to.lease);
        assert_eq!(again.unwrap().descriptor, layer.descriptor);
    }
    assert!(diff_ids.iter().all(|diff_id| *diff_id == diff_ids[0]));
    let info = from.store.snapshots().get(id).unwrap();
    assert_eq!((info.diff_id, info.chain_id), (Some(diff_ids[0]), Some(diff_ids[0])));
}

fn check_details(root: &Path) {
    let stat = |name: &str| rustix::fs::lstat(root.join(name)).unwrap();
    assert_eq!(stat("block").st_ino, stat("link").st_ino);
    assert_eq!(stat("block").st_mtime, -86_400);
    assert_eq!(stat("sticky").st_mtime, 1_700_000_000);
    let mut value = [0u8; 100];
    let length = rustix::fs::getxattr(root.join("large"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"a value\nwith a newline and = sign");
    assert_eq!(rustix::fs::getxattr(root.join("link"), "security.capability", &mut value), Ok(20));
}

#[test]
fn gnu_tar_and_python_agree() {
    if !is_real_root("gnu_tar_and_python_agree") {
        return;
    }
    let scratch = Scratch::new();
    let id = scratch.commit(None, populate);
    let archive = scratch.diff(id);
    let out = scratch.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let mut tar = Command::new("tar");
    pipe(tar.args(["-xp", "--same-owner", "--xattrs", "--xattrs-include=*", "-C"]).arg(&out), &archive);
    assert_eq!(list(&out), scratch.tree(id));
    check_details(&out);
    let script = "import sys, tarfile
for m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'):
    print(m.name.replace('\\n', '?'), m.type.decode(), oct(m.mode), m.uid, m.gid, int(m.mtime), m.size, m.linkname)";
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED the half of gnu_tar_and_python_agree that needs python3");
        return;
    }
    let listing = pipe(Command::new("python3").args(["-c", script]), &archive);
    assert!(listing.contains("empty 0 0o644 3000000 2097152 "), "{listing}");
    assert!(listing.contains(" 0 0o644 0 0 -86400 512 \n"), "{listing}");
    assert!(listing.contains(&format!("{LONG}/{LONG}/{LONG}/file 0 ")), "{listing}");
    assert!(listing.contains(" 1 ") && listing.contains("name with spaces?and a newline"), "{listing}");
}

#[test]
fn archives_are_deterministic_and_sorted() {
    if !can_mount("archives_are_deterministic_and_sorted") {
        return;
    }
    let scratch = Scratch::new();
    let fill = |names: &[&str]| {
        scratch.commit(None, |root| {
            for name in names {
                std::fs::create_dir(root.join(name)).unwrap();
                std::fs::write(root.join(name).join("f"), name.as_bytes()).unwrap();
                set_time(&root.join(name).join("f"), 1_600_000_000);
            }
            names.iter().for_each(|name| set_time(&root.join(name), 1_600_000_000));
        })
    };
    let one = scratch.diff(fill(&["b", "a", "c"]));
    assert_eq!(one, scratch.diff(fill(&["c", "a", "b"])));
    assert_eq!(tar_names(&one), ["a/", "a/f", "b/", "b/f", "c/", "c/f"]);
}

#[test]
fn times_are_clamped_and_files_observed() {
    struct Seen(Mutex<Vec<(String, Vec<u8>)>>);
    impl FileObserver for Seen {
        fn file(&self, path: &[u8], _mode: u32, first: &[u8]) {
            self.0.lock().unwrap().push((String::from_utf8_lossy(path).into_owned(), first.to_vec()));
        }
    }
    if !can_mount("times_are_clamped_and_files_observed") {
        return;
    }
    let scratch = Scratch::new();
    let id = scratch.commit(None, |root| {
        std::fs::write(root.join("new"), vec![b'n'; 1000]).unwrap();
        std::fs::write(root.join("old"), b"").unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1000);
        std::fs::File::options().write(true).open(root.join("old")).unwrap().set_modified(old).unwrap();
    });
    let snapshots = scratch.store.snapshots();
    let seen = Seen(Mutex::default());
    let clamped = DiffOptions { clamp_mtime: Some(5000), observer: Some(&seen), watcher: None };
    let mut archive = Vec::new();
    snapshots.write_diff(id, &mut archive, &clamped).unwrap();
    let listing = pipe(Command::new("tar").args(["-tv", "--utc", "--full-time"]), &archive);
    assert!(
        listing.contains("1970-01-01 01:23:20 new") && listing.contains("1970-01-01 00:16:40 old"),
        "{listing}"
    );
    let seen = seen.0.into_inner().unwrap();
    assert_eq!(seen, [("new".to_owned(), vec![b'n'; 256]), ("old".to_owned(), vec![])]);
    let format = LayerFormat::default();
    let plain = snapshots.export_layer(id, &format, &DiffOptions::default(), &scratch.lease).unwrap();
    let clamped = DiffOptions { clamp_mtime: Some(5000), ..DiffOptions::default() };
    let rewritten = snapshots.export_layer(id, &format, &clamped, &scratch.lease).unwrap();
    assert_ne!(plain.diff_id, rewritten.diff_id);
    assert_eq!(rewritten.diff_id, Digest::of(&archive));
    assert_eq!(snapshots.get(id).unwrap().diff_id, Some(plain.diff_id));
}

#[test]
fn a_layer_nobody_wants_any_more_ends_within_a_file() {
    struct Cancelled(AtomicBool);
    impl FileObserver for Cancelled {
        fn file(&self, _path: &[u8], _mode: u32, _first: &[u8]) {
            self.0.store(true, Ordering::Relaxed);
        }

        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
    if !can_mount("a_layer_nobody_wants_any_more_ends_within_a_file") {
        return;
    }
    let scratch = Scratch::new();
    let id = scratch.commit(None, |root| {
        // Far more than could be read in the time that a test has.
        std::fs::File::create(root.join("huge")).unwrap().set_len(1 << 36).unwrap();
    });
    let observer = Cancelled(AtomicBool::new(false));
    let options = DiffOptions { observer: Some(&observer), ..DiffOptions::default() };
    for compression in [Compression::Uncompressed, Compression::Zstd] {
        observer.0.store(false, Ordering::Relaxed);
        let format = LayerFormat { compression, ..LayerFormat::default() };
        let outcome = scratch.store.snapshots().export_layer(id, &format, &options, &scratch.lease);
        assert!(matches!(outcome, Err(StoreError::Cancelled)), "{outcome:?}");
    }
}

#[test]
fn a_base_layer_is_converted_only_by_force() {
    let scratch = Scratch::new();
    let archive = crate::support::archive(&[crate::support::file("a", "content")]);
    let id = scratch.image(std::slice::from_ref(&archive));
    let snapshots = scratch.store.snapshots();
    let mut format = LayerFormat { compression: Compression::Zstd, ..LayerFormat::default() };
    let options = DiffOptions::default();
    let kept = snapshots.export_layer(id, &format, &options, &scratch.lease).unwrap();
    assert_eq!(kept.descriptor.digest, Digest::of(&archive));
    format.force = true;
    format.oci = false;
    let forced = snapshots.export_layer(id, &format, &options, &scratch.lease).unwrap();
    assert_eq!(forced.descriptor.media_type, slipway_model::MediaType::DOCKER_LAYER_ZSTD);
    assert_eq!((forced.diff_id, forced.is_empty()), (Digest::of(&archive), false));
    let blob = scratch.store.content().read(&forced.descriptor.digest, 1 << 20).unwrap();
    assert_eq!(pipe(Command::new("zstd").arg("-dc"), &blob).into_bytes(), archive);
    // What was made by force is not what the image came with: whoever does not ask for it gets the original.
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
        let format = LayerFormat { compression, ..LayerFormat::default() };
        let again = snapshots.export_layer(id, &format, &options, &scratch.lease).unwrap();
        assert_eq!(again.descriptor, kept.descriptor, "{compression:?}");
    }
    // And whoever does ask for it gets the one that is there.
    let again = snapshots.export_layer(id, &format, &options, &scratch.lease).unwrap();
    assert_eq!(again.descriptor, forced.descriptor);
    // A lazy layer whose blob is elsewhere keeps its descriptor, and cannot be converted.
    let other = Scratch::new();
    let lazy = other.store.snapshots().add_layer(None, &kept, &CommitInfo::default(), &other.lease).unwrap();
    let exported = |force| {
        let format = LayerFormat { force, ..format };
        other.store.snapshots().export_layer(lazy, &format, &options, &other.lease)
    };
    assert_eq!(exported(false).unwrap().descriptor.digest, kept.descriptor.digest);
    assert!(matches!(exported(true), Err(StoreError::BlobMissing(_))));
}

#[test]
fn an_empty_layer_is_known_as_such() {
    if !can_mount("an_empty_layer_is_known_as_such") {
        return;
    }
    let scratch = Scratch::new();
    let base = scratch.commit(None, |root| std::fs::write(root.join("a"), b"a").unwrap());
    let empty = scratch.commit(Some(base), |_| ());
    let format = LayerFormat::default();
    let layer =
        scratch.store.snapshots().export_layer(empty, &format, &DiffOptions::default(), &scratch.lease);
    assert!(layer.unwrap().is_empty());
    let view = scratch.store.snapshots().mount_view(empty).unwrap();
    assert!(path_of(&view).join("a").exists());
    assert!(std::fs::write(path_of(&view).join("b"), b"").is_err());
}

#[test]
fn the_level_asked_for_is_the_level_that_comes() {
    if !can_mount("the_level_asked_for_is_the_level_that_comes") {
        return;
    }
    let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    let own = |level: &[Option<i32>]| {
        let scratch = Scratch::new();
        let id = scratch.commit(None, |root| {
            std::fs::write(root.join("text"), &text).unwrap();
            set_time(&root.join("text"), 1_600_000_000);
            set_time(root, 1_600_000_000);
        });
        let export = |level: &Option<i32>| {
            let format = LayerFormat { level: *level, ..LayerFormat::default() };
            let options = DiffOptions::default();
            scratch.store.snapshots().export_layer(id, &format, &options, &scratch.lease).unwrap().descriptor
        };
        level.iter().map(export).collect::<Vec<_>>().pop().unwrap()
    };
    // What was made at another level before makes no difference.
    assert_eq!(own(&[Some(9), None]), own(&[None]));
    assert_ne!(own(&[Some(9)]), own(&[None]));
}

#[test]
fn a_blob_can_be_read_while_it_is_made() {
    #[derive(Default)]
    struct Reader(Mutex<(Option<File>, Vec<u8>, usize)>);
    impl BlobWatcher for Reader {
        fn begun(&self, file: File) {
            self.0.lock().unwrap().0 = Some(file);
        }

        fn written(&self, bytes: u64) {
            let mut state = self.0.lock().unwrap();
            let mut new = vec![0; bytes as usize - state.1.len()];
            state.0.as_ref().unwrap().read_exact_at(&mut new, state.1.len() as u64).unwrap();
            state.1.extend(new);
            state.2 += 1;
        }
    }
    if !can_mount("a_blob_can_be_read_while_it_is_made") {
        return;
    }
    let scratch = Scratch::new();
    let noise: Vec<u8> =
        (0..2_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let id = scratch.commit(None, |root| std::fs::write(root.join("noise"), &noise).unwrap());
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
        let reader = Reader::default();
        let options = DiffOptions { watcher: Some(&reader), ..DiffOptions::default() };
        let format = LayerFormat { compression, ..LayerFormat::default() };
        let export =
            || scratch.store.snapshots().export_layer(id, &format, &options, &scratch.lease).unwrap();
        let blob = export();
        let (read, times) = {
            let state = reader.0.lock().unwrap();
            (state.1.clone(), state.2)
        };
        assert!(times > 2, "{compression:?}");
        assert_eq!(Digest::of(&read), blob.descriptor.digest, "{compression:?}");
        // Nobody is told of a blob that is there.
        export();
        assert_eq!(reader.0.lock().unwrap().2, times);
    }
}
