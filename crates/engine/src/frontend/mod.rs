//! Frontends: what turns a request into definitions.
//!
//! The Dockerfile language is built in. A frontend in an image is a container that speaks the gateway protocol
//! to the build that started it.

mod arguments;
mod client;
mod context;
mod dockerfile;
mod image;
mod options;
mod remote_files;
mod resolver;
mod targets;

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};

use crate::attest::FrontendRequest;
use crate::build::{Build, BuildResult};
use crate::engine::Engine;

pub use arguments::frontend_options;
pub(crate) use arguments::told;
pub(crate) use context::download;
use dockerfile::Asked;
pub use dockerfile::CallResult;
pub(crate) use dockerfile::{Answer, DockerfileFrontend};
pub use image::{FrontendHost, FrontendReturn, FrontendStream};
pub use options::attestations;
pub use remote_files::{RemoteDirectory, RemoteFiles, RemoteFilesRequest, RemoteNames};
pub(crate) use targets::settle as settle_targets;

/// Runs the frontend of that name; frontends run each other.
pub(crate) fn run<'a>(
    build: &'a Build,
    name: &'a str,
    options: &'a BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> BoxFuture<'a, Result<BuildResult, Vec<Diagnostic>>> {
    let asked =
        FrontendRequest { frontend: name.to_owned(), options: options.clone(), inputs: inputs.clone() };
    let build = build.of_frontend(asked);
    async move {
        check_on(&build.engine(), name).map_err(|e| vec![e])?;
        let result = match name {
            "dockerfile.v0" => dockerfile(&build, options, inputs).await?,
            "gateway.v0" => image::run(&build, options, inputs).await?,
            other => {
                return Err(vec![Diagnostic::new(
                    ErrorKind::User,
                    format!("no frontend is called `{other}`"),
                )]);
            }
        };
        build.produced(&result);
        Ok(result)
    }
    .boxed()
}

/// Refuses a frontend that the configuration has turned off.
pub(crate) fn check_on(engine: &Engine, name: &str) -> Result<(), Diagnostic> {
    let frontends = &engine.config().frontends;
    let off = match name {
        "dockerfile.v0" => frontends.without_dockerfile,
        "gateway.v0" => frontends.without_gateway,
        _ => false,
    };
    match off {
        true => Err(Diagnostic::new(ErrorKind::User, format!("the frontend `{name}` is off"))
            .hint(format!("`enabled` of `[frontend.\"{name}\"]` in the configuration turns it on"))),
        false => Ok(()),
    }
}

async fn dockerfile(
    build: &Build,
    options: &BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> Result<BuildResult, Vec<Diagnostic>> {
    let request = options::request(options, inputs.clone(), &build.job.entitlements);
    let request = request.map_err(|e| vec![e])?;
    build.import_cache(&request.cache.imports).map_err(|e| vec![e])?;
    let frontend = DockerfileFrontend::new(build, &request).map_err(|e| vec![e])?;
    match frontend.asked(Asked { options, inputs: &inputs }).run().await? {
        Answer::Built(result) => Ok(result),
        Answer::Called(call) => Ok(call.into_result()),
        Answer::Elsewhere(image) => Err(vec![crate::error::internal(format!("`{image}` was not asked"))]),
    }
}
