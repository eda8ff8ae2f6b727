//! The engine as its clients see it: builds over a session, without a daemon around them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod definitions;
mod frontend;
mod many;
