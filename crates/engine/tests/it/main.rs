//! The engine as its clients see it: builds over a session, without a daemon around them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

use slipway_engine::runtime;

mod bucket;
mod client;
mod compatibility;
mod definitions;
mod frontend;
mod frontends;
mod many;
mod policy;
mod steps;

/// Becomes the sandbox of steps when started as one: `main` is the test harness's.
#[used]
// SAFETY: the section holds addresses of functions with C calling convention that the C library runs at
// start-up, after the standard library has stored the arguments.
#[unsafe(link_section = ".init_array")]
static DISPATCH: extern "C" fn() = {
    extern "C" fn run() {
        runtime::dispatch();
    }
    run
};
