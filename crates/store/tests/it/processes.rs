//! Several processes on one state, some of them killed.
//!
//! The other process is this test binary, told by an environment variable to run [`child`] only.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use slipway_model::Digest;
use slipway_store::{
    CommitInfo, DiffOptions, GcPolicy, IngestOutcome, LayerFormat, PruneOptions, Sharing, Store,
    UnpackOptions,
};

use crate::support::{Scratch, archive, can_mount, change_in, file};

const ROLE: &str = "SLIPWAY_STORE_TEST_ROLE";
const ROOT: &str = "SLIPWAY_STORE_TEST_ROOT";

fn spawn(role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--nocapture"])
        .env(ROLE, role)
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(if role == "forever" { Stdio::piped() } else { Stdio::null() })
        .spawn()
        .unwrap()
}

#[test]
fn child() {
    let (Ok(role), Some(root)) = (std::env::var(ROLE), std::env::var_os(ROOT)) else { return };
    let root = Path::new(&root);
    match role.as_str() {
        "build" => build(root, 20),
        "forever" => build(root, usize::MAX),
        "download" => download(root),
        other => panic!("unknown role {other}"),
    }
}

/// Tells whoever reads that the build is one step further.
fn step() {
    println!("step");
}

/// What a build does to the store, over and over.
fn build(root: &Path, rounds: usize) {
    let store = Store::open(root).unwrap();
    for round in 0..rounds {
        let lease = store.lease().unwrap();
        step();
        let layer = archive(&[file("base", &"base".repeat(50_000)), file("round", &(round % 7).to_string())]);
        let blob = slipway_store::LayerBlob {
            descriptor: slipway_model::Descriptor::of(slipway_model::MediaType::OCI_LAYER, &layer),
            diff_id: Digest::of(&layer),
        };
        store.content().put(&layer, &lease).unwrap();
        step();
        let snapshots = store.snapshots();
        let base = snapshots.add_layer(None, &blob, &CommitInfo::default(), &lease).unwrap();
        snapshots.unpack_chain(base, &UnpackOptions::default(), &lease).unwrap();
        step();
        let key = Digest::of(format!("key {}", round % 5));
        let cached = store.cache().acquire(&key, &lease).unwrap();
        let top = match cached {
            Some(record) => record.snapshots[0],
            None => {
                let active = snapshots.prepare(Some(base), &lease).unwrap();
                change_in(&active, |root| std::fs::write(root.join("out"), "out").unwrap());
                step();
                let id = active.commit(&CommitInfo::default()).unwrap();
                store.cache().put(&key, &[], b"", &[id], &lease).unwrap();
                id
            }
        };
        let blob =
            snapshots.export_layer(top, &LayerFormat::default(), &DiffOptions::default(), &lease).unwrap();
        step();
        assert!(store.content().contains(&blob.descriptor.digest).unwrap().is_some());
        let view = snapshots.mount_view(top).unwrap();
        assert_eq!(std::fs::read(crate::support::path_of(&view).join("out")).unwrap(), b"out");
        let mount =
            store.cache_mounts().acquire("shared", Sharing::Locked, &lease, &|_| Ok(()), &|| false).unwrap();
        std::fs::write(mount.path().join("round"), round.to_string()).unwrap();
    }
}

fn download(root: &Path) {
    let store = Store::open(root).unwrap();
    let lease = store.lease().unwrap();
    let bytes = vec![3u8; 1 << 20];
    let expected = (Digest::of(&bytes), bytes.len() as u64);
    if let IngestOutcome::Started(mut ingest) =
        store.content().ingest_or_wait(expected, &lease, &|| false).unwrap()
    {
        let offset = usize::try_from(ingest.offset()).unwrap();
        ingest.write_all(&bytes[offset..]).unwrap();
        ingest.commit().unwrap();
        std::fs::File::options()
            .append(true)
            .create(true)
            .open(root.join("downloads"))
            .unwrap()
            .write_all(b"x")
            .unwrap();
    }
}

/// Everything that a lease does not hold goes, and what is left can be used.
fn check(root: &Path) {
    let store = Store::open(root).unwrap();
    build(root, 2);
    store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    for directory in ["snapshots", "blobs/sha256", "leases", "trash"] {
        let left: Vec<_> =
            std::fs::read_dir(root.join(directory)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn builds_and_collections_at_once() {
    if !can_mount("builds_and_collections_at_once") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state");
    let mut children: Vec<Child> = (0..4).map(|_| spawn("build", &root)).collect();
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        // The state appears with the first child.
        Store::open(&root).unwrap().prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check(&root);
}

#[test]
fn killed_at_any_moment() {
    if !can_mount("killed_at_any_moment") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state");
    Store::open(&root).unwrap();
    for round in 0..12u64 {
        let mut children = [spawn("forever", &root), spawn("forever", &root)];
        // The moment of death is the point: each round a few steps further into what a build does.
        let mut progress = std::io::BufReader::new(children[0].stdout.take().unwrap());
        for _ in 0..5 + 3 * round {
            let mut line = String::new();
            assert_ne!(progress.read_line(&mut line).unwrap(), 0, "the build ended by itself");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if round % 3 == 0 {
            let store = Store::open(&root).unwrap();
            let policy = GcPolicy::default_for(slipway_store::disk_size(&root));
            store.collect_garbage(&policy).unwrap();
        }
    }
    check(&root);
}

#[test]
fn one_of_many_downloads() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state");
    let children: Vec<Child> = (0..6).map(|_| spawn("download", &root)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(std::fs::read(root.join("downloads")).unwrap(), b"x");
}

#[test]
fn threads_and_handles_share_one_chain() {
    if !can_mount("threads_and_handles_share_one_chain") {
        return;
    }
    let scratch = Scratch::new();
    let archives: Vec<_> =
        (0..6).map(|n| archive(&[file(&format!("d{n}/f"), &"x".repeat(100_000))])).collect();
    let id = scratch.image(&archives);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(scratch.store.root()).unwrap();
                let lease = store.lease().unwrap();
                store.snapshots().unpack_chain(id, &UnpackOptions::default(), &lease).unwrap();
            });
        }
    });
    assert_eq!(scratch.tree(id).len(), 12);
    let used = std::fs::read_dir(scratch.store.root().join("snapshots")).unwrap().count();
    assert_eq!(used, 6);
}
