//! Contexts that other requests make: their Dockerfiles are converted here, within the build that is made of them,
//! and what they give is a definition. So nothing waits for a target but the steps that read it, and what the target
//! and those made of it have in common runs once, by its key.
//!
//! The target's own build tells how its Dockerfile is read; of the steps that both have, the whole tells as well.

use std::borrow::Cow;

use futures_util::future::{BoxFuture, try_join_all};
use slipway_model::solve::{Frontend, NamedContext, NamedContextSource};
use slipway_model::{Diagnostic, ErrorKind, SolveRequest};

use super::dockerfile::{Answer, DockerfileFrontend};
use crate::build::{Build, BuildResult, key_of, keys};
use crate::error::internal;

/// Puts what targets give in the place of the contexts that are made of them.
pub(crate) fn settle<'r>(
    build: &'r Build,
    request: &'r SolveRequest,
) -> BoxFuture<'r, Result<Cow<'r, SolveRequest>, Vec<Diagnostic>>> {
    Box::pin(async move {
        let Frontend::Dockerfile(dockerfile) = &request.frontend else { return Ok(Cow::Borrowed(request)) };
        let is_target = |context: &NamedContext| matches!(context.source, NamedContextSource::Target { .. });
        if !dockerfile.named_contexts.iter().any(is_target) {
            return Ok(Cow::Borrowed(request));
        }
        let settled = dockerfile.named_contexts.iter().map(|context| async move {
            match &context.source {
                NamedContextSource::Target { name, request } => {
                    let result = converted(build, name, request).await?;
                    contexts(&context.name, &result).map_err(|error| vec![error])
                }
                _ => Ok(vec![context.clone()]),
            }
        });
        let named_contexts = try_join_all(settled).await?.into_iter().flatten().collect();
        let mut dockerfile = dockerfile.clone();
        dockerfile.named_contexts = named_contexts;
        let frontend = Frontend::Dockerfile(dockerfile);
        Ok(Cow::Owned(SolveRequest { frontend, ..request.clone() }))
    })
}

/// Converts a target's Dockerfile; nothing of it is built yet.
async fn converted(
    build: &Build,
    name: &str,
    request: &SolveRequest,
) -> Result<BuildResult, Vec<Diagnostic>> {
    let build = build.of_frontend(super::told(request));
    let request = settle(&build, request).await?;
    let frontend = DockerfileFrontend::new(&build, &request).map_err(|error| vec![error])?;
    match Box::pin(frontend.part_of_another().run()).await? {
        Answer::Built(result) => {
            let made = result.refs.iter().filter_map(|(_, reference)| reference);
            let steps = made.flat_map(|reference| &reference.decoded().vertices).map(|vertex| vertex.digest);
            build.job.progress.part(name, &steps.collect::<Vec<_>>());
            Ok(result)
        }
        Answer::Called(_) => Err(vec![internal("a context cannot be made of a call")]),
        Answer::Elsewhere(image) => Err(vec![
            Diagnostic::new(
                ErrorKind::User,
                format!(
                    "the target `{name}` cannot be a part of another: its frontend `{image}` is an image"
                ),
            )
            .hint("build the target by itself, and name its image with `docker-image://`"),
        ]),
    }
}

/// Makes a context of a result; of one with several platforms, one for each.
fn contexts(name: &str, result: &BuildResult) -> Result<Vec<NamedContext>, Diagnostic> {
    let context = |(id, reference): (&str, Option<&crate::build::Ref>)| {
        let platform = match id {
            "" => None,
            id => Some(id.parse().map_err(|error| internal(format!("the platform of a result: {error}")))?),
        };
        let config = result.metadata.get(&key_of(keys::CONFIG, id));
        let config = config.and_then(|bytes| serde_json::from_slice(bytes).ok()).map(Box::new);
        // The empty file system has the empty definition.
        let definition = reference.map(|reference| reference.definition().clone()).unwrap_or_default();
        let source = NamedContextSource::Definition { definition: Box::new(definition), config };
        Ok(NamedContext { name: name.to_owned(), platform, source })
    };
    result.refs.iter().map(context).collect()
}
