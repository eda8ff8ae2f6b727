//! Builders by name, in the files of buildx: which there are, which one is used, what is known of them.
//!
//! Slipway's own driver, `embedded`, builds in this process: there is nothing to start, stop or reach, and all
//! its builders share one state. `default` is such a builder and needs no file. Builders of buildx's drivers are
//! those that buildx has, and the other way round; [`driver`] reaches their nodes.

mod container;
mod docker;
pub(crate) mod driver;
mod inputs;
mod names;
mod status;
mod store;
mod update;

use std::path::PathBuf;

use slipway_model::{Diagnostic, ErrorKind};

pub(crate) use docker::Docker;
pub(crate) use inputs::BuildInputs;
pub(crate) use names::random_name;
pub(crate) use status::{Machine, NodeStatus, platforms_in_groups, statuses};
pub(crate) use store::{Content, Node, NodeGroup, Store, StoreError};
pub(crate) use update::{Change, UpdateError, leave, update};

/// The driver that builds in this process.
pub(crate) const EMBEDDED: &str = "embedded";

/// The builder that is always there.
pub(crate) const DEFAULT: &str = "default";

/// What an embedded node is reached by.
pub(crate) const LOCAL: &str = "local";

/// The name of a builder's configuration among its files.
pub(crate) const CONFIG: &str = "buildkitd.toml";

/// Drivers that can be named.
pub(crate) const DRIVERS: [&str; 3] = [EMBEDDED, "docker-container", "remote"];

/// The builder that a command uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: String,
    pub(crate) node: String,
    /// The configuration that it was created with.
    pub(crate) config: Option<PathBuf>,
    /// The builder's nodes, if builds do not run in this process.
    pub(crate) elsewhere: Option<NodeGroup>,
}

impl Selected {
    fn default_builder() -> Self {
        Self { name: DEFAULT.to_owned(), node: DEFAULT.to_owned(), ..Self::default() }
    }

    /// Tells whether platforms may be built in different places.
    pub(crate) fn has_several_nodes(&self) -> bool {
        self.elsewhere.as_ref().is_some_and(|group| group.nodes.len() > 1)
    }
}

/// Chooses the builder: the one that was named, or the current one.
pub(crate) fn select(explicit: Option<&str>, docker: &Docker) -> Result<Selected, Diagnostic> {
    let explicit = explicit.filter(|name| !name.is_empty());
    let store = Store::read(docker.builders());
    let Some(group) = find(&store, explicit, docker)? else { return Ok(Selected::default_builder()) };
    let node = group.nodes.first().map_or_else(|| group.name.clone(), |node| node.name.clone());
    if group.driver == EMBEDDED {
        let config = store.config_file(&group).map_err(in_store)?;
        return Ok(Selected { name: group.name, node, config, elsewhere: None });
    }
    if !DRIVERS.contains(&group.driver.as_str()) {
        return Err(Diagnostic::new(
            ErrorKind::User,
            format!("building with the driver `{}` is not supported", group.driver),
        )
        .cause(format!("the builder `{}` has it", group.name))
        .hint(
            "`--builder default` builds with slipway itself; `slipway use default` makes that the choice",
        ));
    }
    Ok(Selected { name: group.name.clone(), node, config: None, elsewhere: Some(group) })
}

/// Finds a builder by name, or the current one; `None` is the default one.
pub(crate) fn find(
    store: &Store,
    name: Option<&str>,
    docker: &Docker,
) -> Result<Option<NodeGroup>, Diagnostic> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return store.current(&docker.endpoint()).map_err(in_store);
    };
    match store.get(name) {
        Ok(Some(group)) => Ok(Some(group)),
        Ok(None) | Err(StoreError::Name(_)) if name == DEFAULT => Ok(None),
        Ok(None) | Err(StoreError::Name(_)) => Err(unknown(name, store)),
        Err(error) => Err(in_store(error)),
    }
}

/// Says that there is no such builder, and which there are.
pub(crate) fn unknown(name: &str, store: &Store) -> Diagnostic {
    let groups = store.list().unwrap_or_default();
    let names: Vec<&str> = groups
        .iter()
        .map(|group| group.name.as_str())
        .filter(|name| *name != DEFAULT)
        .chain([DEFAULT])
        .collect();
    Diagnostic::new(ErrorKind::User, format!("no builder {name:?} found"))
        .hint(format!("there are {}; `slipway create --name {name}` makes one", names.join(", ")))
}

/// Shows what is wrong with the files.
pub(crate) fn in_store(error: StoreError) -> Diagnostic {
    let kind = match error {
        StoreError::Name(_) => ErrorKind::User,
        _ => ErrorKind::Environment,
    };
    Diagnostic::from_error(kind, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, driver: &str) -> NodeGroup {
        let node = Node { name: format!("{name}0"), endpoint: LOCAL.into(), ..Node::default() };
        NodeGroup { name: name.into(), driver: driver.into(), nodes: vec![node], dynamic: false }
    }

    #[test]
    fn the_builder_is_the_named_one_or_the_current_one() {
        let directory = tempfile::tempdir().unwrap();
        let docker = Docker::at(directory.path());
        assert_eq!(select(None, &docker).unwrap(), Selected::default_builder());
        assert!(!docker.builders().exists(), "nothing is made by looking");
        // Opened for each change: it is locked while it is open.
        let store = || Store::open(docker.builders()).unwrap();
        store().save(&group("mine", EMBEDDED)).unwrap();
        store().save(&group("box", "docker-container")).unwrap();
        let mine = select(Some("mine"), &docker).unwrap();
        assert_eq!((mine.name.as_str(), mine.node.as_str()), ("mine", "mine0"));
        assert_eq!(select(Some("default"), &docker).unwrap().name, DEFAULT);
        let error = select(Some("nope"), &docker).unwrap_err();
        assert_eq!(error.message, "no builder \"nope\" found");
        assert!(error.hint.is_some_and(|hint| hint.contains("there are box, mine, default")));
        let elsewhere = select(Some("box"), &docker).unwrap();
        assert_eq!((elsewhere.name.as_str(), elsewhere.elsewhere.is_some()), ("box", true));
        store().save(&group("pod", "kubernetes")).unwrap();
        let error = select(Some("pod"), &docker).unwrap_err();
        assert_eq!(error.message, "building with the driver `kubernetes` is not supported");
        store().set_current(&docker.endpoint(), "mine", false, false).unwrap();
        assert_eq!(select(None, &docker).unwrap().name, "mine");
    }
}
