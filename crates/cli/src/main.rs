//! The command line of slipway: what was typed becomes requests, what happens becomes text.
//!
//! `args` is what clap sees, `settings` turns it into requests, `builder` hands them to the engine,
//! `ui` shows the events, `error` the failures, `dap` speaks to editors, `completion` and `reference` tell what can
//! be typed. Only this crate prints.

#![forbid(unsafe_code)]

mod app;
mod args;
mod builder;
mod builders;
mod commands;
mod completion;
mod confirm;
mod dap;
mod error;
mod interrupt;
mod output;
mod policy;
mod reference;
mod settings;
mod template;
mod ui;

fn main() -> std::process::ExitCode {
    // Takes over if the engine has started this program as a sandbox server: before anything else.
    slipway_engine::runtime::dispatch();
    app::main()
}
