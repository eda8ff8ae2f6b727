//! BuildKit's gRPC interface to the engine.
//!
//! [`serve`] answers at sockets: `control` is the service that builds are asked of, `gateway` what clients and
//! frontends use while a build is under way, `session` what we call at the client, over the connection it made.
//! `wire` has the messages. Directories travel by [`slipway_fsutil`].
//!
//! Nothing here builds: each request becomes calls of one [`slipway_engine::Build`].
//!
//! Invariant: what a client sends ends at most in an error for that client. When it goes away its builds end, and
//! nothing of them stays.

#![forbid(unsafe_code)]

mod builds;
pub mod client;
mod content;
mod control;
mod gateway;
mod history;
mod server;
mod session;
mod wire;
mod worker;

pub use gateway::Frontends;
pub use history::encode_events;
pub use server::{
    Address, DaemonConfig, DaemonOptions, InProcess, LogConfig, LogFormat, LogLevel, Owner, TlsFiles,
    run as serve,
};
pub use worker::{BUILDKIT_VERSION, PACKAGE};
