//! Trees of files: walk, select, digest, copy, within a root.
//!
//! A build reads files from three places: the build context (read in place, through its ignore file), the
//! root file system of another stage or image, and archives. It writes them to root file systems and, at the
//! end, to the user's disk. All of that happens here, through directory descriptors: a [`Root`] is the only
//! way to a file, and no name inside it, however it is linked, leads out of it.
//!
//! - [`patterns`]: ignore patterns and `COPY` wildcards, with the meaning the reference gives them.
//! - [`Root`]: a directory as the top of a tree, with symbolic links resolved inside it.
//! - [`FileTree`]: what can be read like a tree; a [`Root`] is one, and so is a [`ContextTree`].
//! - [`ContextTree`]: a build context without what its ignore file excludes.
//! - [`DigestCache`]: digests of file contents, kept between builds.
//! - [`content_digest`]: the cache key of what a `COPY` or a bind mount selects.
//! - [`copy`] and its neighbours: the file operations of a build graph.
//! - [`archive`]: unpacking for `ADD`, and the `tar` output.
//!
//! Everything here blocks; callers run it where blocking is allowed.

#![forbid(unsafe_code)]

pub mod archive;
mod content;
mod context;
mod copy;
mod digest_cache;
mod entry;
mod error;
mod hash;
mod mode;
mod operations;
pub mod patterns;
mod root;
mod tree;
mod work;
mod xattrs;

pub use content::{Selection, content_digest, digest_of_nothing};
pub use context::ContextTree;
pub use copy::{CopyOptions, CopyReport, Ownership, copy, export};
pub use digest_cache::{DigestCache, FileDigest, Stability};
pub use entry::{Dir, Entry, EntryRef, FileKind, Metadata, Time};
pub use error::{FilesError, OsError};
pub use mode::{ModeChange, ParseModeError};
pub use operations::{MakeDir, MakeFile, MakeLink, mkdir, mkfile, rm, symlink};
pub use root::{NewDir, Root};
pub use tree::{FileTree, nearest_path, resolve, wildcard_paths};
