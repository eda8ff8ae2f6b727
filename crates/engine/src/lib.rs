//! Joins the parts: sources, operations, exporters, sessions.
//!
//! [`Engine::solve`] is the one way to build: it takes a request and a sink for events, and gives what the
//! outputs were. It prints nothing, and keeps nothing but what the [`slipway_store::Store`] keeps, so any
//! number of engines in any number of processes may work on one state directory.

#![forbid(unsafe_code)]

mod blobs;
mod cache;
mod config;
mod content;
mod engine;
mod error;
mod exporters;
mod failures;
mod graph;
mod images;
mod imagetools;
mod job;
mod ops;
mod platform_check;
mod programs;
mod progress;
mod run;
mod sandbox;
mod services;
mod solve;
mod sources;
mod ssh;
mod started;
mod terminal;
mod tree;

pub use engine::{Engine, EngineOptions, default_root};
pub use imagetools::{
    CombineOptions, Combined, ImageSource, Inspection, Location, PlatformInspection, Stated, StatedPlatform,
    Wanted,
};
pub use run::{RunOptions, RunSource, Volume};
pub use services::ImageSummary;
pub use solve::{CallResult, SolveResponse};
pub use terminal::restore_terminal;
pub use {slipway_emulation as emulation, slipway_runtime as runtime, slipway_store as store};
