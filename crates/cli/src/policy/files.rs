//! Files that policies name: below the build context, wherever that is, or below the working directory.

use std::io::ErrorKind as IoErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use slipway_engine::{RemoteFilesRequest, RemoteNames};
use slipway_model::progress::NoEvents;
use slipway_model::solve::StepOptions;
use slipway_model::{Diagnostic, ErrorKind};
use slipway_policy::PolicyFiles;
use tokio_util::sync::CancellationToken;

use crate::builder::Builder;
use crate::settings::policy::{PolicyRoot, PolicySettings, WORKING_DIRECTORY};

/// Where the files of a build's policies are.
pub(crate) struct Files {
    root: PolicyRoot,
    working_directory: PathBuf,
    /// For a context elsewhere.
    remote: Option<(Arc<Builder>, CancellationToken)>,
    /// What opens it.
    offers: StepOptions,
}

impl Files {
    pub(super) fn new(settings: &PolicySettings, builder: Arc<Builder>, cancel: CancellationToken) -> Self {
        Self {
            root: settings.root.clone(),
            working_directory: settings.working_directory.clone(),
            remote: Some((builder, cancel)),
            offers: settings.offers.clone(),
        }
    }

    /// Gives the files of one directory.
    pub(crate) fn of_directory(directory: PathBuf) -> Self {
        Self {
            root: PolicyRoot::Directory(directory.clone()),
            working_directory: directory,
            remote: None,
            offers: StepOptions::default(),
        }
    }
}

#[async_trait]
impl PolicyFiles for Files {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Diagnostic> {
        if let Some(name) = name.strip_prefix(WORKING_DIRECTORY) {
            return read_below(&self.working_directory, name);
        }
        match (&self.root, &self.remote) {
            (PolicyRoot::Directory(directory), _) => read_below(directory, name),
            (PolicyRoot::Url(url), Some((builder, cancel))) => {
                let name = name.trim_start_matches('/').to_owned();
                let request = RemoteFilesRequest {
                    id: crate::settings::build::new_id(),
                    url: url.clone(),
                    names: RemoteNames::Existing(vec![name]),
                    offers: self.offers.clone(),
                };
                let found = builder.remote_files(request, Arc::new(NoEvents), cancel).await?;
                // An address of one file has no others.
                let has_names = found.directory.is_some();
                Ok(found.files.into_iter().next().filter(|_| has_names).map(|(_, content)| content))
            }
            _ => Ok(None),
        }
    }
}

/// Reads a file that has to be below a directory, whatever links are on the way.
fn read_below(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, Diagnostic> {
    let failed = |cause: String| {
        Diagnostic::new(ErrorKind::User, format!("failed to read policy file {name}")).cause(cause)
    };
    let path = Path::new(name);
    let inside = path.strip_prefix(directory).unwrap_or(path);
    let outside = || failed(format!("it is not below `{}`", directory.display()));
    if inside.is_absolute() || inside.components().any(|part| part == Component::ParentDir) {
        return Err(outside());
    }
    let found = directory.canonicalize().and_then(|top| Ok((directory.join(inside).canonicalize()?, top)));
    match found {
        Err(error) if matches!(error.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed(error.to_string())),
        Ok((path, top)) if !path.starts_with(&top) => Err(outside()),
        Ok((path, _)) => std::fs::read(path).map(Some).map_err(|error| failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_below_their_directory() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        std::fs::create_dir_all(top.join("sub")).unwrap();
        std::fs::write(top.join("sub/a"), "a").unwrap();
        std::fs::write(directory.path().join("b"), "b").unwrap();
        std::os::unix::fs::symlink("../b", top.join("link")).unwrap();
        let read = |name: &str| read_below(&top, name);
        assert_eq!(read("sub/a").unwrap().unwrap(), b"a");
        assert_eq!(read(&top.join("sub/a").display().to_string()).unwrap().unwrap(), b"a");
        assert_eq!(read("none").unwrap(), None);
        for outside in ["../b", "link", "/etc/passwd"] {
            assert!(read(outside).is_err(), "{outside}");
        }
    }
}
