//! One module for each command: settings in, engine called, result shown.

pub(crate) mod bake;
pub(crate) mod binfmt;
pub(crate) mod build;
pub(crate) mod builders;
pub(crate) mod daemon;
pub(crate) mod dap;
pub(crate) mod debug;
pub(crate) mod dial_stdio;
pub(crate) mod du;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod imagetools;
pub(crate) mod plugin;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod push;
pub(crate) mod run;
