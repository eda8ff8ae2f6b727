//! `debug`: a shell in a step of a build, when it fails or later.

use std::io::{self, IsTerminal as _};

use slipway_daemon::client::Client;
use slipway_engine::{DebugOffer, DebugOptions, DebugStep};
use slipway_model::Diagnostic;
use slipway_model::solve::StepOptions;
use tokio_util::sync::CancellationToken;

use super::{build, dial_stdio};
use crate::app::Context;
use crate::args::build::OnFailureArg;
use crate::args::debug::{DebugArgs, DebugCommand, ShellArgs, WorkersArgs};
use crate::builder::Builder;
use crate::builders::driver;
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;
use crate::settings::secrets;

const SHELL: &str = "/bin/sh";

/// Runs `debug`; the exit code of `debug shell` is the program's.
pub(crate) fn run(args: &DebugArgs, context: &mut Context) -> Result<(), Failure> {
    let invoked = args.invoke.as_deref().map(|text| text.split_whitespace().map(str::to_owned).collect());
    let program: Vec<String> = invoked.unwrap_or_default();
    match &args.command {
        DebugCommand::Build(args) => {
            let args =
                crate::args::build::BuildArgs { on_failure: Some(OnFailureArg::Shell), ..(**args).clone() };
            build::run_with(&args, &program, context)
        }
        DebugCommand::Shell(args) => shell(args, &program, context),
        DebugCommand::Workers(args) => workers(args),
    }
}

fn shell(args: &ShellArgs, program: &[String], context: &Context) -> Result<(), Failure> {
    let offered = StepOptions {
        secrets: secrets::secrets(&args.secret, &context.around)?,
        ssh: secrets::ssh(&args.ssh, &context.around)?,
        ..StepOptions::default()
    };
    let builder = Builder::open(&context.global)?;
    let step = builder.debug_step(&args.reference, args.step.as_deref())?;
    let program = if args.program.is_empty() { program } else { &args.program };
    match enter(&builder, &step, program, DebugOffer::Again(&offered))? {
        0 => Ok(()),
        code => Err(Failure::Status(code)),
    }
}

/// Lists the workers of a daemon.
fn workers(args: &WorkersArgs) -> Result<(), Failure> {
    let endpoint = dial_stdio::endpoint(&args.addr)?;
    let runtime = interrupt::runtime()?;
    let workers = runtime.block_on(async {
        let client = Client::connect(&endpoint, None, driver::patience()?).await?;
        client.workers().await.map_err(Diagnostic::from)
    })?;
    let mut table = String::from("ID\tPLATFORMS\n");
    for worker in workers {
        let platforms: Vec<String> = worker.platforms.iter().map(ToString::to_string).collect();
        table.push_str(&format!("{}\t{}\n", worker.id, platforms.join(",")));
    }
    output::text(&table)
}

/// Runs a program in a step, or a shell; returns its exit code.
pub(super) fn enter(
    builder: &Builder,
    step: &DebugStep,
    program: &[String],
    offer: DebugOffer<'_>,
) -> Result<u8, Failure> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let command = if program.is_empty() { vec![SHELL.to_owned()] } else { program.to_vec() };
    let shown = crate::ui::printable(&format!("`{}` in the step `{}`", command.join(" "), step.name()));
    output::text_to_stderr(&format!("{shown}; what it writes is thrown away\n"));
    let runtime = interrupt::runtime()?;
    let cancel = CancellationToken::new();
    let code = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        builder.debug(step, DebugOptions { command, terminal, offer }, &cancel).await
    });
    runtime.shutdown_background();
    code
}
