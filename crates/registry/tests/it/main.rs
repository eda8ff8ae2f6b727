//! The client against registries: one made up here that can lie in every way, and the real one.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that fails may panic")]

mod auth;
mod fake;
mod growing;
mod kit;
mod mirrors;
mod pull;
mod push;
mod real;
mod tls;
