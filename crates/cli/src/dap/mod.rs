//! A debugger of builds for editors, by the Debug Adapter Protocol over standard input and output.
//!
//! The editor's words are read and written by [`framing`] (bytes), [`messages`] (types) and [`connection`] (who answers
//! whom). [`Adapter`] answers requests; a [`Debugger`] steps through the result of a frontend, with one thread for
//! each platform:
//!
//! - [`program`] puts the vertices of a definition in the order in which a person reads their stages, and knows what
//!   the next step is. Nothing in it runs.
//! - [`thread`] builds up to a step by the build's gateway, stops there and waits for the person; who pauses it
//!   stops before a step that has not begun, which [`progress`] knows.
//! - [`variables`] and [`explorer`] show what a step is given and the files it starts from; [`shell`] runs programs
//!   there, in a terminal that the editor opens ([`attach`]).
//!
//! The build may run in this process or at a daemon: only the gateway is known here.
//!
//! Invariant: what an editor sends ends at most in an error for that editor; when it goes away, so does the build.

mod adapter;
pub(crate) mod attach;
mod breakpoints;
mod connection;
mod explorer;
mod framing;
mod messages;
mod program;
mod progress;
mod shell;
mod sources;
mod thread;
mod variables;

pub(crate) use adapter::{Adapter, Session};
pub(crate) use messages::LaunchArguments;
