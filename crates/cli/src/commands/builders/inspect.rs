//! `inspect`: everything about one builder.

use crate::app::Context;
use crate::args::builders::InspectArgs;
use crate::builders::{Node, NodeGroup, NodeStatus, Store, find, platforms_in_groups, status};
use crate::error::Failure;
use crate::output;
use crate::settings::SettingsError;
use crate::settings::values::duration;
use crate::ui::format::table;

/// Runs `inspect`. There is nothing to boot.
pub(crate) fn run(args: &InspectArgs, context: &Context) -> Result<(), Failure> {
    duration(&args.timeout).map_err(SettingsError::flag)?;
    let docker = super::docker(context);
    let store = Store::read(docker.builders());
    let name = args.name.as_deref().or(context.global.builder.as_deref());
    let group = find(&store, name, &docker)?.unwrap_or_else(super::ls::default_group);
    let emulation = super::ls::emulation(context);
    let nodes: Vec<NodeStatus> = group.nodes.iter().map(|node| status(&group, node, &emulation)).collect();
    output::text(&listing(&group, &nodes, store.last_activity(&group.name).as_deref()))
}

fn listing(group: &NodeGroup, states: &[NodeStatus], last_activity: Option<&str>) -> String {
    let row = |name: &str, value: String| vec![format!("{name}:"), value];
    let mut head = vec![row("Name", group.name.clone()), row("Driver", group.driver.clone())];
    head.extend(last_activity.map(|text| row("Last Activity", as_go_prints(text))));
    let mut out = table(&head, 1) + "\nNodes:\n";
    for (at, (node, state)) in group.nodes.iter().zip(states).enumerate() {
        if at > 0 {
            out.push('\n');
        }
        out += &of_node(node, state);
    }
    out
}

fn of_node(node: &Node, state: &NodeStatus) -> String {
    let row = |name: &str, value: String| vec![format!("{name}:"), value];
    let mut rows = vec![row("Name", node.name.clone()), row("Endpoint", node.endpoint.clone())];
    let opts: Vec<String> =
        node.driver_opts.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    if !opts.is_empty() {
        rows.push(row("Driver Options", opts.join(" ")));
    }
    if !state.status.is_empty() {
        rows.push(row("Status", state.status.to_owned()));
    }
    if let Some(flags) = node.flags.as_ref().filter(|flags| !flags.is_empty()) {
        rows.push(row("BuildKit daemon flags", flags.join(" ")));
    }
    rows.extend(state.version.iter().map(|version| row("BuildKit version", version.clone())));
    let platforms = platforms_in_groups(&node.platforms, &state.platforms);
    if !platforms.is_empty() {
        rows.push(row("Platforms", platforms.join(", ")));
    }
    let mut out = table(&rows, 1);
    for (name, content) in node.files.iter().flatten() {
        out += &format!("File#{name}:\n");
        for line in String::from_utf8_lossy(&content.0).split('\n') {
            out += &format!(" > {line}\n");
        }
    }
    out
}

/// Writes `2026-11-21T14:05:47Z` as Go prints a time.
fn as_go_prints(text: &str) -> String {
    text.trim_end_matches('Z').replacen('T', " ", 1) + " +0000 UTC"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builders::{CONFIG, Content};

    #[test]
    fn a_builder_is_shown_as_buildx_shows_it() {
        let node = Node {
            name: "b0".into(),
            endpoint: "unix:///x.sock".into(),
            platforms: vec!["linux/arm64".parse().unwrap()],
            driver_opts: Some([("network".to_owned(), "host".to_owned())].into()),
            flags: Some(vec!["--debug".into()]),
            files: Some([(CONFIG.to_owned(), Content(b"debug = true\n".to_vec()))].into()),
        };
        let second = Node { name: "b1".into(), endpoint: "unix:///y.sock".into(), ..Node::default() };
        let group = NodeGroup {
            name: "b".into(),
            driver: "remote".into(),
            nodes: vec![node, second],
            dynamic: false,
        };
        let running = NodeStatus {
            status: "running",
            version: Some("v1".into()),
            platforms: vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()],
        };
        let inactive = NodeStatus { status: "inactive", ..NodeStatus::default() };
        assert_eq!(
            listing(&group, &[running, inactive], Some("2026-11-21T14:05:47Z")),
            "\
Name:          b
Driver:        remote
Last Activity: 2026-11-21 14:05:47 +0000 UTC

Nodes:
Name:                  b0
Endpoint:              unix:///x.sock
Driver Options:        network=\"host\"
Status:                running
BuildKit daemon flags: --debug
BuildKit version:      v1
Platforms:             linux/arm64*, linux/amd64
File#buildkitd.toml:
 > debug = true
 > 

Name:     b1
Endpoint: unix:///y.sock
Status:   inactive
"
        );
    }
}
