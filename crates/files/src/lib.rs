//! Trees of files: walk, select, digest, copy, within a root.

#![forbid(unsafe_code)]
