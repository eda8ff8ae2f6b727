//! Joins the parts: sources, operations, exporters, sessions.
//!
//! [`Engine::start`] begins a [`Build`] for a client, who is known by a [`Session`] and a sink for events.
//! [`Engine::solve`] is the same for a request of this process: frontend, results, outputs. The engine prints
//! nothing, and keeps nothing but what the [`slipway_store::Store`] keeps, so any number of engines in any
//! number of processes may work on one state directory.

#![forbid(unsafe_code)]

mod attachments;
mod attest;
mod blobs;
mod build;
mod cache;
pub mod config;
mod content;
mod debug;
mod devices;
mod engine;
mod error;
mod evaluate;
mod explain;
mod exporters;
mod failed;
mod failures;
mod frontend;
mod graph;
pub mod history;
mod identical_layers;
mod images;
mod imagetools;
mod in_flight;
mod job;
mod layout_index;
mod ops;
mod platform_check;
pub mod policy;
mod programs;
mod progress;
mod proxied;
mod remote_cache;
mod run;
mod sandbox;
mod services;
pub mod session;
mod solve;
mod sources;
mod ssh;
mod start_over;
mod started;
mod terminal;
mod tree;
mod vertices;
mod views;

pub use attachments::{Attachment, Documents};
pub use attest::{
    AttestationChain, FrontendRequest, PROVENANCE_MEMBER, RecordedProvenance, provenance_member,
};
pub use build::{
    Attestation, Build, BuildOptions, BuildResult, Checksum, ChecksumAlgorithm, ChecksumRequest, Container,
    ContainerMount, ContainerProcess, ContainerRequest, ExportOptions, ExportResult, ExporterRequest,
    FileInfo, FileKind, GitMeta, HttpMeta, ImageMeta, ProcessRequest, Ref, Refs, ResolveOptions, SourceMeta,
    keys,
};
pub use debug::{DebugOffer, DebugOptions, DebugStep};
pub use devices::{Device, Devices};
pub use engine::{Engine, EngineOptions, default_root};
pub use exporters::layout::replace_file;
pub use exporters::tarball::join_tars;
pub use failed::{FailedPart, FailedStep};
pub use frontend::{
    CallResult, FrontendHost, FrontendReturn, FrontendStream, RemoteDirectory, RemoteFiles,
    RemoteFilesRequest, RemoteNames, attestations, frontend_options,
};
pub use imagetools::{
    CombineOptions, Combined, ImageSource, Inspection, Location, PlatformInspection, Stated, StatedPlatform,
    Wanted,
};
pub use layout_index::LayoutIndex;
pub use remote_cache::{IN_SESSION, JointCache, list_cache};
pub use run::{RunOptions, RunSource, Volume};
pub use services::ImageSummary;
pub use session::Session;
pub use slipway_dockerfile::{ResolveMode, SYNTAX_VERSION as DOCKERFILE_VERSION, is_for_built_in};
pub use solve::{Debugger, SolveResponse};
pub use sources::{DetachedSignature, GitObject, SignedBy};
pub use terminal::{RawTerminal, restore_terminal};
pub use {
    slipway_emulation as emulation, slipway_files as files, slipway_registry as registry,
    slipway_runtime as runtime, slipway_store as store,
};
