//! Root powers for an ordinary user: the whole program moves into a user namespace at start-up.
//!
//! The user's subordinate ids (`/etc/subuid`, `/etc/subgid`) are mapped by the setuid programs
//! `newuidmap` and `newgidmap`: inside, the user is 0 and the subordinate ids are 1, 2, 3 and so on. The
//! program is not executed anew, so that environment, working directory and open files stay as they are
//! and no time is lost; hence it has to happen before the first thread is made. Supplementary groups
//! are kept: they may be what gives access to a container engine's socket.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use slipway_model::{ErrorKind, Hint};

use crate::sys::clone::{Cloned, clone_process, unshare};
use crate::sys::process;

/// How the program came to its powers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// It runs as root, of the machine or of a namespace that somebody else made.
    Root,
    /// It is root of a user namespace of its own; outside it is this user.
    Rootless { uid: u32, gid: u32 },
}

/// Says why an ordinary user cannot build.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    #[error("user {user} has no subordinate ids in `{file}`")]
    NoSubordinateIds { user: String, file: &'static str },
    #[error("cannot read `{file}`")]
    Unreadable {
        file: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{0}` is not installed")]
    MissingProgram(&'static str),
    #[error("`{program}` failed: {message}")]
    Mapping { program: &'static str, message: String },
    #[error("cannot make a user namespace")]
    Refused(#[source] Errno),
    #[error("cannot use the user namespace: {what}")]
    Powerless {
        what: &'static str,
        #[source]
        errno: Errno,
    },
}

impl RootlessError {
    /// Says whose mistake it is.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Environment
    }

    /// Names what mends it.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NoSubordinateIds { user, .. } => Some(format!(
                "run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`"
            )),
            Self::MissingProgram(_) => {
                Some("install it: `apt install uidmap`, `dnf install shadow-utils` or `apk add shadow-uidmap`".into())
            }
            Self::Refused(errno) | Self::Powerless { errno, .. } => Some(user_namespace_hint(*errno)),
            Self::Mapping { .. } => Some(
                "check that `newuidmap` and `newgidmap` are setuid root and that the ranges in /etc/subuid and \
                 /etc/subgid are yours"
                    .into(),
            ),
            Self::Unreadable { file, .. } => Some(format!("run `sudo chmod 644 {file}`")),
        }
    }
}

/// Says what keeps this machine from making user namespaces, as far as it can be told.
pub fn user_namespace_hint(errno: Errno) -> Hint {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        text.trim().parse::<u64>().ok()
    };
    hint_by_settings(errno, setting)
}

fn hint_by_settings(errno: Errno, setting: impl Fn(&str) -> Option<u64>) -> Hint {
    for (name, bad, good) in [
        ("user.max_user_namespaces", 0, "28633"),
        ("kernel.unprivileged_userns_clone", 0, "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, "0"),
    ] {
        if setting(name) == Some(bad) {
            return format!(
                "this machine forbids it: run `sudo sysctl -w {name}={good}`, or run slipway as root"
            );
        }
    }
    match errno {
        Errno::NOSPC | Errno::USERS => "too many user namespaces inside one another".to_owned(),
        _ => "a container or its seccomp profile may forbid it: start it with `--security-opt \
              seccomp=unconfined`, or run slipway as root"
            .to_owned(),
    }
}

/// Moves the program into a user namespace if it does not run as root.
///
/// Call it early in `main`, after [`crate::dispatch`], while there is one thread.
pub fn enter_if_needed() -> Result<Privilege, RootlessError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid == 0 {
        return Ok(Privilege::Root);
    }
    let user = user_name(uid);
    let maps = [
        Map::new("newuidmap", "/etc/subuid", &user, uid, uid)?,
        Map::new("newgidmap", "/etc/subgid", &user, uid, gid)?,
    ];
    let mapper = Mapper::start(&maps)?;
    unshare(UnshareFlags::NEWUSER).map_err(RootlessError::Refused)?;
    mapper.finish(&maps)?;
    let powerless = |what| move |errno| RootlessError::Powerless { what, errno };
    let (root_uid, root_gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(root_gid, root_gid, root_gid).map_err(powerless("group id"))?;
    rustix::thread::set_thread_res_uid(root_uid, root_uid, root_uid).map_err(powerless("user id"))?;
    unshare(UnshareFlags::NEWNS).map_err(powerless("mount namespace"))?;
    Ok(Privilege::Rootless { uid, gid })
}

/// Tells whether ids mean here what they mean to the machine: all of them are mapped to themselves.
pub fn is_initial_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// Returns the name of a user, or its number.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_uid = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    passwd.lines().find_map(of_uid).unwrap_or_else(|| uid.to_string())
}

/// One of the two id maps and the program that writes it.
#[derive(Debug)]
struct Map {
    program: &'static str,
    /// `inside outside count`, three by three.
    ranges: Vec<(u32, u32, u32)>,
}

impl Map {
    fn new(
        program: &'static str,
        file: &'static str,
        user: &str,
        uid: u32,
        own: u32,
    ) -> Result<Self, RootlessError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(RootlessError::Unreadable { file, source }),
        };
        let ranges = ranges(&text, user, uid, own);
        if ranges.len() < 2 {
            return Err(RootlessError::NoSubordinateIds { user: user.to_owned(), file });
        }
        Ok(Self { program, ranges })
    }
}

/// Puts the user's own id at 0 and its subordinate ids after it, in the file's order.
fn ranges(text: &str, user: &str, uid: u32, own: u32) -> Vec<(u32, u32, u32)> {
    let mut list = vec![(0, own, 1)];
    let mut inside = 1_u32;
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [owner, start, count] = fields.as_slice() else { continue };
        if *owner != user && owner.parse() != Ok(uid) {
            continue;
        }
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else { continue };
        let Some(next) = inside.checked_add(count) else { break };
        if count > 0 && start.checked_add(count).is_some() {
            list.push((inside, start, count));
            inside = next;
        }
    }
    list
}

/// A copy of this process that stays outside, to map the ids once the namespace is there.
struct Mapper {
    pid: i32,
    go: OwnedFd,
    result: OwnedFd,
}

impl Mapper {
    fn start(maps: &[Map; 2]) -> Result<Self, RootlessError> {
        let pipe =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(RootlessError::Refused);
        let ((wait, go), (result, report)) = (pipe()?, pipe()?);
        let target = std::process::id();
        match clone_process(0).map_err(RootlessError::Refused)? {
            Cloned::Child => {
                drop((go, result));
                // Nothing comes, only the end, if the parent died or could not make the namespace.
                let mut byte = [0];
                if std::fs::File::from(wait).read_exact(&mut byte).is_ok() {
                    let message = run_all(maps, target).err().unwrap_or_default();
                    let _ = std::fs::File::from(report).write_all(message.as_bytes());
                }
                process::exit_now(0)
            }
            Cloned::Parent { pid, .. } => Ok(Self { pid, go, result }),
        }
    }

    /// Lets the mapper do its work and waits for it.
    fn finish(self, maps: &[Map; 2]) -> Result<(), RootlessError> {
        let mut message = String::new();
        let failed = |source: std::io::Error| RootlessError::Mapping {
            program: maps[0].program,
            message: source.to_string(),
        };
        std::fs::File::from(self.go).write_all(&[1]).map_err(failed)?;
        std::fs::File::from(self.result).read_to_string(&mut message).map_err(failed)?;
        let pid = rustix::process::Pid::from_raw(self.pid);
        let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
        if message.is_empty() {
            return Ok(());
        }
        let (program, text) = message.split_once('\n').unwrap_or((&message, ""));
        let program = maps.iter().map(|map| map.program).find(|name| *name == program).unwrap_or("newuidmap");
        Err(match text {
            "" => RootlessError::MissingProgram(program),
            text => RootlessError::Mapping { program, message: text.trim().to_owned() },
        })
    }
}

/// Runs the mapping programs; an error is the program's name and, on further lines, what it said.
fn run_all(maps: &[Map; 2], target: u32) -> Result<(), String> {
    for map in maps {
        let numbers = map.ranges.iter().flat_map(|(inside, outside, count)| [inside, outside, count]);
        let output = Command::new(map.program)
            .arg(target.to_string())
            .args(numbers.map(u32::to_string))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => map.program.to_owned(),
                _ => format!("{}\n{error}", map.program),
            })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}\n{} ({})", map.program, text.trim(), output.status));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_id_comes_first_and_subordinate_ids_follow() {
        let text = "other:1:1\nme:100000:65536\n# x\n1000:300000:10\nme:bad:1\nme:5:0\nme:4294967295:2\n";
        assert_eq!(ranges(text, "me", 1000, 1000), [(0, 1000, 1), (1, 100_000, 65536), (65537, 300_000, 10)]);
        assert_eq!(ranges("", "me", 1000, 100), [(0, 100, 1)]);
    }

    #[test]
    fn hints_name_the_setting_that_forbids() {
        let apparmor = |name: &str| (name == "kernel.apparmor_restrict_unprivileged_userns").then_some(1);
        let hint = hint_by_settings(Errno::PERM, apparmor);
        assert!(hint.contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"), "{hint}");
        assert!(hint_by_settings(Errno::PERM, |_| None).contains("seccomp"));
        let missing = RootlessError::NoSubordinateIds { user: "me".into(), file: "/etc/subuid" };
        assert!(missing.hint().is_some_and(|hint| hint.contains("usermod --add-subuids")));
    }
}
