//! Instructions with their meaning: what [`crate::parser`] split, typed and checked.
//!
//! Values still have their variables in them; [`crate::convert`] expands them stage by stage. The one
//! exception is a mount, whose options are known only after expansion: see [`MountSpec`].

mod copy;
mod device;
mod flags;
mod healthcheck;
mod mount;
mod parse;
mod run;

use crate::Lines;

pub use copy::{Copy, InlineFile};
pub use device::DeviceSpec;
pub use mount::{CacheSharing, Mount, MountSpec, MountType};
pub(crate) use parse::{parse_instruction, parse_node};
pub use run::{CommandLine, Run, RunNetwork, Security};
use slipway_model::image_config;

/// One instruction of a Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// The keyword as written.
    pub name: String,
    /// The text, continuations joined.
    pub code: String,
    pub lines: Lines,
    /// The comments right above.
    pub comments: Vec<String>,
    pub kind: InstructionKind,
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq)]
pub enum InstructionKind {
    Add(Copy),
    Arg(Vec<ArgDefinition>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Vec<KeyValue>),
    Expose(Vec<String>),
    From(From),
    Healthcheck(image_config::Healthcheck),
    Label(Vec<KeyValue>),
    Maintainer(String),
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `FROM [--platform=platform] base [AS name]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct From {
    pub base: String,
    pub platform: Option<String>,
    /// The stage's name, in lower case.
    pub name: Option<String>,
    /// What the comment above says of the stage.
    pub description: Option<String>,
}

/// One variable of an `ARG`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgDefinition {
    pub name: String,
    /// The default.
    pub value: Option<String>,
    /// What the comment above says of the variable.
    pub description: Option<String>,
}

/// One pair of an `ENV` or `LABEL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
    /// Written in the old way, `ENV key value`.
    pub legacy: bool,
}

impl Instruction {
    /// Returns what a definition's `FROM` says, for instructions that start a stage.
    pub fn as_from(&self) -> Option<&From> {
        match &self.kind {
            InstructionKind::From(from) => Some(from),
            _ => None,
        }
    }

    /// Tells whether the instruction makes a step with a number in the progress display.
    pub(crate) fn is_step(&self) -> bool {
        use InstructionKind::{Add, Copy, Run, Workdir};
        matches!(self.kind, Add(_) | Copy(_) | Run(_) | Workdir(_))
    }
}

/// The keywords of all instructions.
pub const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
