//! Runs real processes in real sandboxes. Needs root (of the machine or of a user namespace) and, for
//! foreign programs, `SLIPWAY_TEST_FOREIGN_ROOTS`: a directory with `<architecture><variant>/busybox`.
//!
//! Without these the tests say so and pass, except in CI (`CI` is set), where they fail.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests: a panic is the report"
)]

mod container;
mod foreign;
mod harness;
mod isolation;
mod lifecycle;
mod mounts;
mod program;
mod rootless;

/// Becomes the sandbox server when started as one: `main` is the test harness's.
#[used]
// SAFETY: the section holds addresses of functions with C calling convention that the C library runs at
// start-up, after the standard library has stored the arguments.
#[unsafe(link_section = ".init_array")]
static DISPATCH: extern "C" fn() = {
    extern "C" fn run() {
        slipway_runtime::dispatch();
        rootless::enter();
    }
    run
};
