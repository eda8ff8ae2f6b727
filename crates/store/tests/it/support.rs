//! What the tests share.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use slipway_model::{Descriptor, Digest, MediaType};
use slipway_store::{ActiveSnapshot, CommitInfo, LayerBlob, Lease, MountedTree, SnapshotId, Store};
use tempfile::TempDir;

pub(crate) struct Scratch {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        Self { store, lease, dir }
    }

    /// Commits a snapshot whose tree was changed by `change`.
    pub(crate) fn commit(&self, parent: Option<SnapshotId>, change: impl FnOnce(&Path)) -> SnapshotId {
        let active = self.store.snapshots().prepare(parent, &self.lease).unwrap();
        change_in(&active, change);
        active.commit(&CommitInfo::default()).unwrap()
    }

    /// Puts an archive into the content store, as it is.
    pub(crate) fn layer(&self, archive: &[u8]) -> LayerBlob {
        let digest = self.store.content().put(archive, &self.lease).unwrap();
        let descriptor = Descriptor::new(MediaType::OCI_LAYER, digest, archive.len() as u64);
        LayerBlob { descriptor, diff_id: Digest::of(archive) }
    }

    /// Adds the layers as an image, lowest first, and returns the top one.
    pub(crate) fn image(&self, archives: &[Vec<u8>]) -> SnapshotId {
        let layers: Vec<_> = archives.iter().map(|a| (self.layer(a), CommitInfo::default())).collect();
        *self.store.snapshots().add_image(&layers, &self.lease).unwrap().last().unwrap()
    }

    pub(crate) fn diff(&self, id: SnapshotId) -> Vec<u8> {
        let mut archive = Vec::new();
        self.store.snapshots().write_diff(id, &mut archive, &Default::default()).unwrap();
        archive
    }

    /// Lists the tree of a snapshot as a user sees it.
    pub(crate) fn tree(&self, id: SnapshotId) -> BTreeMap<String, String> {
        let view = self.store.snapshots().mount_view(id).unwrap();
        list(&path_of(&view))
    }
}

pub(crate) fn change_in(active: &ActiveSnapshot, change: impl FnOnce(&Path)) {
    let tree = active.mount().unwrap();
    change(&path_of(&tree));
}

/// A path that leads to a mount that is attached nowhere.
pub(crate) fn path_of(tree: &MountedTree) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd()))
}

/// Tells whether this process may mount; says so if not.
pub(crate) fn can_mount(test: &str) -> bool {
    let scratch = Scratch::new();
    let active = scratch.store.snapshots().prepare(None, &scratch.lease).unwrap();
    let able = active.mount().is_ok();
    if !able {
        eprintln!("SKIPPED {test}: this process may not mount; run the tests as root");
    }
    able
}

/// Tells whether this process may make devices and give files to anyone; says so if not.
pub(crate) fn is_real_root(test: &str) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let real =
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) && rustix::process::geteuid().is_root();
    if !real {
        eprintln!("SKIPPED {test}: run the tests as root");
    }
    real
}

/// Lists a tree: path to type, mode, owner, and content.
pub(crate) fn list(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut stack = vec![root.join(".")];
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                stack.push(path.clone());
                "dir".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", path.read_link().unwrap().display())
            } else if kind.is_file() {
                String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                format!("device {}", meta.rdev())
            };
            let mode = meta.permissions().mode() & 0o7777;
            let name = path.strip_prefix(root.join(".")).unwrap().display().to_string();
            found.insert(name, format!("{mode:o} {}:{} {what}", meta.uid(), meta.gid()));
        }
    }
    found
}

/// Just the names of [`list`].
pub(crate) fn names(tree: &BTreeMap<String, String>) -> Vec<&str> {
    tree.keys().map(String::as_str).collect()
}

/// Lists an archive with GNU tar: one line for each entry, in order.
pub(crate) fn tar_names(archive: &[u8]) -> Vec<String> {
    let output = pipe(Command::new("tar").args(["-t", "--quoting-style=literal"]), archive);
    output.lines().map(str::to_owned).collect()
}

pub(crate) fn pipe(command: &mut Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One entry of a hand-made archive.
pub(crate) struct Raw<'a> {
    pub(crate) path: &'a str,
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) link: &'a str,
    pub(crate) content: &'a [u8],
}

pub(crate) fn dir(path: &str) -> Raw<'_> {
    Raw { path, flag: b'5', mode: 0o755, link: "", content: b"" }
}

pub(crate) fn file<'a>(path: &'a str, content: &'a str) -> Raw<'a> {
    Raw { path, flag: b'0', mode: 0o644, link: "", content: content.as_bytes() }
}

pub(crate) fn symlink<'a>(path: &'a str, link: &'a str) -> Raw<'a> {
    Raw { path, flag: b'2', mode: 0o777, link, content: b"" }
}

pub(crate) fn hard_link<'a>(path: &'a str, link: &'a str) -> Raw<'a> {
    Raw { path, flag: b'1', mode: 0o644, link, content: b"" }
}

/// Makes an archive, as bad as wanted.
pub(crate) fn archive(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&header(entry));
        bytes.extend_from_slice(entry.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(crate) fn header(entry: &Raw<'_>) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, entry.path.as_bytes());
    put(100, format!("{:07o}", entry.mode).as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", entry.content.len()).as_bytes());
    put(136, format!("{:011o}", 1_700_000_000).as_bytes());
    put(156, &[entry.flag]);
    put(157, entry.link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003");
    seal(&mut block);
    block
}

pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
