//! What is built from: the context, the Dockerfile, the named contexts; standard input among them.
//!
//! An archive on standard input is received into a file without a name, reached through
//! `/proc/self/fd`, so that nothing is left behind however the process ends.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::AsRawFd as _;
use std::path::{Component, Path, PathBuf};

use slipway_model::solve::{
    ContextSource, DockerfileSource, LayoutSelector, NamedContext, NamedContextSource,
};
use slipway_model::{Platform, Reference};

use super::secrets::describe;
use super::values::nearest;
use super::{SettingsError, Surroundings};

/// The most that a Dockerfile may have.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// As much of a tar archive as tells that it is one.
const HEADER: usize = 512;

/// Context and Dockerfile, with the file that holds what standard input gave.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) context: ContextSource,
    pub(super) dockerfile: DockerfileSource,
    /// Keeps the received archive open.
    pub(super) received: Option<File>,
}

/// Finds out what `PATH | URL | -` and `--file` mean.
pub(super) fn inputs(
    context: &str,
    file: Option<&str>,
    around: &mut Surroundings,
) -> Result<Inputs, SettingsError> {
    let file = file.filter(|file| !file.is_empty());
    if context.is_empty() {
        return Err(SettingsError::flag("please specify build context")
            .hint("write `slipway build .` to build from the current directory"));
    }
    if context == "-" {
        return from_stdin(file, around);
    }
    let directory = around.absolute(context);
    if directory.is_dir() {
        let dockerfile = match file {
            Some(text) => named_dockerfile(text, &directory, around)?,
            None => default_dockerfile(&directory)?,
        };
        return Ok(Inputs { context: ContextSource::Directory(directory), dockerfile, received: None });
    }
    if is_remote(context) {
        let dockerfile = match file {
            Some("-") => DockerfileSource::Inline(stdin_dockerfile(around)?),
            Some(url) if is_http(url) => DockerfileSource::Url(url.to_owned()),
            Some(path) => DockerfileSource::Path(path.into()),
            None => DockerfileSource::default(),
        };
        return Ok(Inputs { context: ContextSource::Url(context.to_owned()), dockerfile, received: None });
    }
    if directory.is_file() {
        return Err(SettingsError::input(format!("unable to prepare context: path \"{context}\" is a file"))
            .hint(format!("give the directory, and the file with `--file {context}`")));
    }
    Err(SettingsError::input(format!("unable to prepare context: path \"{context}\" not found"))
        .hint("give a directory that exists, a URL, or `-` for standard input"))
}

/// Finds out what a context is whose Dockerfile is given as text.
pub(super) fn with_inline(
    context: &str,
    dockerfile: &str,
    around: &Surroundings,
) -> Result<Inputs, SettingsError> {
    let directory = around.absolute(context);
    let source = if directory.is_dir() {
        ContextSource::Directory(directory)
    } else if is_remote(context) {
        ContextSource::Url(context.to_owned())
    } else {
        return Err(SettingsError::input(format!("unable to prepare context: path \"{context}\" not found"))
            .hint("give a directory that exists, or a URL"));
    };
    let dockerfile = DockerfileSource::Inline(checked_dockerfile(dockerfile.as_bytes().to_vec())?);
    Ok(Inputs { context: source, dockerfile, received: None })
}

/// Reads a Dockerfile or an archive from standard input, whichever it is.
fn from_stdin(file: Option<&str>, around: &mut Surroundings) -> Result<Inputs, SettingsError> {
    if file == Some("-") {
        return Err(SettingsError::flag(
            "invalid argument: can't use stdin for both build context and dockerfile",
        )
        .hint("give the context as a directory, or leave `--file` out"));
    }
    let mut start = Vec::new();
    read_some(around.stdin(), HEADER as u64, &mut start)?;
    if is_archive(&start) {
        let received = receive(&start, around.stdin())?;
        let context = ContextSource::Archive(format!("/proc/self/fd/{}", received.as_raw_fd()).into());
        let dockerfile = match file {
            Some(url) if is_http(url) => DockerfileSource::Url(url.to_owned()),
            Some(path) => DockerfileSource::Path(path.into()),
            None => DockerfileSource::default(),
        };
        return Ok(Inputs { context, dockerfile, received: Some(received) });
    }
    if file.is_some() {
        return Err(SettingsError::flag(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        )
        .hint("leave `--file` out, or send the context as a tar archive"));
    }
    let mut text = start;
    read_some(around.stdin(), MAX_DOCKERFILE, &mut text)?;
    let dockerfile = DockerfileSource::Inline(checked_dockerfile(text)?);
    Ok(Inputs { context: ContextSource::Empty, dockerfile, received: None })
}

fn stdin_dockerfile(around: &mut Surroundings) -> Result<Vec<u8>, SettingsError> {
    let mut text = Vec::new();
    read_some(around.stdin(), MAX_DOCKERFILE + 1, &mut text)?;
    checked_dockerfile(text)
}

fn checked_dockerfile(text: Vec<u8>) -> Result<Vec<u8>, SettingsError> {
    if text.is_empty() {
        return Err(SettingsError::input("the Dockerfile on standard input is empty")
            .hint("send it with `slipway build - < Dockerfile`"));
    }
    if text.len() as u64 > MAX_DOCKERFILE {
        return Err(SettingsError::input("the Dockerfile on standard input is larger than 16 MiB"));
    }
    Ok(text)
}

fn read_some(from: &mut dyn Read, most: u64, into: &mut Vec<u8>) -> Result<(), SettingsError> {
    from.take(most).read_to_end(into).map(drop).map_err(unreadable)
}

fn unreadable(error: io::Error) -> SettingsError {
    SettingsError::input(format!("failed to read standard input: {error}"))
}

/// Copies an archive into a file that has no name.
fn receive(start: &[u8], rest: &mut dyn Read) -> Result<File, SettingsError> {
    let store = |error: io::Error| {
        SettingsError::input(format!("failed to keep the context from standard input: {error}"))
            .hint("set `TMPDIR` to a directory with more space")
    };
    let mut file = tempfile::tempfile().map_err(store)?;
    io::Write::write_all(&mut file, start).map_err(store)?;
    io::copy(rest, &mut file).map_err(store)?;
    file.rewind().map_err(store)?;
    Ok(file)
}

/// Tells by the first bytes whether they start a tar archive, compressed or not.
fn is_archive(start: &[u8]) -> bool {
    const MAGIC: &[&[u8]] = &[b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    MAGIC.iter().any(|magic| start.starts_with(magic)) || is_tar_header(start)
}

/// Checks the checksum of a tar header, the sum of its bytes with the checksum's own as blanks.
fn is_tar_header(start: &[u8]) -> bool {
    let Some(header) = start.get(..HEADER) else { return false };
    let field = &header[148..156];
    let digits: String =
        field.iter().map(|&b| b as char).skip_while(|c| *c == ' ').take_while(char::is_ascii_digit).collect();
    let Ok(stored) = u64::from_str_radix(&digits, 8) else { return false };
    let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
    let own: u64 = field.iter().map(|&b| u64::from(b)).sum();
    stored == sum - own + 8 * u64::from(b' ')
}

/// Finds the file that `--file` names from the working directory.
fn named_dockerfile(
    text: &str,
    context: &Path,
    around: &mut Surroundings,
) -> Result<DockerfileSource, SettingsError> {
    if text == "-" {
        return Ok(DockerfileSource::Inline(stdin_dockerfile(around)?));
    }
    if is_http(text) {
        return Ok(DockerfileSource::Url(text.to_owned()));
    }
    let path = around.absolute(text);
    if !path.exists() {
        return Err(missing_named(text, &path, context));
    }
    if path.is_dir() {
        return Err(SettingsError::input(format!("failed to read dockerfile: {text} is a directory"))
            .hint(format!("write `--file {}`", Path::new(text).join("Dockerfile").display())));
    }
    Ok(DockerfileSource::Path(relative_to(&path, context)))
}

fn missing_named(text: &str, path: &Path, context: &Path) -> SettingsError {
    let name = path.file_name().map_or(text.into(), |name| name.to_string_lossy());
    let error =
        SettingsError::input(format!("failed to read dockerfile: open {name}: no such file or directory"));
    let below = context.join(text);
    if below.exists() {
        return error
            .hint(format!("`--file` starts at the working directory: write `--file {}`", below.display()));
    }
    let siblings = path.parent().map(dockerfiles_in).unwrap_or_default();
    let known: Vec<&str> = siblings.iter().map(String::as_str).collect();
    match nearest(&name, &known) {
        Some(near) => error.hint(format!("did you mean `--file {}`?", path.with_file_name(near).display())),
        None => error.hint(format!("there is no `{text}`")),
    }
}

/// Returns `path` as it is below `context`, or as an absolute path if it is elsewhere.
fn relative_to(path: &Path, context: &Path) -> PathBuf {
    if let Ok(below) = path.strip_prefix(context)
        && !below.components().any(|part| part == Component::ParentDir)
    {
        return below.components().filter(|part| *part != Component::CurDir).collect();
    }
    let resolved = || -> Option<PathBuf> {
        let parent = path.parent()?.canonicalize().ok()?;
        let below = parent.strip_prefix(context.canonicalize().ok()?).ok()?.join(path.file_name()?);
        Some(below)
    };
    resolved().unwrap_or_else(|| path.to_owned())
}

/// Finds `Dockerfile`, or as the reference does `dockerfile`.
fn default_dockerfile(context: &Path) -> Result<DockerfileSource, SettingsError> {
    for name in ["Dockerfile", "dockerfile"] {
        if context.join(name).is_file() {
            return Ok(DockerfileSource::Path(name.into()));
        }
    }
    let error = SettingsError::input("failed to read dockerfile: open Dockerfile: no such file or directory");
    let others = dockerfiles_in(context);
    Err(match others.first() {
        Some(other) => error.hint(format!("write `--file {}`", context.join(other).display())),
        None => {
            error.hint(format!("there is no Dockerfile in `{}`: name one with `--file`", context.display()))
        }
    })
}

/// Lists the files of a directory that have the name of a Dockerfile.
fn dockerfiles_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let likely = |name: &str| {
        let lower = name.to_ascii_lowercase();
        !lower.ends_with("ignore") && (lower.contains("dockerfile") || lower.contains("containerfile"))
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|n| likely(n))
        .collect();
    names.sort();
    names
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Tells whether a text is a URL of an archive or a Dockerfile, or names a git repository.
pub(super) fn is_remote(text: &str) -> bool {
    is_http(text) || text.starts_with("github.com/") || text.starts_with("git://") || is_git_ssh(text)
}

/// Tells whether a text names a git repository that is reached by SSH.
pub(super) fn is_git_ssh(text: &str) -> bool {
    if text.starts_with("ssh://") {
        return true;
    }
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match text.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?))) {
        Some((user, (host, path))) => {
            !user.is_empty()
                && user.chars().all(word)
                && !host.is_empty()
                && host.chars().all(word)
                && !path.is_empty()
        }
        None => false,
    }
}

/// Parses every `--build-context name=value`; the last of a name counts.
pub(super) fn named(values: &[String], around: &Surroundings) -> Result<Vec<NamedContext>, SettingsError> {
    let mut list: Vec<NamedContext> = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let context = named_context(value, around)?;
        list.retain(|other| (&other.name, &other.platform) != (&context.name, &context.platform));
        list.push(context);
    }
    Ok(list)
}

fn named_context(value: &str, around: &Surroundings) -> Result<NamedContext, SettingsError> {
    let (name, source) = value.split_once('=').ok_or_else(|| {
        SettingsError::flag(format!("invalid context value: {value}, expected key=value"))
            .hint("write `--build-context NAME=PATH` or `--build-context NAME=docker-image://IMAGE`")
    })?;
    let source = |bare: &str| named_source(bare, source, around);
    with_source(name, source)
}

/// Takes an OCI layout that is written before the build reads it.
pub(super) fn layout_source(path: PathBuf) -> NamedContextSource {
    NamedContextSource::OciLayout { path, selector: LayoutSelector::Default }
}

/// Makes a named context of something that is made already.
pub(super) fn made(name: &str, source: NamedContextSource) -> Result<NamedContext, SettingsError> {
    with_source(name, |_| Ok(source))
}

/// Parses the name of a named context, which may end in a platform.
fn with_source(
    name: &str,
    source: impl FnOnce(&str) -> Result<NamedContextSource, SettingsError>,
) -> Result<NamedContext, SettingsError> {
    let (name, platform) = match name.split_once("::") {
        Some((name, platform)) => (name, Some(platform)),
        None => (name, None),
    };
    let reference: Reference =
        name.parse().map_err(|error| SettingsError::flag(format!("invalid context name {name}: {error}")))?;
    let familiar = reference.familiar();
    let platform = platform
        .map(|text| text.parse::<Platform>())
        .transpose()
        .map_err(|error| SettingsError::flag(format!("invalid context name {name}: {error}")))?;
    Ok(NamedContext {
        name: familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned(),
        platform,
        source: source(name)?,
    })
}

/// Parses what a named context stands for.
pub(crate) fn named_source(
    name: &str,
    source: &str,
    around: &Surroundings,
) -> Result<NamedContextSource, SettingsError> {
    if let Some(image) = source.strip_prefix("docker-image://") {
        let reference = image.parse().map_err(|error| {
            SettingsError::flag(format!("invalid image `{image}` of build context `{name}`: {error}"))
        })?;
        return Ok(NamedContextSource::Image(reference));
    }
    if let Some(layout) = source.strip_prefix("oci-layout://") {
        return oci_layout(name, layout, around);
    }
    if let Some(target) = source.strip_prefix("target:") {
        return Err(SettingsError::flag(format!(
            "build context `{name}` is the target `{target}` of a bake file, and this is no bake file"
        ))
        .hint("build the target first and name its image with `docker-image://`"));
    }
    let path = around.absolute(source);
    if path.is_dir() {
        return Ok(NamedContextSource::Directory(path));
    }
    if is_remote(source) {
        return Ok(NamedContextSource::Url(source.to_owned()));
    }
    let reason = match std::fs::metadata(&path) {
        Ok(_) => "not a directory".to_owned(),
        Err(error) => describe(&error),
    };
    Err(SettingsError::input(format!("failed to get build context {name}: stat {source}: {reason}"))
        .hint("a build context is a directory, a URL, `docker-image://IMAGE` or `oci-layout://PATH`"))
}

/// Parses `PATH[:TAG][@DIGEST]`.
fn oci_layout(name: &str, text: &str, around: &Surroundings) -> Result<NamedContextSource, SettingsError> {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) if digest.contains(':') => {
            let digest = digest
                .parse()
                .map_err(|error| SettingsError::flag(format!("invalid build context `{name}`: {error}")))?;
            (rest, Some(digest))
        }
        _ => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.is_empty() && !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    let selector = match (digest, tag) {
        (Some(digest), _) => LayoutSelector::Digest(digest),
        (None, Some(tag)) => LayoutSelector::Tag(tag.to_owned()),
        (None, None) => LayoutSelector::Default,
    };
    let absolute = around.absolute(path);
    if !absolute.join("index.json").is_file() {
        return Err(SettingsError::input(format!(
            "failed to get build context {name}: there is no OCI layout at {path}"
        ))
        .hint(
            "an OCI layout is a directory with an `index.json`; make one with `--output type=oci,tar=false`",
        ));
    }
    Ok(NamedContextSource::OciLayout { path: absolute, selector })
}

#[cfg(test)]
mod tests;
