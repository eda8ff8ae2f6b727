//! `inspect`: everything about one builder, which `--bootstrap` starts first.

use slipway_model::format_duration;

use crate::app::Context;
use crate::args::builders::InspectArgs;
use crate::builders::{Node, NodeGroup, NodeStatus, Store, find, platforms_in_groups, statuses};
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::settings::values::duration;
use crate::ui::format::table;
use crate::{interrupt, output};

/// Runs `inspect`.
pub(crate) fn run(args: &InspectArgs, context: &Context) -> Result<(), Failure> {
    let timeout = duration(&args.timeout).map_err(SettingsError::flag)?;
    let docker = super::docker(context);
    let store = Store::read(docker.builders());
    let name = args.name.as_deref().or(context.global.builder.as_deref());
    let group = find(&store, name, &docker)?.unwrap_or_else(super::ls::default_group);
    let machine = super::ls::machine(context, &store);
    if args.bootstrap {
        super::boot(&group, context)?;
    }
    let nodes = interrupt::runtime()?.block_on(statuses(&group, &machine, timeout));
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
    if let Some(error) = &state.error {
        rows.push(row("Error", error.clone()));
        return table(&rows, 1);
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
    let mut section = |name: &str, rows: Vec<Vec<String>>| {
        out += &format!("{name}:\n");
        out += &table(&rows, 1).lines().map(|line| format!(" {line}\n")).collect::<String>();
    };
    if !state.labels.is_empty() {
        section("Labels", state.labels.iter().map(|(key, value)| row(key, value.clone())).collect());
    }
    for (number, rule) in state.garbage_rules.iter().enumerate() {
        let mut rows = vec![row("All", rule.all.to_string())];
        if !rule.filters.is_empty() {
            rows.push(row("Filters", rule.filters.join(" ")));
        }
        rows.extend(rule.keep.map(|keep| {
            row("Keep Duration", format_duration(i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX)))
        }));
        let sizes = [
            ("Reserved Space", rule.reserved_space),
            ("Max Used Space", rule.max_used_space),
            ("Min Free Space", rule.min_free_space),
        ];
        rows.extend(
            sizes.iter().filter(|(_, size)| *size > 0).map(|(name, size)| row(name, binary_size(*size))),
        );
        section(&format!("GC Policy rule#{number}"), rows);
    }
    for (name, content) in node.files.iter().flatten() {
        out += &format!("File#{name}:\n");
        for line in String::from_utf8_lossy(&content.0).split('\n') {
            out += &format!(" > {line}\n");
        }
    }
    out
}

/// Writes a size in powers of 1024, with four digits as buildx does.
fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let whole = size.trunc().to_string().len();
    let text = format!("{size:.*}", 4usize.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// Writes `2026-11-21T14:05:47Z` as Go prints a time.
fn as_go_prints(text: &str) -> String {
    text.trim_end_matches('Z').replacen('T', " ", 1) + " +0000 UTC"
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_daemon::client::GarbageRule;

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
            labels: [("org.example.kind".to_owned(), "oci".to_owned())].into(),
            garbage_rules: vec![GarbageRule {
                keep: Some(std::time::Duration::from_secs(48 * 3600)),
                max_used_space: 512 << 20,
                ..GarbageRule::default()
            }],
            ..NodeStatus::default()
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
Labels:
 org.example.kind: oci
GC Policy rule#0:
 All:            false
 Keep Duration:  48h0m0s
 Max Used Space: 512MiB
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
