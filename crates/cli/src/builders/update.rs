//! What `create` changes of a builder: nodes come, change and go.

use std::collections::BTreeMap;

use slipway_model::Platform;

use super::store::{Content, Node, NodeGroup, StoreError, valid_name};

/// Says why a builder cannot be changed so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    #[error("node {0} not found, did you mean to append?")]
    NoNode(String),
    #[error("node {node:?} not found for {builder}")]
    NotThere { node: String, builder: String },
    #[error("can not leave last node, do you want to rm instance instead?")]
    LastNode,
    #[error("invalid duplicate endpoint {0}")]
    Duplicate(String),
    #[error(transparent)]
    Name(#[from] StoreError),
}

/// What is said of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// The node; an empty name is that of a new one.
    pub(crate) node: String,
    pub(crate) append: bool,
    pub(crate) endpoint: String,
    /// The endpoint was named, so that one that is there changes.
    pub(crate) endpoint_is_set: bool,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) flags: Option<Vec<String>>,
    pub(crate) driver_opts: Option<BTreeMap<String, String>>,
    pub(crate) files: Option<BTreeMap<String, Content>>,
}

/// Adds a node to a builder, or changes it.
pub(crate) fn update(group: &mut NodeGroup, change: Change) -> Result<(), UpdateError> {
    let Some(at) = group.nodes.iter().position(|node| node.name == change.node) else {
        return add(group, change);
    };
    let node = &mut group.nodes[at];
    let endpoint = match change.endpoint_is_set {
        true => change.endpoint,
        false => node.endpoint.clone(),
    };
    node.endpoint.clone_from(&endpoint);
    if !change.platforms.is_empty() {
        node.platforms = change.platforms;
    }
    node.flags = change.flags.or(node.flags.take());
    node.driver_opts = change.driver_opts.or(node.driver_opts.take());
    if let Some(files) = change.files {
        node.files.get_or_insert_default().extend(files);
    }
    settle(group, &endpoint, at)
}

fn add(group: &mut NodeGroup, change: Change) -> Result<(), UpdateError> {
    if !change.append && !group.nodes.is_empty() {
        return Err(UpdateError::NoNode(change.node));
    }
    let name = match change.node.is_empty() {
        true => next_name(group),
        false => change.node,
    };
    let endpoint = change.endpoint.clone();
    group.nodes.push(Node {
        name: valid_name(&name)?,
        endpoint: change.endpoint,
        platforms: change.platforms,
        driver_opts: change.driver_opts,
        flags: change.flags,
        files: change.files,
    });
    settle(group, &endpoint, group.nodes.len() - 1)
}

/// Removes a node from a builder.
pub(crate) fn leave(group: &mut NodeGroup, name: &str) -> Result<(), UpdateError> {
    let at = group.nodes.iter().position(|node| node.name == name);
    let not_there = || UpdateError::NotThere { node: name.to_owned(), builder: group.name.clone() };
    let at = at.ok_or_else(not_there)?;
    if group.nodes.len() == 1 {
        return Err(UpdateError::LastNode);
    }
    group.nodes.remove(at);
    Ok(())
}

fn next_name(group: &NodeGroup) -> String {
    let free = |name: &String| group.nodes.iter().all(|node| node.name != *name);
    (0..).map(|number| format!("{}{number}", group.name)).find(free).unwrap_or_default()
}

/// A place is there once, and a platform belongs to the node that it was last given to.
fn settle(group: &mut NodeGroup, endpoint: &str, changed: usize) -> Result<(), UpdateError> {
    if group.nodes.iter().filter(|node| node.endpoint == endpoint).count() > 1 {
        return Err(UpdateError::Duplicate(endpoint.to_owned()));
    }
    let taken = group.nodes[changed].platforms.clone();
    for (at, node) in group.nodes.iter_mut().enumerate() {
        if at != changed {
            node.platforms.retain(|platform| !taken.contains(platform));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(node: &str, endpoint: &str, platforms: &[&str]) -> Change {
        Change {
            node: node.into(),
            append: true,
            endpoint: endpoint.into(),
            endpoint_is_set: true,
            platforms: platforms.iter().map(|name| name.parse().unwrap()).collect(),
            ..Change::default()
        }
    }

    #[test]
    fn nodes_come_change_and_go() {
        let mut group = NodeGroup { name: "b".into(), ..NodeGroup::default() };
        let shown = |group: &NodeGroup| -> Vec<String> {
            let one = |node: &Node| {
                let platforms: Vec<String> = node.platforms.iter().map(ToString::to_string).collect();
                format!("{} {} {}", node.name, node.endpoint, platforms.join(","))
            };
            group.nodes.iter().map(one).collect()
        };
        update(&mut group, change("", "one", &["linux/amd64", "linux/arm64"])).unwrap();
        update(&mut group, change("", "two", &["linux/arm64"])).unwrap();
        assert_eq!(shown(&group), ["b0 one linux/amd64", "b1 two linux/arm64"]);
        let error = update(&mut group.clone(), change("x", "two", &[])).unwrap_err();
        assert_eq!(error.to_string(), "invalid duplicate endpoint two");
        let error = update(&mut group, Change { append: false, ..change("x", "3", &[]) }).unwrap_err();
        assert_eq!(error.to_string(), "node x not found, did you mean to append?");
        let flags = Some(vec!["--debug".to_owned()]);
        update(&mut group, Change { flags, append: false, ..change("b0", "three", &[]) }).unwrap();
        assert_eq!(shown(&group), ["b0 three linux/amd64", "b1 two linux/arm64"]);
        assert_eq!(group.nodes[0].flags.as_ref().map(Vec::len), Some(1));
        assert_eq!(leave(&mut group, "zz").unwrap_err().to_string(), "node \"zz\" not found for b");
        leave(&mut group, "b0").unwrap();
        assert!(matches!(leave(&mut group, "b1"), Err(UpdateError::LastNode)));
    }
}
