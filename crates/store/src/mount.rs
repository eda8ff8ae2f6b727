//! Overlay mounts that are attached nowhere.
//!
//! A root file system is a file descriptor of a detached mount (`fsopen`, `fsconfig`, `fsmount`): nothing
//! shows in the host's mount table, and the kernel undoes it with the last descriptor, `kill -9` included.
//! The caller needs `CAP_SYS_ADMIN` over its mount namespace: root, or a user namespace with a mount
//! namespace of its own. In the latter, overlayfs keeps its marks in `user.overlay.*`.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::error::{Result, StoreError};

/// The kernel refuses longer strings in `fsconfig`.
const OPTION_LIMIT: usize = 255;

/// How overlayfs works for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// Not in the initial user namespace: `user.overlay.*` and the `userxattr` option.
    pub(crate) user_namespace: bool,
}

impl Flavour {
    pub(crate) fn detect() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let fields: Vec<&str> = map.split_ascii_whitespace().collect();
        Self { user_namespace: fields != ["0", "0", "4294967295"] }
    }

    /// The attribute that hides what lower layers have in a directory.
    pub(crate) fn opaque_attribute(self) -> &'static str {
        if self.user_namespace { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
    }

    /// The attribute of a directory that was renamed; never written by mounts of this module.
    pub(crate) fn redirect_attribute(self) -> &'static str {
        if self.user_namespace { "user.overlay.redirect" } else { "trusted.overlay.redirect" }
    }
}

/// The directories that an overlay mount is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlaySpec {
    /// The lower directories, top first.
    pub lower: Vec<PathBuf>,
    /// Where changes go; without it the mount is read-only.
    pub upper: Option<PathBuf>,
    /// Overlayfs's own directory beside `upper`.
    pub work: Option<PathBuf>,
}

/// A file-system tree, as a descriptor of a detached mount's root.
///
/// The kernel takes the mount apart when its last descriptor is closed, which may take a millisecond; who
/// hands the descriptor to another process leaves that to it.
#[derive(Debug)]
pub struct MountedTree {
    /// Shared only with weak references, which do not keep the mount.
    fd: Arc<OwnedFd>,
}

impl MountedTree {
    /// Returns the descriptor, for `move_mount`.
    pub fn into_fd(self) -> OwnedFd {
        let mut shared = self.fd;
        loop {
            // Not alone only while another thread is in the middle of `ActiveSnapshot::mount`.
            match Arc::try_unwrap(shared) {
                Ok(fd) => return fd,
                Err(back) => shared = back,
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn downgrade(&self) -> Weak<OwnedFd> {
        Arc::downgrade(&self.fd)
    }

    /// Makes another mount of the same tree, which can be attached on its own. Needs Linux 6.15 when
    /// this one is not attached.
    pub fn try_clone(&self) -> Result<Self> {
        clone_mount(self.fd.as_fd())
    }
}

impl AsFd for MountedTree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OverlaySpec {
    /// Mounts the tree, attached nowhere.
    pub(crate) fn mount(&self, flavour: Flavour) -> Result<MountedTree> {
        match (&self.upper, self.lower.as_slice()) {
            (Some(upper), []) => clone_tree(CWD, upper),
            _ => self.mount_overlay(flavour),
        }
    }

    fn mount_overlay(&self, flavour: Flavour) -> Result<MountedTree> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(StoreError::mount("open the overlay file system"))?;
        // The directories' descriptors must live until the mount exists.
        let mut held = Vec::new();
        for lower in self.lowers() {
            let value = option_value(lower, &mut held)?;
            match fsconfig_set_string(context.as_fd(), "lowerdir+", value) {
                Ok(()) => {}
                Err(Errno::INVAL) => return self.mount_attached(flavour),
                Err(error) => return Err(explain("add a lower directory", error, context.as_fd())),
            }
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                let value = option_value(path, &mut held)?;
                fsconfig_set_string(context.as_fd(), key, value)
                    .map_err(|error| explain("set the upper directory", error, context.as_fd()))?;
            }
        }
        for option in self.options(flavour) {
            let set = match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value),
                None => fsconfig_set_flag(context.as_fd(), option),
            };
            set.map_err(|error| explain("set an overlay option", error, context.as_fd()))?;
        }
        fsconfig_create(context.as_fd()).map_err(|e| explain("create the overlay", e, context.as_fd()))?;
        let attributes =
            if self.upper.is_none() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        let fd = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| explain("mount the overlay", error, context.as_fd()))?;
        Ok(MountedTree { fd: Arc::new(fd) })
    }

    /// Lists the lower directories, each once, which is all the kernel takes.
    ///
    /// Where one is there twice, as in a merge of what has a part in common, the lower place adds nothing:
    /// all it holds is above it again, and what is between the two is seen as before.
    fn lowers(&self) -> Vec<&PathBuf> {
        let mut seen = std::collections::HashSet::new();
        self.lower.iter().filter(|lower| seen.insert(lower.as_path())).collect()
    }

    fn options(&self, flavour: Flavour) -> Vec<&'static str> {
        let mut options = vec!["index=off", "metacopy=off"];
        if flavour.user_namespace {
            options.push("userxattr");
        } else {
            options.push("redirect_dir=off");
        }
        if self.upper.is_some() {
            // Unmounting would otherwise flush the whole disk. A snapshot that a power cut damages is
            // rebuilt; see the `snapshot` module.
            options.push("volatile");
        }
        options
    }

    /// Mounts on kernels before 6.8, whose `fsconfig` takes too short a list of lower directories: on a
    /// temporary directory, detached again at once.
    fn mount_attached(&self, flavour: Flavour) -> Result<MountedTree> {
        let mut held = Vec::new();
        let mut data = String::from("lowerdir=");
        for (index, lower) in self.lowers().into_iter().enumerate() {
            // Short and free of the characters that the list gives a meaning.
            let separator = if index == 0 { "" } else { ":" };
            data.push_str(separator);
            data.push_str(&descriptor_path(lower, &mut held)?);
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                data.push_str(&format!(",{key}={}", descriptor_path(path, &mut held)?));
            }
        }
        for option in self.options(flavour) {
            data.push_str(&format!(",{option}"));
        }
        let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL);
        let data = data.map_err(StoreError::mount("join the overlay's options"))?;
        let point = MountPoint::beside(self.lower.last())?;
        rustix::mount::mount("overlay", &point.0, "overlay", MountFlags::empty(), Some(data.as_c_str()))
            .map_err(StoreError::mount("mount the overlay"))?;
        let tree = clone_tree(CWD, &point.0);
        rustix::mount::unmount(&point.0, UnmountFlags::DETACH)
            .map_err(StoreError::mount("detach the overlay"))?;
        tree
    }
}

/// An empty directory that nothing else mounts on, removed when dropped.
struct MountPoint(PathBuf);

impl MountPoint {
    fn beside(directory: Option<&PathBuf>) -> Result<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let parent = directory.and_then(|directory| directory.parent()).unwrap_or(Path::new("/"));
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("mount-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(StoreError::io("create the directory", &path))?;
        Ok(Self(path))
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Clones the mount whose root is `fd`.
pub(crate) fn clone_mount(fd: BorrowedFd<'_>) -> Result<MountedTree> {
    clone_tree(fd, Path::new(""))
}

/// Clones the mount at `path` below `at`, from there down.
fn clone_tree(at: impl AsFd, path: &Path) -> Result<MountedTree> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let fd = open_tree(at, path, flags).map_err(StoreError::mount("clone the mount"))?;
    Ok(MountedTree { fd: Arc::new(fd) })
}

/// The path itself where `fsconfig` takes it as it is, else the path of a descriptor.
fn option_value(path: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let special = |byte: &u8| matches!(byte, b'\\' | b':' | b',');
    match path.to_str() {
        Some(text) if text.len() <= OPTION_LIMIT && !path.as_os_str().as_bytes().iter().any(special) => {
            Ok(text.to_owned())
        }
        _ => descriptor_path(path, held),
    }
}

fn descriptor_path(path: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(StoreError::io("open", path))?;
    let text = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    held.push(fd);
    Ok(text)
}

/// Logs what the kernel says about the mount beside its error number.
fn explain(step: &'static str, error: Errno, context: BorrowedFd<'_>) -> StoreError {
    if let Ok(fd) = context.try_clone_to_owned() {
        let mut file = File::from(fd);
        let mut message = [0; 512];
        while let Ok(read @ 1..) = file.read(&mut message) {
            tracing::debug!(step, "kernel: {}", String::from_utf8_lossy(&message[..read]).trim_end());
        }
    }
    StoreError::mount(step)(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, lowers: usize) -> OverlaySpec {
        // Names with what overlayfs gives a meaning.
        let lower: Vec<_> = (0..lowers).map(|n| dir.join(format!("l,o:w\\er {n}"))).collect();
        let (upper, work) = (dir.join("up:per"), dir.join("work"));
        for (index, path) in lower.iter().chain([&upper, &work]).enumerate() {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join(format!("f{index}")), b"").unwrap();
        }
        std::fs::remove_file(work.join(format!("f{}", lowers + 1))).unwrap();
        OverlaySpec { lower, upper: Some(upper), work: Some(work) }
    }

    fn names(tree: &MountedTree) -> usize {
        crate::tree::list(tree).unwrap().len()
    }

    #[test]
    fn many_layers_with_odd_names() {
        let flavour = Flavour::detect();
        for lowers in [1, 2, 60] {
            let dir = tempfile::tempdir().unwrap();
            let spec = spec(dir.path(), lowers);
            match spec.mount(flavour) {
                Ok(tree) => assert_eq!(names(&tree), lowers + 1),
                Err(error) => eprintln!("SKIPPED many_layers_with_odd_names: {error}; run the tests as root"),
            }
        }
    }

    #[test]
    fn older_kernels_get_an_attached_mount_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), 60);
        match spec.mount_attached(Flavour::detect()) {
            Ok(tree) => {
                assert_eq!(names(&tree), 61);
                let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
                assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
            }
            Err(error) => {
                eprintln!("SKIPPED older_kernels_get_an_attached_mount: {error}; run the tests as root")
            }
        }
    }
}
