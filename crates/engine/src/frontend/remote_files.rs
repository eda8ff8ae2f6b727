//! Files at an address, for whoever needs them before there is a request: a bake definition in a repository, in an
//! archive, or alone.

use std::sync::Arc;

use slipway_dockerfile::{ConvertOptions, MainContext, context_definition, directory_of_repository};
use slipway_model::progress::EventSink;
use slipway_model::solve::{ContextSource, StepOptions};
use slipway_model::{Diagnostic, ErrorKind, Platform};
use tokio_util::sync::CancellationToken;

use super::context::{BuildContext, FILE};
use crate::build::BuildOptions;
use crate::engine::Engine;
use crate::error::internal;
use crate::session::EmbeddedSession;

/// What is wanted of an address.
#[derive(Debug)]
pub struct RemoteFilesRequest {
    /// Names the work, as a build's id does.
    pub id: String,
    pub url: String,
    pub names: RemoteNames,
    /// Offers its secrets and agents to the one who fetches.
    pub offers: StepOptions,
}

/// Which files are wanted.
#[derive(Debug)]
pub enum RemoteNames {
    /// All of these.
    All(Vec<String>),
    /// Those of these that are there.
    Existing(Vec<String>),
}

/// Files that were found at an address.
#[derive(Debug)]
pub struct RemoteFiles {
    /// By name, in the order of the request; the only file of an address is called by the address.
    pub files: Vec<(String, Vec<u8>)>,
    /// The directory they are in; `None` if the address is that of one file.
    pub directory: Option<RemoteDirectory>,
}

/// A directory at an address.
#[derive(Clone, Debug)]
pub struct RemoteDirectory {
    url: String,
    main: MainContext,
}

impl RemoteDirectory {
    /// Returns the address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address of a directory below this one; those in archives have none.
    pub fn address(&self, path: &str) -> Option<String> {
        match (&self.main, path.trim_start_matches("./").trim_matches('/')) {
            (_, "" | ".") => Some(self.url.clone()),
            (MainContext::Git(_), path) => directory_of_repository(&self.url, path),
            _ => None,
        }
    }

    /// Makes a build context of a directory below this one.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn context(&self, path: &str) -> Result<ContextSource, Diagnostic> {
        if let Some(url) = self.address(path) {
            return Ok(ContextSource::Url(url));
        }
        let path = path.trim_start_matches('/');
        let main_context = MainContext::Below(Box::new(self.main.clone()), path.to_owned());
        let options = ConvertOptions { main_context, ..any_options() };
        Ok(ContextSource::Definition(Box::new(context_definition(&options)?)))
    }
}

/// Options for a context alone, which is the same for every platform.
fn any_options() -> ConvertOptions {
    ConvertOptions::new(Platform::host(), Platform::host())
}

impl Engine {
    /// Fetches files from an address.
    ///
    /// # Errors
    /// The address cannot be reached, or a file is not there.
    pub async fn remote_files(
        &self,
        request: RemoteFilesRequest,
        events: Arc<dyn EventSink>,
        cancel: &CancellationToken,
    ) -> Result<RemoteFiles, Diagnostic> {
        let session = Arc::new(EmbeddedSession::offering(self, &request.offers));
        let options = BuildOptions { session, ..BuildOptions::local(request.id) };
        let build = self.start(options, events, cancel)?;
        let fetch = BuildContext::fetch(&build, &request.url, any_options());
        let BuildContext::Remote { main, reference } = build.until_cancelled(fetch).await? else {
            return Err(internal("an address gave no files"));
        };
        if matches!(main, MainContext::HttpFile(_)) {
            let content = build.read_file(Some(&reference), FILE, None).await?;
            return Ok(RemoteFiles { files: vec![(request.url, content)], directory: None });
        }
        build.evaluate(&reference).await?;
        let (names, required) = match request.names {
            RemoteNames::All(names) => (names, true),
            RemoteNames::Existing(names) => (names, false),
        };
        let mut files = Vec::new();
        for name in names {
            if build.stat_file(Some(&reference), &name).await.is_err() {
                if required {
                    let message = format!("failed to read `{name}` of `{}`", request.url);
                    return Err(Diagnostic::new(ErrorKind::User, message).cause("there is no such file"));
                }
                continue;
            }
            files.push((name.clone(), build.read_file(Some(&reference), &name, None).await?));
        }
        Ok(RemoteFiles { files, directory: Some(RemoteDirectory { url: request.url, main }) })
    }
}
