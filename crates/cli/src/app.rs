//! From the arguments of the process to one command, and from its end to an exit code.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Command, PLUGIN, PluginCall, Root, called_buildx, canonical, plugin_call};
use crate::error::{self, Failure};
use crate::settings::Surroundings;
use crate::ui::Palette;
use crate::{commands, completion, output, reference};

/// What every command has.
pub(crate) struct Context {
    pub(crate) around: Surroundings,
    pub(crate) global: crate::args::GlobalArgs,
    pub(crate) palette: Palette,
    /// The command line, by the names of [`canonical`].
    pub(crate) arguments: Vec<String>,
}

/// Runs the process.
pub(crate) fn main() -> ExitCode {
    let around = match Surroundings::of_process() {
        Ok(around) => around,
        Err(error) => {
            let failure = Failure::io("failed to find the working directory", &error);
            return end(&failure, &Palette::none());
        }
    };
    let palette = Palette::choose(&around);
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(call) = plugin_call(&arguments) {
        return end(&again(call), &palette);
    }
    let as_buildx = called_buildx(&arguments);
    // Scripts look for buildx's word in its output.
    let palette = if as_buildx { palette.loud() } else { palette };
    match run(canonical(arguments), as_buildx, around, palette.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure, &palette),
    }
}

/// Starts over with docker's flags as variables, where everything looks for them; returns only if that failed.
fn again(call: PluginCall) -> Failure {
    let program = std::env::current_exe().unwrap_or_else(|_| PLUGIN.into());
    let mut command = std::process::Command::new(program);
    let error = command.arg0(PLUGIN).args(call.arguments).envs(call.variables).exec();
    Failure::io("failed to start again", &error)
}

/// Shows a failure; a standard error that is gone changes nothing.
fn end(failure: &Failure, palette: &Palette) -> ExitCode {
    let _ = failure.report(palette, &mut io::stderr().lock());
    failure.exit_code()
}

fn run(
    arguments: Vec<OsString>,
    as_buildx: bool,
    mut around: Surroundings,
    palette: Palette,
) -> Result<(), Failure> {
    if let Some(words) = completion_request(&arguments) {
        let described = arguments[1] == completion::REQUEST;
        return output::text(&completion::answer(&words, &mut around, described));
    }
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let words: Vec<String> = arguments.iter().map(text).collect();
    let root = match Root::try_parse_from(arguments) {
        Ok(root) => root,
        Err(error) => return stopped_by_clap(&error, &words),
    };
    let mut context = Context { around, global: root.global, palette, arguments: words };
    if context.global.debug {
        log_to_stderr(&context.around);
    }
    match root.command {
        Command::Build(args) => commands::build::run(&args, &mut context),
        Command::Bake(args) => commands::bake::run(&args, &mut context),
        Command::Imagetools(args) => commands::imagetools::run(&args, &context),
        Command::Policy(args) => commands::policy::run(&args, &mut context),
        Command::Run(args) => commands::run::run(&args, &context),
        Command::Images(args) => commands::images::run(&args, &context),
        Command::Push(args) => commands::push::run(&args, &context),
        Command::History(args) => commands::history::run(&args, &mut context),
        Command::Debug(args) => commands::debug::run(&args, &mut context),
        Command::Dap(args) => commands::dap::run(&args, &mut context),
        Command::Du(args) => commands::du::run(&args, &context),
        Command::Prune(args) => commands::prune::run(&args, &mut context),
        Command::Daemon(args) => commands::daemon::run(&args, &context),
        Command::Create(args) => commands::builders::create(&args, &context),
        Command::Use(args) => commands::builders::make_current(&args, &context),
        Command::Ls(args) => commands::builders::ls(&args, &context),
        Command::Inspect(args) => commands::builders::inspect(&args, &context),
        Command::Rm(args) => commands::builders::remove(&args, &mut context),
        Command::Stop(args) => commands::builders::stop(&args, &context),
        Command::Binfmt(args) => commands::binfmt::run(&args, &context),
        Command::Install => commands::plugin::install(&context),
        Command::Uninstall => commands::plugin::uninstall(&context),
        Command::PluginMetadata => commands::plugin::metadata(),
        Command::DialStdio(args) => commands::dial_stdio::run(&args, &context),
        Command::Version => commands::plugin::version(as_buildx),
        Command::Completion(args) => output::bytes(&completion::script(args.shell)),
        Command::Reference(args) => reference::write(&args.directory),
    }
}

/// Shows what developers need to see: what `SLIPWAY_LOG` chooses, or debug messages of slipway's own.
fn log_to_stderr(around: &Surroundings) {
    let chosen = around.non_empty("SLIPWAY_LOG").unwrap_or("warn,slipway_engine=debug,slipway_store=debug");
    let filter = tracing_subscriber::EnvFilter::new(chosen);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

/// Help goes to standard output and is no error; everything else is.
fn stopped_by_clap(error: &clap::Error, line: &[String]) -> Result<(), Failure> {
    use clap::error::ErrorKind as Kind;
    match error.kind() {
        Kind::DisplayHelp | Kind::DisplayVersion => output::text(&error.render().to_string()),
        Kind::DisplayHelpOnMissingArgumentOrSubcommand | Kind::MissingSubcommand
            if !error::names_command(line) =>
        {
            output::text_to_stderr(&Root::command().render_help().to_string());
            Err(Failure::Status(error::USAGE))
        }
        _ => Err(error::from_clap(error, line)),
    }
}

/// Returns the words that a shell wants completed; they are anything, and no command line of ours.
fn completion_request(arguments: &[OsString]) -> Option<Vec<String>> {
    let (request, words) = arguments.get(1..)?.split_first()?;
    let asked = request == completion::REQUEST || request == completion::REQUEST_PLAIN;
    asked.then(|| words.iter().map(|word| word.to_string_lossy().into_owned()).collect())
}
