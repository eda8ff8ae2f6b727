//! Frontends: what turns a request into definitions.
//!
//! The Dockerfile language is built in. A frontend in an image is a container that speaks the gateway protocol
//! to the build that started it.

mod client;
mod context;
mod dockerfile;
mod options;

use std::collections::BTreeMap;

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};

use crate::build::{Build, BuildResult};

pub use dockerfile::CallResult;
pub(crate) use dockerfile::{Answer, DockerfileFrontend};

/// Runs the frontend of that name.
pub(crate) async fn run(
    build: &Build,
    name: &str,
    options: &BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> Result<BuildResult, Vec<Diagnostic>> {
    match name {
        "dockerfile.v0" => {
            let request = options::request(options, inputs, &build.job.entitlements).map_err(|e| vec![e])?;
            match DockerfileFrontend::new(build, &request).map_err(|e| vec![e])?.run().await? {
                Answer::Built(result) => Ok(result),
                Answer::Called(call) => Ok(call.into_result()),
            }
        }
        "gateway.v0" => Err(vec![
            Diagnostic::new(ErrorKind::User, "frontends in images cannot be run yet")
                .hint("remove the `# syntax=` line if the file is an ordinary Dockerfile"),
        ]),
        other => Err(vec![Diagnostic::new(ErrorKind::User, format!("no frontend is called `{other}`"))]),
    }
}
