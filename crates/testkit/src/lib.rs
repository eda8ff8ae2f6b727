//! What slipway's integration tests stand on: an environment of their own for each test, a real registry with
//! a base image for many platforms, a registry that misbehaves, images made by hand, and a view of processes.
//!
//! Only tests use this crate. It knows slipway as a user does, by its command line; it links none of its
//! crates. What is missing on the machine is a panic that names the command which mends it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a panic is the report")]

mod base;
mod command;
mod console;
mod cut;
mod daemon;
mod editor;
mod environment;
mod fake;
mod git;
mod layout;
mod machine;
mod process;
mod random;
mod registry;
mod sshd;
mod tar;

pub use base::{BASE_PLATFORMS, base_context, debian_context, registry};
pub use command::{Outcome, Running, kill_after};
pub use console::Console;
pub use cut::CutLine;
pub use daemon::{Daemon, Held};
pub use editor::Editor;
pub use environment::Environment;
pub use fake::{FakeRegistry, Reply, Request};
pub use git::{GitDaemon, GitRepository, git_over_http};
pub use layout::{Layout, digest};
pub use machine::{binfmt_table, in_ci, is_root, mount_table, need, project, slipway};
pub use process::{Seen, descendants, wait_until_gone, with_program};
pub use random::Random;
pub use registry::Registry;
pub use sshd::Sshd;
pub use tar::Archive;
