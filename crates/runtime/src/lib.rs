//! Runs one process in a root file system on Linux: namespaces, mounts, seccomp, limits.
//!
//! The engine is a fat, threaded process that must not fork. So it starts a small single-threaded
//! *sandbox server* early (the same binary under another name, see [`dispatch`]) and sends it a
//! [`ProcessSpec`] per process; the server clones the process into new namespaces, waits for it, clears
//! away the mount points it made, and reports the [`Exit`]. When the engine dies, by whatever cause, the
//! server sees the end of its socket, kills every process and exits.
//!
//! A server is either in the user namespace of the engine, or, for emulated processes, in a child user
//! namespace with the same ids that has a binfmt_misc table of its own ([`ServerOptions`]).
//!
//! The crate does not know images, users' names (but see [`passwd`]), or which platform needs which
//! emulator. It is the only crate with unsafe code, all of it below `sys`.

#![deny(unsafe_op_in_unsafe_fn)]

mod cgroup;
mod child;
mod client;
mod error;
mod exit;
mod listener;
pub mod passwd;
mod protocol;
pub mod rootless;
mod seccomp;
mod server;
mod spec;
mod sys;
mod terminal;

pub use client::{Killer, Process, SandboxServer, ServerOptions};
pub use error::{ExecFailure, MountFailure, ProcessError, StartError, StartStage};
pub use exit::{Exit, ExitStatus, Usage};
pub use listener::{Listener, PendingListener};
pub use server::dispatch;
pub use spec::{
    FileContent, Mount, MountSource, Network, ProcessSettings, ProcessSpec, ResourceLimits, Rlimit, Security,
    Stdio, User,
};
pub use sys::tether::tether;
pub use terminal::{Terminal, Terminals};
