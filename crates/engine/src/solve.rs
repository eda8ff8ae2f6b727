//! A request of this process, from its frontend to what its outputs were: a thin caller of [`Build`].

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use slipway_dockerfile::LintWarning;
use slipway_model::progress::EventSink;
use slipway_model::solve::{Frontend, SolveRequest};
use slipway_model::{Diagnostic, Digest};
use tokio_util::sync::CancellationToken;

use crate::build::{Build, BuildOptions, BuildResult, ExportOptions, Refs};
use crate::engine::Engine;
use crate::frontend::{Answer, CallResult, DockerfileFrontend};
use crate::policy::{SourceJudge, SourcePolicy};
use crate::session::EmbeddedSession;

/// What a build gave.
#[derive(Clone, Debug, Default)]
pub struct SolveResponse {
    /// The entries of the metadata file.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// The digest of the index, or of the manifest where there is one platform.
    pub digest: Option<Digest>,
    /// The digest of the config, where there is one platform and no index.
    pub config_digest: Option<Digest>,
    /// What the Dockerfile's checks say.
    pub warnings: Vec<LintWarning>,
    /// The answer to a call that does not build.
    pub call: Option<CallResult>,
    /// The image of the frontend that the Dockerfile is for: nothing was done, and a client of BuildKit's interface
    /// has to ask for the same.
    pub other_frontend: Option<String>,
}

/// Sees what a frontend has made of a request before any of it is built.
#[async_trait]
pub trait Debugger: Send + Sync {
    /// Builds the parts of a result in its own order; what is left when it returns is built as always.
    ///
    /// # Errors
    /// What failed, or why it shall not go on: the build ends with it.
    async fn debug(&self, build: Build, result: &BuildResult) -> Result<(), Diagnostic>;
}

impl Engine {
    /// Builds; `judge` is asked about every source.
    ///
    /// # Errors
    /// Every independent failure that was found; at least one.
    pub async fn solve(
        &self,
        request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<SolveResponse, Vec<Diagnostic>> {
        self.solve_with(request, judge, events, cancel, None).await
    }

    /// Builds, in the order of a debugger if there is one; `judge` is asked about every source.
    ///
    /// # Errors
    /// Every independent failure that was found; at least one.
    pub async fn solve_with(
        &self,
        request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        debugger: Option<&dyn Debugger>,
    ) -> Result<SolveResponse, Vec<Diagnostic>> {
        let start = || {
            let options = BuildOptions {
                session: Arc::new(EmbeddedSession::new(self, &request)),
                entitlements: request.entitlements.clone(),
                proxy_network: request.steps.proxy_network,
                ..BuildOptions::local(request.id.as_str())
            };
            let build = self.start(options, events.clone(), &cancel)?;
            build.use_cache(&request.cache, inline_cache(&request))?;
            let rules = request.source_policy.as_ref().map(SourcePolicy::new).transpose()?;
            if rules.is_some() || judge.is_some() {
                build.use_policy(rules.unwrap_or_default(), judge);
            }
            if request.steps.keep_failed {
                build.keep_failed_steps();
            }
            Ok(build)
        };
        let build = start().map_err(|e| vec![e])?;
        let solved = Self::solve_in(&build, &request, debugger).await;
        solved.inspect_err(|failures| self.keep_failed(&build, &request.id, failures))
    }

    async fn solve_in(
        build: &Build,
        request: &SolveRequest,
        debugger: Option<&dyn Debugger>,
    ) -> Result<SolveResponse, Vec<Diagnostic>> {
        let result = match answer(build, request).await? {
            Answer::Built(result) => result,
            Answer::Called(call) => {
                return Ok(SolveResponse { call: Some(call), ..SolveResponse::default() });
            }
            Answer::Elsewhere(image) => {
                return Ok(SolveResponse { other_frontend: Some(image), ..SolveResponse::default() });
            }
        };
        if let Some(debugger) = debugger {
            build.until_cancelled(debugger.debug(build.share(), &result)).await.map_err(|e| vec![e])?;
        }
        let options = ExportOptions {
            keep: true,
            epoch: request.source_date_epoch,
            platform_check: request.platform_check,
            attestations: request.attestations.clone(),
        };
        let exported = build.write(&result, &request.outputs, &options).await?;
        let mut metadata = exported.metadata;
        let provenance: BoxFuture<'_, _> =
            Box::pin(build.provenance_metadata(&result, &request.attestations));
        metadata.extend(provenance.await.map_err(|e| vec![e])?);
        metadata.insert("buildx.build.ref".to_owned(), serde_json::json!(request.id));
        Ok(SolveResponse {
            metadata,
            digest: exported.digest,
            config_digest: exported.config_digest,
            warnings: result.warnings,
            call: None,
            other_frontend: None,
        })
    }
}

/// Tells whether the Dockerfile's arguments ask for the cache in the image.
fn inline_cache(request: &SolveRequest) -> bool {
    let Frontend::Dockerfile(dockerfile) = &request.frontend else { return false };
    let value = dockerfile.build_args.get("BUILDKIT_INLINE_CACHE");
    value.and_then(|value| slipway_model::parse_bool(value)) == Some(true)
}

async fn answer(build: &Build, request: &SolveRequest) -> Result<Answer, Vec<Diagnostic>> {
    match &request.frontend {
        Frontend::Dockerfile(_) => {
            let build = build.of_frontend(crate::frontend::told(request));
            crate::frontend::check_on(&build.engine(), "dockerfile.v0").map_err(|e| vec![e])?;
            let request = build.until_cancelled(crate::frontend::settle_targets(&build, request)).await?;
            let frontend = DockerfileFrontend::new(&build, &request).map_err(|e| vec![e])?;
            build.until_cancelled(frontend.run()).await
        }
        Frontend::Definition(definition) => {
            let reference = build.solve(definition.clone(), false).await.map_err(|e| vec![e])?;
            Ok(Answer::Built(BuildResult::new(Refs::Single(reference), Default::default())))
        }
    }
}
