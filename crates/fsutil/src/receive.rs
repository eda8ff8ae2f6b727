//! The receiving side: makes a directory equal to what the sender lists, asking only for what differs.
//!
//! A file that is there with the same type, size, time, mode and owner is not asked for. Who keeps the list of a
//! complete transfer, and knows that nothing was done to the directory since, gives it to the next one: what is
//! listed as before is then not looked at. Files are opened when
//! their first bytes come, so that a list of a million entries needs no million descriptors, and get their time
//! last: a file that a broken transfer left half written never looks unchanged.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use prost::Message as _;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat as DiskStat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::list::{Known, List};
use super::stat::{self, Kind};
use super::{PacketSink, PacketSource, TransferError};
use crate::fstypes::packet::PacketType;
use crate::fstypes::{Packet, Stat};

/// The file that keeps the list where only metadata is wanted; the sender cannot write it.
const METADATA: &str = ".fsutil-metadata";
/// Entries of one transfer.
const MAX_ENTRIES: u32 = 20_000_000;

/// Says of a path whether its contents are wanted.
pub type Wanted = Box<dyn Fn(&str) -> bool + Send>;

/// Counts bytes as they come.
pub type Transferred = Box<dyn Fn(u64) + Send>;

/// Is called before the first change of the directory.
pub type Changing = Box<dyn Fn() -> io::Result<()> + Send>;

/// How to receive.
#[derive(Default)]
pub struct ReceiveOptions {
    /// Gives every file this owner instead of the sender's.
    pub owner: Option<(u32, u32)>,
    /// Asks for files that look unchanged, too.
    pub always: bool,
    /// Keeps what is there and was not listed.
    pub merge: bool,
    /// Keeps the list alone, and the files for whose path this says yes.
    pub wanted: Option<Wanted>,
    /// Is told of each entry and each piece of contents how many bytes came.
    pub transferred: Option<Transferred>,
    /// The list of the transfer that the directory was left by. It has no meaning for one that keeps what was not
    /// listed, or only some of what was.
    pub known: Option<List>,
    /// Is called before the first change, when a list that is kept of the directory is to be thrown away.
    pub changing: Option<Changing>,
}

/// What a transfer did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Entries that were listed.
    pub entries: u64,
    /// Files whose contents were transferred.
    pub files: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// What the directory holds now, if it was changed and a list can tell.
    pub list: Option<List>,
}

/// Makes the directory `root` equal to what the sender lists.
pub fn receive(
    source: &mut dyn PacketSource,
    sink: &dyn PacketSink,
    root: &OwnedFd,
    options: &ReceiveOptions,
) -> Result<Received, TransferError> {
    let mut receiver = Receiver {
        root,
        sink,
        options,
        order: Order::default(),
        parents: Vec::new(),
        next: 0,
        listed: false,
        seen: HashMap::new(),
        linked: HashMap::new(),
        opened: RefCell::default(),
        pending: HashMap::new(),
        directories: Vec::new(),
        metadata: Vec::new(),
        known: Known::new(options.known.as_ref().filter(|_| options.keeps_lists())),
        touched: false,
        done: Received::default(),
    };
    let result = receiver.run(source);
    if let Err(error) = &result
        && !matches!(error, TransferError::Sender(_) | TransferError::Transport(_) | TransferError::Ended)
    {
        // The sender would otherwise wait for requests until its connection ends.
        let data = error.to_string().into_bytes();
        let _ = sink.send(Packet { r#type: PacketType::PacketErr as i32, data, ..Packet::default() });
    }
    result?;
    let list = (receiver.touched && options.keeps_lists()).then(|| receiver.known.into_list());
    Ok(Received { list, ..receiver.done })
}

impl ReceiveOptions {
    /// Tells whether the directory is what is listed when a transfer is complete.
    fn keeps_lists(&self) -> bool {
        !self.merge && self.wanted.is_none()
    }
}

/// Checks that paths come in order and below directories that came before.
#[derive(Default)]
struct Order {
    /// The open directories from the top, each with the last name seen in it.
    open: Vec<(String, String)>,
}

impl Order {
    fn check(&mut self, path: &str, is_directory: bool) -> Result<(), TransferError> {
        let bad = |reason| TransferError::Path { path: path.to_owned(), reason };
        if path.is_empty() || path.contains('\0') {
            return Err(bad("is no name"));
        }
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(bad("is not a plain relative path"));
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.open.is_empty() {
            self.open.push((String::new(), String::new()));
        }
        while self.open.last().is_some_and(|(open, _)| open != directory) {
            self.open.pop();
        }
        let Some((_, last)) = self.open.last_mut() else {
            return Err(bad("is in a directory that was not listed before it"));
        };
        if last.as_str() >= name {
            return Err(bad("is out of order"));
        }
        name.clone_into(last);
        if is_directory {
            self.open.push((path.to_owned(), String::new()));
        }
        Ok(())
    }
}

struct Pending {
    stat: Stat,
    file: Option<std::fs::File>,
}

struct Receiver<'a> {
    root: &'a OwnedFd,
    sink: &'a dyn PacketSink,
    options: &'a ReceiveOptions,
    order: Order,
    /// Directories of a list of metadata that were not made yet: only if something in them is wanted.
    parents: Vec<Stat>,
    next: u32,
    listed: bool,
    /// What was listed; of files the position in the list, by which links to them find their contents.
    seen: HashMap<String, Option<u32>>,
    /// Files with several names that were kept, by inode.
    linked: HashMap<u64, String>,
    /// The directory that was needed last, with its path: a list goes through one directory after the other. None
    /// that something was listed in is replaced during a transfer, since each path is listed once.
    opened: Opened,
    pending: HashMap<u32, Pending>,
    /// Directories with the times they get at the end.
    directories: Vec<(String, i64)>,
    metadata: Vec<u8>,
    known: Known<'a>,
    /// Whether the directory was changed, or may be next.
    touched: bool,
    done: Received,
}

impl Receiver<'_> {
    fn run(&mut self, source: &mut dyn PacketSource) -> Result<(), TransferError> {
        loop {
            let packet = source.next()?.ok_or(TransferError::Ended)?;
            match PacketType::try_from(packet.r#type) {
                Ok(PacketType::PacketErr) => {
                    return Err(TransferError::Sender(String::from_utf8_lossy(&packet.data).into_owned()));
                }
                Ok(PacketType::PacketStat) if self.listed => {
                    return Err(TransferError::Protocol("an entry after the end of the list"));
                }
                Ok(PacketType::PacketStat) => match packet.stat {
                    Some(stat) => {
                        self.count(stat.encoded_len());
                        self.entry(stat)?;
                    }
                    None => self.end_of_list()?,
                },
                Ok(PacketType::PacketData) => self.data(packet.id, &packet.data)?,
                Ok(PacketType::PacketFin | PacketType::PacketReq) | Err(_) => {
                    return Err(TransferError::Protocol("a packet that a sender does not send"));
                }
            }
            if self.listed && self.pending.is_empty() {
                self.finish()?;
                return self.drain(source);
            }
        }
    }

    fn count(&self, bytes: usize) {
        if let Some(transferred) = &self.options.transferred {
            transferred(bytes as u64);
        }
    }

    /// Says that everything is here, and waits until the sender has heard it.
    fn drain(&self, source: &mut dyn PacketSource) -> Result<(), TransferError> {
        self.sink.send(packet(PacketType::PacketFin, 0))?;
        while let Some(packet) = source.next()? {
            if packet.r#type == PacketType::PacketFin as i32 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn entry(&mut self, mut stat: Stat) -> Result<(), TransferError> {
        let position = self.next;
        if position >= MAX_ENTRIES {
            return Err(TransferError::Protocol("more entries than there can be"));
        }
        let metadata_only = self.options.wanted.is_some();
        if metadata_only && stat.path == METADATA {
            return Ok(());
        }
        self.next += 1;
        self.done.entries += 1;
        let kind = stat::kind(&stat);
        self.order.check(&stat.path, kind == Kind::Directory)?;
        if let Some(wanted) = &self.options.wanted {
            let bytes = stat.encode_to_vec();
            self.metadata.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            self.metadata.extend_from_slice(&bytes);
            let is_inside = |parent: &Stat| {
                stat.path.strip_prefix(parent.path.as_str()).is_some_and(|rest| rest.starts_with('/'))
            };
            while self.parents.last().is_some_and(|parent| !is_inside(parent)) {
                self.parents.pop();
            }
            if !wanted(&stat.path) {
                if kind == Kind::Directory {
                    self.parents.push(stat);
                }
                return Ok(());
            }
            for parent in std::mem::take(&mut self.parents) {
                self.apply(parent, Kind::Directory, 0)?;
            }
        }
        if let Some((uid, gid)) = self.options.owner {
            (stat.uid, stat.gid) = (uid, gid);
        }
        self.apply(stat, kind, position)
    }

    /// Makes one entry what it is to be.
    fn apply(&mut self, mut stat: Stat, kind: Kind, position: u32) -> Result<(), TransferError> {
        if let Some((uid, gid)) = self.options.owner {
            (stat.uid, stat.gid) = (uid, gid);
        }
        let path = stat.path.clone();
        let known = self.known.is_same(&stat) && !self.options.always;
        // What another name is of may have been made anew in this transfer.
        if known && (kind != Kind::HardLink || !self.touched) {
            if kind == Kind::Directory {
                self.directories.push((path.clone(), stat.mod_time));
            }
            let contents = match kind {
                Kind::File => Some(position),
                Kind::HardLink => self.seen.get(&stat.linkname).copied().flatten(),
                _ => None,
            };
            self.seen.insert(path, contents);
            return Ok(());
        }
        self.touch()?;
        let (parent, name) = self.parent(&path)?;
        let there = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Some(found),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(TransferError::disk("look at", &path)(errno)),
        };
        let mut contents = None;
        match kind {
            Kind::Directory => self.directory(&parent, name, &stat, there.as_ref())?,
            Kind::File => {
                contents = Some(position);
                let unchanged = there.as_ref().is_some_and(|there| self.is_unchanged(&stat, there));
                if self.options.always || !unchanged {
                    self.pending.insert(position, Pending { stat, file: None });
                    self.sink.send(packet(PacketType::PacketReq, position))?;
                }
            }
            Kind::HardLink => contents = Some(self.hard_link(&parent, name, &stat, there.as_ref())?),
            Kind::Symlink => {
                let same = there.as_ref().is_some_and(|there| {
                    FileType::from_raw_mode(there.st_mode) == FileType::Symlink
                        && (there.st_uid, there.st_gid) == (stat.uid, stat.gid)
                        && stat::modified(there) == stat.mod_time
                        && rustix::fs::readlinkat(&parent, name, Vec::new())
                            .is_ok_and(|target| target.as_bytes() == stat.linkname.as_bytes())
                });
                if !same {
                    self.clear(&parent, name, &path, there.as_ref())?;
                    rustix::fs::symlinkat(stat.linkname.as_str(), &parent, name)
                        .map_err(TransferError::disk("make the link", &path))?;
                    set_attributes(&parent, name, &stat, false)?;
                }
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                let file_type = match kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let same = there.as_ref().is_some_and(|there| {
                    FileType::from_raw_mode(there.st_mode) == file_type
                        && (kind == Kind::Fifo || there.st_rdev == stat::device(&stat))
                        && has_same_attributes(&stat, there)
                });
                if !same {
                    self.clear(&parent, name, &path, there.as_ref())?;
                    let mode = Mode::from_raw_mode(0o600);
                    rustix::fs::mknodat(&parent, name, file_type, mode, stat::device(&stat))
                        .map_err(TransferError::disk("make the special file", &path))?;
                    set_attributes(&parent, name, &stat, true)?;
                }
            }
            Kind::Other => return Err(TransferError::Path { path, reason: "is of no known type" }),
        }
        self.seen.insert(path, contents);
        Ok(())
    }

    fn is_unchanged(&mut self, stat: &Stat, there: &DiskStat) -> bool {
        let same = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile
            && there.st_size == stat.size
            && has_same_attributes(stat, there);
        // What is one file with another name here, and two in the list, must come apart.
        same && (there.st_nlink < 2
            || self.options.known.is_none() && self.linked.insert(there.st_ino, stat.path.clone()).is_none())
    }

    /// Says, before the first change, that there will be one.
    fn touch(&mut self) -> Result<(), TransferError> {
        if std::mem::replace(&mut self.touched, true) {
            return Ok(());
        }
        let changing = self.options.changing.as_ref().map_or(Ok(()), |changing| changing());
        changing.map_err(|source| TransferError::Disk { action: "prepare", path: String::new(), source })
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &str,
        stat: &Stat,
        there: Option<&DiskStat>,
    ) -> Result<(), TransferError> {
        let is_directory =
            there.is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory);
        if !is_directory {
            self.clear(parent, name, &stat.path, there)?;
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                .map_err(TransferError::disk("make the directory", &stat.path))?;
        }
        let same = is_directory
            && there.is_some_and(|there| {
                there.st_mode & 0o7777 == stat::permissions(stat.mode)
                    && (there.st_uid, there.st_gid) == (stat.uid, stat.gid)
            });
        if !same {
            set_attributes(parent, name, stat, true)?;
        }
        self.directories.push((stat.path.clone(), stat.mod_time));
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &str,
        stat: &Stat,
        there: Option<&DiskStat>,
    ) -> Result<u32, TransferError> {
        let Some(&Some(position)) = self.seen.get(&stat.linkname) else {
            let reason = "is a link to a file that was not listed before it";
            return Err(TransferError::Path { path: stat.path.clone(), reason });
        };
        let (target_parent, target_name) = self.parent(&stat.linkname)?;
        // The target's contents may still be on their way, and then it is made anew: it must exist to be linked.
        if let Some(pending) = self.pending.get_mut(&position)
            && pending.file.is_none()
        {
            let path = pending.stat.path.clone();
            let (parent, name) = open_parent(self.root, &self.opened, &path)?;
            pending.file = Some(create(&parent, name, &path)?);
        }
        let target = rustix::fs::statat(&target_parent, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(TransferError::disk("look at", &stat.linkname))?;
        if there.is_some_and(|there| (there.st_dev, there.st_ino) == (target.st_dev, target.st_ino)) {
            return Ok(position);
        }
        self.clear(parent, name, &stat.path, there)?;
        rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
            .map_err(TransferError::disk("link", &stat.path))?;
        Ok(position)
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), TransferError> {
        self.count(data.len());
        let Some(pending) = self.pending.get_mut(&id) else {
            return Err(TransferError::Protocol("contents that were not asked for"));
        };
        let path = pending.stat.path.clone();
        if pending.file.is_none() {
            let (parent, name) = open_parent(self.root, &self.opened, &path)?;
            pending.file = Some(create(&parent, name, &path)?);
        }
        if !data.is_empty() {
            self.done.bytes += data.len() as u64;
            let written = pending.file.as_mut().map_or(Ok(()), |file| file.write_all(data));
            return written.map_err(|source| TransferError::Disk { action: "write", path, source });
        }
        self.done.files += 1;
        if let Some(Pending { stat, file: Some(file) }) = self.pending.remove(&id) {
            for (name, value) in &stat.xattrs {
                // As the reference does: a file system without attributes is no reason to fail.
                let _ = rustix::fs::fsetxattr(&file, name.as_str(), value, rustix::fs::XattrFlags::empty());
            }
            drop(file);
            let (parent, name) = self.parent(&path)?;
            set_attributes(&parent, name, &stat, true)?;
        }
        Ok(())
    }

    fn end_of_list(&mut self) -> Result<(), TransferError> {
        self.listed = true;
        if self.options.merge {
            return Ok(());
        }
        if let Some(gone) = self.known.end() {
            return self.remove_gone(&gone);
        }
        self.touch()?;
        let root = self.root.try_clone().map_err(|source| TransferError::Disk {
            action: "read",
            path: String::new(),
            source,
        })?;
        self.remove_unseen(&root, "")
    }

    /// Removes what was listed before and is not any more, if it is there still.
    fn remove_gone(&mut self, gone: &[String]) -> Result<(), TransferError> {
        // A directory takes what is in it along, and what takes its place has nothing of it.
        let is_gone = |errno: &Errno| matches!(*errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
        for path in gone {
            self.touch()?;
            let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
            let found = open_below(self.root, directory).and_then(|parent| {
                let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((parent, there))
            });
            match found {
                Ok((parent, there)) => self.clear(&parent, name, path, Some(&there))?,
                Err(errno) if is_gone(&errno) => {}
                Err(errno) => return Err(TransferError::disk("look at", path)(errno)),
            }
        }
        Ok(())
    }

    fn remove_unseen(&self, directory: &OwnedFd, prefix: &str) -> Result<(), TransferError> {
        for (name, file_type) in entries(directory, prefix)? {
            let text = name.to_string_lossy().into_owned();
            let path = if prefix.is_empty() { text } else { format!("{prefix}/{text}") };
            if !self.seen.contains_key(&path) {
                remove(directory, &name, &path, file_type == FileType::Directory)?;
            } else if file_type == FileType::Directory {
                let inner = open_directory(directory, &name, &path)?;
                self.remove_unseen(&inner, &path)?;
            }
        }
        Ok(())
    }

    /// Gives directories their times, which making files in them has changed.
    fn finish(&mut self) -> Result<(), TransferError> {
        let directories = std::mem::take(&mut self.directories);
        for (path, time) in directories.into_iter().filter(|_| self.touched) {
            let (parent, name) = self.parent(&path)?;
            let _ = rustix::fs::utimensat(&parent, name, &times(time), AtFlags::SYMLINK_NOFOLLOW);
        }
        if self.options.wanted.is_some() {
            let mut file = create(self.root, METADATA, METADATA)?;
            let path = METADATA.to_owned();
            file.write_all(&self.metadata).map_err(|source| TransferError::Disk {
                action: "write",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Takes away what is in the way.
    fn clear(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
        there: Option<&DiskStat>,
    ) -> Result<(), TransferError> {
        let Some(there) = there else { return Ok(()) };
        let is_directory = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
        remove(parent, std::ffi::OsStr::new(name), path, is_directory)
    }

    fn parent<'p>(&self, path: &'p str) -> Result<(Rc<OwnedFd>, &'p str), TransferError> {
        open_parent(self.root, &self.opened, path)
    }
}

fn packet(kind: PacketType, id: u32) -> Packet {
    Packet { r#type: kind as i32, id, ..Packet::default() }
}

fn has_same_attributes(stat: &Stat, there: &DiskStat) -> bool {
    stat::modified(there) == stat.mod_time
        && there.st_mode & 0o7777 == stat::permissions(stat.mode)
        && (there.st_uid, there.st_gid) == (stat.uid, stat.gid)
}

/// A directory that is open, with its path.
type Opened = RefCell<Option<(String, Rc<OwnedFd>)>>;

/// Opens the directory of `path`, which is a checked relative path, without following any link, unless it is the
/// one that `last` holds.
fn open_parent<'p>(
    root: &OwnedFd,
    last: &Opened,
    path: &'p str,
) -> Result<(Rc<OwnedFd>, &'p str), TransferError> {
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    if let Some((_, opened)) = last.borrow().as_ref().filter(|(path, _)| path == directory) {
        return Ok((opened.clone(), name));
    }
    let opened =
        Rc::new(open_below(root, directory).map_err(TransferError::disk("open the directory", directory))?);
    last.replace(Some((directory.to_owned(), opened.clone())));
    Ok((opened, name))
}

/// Opens a directory by a checked relative path, without following any link.
fn open_below(root: &OwnedFd, directory: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, directory, flags, Mode::empty(), resolve)
}

/// Makes a new file in place of whatever is there.
fn create(parent: &OwnedFd, name: &str, path: &str) -> Result<std::fs::File, TransferError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = || rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
    let file = match open() {
        Err(Errno::EXIST) => {
            let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(TransferError::disk("look at", path))?;
            let is_directory = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
            remove(parent, std::ffi::OsStr::new(name), path, is_directory)?;
            open()
        }
        other => other,
    };
    file.map(std::fs::File::from).map_err(TransferError::disk("make the file", path))
}

fn entries(directory: &OwnedFd, path: &str) -> Result<Vec<(std::ffi::OsString, FileType)>, TransferError> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut found = Vec::new();
    let listing = rustix::fs::Dir::read_from(directory).map_err(TransferError::disk("list", path))?;
    for entry in listing {
        let entry = entry.map_err(TransferError::disk("list", path))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = std::ffi::OsStr::from_bytes(name).to_owned();
        let file_type = match entry.file_type() {
            FileType::Unknown => rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode))
                .map_err(TransferError::disk("look at", path))?,
            known => known,
        };
        found.push((name, file_type));
    }
    Ok(found)
}

fn open_directory(parent: &OwnedFd, name: &std::ffi::OsStr, path: &str) -> Result<OwnedFd, TransferError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .map_err(TransferError::disk("open the directory", path))
}

fn remove(
    parent: &OwnedFd,
    name: &std::ffi::OsStr,
    path: &str,
    is_directory: bool,
) -> Result<(), TransferError> {
    if !is_directory {
        return rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .map_err(TransferError::disk("remove", path));
    }
    let inner = open_directory(parent, name, path)?;
    for (entry, file_type) in entries(&inner, path)? {
        remove(&inner, &entry, path, file_type == FileType::Directory)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(TransferError::disk("remove", path))
}

fn times(nanoseconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000) as _,
    };
    Timestamps { last_access: time, last_modification: time }
}

fn set_attributes(parent: &OwnedFd, name: &str, stat: &Stat, mode: bool) -> Result<(), TransferError> {
    let owner = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
    let there = rustix::fs::statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(TransferError::disk("look at", &stat.path))?;
    if (there.st_uid, there.st_gid) != (stat.uid, stat.gid) {
        rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(TransferError::disk("set the owner of", &stat.path))?;
    }
    if mode {
        let bits = Mode::from_raw_mode(stat::permissions(stat.mode));
        rustix::fs::chmodat(parent, name, bits, AtFlags::empty())
            .map_err(TransferError::disk("set the mode of", &stat.path))?;
    }
    rustix::fs::utimensat(parent, name, &times(stat.mod_time), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(TransferError::disk("set the times of", &stat.path))
}
