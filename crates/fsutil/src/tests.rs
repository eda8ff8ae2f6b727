use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::mpsc;

use super::stat::{MODE_DIR, MODE_SYMLINK};
use super::*;
use crate::fstypes::Stat;
use crate::fstypes::packet::PacketType;

struct From(mpsc::Receiver<Packet>);

impl PacketSource for From {
    fn next(&mut self) -> Result<Option<Packet>, TransferError> {
        Ok(self.0.recv().ok())
    }
}

struct To(mpsc::Sender<Packet>);

impl PacketSink for To {
    fn send(&self, packet: Packet) -> Result<(), TransferError> {
        self.0.send(packet).map_err(|_| TransferError::Ended)
    }
}

fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn transfer(from: SendTree, to: &Path, options: ReceiveOptions) -> Received {
    let (packets, at_receiver) = mpsc::channel();
    let (requests, at_sender) = mpsc::channel();
    let sender = std::thread::spawn(move || send(&mut From(at_sender), &To(packets), &[from], &mut ()));
    let received = receive(&mut From(at_receiver), &To(requests), &open(to), &options).unwrap();
    sender.join().unwrap().unwrap();
    received
}

fn tree(path: &Path) -> SendTree {
    SendTree { prefix: String::new(), root: open(path), extra: BTreeMap::new(), epoch: None }
}

fn fill(source: &Path) {
    std::fs::create_dir_all(source.join("dir/inner")).unwrap();
    std::fs::write(source.join("dir/inner/file"), "contents").unwrap();
    std::fs::write(source.join("dir.txt"), "").unwrap();
    std::fs::write(source.join("big"), vec![7u8; 400_000]).unwrap();
    std::fs::hard_link(source.join("big"), source.join("dir/same")).unwrap();
    symlink("../nowhere", source.join("dir/link")).unwrap();
    std::fs::set_permissions(source.join("dir.txt"), std::fs::Permissions::from_mode(0o4751)).unwrap();
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(source.path());
    std::fs::write(target.path().join("stale"), "x").unwrap();
    let first = transfer(tree(source.path()), target.path(), ReceiveOptions::default());
    assert_eq!((first.files, first.bytes), (3, 400_008));
    let file = |name: &str| target.path().join(name);
    assert!(!file("stale").exists());
    assert_eq!(std::fs::read(file("dir/inner/file")).unwrap(), b"contents");
    assert_eq!(std::fs::read_link(file("dir/link")).unwrap(), Path::new("../nowhere"));
    assert_eq!(std::fs::metadata(file("dir.txt")).unwrap().mode() & 0o7777, 0o4751);
    let inode = |name: &str| std::fs::metadata(file(name)).unwrap().ino();
    assert_eq!(inode("big"), inode("dir/same"));
    let again = transfer(tree(source.path()), target.path(), ReceiveOptions::default());
    assert_eq!((again.files, again.bytes), (0, 0));

    std::fs::write(source.path().join("dir/inner/file"), "changed!").unwrap();
    std::fs::remove_file(source.path().join("dir/link")).unwrap();
    std::fs::create_dir(source.path().join("dir/link")).unwrap();
    let third = transfer(tree(source.path()), target.path(), ReceiveOptions::default());
    assert_eq!((third.files, third.bytes), (1, 8));
    assert!(file("dir/link").is_dir());
    let always = ReceiveOptions { always: true, ..ReceiveOptions::default() };
    assert_eq!(transfer(tree(source.path()), target.path(), always).files, 3);
}

#[test]
fn trees_have_prefixes_and_further_files() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(source.path());
    let extra = BTreeMap::from([("provenance.json".to_owned(), b"{}".to_vec())]);
    let from = SendTree { prefix: "linux_amd64".into(), extra, epoch: Some(1), ..tree(source.path()) };
    std::fs::write(target.path().join("kept"), "x").unwrap();
    let merge = ReceiveOptions { merge: true, ..ReceiveOptions::default() };
    transfer(from, target.path(), merge);
    assert!(target.path().join("kept").exists());
    let text = std::fs::read(target.path().join("linux_amd64/provenance.json")).unwrap();
    assert_eq!(text, b"{}");
    let metadata = std::fs::metadata(target.path().join("linux_amd64/dir/inner/file")).unwrap();
    assert_eq!(metadata.mtime(), 1);
}

#[test]
fn only_the_list_is_kept_where_metadata_is_wanted() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(source.path());
    let wanted: receive::Wanted = Box::new(|path| path == "dir/inner/file");
    let options = ReceiveOptions { wanted: Some(wanted), ..ReceiveOptions::default() };
    let done = transfer(tree(source.path()), target.path(), options);
    assert_eq!((done.entries, done.files), (7, 1));
    assert!(target.path().join(".fsutil-metadata").metadata().unwrap().len() > 100);
    assert!(target.path().join("dir/inner/file").exists() && !target.path().join("big").exists());
}

fn stat(path: &str, mode: u32) -> Packet {
    let stat = Stat { path: path.into(), mode, ..Stat::default() };
    Packet { r#type: PacketType::PacketStat as i32, stat: Some(stat), ..Packet::default() }
}

fn link(path: &str, mode: u32, target: &str) -> Packet {
    let mut packet = stat(path, mode);
    packet.stat.as_mut().unwrap().linkname = target.into();
    packet
}

fn data(id: u32, bytes: &[u8]) -> Packet {
    Packet { r#type: PacketType::PacketData as i32, id, data: bytes.to_vec(), ..Packet::default() }
}

#[test]
fn hostile_senders_are_refused_and_reach_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "precious").unwrap();
    let away = outside.path().to_str().unwrap();
    let cases = [
        vec![stat("../x", 0o644)],
        vec![stat("/x", 0o644)],
        vec![stat("a//b", 0o644)],
        vec![stat("a/../b", 0o644)],
        vec![stat("", 0o644)],
        vec![stat("a/b", 0o644)],
        vec![stat("b", 0o644), stat("a", 0o644)],
        vec![stat("a", 0o644), stat("a", 0o644)],
        vec![stat("a", MODE_DIR | 0o755), stat("b", 0o644), stat("a/c", 0o644)],
        vec![link("a", MODE_SYMLINK | 0o777, away), stat("a/file", 0o644), data(1, b"bad"), data(1, b"")],
        vec![link("a", 0o644, "file")],
        vec![link("a", 0o644, &format!("{away}/file"))],
        vec![data(0, b"x")],
        vec![stat("a", 0o644), data(5, b"x")],
        vec![stat("a", 0o644)],
        vec![stat("a", 1 << 19)],
    ];
    for (index, case) in cases.into_iter().enumerate() {
        let target = tempfile::tempdir().unwrap();
        let (packets, at_receiver) = mpsc::channel();
        let (requests, _at_sender) = mpsc::channel();
        case.into_iter().for_each(|packet| packets.send(packet).unwrap());
        drop(packets);
        let options = ReceiveOptions::default();
        let result = receive(&mut From(at_receiver), &To(requests), &open(target.path()), &options);
        assert!(result.is_err(), "case {index}");
        assert_eq!(std::fs::read(outside.path().join("file")).unwrap(), b"precious", "case {index}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "case {index}");
    }
}

#[test]
fn a_link_in_the_mirror_is_replaced_and_never_followed() {
    let (outside, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("file"), "precious").unwrap();
    symlink(outside.path(), target.path().join("dir")).unwrap();
    symlink(outside.path().join("file"), target.path().join("top")).unwrap();
    let source = tempfile::tempdir().unwrap();
    std::fs::create_dir(source.path().join("dir")).unwrap();
    std::fs::write(source.path().join("dir/file"), "new").unwrap();
    std::fs::write(source.path().join("top"), "new").unwrap();
    transfer(tree(source.path()), target.path(), ReceiveOptions::default());
    assert_eq!(std::fs::read(outside.path().join("file")).unwrap(), b"precious");
    assert_eq!(std::fs::read(target.path().join("dir/file")).unwrap(), b"new");
    assert!(target.path().join("top").symlink_metadata().unwrap().is_file());
}

fn again(from: &Path, to: &Path, known: &List) -> Received {
    let options = ReceiveOptions { known: Some(known.clone()), ..ReceiveOptions::default() };
    transfer(tree(from), to, options)
}

/// Everything below a directory, with what tells one state from another.
fn state(path: &Path, into: &mut Vec<(std::path::PathBuf, u64, u32, i64, Vec<u8>)>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        let contents = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        into.push((path.clone(), metadata.nlink(), metadata.mode(), metadata.mtime_nsec(), contents));
        if metadata.is_dir() {
            state(&path, into);
        }
    }
}

#[test]
fn what_is_listed_as_before_is_not_looked_at() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(source.path());
    let list = transfer(tree(source.path()), target.path(), ReceiveOptions::default()).list.unwrap();
    // Nobody does that to a directory whose list is kept; it shows that the list is trusted.
    std::fs::remove_file(target.path().join("dir.txt")).unwrap();
    let changes = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = changes.clone();
    let changing: Changing = Box::new(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    let known = Some(list.clone());
    let options = ReceiveOptions { known, changing: Some(changing), ..ReceiveOptions::default() };
    let done = transfer(tree(source.path()), target.path(), options);
    assert_eq!((done.entries, done.files, done.list), (7, 0, None));
    assert!(!target.path().join("dir.txt").exists());
    assert_eq!(changes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_known_directory_becomes_what_any_other_would() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 9] = [
        ("a file is written", |top| std::fs::write(top.join("dir/inner/file"), "other").unwrap()),
        ("a file is made", |top| std::fs::write(top.join("a"), "new").unwrap()),
        ("a file goes", |top| std::fs::remove_file(top.join("dir.txt")).unwrap()),
        ("a directory goes", |top| std::fs::remove_dir_all(top.join("dir")).unwrap()),
        ("a link takes a directory's place", |top| {
            std::fs::remove_dir_all(top.join("dir/inner")).unwrap();
            symlink("/etc", top.join("dir/inner")).unwrap();
        }),
        ("a directory takes a file's place", |top| {
            std::fs::remove_file(top.join("dir.txt")).unwrap();
            std::fs::create_dir(top.join("dir.txt")).unwrap();
            std::fs::write(top.join("dir.txt/x"), "x").unwrap();
        }),
        ("two names come apart", |top| {
            let contents = std::fs::read(top.join("big")).unwrap();
            std::fs::remove_file(top.join("dir/same")).unwrap();
            std::fs::write(top.join("dir/same"), contents).unwrap();
        }),
        ("a file of two names is written", |top| std::fs::write(top.join("big"), "small").unwrap()),
        ("a mode changes", |top| {
            std::fs::set_permissions(top.join("dir.txt"), std::fs::Permissions::from_mode(0o600)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let (source, target) = (place("source"), place("target"));
        fill(&source);
        let list = transfer(tree(&source), &target, ReceiveOptions::default()).list.unwrap();
        change(&source);
        let list = again(&source, &target, &list).list.expect(what);
        let fresh = place("fresh");
        let expected = transfer(tree(&source), &fresh, ReceiveOptions::default());
        assert_eq!(Some(list.clone()), expected.list, "{what}");
        let states = [&target, &fresh].map(|top| {
            let mut found = Vec::new();
            state(top, &mut found);
            found.iter_mut().for_each(|found| found.0 = found.0.strip_prefix(top).unwrap().to_owned());
            found.sort();
            found
        });
        assert_eq!(states[0], states[1], "{what}");
        assert_eq!(again(&source, &target, &list).list, None, "{what}");
    }
}

#[test]
fn a_link_may_be_to_another_link_that_was_known() {
    let target = tempfile::tempdir().unwrap();
    let there = std::fs::metadata(target.path()).unwrap();
    let owner = Some((there.uid(), there.gid()));
    let end = |kind: PacketType| Packet { r#type: kind as i32, ..Packet::default() };
    let transfer = |list: &[Packet], contents: bool, known: Option<List>| {
        let (packets, at_receiver) = mpsc::channel();
        let contents = contents.then(|| end(PacketType::PacketData));
        let rest = [Some(end(PacketType::PacketStat)), contents, Some(end(PacketType::PacketFin))];
        let all = list.iter().cloned().chain(rest.into_iter().flatten());
        all.for_each(|packet| packets.send(packet).unwrap());
        let (requests, _at_sender) = mpsc::channel();
        let options = ReceiveOptions { known, owner, ..ReceiveOptions::default() };
        receive(&mut From(at_receiver), &To(requests), &open(target.path()), &options).unwrap()
    };
    let (file, first, second) = (stat("a", 0o644), link("b", 0o644, "a"), link("c", 0o644, "b"));
    let known = transfer(&[file.clone(), first.clone(), second.clone()], true, None).list.unwrap();
    // A change before a link makes it be looked at.
    let between = stat("bb", MODE_DIR | 0o755);
    let after = transfer(&[file, first, between, second], false, Some(known));
    assert_eq!((after.entries, after.files), (4, 0));
    assert_eq!(std::fs::metadata(target.path().join("a")).unwrap().nlink(), 3);
}
