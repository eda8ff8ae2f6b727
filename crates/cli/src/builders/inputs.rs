//! What a build was made of, as buildx keeps it for Docker's other tools: the context and the Dockerfile.

use serde::Serialize;
use slipway_model::SolveRequest;
use slipway_model::solve::{Call, ContextSource, DockerfileSource, Frontend};

/// What stands for standard input.
const STDIN: &str = "-";

/// The inputs of one build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct BuildInputs {
    target: String,
    local_path: String,
    dockerfile_path: String,
}

impl BuildInputs {
    /// Takes them from a request; `None` if it builds nothing.
    pub(crate) fn of(request: &SolveRequest) -> Option<Self> {
        let Frontend::Dockerfile(dockerfile) = &request.frontend else { return None };
        if dockerfile.call != Call::Build {
            return None;
        }
        let (local_path, directory) = match &dockerfile.context {
            ContextSource::Directory(path) => (path.display().to_string(), Some(path)),
            ContextSource::Url(url) => (url.clone(), None),
            _ => (STDIN.to_owned(), None),
        };
        let dockerfile_path = match &dockerfile.dockerfile {
            DockerfileSource::Path(path) => match directory {
                Some(directory) => directory.join(path).display().to_string(),
                None => path.display().to_string(),
            },
            DockerfileSource::Url(url) => url.clone(),
            _ => STDIN.to_owned(),
        };
        let target = dockerfile.target.clone().unwrap_or_else(|| "default".to_owned());
        Some(Self { target, local_path, dockerfile_path })
    }
}
