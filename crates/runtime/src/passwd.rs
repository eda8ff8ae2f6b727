//! Turns `user[:group]` of an image into numbers, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! The rules are those of container engines: a number is an id, never a name; a user that is only a
//! number need not be in the file; without a group, the user's own group and all groups that list the
//! user by name apply. Files are read through a descriptor of the root, so that a link leads nowhere
//! else, and with a bound on their size.

use std::io::Read;
use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::spec::User;
use crate::sys::mount::open_at;

/// Longest passwd or group file that is read.
const MAX_BYTES: u64 = 10 << 20;

/// Largest id that may be written as a number.
const MAX_ID: u32 = i32::MAX as u32;

/// Says why a user or group cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("uids and gids must be in range 0-2147483647")]
    OutOfRange,
    #[error("cannot read `{path}`: {reason}")]
    Unreadable { path: &'static str, reason: String },
}

/// Resolves `user[:group]` in the root file system behind `root`; no text is root.
pub fn resolve(root: impl AsFd, spec: &str) -> Result<User, LookupError> {
    let passwd = read(&root, "/etc/passwd");
    let group = read(&root, "/etc/group");
    match lookup(spec, passwd.as_deref().unwrap_or_default(), group.as_deref().unwrap_or_default()) {
        // What the files do not say matters only if they could not be read.
        Err(LookupError::NoUser(user)) => Err(passwd.err().unwrap_or(LookupError::NoUser(user))),
        Err(LookupError::NoGroup(name)) => Err(group.err().unwrap_or(LookupError::NoGroup(name))),
        other => other,
    }
}

/// Resolves `user[:group]` by the texts of the two files.
fn lookup(spec: &str, passwd: &str, group: &str) -> Result<User, LookupError> {
    let mut parts = spec.split(':');
    let (user, wanted_group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (uid, gid) = (number(user)?, number(wanted_group)?);
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| match (user, uid) {
        ("", _) => entry.uid == 0,
        (_, Some(uid)) => entry.uid == uid,
        (name, None) => entry.name == name,
    });
    let mut found = match (&entry, uid) {
        (Some(entry), _) => User {
            uid: entry.uid,
            gid: entry.gid,
            additional_gids: Vec::new(),
            home: Some(entry.home.to_owned()).filter(|home| !home.is_empty()),
        },
        (None, Some(uid)) => User { uid, ..User::default() },
        (None, None) if user.is_empty() => User::default(),
        (None, None) => return Err(LookupError::NoUser(user.to_owned())),
    };
    let mut groups = group.lines().filter_map(GroupEntry::parse);
    if wanted_group.is_empty() {
        if let Some(entry) = &entry {
            let of_user = groups.filter(|group| group.members().any(|name| name == entry.name));
            found.additional_gids = of_user.map(|group| group.gid).collect();
        }
        return Ok(found);
    }
    let listed = groups.find(|entry| gid.map_or(entry.name == wanted_group, |gid| entry.gid == gid));
    found.gid = match (listed, gid) {
        (Some(entry), _) => entry.gid,
        (None, Some(gid)) => gid,
        (None, None) => return Err(LookupError::NoGroup(wanted_group.to_owned())),
    };
    Ok(found)
}

/// Reads an id; a name is `None`.
fn number(text: &str) -> Result<Option<u32>, LookupError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(id) => match u32::try_from(id) {
            Ok(id) if id <= MAX_ID => Ok(Some(id)),
            _ => Err(LookupError::OutOfRange),
        },
        Err(_) => Err(LookupError::OutOfRange),
    }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// Reads `name:password:uid:gid:comment:home:shell`; a line that is none is skipped.
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let name = *fields.first().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let id = |index: usize| fields.get(index)?.parse::<u32>().ok();
        Some(Self { name, uid: id(2)?, gid: id(3)?, home: fields.get(5).copied().unwrap_or_default() })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    /// Reads `name:password:gid:member,member`; a line that is none is skipped.
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let name = *fields.first().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.get(2)?.parse().ok()?;
        Some(Self { name, gid, members: fields.get(3).copied().unwrap_or_default() })
    }

    fn members(&self) -> impl Iterator<Item = &'a str> {
        self.members.split(',')
    }
}

/// Reads a file of the root; one that does not exist is empty.
fn read(root: impl AsFd, path: &'static str) -> Result<String, LookupError> {
    let fail = |reason: String| LookupError::Unreadable { path, reason };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Without NONBLOCK, a named pipe in the image would hold us for ever.
    let file = match open_at(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(fail(errno.to_string())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| fail(errno.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(fail("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let mut limited = std::fs::File::from(file).take(MAX_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fail(format!("longer than {MAX_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;

    const PASSWD: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:w:/var/www:/bin/false\n\
                          broken\n1000:x:7:8::/seven:\napp:x:500:501\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\nmail:x:8:\nwww-data:x:33:\nusers:x:100:app\n";

    fn user(uid: u32, gid: u32, additional_gids: &[u32], home: Option<&str>) -> User {
        User { uid, gid, additional_gids: additional_gids.to_vec(), home: home.map(str::to_owned) }
    }

    #[test]
    fn names_and_numbers_resolve_as_container_engines_do() {
        for (spec, expected) in [
            ("", user(0, 0, &[10], Some("/root"))),
            ("root", user(0, 0, &[10], Some("/root"))),
            ("0", user(0, 0, &[10], Some("/root"))),
            ("www-data", user(33, 33, &[], Some("/var/www"))),
            ("33", user(33, 33, &[], Some("/var/www"))),
            ("www-data:mail", user(33, 8, &[], Some("/var/www"))),
            ("www-data:4711", user(33, 4711, &[], Some("/var/www"))),
            ("app", user(500, 501, &[10, 100], None)),
            ("1234", user(1234, 0, &[], None)),
            ("1234:5678", user(1234, 5678, &[], None)),
            // A number is an id, even if somebody has it for a name.
            ("1000", user(1000, 0, &[], None)),
            (":mail", user(0, 8, &[], Some("/root"))),
        ] {
            assert_eq!(lookup(spec, PASSWD, GROUP), Ok(expected), "{spec}");
        }
        assert_eq!(lookup("", "", ""), Ok(User::default()));
    }

    #[test]
    fn unknown_names_are_told_as_the_reference_tells_them() {
        let error = |spec| lookup(spec, PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(error("ghost"), "unable to find user ghost: no matching entries in passwd file");
        assert_eq!(error("root:ghosts"), "unable to find group ghosts: no matching entries in group file");
        assert_eq!(error("4294967295"), "uids and gids must be in range 0-2147483647");
        assert_eq!(error("-1"), "uids and gids must be in range 0-2147483647");
        assert_eq!(error("0:99999999999999999999"), "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn the_files_of_the_root_are_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(resolve(&root, "5:6").unwrap(), user(5, 6, &[], None));
        assert!(matches!(resolve(&root, "root"), Err(LookupError::NoUser(_))));

        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/../../../../../../data/users", dir.path().join("etc/passwd")).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("data/users"), "inside:x:9:9::/home/inside:\n").unwrap();
        assert_eq!(resolve(&root, "inside").unwrap(), user(9, 9, &[], Some("/home/inside")));
        assert!(matches!(resolve(&root, "root"), Err(LookupError::NoUser(_))));

        let fifo = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(&root, "etc/group", FileType::Fifo, fifo, 0).unwrap();
        assert!(matches!(resolve(&root, "inside:g"), Err(LookupError::Unreadable { .. })));
        assert!(resolve(&root, "inside:3").is_ok());
    }
}
