//! Builders by name, in the files of buildx: which there are, which one is used, what is known of them.
//!
//! Slipway's own driver, `embedded`, builds in this process: there is nothing to start, stop or reach, and all
//! its builders share one state. `default` is such a builder and needs no file. Builders of buildx's drivers are
//! listed and recorded, so that both programs see the same; building with them is not supported yet.

mod docker;
mod names;
mod status;
mod store;
mod update;

use std::path::PathBuf;

use slipway_model::{Diagnostic, ErrorKind};

pub(crate) use docker::Docker;
pub(crate) use names::random_name;
pub(crate) use status::{NodeStatus, platforms_in_groups, status};
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

/// Drivers that can be named; of the others than `embedded`, builders are only recorded.
pub(crate) const DRIVERS: [&str; 3] = [EMBEDDED, "docker-container", "remote"];

/// The builder that a command uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: String,
    pub(crate) node: String,
    /// The configuration that it was created with.
    pub(crate) config: Option<PathBuf>,
    /// What the user should know of the choice.
    pub(crate) notes: Vec<String>,
}

impl Selected {
    fn default_builder() -> Self {
        Self { name: DEFAULT.to_owned(), node: DEFAULT.to_owned(), ..Self::default() }
    }
}

/// Chooses the builder: the one that was named, or the current one.
pub(crate) fn select(explicit: Option<&str>, docker: &Docker) -> Result<Selected, Diagnostic> {
    let explicit = explicit.filter(|name| !name.is_empty());
    let store = Store::read(docker.builders());
    let Some(group) = find(&store, explicit, docker)? else { return Ok(Selected::default_builder()) };
    if group.driver == EMBEDDED {
        let config = store.config_file(&group).map_err(in_store)?;
        let node = group.nodes.first().map_or_else(|| group.name.clone(), |node| node.name.clone());
        return Ok(Selected { name: group.name, node, config, notes: Vec::new() });
    }
    let message = format!("building with the driver `{}` is not supported yet", group.driver);
    if explicit.is_some() {
        return Err(Diagnostic::new(ErrorKind::User, message)
            .cause(format!("the builder `{}` has it", group.name))
            .hint("leave `--builder` and BUILDX_BUILDER out to build with slipway itself"));
    }
    let note = format!(
        "{message}: the current builder `{}` is passed over, and slipway builds itself; `slipway use default` makes \
         that the choice",
        group.name
    );
    Ok(Selected { notes: vec![note], ..Selected::default_builder() })
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
        // One that cannot be used is an error if it was named, and a remark if it is only the current one.
        let error = select(Some("box"), &docker).unwrap_err();
        assert_eq!(error.message, "building with the driver `docker-container` is not supported yet");
        store().set_current(&docker.endpoint(), "box", false, false).unwrap();
        let passed_over = select(None, &docker).unwrap();
        assert_eq!(passed_over.name, DEFAULT);
        assert!(passed_over.notes[0].contains("the current builder `box` is passed over"));
        store().set_current(&docker.endpoint(), "mine", false, false).unwrap();
        assert_eq!(select(None, &docker).unwrap().name, "mine");
    }
}
