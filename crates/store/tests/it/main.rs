//! The store with real parts: overlayfs, GNU tar, gzip, other processes.
//!
//! Most of this needs root, or a user namespace with a mount namespace; without, it is skipped loudly.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test ends by a panic, says what it skips, and tells its parent how far it is"
)]

mod cache;
mod collection;
mod content;
mod diff;
mod full_disk;
mod hostile;
mod merge;
mod processes;
mod round_trip;
mod support;
mod unpack;
