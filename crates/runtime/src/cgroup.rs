//! Limits of memory and CPU: one cgroup per limited process, in cgroup v2 or in the v1 hierarchies.
//!
//! A process without limits gets no cgroup, which saves it the time. The hierarchies are opened before
//! the server leaves the host's root; from then on everything goes through those descriptors. A group's
//! name carries the server's process id, so that what a killed server left can be told and is removed.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use crate::error::ProcessError;
use crate::spec::ResourceLimits;
use crate::sys::mount::open_at;

const PREFIX: &str = "slipway-";

/// Marks a directory that was made because somebody named it as a parent, and that goes with its last group.
///
/// Version 1 has only the first, an ordinary user only the second.
const MADE: [&str; 2] = ["trusted.slipway.made", "user.slipway.made"];

/// How often a group is tried to be made in a parent that others are removing meanwhile.
const ATTEMPTS: u32 = 16;
/// Groups that are nested deeper are not removed: nobody makes such for a good reason.
const MAX_DEPTH: usize = 32;

/// The cgroup file systems of this machine.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    list: Vec<Hierarchy>,
    next: Cell<u32>,
}

/// One mounted cgroup file system.
#[derive(Debug)]
struct Hierarchy {
    mount: OwnedFd,
    /// The cgroup of the server, relative to the mount.
    own: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    /// v2: every controller.
    Unified,
    /// v1: these controllers.
    Legacy(Vec<String>),
}

/// A file of a cgroup and what to write to it.
type Setting = (&'static str, String);

impl Hierarchies {
    /// Finds the hierarchies that are mounted and opens them; a machine without any has none.
    pub(crate) fn detect() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let found = parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let open = |(path, own, version): (String, String, Version)| {
            let mount =
                rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            Some(Hierarchy { mount: mount.ok()?, own, version })
        };
        Self { list: found.into_iter().filter_map(open).collect(), next: Cell::new(0) }
    }

    /// Tells whether the machine has cgroup v2 and nothing else.
    pub(crate) fn is_unified(&self) -> bool {
        matches!(self.list.as_slice(), [only] if only.version == Version::Unified)
    }

    /// Makes a group with the given limits.
    pub(crate) fn create(&self, limits: &ResourceLimits) -> Result<Group, ProcessError> {
        let number = self.next.get();
        self.next.set(number + 1);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut group = Group { places: Vec::new(), name };
        let made = self.fill(limits, &mut group);
        if made.is_err() {
            group.remove();
        }
        made.map(|()| group)
    }

    fn fill(&self, limits: &ResourceLimits, group: &mut Group) -> Result<(), ProcessError> {
        let mut unset = limit_names(limits);
        for hierarchy in &self.list {
            let fail = |what: &str| {
                let what = what.to_owned();
                move |errno: Errno| ProcessError::Cgroup { what, errno: errno.raw_os_error() }
            };
            let unified = hierarchy.version == Version::Unified;
            let mut settings = settings(limits, &hierarchy.version);
            if settings.is_empty() && !(limits.parent.is_some() && unified) {
                continue;
            }
            let wanted = limits.parent.as_deref();
            let parent = hierarchy.open_parent(wanted).map_err(fail("parent cgroup"))?;
            if unified {
                // On a machine with both versions, v1 has taken some or all controllers.
                let controllers = read(&parent.directory, "cgroup.controllers").unwrap_or_default();
                settings.retain(|(file, _)| {
                    controllers.split_ascii_whitespace().any(|name| controls(name, file))
                });
                if settings.is_empty() && limits.parent.is_none() {
                    continue;
                }
                enable_controllers(&parent.directory, &settings);
            }
            remove_stale(&parent.directory);
            let parent = hierarchy.make_group(parent, wanted, &group.name).map_err(fail("mkdir"))?;
            let directory = open_directory(&parent.directory, &group.name).map_err(fail("open"))?;
            if matches!(&hierarchy.version, Version::Legacy(c) if c.iter().any(|c| c == "cpuset")) {
                inherit_cpuset(&parent.directory, &directory);
            }
            let place = PlaceInGroup { parent, directory };
            let written = settings.iter().try_for_each(|(file, value)| {
                unset.retain(|(_, files)| !files.contains(file));
                write(&place.directory, file, value).map_err(fail(file))
            });
            group.places.push(place);
            written?;
        }
        match unset.first() {
            None => Ok(()),
            Some((limit, _)) => Err(ProcessError::Cgroup {
                what: format!("{limit}: no cgroup controller"),
                errno: Errno::NOENT.raw_os_error(),
            }),
        }
    }
}

impl Hierarchy {
    /// Makes a group in a parent; makes the parent again if another process has removed it meanwhile.
    fn make_group(&self, mut parent: Parent, wanted: Option<&str>, name: &str) -> Result<Parent, Errno> {
        for _ in 1..ATTEMPTS {
            match rustix::fs::mkdirat(&parent.directory, name, Mode::from_raw_mode(0o755)) {
                Err(Errno::NOENT | Errno::NODEV) => parent = self.open_parent(wanted)?,
                made => return made.map(|()| parent),
            }
        }
        rustix::fs::mkdirat(&parent.directory, name, Mode::from_raw_mode(0o755)).map(|()| parent)
    }

    /// Opens (and makes, if need be) the cgroup that the new group goes into.
    fn open_parent(&self, wanted: Option<&str>) -> Result<Parent, Errno> {
        let path = match wanted {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("{}/{path}", self.own),
            None => self.own.clone(),
        };
        let mut current = open_directory(&self.mount, ".")?;
        let mut above = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(Errno::INVAL);
            }
            let made = match rustix::fs::mkdirat(&current, part, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(errno),
            };
            let next = open_directory(&current, part)?;
            if made {
                // Without the mark it stays, as any directory that somebody else made.
                let _ = MADE
                    .iter()
                    .any(|mark| rustix::fs::fsetxattr(&next, *mark, b"1", XattrFlags::empty()).is_ok());
            }
            above.push((std::mem::replace(&mut current, next), part.to_owned()));
        }
        Ok(Parent { directory: current, above })
    }
}

/// A cgroup that was made for one process, in each hierarchy that it needs.
#[derive(Debug)]
pub(crate) struct Group {
    places: Vec<PlaceInGroup>,
    name: String,
}

#[derive(Debug)]
struct PlaceInGroup {
    parent: Parent,
    directory: OwnedFd,
}

/// The cgroup that a group is in.
#[derive(Debug)]
struct Parent {
    directory: OwnedFd,
    /// The directories from the mount down, each with the name of the next; the last name is the parent's.
    above: Vec<(OwnedFd, String)>,
}

impl Parent {
    /// Removes the directories that were made for groups, from the innermost up; one in use stays.
    fn remove_made(&self) {
        for (directory, name) in self.above.iter().rev() {
            let Ok(child) = open_directory(directory, name) else { break };
            let made = |mark: &str| rustix::fs::fgetxattr(&child, mark, &mut [0_u8; 8]).is_ok();
            if !MADE.iter().any(|mark| made(mark))
                || rustix::fs::unlinkat(directory, name.as_str(), AtFlags::REMOVEDIR).is_err()
            {
                break;
            }
        }
    }
}

impl Group {
    /// Moves the calling process into the group.
    pub(crate) fn enter(&self) -> Result<(), ProcessError> {
        self.places.iter().try_for_each(|place| write(&place.directory, "cgroup.procs", "0")).map_err(
            |errno| ProcessError::Cgroup { what: "cgroup.procs".to_owned(), errno: errno.raw_os_error() },
        )
    }

    /// Tells whether the kernel killed a process of the group for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let killed = |text: String| {
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        };
        self.places.iter().any(|place| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .any(|file| read(&place.directory, file).is_ok_and(killed))
        })
    }

    /// Removes the group, whose processes have ended.
    pub(crate) fn remove(&self) {
        for place in &self.places {
            // What cannot be removed now is removed as stale by a later server.
            remove_group(&place.parent.directory, &self.name, MAX_DEPTH);
            place.parent.remove_made();
        }
    }
}

/// Tells whether a file of a cgroup belongs to a controller.
fn controls(controller: &str, file: &str) -> bool {
    file.strip_prefix(controller).is_some_and(|rest| rest.starts_with('.'))
}

/// Lets the groups below `parent` use the controllers that the settings need.
///
/// One at a time: a controller that cannot be enabled must not keep the others from being so, and its
/// setting fails in a moment with a better message.
fn enable_controllers(parent: &OwnedFd, settings: &[Setting]) {
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        if settings.iter().any(|(file, _)| controls(controller, file)) {
            let _ = write(parent, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

/// Removes the groups of servers that were killed.
fn remove_stale(parent: &OwnedFd) {
    let Ok(entries) = rustix::fs::Dir::read_from(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((pid, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(pid) == Err(Errno::SRCH) {
            remove_group(parent, &name, MAX_DEPTH);
        }
    }
}

/// Removes a group, and those below it that an insecure step has made.
fn remove_group(parent: &OwnedFd, name: &str, depth: usize) {
    let remove = || rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
    if remove().is_ok() || depth == 0 {
        return;
    }
    let Ok(group) = open_directory(parent, name) else { return };
    let Ok(entries) = rustix::fs::Dir::read_from(&group) else { return };
    let is_group = |entry: &rustix::fs::DirEntry| {
        entry.file_type() == rustix::fs::FileType::Directory
            && !entry.file_name().to_bytes().starts_with(b".")
    };
    for entry in entries.flatten().filter(is_group) {
        remove_group(&group, &entry.file_name().to_string_lossy(), depth - 1);
    }
    let _ = remove();
}

/// A v1 cpuset is empty at first, and nothing can run in it.
fn inherit_cpuset(parent: &OwnedFd, directory: &OwnedFd) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = read(parent, file) {
            let _ = write(directory, file, value.trim());
        }
    }
}

fn open_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    open_at(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

fn write(directory: &OwnedFd, file: &str, value: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, value.as_bytes()).map(drop)
}

fn read(directory: &OwnedFd, file: &str) -> Result<String, Errno> {
    let file = rustix::fs::openat(directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = vec![0; 8192];
    let length = rustix::io::read(file, &mut buffer)?;
    buffer.truncate(length);
    String::from_utf8(buffer).map_err(|_| Errno::ILSEQ)
}

/// Lists the limits that are asked for, each with the files that set it in some version.
fn limit_names(limits: &ResourceLimits) -> Vec<(&'static str, &'static [&'static str])> {
    let mut names: Vec<(&'static str, &'static [&'static str])> = Vec::new();
    let mut add = |wanted: bool, name: &'static str, files: &'static [&'static str]| {
        if wanted {
            names.push((name, files));
        }
    };
    add(limits.memory.is_some(), "memory", &["memory.max", "memory.limit_in_bytes"]);
    add(limits.memory_swap.is_some(), "memory-swap", &["memory.swap.max", "memory.memsw.limit_in_bytes"]);
    add(limits.cpu_shares.is_some(), "cpu-shares", &["cpu.weight", "cpu.shares"]);
    add(limits.cpu_quota.is_some(), "cpu-quota", &["cpu.max", "cpu.cfs_quota_us"]);
    add(limits.cpu_period.is_some(), "cpu-period", &["cpu.max", "cpu.cfs_period_us"]);
    add(limits.cpuset_cpus.is_some(), "cpuset-cpus", &["cpuset.cpus"]);
    add(limits.cpuset_mems.is_some(), "cpuset-mems", &["cpuset.mems"]);
    add(limits.pids.is_some(), "pids", &["pids.max"]);
    names
}

/// Translates limits to the files of one hierarchy, in the order in which the kernel accepts them.
fn settings(limits: &ResourceLimits, version: &Version) -> Vec<Setting> {
    match version {
        Version::Unified => unified_settings(limits),
        Version::Legacy(controllers) => legacy_settings(limits, controllers),
    }
}

fn unified_settings(limits: &ResourceLimits) -> Vec<Setting> {
    let number = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let mut list = Vec::new();
    list.extend(limits.memory.map(|bytes| ("memory.max", number(bytes))));
    list.extend(limits.memory_swap.map(|total| {
        // v1 counts memory and swap together, v2 swap alone.
        let swap = if total < 0 { total } else { (total - limits.memory.unwrap_or(0).max(0)).max(0) };
        ("memory.swap.max", number(swap))
    }));
    // Shares are 2 to 262144, weights 1 to 10000.
    list.extend(limits.cpu_shares.map(|shares| {
        let shares = shares.clamp(2, 262_144);
        ("cpu.weight", (1 + ((shares - 2) * 9999) / 262_142).to_string())
    }));
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = number(limits.cpu_quota.unwrap_or(-1));
        list.push(("cpu.max", format!("{quota} {}", limits.cpu_period.unwrap_or(100_000))));
    }
    list.extend(limits.cpuset_cpus.clone().map(|cpus| ("cpuset.cpus", cpus)));
    list.extend(limits.cpuset_mems.clone().map(|mems| ("cpuset.mems", mems)));
    list.extend(limits.pids.map(|count| ("pids.max", number(count))));
    list
}

fn legacy_settings(limits: &ResourceLimits, controllers: &[String]) -> Vec<Setting> {
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let mut list: Vec<Setting> = Vec::new();
    if has("memory") {
        list.extend(limits.memory.map(|bytes| ("memory.limit_in_bytes", bytes.to_string())));
        list.extend(limits.memory_swap.map(|bytes| ("memory.memsw.limit_in_bytes", bytes.to_string())));
    }
    if has("cpu") {
        list.extend(limits.cpu_shares.map(|shares| ("cpu.shares", shares.to_string())));
        list.extend(limits.cpu_period.map(|period| ("cpu.cfs_period_us", period.to_string())));
        list.extend(limits.cpu_quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string())));
    }
    if has("cpuset") {
        list.extend(limits.cpuset_cpus.clone().map(|cpus| ("cpuset.cpus", cpus)));
        list.extend(limits.cpuset_mems.clone().map(|mems| ("cpuset.mems", mems)));
    }
    if has("pids") {
        let number = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        list.extend(limits.pids.map(|count| ("pids.max", number(count))));
    }
    list
}

/// Reads mount point, own cgroup and version of each hierarchy from the kernel's two tables.
fn parse(mounts: &str, memberships: &str) -> Vec<(String, String, Version)> {
    // `id:controllers:path`; v2 has no controllers.
    let members: Vec<(Vec<&str>, &str)> = memberships
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?.split(',').filter(|name| !name.is_empty()).collect();
            Some((controllers, fields.next()?))
        })
        .collect();
    let mut found: Vec<(String, String, Version)> = Vec::new();
    for line in mounts.lines() {
        // `id parent dev root point options ... - type source super-options`
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        let options: Vec<&str> = options.split(',').collect();
        let member = match kind {
            "cgroup2" => members.iter().find(|(controllers, _)| controllers.is_empty()),
            "cgroup" => members.iter().find(|(controllers, _)| {
                !controllers.is_empty() && controllers.iter().all(|controller| options.contains(controller))
            }),
            _ => continue,
        };
        let Some((controllers, path)) = member else { continue };
        let version = match kind {
            "cgroup2" => Version::Unified,
            _ => Version::Legacy(controllers.iter().map(|name| (*name).to_owned()).collect()),
        };
        if found.iter().any(|(_, _, other)| *other == version) {
            continue;
        }
        // Inside a container the mount shows a part of the hierarchy.
        let own = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("/");
        found.push((point.to_owned(), own.to_owned(), version));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_kernels_tables() {
        let mounts = "\
25 21 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
26 25 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
28 25 0:25 /box /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let members = "3:cpu,cpuacct:/a\n2:memory:/\n1:name=systemd:/x\n0::/box/inner\n";
        let legacy = |names: &[&str]| Version::Legacy(names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(
            parse(mounts, members),
            [
                ("/sys/fs/cgroup/cpu".to_owned(), "/a".to_owned(), legacy(&["cpu", "cpuacct"])),
                ("/sys/fs/cgroup/memory".to_owned(), "/".to_owned(), legacy(&["memory"])),
                ("/sys/fs/cgroup/unified".to_owned(), "/inner".to_owned(), Version::Unified),
            ]
        );
        assert_eq!(parse("nonsense\n1 2 - \n", "x\n"), []);
    }

    #[test]
    fn limits_are_translated_for_both_versions() {
        let limits = ResourceLimits {
            memory: Some(100),
            memory_swap: Some(150),
            cpu_shares: Some(1024),
            cpu_quota: Some(-1),
            ..Default::default()
        };
        let text = |version: &Version| {
            let list = settings(&limits, version);
            list.iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            text(&Version::Unified),
            "memory.max=100 memory.swap.max=50 cpu.weight=39 cpu.max=max 100000"
        );
        assert_eq!(
            text(&Version::Legacy(vec!["memory".into()])),
            "memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=150"
        );
        assert_eq!(text(&Version::Legacy(vec!["cpu".into()])), "cpu.shares=1024 cpu.cfs_quota_us=-1");
    }

    #[test]
    fn a_limit_that_nothing_can_set_is_an_error() {
        let limits = ResourceLimits { memory: Some(1 << 20), ..Default::default() };
        let error = Hierarchies::default().create(&limits).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
        assert!(error.hint().is_some());
    }
}
