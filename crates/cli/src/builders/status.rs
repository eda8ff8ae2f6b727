//! What can be said of a node now: whether it answers, its version, its platforms.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use slipway_daemon::client::GarbageRule;
use slipway_engine::config::Config;
use slipway_engine::emulation::{EmulationOptions, HostFacts, runnable};
use slipway_engine::store::GcRule;
use slipway_model::{Diagnostic, Platform};

use super::store::{Node, NodeGroup, Store};
use super::{EMBEDDED, driver};

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    /// As buildx says it; empty if it is not known.
    pub(crate) status: &'static str,
    pub(crate) version: Option<String>,
    /// What its workers call themselves.
    pub(crate) ids: Vec<String>,
    /// Platforms that it has by itself.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) garbage_rules: Vec<GarbageRule>,
    /// Why nothing is known of it.
    pub(crate) error: Option<String>,
}

/// What builders in this process are like.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) emulation: EmulationOptions,
    /// Where the state is.
    pub(crate) root: PathBuf,
    /// A configuration that was named, instead of the builder's own.
    pub(crate) config: Option<PathBuf>,
    pub(crate) builders: &'a Store,
}

impl Machine<'_> {
    fn status(&self, group: &NodeGroup) -> NodeStatus {
        let own = || self.builders.config_file(group).ok().flatten();
        let config = match Config::load(self.config.clone().or_else(own)) {
            Ok(config) => config,
            Err(error) => return NodeStatus { error: Some(error.to_string()), ..NodeStatus::default() },
        };
        let rules = config.gc.policy_at(&self.root).rules;
        let platforms = match config.platforms.is_empty() {
            true => runnable(&HostFacts::probe(&self.emulation)),
            false => config.platforms,
        };
        NodeStatus {
            status: "running",
            version: Some(concat!("v", env!("CARGO_PKG_VERSION")).to_owned()),
            ids: Vec::new(),
            platforms,
            labels: config.labels,
            garbage_rules: rules.into_iter().map(garbage_rule).collect(),
            error: None,
        }
    }
}

fn garbage_rule(rule: GcRule) -> GarbageRule {
    GarbageRule {
        all: rule.all,
        filters: rule.filter.texts(),
        keep: rule.keep_duration,
        reserved_space: rule.reserved,
        max_used_space: rule.max_used,
        min_free_space: rule.min_free,
    }
}

/// Looks at all nodes of a builder at once; who does not answer in time is not there.
pub(crate) async fn statuses(group: &NodeGroup, machine: &Machine<'_>, timeout: Duration) -> Vec<NodeStatus> {
    join_all(group.nodes.iter().map(|node| status(group, node, machine, timeout))).await
}

async fn status(group: &NodeGroup, node: &Node, machine: &Machine<'_>, timeout: Duration) -> NodeStatus {
    if group.driver == EMBEDDED {
        return machine.status(group);
    }
    if let Err(error) = driver::check(group, node) {
        return NodeStatus { error: Some(error.to_string()), ..NodeStatus::default() };
    }
    let look = async {
        if let Some(status) = driver::asleep(group, node).await? {
            return Ok(NodeStatus { status, ..NodeStatus::default() });
        }
        let workers = driver::connect(group, node).await?.workers().await?;
        let ids = workers.iter().map(|worker| worker.id.clone()).collect();
        let worker = workers.into_iter().next().unwrap_or_default();
        Ok::<_, Diagnostic>(NodeStatus {
            status: "running",
            error: None,
            version: worker.version,
            ids,
            platforms: worker.platforms,
            labels: worker.labels,
            garbage_rules: worker.garbage_rules,
        })
    };
    match tokio::time::timeout(timeout, look).await {
        Ok(Ok(status)) => status,
        Ok(Err(_)) | Err(_) => NodeStatus { status: "inactive", ..NodeStatus::default() },
    }
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
