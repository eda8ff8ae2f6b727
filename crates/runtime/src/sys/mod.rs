//! System calls that no library wraps safely, one module per family.
//!
//! Callers get safe functions; every `unsafe` block says why it is sound.

pub(crate) mod clone;
pub(crate) mod exec;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod tether;
