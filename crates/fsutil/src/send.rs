//! The sending side: lists a directory in order, and gives the contents that are asked for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::stat::{has_contents, stat_of, xattrs};
use super::{PacketSink, PacketSource, TransferError};
use crate::fstypes::packet::PacketType;
use crate::fstypes::{Packet, Stat};

/// Contents in one packet.
const CHUNK: usize = 128 * 1024;

/// What of a directory is listed, and how.
pub trait SendFilter {
    /// Returns whether an entry is listed; it may be changed. What is in a directory is asked for on its own.
    fn entry(&mut self, stat: &mut Stat) -> bool;
    /// Returns whether anything below a directory may be listed.
    fn descend(&mut self, path: &str) -> bool;
}

/// Lists everything as it is.
impl SendFilter for () {
    fn entry(&mut self, _: &mut Stat) -> bool {
        true
    }

    fn descend(&mut self, _: &str) -> bool {
        true
    }
}

/// A directory to be sent.
pub struct SendTree {
    /// The directory it becomes at the receiver's; empty is the top.
    pub prefix: String,
    pub root: OwnedFd,
    /// Further files at its top, by name.
    pub extra: BTreeMap<String, Vec<u8>>,
    /// What is newer gets this time, in seconds since 1970.
    pub epoch: Option<i64>,
}

/// Sends directories, which must have different prefixes, or one with none.
pub fn send(
    source: &mut dyn PacketSource,
    sink: &dyn PacketSink,
    trees: &[SendTree],
    filter: &mut dyn SendFilter,
) -> Result<(), TransferError> {
    let mut sender = Sender { trees, sink, filter, next: 0, files: HashMap::new(), inodes: HashMap::new() };
    let listed = sender.list().and_then(|()| sender.emit(None));
    if let Err(error) = listed {
        let data = error.to_string().into_bytes();
        let _ = sink.send(Packet { r#type: PacketType::PacketErr as i32, data, ..Packet::default() });
        return Err(error);
    }
    sender.serve(source)
}

/// Where a file's contents are: the tree, and the path below its root or the name of an extra file.
type Place = (usize, String, bool);

struct Sender<'a> {
    trees: &'a [SendTree],
    sink: &'a dyn PacketSink,
    filter: &'a mut dyn SendFilter,
    next: u32,
    files: HashMap<u32, Place>,
    /// Files with several names, by device and inode.
    inodes: HashMap<(u64, u64), String>,
}

impl Sender<'_> {
    fn emit(&mut self, stat: Option<Stat>) -> Result<(), TransferError> {
        self.sink.send(Packet { r#type: PacketType::PacketStat as i32, stat, ..Packet::default() })
    }

    fn list(&mut self) -> Result<(), TransferError> {
        let mut order: Vec<usize> = (0..self.trees.len()).collect();
        order.sort_by(|a, b| self.trees[*a].prefix.cmp(&self.trees[*b].prefix));
        for index in order {
            let tree = &self.trees[index];
            if !tree.prefix.is_empty() {
                let (mut stat, _) = stat_of(tree.root.as_fd(), ".".as_ref(), tree.prefix.clone())
                    .map_err(TransferError::disk("look at", &tree.prefix))?;
                stat.mod_time = clamp(tree.epoch, stat.mod_time);
                self.next += 1;
                self.emit(Some(stat))?;
            }
            self.directory(index, tree.root.as_fd(), "")?;
        }
        Ok(())
    }

    fn directory(&mut self, tree: usize, directory: BorrowedFd<'_>, path: &str) -> Result<(), TransferError> {
        let mut names: Vec<(OsString, bool)> =
            sorted_names(directory, path)?.into_iter().map(|name| (name, false)).collect();
        if path.is_empty() && !self.trees[tree].extra.is_empty() {
            let extra = &self.trees[tree].extra;
            names.retain(|(name, _)| name.to_str().is_none_or(|name| !extra.contains_key(name)));
            names.extend(extra.keys().map(|name| (OsString::from(name), true)));
            names.sort();
        }
        for (name, is_extra) in names {
            let text = name.to_str().ok_or_else(|| TransferError::Path {
                path: format!("{path}/{}", name.to_string_lossy()),
                reason: "is not UTF-8",
            })?;
            let inner = join(path, text);
            match is_extra {
                true => self.extra(tree, text)?,
                false => self.entry(tree, directory, &name, inner)?,
            }
        }
        Ok(())
    }

    fn extra(&mut self, tree: usize, name: &str) -> Result<(), TransferError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let of = &self.trees[tree];
        let stat = Stat {
            path: join(&of.prefix, name),
            mode: 0o600,
            size: of.extra.get(name).map_or(0, Vec::len) as i64,
            mod_time: clamp(of.epoch, now.as_nanos() as i64),
            ..Stat::default()
        };
        self.files.insert(self.next, (tree, name.to_owned(), true));
        self.next += 1;
        self.emit(Some(stat))
    }

    fn entry(
        &mut self,
        tree: usize,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: String,
    ) -> Result<(), TransferError> {
        let of = &self.trees[tree];
        let (mut stat, disk) = match stat_of(directory, name, join(&of.prefix, &path)) {
            Ok(found) => found,
            // It went away since the directory was read.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(TransferError::disk("look at", &path)(errno)),
        };
        stat.mod_time = clamp(of.epoch, stat.mod_time);
        let is_directory = FileType::from_raw_mode(disk.st_mode) == FileType::Directory;
        if self.filter.entry(&mut stat) {
            if has_contents(&stat) && disk.st_nlink > 1 {
                let key = (disk.st_dev, disk.st_ino);
                match self.inodes.get(&key) {
                    Some(first) => stat.linkname.clone_from(first),
                    None => drop(self.inodes.insert(key, stat.path.clone())),
                }
            }
            if is_directory || FileType::from_raw_mode(disk.st_mode) == FileType::RegularFile {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                if let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) {
                    stat.xattrs = xattrs(file.as_fd());
                }
            }
            if has_contents(&stat) {
                self.files.insert(self.next, (tree, path.clone(), false));
            }
            self.next += 1;
            self.emit(Some(stat))?;
        }
        if is_directory && self.filter.descend(&path) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(directory, name, flags, Mode::empty())
                .map_err(TransferError::disk("open the directory", &path))?;
            self.directory(tree, inner.as_fd(), &path)?;
        }
        Ok(())
    }

    fn serve(&mut self, source: &mut dyn PacketSource) -> Result<(), TransferError> {
        loop {
            let packet = source.next()?.ok_or(TransferError::Ended)?;
            match PacketType::try_from(packet.r#type) {
                Ok(PacketType::PacketReq) => self.contents(packet.id)?,
                Ok(PacketType::PacketFin) => {
                    return self
                        .sink
                        .send(Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() });
                }
                Ok(PacketType::PacketErr) => {
                    return Err(TransferError::Receiver(String::from_utf8_lossy(&packet.data).into_owned()));
                }
                _ => return Err(TransferError::Protocol("a packet that a receiver does not send")),
            }
        }
    }

    fn contents(&mut self, id: u32) -> Result<(), TransferError> {
        let Some((tree, path, is_extra)) = self.files.remove(&id) else {
            return Err(TransferError::Protocol("a request for no file that was listed"));
        };
        let data =
            |data: Vec<u8>| Packet { r#type: PacketType::PacketData as i32, id, data, ..Packet::default() };
        let tree = &self.trees[tree];
        if is_extra {
            for chunk in tree.extra.get(&path).map(Vec::as_slice).unwrap_or_default().chunks(CHUNK) {
                self.sink.send(data(chunk.to_vec()))?;
            }
            return self.sink.send(data(Vec::new()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // A file that went away is sent as an empty one, as the reference does; so is a socket.
        if let Ok(file) = rustix::fs::openat2(&tree.root, path.as_str(), flags, Mode::empty(), resolve) {
            let mut file = std::fs::File::from(file);
            loop {
                let mut chunk = vec![0u8; CHUNK];
                let length = file.read(&mut chunk).map_err(|source| TransferError::Disk {
                    action: "read",
                    path: path.clone(),
                    source,
                })?;
                if length == 0 {
                    break;
                }
                chunk.truncate(length);
                self.sink.send(data(chunk))?;
            }
        }
        self.sink.send(data(Vec::new()))
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn clamp(epoch: Option<i64>, nanoseconds: i64) -> i64 {
    epoch.map_or(nanoseconds, |seconds| nanoseconds.min(seconds.saturating_mul(1_000_000_000)))
}

fn sorted_names(directory: BorrowedFd<'_>, path: &str) -> Result<Vec<OsString>, TransferError> {
    use std::os::unix::ffi::OsStrExt as _;
    // The descriptor may be one that names a directory without being able to list it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = rustix::fs::openat(directory, ".", flags, Mode::empty()).and_then(rustix::fs::Dir::new);
    let listing = listing.map_err(TransferError::disk("list", path))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(TransferError::disk("list", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}
