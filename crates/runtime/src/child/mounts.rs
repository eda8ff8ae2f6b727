//! The mounts of a step: `/proc`, `/dev`, `/sys`, the given ones, and the masks over the first three.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::points::{self, Keep, Kind, Stub};
use super::{at, devices};
use crate::error::{MountFailure, ProcessError};
use crate::protocol::{MountRequest, SourceRequest};
use crate::server::Place;
use crate::spec::{ProcessSettings, Security};
use crate::sys::mount;

/// Hidden from a step, as the OCI runtime configuration of container engines has it.
const MASKED: [&str; 10] = [
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/firmware",
];
const MASKED_POWERCAP: &str = "sys/devices/virtual/powercap";

/// Shown to a step but not to be written.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

fn flags_of_system() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

fn refused(destination: &str) -> impl Fn(Errno) -> ProcessError + '_ {
    move |errno| ProcessError::Mount {
        destination: destination.to_owned(),
        reason: MountFailure::Refused(errno.raw_os_error()),
    }
}

/// Attaches the root and everything below it; returns the mount points that were made.
///
/// A sandboxed step may make device nodes (images have them) but not open them: every mount it can
/// write to is `nodev`, and the usual devices, and those it is given, are mounts of their own. Otherwise `mknod` would give it
/// the machine's disks.
pub(super) fn build(
    root: &OwnedFd,
    settings: &ProcessSettings,
    given: Given<'_>,
    place: &Place,
) -> Result<Vec<Stub>, ProcessError> {
    let carrier =
        rustix::fs::open("/rootfs", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at("root"))?;
    if settings.security == Security::Sandbox {
        mount::add_attributes(root, MountAttrFlags::MOUNT_ATTR_NODEV, false).map_err(refused("/"))?;
    }
    mount::attach(root, carrier).map_err(refused("/"))?;
    let mut builder = Builder { root, stubs: Vec::new(), settings };
    builder.system(place, &given)?;
    builder.given(given)?;
    if settings.security == Security::Sandbox {
        builder.mask()?;
    }
    Ok(builder.stubs)
}

/// What a request has for `/dev/pts` and to mount.
pub(super) struct Given<'a> {
    pub(super) requests: Vec<MountRequest>,
    pub(super) detached: Vec<OwnedFd>,
    /// The content of small files.
    pub(super) files: &'a [u8],
    pub(super) terminals: Option<&'a OwnedFd>,
    /// The terminal that is `/dev/console`.
    pub(super) console: Option<&'a str>,
}

struct Builder<'a> {
    root: &'a OwnedFd,
    stubs: Vec<Stub>,
    settings: &'a ProcessSettings,
}

impl Builder<'_> {
    /// Mounts `/proc`, `/dev` and `/sys`; their mount points stay in the image, as every builder has it.
    fn system(&mut self, place: &Place, given: &Given<'_>) -> Result<(), ProcessError> {
        for path in ["/proc", "/dev", "/sys"] {
            let stat = rustix::fs::statat(self.root, &path[1..], AtFlags::SYMLINK_NOFOLLOW);
            if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
                let reason = MountFailure::SymbolicLink;
                return Err(ProcessError::Mount { destination: path.to_owned(), reason });
            }
        }
        let proc = mount::new("proc", &[], flags_of_system()).map_err(refused("/proc"))?;
        self.attach(&proc, "/proc", Kind::Directory, Keep::Everything)?;
        let dev = devices::build(self.settings, place, given.console.is_some())?;
        self.attach(&dev, "/dev", Kind::Directory, Keep::Everything)?;
        devices::mount_below(self.root, self.settings, given)?;
        let (sys, is_new) = self.sys()?;
        self.attach(&sys, "/sys", Kind::Directory, Keep::Everything)?;
        if is_new {
            self.cgroup(&sys, place.cgroup_namespace)?;
        }
        Ok(())
    }

    /// Makes `/sys`: a new one, or, where the kernel does not allow that, the host's; also tells which.
    ///
    /// A new one is allowed if the network namespace belongs to this user namespace and no container
    /// around us has covered parts of its own. The host's comes with what is mounted below it.
    fn sys(&self) -> Result<(OwnedFd, bool), ProcessError> {
        let insecure = self.settings.security == Security::Insecure;
        let read_only = if insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        match mount::new("sysfs", &[], flags_of_system() | read_only) {
            Ok(sys) => return Ok((sys, true)),
            Err(Errno::PERM) => {}
            Err(errno) => return Err(refused("/sys")(errno)),
        }
        let sys = mount::clone_tree(CWD, "/sys", true).map_err(refused("/sys"))?;
        if !insecure {
            mount::set_readonly(&sys, true).map_err(refused("/sys"))?;
        }
        Ok((sys, false))
    }

    /// Shows the step its own part of the cgroup tree, for programs that size themselves by it; only an insecure
    /// one may write there. Where the host has a tree for each controller, an insecure step sees these, as they are.
    fn cgroup(&self, sys: &OwnedFd, is_unified: bool) -> Result<(), ProcessError> {
        let refused = refused("/sys/fs/cgroup");
        let own = |more| mount::new("cgroup2", &[], flags_of_system() | more);
        let tree = match (self.settings.security, is_unified) {
            (Security::Sandbox, true) => own(MountAttrFlags::MOUNT_ATTR_RDONLY),
            (Security::Sandbox, false) => return Ok(()),
            (Security::Insecure, true) => own(MountAttrFlags::empty()),
            (Security::Insecure, false) => mount::clone_tree(CWD, "/sys/fs/cgroup", true),
        };
        let Ok(tree) = tree else { return Ok(()) };
        match mount::open_at(sys, "fs/cgroup", OFlags::PATH, ResolveFlags::NO_SYMLINKS) {
            Ok(target) => mount::attach(tree, target).map_err(refused),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(refused(errno)),
        }
    }

    /// Mounts what the request gives, parents first.
    fn given(&mut self, given: Given<'_>) -> Result<(), ProcessError> {
        let Given { requests, detached, files, .. } = given;
        let mut detached = detached.into_iter();
        let shelf = Shelf::new(&requests, files)?;
        for (index, request) in requests.iter().enumerate() {
            let refused = refused(&request.destination);
            let next = |detached: &mut std::vec::IntoIter<OwnedFd>| detached.next().ok_or(Errno::BADMSG);
            let source = match &request.source {
                SourceRequest::Detached => {
                    next(&mut detached).and_then(|mount| self.without_devices(mount)).map_err(&refused)
                }
                SourceRequest::Device => next(&mut detached).map_err(&refused),
                SourceRequest::Subtree { path } => {
                    let mount = next(&mut detached).map_err(&refused)?;
                    self.subtree(&mount, path, request)
                }
                SourceRequest::Tmpfs { size, mode } => {
                    new_tmpfs(*size, *mode, request.readonly).map_err(&refused)
                }
                SourceRequest::File { .. } => shelf.take(index, request.readonly).map_err(&refused),
            }?;
            let kind = Kind::of(&rustix::fs::fstat(&source).map_err(&refused)?);
            let keep = if self.settings.remove_stub_parents { Keep::Nothing } else { Keep::Parents };
            self.attach(&source, &request.destination, kind, keep)?;
        }
        Ok(())
    }

    /// Clones what is at a path inside a detached mount.
    ///
    /// Only a mount that is attached can be cloned from (before Linux 6.15): it goes on the stage, which
    /// this process leaves behind with the rest of the server's root.
    fn subtree(&self, mount: &OwnedFd, path: &str, request: &MountRequest) -> Result<OwnedFd, ProcessError> {
        let refused = refused(&request.destination);
        let stage = rustix::fs::open("/stage", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        stage.and_then(|stage| mount::attach(mount, stage)).map_err(&refused)?;
        let found = mount::open_in_root(mount, path).map_err(|errno| ProcessError::Mount {
            destination: request.destination.clone(),
            reason: MountFailure::BadSource { path: path.to_owned(), errno: errno.raw_os_error() },
        })?;
        let clone = mount::clone_tree(found, "", true).map_err(&refused)?;
        if request.readonly {
            mount::set_readonly(&clone, true).map_err(&refused)?;
        }
        self.without_devices(clone).map_err(refused)
    }

    fn without_devices(&self, source: OwnedFd) -> Result<OwnedFd, Errno> {
        if self.settings.security == Security::Sandbox {
            mount::add_attributes(&source, MountAttrFlags::MOUNT_ATTR_NODEV, true)?;
        }
        Ok(source)
    }

    fn attach(&mut self, source: &OwnedFd, path: &str, kind: Kind, keep: Keep) -> Result<(), ProcessError> {
        let target = points::open_or_make(self.root, path, kind, keep, &mut self.stubs)
            .map_err(|reason| ProcessError::Mount { destination: path.to_owned(), reason })?;
        mount::attach(source, target).map_err(refused(path))
    }

    /// Covers what a step may not see and write-protects what it may not change.
    fn mask(&self) -> Result<(), ProcessError> {
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        for path in READ_ONLY {
            let Some(target) = self.find(path)? else { continue };
            let itself = mount::clone_tree(&target, "", true).map_err(refused(path))?;
            mount::add_attributes(&itself, read_only | flags_of_system(), true).map_err(refused(path))?;
            mount::attach(itself, target).map_err(refused(path))?;
        }
        for path in MASKED.into_iter().chain([MASKED_POWERCAP]) {
            let Some(target) = self.find(path)? else { continue };
            let stat = rustix::fs::fstat(&target).map_err(refused(path))?;
            let (cover, attributes) = match Kind::of(&stat) {
                Kind::Directory => ("/empty", read_only | flags_of_system()),
                Kind::File => ("/dev/null", MountAttrFlags::empty()),
            };
            let cover = mount::clone_tree(CWD, cover, false).map_err(refused(path))?;
            if !attributes.is_empty() {
                mount::add_attributes(&cover, attributes, false).map_err(refused(path))?;
            }
            mount::attach(cover, target).map_err(refused(path))?;
        }
        Ok(())
    }

    /// Opens a path of the kernel's own file systems; `None` if this kernel has no such thing.
    fn find(&self, path: &str) -> Result<Option<OwnedFd>, ProcessError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match mount::open_at(self.root, path, OFlags::PATH, resolve) {
            Ok(found) => Ok(Some(found)),
            // A mount of the step's own over /proc or /sys may have anything there.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(refused(path)(errno)),
        }
    }
}

fn new_tmpfs(size: Option<u64>, mode: u32, readonly: bool) -> Result<OwnedFd, Errno> {
    let (size, mode) = (size.map(|bytes| bytes.to_string()), format!("{mode:o}"));
    let mut options = vec![("mode", mode.as_str())];
    options.extend(size.as_deref().map(|size| ("size", size)));
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    mount::new("tmpfs", &options, attributes)
}

/// The tmpfs that holds the small files of one step until they are mounted one by one.
struct Shelf(Option<OwnedFd>);

impl Shelf {
    fn new(requests: &[MountRequest], files: &[u8]) -> Result<Self, ProcessError> {
        let wanted: Vec<_> = requests
            .iter()
            .enumerate()
            .filter_map(|(index, request)| match request.source {
                SourceRequest::File { offset, length, mode, uid, gid } => {
                    Some((index, offset, length, mode, uid, gid))
                }
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(Self(None));
        }
        let what = at("small files");
        let tmpfs = mount::new("tmpfs", &[("mode", "0700")], flags_of_system()).map_err(&what)?;
        for (index, offset, length, mode, uid, gid) in wanted {
            let end = offset.checked_add(length);
            let content = end.and_then(|end| files.get(offset..end)).ok_or_else(|| what(Errno::BADMSG))?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&tmpfs, index.to_string(), flags, Mode::RUSR).map_err(&what)?;
            write_all(&file, content).map_err(&what)?;
            // The owner first: changing it clears the set-id bits of the mode.
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(&what)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(&what)?;
        }
        // Only a mount that is attached can be cloned from (before Linux 6.15).
        let carrier =
            rustix::fs::open("/files", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(&what)?;
        mount::attach(&tmpfs, carrier).map_err(&what)?;
        Ok(Self(Some(tmpfs)))
    }

    fn take(&self, index: usize, readonly: bool) -> Result<OwnedFd, Errno> {
        let shelf = self.0.as_ref().ok_or(Errno::BADMSG)?;
        let file = mount::clone_tree(shelf, &index.to_string(), false)?;
        if readonly {
            mount::set_readonly(&file, false)?;
        }
        Ok(file)
    }
}

fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
