//! `debug`: a shell in a step of a build, when it fails or later.

use std::io::{self, IsTerminal as _};

use slipway_engine::{DebugOptions, DebugStep};
use slipway_model::SolveRequest;
use tokio_util::sync::CancellationToken;

use super::build;
use crate::app::Context;
use crate::args::build::OnFailureArg;
use crate::args::debug::{DebugArgs, DebugCommand, ShellArgs};
use crate::builder::Builder;
use crate::error::Failure;
use crate::interrupt::{self, Watch};
use crate::output;

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
    }
}

fn shell(args: &ShellArgs, program: &[String], context: &Context) -> Result<(), Failure> {
    let builder = Builder::open(&context.global)?;
    let step = builder.debug_step(&args.reference, args.step.as_deref())?;
    let program = if args.program.is_empty() { program } else { &args.program };
    match enter(&builder, &step, program, None)? {
        0 => Ok(()),
        code => Err(Failure::Status(code)),
    }
}

/// Runs a program in a step, or a shell; returns its exit code.
pub(super) fn enter(
    builder: &Builder,
    step: &DebugStep,
    program: &[String],
    request: Option<&SolveRequest>,
) -> Result<u8, Failure> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let command = if program.is_empty() { vec![SHELL.to_owned()] } else { program.to_vec() };
    let shown = crate::ui::printable(&format!("`{}` in the step `{}`", command.join(" "), step.name()));
    output::text_to_stderr(&format!("{shown}; what it writes is thrown away\n"));
    let runtime = interrupt::runtime()?;
    let cancel = CancellationToken::new();
    let code = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        builder.debug(step, DebugOptions { command, terminal, request }, &cancel).await
    });
    runtime.shutdown_background();
    code
}
