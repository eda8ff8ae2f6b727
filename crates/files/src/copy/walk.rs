//! The walk of a copy: which files are copied, where, and in which order.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::data::Mover;
use super::file::{Identity, Place};
use super::placement::Placed;
use super::{CopyOptions, CopyReport};
use crate::digest_cache::DigestCache;
use crate::entry::{EntryRef, FileKind};
use crate::error::{FilesError, Result};
use crate::patterns::{MatchInfo, PatternMatcher};
use crate::root::{Root, change_owner, remove_all_at, stat_at, timestamps};
use crate::tree::FileTree;
use crate::work::{self, Queue};
use crate::xattrs;

/// How many files of one directory a thread takes at a time.
const BATCH: usize = 128;

/// One copy from a source path to a target path.
pub(super) struct Job<'j> {
    pub(super) source: &'j dyn FileTree,
    pub(super) dest: &'j Root,
    pub(super) options: &'j CopyOptions,
    pub(super) digests: Option<&'j DigestCache>,
    pub(super) include: Option<PatternMatcher>,
    pub(super) exclude: Option<PatternMatcher>,
    pub(super) data: Mover,
    pub(super) identity: Identity,
}

/// What the threads of a job share.
#[derive(Default)]
struct Shared {
    /// Directories whose attributes are to be set when all is copied.
    finish: Mutex<Vec<Finish>>,
    /// Files with several names.
    links: Mutex<Vec<Link>>,
    report: Mutex<CopyReport>,
}

enum Task {
    Directory(Directory),
    Files(Files),
}

/// A source directory to walk.
struct Directory {
    source: PathBuf,
    /// Its path below the top, which patterns are matched with.
    relative: PathBuf,
    target: Arc<Target>,
    include: MatchInfo,
    exclude: MatchInfo,
}

/// Some files of one directory to copy.
struct Files {
    from: Arc<OwnedFd>,
    to: Arc<Place>,
    entries: Vec<EntryRef>,
}

/// A directory of the destination, which is made at the latest when something is copied into it.
struct Target {
    path: PathBuf,
    entry: EntryRef,
    above: Option<Arc<Target>>,
    /// Whether it is the top of the copy, whose attributes stay if it exists.
    is_top: bool,
    /// Whether it is itself copied, and not only made for what is below it.
    is_included: bool,
    made: Mutex<bool>,
}

/// What to set on a directory at the end.
struct Finish {
    path: PathBuf,
    entry: EntryRef,
    what: Set,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    All,
    Mode,
    Time,
}

struct Link {
    entry: EntryRef,
    target: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job<'_> {
    /// Makes the copy.
    pub(super) fn run(&self, placed: Placed) -> Result<CopyReport> {
        let shared = Shared::default();
        if placed.entry.metadata.is_dir() {
            self.tree(&placed, &shared)?;
        } else {
            self.single(&placed, &shared)?;
        }
        if let Some(time) = self.options.time {
            for path in placed.made.iter().rev() {
                let fd = self.dest.open_directory(path)?;
                rustix::fs::futimens(&fd, &timestamps(time)).map_err(FilesError::os("utimes", path))?;
            }
        }
        Ok(shared.report.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn single(&self, placed: &Placed, shared: &Shared) -> Result<()> {
        let from = self.source.open_dir(placed.entry.parent())?;
        let (to, name) = self.dest.open_parent(&placed.target)?;
        let parent = placed.target.parent().unwrap_or(Path::new("")).to_owned();
        let to = Place::new(to, parent)?;
        self.copy_file(&from, &placed.entry, &to, name, &mut lock(&shared.report))
    }

    fn tree(&self, placed: &Placed, shared: &Shared) -> Result<()> {
        let top = Arc::new(Target {
            path: placed.target.clone(),
            entry: placed.entry.clone(),
            above: None,
            is_top: true,
            is_included: true,
            made: Mutex::new(false),
        });
        self.make(&top, shared)?;
        let first = Directory {
            source: placed.source.clone(),
            relative: PathBuf::new(),
            target: top,
            include: MatchInfo::default(),
            exclude: MatchInfo::default(),
        };
        work::run(work::disk_threads(), vec![Task::Directory(first)], |task, queue| match task {
            Task::Directory(directory) => self.directory(&directory, shared, queue),
            Task::Files(files) => {
                let mut report = CopyReport::default();
                for entry in &files.entries {
                    self.copy_file(&files.from, entry, &files.to, &entry.name, &mut report)?;
                }
                lock(&shared.report).add(report);
                Ok(())
            }
        })?;
        self.links(std::mem::take(&mut lock(&shared.links)), shared)?;
        let mut finish = std::mem::take(&mut *lock(&shared.finish));
        finish.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        finish.iter().try_for_each(|directory| self.finish(directory))
    }

    fn directory(&self, directory: &Directory, shared: &Shared, queue: &Queue<Task>) -> Result<()> {
        let children = self.source.children(&directory.source)?;
        let target = &directory.target;
        let mut files = Vec::new();
        let mut has_files = false;
        for (index, child) in children.entries.iter().enumerate() {
            let entry = EntryRef::new(Arc::clone(&children), index);
            let Some((included, include, exclude)) = self.judge(directory, &entry) else { continue };
            if !child.metadata.is_dir() {
                has_files = true;
                if child.metadata.kind == FileKind::File && child.metadata.links > 1 {
                    lock(&shared.links).push(Link { target: target.path.join(&child.name), entry });
                } else {
                    files.push(entry);
                }
                continue;
            }
            let below = Arc::new(Target {
                path: target.path.join(&child.name),
                entry,
                above: Some(Arc::clone(target)),
                is_top: false,
                is_included: included,
                made: Mutex::new(false),
            });
            if included {
                self.make(&below, shared)?;
            }
            queue.push(Task::Directory(Directory {
                source: directory.source.join(&child.name),
                relative: directory.relative.join(&child.name),
                target: below,
                include,
                exclude,
            }));
        }
        if has_files {
            self.make(target, shared)?;
        }
        if files.is_empty() {
            return Ok(());
        }
        let from = Arc::new(self.source.open_dir(&directory.source)?);
        let to = Arc::new(Place::new(self.dest.open_directory(&target.path)?, target.path.clone())?);
        let mut rest = files.into_iter().peekable();
        while rest.peek().is_some() {
            let entries = rest.by_ref().take(BATCH).collect();
            queue.push(Task::Files(Files { from: Arc::clone(&from), to: Arc::clone(&to), entries }));
        }
        Ok(())
    }

    /// Judges an entry by the patterns; `None` when neither it nor anything below it is copied.
    fn judge(&self, directory: &Directory, entry: &EntryRef) -> Option<(bool, MatchInfo, MatchInfo)> {
        if self.include.is_none() && self.exclude.is_none() {
            return Some((true, MatchInfo::default(), MatchInfo::default()));
        }
        let path = directory.relative.join(&entry.name);
        let (mut included, include) = match &self.include {
            Some(matcher) => matcher.matches_below(&path, &directory.include),
            None => (true, MatchInfo::default()),
        };
        let mut wanted_below =
            included || self.include.as_ref().is_none_or(|matcher| matcher.may_match_below(&path));
        let mut exclude = MatchInfo::default();
        if let Some(matcher) = &self.exclude {
            let excluded;
            (excluded, exclude) = matcher.matches_below(&path, &directory.exclude);
            included &= !excluded;
            wanted_below &= !excluded || matcher.may_take_back_below(&path);
        }
        (included || entry.metadata.is_dir() && wanted_below).then_some((included, include, exclude))
    }

    /// Makes a directory of the destination, and those above it that wait for something to be copied.
    fn make(&self, target: &Target, shared: &Shared) -> Result<()> {
        let mut made = lock(&target.made);
        if *made {
            return Ok(());
        }
        if let Some(above) = &target.above {
            self.make(above, shared)?;
        }
        let created = self.make_directory(&target.path)?;
        let what = match (created, target.is_top, target.is_included) {
            (true, ..) => Set::All,
            (false, true, _) => Set::Time,
            (false, false, true) => Set::All,
            (false, false, false) => Set::Mode,
        };
        if what == Set::All {
            self.copy_directory_attributes(target)?;
        }
        lock(&shared.finish).push(Finish { path: target.path.clone(), entry: target.entry.clone(), what });
        *made = true;
        Ok(())
    }

    /// Makes a directory; returns false if there is one.
    fn make_directory(&self, path: &Path) -> Result<bool> {
        if path.as_os_str().is_empty() {
            return Ok(false);
        }
        let (parent, name) = self.dest.open_parent(path)?;
        let failed = |errno| FilesError::os("mkdir", path)(errno);
        for _ in 0..2 {
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let existing = stat_at(std::os::fd::AsFd::as_fd(&parent), name).map_err(failed)?;
            if existing.is_dir() {
                return Ok(false);
            }
            if !self.options.always_replace {
                return Err(FilesError::NotADirectory { operation: "copy to", path: path.to_owned() });
            }
            remove_all_at(&parent, name, path)?;
        }
        Err(failed(Errno::EXIST))
    }

    fn copy_directory_attributes(&self, target: &Target) -> Result<()> {
        let path = target.entry.path();
        let failed = |errno| FilesError::os("read attributes of", &path)(errno);
        let from = self.source.open_dir(&path)?;
        let attributes = xattrs::read(&from).map_err(failed)?;
        if attributes.is_empty() {
            return Ok(());
        }
        let to = self.dest.open_directory(&target.path)?;
        xattrs::write(&to, &attributes).map_err(FilesError::os("set attributes of", &target.path))
    }

    /// Sets what is left of a directory's attributes.
    fn finish(&self, directory: &Finish) -> Result<()> {
        let path = &directory.path;
        let metadata = &directory.entry.metadata;
        let fd = self.dest.open_directory(path)?;
        if directory.what == Set::All
            && let Some((uid, gid)) = self.owner(&directory.entry)
        {
            change_owner(&fd, uid, gid).map_err(FilesError::os("chown", path))?;
        }
        let mode = match directory.what {
            Set::All => Some(self.mode(metadata.mode, true)),
            Set::Mode => Some(metadata.mode),
            Set::Time => None,
        };
        if let Some(mode) = mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(FilesError::os("chmod", path))?;
        }
        if directory.what != Set::Mode {
            let time = self.options.time.unwrap_or(metadata.modified);
            rustix::fs::futimens(&fd, &timestamps(time)).map_err(FilesError::os("utimes", path))?;
        }
        Ok(())
    }

    /// Copies files with several names: each once, its other names becoming links again.
    fn links(&self, links: Vec<Link>, shared: &Shared) -> Result<()> {
        let mut groups: HashMap<(u64, u64), Vec<Link>> = HashMap::new();
        for link in links {
            groups.entry((link.entry.metadata.device, link.entry.metadata.inode)).or_default().push(link);
        }
        work::run(work::disk_threads(), groups.into_values().collect(), |mut group, _| {
            group.sort_unstable_by(|a, b| a.target.cmp(&b.target));
            let mut report = CopyReport::default();
            let mut first: Option<(OwnedFd, &OsStr)> = None;
            for link in &group {
                let (to, name) = self.dest.open_parent(&link.target)?;
                if let Some((from, first_name)) = &first {
                    self.link((from, first_name), (&to, name), &link.target)?;
                    report.files += 1;
                    continue;
                }
                let parent = link.target.parent().unwrap_or(Path::new("")).to_owned();
                let place = Place::new(to, parent)?;
                let from = self.source.open_dir(link.entry.parent())?;
                self.copy_file(&from, &link.entry, &place, name, &mut report)?;
                first = Some((place.fd, name));
            }
            lock(&shared.report).add(report);
            Ok(())
        })
    }

    fn link(&self, from: (&OwnedFd, &OsStr), to: (&OwnedFd, &OsStr), shown: &Path) -> Result<()> {
        for _ in 0..2 {
            match rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty()) {
                Err(Errno::EXIST) => self.clear(to.0, to.1, shown)?,
                other => return other.map_err(FilesError::os("link", shown)),
            }
        }
        Err(FilesError::os("link", shown)(Errno::EXIST))
    }

    /// Removes what is in the way of a file.
    pub(super) fn clear(&self, directory: &OwnedFd, name: &OsStr, shown: &Path) -> Result<()> {
        if self.options.always_replace {
            return remove_all_at(directory, name, shown);
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(FilesError::IsADirectory { path: shown.to_owned() }),
            Err(errno) => Err(FilesError::os("remove", shown)(errno)),
        }
    }
}
