//! `history trace`, `export`, `import` and `open`: records for other programs.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::json;
use slipway_engine::history::{BundledBuild, History, Record, Trace, write_bundle};
use slipway_model::{Diagnostic, ErrorKind};

use crate::app::Context;
use crate::args::history::{ExportArgs, ImportArgs, OpenArgs, TraceArgs};
use crate::builder::Builder;
use crate::error::Failure;
use crate::output;
use crate::settings::SettingsError;

/// Prints when which step of a build ran.
pub(super) fn trace(builder: &Builder, args: &TraceArgs) -> Result<(), Failure> {
    let history = builder.history();
    let references = [Some(&args.reference), args.compare.as_ref()];
    let traces = references.into_iter().flatten().map(|reference| {
        let record = ended(&history, reference)?;
        Ok(Trace::new(&record, history.events(&record.id)?).to_jaeger())
    });
    let traces = traces.collect::<Result<Vec<_>, Failure>>()?;
    output::text(&format!("{:#}\n", json!({ "data": traces })))
}

/// Writes records to a file.
pub(super) fn export(builder: &Builder, args: &ExportArgs, context: &Context) -> Result<(), Failure> {
    let history = builder.history();
    let records = match args.references.as_slice() {
        _ if args.all => history.list()?.into_iter().filter(|record| record.outcome.is_some()).collect(),
        [] => vec![ended(&history, "")?],
        references => references.iter().map(|one| ended(&history, one)).collect::<Result<Vec<_>, _>>()?,
    };
    if records.is_empty() {
        return Err(SettingsError::input("no records found")
            .hint("`slipway history ls` lists the builds")
            .into());
    }
    if args.output.is_none() && context.around.stdout_is_terminal {
        return Err(SettingsError::flag("refusing to write to a terminal")
            .hint("name a file with `--output`, or redirect standard output")
            .into());
    }
    let builds = records.into_iter().map(|record| bundled(&history, record));
    let builds = builds.collect::<Result<Vec<_>, Failure>>()?;
    match &args.output {
        None => written("standard output", write_bundle(&builds, BufWriter::new(io::stdout().lock()))),
        Some(path) => {
            let path = context.around.absolute(path);
            let shown = path.display().to_string();
            let file = File::create(&path)
                .map_err(|error| Failure::io(format!("failed to write `{shown}`"), &error))?;
            written(&shown, write_bundle(&builds, BufWriter::new(file)))
        }
    }
}

fn written(place: &str, result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::io(format!("failed to write the records to `{place}`"), &error))
}

fn bundled(history: &History, record: Record) -> Result<BundledBuild, Failure> {
    let events: Vec<_> = history.events(&record.id)?.collect();
    let logs = slipway_daemon::encode_events(&events);
    let trace = Trace::new(&record, events.into_iter());
    Ok(BundledBuild { record, trace, logs })
}

/// Finds a build that has ended.
fn ended(history: &History, reference: &str) -> Result<Record, Failure> {
    let record = history.find(reference)?;
    if record.outcome.is_none() {
        return Err(SettingsError::input(format!("the build `{}` is not completed", record.id))
            .hint("wait until it ends")
            .into());
    }
    Ok(record)
}

/// Gives files with records to Docker Desktop.
pub(super) fn import(args: &ImportArgs, context: &mut Context) -> Result<(), Failure> {
    let socket = desktop(context)?;
    let standard_input = ["-".to_owned()];
    let files = if args.file.is_empty() { &standard_input[..] } else { &args.file[..] };
    for name in files {
        let mut bundle = Vec::new();
        let read = match name.as_str() {
            "-" => context.around.stdin().read_to_end(&mut bundle),
            name => {
                File::open(context.around.absolute(name)).and_then(|mut file| file.read_to_end(&mut bundle))
            }
        };
        read.map_err(|error| Failure::io(format!("failed to read `{name}`"), &error))?;
        let builds = upload(&socket, &bundle)
            .map_err(|error| Failure::io(format!("failed to give `{name}` to Docker Desktop"), &error))?;
        if builds.is_empty() {
            return Err(SettingsError::input(format!("there are no records of builds in `{name}`")).into());
        }
        for build in builds {
            output::text_to_stderr(&format!("{}\n", url(&format!(".imported/_/{build}"))));
        }
    }
    Ok(())
}

/// Sends a bundle; returns what the builds in it are called there.
fn upload(socket: &std::path::Path, bundle: &[u8]) -> io::Result<Vec<String>> {
    let mut stream = UnixStream::connect(socket)?;
    // In version 1.0 of the protocol the answer is all that comes until the end.
    write!(
        stream,
        "POST /upload HTTP/1.0\r\nHost: docker-desktop\r\nContent-Length: {}\r\n\r\n",
        bundle.len()
    )?;
    stream.write_all(bundle)?;
    let mut answer = String::new();
    BufReader::new(stream).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(body.trim().to_owned()));
    }
    serde_json::from_str(body).map_err(io::Error::other)
}

/// Shows a build in Docker Desktop.
pub(super) fn open(builder: &Builder, args: &OpenArgs, context: &Context) -> Result<(), Failure> {
    let record = builder.history().find(&args.reference)?;
    let missing = |error: Diagnostic| -> Failure {
        let hint =
            format!("look at it here: `slipway history inspect {0}`, `slipway history logs {0}`", record.id);
        error.hint(hint).into()
    };
    desktop(context).map_err(missing)?;
    let url = url(&super::full_reference(&record));
    output::text_to_stderr(&format!("{url}\n"));
    let opened = std::process::Command::new("xdg-open").arg(&url).status();
    match opened {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(SettingsError::input(format!("`xdg-open {url}` failed: {status}")).into()),
        Err(error) => Err(Failure::io("failed to start `xdg-open`", &error)),
    }
}

fn url(reference: &str) -> String {
    format!("docker-desktop://dashboard/build/{reference}")
}

/// Returns where Docker Desktop listens.
fn desktop(context: &Context) -> Result<PathBuf, Diagnostic> {
    let home = PathBuf::from(context.around.non_empty("HOME").unwrap_or("/"));
    let socket = home.join(".docker/desktop/docker-desktop-build.sock");
    if socket.exists() {
        return Ok(socket);
    }
    Err(Diagnostic::new(ErrorKind::User, "Docker Desktop is not here")
        .cause(format!("there is no `{}`", socket.display()))
        .hint("start Docker Desktop"))
}
