//! The frontend as a whole, with a resolver that knows a few images.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod calls;
mod config;
mod conformance;
mod corpus;
mod errors;
mod graph;
mod properties;
mod support;
