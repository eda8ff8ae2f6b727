//! The vocabulary of slipway: what is said between its parts, and to registries, clients and files.
//!
//! Values here are parsed once at the edge and are correct from then on. The crate does no I/O, has no
//! async and no unsafe code, and depends on no other crate of the workspace.

#![forbid(unsafe_code)]

pub mod attestation;
mod boolean;
mod compatibility;
pub mod csv;
mod diagnostic;
mod digest;
mod duration;
mod error_kind;
pub mod filter;
pub mod image_config;
pub mod llb;
pub mod oci;
mod output_attributes;
mod path;
mod platform;
pub mod progress;
mod redact;
mod reference;
mod size;
pub mod solve;
pub mod source_rules;
mod trace;

pub use boolean::parse_bool;
pub use compatibility::Compatibility;
pub use diagnostic::{Diagnostic, ErrorDetail, ForeignError, SourceSpan};
pub use digest::{Digest, Digester, ParseDigestError};
pub use duration::{ParseDurationError, format_duration, parse_duration};
pub use error_kind::{ErrorKind, Hint};
pub use image_config::ImageConfig;
pub use oci::{Descriptor, ImageIndex, Manifest, MediaType};
pub use output_attributes::{AttributeError, OutputAttributes, parse_annotation, parse_image_name};
pub use path::clean_path;
pub use platform::{ParsePlatformError, Platform};
pub use redact::Secret;
pub use reference::{ParseReferenceError, Reference};
pub use size::parse_size;
pub use solve::SolveRequest;
pub use source_rules::SourceRules;
pub use trace::{Frame, Trace};
