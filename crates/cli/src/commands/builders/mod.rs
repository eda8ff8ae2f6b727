//! `create`, `use`, `ls`, `inspect`, `rm`, `stop`: builders by name, with the words of buildx.

mod create;
mod inspect;
mod ls;
mod remove;

use slipway_model::Diagnostic;

use crate::app::Context;
use crate::args::build::ProgressArg;
use crate::args::builders::{StopArgs, UseArgs};
use crate::builders::{DEFAULT, Docker, EMBEDDED, NodeGroup, Store, driver, find, in_store, unknown};
use crate::error::Failure;
use crate::interrupt;
use crate::settings::SettingsError;
use crate::settings::build::display_mode;
use crate::ui::{DisplayOptions, Progress};

pub(crate) use create::run as create;
pub(crate) use inspect::run as inspect;
pub(crate) use ls::run as ls;
pub(crate) use remove::run as remove;

/// Returns what the environment says of Docker.
fn docker(context: &Context) -> Docker {
    Docker::new(|name| context.around.variable(name).map(str::to_owned))
}

/// Runs `use`.
pub(crate) fn make_current(args: &UseArgs, context: &Context) -> Result<(), Failure> {
    let name = args.name.as_ref().or(context.global.builder.as_ref());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(SettingsError::flag("no builder is named")
            .hint("write `slipway use NAME`; `slipway ls` lists them")
            .into());
    };
    let docker = docker(context);
    let store = Store::open(docker.builders()).map_err(in_store)?;
    let found = store.get(name).unwrap_or_default();
    match found {
        Some(group) => {
            store
                .set_current(&docker.endpoint(), &group.name, args.global, args.default)
                .map_err(in_store)?;
        }
        None if name == DEFAULT => {
            store.set_current(&docker.endpoint(), "", false, false).map_err(in_store)?;
        }
        None => return Err(unknown(name, &store).into()),
    }
    Ok(())
}

/// Starts a builder's nodes, and shows how.
fn boot(group: &NodeGroup, context: &Context) -> Result<(), Failure> {
    let mode = display_mode(ProgressArg::Auto, &context.around)?;
    let progress = Progress::start(DisplayOptions::new(mode, &context.around));
    let events = progress.sink();
    let booted = interrupt::runtime()?.block_on(async {
        for node in group.nodes.iter().filter(|_| group.driver != EMBEDDED) {
            driver::boot(group, node, &events).await?.workers().await.map_err(Diagnostic::from)?;
        }
        Ok::<_, Diagnostic>(())
    });
    progress.finish();
    Ok(booted?)
}

/// Runs `stop`: only what was started for a builder has something to stop.
pub(crate) fn stop(args: &StopArgs, context: &Context) -> Result<(), Failure> {
    let docker = docker(context);
    let store = Store::read(docker.builders());
    let name = args.name.as_deref().or(context.global.builder.as_deref());
    let Some(group) = find(&store, name, &docker)? else { return Ok(()) };
    interrupt::runtime()?.block_on(async {
        for node in &group.nodes {
            driver::stop(&group, node).await?;
        }
        Ok(())
    })
}
