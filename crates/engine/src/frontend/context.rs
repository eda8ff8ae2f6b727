//! The main build context, and the Dockerfile in it or beside it.
//!
//! A context at an address is had like any other source, by a definition; it is the same in the definition of
//! the Dockerfile, so that it is fetched once. As in BuildKit, no `.dockerignore` of it counts: what is excluded
//! there need not be sent, and nothing is sent here.

use std::path::Path;
use std::sync::Arc;

use slipway_dockerfile::{
    ConvertOptions, GitReference, Ignored, MainContext, SourceFile, context_definition,
};
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};
use slipway_model::solve::DockerfileSource;
use slipway_model::{Diagnostic, ErrorKind};

use super::client::ClientDirectory;
use crate::build::{Build, Ref};
use crate::sources::local::LocalContext;

/// The name of a file at an address, where that is the context.
pub(super) const FILE: &str = "context";
/// As much of a file as tells whether it is an archive.
const START: u64 = 64 << 10;

/// The main context of a build.
pub(super) enum BuildContext {
    /// Not known yet.
    Nothing,
    /// An empty directory, since there is none.
    Empty(Arc<LocalContext>),
    Local(Arc<LocalContext>),
    /// A directory of a client elsewhere, of which nothing is here yet.
    Client(ClientDirectory),
    /// A directory that the client does not give; maybe nobody needs it.
    Missing(Box<Diagnostic>),
    Remote {
        main: MainContext,
        reference: Ref,
    },
}

impl BuildContext {
    /// Finds out what is at an address: a repository, an archive, or a Dockerfile.
    pub(super) async fn fetch(
        build: &Build,
        url: &str,
        mut options: ConvertOptions,
    ) -> Result<Self, Diagnostic> {
        let git = GitReference::parse(url).map_err(|error| {
            Diagnostic::new(ErrorKind::User, format!("cannot use `{url}` as build context"))
                .cause(error.to_string())
                .hint("an address of a repository ends as in `https://host/path.git#branch:directory`")
        })?;
        options.main_context = match git {
            Some(_) => MainContext::Git(url.to_owned()),
            None => MainContext::HttpFile(url.to_owned()),
        };
        let mut reference = reference(build, &options).await?;
        if git.is_none() {
            let start = build.read_file(Some(&reference), FILE, Some(0..START)).await?;
            if slipway_files::archive::is_archive(start.as_slice()) {
                options.main_context = MainContext::HttpArchive(url.to_owned());
                reference = self::reference(build, &options).await?;
            }
        }
        Ok(Self::Remote { main: options.main_context, reference })
    }

    /// Takes only a directory of a remote context; the Dockerfile is still looked for in the whole of it.
    pub(super) fn below(self, directory: Option<&str>) -> Self {
        match (self, directory) {
            (Self::Remote { main, reference }, Some(directory)) => {
                Self::Remote { main: MainContext::Below(Box::new(main), directory.to_owned()), reference }
            }
            (context, _) => context,
        }
    }

    /// Takes what a definition makes for the context.
    pub(super) async fn of_definition(
        build: &Build,
        definition: &pb::Definition,
    ) -> Result<Self, Diagnostic> {
        let admitted = build.admit_all(definition.clone(), &[]);
        match build.reference(build.until_cancelled(admitted).await?)? {
            Some(reference) => {
                Ok(Self::Remote { main: MainContext::Definition(Box::new(definition.clone())), reference })
            }
            None => Err(empty_definition()),
        }
    }

    /// Returns what the definition of the Dockerfile takes for the context.
    pub(super) fn main(&self) -> MainContext {
        match self {
            Self::Remote { main, .. } => main.clone(),
            Self::Nothing | Self::Empty(_) | Self::Local(_) | Self::Client(_) | Self::Missing(_) => {
                MainContext::Local
            }
        }
    }

    /// Returns the question whether the ignore file keeps a path out, if there is such a file.
    pub(super) fn ignored(&self) -> Option<Ignored> {
        match self {
            Self::Local(context) | Self::Empty(context) => context.ignored(),
            Self::Client(directory) => directory.ignored(),
            Self::Nothing | Self::Missing(_) | Self::Remote { .. } => None,
        }
    }

    /// Returns what the Dockerfile is called in messages.
    pub(super) fn dockerfile_name(&self, source: &DockerfileSource) -> String {
        let last = |url: &str| {
            let path = url.split(['?', '#']).next().unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            if name.is_empty() { "Dockerfile".to_owned() } else { name.to_owned() }
        };
        match (source, self) {
            (DockerfileSource::Inline(_), _) => "Dockerfile".to_owned(),
            (DockerfileSource::Url(url), _) => last(url),
            (DockerfileSource::Client { path, .. } | DockerfileSource::Definition { path, .. }, _) => {
                path.clone()
            }
            (_, Self::Remote { main: MainContext::HttpFile(url), .. }) => last(url),
            (DockerfileSource::Path(path), _) => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_else(|| path.display().to_string()),
        }
    }

    /// Reads the Dockerfile.
    pub(super) async fn read_dockerfile(
        &self,
        build: &Build,
        source: &DockerfileSource,
        name: &str,
    ) -> Result<SourceFile, Diagnostic> {
        let text = match (source, self) {
            (DockerfileSource::Inline(text), _) => text.clone(),
            (DockerfileSource::Url(url), _) => download(build, url).await?,
            (DockerfileSource::Client { path, .. }, _) => return Err(unreadable(Path::new(path))),
            (DockerfileSource::Definition { definition, path }, _) => {
                let admitted = build.admit_all((**definition).clone(), &[]);
                let reference = build.reference(build.until_cancelled(admitted).await?)?;
                let reference = reference.ok_or_else(empty_definition)?;
                read_remote(build, &reference, Path::new(path)).await?
            }
            (DockerfileSource::Path(path), Self::Remote { main, reference }) if !path.is_absolute() => {
                let path = match main {
                    // It is the only file there is.
                    MainContext::HttpFile(_) => Path::new(FILE),
                    _ => path,
                };
                read_remote(build, reference, path).await?
            }
            (DockerfileSource::Path(path), _) => {
                let directory = match self {
                    Self::Local(context) => Some(context.directory.as_path()),
                    _ => None,
                };
                let full = directory.map_or_else(|| path.clone(), |directory| directory.join(path));
                std::fs::read(&full).map_err(|error| {
                    let beside = full.parent().and_then(|directory| std::fs::read_dir(directory).ok());
                    let names = beside.into_iter().flatten().flatten().map(|entry| entry.file_name());
                    no_dockerfile(path, &error, names.map(|name| name.to_string_lossy().into_owned()))
                })?
            }
        };
        let definition = match source {
            DockerfileSource::Definition { definition, .. } => Some((**definition).clone()),
            _ => None,
        };
        Ok(SourceFile { definition, ..SourceFile::new(name, text) })
    }
}

/// Makes the reference of a remote context, if the client's policy lets it in: it is fetched before anything is
/// converted, and by itself.
async fn reference(build: &Build, options: &ConvertOptions) -> Result<Ref, Diagnostic> {
    let admitted = build.admit_all(context_definition(options)?, &[]);
    let made = build.reference(build.until_cancelled(admitted).await?)?;
    made.ok_or_else(|| crate::error::internal("a context without an operation"))
}

/// Reads the Dockerfile of a remote context, also by the name `dockerfile`.
async fn read_remote(build: &Build, reference: &Ref, path: &Path) -> Result<Vec<u8>, Diagnostic> {
    // What fails here is the context itself.
    build.evaluate(reference).await?;
    let lower = path.with_file_name("dockerfile");
    let names: &[&Path] = if path.ends_with("Dockerfile") { &[path, &lower] } else { &[path] };
    for name in names {
        if build.stat_file(Some(reference), &name.to_string_lossy()).await.is_ok() {
            return build
                .read_file(Some(reference), &name.to_string_lossy(), None)
                .await
                .map_err(|error| Diagnostic { causes: vec![error.to_string()], ..unreadable(path) });
        }
    }
    let directory = path.parent().unwrap_or(Path::new("")).to_string_lossy();
    let beside = build.read_dir(Some(reference), &directory, None).await.unwrap_or_default();
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    Err(no_dockerfile(path, &missing, beside.into_iter().map(|entry| entry.path)))
}

/// Reads a Dockerfile at an address.
pub(crate) async fn download(build: &Build, url: &str) -> Result<Vec<u8>, Diagnostic> {
    let attrs = [("http.filename".to_owned(), FILE.to_owned())].into();
    let source = pb::op::Op::Source(pb::SourceOp { identifier: url.to_owned(), attrs });
    let mut graph = GraphBuilder::new();
    let name = Some("[internal] load remote build definition".to_owned());
    let vertex = graph.add(&[], source, None, VertexMeta { name, ..VertexMeta::default() });
    let made = build.reference(graph.finish(Some(Edge { vertex, index: 0 })))?;
    build.read_file(made.as_ref(), FILE, None).await
}

/// Says it as the reference does; clients look for that.
fn empty_definition() -> Diagnostic {
    Diagnostic::new(ErrorKind::User, "invalid nil input definition to definition op")
}

fn unreadable(path: &Path) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("failed to read dockerfile: open {}", path.display()))
}

/// Says that there is no Dockerfile, and which file among those beside it may be meant.
fn no_dockerfile(
    path: &Path,
    error: &std::io::Error,
    mut beside: impl Iterator<Item = String>,
) -> Diagnostic {
    let text = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    };
    let message = format!("failed to read dockerfile: open {}: {text}", path.display());
    let candidate = beside.find(|name| {
        let name = name.to_lowercase();
        (name.contains("dockerfile") && !name.ends_with("ignore")) || name == "containerfile"
    });
    let hint = match candidate {
        Some(name) => format!("there is `{name}`: name it with `--file`"),
        None => "name the file with `--file PATH`, or give the directory that has a Dockerfile".to_owned(),
    };
    Diagnostic::new(ErrorKind::User, message).hint(hint)
}
