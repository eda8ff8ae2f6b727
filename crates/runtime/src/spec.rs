//! What to run: the process, its root file system, its mounts and its limits, as plain data.
//!
//! Everything that names a file is a descriptor opened by the caller, so that no path is looked up
//! twice and the sandbox needs no view of the host. Paths in here are paths inside the root.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use serde::{Deserialize, Serialize};

use crate::listener::Listener;
use crate::terminal::Terminals;

/// Describes one process to run and everything it sees.
#[derive(Debug)]
pub struct ProcessSpec {
    /// A detached mount (from `fsmount` or `open_tree`) that becomes `/`.
    ///
    /// It has to be writable where mount points or the working directory are missing.
    pub root: OwnedFd,
    /// Mounts on top of the default ones, in any order: parents are mounted before children.
    pub mounts: Vec<Mount>,
    /// What becomes `/dev/pts`; a new one that nobody else has if it is not given.
    pub terminals: Option<Terminals>,
    pub stdio: Stdio,
    /// A socket to listen at in the network of the container; only in one of its own ([`Network::None`]).
    pub listener: Option<Listener>,
    pub settings: ProcessSettings,
}

/// The part of a [`ProcessSpec`] that is plain values.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSettings {
    /// Program and arguments; a program without `/` is looked up in the `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// `NAME=value` pairs; `HOME` is added from `user` if it is missing.
    pub env: Vec<String>,
    /// Working directory, made (and kept) if it is missing.
    pub cwd: String,
    pub user: User,
    pub hostname: String,
    pub network: Network,
    pub security: Security,
    /// Makes the root read-only for the process, after mount points were made.
    pub readonly_root: bool,
    /// Removes the parent directories made for a mount point too, as the Dockerfile frontend asks.
    pub remove_stub_parents: bool,
    pub rlimits: Vec<Rlimit>,
    /// Size of `/dev/shm` in bytes; 64 MiB if it is not set.
    pub shm_size: Option<u64>,
    /// Sets the `PER_LINUX32` personality: `uname -m` tells the 32-bit sibling of the machine.
    pub linux32: bool,
    pub oom_score_adj: Option<i32>,
    /// Limits by cgroup; without any the process stays in the cgroup of slipway, which costs nothing.
    pub limits: Option<ResourceLimits>,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: User::default(),
            hostname: "slipway".to_owned(),
            network: Network::Host,
            security: Security::Sandbox,
            readonly_root: false,
            remove_stub_parents: true,
            rlimits: Vec::new(),
            shm_size: None,
            linux32: false,
            oom_score_adj: None,
            limits: None,
        }
    }
}

/// Numeric identity of the process; names are resolved by [`crate::passwd`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// Becomes `HOME` where the environment has none.
    pub home: Option<String>,
}

/// Which network the process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network of slipway itself.
    Host,
    /// A network namespace with nothing but a loopback device.
    None,
}

/// How much the process is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// The capabilities, seccomp filter and masked paths that container engines default to.
    Sandbox,
    /// Every capability slipway has, no filter, no masks (`RUN --security=insecure`).
    Insecure,
}

/// One resource limit by its name without `RLIMIT_`, lower case: `nofile`, `nproc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub name: String,
    /// `None` is unlimited.
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Limits that need a cgroup; what is not set is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    pub cpu_shares: Option<u64>,
    /// Microseconds per period; -1 is unlimited.
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids: Option<i64>,
    /// The parent cgroup, relative to the one slipway runs in (or to the root, with a leading `/`).
    pub parent: Option<String>,
}

impl ResourceLimits {
    /// Tells whether nothing is limited and no place is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Standard streams of the process.
#[derive(Debug)]
pub enum Stdio {
    Streams {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The name of a [`crate::Terminal`] of the [`Terminals`] that are `/dev/pts`: all three streams, the
    /// controlling terminal and, for the first process, `/dev/console`. The program then is not process 1, so that
    /// Ctrl-C ends it.
    Terminal(String),
}

/// One mount of the process.
#[derive(Debug)]
pub struct Mount {
    /// Absolute path inside the root; symbolic links are followed inside the root only.
    pub destination: String,
    pub source: MountSource,
    pub readonly: bool,
}

/// Where the content of a mount comes from.
#[derive(Debug)]
pub enum MountSource {
    /// A detached mount of a directory, a file or a socket, as from `open_tree(OPEN_TREE_CLONE)`.
    ///
    /// It is consumed: one per process, since `readonly` is set on it.
    Detached(OwnedFd),
    /// A detached mount of a device node, which a step may open whatever it is: only those of [`Self::Device`] and
    /// the usual ones it can.
    Device(OwnedFd),
    /// The directory or file at `path` inside a detached mount; links in it cannot lead outside.
    Subtree { mount: OwnedFd, path: String },
    /// A fresh tmpfs; the size is in bytes, no size is the kernel's default (half the memory).
    Tmpfs { size: Option<u64>, mode: u32 },
    /// A regular file with this content, kept in memory: secrets, `/etc/hosts`, `/etc/resolv.conf`.
    File(FileContent),
}

/// A small file that exists for one process only.
#[derive(Clone, PartialEq, Eq)]
pub struct FileContent {
    pub content: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl std::fmt::Debug for FileContent {
    /// Leaves the content out: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileContent")
            .field("length", &self.content.len())
            .field("mode", &format_args!("{:o}", self.mode))
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish()
    }
}

impl Mount {
    /// Makes the mount of a file with `content`, readable by everyone and read-only, as `/etc/hosts`.
    pub fn public_file(destination: &str, content: impl Into<Vec<u8>>) -> Self {
        let file = FileContent { content: content.into(), mode: 0o644, uid: 0, gid: 0 };
        Self { destination: destination.to_owned(), source: MountSource::File(file), readonly: true }
    }
}

impl MountSource {
    /// Clones the mount at a path of the host, with what is mounted below it.
    pub fn host_path(path: &Path) -> Result<Self, Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_NO_AUTOMOUNT;
        rustix::mount::open_tree(rustix::fs::CWD, path, flags).map(Self::Detached)
    }
}
