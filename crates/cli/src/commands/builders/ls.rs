//! `ls`: all builders and their nodes.

use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use slipway_daemon::client::GarbageRule;
use slipway_engine::default_root;
use slipway_engine::emulation::EmulationOptions;

use crate::app::Context;
use crate::args::builders::LsArgs;
use crate::builders::{
    DEFAULT, EMBEDDED, LOCAL, Machine, Node, NodeGroup, NodeStatus, Store, in_store, platforms_in_groups,
    statuses,
};
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::settings::values::duration;
use crate::template::{JsonStyle, Template, TemplateError};
use crate::ui::format::table;
use crate::{interrupt, output};

/// How many groups of platforms a line has.
const MOST_PLATFORMS: usize = 4;

/// Platforms that are named before others.
const MAJOR: [&str; 7] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/mips64",
];

const TABLE: &str = "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}";

/// A builder with what is known of it.
struct Entry {
    group: NodeGroup,
    states: Vec<NodeStatus>,
    last_activity: Option<String>,
    current: bool,
}

/// Runs `ls`.
pub(crate) fn run(args: &LsArgs, context: &Context) -> Result<(), Failure> {
    let timeout = duration(&args.timeout).map_err(SettingsError::flag)?;
    let docker = super::docker(context);
    let store = Store::read(docker.builders());
    let current = store.current(&docker.endpoint()).map_err(in_store)?;
    let current = current.map_or_else(|| DEFAULT.to_owned(), |group| group.name);
    let mut groups = store.list().map_err(in_store)?;
    if !groups.iter().any(|group| group.name == DEFAULT) {
        groups.push(default_group());
    }
    let machine = machine(context, &store);
    let looks = groups.iter().map(|group| statuses(group, &machine, timeout));
    let states = interrupt::runtime()?.block_on(join_all(looks));
    let entries: Vec<Entry> = groups
        .into_iter()
        .zip(states)
        .map(|(group, states)| Entry {
            states,
            last_activity: store.last_activity(&group.name),
            current: group.name == current,
            group,
        })
        .collect();
    output::text(&listing(&entries, &args.format, !args.no_trunc)?)
}

/// The builder that is always there.
pub(super) fn default_group() -> NodeGroup {
    let node = Node { name: DEFAULT.to_owned(), endpoint: LOCAL.to_owned(), ..Node::default() };
    NodeGroup { name: DEFAULT.to_owned(), driver: EMBEDDED.to_owned(), nodes: vec![node], dynamic: false }
}

/// Returns what builders in this process are like.
pub(super) fn machine<'a>(context: &Context, builders: &'a Store) -> Machine<'a> {
    let mut emulation = EmulationOptions::from_env(|name| context.around.variable(name).map(Into::into));
    emulation.directories.splice(0..0, context.global.emulator.iter().cloned());
    let root = context.global.root.clone().unwrap_or_else(default_root);
    Machine { emulation, root, config: context.global.config.clone(), builders }
}

fn listing(entries: &[Entry], format: &str, shorten: bool) -> Result<String, SettingsError> {
    let failed = |error: TemplateError| SettingsError::flag(error.to_string());
    if format == "json" {
        return Ok(entries.iter().map(|entry| format!("{}\n", as_json(entry))).collect());
    }
    // `table` alone, or before a template, asks for a head and columns.
    let columns = match format.strip_prefix("table") {
        Some("") => Some(TABLE.to_owned()),
        Some(rest) if rest.starts_with(' ') => Some(rest.trim().replace("\\t", "\t")),
        _ => None,
    };
    let template =
        Template::parse(columns.as_deref().unwrap_or(format), JsonStyle::Compact).map_err(failed)?;
    let fill = |data: &Value| template.execute(data).map_err(failed);
    let is_table = columns.is_some();
    let mut lines = Vec::new();
    if is_table {
        lines.push(fill(&json!({
            "Name": "NAME/NODE",
            "DriverEndpoint": "DRIVER/ENDPOINT",
            "LastActivity": "LAST ACTIVITY",
            "Status": "STATUS",
            "Buildkit": "BUILDKIT",
            "Platforms": "PLATFORMS",
            "Error": "ERROR",
        }))?);
    }
    for entry in entries {
        lines.push(fill(&of_builder(entry, is_table))?);
        for (node, state) in entry.group.nodes.iter().zip(&entry.states) {
            lines.push(fill(&of_node(node, state, is_table, shorten))?);
        }
    }
    if !is_table {
        return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
    }
    // The reference's columns have ten cells at least, with the blanks between.
    let cells =
        |line: &String| -> Vec<String> { line.split('\t').map(|cell| format!("{cell:<7}")).collect() };
    let mut rows: Vec<Vec<String>> = lines.iter().map(cells).collect();
    for row in &mut rows {
        if let Some(last) = row.last_mut() {
            last.truncate(last.trim_end().len());
        }
    }
    Ok(table(&rows, 3))
}

fn of_builder(entry: &Entry, is_table: bool) -> Value {
    let mark = if entry.current && is_table { "*" } else { "" };
    json!({
        "Name": format!("{}{mark}", entry.group.name),
        "DriverEndpoint": entry.group.driver,
        "LastActivity": entry.last_activity.as_deref().unwrap_or_default(),
        "Status": "",
        "Buildkit": "",
        "Platforms": "",
        "Error": "",
    })
}

fn of_node(node: &Node, state: &NodeStatus, is_table: bool, shorten: bool) -> Value {
    let indent = if is_table { " \\_ " } else { "" };
    let platforms = platforms_in_groups(&node.platforms, &state.platforms);
    json!({
        "Name": format!("{indent}{}", node.name),
        "DriverEndpoint": format!("{indent}{}", node.endpoint),
        "LastActivity": "",
        "Status": state.status,
        "Buildkit": state.version.as_deref().unwrap_or_default(),
        "Platforms": if shorten && is_table { shortened(&platforms) } else { platforms.join(", ") },
        "Error": state.error.as_deref().unwrap_or_default(),
    })
}

/// Makes what the reference encodes: members in order of name, and only those with something in them.
fn as_json(entry: &Entry) -> Value {
    let nodes = entry.group.nodes.iter().zip(&entry.states).map(|(node, state)| {
        let mut map = Map::new();
        let mut add = |name: &str, value: Value, there: bool| {
            if there {
                map.insert(name.to_owned(), value);
            }
        };
        let platforms = platforms_in_groups(&[], &[node.platforms.clone(), state.platforms.clone()].concat());
        let rule = |rule: &GarbageRule| {
            json!({
                "all": rule.all,
                "filter": (!rule.filters.is_empty()).then_some(&rule.filters),
                "keepDuration": rule.keep.map_or(0, |keep| keep.as_nanos() as u64),
                "maxUsedSpace": rule.max_used_space,
                "minFreeSpace": rule.min_free_space,
                "reservedSpace": rule.reserved_space,
            })
        };
        let rules: Vec<Value> = state.garbage_rules.iter().map(rule).collect();
        add("DriverOpts", json!(node.driver_opts), node.driver_opts.is_some());
        add("Endpoint", json!(node.endpoint), true);
        add("Err", json!(state.error), state.error.is_some());
        add("Files", json!(node.files), node.files.is_some());
        add("Flags", json!(node.flags), node.flags.is_some());
        add("GCPolicy", json!(rules), !rules.is_empty());
        add("IDs", json!(state.ids), !state.ids.is_empty());
        add("Labels", json!(state.labels), !state.labels.is_empty());
        add("Name", json!(node.name), true);
        add("Platforms", json!(platforms), !platforms.is_empty());
        add("Status", json!(state.status), !state.status.is_empty());
        add("Version", json!(state.version), state.version.is_some());
        Value::Object(map)
    });
    json!({
        "Current": entry.current,
        "Driver": entry.group.driver,
        "Dynamic": entry.group.dynamic,
        "LastActivity": entry.last_activity.as_deref().unwrap_or("0001-01-01T00:00:00Z"),
        "Name": entry.group.name,
        "Nodes": nodes.collect::<Vec<_>>(),
    })
}

/// Shortens a list of platforms: variants are counted, the major ones come first, the rest is a number.
fn shortened(platforms: &[String]) -> String {
    let kind = |name: &str| name.trim_end_matches('*').splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
    let mut groups: Vec<(String, Vec<&String>)> = Vec::new();
    for major in MAJOR {
        for name in platforms.iter().filter(|name| kind(name) == major) {
            // As the reference: of the last kind that has room, only the first is counted.
            if groups.len() < MOST_PLATFORMS {
                put(&mut groups, major, name);
            }
        }
    }
    let mut others: Vec<(String, Vec<&String>)> = Vec::new();
    for name in platforms.iter().filter(|name| !MAJOR.contains(&kind(name).as_str())) {
        put(&mut others, &kind(name), name);
    }
    others.sort_by(|a, b| a.0.cmp(&b.0));
    groups.extend(others);
    groups.truncate(MOST_PLATFORMS);
    let shown: usize = groups.iter().map(|(_, list)| list.len()).sum();
    let mut out: Vec<String> = groups
        .iter()
        .map(|(kind, list)| match list.as_slice() {
            [only] => (*only).clone(),
            several => {
                let mark = if several.iter().any(|name| name.ends_with('*')) { "*" } else { "" };
                format!("{kind}{mark} (+{})", several.len())
            }
        })
        .collect();
    if platforms.len() > shown {
        out.push(format!("({} more)", platforms.len() - shown));
    }
    out.join(", ")
}

fn put<'a>(groups: &mut Vec<(String, Vec<&'a String>)>, kind: &str, name: &'a String) {
    match groups.iter_mut().find(|(known, _)| known == kind) {
        Some((_, list)) => list.push(name),
        None => groups.push((kind.to_owned(), vec![name])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn platforms_are_shortened_as_buildx_does() {
        let all = "linux/amd64, linux/amd64/v2, linux/amd64/v3, linux/amd64/v4, linux/arm64, linux/riscv64, \
                   linux/ppc64le, linux/s390x, linux/386, linux/arm/v7, linux/arm/v6";
        assert_eq!(
            shortened(&names(all)),
            "linux/amd64 (+4), linux/arm64, linux/arm (+2), linux/ppc64le, (3 more)"
        );
        assert_eq!(shortened(&names("linux/arm64*, linux/arm/v7*")), "linux/arm64*, linux/arm/v7*");
        assert_eq!(
            shortened(&names("linux/amd64*, linux/amd64/v2, linux/386")),
            "linux/amd64* (+2), linux/386"
        );
        assert_eq!(shortened(&[]), "");
    }

    #[test]
    fn builders_are_listed_as_buildx_lists_them() {
        let remote = NodeGroup {
            name: "r1".into(),
            driver: "remote".into(),
            nodes: vec![Node { name: "r10".into(), endpoint: "unix:///b.sock".into(), ..Node::default() }],
            dynamic: false,
        };
        let state = NodeStatus {
            status: "running",
            version: Some("v0.32.2".into()),
            platforms: vec!["linux/amd64".parse().unwrap()],
            ids: vec!["w1".into()],
            garbage_rules: vec![GarbageRule { max_used_space: 7, ..GarbageRule::default() }],
            ..NodeStatus::default()
        };
        let entries = [
            Entry {
                group: remote,
                states: vec![NodeStatus { status: "inactive", ..NodeStatus::default() }],
                last_activity: Some("2026-11-21T14:05:48Z".into()),
                current: false,
            },
            Entry { group: default_group(), states: vec![state], last_activity: None, current: true },
        ];
        let lines = |format: &str| listing(&entries, format, true).unwrap();
        assert_eq!(
            lines("table"),
            "\
NAME/NODE     DRIVER/ENDPOINT      STATUS     BUILDKIT   PLATFORMS
r1            remote                                     
 \\_ r10        \\_ unix:///b.sock   inactive              
default*      embedded                                   
 \\_ default    \\_ local            running    v0.32.2    linux/amd64
"
        );
        assert_eq!(
            lines("json").lines().next().unwrap(),
            r#"{"Current":false,"Driver":"remote","Dynamic":false,"LastActivity":"2026-11-21T14:05:48Z","Name":"r1","Nodes":[{"Endpoint":"unix:///b.sock","Name":"r10","Status":"inactive"}]}"#
        );
        let rule = r#""GCPolicy":[{"all":false,"filter":null,"keepDuration":0,"maxUsedSpace":7,"minFreeSpace":0,"reservedSpace":0}],"IDs":["w1"]"#;
        assert!(lines("json").contains(rule), "{}", lines("json"));
        assert_eq!(
            lines("{{.Name}}: {{.Status}} {{.DriverEndpoint}}"),
            "r1:  remote\nr10: inactive unix:///b.sock\ndefault:  embedded\ndefault: running local\n"
        );
        assert!(lines("table {{.Name}}\\t{{.Status}}").starts_with("NAME/NODE     STATUS\n"));
        assert!(listing(&entries, "{{", true).is_err());
    }
}
