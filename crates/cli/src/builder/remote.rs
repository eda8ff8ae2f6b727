//! Builds elsewhere: the nodes of a builder, each a daemon that speaks BuildKit's interface.
//!
//! A build on one node is asked for as it is. On several, `fan_out` gives each its platforms and joins the results.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use serde_json::{Map, Value};
use slipway_daemon::client::{Built, GarbageRule, Stepper, Usage};
use slipway_engine::history::Record;
use slipway_engine::policy::{KnownSource, SourceJudge, Wanted};
use slipway_engine::{Attachment, Documents as _, Engine};
use slipway_model::llb::pb;
use slipway_model::progress::EventSink;
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform, SolveRequest};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::nodes::{Connected, Nodes};
use super::{BuildOutcome, CallAnswer, Feature, Place, PruneOptions, UsageRecord, fan_out};
use crate::builders::NodeGroup;
use crate::error::Failure;

/// A builder whose nodes are elsewhere.
pub(super) struct Remote {
    /// For what is at the client: registries, images in layouts, container engines.
    pub(super) engine: Engine,
    pub(super) group: NodeGroup,
    /// Builds have their directories in common.
    shares_directories: bool,
    nodes: OnceCell<Nodes>,
}

impl Remote {
    pub(super) fn new(engine: Engine, group: NodeGroup) -> Self {
        Self { engine, group, shares_directories: false, nodes: OnceCell::new() }
    }

    /// Connects to the nodes, once; those that are stopped are started.
    async fn nodes(&self, events: &Arc<dyn EventSink>) -> Result<&Nodes, Diagnostic> {
        let connect = || Nodes::connect(&self.group, self.shares_directories, events);
        self.nodes.get_or_try_init(connect).await
    }

    /// Returns the node that answers questions.
    async fn first(&self) -> Result<&Connected, Diagnostic> {
        let none = || Diagnostic::new(ErrorKind::Environment, "every node is down");
        self.quietly().await?.alive().first().ok_or_else(none)
    }

    async fn quietly(&self) -> Result<&Nodes, Diagnostic> {
        let silent: Arc<dyn EventSink> = Arc::new(slipway_model::progress::NoEvents);
        self.nodes(&silent).await
    }
}

#[async_trait]
impl Place for Remote {
    async fn build(
        &self,
        request: SolveRequest,
        judge: Option<Arc<dyn SourceJudge>>,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        stepper: Option<&dyn Stepper>,
    ) -> Result<BuildOutcome, Vec<Diagnostic>> {
        let nodes = tokio::select! {
            nodes = self.nodes(&events) => nodes.map_err(|error| vec![error])?,
            () = cancel.cancelled() => return Err(vec![Diagnostic::new(ErrorKind::User, "canceled")]),
        };
        let plan = nodes.plan(&request.platforms);
        if let [(node, _)] = plan.as_slice() {
            let alone = self.group.nodes.len() == 1;
            let (client, events, cancel) = (&node.client, events.clone(), cancel.clone());
            let built =
                client.build(&self.engine, &request, judge.clone(), events, cancel.clone(), stepper).await;
            match built {
                Err(error) if !alone && !cancel.is_cancelled() && !node.answers().await => {
                    drop(error);
                }
                built => return Ok(self.outcome(node, &request, built.map_err(|error| vec![error])?)),
            }
        }
        fan_out::build(self, nodes, request, fan_out::Whole { judge, events, cancel, stepper }).await
    }

    async fn learn(&self, source: &pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic> {
        self.first().await?.client.learn(&self.engine, source, wanted).await
    }

    async fn platform(&self) -> Result<Platform, Diagnostic> {
        Ok(self.first().await?.own_platform())
    }

    async fn check_has(&self, feature: Feature, name: &str) -> Result<(), Diagnostic> {
        for node in self.quietly().await?.alive() {
            if !node.client.has(feature).await.map_err(Diagnostic::from)? {
                let message = format!("{name} is not supported by the current BuildKit daemon");
                let (major, minor) = feature.since();
                return Err(Diagnostic::new(ErrorKind::User, message)
                    .cause(format!("the node `{}` is too old for it", node.name))
                    .hint(format!("upgrade its daemon to version v{major}.{minor} or later")));
            }
        }
        Ok(())
    }

    async fn disk_usage(&self) -> Result<Vec<UsageRecord>, Failure> {
        let mut records = Vec::new();
        for node in self.quietly().await?.alive() {
            let found = node.client.disk_usage(Vec::new()).await.map_err(Diagnostic::from)?;
            records.extend(found.into_iter().map(UsageRecord::from));
        }
        Ok(records)
    }

    async fn prune(&self, options: &PruneOptions) -> Result<Vec<UsageRecord>, Failure> {
        let request = GarbageRule {
            all: options.all,
            filters: options.filter.to_containerd().into_iter().collect(),
            keep: options.filter.until,
            reserved_space: options.reserved_space.unwrap_or(0),
            max_used_space: options.max_used_space.unwrap_or(0),
            min_free_space: options.min_free_space.unwrap_or(0),
        };
        let mut records = Vec::new();
        for node in self.quietly().await?.alive() {
            let removed = node.client.prune(&request).await.map_err(Diagnostic::from)?;
            records.extend(removed.into_iter().map(UsageRecord::from));
        }
        Ok(records)
    }

    async fn attachments(&self, record: &Record) -> Result<Vec<Attachment>, Failure> {
        let mut found = Vec::new();
        for node in self.quietly().await?.alive() {
            found.extend(node.client.attachments(&record.id).await?);
        }
        Ok(found)
    }

    async fn attachment(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        let mut last = None;
        for node in self.quietly().await?.alive() {
            match node.client.document(digest).await {
                Ok(document) => return Ok(document),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Diagnostic::new(ErrorKind::Environment, "every node is down")).into())
    }

    fn share_directories(&mut self) {
        self.shares_directories = true;
    }

    fn notes(&self, request: &SolveRequest) -> Vec<String> {
        use slipway_model::solve::OutputSpec;
        let nowhere = |output: &OutputSpec| matches!(output, OutputSpec::Image(image) if image.by_default);
        if !request.outputs.iter().any(nowhere) {
            return Vec::new();
        }
        vec![format!(
            "no output specified with {} driver: the result will only remain in the build cache. To push it use \
             `--push`, to load it into docker use `--load`",
            self.group.driver
        )]
    }
}

impl Remote {
    /// Makes of a daemon's answer what commands show.
    pub(super) fn outcome(&self, node: &Connected, request: &SolveRequest, built: Built) -> BuildOutcome {
        BuildOutcome::of_daemon(built, super::reference(&self.group.name, &node.name, &request.id))
    }
}

impl BuildOutcome {
    /// Takes what a daemon gave for the build that is called `reference`.
    pub(super) fn of_daemon(built: Built, reference: String) -> Self {
        let mut metadata: Map<String, Value> =
            built.response.into_iter().map(|(key, value)| (key, decoded(value))).collect();
        metadata.extend(built.provenance);
        if built.call.is_none() {
            metadata.insert(super::BUILD_REF.to_owned(), reference.into());
        }
        Self { metadata, answer: built.call.map(CallAnswer::from) }
    }
}

/// Shows a member of the response as the reference does: JSON that came encoded is JSON.
fn decoded(value: String) -> Value {
    let text = base64::engine::general_purpose::STANDARD.decode(&value).ok();
    let document = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    document.filter(Value::is_object).unwrap_or(Value::String(value))
}

impl From<Usage> for UsageRecord {
    fn from(usage: Usage) -> Self {
        Self {
            id: usage.id,
            parents: usage.parents,
            kind: usage.kind,
            description: usage.description,
            size: usage.size,
            mutable: usage.mutable,
            in_use: usage.in_use,
            shared: usage.shared,
            usage_count: usage.usage_count,
            created: usage.created,
            last_used: usage.last_used,
        }
    }
}
