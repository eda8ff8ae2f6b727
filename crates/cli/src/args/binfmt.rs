//! The flags of `binfmt`: those of tonistiigi/binfmt.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags of `binfmt`.
#[derive(Args, Debug)]
pub(crate) struct BinfmtArgs {
    /// Register emulators (format: `all` or `arm64,riscv64`)
    #[arg(long, value_name = "all | LIST")]
    pub(crate) install: Vec<String>,
    /// Remove registrations (format: `qemu-*`, `arm64`)
    #[arg(long, value_name = "NAME | GLOB")]
    pub(crate) uninstall: Vec<String>,
    /// Say where binfmt_misc is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc/sys/fs/binfmt_misc")]
    pub(crate) mount: PathBuf,
    /// Show the versions of slipway and of the emulators
    #[arg(long)]
    pub(crate) version: bool,
    /// Choose how the status is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: StatusFormat,
}

/// How the status is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusFormat {
    /// One JSON object
    #[default]
    Json,
    /// A table
    Table,
}
