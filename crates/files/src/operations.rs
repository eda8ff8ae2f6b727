//! The file operations of a build graph other than copying: making directories, files and links, removing.

use std::path::{Component, Path};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::entry::Time;
use crate::error::{FilesError, Result};
use crate::patterns::clean_relative;
use crate::root::{NewDir, Root, change_owner, timestamps};
use crate::tree::wildcard_paths;

/// A directory to make.
#[derive(Clone, Copy, Debug)]
pub struct MakeDir {
    pub mode: u32,
    /// Whether the directories above it are made too, and an existing one is accepted as it is.
    pub make_parents: bool,
    pub owner: Option<(u32, u32)>,
    pub time: Option<Time>,
}

/// A file to make.
#[derive(Clone, Copy, Debug)]
pub struct MakeFile<'d> {
    pub mode: u32,
    pub data: &'d [u8],
    pub owner: Option<(u32, u32)>,
    pub time: Option<Time>,
}

/// A symbolic link to make.
#[derive(Clone, Copy, Debug)]
pub struct MakeLink<'t> {
    /// What it says.
    pub target: &'t Path,
    pub owner: Option<(u32, u32)>,
    pub time: Option<Time>,
}

/// Makes a directory.
pub fn mkdir(dest: &Root, path: &str, action: &MakeDir) -> Result<()> {
    let resolved = dest.evaluate(Path::new(path), true)?;
    let new = NewDir { mode: action.mode & 0o777, owner: action.owner, time: action.time };
    if action.make_parents {
        dest.create_dir_all(&resolved, new)?;
        return Ok(());
    }
    match dest.create_dir(&resolved, new) {
        Err(FilesError::Os { operation: "mkdir", source: crate::OsError(Errno::EXIST), .. }) => Ok(()),
        other => other,
    }
}

/// Makes a file, or replaces the content of the one there is, which keeps its mode.
pub fn mkfile(dest: &Root, path: &str, action: &MakeFile<'_>) -> Result<()> {
    let resolved = dest.evaluate(Path::new(path), true)?;
    let shown = resolved.as_path();
    let mode = Mode::from_raw_mode(action.mode & 0o777);
    let base = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let (fd, is_new) = match dest.open_at(shown, base | OFlags::CREATE | OFlags::EXCL, mode) {
        Err(Errno::EXIST) => (dest.open_at(shown, base | OFlags::TRUNC, Mode::empty()), false),
        other => (other, true),
    };
    let fd = fd.map_err(FilesError::os("write", shown))?;
    let mut rest = action.data;
    while !rest.is_empty() {
        match rustix::io::write(&fd, rest) {
            Ok(0) => return Err(FilesError::os("write", shown)(Errno::IO)),
            Ok(length) => rest = &rest[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(FilesError::os("write", shown)(errno)),
        }
    }
    if let Some((uid, gid)) = action.owner {
        change_owner(&fd, uid, gid).map_err(FilesError::os("chown", shown))?;
    }
    if is_new {
        rustix::fs::fchmod(&fd, mode).map_err(FilesError::os("chmod", shown))?;
    }
    if let Some(time) = action.time {
        rustix::fs::futimens(&fd, &timestamps(time)).map_err(FilesError::os("utimes", shown))?;
    }
    Ok(())
}

/// Makes a symbolic link.
pub fn symlink(dest: &Root, path: &str, action: &MakeLink<'_>) -> Result<()> {
    let resolved = dest.evaluate(Path::new(path), true)?;
    let (parent, name) = dest.open_parent(&resolved)?;
    rustix::fs::symlinkat(action.target, &parent, name).map_err(FilesError::os("symlink", &resolved))?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if let Some((uid, gid)) = action.owner {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)
            .map_err(FilesError::os("chown", &resolved))?;
    }
    if let Some(time) = action.time {
        rustix::fs::utimensat(&parent, name, &timestamps(time), flags)
            .map_err(FilesError::os("utimes", &resolved))?;
    }
    Ok(())
}

/// Removes a path, or what a pattern matches, with all below it.
///
/// A symbolic link is removed itself. The root cannot be removed.
pub fn rm(dest: &Root, path: &str, allow_wildcard: bool, allow_not_found: bool) -> Result<()> {
    let paths = match allow_wildcard {
        true => match wildcard_paths(dest, path, false) {
            Err(error) if error.is_not_found() && allow_not_found => return Ok(()),
            other => other?,
        },
        false => vec![path.into()],
    };
    for path in paths {
        let cleaned = clean_relative(&path);
        if !matches!(cleaned.components().next_back(), Some(Component::Normal(_))) {
            return Err(FilesError::os("remove", &cleaned)(Errno::BUSY));
        }
        let resolved = dest.evaluate(&path, false)?;
        if !allow_not_found && dest.metadata(&resolved)?.is_none() {
            return Err(FilesError::NotFound { path: cleaned });
        }
        dest.remove_all(&resolved)?;
    }
    Ok(())
}
