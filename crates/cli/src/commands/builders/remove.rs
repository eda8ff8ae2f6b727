//! `rm`: builders that are not needed any more.

use std::time::Duration;

use crate::app::Context;
use crate::args::builders::RmArgs;
use crate::builders::{Docker, NodeGroup, Store, driver, find, in_store, statuses};
use crate::confirm::confirmed;
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::settings::values::duration;
use crate::{interrupt, output};

const QUESTION: &str = "WARNING! This will remove all builders that are not in running state. Are you sure you want to continue?";

/// Runs `rm`. The state of embedded builders is shared and stays; `prune` empties it.
pub(crate) fn run(args: &RmArgs, context: &mut Context) -> Result<(), Failure> {
    let timeout = duration(&args.timeout).map_err(SettingsError::flag)?;
    if args.all_inactive && !args.force && !confirmed(QUESTION, &mut context.around)? {
        return Ok(());
    }
    let docker = super::docker(context);
    let store = Store::open(docker.builders()).map_err(in_store)?;
    if args.all_inactive {
        return remove_inactive(&store, args, timeout, context);
    }
    let names: Vec<Option<&str>> = match args.names.as_slice() {
        [] => vec![context.global.builder.as_deref()],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let mut failed = false;
    for name in names {
        match remove(&store, name, &docker, args) {
            Ok(removed) => tell_removed(&removed),
            Err(why) => {
                failed = true;
                let name = name.unwrap_or("the current builder");
                output::text_to_stderr(&format!("failed to remove {name}: {why}\n"));
            }
        }
    }
    match failed {
        true => Err(SettingsError::input("failed to remove one or more builders")
            .hint("`slipway ls` lists what there is")
            .into()),
        false => Ok(()),
    }
}

fn remove(store: &Store, name: Option<&str>, docker: &Docker, args: &RmArgs) -> Result<NodeGroup, String> {
    let found = find(store, name, docker).map_err(|error| error.message)?;
    let group = found.ok_or("the builder `default` is slipway itself and cannot be removed")?;
    let cleared = clear(&group, args);
    // A container that cannot be removed is no reason to keep the builder, if it is to go in any case.
    if let (Err(error), false) = (&cleared, args.force) {
        return Err(format!("{error}; `--force` removes the builder all the same"));
    }
    store.remove(&group.name).map_err(|error| error.to_string())?;
    Ok(group)
}

/// Removes what was made for a builder's nodes.
fn clear(group: &NodeGroup, args: &RmArgs) -> Result<(), String> {
    let runtime = interrupt::runtime().map_err(|_| "failed to start".to_owned())?;
    runtime.block_on(async {
        for node in &group.nodes {
            let removed = driver::remove(group, node, args.keep_state, args.keep_daemon).await;
            removed.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

fn tell_removed(group: &NodeGroup) {
    output::text_to_stderr(&format!("{} removed\n", group.name));
}

/// Removes the builders that do not answer; of those that cannot be asked, nothing is known.
fn remove_inactive(
    store: &Store,
    args: &RmArgs,
    timeout: Duration,
    context: &Context,
) -> Result<(), Failure> {
    let machine = super::ls::machine(context, store);
    let runtime = interrupt::runtime()?;
    for group in store.list().map_err(in_store)? {
        let states = runtime.block_on(statuses(&group, &machine, timeout));
        let inactive = states.iter().all(|state| matches!(state.status, "inactive" | "stopped"));
        if inactive && !group.dynamic {
            // What cannot be reached cannot be removed either.
            let _ = clear(&group, args);
            store.remove(&group.name).map_err(in_store)?;
            tell_removed(&group);
        }
    }
    Ok(())
}
