//! Builds in this process: the engine itself.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use slipway_daemon::InProcess;
use slipway_daemon::client::{Built, EngineStepper, Stepper};
use slipway_engine::history::Record;
use slipway_engine::policy::{KnownSource, SourceJudge, Wanted};
use slipway_engine::store::{self, UsageItem};
use slipway_engine::{
    Attachment, BuildOptions, Debugger, Documents as _, Engine, ExportOptions, SolveResponse,
};
use slipway_model::llb::pb;
use slipway_model::progress::{EventSink, NoEvents};
use slipway_model::solve::OutputSpec;
use slipway_model::{Diagnostic, Digest, Platform, SolveRequest};
use tokio_util::sync::CancellationToken;

use super::{BuildOutcome, CallAnswer, Feature, Place, PruneOptions, UsageRecord};
use crate::error::Failure;

/// This machine, without a daemon.
pub(super) struct Embedded {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) node: String,
}

#[async_trait]
impl Place for Embedded {
    async fn build(
        &self,
        request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<BuildOutcome, Vec<Diagnostic>> {
        let reference = super::reference(&self.name, &self.node, &request.id);
        let solved = {
            let stepper = stepper.map(EngineStepper);
            let debugger = stepper.as_ref().map(|stepper| stepper as &dyn Debugger);
            let (request, judge, events) = (request.clone(), judge.clone(), events.clone());
            self.engine.solve_with(request, judge, events, cancel.clone(), debugger).await?
        };
        if solved.other_frontend.is_some() {
            let built = self.build_by_frontend(request, judge, events, cancel, stepper).await;
            return Ok(BuildOutcome::of_daemon(built.map_err(|error| vec![error])?, reference));
        }
        let mut outcome = BuildOutcome::from(solved);
        if let Some(own) = outcome.metadata.get_mut(super::BUILD_REF) {
            *own = reference.into();
        }
        Ok(outcome)
    }

    async fn learn(&self, source: &pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic> {
        let options = BuildOptions::local(crate::settings::build::new_id());
        let build = self.engine.start(options, Arc::new(NoEvents), &CancellationToken::new())?;
        build.learn(source.clone(), wanted).await
    }

    async fn platform(&self) -> Result<Platform, Diagnostic> {
        Ok(Platform::host())
    }

    async fn check_has(&self, _: Feature, _: &str) -> Result<(), Diagnostic> {
        Ok(())
    }

    async fn disk_usage(&self) -> Result<Vec<UsageRecord>, Failure> {
        Ok(self.engine.usage()?.iter().map(UsageRecord::from).collect())
    }

    async fn prune(&self, options: &PruneOptions) -> Result<Vec<UsageRecord>, Failure> {
        let now = SystemTime::now();
        let wanted = |item: &UsageItem| options.filter.matches(&UsageRecord::from(item), now);
        let removed = self.engine.prune(&store::PruneOptions {
            all: options.all,
            keep_duration: options.filter.until,
            filter: Some(&wanted),
            max_used: options.max_used_space.unwrap_or(0),
            reserved: options.reserved_space.unwrap_or(0),
            min_free: options.min_free_space.unwrap_or(0),
            dry_run: false,
        })?;
        Ok(removed.iter().map(UsageRecord::from).collect())
    }

    async fn attachments(&self, record: &Record) -> Result<Vec<Attachment>, Failure> {
        Ok(self.engine.attachments(record).await)
    }

    async fn attachment(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        Ok(self.engine.document(digest).await?)
    }

    fn share_directories(&mut self) {
        self.engine.share_directories();
    }

    fn tidy(&self) {
        self.engine.collect_garbage();
    }
}

impl Embedded {
    /// Asks a frontend in an image, by a daemon in this process: it is what frontends can speak to.
    async fn build_by_frontend(
        &self,
        mut request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<Built, Diagnostic> {
        let export =
            ExportOptions { keep: true, platform_check: request.platform_check, ..ExportOptions::default() };
        for output in &mut request.outputs {
            if let OutputSpec::Image(image) = output {
                // A daemon elsewhere leaves such a result in its cache: here it goes to slipway's own store.
                image.by_default = false;
            }
        }
        let daemon = InProcess::start(self.engine.clone(), request.entitlements.clone(), export).await?;
        daemon.build(&self.engine, &request, judge, events, cancel, stepper).await
    }
}

impl From<SolveResponse> for BuildOutcome {
    fn from(response: SolveResponse) -> Self {
        Self { metadata: response.metadata, answer: response.call.map(CallAnswer::from) }
    }
}

impl From<&UsageItem> for UsageRecord {
    fn from(item: &UsageItem) -> Self {
        Self {
            id: item.id.to_string(),
            parents: item.parents.iter().map(ToString::to_string).collect(),
            kind: item.kind.name().to_owned(),
            description: item.description.clone(),
            size: item.size,
            mutable: item.is_mutable(),
            in_use: item.in_use,
            shared: item.shared,
            usage_count: item.use_count,
            created: item.created_at,
            last_used: Some(item.last_used_at),
        }
    }
}
