//! Source policies in Rego: what of the world a build may use.
//!
//! What is known of a source becomes a document (`input`), which the modules of a policy are evaluated against
//! (`modules`, `evaluate`); their decision becomes a verdict (`decision`). What the modules have read of the document
//! that is not known yet is asked for, and then they are evaluated again ([`Policy`]).
//!
//! Whoever has a source decided about is the engine's [`SourceJudge`](slipway_engine::policy::SourceJudge): embedded
//! builds, daemons that ask their client, and commands that try a policy out. Nothing here reaches the network or
//! the disk; files that a policy names come through [`PolicyFiles`].
//!
//! Invariant: a field that is not known yet never decides; it is found out first, or the evaluation is an error.

#![forbid(unsafe_code)]

mod decision;
mod environment;
mod evaluate;
mod files;
mod functions;
mod input;
mod log;
mod lookup;
mod modules;
mod policies;
mod policy;
mod print;
mod reads;
mod schema;
mod tester;
mod unknown;

pub use decision::Decision;
pub use environment::Environment;
pub use files::{PolicyFile, PolicyFiles};
pub use log::{Log, LogLevel};
pub use lookup::decide;
pub use policies::Policies;
pub use policy::{Policy, PolicyOptions};
pub use print::{Printed, print};
pub use schema::input_schema;
pub use slipway_engine::policy::Lookup;
pub use tester::{TestOptions, TestResult, run_tests};

use slipway_model::{Diagnostic, ErrorKind};

/// Says what a person has got wrong in a policy.
fn wrong(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}
