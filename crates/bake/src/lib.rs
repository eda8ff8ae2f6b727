//! Bake files: HCL, JSON and compose files become the targets that a person wants built.
//!
//! The crate is pure. The caller hands in texts and what surrounds them ([`Environment`]); it gets back
//! [`Bake`], in which every name is resolved and every option is typed, or [`Diagnostic`]s that show the
//! line. `syntax` turns texts into one tree, `eval` and `functions` compute with [`value`]s, `definition`
//! resolves what refers to what, `resolve` picks what was asked for.
//!
//! [`Diagnostic`]: slipway_model::Diagnostic

#![forbid(unsafe_code)]

mod compose;
mod definition;
mod entitlements;
mod error;
mod eval;
mod files;
mod functions;
mod list;
mod overrides;
mod pattern;
mod print;
mod resolve;
mod syntax;
mod target;
mod value;

pub use definition::{Definition, VariableInfo};
pub use entitlements::{Existing, Follow, Grants, Missing, Needs, PathBase};
pub use files::{DEFAULT_FILES, Environment, ReadFile, SourceFile, parse};
pub use list::{
    ListKind, ListRequest, targets_as_json, targets_as_table, variables_as_json, variables_as_table,
};
pub use print::{to_json, to_value};
pub use resolve::{Bake, Request, resolve};
pub use target::{
    Attest, Attributes, CacheEntry, Group, Output, Policy, Resources, SecretEntry, SshEntry, Strings, Target,
};
