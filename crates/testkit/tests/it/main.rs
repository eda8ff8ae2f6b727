//! Slipway as a whole: the program, a real registry, real images of many platforms.
//!
//! The program is `SLIPWAY_BIN`, or what `cargo build` last made. The images need `scripts/fixtures` once.
//! Without it, or without root where a test needs it, the tests say so and pass, except in CI (`CI` is set).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a panic is the report")]

mod attestations;
mod bad_input;
mod bad_layers;
mod bad_registry;
mod bake;
mod builders;
mod concurrent;
mod configuration;
mod crates;
mod daemon_clients;
mod dap;
mod debian;
mod debug;
mod docker_plugin;
mod engine;
mod frontends;
mod git;
mod hello;
mod history;
mod http;
mod imagetools;
mod killed;
mod load;
mod main_job;
mod node_container;
mod node_registry;
mod node_ssh;
mod nodes;
mod outputs;
mod pair;
mod platform_check;
mod policy;
mod proxy_network;
mod remote_cache;
mod rootless;
mod round_trip;
mod several_errors;
mod steps;
mod stopped;
mod terminal;
