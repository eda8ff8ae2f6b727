//! The Dockerfile and the ignore files of a client that is not on this machine.
//!
//! Only these files are asked for before the Dockerfile is known; the rest of a context comes when something
//! reads it, without what the ignore file excludes.

use std::path::Path;

use slipway_files::patterns::parse_ignore_file;
use slipway_model::{Diagnostic, ErrorKind};

use crate::job::Job;
use crate::session::LocalRequest;
use crate::sources::local::IgnoreFile;

/// The ignore file of every directory.
const IGNORE: &str = ".dockerignore";

/// A Dockerfile of the client.
pub(super) struct Loaded {
    pub(super) text: Vec<u8>,
    /// The ignore file beside it, that counts for it alone.
    pub(super) ignore: Option<IgnoreFile>,
}

/// Reads a Dockerfile from one of the client's directories, also by the name `dockerfile`.
pub(super) async fn dockerfile(job: &Job, directory: &str, path: &str) -> Result<Loaded, Diagnostic> {
    let ignore = format!("{path}{IGNORE}");
    let lower = path.strip_suffix("Dockerfile").map(|start| format!("{start}dockerfile"));
    let mut wanted = vec![path.to_owned(), ignore.clone()];
    wanted.extend(lower.clone());
    let request = LocalRequest {
        follow_paths: wanted,
        shared_key_hint: directory.to_owned(),
        always_send: true,
        ..LocalRequest::named(directory)
    };
    let fetched = job.contexts.directory(&request).await?;
    let top = fetched.directory.path.clone();
    let read = |name: &str| read_below(&top, name);
    let text = match read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match lower {
            Some(lower) => read(&lower).map_err(|_| error),
            None => Err(error),
        },
        other => other,
    };
    let text = text.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        Diagnostic::new(ErrorKind::User, format!("failed to read dockerfile: open {path}: {reason}"))
            .hint("name the file with `--file PATH`, or give the directory that has a Dockerfile")
    })?;
    let ignore = read(&ignore)
        .ok()
        .map(|text| IgnoreFile { name: ignore.clone(), patterns: parse_ignore_file(&text) });
    Ok(Loaded { text, ignore })
}

/// Reads the ignore file of one of the client's directories; empty if there is none.
pub(super) async fn ignore_file(job: &Job, directory: &str) -> Result<IgnoreFile, Diagnostic> {
    let request = LocalRequest {
        follow_paths: vec![IGNORE.to_owned()],
        shared_key_hint: format!("{directory}-{IGNORE}"),
        always_send: true,
        ..LocalRequest::named(directory)
    };
    let fetched = job.contexts.directory(&request).await?;
    match read_below(&fetched.directory.path, IGNORE) {
        Ok(text) => Ok(IgnoreFile { name: IGNORE.to_owned(), patterns: parse_ignore_file(&text) }),
        Err(_) => Ok(IgnoreFile::default()),
    }
}

/// Reads a file of a directory that a client filled: no link leads out of it.
fn read_below(directory: &Path, path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let root = slipway_files::Root::open(directory).map_err(std::io::Error::other)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let resolve = rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, path, flags, rustix::fs::Mode::empty(), resolve)?;
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text)?;
    Ok(text)
}
