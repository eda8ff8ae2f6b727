//! `binfmt`: emulators of foreign platforms for everybody on the host, as tonistiigi/binfmt registers them.
//!
//! Builds do not need it: each has a table of its own.

use crate::app::Context;
use crate::args::binfmt::BinfmtArgs;
use crate::error::Failure;
use crate::settings::SettingsError;

/// Runs `binfmt`.
pub(crate) fn run(_args: &BinfmtArgs, _context: &Context) -> Result<(), Failure> {
    Err(SettingsError::unsupported("`binfmt`").into())
}
