//! `binfmt`: emulators of foreign platforms for everybody on the host, as tonistiigi/binfmt registers them.
//!
//! Builds do not need it: each has a table of its own. Without a flag it changes nothing.

use slipway_engine::emulation::host_table::{self, Status, TableError};
use slipway_engine::emulation::{EmulationOptions, Guest, HostFacts};
use slipway_model::{Diagnostic, ErrorKind, Platform};

use crate::app::Context;
use crate::args::binfmt::{BinfmtArgs, StatusFormat};
use crate::error::Failure;
use crate::output;
use crate::ui::format::table;

/// Runs `binfmt`.
pub(crate) fn run(args: &BinfmtArgs, context: &Context) -> Result<(), Failure> {
    let mut options = EmulationOptions::from_env(|name| context.around.variable(name).map(Into::into));
    options.directories.splice(0..0, context.global.emulator.iter().cloned());
    options.directories.extend(context.around.non_empty("QEMU_BINARY_PATH").map(Into::into));
    options
        .check()
        .map_err(|error| Diagnostic::new(ErrorKind::User, error.to_string()).hint(error.hint()))?;
    let facts = HostFacts::probe(&options);
    if args.version {
        return output::text(&version(&facts));
    }
    let mut failures = Vec::new();
    if !args.install.is_empty() && host_table::mount(&args.mount).map_err(|error| diagnostic(&error))? {
        tell("mounted", &args.mount.display().to_string());
    }
    let keep_argv0 = context.around.non_empty("QEMU_PRESERVE_ARGV0").is_some();
    for list in &args.uninstall {
        match host_table::uninstall(&args.mount, list) {
            Ok(names) => names.iter().for_each(|name| tell("uninstalled", name)),
            Err(error) => failures.push(diagnostic(&error)),
        }
    }
    for list in &args.install {
        match host_table::parse_list(list, &facts) {
            Ok(guests) => failures
                .extend(guests.into_iter().filter_map(|guest| install(guest, args, &facts, keep_argv0))),
            Err(error) => failures.push(diagnostic(&error)),
        }
    }
    if !failures.is_empty() {
        return Err(failures.into());
    }
    let status = host_table::status(&args.mount, &facts).map_err(|error| diagnostic(&error))?;
    match args.format {
        StatusFormat::Json => {
            let json = serde_json::to_string_pretty(&status)
                .map_err(|error| Failure::from_error(ErrorKind::Internal, &error))?;
            output::text(&(json + "\n"))
        }
        StatusFormat::Table => output::text(&as_table(&status, &facts.native_platforms())),
    }
}

/// Registers one emulator; returns what went wrong, so that the others are registered still.
fn install(
    guest: &'static Guest,
    args: &BinfmtArgs,
    facts: &HostFacts,
    keep_argv0: bool,
) -> Option<Diagnostic> {
    let emulator = facts.emulator(guest).ok_or(TableError::NoEmulator(guest.architecture));
    let register = |qemu| {
        let flags = host_table::flags(qemu);
        // Who asks for it knows an emulator that slipway does not.
        let more = if keep_argv0 && !flags.contains('P') { "P" } else { "" };
        host_table::install(&args.mount, qemu, &format!("{flags}{more}"))
    };
    match emulator.and_then(register) {
        Ok(()) => {
            tell("installed", guest.architecture);
            None
        }
        Err(error) => Some(diagnostic(&error)),
    }
}

/// Names slipway's version and those of the emulators that there are.
fn version(facts: &HostFacts) -> String {
    let mut versions: Vec<String> =
        facts.emulators.iter().filter_map(|qemu| Some(qemu.version()?.to_string())).collect();
    versions.sort();
    versions.dedup();
    let qemu = if versions.is_empty() { "none".to_owned() } else { versions.join(",") };
    format!("binfmt/v{} qemu/{qemu}\n", env!("CARGO_PKG_VERSION"))
}

fn tell(what: &str, name: &str) {
    output::text_to_stderr(&format!("{what}: {name}\n"));
}

fn diagnostic(error: &TableError) -> Diagnostic {
    let mut diagnostic = Diagnostic::from_error(error.kind(), error);
    diagnostic.hint = error.hint();
    diagnostic
}

/// Says how each platform runs.
fn as_table(status: &Status, native: &[Platform]) -> String {
    let how = |name: &str| match name.parse::<Platform>() {
        Ok(platform) if native.contains(&platform) => "native".to_owned(),
        Ok(platform) => Guest::of(&platform.architecture).map(Guest::entry_name).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let head = ["PLATFORM", "RUNS BY"].map(str::to_owned).to_vec();
    let rows = status.supported.iter().map(|name| vec![name.clone(), how(name)]);
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_how_platforms_run() {
        let status = Status {
            supported: ["linux/amd64", "linux/386", "linux/arm64"].map(str::to_owned).to_vec(),
            emulators: vec!["qemu-aarch64".to_owned()],
        };
        let native = ["linux/amd64", "linux/386"].map(|name| name.parse().unwrap());
        assert_eq!(
            as_table(&status, &native),
            "PLATFORM      RUNS BY\nlinux/amd64   native\nlinux/386     native\nlinux/arm64   qemu-aarch64\n"
        );
    }
}
