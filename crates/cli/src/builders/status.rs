//! What can be said of a node now: whether it answers, its version, its platforms.

use std::os::unix::net::UnixStream;

use slipway_engine::emulation::{EmulationOptions, HostFacts, runnable};
use slipway_model::Platform;

use super::store::{Node, NodeGroup};
use super::{EMBEDDED, LOCAL};

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    /// As buildx says it; empty if it is not known.
    pub(crate) status: &'static str,
    pub(crate) version: Option<String>,
    /// Platforms that it has by itself.
    pub(crate) platforms: Vec<Platform>,
}

/// Looks at a node.
pub(crate) fn status(group: &NodeGroup, node: &Node, emulation: &EmulationOptions) -> NodeStatus {
    if group.driver == EMBEDDED && node.endpoint == LOCAL {
        return NodeStatus {
            status: "running",
            version: Some(concat!("v", env!("CARGO_PKG_VERSION")).to_owned()),
            platforms: runnable(&HostFacts::probe(emulation)),
        };
    }
    let answers = match node.endpoint.strip_prefix("unix://") {
        Some(path) if group.driver == "remote" => Some(UnixStream::connect(path).is_ok()),
        _ => None,
    };
    let status = match answers {
        Some(true) => "running",
        Some(false) => "inactive",
        None => "",
    };
    NodeStatus { status, ..NodeStatus::default() }
}

/// Lists platforms, those that were set by hand first and marked.
pub(crate) fn platforms_in_groups(set: &[Platform], own: &[Platform]) -> Vec<String> {
    let mut seen: Vec<&Platform> = Vec::new();
    let mut list = Vec::new();
    for (platform, mark) in set.iter().map(|p| (p, "*")).chain(own.iter().map(|p| (p, ""))) {
        if !seen.contains(&platform) {
            seen.push(platform);
            list.push(format!("{platform}{mark}"));
        }
    }
    list
}
