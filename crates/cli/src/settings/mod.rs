//! From strings to requests: flags, environment and the files they name become typed values, once.
//!
//! Nothing here reads the process's own state: what surrounds a command is in [`Surroundings`], so that
//! every rule is tested as a table.

mod annotation;
mod attestations;
pub(crate) mod bake;
pub(crate) mod build;
mod cache;
mod context;
mod error;
pub(crate) mod filter;
mod git;
pub(crate) mod history;
pub(crate) mod imagetools;
mod limits;
mod outputs;
mod pairs;
mod platforms;
pub(crate) mod policy;
mod proxies;
pub(crate) mod secrets;
mod steps;
pub(crate) mod surroundings;
pub(crate) mod values;

pub(crate) use context::named_source as build_context;
pub(crate) use error::SettingsError;
pub(crate) use git::address_of as repository_of;
pub(crate) use platforms::parse_platforms;
pub(crate) use secrets::describe;
pub(crate) use steps::network;
pub(crate) use surroundings::Surroundings;
