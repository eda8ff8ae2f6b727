//! What can go wrong when a sandbox starts or a process is made, with a remedy where there is one.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use slipway_model::{ErrorKind, Hint};

/// Says why no sandbox server could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the sandbox process")]
    Spawn(#[source] std::io::Error),
    #[error("cannot talk to the sandbox process")]
    Connection(#[source] Errno),
    #[error("the sandbox process ended while starting")]
    Ended,
    #[error("cannot map the ids of the sandbox's user namespace")]
    IdMap(#[source] std::io::Error),
    #[error("cannot set up the sandbox process: {what}")]
    Setup {
        what: StartStage,
        #[source]
        errno: Errno,
    },
}

/// Names the part of a sandbox server's own set-up that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartStage {
    UserNamespace,
    MountNamespace,
    /// Mounting binfmt_misc in the user namespace (Linux 6.7).
    BinfmtMount,
    /// Registering the named emulator.
    BinfmtRegister(String),
    /// The file system that the server lives in.
    Root(String),
    Protocol,
}

impl std::fmt::Display for StartStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UserNamespace => f.write_str("user namespace"),
            Self::MountNamespace => f.write_str("mount namespace"),
            Self::BinfmtMount => f.write_str("binfmt_misc in the user namespace"),
            Self::BinfmtRegister(name) => write!(f, "registration of emulator `{name}`"),
            Self::Root(what) => write!(f, "root of the sandbox: {what}"),
            Self::Protocol => f.write_str("malformed request"),
        }
    }
}

impl StartError {
    /// Says whose mistake it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setup { what: StartStage::Protocol, .. } => ErrorKind::Internal,
            _ => ErrorKind::Environment,
        }
    }

    /// Names what mends it.
    pub fn hint(&self) -> Option<Hint> {
        let Self::Setup { what, errno } = self else { return None };
        match what {
            StartStage::UserNamespace => Some(crate::rootless::user_namespace_hint(*errno)),
            StartStage::MountNamespace if *errno == Errno::PERM => Some(
                "run slipway as root, or as an ordinary user with subordinate ids (see `man subuid`)"
                    .to_owned(),
            ),
            StartStage::BinfmtMount => Some(
                "the kernel has no binfmt_misc for user namespaces (Linux 6.7 or newer has): register the \
                 emulators on the host with `slipway binfmt --install all`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Says why a process could not be run; a process that ran and failed is an [`crate::Exit`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ProcessError {
    #[error("exec: {program:?}: executable file not found in $PATH")]
    NotInPath { program: String },
    #[error("exec: {program:?}: {reason}")]
    CannotExecute { program: String, reason: ExecFailure },
    #[error("working directory `{path}`: {}", Text(*.errno))]
    WorkingDirectory { path: String, errno: i32 },
    #[error("cannot mount `{destination}`: {reason}")]
    Mount { destination: String, reason: MountFailure },
    #[error("cannot set limit `{name}`: {}", Text(*.errno))]
    Rlimit { name: String, errno: i32 },
    #[error("cannot limit resources: {what}: {}", Text(*.errno))]
    Cgroup { what: String, errno: i32 },
    #[error("cannot set up the sandbox: {what}: {}", Text(*.errno))]
    Setup { what: String, errno: i32 },
    #[error("too many mounts: {0}")]
    TooManyMounts(usize),
    #[error("the first process of the container has ended")]
    ContainerEnded,
    #[error("the sandbox process is gone")]
    ServerGone,
    #[error("cannot talk to the sandbox process: {}", Text(*.0))]
    Connection(i32),
}

/// Says why a file that was found does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecFailure {
    /// The path names nothing.
    NotFound,
    /// The file is there, but the interpreter in its first line or ELF header is not.
    InterpreterNotFound,
    PermissionDenied,
    IsDirectory,
    /// The kernel has no handler for the format: another architecture, or a script without `#!`.
    WrongFormat,
    Other(i32),
}

impl std::fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file or directory"),
            Self::InterpreterNotFound => {
                f.write_str("the file exists, but its interpreter does not: no such file or directory")
            }
            Self::PermissionDenied => f.write_str("permission denied"),
            Self::IsDirectory => f.write_str("is a directory"),
            Self::WrongFormat => f.write_str("exec format error"),
            Self::Other(errno) => write!(f, "{}", Text(*errno)),
        }
    }
}

/// Says why a mount failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountFailure {
    /// The path goes through something that is no directory, or through too many links.
    BadDestination(i32),
    /// The path inside the source names nothing, or cannot be reached.
    BadSource { path: String, errno: i32 },
    /// The mount point is missing and cannot be made.
    CannotCreate(i32),
    /// `/proc`, `/sys` and `/dev` have to be what they say, or the masks over them would miss.
    SymbolicLink,
    /// A directory would cover a file, or a file a directory.
    WrongType { source_is_directory: bool },
    /// The kernel refused.
    Refused(i32),
}

impl std::fmt::Display for MountFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadDestination(errno) => write!(f, "cannot resolve the path: {}", Text(*errno)),
            Self::BadSource { path, errno } => write!(f, "source `{path}`: {}", Text(*errno)),
            Self::CannotCreate(errno) => write!(f, "cannot create the mount point: {}", Text(*errno)),
            Self::SymbolicLink => f.write_str("has to be a directory, not a symbolic link"),
            Self::WrongType { source_is_directory: true } => {
                f.write_str("the source is a directory, the destination is not")
            }
            Self::WrongType { source_is_directory: false } => {
                f.write_str("the source is a file, the destination is a directory")
            }
            Self::Refused(errno) => write!(f, "{}", Text(*errno)),
        }
    }
}

impl ProcessError {
    /// Says whose mistake it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotInPath { .. }
            | Self::CannotExecute { .. }
            | Self::WorkingDirectory { .. }
            | Self::ContainerEnded => ErrorKind::User,
            Self::Mount { reason: MountFailure::Refused(_), .. } => ErrorKind::Environment,
            Self::Mount { .. } | Self::TooManyMounts(_) | Self::Rlimit { .. } => ErrorKind::User,
            Self::Cgroup { .. } | Self::Setup { .. } | Self::ServerGone | Self::Connection(_) => {
                ErrorKind::Environment
            }
        }
    }

    /// Names what mends it.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Mount { destination, reason: MountFailure::Refused(errno) }
                if destination == "/proc" && *errno == Errno::PERM.raw_os_error() =>
            {
                Some(
                    "a container around slipway hides parts of /proc: start it with \
                     `--security-opt systempaths=unconfined`"
                        .to_owned(),
                )
            }
            Self::Mount { reason: MountFailure::CannotCreate(errno), .. }
                if *errno == Errno::ROFS.raw_os_error() =>
            {
                Some("the mount point has to exist in a file system that is read-only".to_owned())
            }
            Self::Cgroup { .. } => Some(
                "limits need a writable cgroup: run as root, or under `systemd-run --user --scope -p Delegate=yes`"
                    .to_owned(),
            ),
            Self::NotInPath { .. } | Self::CannotExecute { .. } => Some(
                "check that the program is in the image, at that path, executable and for the image's platform"
                    .to_owned(),
            ),
            Self::Rlimit { .. } => Some("raising a hard limit needs CAP_SYS_RESOURCE".to_owned()),
            _ => None,
        }
    }
}

/// Shows an errno as the C library's text, without the number.
struct Text(i32);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}
