//! `RUN`, and command lines in general.

use super::device::DeviceSpec;
use super::flags::{FlagKind, Flags};
use super::mount::MountSpec;
use crate::parser::{Heredoc, Node};
use crate::problem::Problem;
use crate::suggest::Case;

/// A command line, given to the shell or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Shell form: one element.
    pub arguments: Vec<String>,
    pub heredocs: Vec<Heredoc>,
    /// Not a JSON array: the shell runs it.
    pub shell: bool,
}

/// A `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    pub mounts: Vec<MountSpec>,
    pub devices: Vec<DeviceSpec>,
    pub network: RunNetwork,
    pub security: Security,
}

/// The network that a `RUN` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the build has.
    #[default]
    Default,
    None,
    Host,
}

/// How far a `RUN` is contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    #[default]
    Sandbox,
    Insecure,
}

/// Reads a command line; an empty JSON array is an empty list.
pub(super) fn command_line(node: &Node) -> CommandLine {
    CommandLine { arguments: node.arguments.clone(), heredocs: node.heredocs.clone(), shell: !node.json }
}

pub(super) fn parse_run(node: &Node) -> Result<Run, Problem> {
    let known = [
        ("device", FlagKind::List),
        ("mount", FlagKind::List),
        ("network", FlagKind::Text),
        ("security", FlagKind::Text),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    let network = match flags.optional("network") {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => {
            let message = format!("invalid network mode {}", crate::text::quote(other));
            let problem = Problem::new(message).token(other);
            return Err(problem
                .suggest(other, ["default", "none", "host"], Case::Sensitive)
                .hint("known modes: default, none, host"));
        }
    };
    let mounts = flags.list("mount").into_iter().map(MountSpec::parse).collect::<Result<_, _>>()?;
    let devices =
        flags.list("device").iter().map(|text| DeviceSpec::parse(text)).collect::<Result<_, _>>()?;
    let security = match flags.optional("security") {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => {
            let message = format!("security {} is not valid", crate::text::quote(other));
            return Err(Problem::new(message).token(other).hint("known modes: sandbox, insecure"));
        }
    };
    Ok(Run { command: command_line(node), mounts, devices, network, security })
}
