//! `prune`: give space back.

use std::time::SystemTime;

use crate::app::Context;
use crate::args::storage::PruneArgs;
use crate::builder::{Builder, PruneOptions};
use crate::confirm::confirmed;
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::settings::filter::Filter;
use crate::settings::values::bytes;
use crate::ui::format::human_size;
use crate::{interrupt, output};

const USUAL: &str = "WARNING! This will remove all dangling build cache. Are you sure you want to continue?";
const ALL: &str = "WARNING! This will remove all build cache. Are you sure you want to continue?";

/// Runs `prune`.
pub(crate) fn run(args: &PruneArgs, context: &mut Context) -> Result<(), Failure> {
    let options = options(args)?;
    if !args.force && !confirmed(if args.all { ALL } else { USUAL }, &mut context.around)? {
        return Ok(());
    }
    let builder = Builder::open(&context.global)?;
    let removed = interrupt::runtime()?.block_on(builder.prune(&options))?;
    let now = SystemTime::now();
    let mut text = String::new();
    if args.verbose {
        text += &super::du::whole(&removed, now)?;
    } else if !removed.is_empty() {
        text += &super::du::as_table(&removed, now);
    }
    let total: u64 = removed.iter().map(|record| record.size).sum();
    output::text(&format!("{text}Total: {}\n", human_size(total)))
}

fn options(args: &PruneArgs) -> Result<PruneOptions, SettingsError> {
    let size = |flag: &str, value: &Option<String>| {
        value
            .as_deref()
            .map(|text| {
                bytes(text).map_err(|error| {
                    SettingsError::flag(format!("invalid value for `--{flag}`: {error}"))
                        .hint(format!("write `--{flag} 10GB`"))
                })
            })
            .transpose()
    };
    Ok(PruneOptions {
        all: args.all,
        filter: Filter::parse(&args.filter)?,
        reserved_space: size("reserved-space", &args.reserved_space)?,
        max_used_space: size("max-used-space", &args.max_used_space)?,
        min_free_space: size("min-free-space", &args.min_free_space)?,
    })
}
