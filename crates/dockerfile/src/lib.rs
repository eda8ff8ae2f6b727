//! The Dockerfile frontend: parse, lint, convert to LLB and an image config.
//!
//! Everything here is a function of its arguments: no disk, no network, no clock. The one thing asked of
//! the outside, what a base image is, goes through [`ImageResolver`]. The meaning of every instruction is
//! BuildKit v0.32's (Dockerfile syntax 1.26): the operations, the image config, the texts in its history,
//! the names of vertices, the warnings.
//!
//! - [`parse`] reads a file; [`Dockerfile`] prints one.
//! - [`bases`] lists the images that a build needs, before anything runs.
//! - [`context_definition`] makes a definition of the build context, where it is not a directory.
//! - [`convert`] makes the definition and the image config for one platform.
//! - [`check`], [`outline`], [`targets`] and [`describe`] answer `--call`.

#![forbid(unsafe_code)]

mod call;
mod convert;
mod document;
mod expand;
mod git;
mod instruction;
mod lint;
mod location;
mod options;
mod parser;
mod problem;
mod suggest;
mod text;

/// The version of the Dockerfile language that is built in.
pub const SYNTAX_VERSION: &str = "1.26.0";

pub use call::{
    BuildError, CheckResults, Outline, OutlineArg, OutlineSecret, OutlineSsh, Request, Target, TargetList,
    check, describe, describe_text, outline, snippet, targets,
};
pub use convert::{
    BaseImage, BaseInfo, ContextPaths, ContextUse, Converted, Failure, ScanStage, bases, context_definition,
    convert, local,
};
pub use document::{Dockerfile, Stage, parse};
pub use expand::{EnvList, Environment, ExpandError, Expander, Expansion};
pub use git::{GitReference, GitReferenceError, directory_of_repository};
pub use instruction::{
    ArgDefinition, CacheSharing, CommandLine, Copy, DeviceSpec, From, INSTRUCTIONS, InlineFile, Instruction,
    InstructionKind, KeyValue, Mount, MountSpec, MountType, Run, RunNetwork, Security,
};
pub use lint::{IDENTICAL_LAYERS_ACROSS_PLATFORMS, LintConfig, LintWarning, RULES, Rule};
pub use location::{Lines, SourceFile};
pub use options::{
    ConvertOptions, FrontendChoice, Ignored, ImageOrigin, ImageResolver, MainContext, ResolveMode,
    ResolveRequest, ResolvedImage, frontend_for, is_for_built_in,
};
pub use parser::{Directive, Heredoc, Syntax, detect_syntax, is_built_in};
