//! Trees on a real file system: contexts, keys, copies and archives.

#![expect(clippy::print_stdout, reason = "a test that cannot run here says so")]

mod archive;
mod content;
mod context;
mod copy;
mod operations;
mod root;
mod support;
