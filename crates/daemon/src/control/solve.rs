//! One build of one client, from its request to the exporter's response.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slipway_engine::policy::SourceJudge;
use slipway_engine::{
    Build, BuildOptions, BuildResult, ExportOptions, ExportResult, ExporterRequest, FrontendRequest,
    RecordedProvenance, Refs,
};
use slipway_model::progress::Warning;
use slipway_model::solve::{Entitlement, SourceDateEpoch};
use slipway_model::{Compatibility, Diagnostic, Digest, ErrorKind};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Daemon;
use super::cache::Caches;
use super::check;
use crate::builds::Running;
use crate::gateway::Bridge;
use crate::session::{BuildSession, PolicySession};
use crate::wire::control::{Exporter, SolveResponse};
use crate::wire::extra::ControlSolveRequest;
use crate::wire::{error, policy};

/// What a build gave, for its client and for its record.
pub(crate) struct Given {
    pub(crate) response: BTreeMap<String, String>,
    /// The images that were made, by the position of their exporter.
    pub(crate) images: BTreeMap<usize, slipway_model::Descriptor>,
    pub(crate) provenance: Vec<RecordedProvenance>,
}

/// Builds; the build ends when the returned future is dropped, as it is when the client goes away.
pub(crate) async fn solve(
    daemon: Arc<Daemon>,
    mut request: ControlSolveRequest,
) -> Result<SolveResponse, Status> {
    modernize(&mut request);
    let entitlements = entitlements(&daemon, &request.entitlements)?;
    let running = daemon.builds.start(&request.reference)?;
    let recorded = (!request.internal).then(|| daemon.history.start(&request));
    let cancel = daemon.stopping.child_token();
    let _stop = cancel.clone().drop_guard();
    let work = run(&daemon, &request, &running, entitlements, &cancel, recorded.is_some());
    let result = tokio::select! {
        result = work => result,
        () = daemon.stopping.cancelled() => {
            Err(vec![Diagnostic::new(ErrorKind::Environment, "the daemon is stopping")])
        }
    };
    let result = result.map_err(|diagnostics| error::status_of_all(&diagnostics));
    if let Some(recorded) = recorded {
        recorded.finish(&running.happened.all(), result.as_ref());
    }
    collect_garbage(&daemon);
    result.map(|given| SolveResponse { exporter_response: given.response.into_iter().collect() })
}

/// Tidies the state, off the path of the answer.
fn collect_garbage(daemon: &Arc<Daemon>) {
    if daemon.builds.count() <= 1 {
        let engine = daemon.engine.clone();
        drop(tokio::task::spawn_blocking(move || engine.collect_garbage()));
    }
}

async fn run(
    daemon: &Arc<Daemon>,
    request: &ControlSolveRequest,
    running: &Running,
    entitlements: BTreeSet<Entitlement>,
    cancel: &CancellationToken,
    is_recorded: bool,
) -> Result<Given, Vec<Diagnostic>> {
    let one = |diagnostic: Diagnostic| vec![diagnostic];
    let session = BuildSession::new(daemon.sessions.clone(), request.session.as_str());
    let attestations = slipway_engine::attestations(&request.frontend_attrs).map_err(one)?;
    let options = BuildOptions {
        id: request.reference.clone(),
        session: Arc::new(session.clone()),
        entitlements,
        proxy_network: request.proxy_network,
        request: FrontendRequest {
            frontend: request.frontend.clone(),
            options: request.frontend_attrs.clone(),
            inputs: request.frontend_inputs.clone(),
        },
        compatibility: Compatibility::of_number(request.compatibility_version).map_err(one)?,
    };
    let build = Arc::new(daemon.engine.start(options, running.happened.clone(), cancel).map_err(one)?);
    let caches = Caches::prepare(daemon, request).map_err(one)?;
    build.use_cache(&caches.options, caches.inline).map_err(one)?;
    use_policy(daemon, request, &build).map_err(one)?;
    let (sender, returned) = oneshot::channel();
    let bridge = Bridge::new(daemon.worker.clone(), build.clone(), request.frontend_inputs.clone(), sender);
    let bridge = Arc::new(bridge);
    running.set_bridge(bridge.clone());
    let result = Box::pin(result(request, &build, returned)).await?;
    check::result(&result).map_err(one)?;
    if let Some(short) = check::platforms_asked_for(&request.frontend_attrs, &result) {
        build.warn(warning(short));
    }
    let options = ExportOptions { epoch: epoch(request), attestations, ..daemon.export.clone() };
    let mut exporters = exporters(&request.exporters, &result);
    let client = match request.enable_session_exporter {
        true => Some(session.client().await.map_err(one)?),
        false => None,
    };
    if let Some(client) = &client {
        let metadata = result.metadata.clone().into_iter().collect();
        let refs = result.refs.iter().filter_map(|(_, reference)| reference);
        let refs = refs.map(|reference| bridge.register(Some(reference))).collect();
        let first = exporters.len();
        let found = client.find_exporters(metadata, refs).await.map_err(one)?;
        exporters.extend(found.into_iter().enumerate().map(|(index, found)| ExporterRequest {
            kind: found.kind,
            attributes: found.attrs,
            id: (first + index).to_string(),
        }));
    }
    let ExportResult { mut response, images } = Box::pin(build.export(&result, &exporters, &options)).await?;
    for (key, value) in &result.metadata {
        if key.starts_with("frontend.") {
            response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
        }
    }
    caches.give(&session).await.map_err(one)?;
    if let Some(client) = client {
        client.finalize_export(response.clone()).await.map_err(one)?;
    }
    let provenance = match is_recorded {
        true => Box::pin(build.provenance(&result, &options.attestations)).await.map_err(one)?,
        false => Vec::new(),
    };
    Ok(Given { response, images, provenance })
}

/// Sets what the client says of sources: its rules, and the session that is asked about them.
fn use_policy(daemon: &Daemon, request: &ControlSolveRequest, build: &Build) -> Result<(), Diagnostic> {
    let rules = request.source_policy.as_ref().map(policy::rules).transpose()?;
    let session = Some(&request.source_policy_session).filter(|id| !id.is_empty());
    if rules.is_none() && session.is_none() {
        return Ok(());
    }
    let verifier = session.map(|id| {
        let session = PolicySession::new(daemon.sessions.clone(), id.clone());
        Arc::new(session) as Arc<dyn SourceJudge>
    });
    build.use_policy(rules.unwrap_or_default(), verifier);
    Ok(())
}

/// Asks whoever makes the result: a frontend, a definition, or the client through the gateway.
async fn result(
    request: &ControlSolveRequest,
    build: &Arc<Build>,
    returned: oneshot::Receiver<Result<BuildResult, Diagnostic>>,
) -> Result<BuildResult, Vec<Diagnostic>> {
    if !request.frontend.is_empty() {
        let inputs = request.frontend_inputs.clone();
        return build.frontend(&request.frontend, &request.frontend_attrs, inputs).await;
    }
    // One without operations is there too: it is the empty file system.
    if let Some(definition) = request.definition.clone() {
        let reference = build.solve(definition, false).await.map_err(|e| vec![e])?;
        return Ok(BuildResult::new(Refs::Single(reference), BTreeMap::new()));
    }
    match returned.await {
        Ok(result) => result.map_err(|diagnostic| vec![diagnostic]),
        Err(_) => Err(vec![Diagnostic::new(ErrorKind::User, "the client ended the build without a result")]),
    }
}

/// Turns the fields of old clients into the present ones.
fn modernize(request: &mut ControlSolveRequest) {
    if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        let kind = std::mem::take(&mut request.exporter_deprecated);
        let attrs = std::mem::take(&mut request.exporter_attrs_deprecated);
        request.exporters.push(Exporter { r#type: kind, attrs: attrs.into_iter().collect() });
    }
}

/// Converts the exporters; the name `*` is whatever the frontend says.
fn exporters(exporters: &[Exporter], result: &BuildResult) -> Vec<ExporterRequest> {
    let named = result.metadata.get("image.name").map(|name| String::from_utf8_lossy(name).into_owned());
    let request = |(index, exporter): (usize, &Exporter)| {
        let mut attributes: BTreeMap<String, String> = exporter.attrs.clone().into_iter().collect();
        if attributes.get("name").is_some_and(|name| name == "*")
            && let Some(named) = &named
        {
            attributes.insert("name".to_owned(), named.clone());
        }
        ExporterRequest { kind: exporter.r#type.clone(), attributes, id: index.to_string() }
    };
    exporters.iter().enumerate().map(request).collect()
}

/// Makes a warning of what a client returned.
fn warning(short: String) -> Warning {
    Warning {
        vertex: Digest::of("result"),
        level: 1,
        short,
        detail: Vec::new(),
        url: None,
        source: None,
        ranges: Vec::new(),
    }
}

/// Reads the build argument that pins times; what is no number is for the frontend.
fn epoch(request: &ControlSolveRequest) -> Option<SourceDateEpoch> {
    let text = request.frontend_attrs.get("build-arg:SOURCE_DATE_EPOCH")?;
    text.parse().ok().map(SourceDateEpoch::Seconds)
}

fn entitlements(daemon: &Daemon, names: &[String]) -> Result<BTreeSet<Entitlement>, Status> {
    let mut granted = BTreeSet::new();
    for name in names {
        let unknown = |_| Status::unknown(format!("unknown entitlement {name}"));
        let entitlement: Entitlement = name.parse().map_err(unknown)?;
        let allowed = match &entitlement {
            Entitlement::Device(_) => !daemon.engine.devices().is_disabled(),
            other => daemon.entitlements.contains(other),
        };
        if !allowed {
            return Err(Status::unknown(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            )));
        }
        granted.insert(entitlement);
    }
    Ok(granted)
}
